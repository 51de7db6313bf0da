"""Pairs in tars: what belongs together, what is left out, what is refused."""

import json
import logging
import os
import random
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.formats.photographs.photographs import read_source
from ovskit.core.formats.photographs.sources import list_sources
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError
from ovskit.core.runtime.failures import Failures, PartialError
from tests.formats.pairs.shards import pairs, png, said, sample, shard, tar_bytes, write_tar


def left_out(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]


def test_a_pair_says_who_it_is_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tar(Path("shards/00000.tar"), [("000000031.png", png(7)), ("000000031.txt", b" a dog\non grass \n")])
    (pair,) = pairs(tmp_path, "shards").read()
    assert pair.key == "00000/000000031"
    assert pair.file_name == "00000.tar/000000031.png"
    assert pair.captions == ("a dog\non grass",)
    assert pair.where == "shards/00000.tar: 000000031.txt"
    assert pair.image.id == 0
    assert pair.image.file_name == pair.file_name
    image, pixels = read_source(pair.image)
    assert (image.width, image.height) == (6, 4)
    assert (pixels == 7).all()


def test_images_are_named_as_feature_streams_name_them_and_keys_stay(tmp_path: Path) -> None:
    first, second = (write_tar(tmp_path / "x" / f"{k}.tar", shard(10 * k, 3)) for k in range(2))
    keys = {}
    for inputs in ([first], [first, second], [tmp_path / "x"], [tmp_path / "x" / "*.tar"]):
        found = pairs(tmp_path, *inputs)
        listed = list_sources([str(one) for one in inputs])
        assert found.root == listed.root
        assert [pair.file_name for pair in found.read()] == [source.file_name for source in listed.items]
        for pair, source in zip(found.read(), listed.items, strict=True):
            assert (pair.image.path, pair.image.offset, pair.image.length) == (source.path, source.offset, source.length)
            assert pair.image.read() == os.path.basename(pair.file_name).encode()
        keys[len(inputs), str(inputs[0])] = [pair.key for pair in found.read()]
    assert keys[1, str(first)] == ["0/00000", "0/00001", "0/00002"] == keys[2, str(first)][:3]
    assert keys[1, str(tmp_path / "x")] == keys[2, str(first)] == keys[1, str(tmp_path / "x" / "*.tar")]
    given = pairs(tmp_path, first, root=str(tmp_path))
    assert next((pair.key, pair.file_name) for pair in given.read()) == ("x/0/00000", "x/0.tar/00000.jpg")
    with pytest.raises(UsageError, match="does not hold"):
        pairs(tmp_path, first, root=str(tmp_path / "elsewhere"))


def test_every_way_to_write_captions(tmp_path: Path) -> None:
    members = [
        ("a.JPG", b""), ("a.TXT", b"upper case"),
        ("b.webp", b""), ("b.text", b"yfcc's own"),
        ("c.png", b""), ("c.caption", b"\xef\xbb\xbfmarked"),
        ("d.jpeg", b""), ("d.json", b'{"caption": " of json "}'),
        ("e.jpg", b""), ("e.json", b'{"captions": ["two", "one", "two ", "", 3], "caption": "first"}'), ("e.txt", b"from text"),
        ("f.jpg", b""), ("f.json", b'{"TEXT": "laion", "url": "u", "status": "success"}'),
        ("g.jpg", b""), ("g.json", b'{"txt": "t", "text": "x"}'), ("g.caption", b"c"), ("g.text", b"b"), ("g.txt", b"a"),
        ("d/h.i.jpg", b""), ("d/h.i.txt", b"dots"), ("__meta__", b"?"), ("j.cls", b"1"),
        ("l.jpg", b""), ("l.json", b'{"caption": "of others", "status": 200}'),
        ("k.jpg", b""), ("k.json", b'{"sha256": "none of these"}'), ("k.txt", "zwölf\r\nzeilen".encode()),
    ]  # fmt: skip
    write_tar(tmp_path / "t.tar", members)
    found = pairs(tmp_path, tmp_path / "t.tar")
    assert said(found.read()) == {
        "t/a": ("upper case",),
        "t/b": ("yfcc's own",),
        "t/c": ("marked",),
        "t/d": ("of json",),
        "t/d/h.i": ("dots",),
        "t/e": ("from text", "first", "two", "one"),
        "t/f": ("laion",),
        "t/g": ("a", "b", "c", "x"),
        "t/l": ("of others",),
        "t/k": ("zwölf\r\nzeilen",),
    }
    assert found.left_out == {}


def test_what_has_no_image_or_no_caption_is_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    members = [
        ("alone.jpg", b""),
        ("meta.jpg", b""), ("meta.json", b'{"caption": null}'),
        ("words.txt", b"no image"), ("words.json", b'{"caption": "none here either"}'),
        ("blank.jpg", b""), ("blank.txt", b" \n\t"), ("blank.json", b'{"caption": ""}'),
        ("latin.jpg", b""), ("latin.txt", "é".encode("latin-1")),
        ("broken.jpg", b""), ("broken.json", b'{"caption": "cut'),
        ("list.jpg", b""), ("list.json", b'["not an object"]'),
        ("failed.jpg", b""), ("failed.json", b'{"caption": "c", "status": "failed_to_resize"}'), ("failed.txt", b"c"),
        ("half.jpg", b""), ("half.json", b"{"), ("half.txt", b"still good"),
        ("._good.jpg", b""), (".hidden/x.jpg", b""),
        ("half2.jpg", b""), ("half2.json", b'{"captions": ["", "\\ud800"]}'),
        *sample("good", "a caption"),
    ]  # fmt: skip
    write_tar(tmp_path / "t.tar", members)
    found = pairs(tmp_path, tmp_path / "t.tar")
    with caplog.at_level(logging.INFO, "ovskit"):
        for _ in range(2):
            assert said(found.read()) == {"t/good": ("a caption",), "t/half": ("still good",)}
            assert found.count() == 2
    expected = {
        "images without a caption": 2,
        "captions without an image": 1,
        "blank captions": 1,
        "captions that are not UTF-8": 2,
        "captions in damaged JSON or rows": 3,
        "failed downloads": 1,
    }
    assert found.left_out == expected
    assert left_out(caplog) == ["left out: " + ", ".join(f"{reason} ({number})" for reason, number in sorted(expected.items()))]
    again = pairs(tmp_path, tmp_path / "t.tar")  # from the index
    assert again.count() == 2
    assert again.left_out == expected


def test_two_images_of_one_key_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "good.tar", shard(0, 2))
    for k, other in enumerate(("x.png", "x.JPG")):
        bad = write_tar(tmp_path / f"bad{k}.tar", [*sample("x", "c"), (other, b"")])
        with pytest.raises(InputError, match=r"bad\d.tar: two images have the key x: x\.\w+ and x\.\w+"):
            list(pairs(tmp_path, bad).read())
    failures = Failures(skip=True)
    found = pairs(tmp_path, tmp_path / "*.tar", failures=failures)
    assert [pair.key for pair in found.read()] == ["good/00000", "good/00001"]
    assert found.count() == 2
    assert next(iter(found.find(["bad0/x", "good/00001"]))) is None
    with pytest.raises(PartialError, match="skipped 2 tars"):
        failures.report(2)


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    for k, members in enumerate(([*sample("x", "c"), ("x.txt", b"d")], [*sample("x", "c"), ("./x.jpg", b"d")])):
        with pytest.raises(InputError, match=r"two members are named x\."):
            pairs(tmp_path, write_tar(tmp_path / f"{k}.tar", members)).count()


def test_nothing_of_a_cut_tar_is_used(tmp_path: Path) -> None:
    whole = tar_bytes(shard(0, 3))
    end = len(whole.rstrip(b"\0"))
    for k, cut in enumerate([*range(100, end, 700), -(-end // 512) * 512]):
        path = tmp_path / f"{k}.tar"
        path.write_bytes(whole[:cut])
        for _ in range(2):
            with pytest.raises(InputError, match="tar"):
                list(pairs(tmp_path, path).read())
    with pytest.raises(MissingInputError, match="no such file"):
        pairs(tmp_path, tmp_path / "none.tar")


def test_archives_that_were_put_together_are_one(tmp_path: Path) -> None:
    parts = [tar_bytes([("b.jpg", b"b.jpg")]), tar_bytes([("a.txt", b"A"), ("b.txt", b"B")]), tar_bytes([("a.jpg", b"a.jpg")])]
    (tmp_path / "t.tar").write_bytes(b"".join(parts))
    found = list(pairs(tmp_path, tmp_path / "t.tar").read())
    assert said(found) == {"t/a": ("A",), "t/b": ("B",)}
    assert [pair.image.read() for pair in found] == [b"a.jpg", b"b.jpg"]


def test_second_names_of_a_file_are_files(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.jpg").write_bytes(b"one")
    (tmp_path / "d" / "a.txt").write_bytes(b"said of both")
    for suffix in ("jpg", "txt"):
        os.link(tmp_path / "d" / f"a.{suffix}", tmp_path / "d" / f"b.{suffix}")
    os.link(tmp_path / "d" / "a.txt", tmp_path / "d" / "c.json")  # which it is not
    (tmp_path / "d" / "c.jpg").write_bytes(b"two")
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for path in sorted((tmp_path / "d").iterdir()):
            tar.add(path, path.name)
    whole = pairs(tmp_path, tmp_path / "t.tar")
    found = list(whole.read())
    assert said(found) == {"t/a": ("said of both",), "t/b": ("said of both",)}
    assert whole.left_out == {"captions in damaged JSON or rows": 1}
    assert [pair.image.read() for pair in found] == [b"one", b"one"]


def test_names_need_not_be_utf8(tmp_path: Path) -> None:
    odd = "\udcff\u00e9"
    write_tar(tmp_path / "t.tar", [(f"{odd}.jpg", b"i"), (f"{odd}.txt", b"c")])
    found = pairs(tmp_path, tmp_path / "t.tar")
    assert said(found.read()) == {f"t/{odd}": ("c",)} == said(found.find([f"t/{odd}", "t/\ud800", "t/x\0"]))


def test_a_tar_that_changes_under_a_run_is_noticed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", shard(0, 3))
    other = write_tar(tmp_path / "b.tar", shard(0, 3))
    found = pairs(tmp_path, path, other, open_units=1)
    assert found.count() == 6
    write_tar(path, shard(0, 4))
    with pytest.raises(InputError, match="was changed since this run began"):
        list(found.read())


@given(st.randoms(use_true_random=False), st.integers(1, 4))
def test_order_of_members_and_number_of_shards_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, chance: random.Random, tars: int
) -> None:
    folder = tmp_path_factory.mktemp("permuted")
    keys = [f"{chance.randrange(10**6):x}" for _ in range(chance.randrange(12))]
    samples = {
        key: sample(key, *(f"{key} says {k}" for k in range(chance.randrange(1, 4))), image=chance.choice(["jpg", "PNG"])) for key in keys
    }
    expected = {
        key: (json.loads(data)["captions"] if name.endswith("json") else [data.decode()]) for key, (_, (name, data)) in samples.items()
    }
    for k in range(tars):
        members = [member for place, key in enumerate(sorted(samples)) if place % tars == k for member in samples[key]]
        chance.shuffle(members)
        write_tar(folder / f"{k}.tar", members)
    found = list(pairs(folder, folder, open_units=2).read())
    assert {pair.key.split("/")[1]: list(pair.captions) for pair in found} == expected
    assert [pair.key for pair in found] == sorted(pair.key for pair in found)
    assert all(pair.image.read().decode() == pair.file_name.split("/")[1] for pair in found)
