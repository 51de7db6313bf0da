"""Pairs of many units as one sequence: order, shards, finding, what is open at a time."""

import json
import logging
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.formats.pairs import pair_set, unit
from ovskit.core.formats.pairs.order import PairOrder
from ovskit.core.formats.pairs.pair_set import PairSet
from ovskit.core.formats.photographs.tars import SUFFIXES
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError
from ovskit.core.runtime.shard import Shard
from tests.formats.pairs.shards import pairs, said, sample, shard, write_tar

DATA = Path(os.environ.get("OVSKIT_TEST_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))


def lines(path: Path, **captions: str) -> Path:
    """JSON Lines about images, which are made beside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in captions:
        image = path.parent / f"{name}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(b"")
    path.write_text("".join(json.dumps({"file_name": f"{name}.jpg", "caption": text}) + "\n" for name, text in captions.items()))
    return path


def test_keys_ascend_over_everything_even_where_units_interleave(tmp_path: Path) -> None:
    x = tmp_path / "x"
    write_tar(x / "a.tar", [*sample("b/1", "1"), *sample("d/1", "2"), *sample("z", "3")])
    write_tar(x / "a" / "c.tar", [*sample("1", "4"), *sample("2", "5")])
    write_tar(x / "a-b.tar", sample("1", "6"))
    write_tar(x / "b.tar", sample("1", "7"))
    listing = lines(x / "l.jsonl", **{"a/b0": "8", "a/c/15": "9", "zz": "10", "0": "11"})
    for chunk, open_units in ((1, 1), (2, 2), (1024, 8)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pair_set, "_CHUNK", chunk)
            found = pairs(tmp_path, x / "*.tar", x / "a", listing, open_units=open_units)
            keys = [pair.key for pair in found.read()]
            expected = ["0", "a-b/1", "a/b/1", "a/b0", "a/c/1", "a/c/15", "a/c/2", "a/d/1", "a/z", "b/1", "zz"]
            assert keys == expected == list(found.names())
            assert found.count() == len(keys) == sum(found.counts())
            assert said(found.find(keys)) == said(found.read())
    assert [Path(path).name for path in found.units] == ["l.jsonl", "a-b.tar", "a.tar", "c.tar", "b.tar"]


def test_one_key_of_two_units_names_both(tmp_path: Path) -> None:
    x = tmp_path / "x"
    write_tar(x / "a.tar", [*sample("b/1", "1"), *sample("c", "2")])
    write_tar(x / "a" / "b.tar", sample("1", "3"))
    write_tar(x / "c.tar", sample("1", "3"))
    found = pairs(tmp_path, x)
    both = r"a\.tar and .*b\.tar both have a pair with the key a/b/1"
    for ask in (
        lambda: list(found.read()),
        lambda: list(found.names()),
        lambda: list(found.find(["a/b/1"])),
        lambda: list(found.read(Shard(2, 3))),  # a shard that has neither
        lambda: list(found.read(Shard(4, 5))),
    ):
        with pytest.raises(InputError, match=both):
            ask()
    assert said(found.find(["c/1", "a/c"])) == {"c/1": ("3",), "a/c": ("2",)}
    loose = lines(x / "l.jsonl", **{"a/c": "4"})
    with pytest.raises(InputError, match=r"a\.tar and .*l\.jsonl both have a pair with the key a/c"):
        list(pairs(tmp_path, loose, x / "a.tar").read())


def test_a_file_is_named_once(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x" / "a.tar", shard(0, 1))
    for inputs in ((path, path), (path, tmp_path / "x"), (tmp_path / "x" / "*.tar", path)):
        with pytest.raises(InputError, match=r"a\.tar is named twice"):
            pairs(tmp_path, *inputs)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.integers(1, 9))
def test_shards_are_the_whole_without_overlap(tmp_path_factory: pytest.TempPathFactory, sizes: list[int], count: int) -> None:
    folder = tmp_path_factory.mktemp("sharded")
    for k, size in enumerate(sizes):
        write_tar(folder / f"{k}.tar", shard(0, size))
    found = pairs(folder, folder, open_units=2)
    whole = list(found.read())
    parts = [list(found.read(Shard(k, count))) for k in range(count)]
    assert sorted((pair for part in parts for pair in part), key=lambda pair: pair.key) == whole
    for k, part in enumerate(parts):
        assert part == sorted(part, key=lambda pair: pair.key)
        if count <= len(sizes):
            units = {path for place, path in enumerate(found.units) if place % count == k}
            assert {pair.image.path for pair in part} <= units


@given(st.randoms(use_true_random=False), st.integers(1, 4), st.integers(1, 3))
def test_find_gives_what_read_gives(tmp_path_factory: pytest.TempPathFactory, chance: random.Random, tars: int, open_units: int) -> None:
    folder = tmp_path_factory.mktemp("found")
    for k in range(tars):
        members = [member for j in range(chance.randrange(6)) for member in sample(f"d/{j}" if j % 2 else f"{j}", *"xyz"[: 1 + j % 3])]
        chance.shuffle(members)
        write_tar(folder / f"{k}.tar", members)
    found = pairs(folder, folder, open_units=open_units)
    known = {pair.key: pair for pair in found.read()}
    asked = [chance.choice([*known, "0/none", "nowhere", "", "0", "0/", "/", "0/d/1x"]) for _ in range(chance.randrange(20))]
    assert list(found.find(asked)) == [known.get(key) for key in asked]
    assert list(found.names()) == list(known)
    assert list(pairs(folder, folder).find(asked)) == [known.get(key) for key in asked]


def test_pairs_are_found_by_place(tmp_path: Path) -> None:
    for k in range(3):
        write_tar(tmp_path / f"{k}.tar", shard(0, 3 + k))
    found = pairs(tmp_path, tmp_path, open_units=1)
    order = PairOrder(found.counts(), seed=0, open_units=2)
    drawn = [pair for step in range(4) for pair in found.at(order.batch(step, 0, 1, 3))]
    assert sorted(drawn, key=lambda pair: pair.key) == list(found.read())
    assert [pair.key for pair in found.at([(2, 1), (0, 0), (2, 1)])] == ["2/00001", "0/00000", "2/00001"]


def test_few_units_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(6):
        write_tar(tmp_path / f"{k}.tar", shard(0, 4))
    opened: list[int] = []  # how many are open after each opening
    closed: list[unit._OpenTar] = []
    open_now: set[int] = set()
    start, end = unit._OpenTar.__init__, unit._OpenTar.close

    def begin(self: unit._OpenTar, *words: object) -> None:
        start(self, *words)  # type: ignore[arg-type]
        open_now.add(id(self))
        opened.append(len(open_now))

    def finish(self: unit._OpenTar) -> None:
        closed.append(self)  # so that no other gets its id
        open_now.remove(id(self))
        end(self)

    monkeypatch.setattr(unit._OpenTar, "__init__", begin)
    monkeypatch.setattr(unit._OpenTar, "close", finish)
    found = pairs(tmp_path, tmp_path, open_units=2)
    keys = list(found.names())
    readers = [found.read() for _ in range(3)]
    assert [[next(reader).key for reader in readers] for _ in keys] == [[key] * 3 for key in keys]
    assert [pair.key for pair in found.find(keys[::-1]) if pair] == keys[::-1]
    found.at([(k % 6, k % 4) for k in range(24)])
    assert max(opened) == 2
    before = len(opened)
    list(found.find([keys[k % 24] for k in range(0, 24 * 7, 7)]))
    assert len(opened) - before <= 6  # each at most once, however often its turn comes among the keys
    found.close()
    assert not open_now
    assert next(found.read()).key == keys[0]


def test_what_is_no_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no pairs: name tars"):
        pairs(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInputError, match="no pairs in .*empty"):
        pairs(tmp_path, tmp_path / "empty")
    (tmp_path / "a.tar.gz").write_bytes(b"")
    with pytest.raises(UsageError, match="compressed tars"):
        pairs(tmp_path, tmp_path / "a.tar.gz")
    (tmp_path / "a.xml").write_bytes(b"")
    with pytest.raises(UsageError, match=r"a\.xml is not a file of image-text pairs"):
        pairs(tmp_path, tmp_path / "a.xml")
    with pytest.raises(MissingInputError, match="no pairs in"):
        pairs(tmp_path, tmp_path / "a.*ml")


def test_what_img2dataset_writes_beside_its_tars_is_passed_over(tmp_path: Path) -> None:
    write_tar(tmp_path / "x" / "00000.tar", shard(0, 2))
    for name in ("00000.parquet", "00000_stats.json"):
        (tmp_path / "x" / name).write_bytes(b"{}")
    for inputs in ([tmp_path / "x"], [tmp_path / "x" / "*"], sorted((tmp_path / "x").iterdir())):
        assert [Path(path).name for path in pairs(tmp_path, *inputs).units] == ["00000.tar"]


def test_many_pairs_of_a_real_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = DATA / "flickr8k_pairs"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set OVSKIT_TEST_DATA to the folder of the development sets")
    found: PairSet = pairs(tmp_path, folder)
    with caplog.at_level(logging.INFO, "ovskit"):
        whole = list(found.read())
    assert len(whole) == found.count() == 4400
    assert all(1 <= len(pair.captions) <= 5 and pair.file_name.endswith(SUFFIXES) for pair in whole)
    assert all(pair.image.read()[:2] == b"\xff\xd8" for pair in whole[::100])
    assert not caplog.records
    asked = [pair.key for pair in random.Random(0).sample(whole, 500)]
    assert [pair.key for pair in found.find(asked) if pair] == asked
    listing = DATA / "captions" / "captions.jsonl"
    if listing.is_file():
        assert [len(pair.captions) for pair in pairs(tmp_path, listing).read()] == [5] * 114
