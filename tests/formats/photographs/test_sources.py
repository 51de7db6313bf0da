import io
import json
import os
import tarfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.formats.coco.entries import read_image
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.coco_sources import sources_from_coco
from ovskit.core.formats.photographs.sources import list_sources, locate, parse_path_list
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError
from ovskit.core.runtime.failures import Failures, PartialError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def make_tar(path: Path, *names: str) -> None:
    with tarfile.open(path, "w") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(name.encode())
            archive.addfile(entry, io.BytesIO(name.encode()))


def names(inputs: list[str], **options: str) -> list[str]:
    return [item.file_name for item in list_sources(inputs, **options).items]


def test_a_folder_is_searched_sorted_and_named_from_itself(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a/z.PNG", "a/y.webp", "c.txt", ".hidden.jpg", ".git/x.jpg", "Z.jpg")
    found = list_sources([str(tmp_path)])
    assert [(s.id, s.file_name) for s in found.items] == [(1, "Z.jpg"), (2, "a/y.webp"), (3, "a/z.PNG"), (4, "b.jpg")]
    assert found.items[1].read() == b"a/y.webp"


def test_files_are_named_from_their_common_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "x/a.jpg", "x/b.jpg", "y/a.jpg")
    monkeypatch.chdir(tmp_path)
    assert names(["x/b.jpg", "x/a.jpg"]) == ["a.jpg", "b.jpg"]
    assert names(["x/a.jpg", "y/a.jpg"]) == ["x/a.jpg", "y/a.jpg"]
    assert names(["x", "y"]) == ["x/a.jpg", "x/b.jpg", "y/a.jpg"]
    assert names(["x/*.jpg"]) == ["a.jpg", "b.jpg"]
    assert names(["x/a.jpg"], root=".") == ["x/a.jpg"]
    assert list_sources(["x", "y"]).root == "."


def test_every_source_is_found_again_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "f/a.jpg", "f/sub/b.jpg")
    make_tar(tmp_path / "f" / "s.tar", "k/1.jpg", "2.jpg", "2.json")
    for inputs in ([str(tmp_path / "f")], [str(tmp_path / "f" / "s.tar")], [str(tmp_path / "f" / "s.tar"), str(tmp_path / "f" / "a.jpg")]):
        found = list_sources(inputs)
        for item in found.items:
            assert locate(item.id, item.file_name, found.root).read() == item.read()


def test_a_tar_counts_as_a_folder(tmp_path: Path) -> None:
    make_tar(tmp_path / "s.tar", "./2.jpg", "1.jpg", "1.json", "d/._x.jpg")
    assert names([str(tmp_path / "s.tar")]) == ["1.jpg", "2.jpg"]
    make_tar(tmp_path / "t.tar", "1.jpg")
    assert names([str(tmp_path / "s.tar"), str(tmp_path / "t.tar")]) == ["s.tar/1.jpg", "s.tar/2.jpg", "t.tar/1.jpg"]


def test_a_cut_tar_is_noticed_wherever_it_was_cut(tmp_path: Path) -> None:
    make_tar(tmp_path / "whole.tar", "1.jpg", "2.jpg")
    data = (tmp_path / "whole.tar").read_bytes()
    used = 4 * 512 + 1024
    for cut in range(0, used, 100):
        path = tmp_path / f"{cut}.tar"
        path.write_bytes(data[:cut])
        with pytest.raises(InputError, match="tar"):
            list_sources([str(path)])


def test_compressed_tars_are_refused_with_a_remedy(tmp_path: Path) -> None:
    touch(tmp_path, "x.tar.gz")
    with pytest.raises(UsageError, match="plain"):
        list_sources([str(tmp_path / "x.tar.gz")])


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    with pytest.raises(InputError, match=r"two images are named a\.jpg"):
        list_sources([str(tmp_path), str(tmp_path / "a.jpg")])
    make_tar(tmp_path / "s.tar", "a.jpg", "a.jpg")
    with pytest.raises(InputError, match="two members"):
        list_sources([str(tmp_path / "s.tar")])


@pytest.mark.parametrize("text", ["absent.jpg", "absent/", "*.nothing"])
def test_what_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingInputError, match="absent|nothing"):
        list_sources([text])


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"\.jpg"):
        list_sources([str(tmp_path)])


def test_root_must_hold_the_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "r/b.jpg")
    with pytest.raises(UsageError, match="--root"):
        list_sources([str(tmp_path / "a.jpg")], root=str(tmp_path / "r"))


def test_a_dangling_link_is_listed_and_fails_when_read(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (item,) = list_sources([str(tmp_path)]).items
    with pytest.raises(MissingInputError, match=r"gone\.jpg"):
        item.read()


def test_a_link_to_its_own_folder_adds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.jpg", "s/b.jpg")
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(".")
    monkeypatch.chdir(tmp_path)
    for inputs in (["."], ["**/*.jpg"], ["**"], ["*"], sorted(os.listdir(tmp_path))):
        assert names(inputs) == ["a.jpg", "s/b.jpg"]
    assert names(["one"]) == ["a.jpg", "s/b.jpg"]


def test_two_stars_are_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "r/a.jpg", "r/x/b.jpg", "r/x/y/c.jpg", "r/x/y/d.png", "r/[1]/e.jpg", "r/.h/f.jpg", "q/x/g.jpg")
    monkeypatch.chdir(tmp_path)
    assert names(["r/**/*.jpg"], root="r") == ["[1]/e.jpg", "a.jpg", "x/b.jpg", "x/y/c.jpg"]
    assert names(["r/**/y/*.png"], root="r") == ["x/y/d.png"]
    assert names(["**/x/*.jpg"], root=".") == ["q/x/g.jpg", "r/x/b.jpg"]
    assert names([f"{tmp_path}/*/**/y/**/*.jpg"], root=str(tmp_path)) == ["r/x/y/c.jpg"]
    with pytest.raises(MissingInputError, match="no file matches"):
        list_sources(["r/**/*.gif"])


def test_an_empty_tar_beside_others_is_no_error(tmp_path: Path) -> None:
    make_tar(tmp_path / "0.tar")
    make_tar(tmp_path / "1.tar", "a.jpg")
    make_tar(tmp_path / "2.tar", "a.txt")
    assert names([str(tmp_path)]) == ["1.tar/a.jpg"]
    assert names([str(tmp_path / "0.tar"), str(tmp_path / "1.tar")]) == ["1.tar/a.jpg"]
    for inputs in ([tmp_path / "0.tar"], [tmp_path / "0.tar", tmp_path / "2.tar"]):
        with pytest.raises(MissingInputError, match="no images"):
            list_sources([str(path) for path in inputs])


def test_a_damaged_tar_is_skipped_as_a_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "z.jpg")
    make_tar(tmp_path / "0.tar", "a.jpg", "b.jpg")
    make_tar(tmp_path / "1.tar", "a.jpg")
    (tmp_path / "0.tar").write_bytes((tmp_path / "0.tar").read_bytes()[:2048])
    with pytest.raises(InputError, match=r"0\.tar"):
        list_sources([str(tmp_path)])
    failures = Failures(skip=True)
    found = list_sources([str(tmp_path)], failures=failures)
    assert [(item.id, item.file_name) for item in found.items] == [(1, "1.tar/a.jpg"), (2, "z.jpg")]
    with pytest.raises(PartialError, match="skipped 1 tar that could not be used, named above; 2 done"):
        failures.report(2)
    assert "0.tar is truncated" in caplog.text
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"images": [{"id": k, "file_name": f"{t}.tar/{n}.jpg"} for k, (t, n) in enumerate(["0a", "0b", "1a"], 1)]}))
    failures = Failures(skip=True)
    assert [item.id for item in sources_from_coco(str(path), failures=failures).items] == [3]
    assert failures.count == 1
    with pytest.raises(InputError, match=r"0\.tar"):
        sources_from_coco(str(path))


@pytest.mark.parametrize(("stored", "asked"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_are_found_however_they_are_composed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str, asked: str) -> None:
    folder, file, tar = (unicodedata.normalize(stored, name) for name in ("Été", "naïve.jpg", "é.tar"))
    touch(tmp_path, f"{folder}/{file}", f"{folder}/plain.jpg")
    make_tar(tmp_path / folder / tar, file)
    monkeypatch.chdir(tmp_path)
    other = unicodedata.normalize(asked, f"{folder}/{file}")
    mixed = f"{unicodedata.normalize(asked, folder)}/{file}"
    for path in (other, mixed, f"./{other}", str(tmp_path / other)):
        (item,) = list_sources([path], root=str(tmp_path)).items
        assert item.file_name == f"{folder}/{file}"  # as it is there
        assert locate(1, path, ".").read() == item.read()
    assert names([unicodedata.normalize(asked, f"{folder}/na*.jpg")]) == [file]
    inside = unicodedata.normalize(asked, f"{folder}/{tar}/{file}")
    assert locate(1, inside, ".").read() == unicodedata.normalize(stored, file).encode()
    (tmp_path / "c.json").write_text(json.dumps({"images": [{"id": 3, "file_name": other}]}))
    (item,) = sources_from_coco("c.json").items
    assert (item.id, item.file_name, item.read()) == (3, other, f"{folder}/{file}".encode())


def test_the_name_that_is_there_goes_before_one_like_it(tmp_path: Path) -> None:
    both = [unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD")]
    touch(tmp_path, *both)
    if len(os.listdir(tmp_path)) < 2:
        pytest.skip("this file system takes the two for one")
    for name in both:
        assert names([str(tmp_path / name)]) == [name]


def test_a_byte_order_mark_before_a_path_list() -> None:
    assert parse_path_list(b"\xef\xbb\xbfa.jpg\r\nb.jpg\r\n") == ["a.jpg", "b.jpg"]
    assert parse_path_list(b"\xef\xbb\xbfa.jpg\0b.jpg\0", nul=True) == ["a.jpg", "b.jpg"]
    assert parse_path_list("a.jpg\r\né.jpg\r\n".encode("utf-16")) == ["a.jpg", "é.jpg"]
    assert parse_path_list(b"\xef\xbb\xbf") == []


def test_path_lists() -> None:
    assert parse_path_list(b"a.jpg\nb c.jpg\r\n\nd\xff.jpg") == ["a.jpg", "b c.jpg", os.fsdecode(b"d\xff.jpg")]
    assert parse_path_list(b"a\nb.jpg\0c.jpg\0", nul=True) == ["a\nb.jpg", "c.jpg"]


@given(st.binary(min_size=1).filter(lambda b: b"\0" not in b))
def test_shown_paths_fit_one_line(name: bytes) -> None:
    shown = show_path(os.fsdecode(name))
    shown.encode("utf-8")
    assert shown.isprintable()


def test_coco_images_keep_their_ids(tmp_path: Path) -> None:
    touch(tmp_path, "r/x.jpg", "r/y.jpg")
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"images": [{"id": 9, "file_name": "x.jpg"}, {"id": 4, "file_name": "y.jpg"}]}))
    found = sources_from_coco(str(path), root=str(tmp_path / "r"))
    assert [(s.id, s.file_name, s.read()) for s in found.items] == [(4, "y.jpg", b"r/y.jpg"), (9, "x.jpg", b"r/x.jpg")]


def test_lvis_images_are_named_by_their_address(tmp_path: Path) -> None:
    """The name that the ground truth of the same file has, found below the folder that holds ``val2017``."""
    touch(tmp_path, "coco/val2017/x.jpg", "coco/val2017/y.jpg", "coco/z.jpg")
    entries: list[dict[str, object]] = [
        {"id": 9, "coco_url": "http://images.example.org/val2017/x.jpg", "neg_category_ids": [1]},
        {"id": 4, "coco_url": "http://images.example.org/val2017/y.jpg", "neg_category_ids": []},
        {"id": 5, "coco_url": "http://images.example.org/val2017/y.jpg", "file_name": "z.jpg"},
    ]
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps({"images": entries}))
    found = sources_from_coco(str(path), root=str(tmp_path / "coco"))
    wanted = [(4, "val2017/y.jpg", b"coco/val2017/y.jpg"), (5, "z.jpg", b"coco/z.jpg"), (9, "val2017/x.jpg", b"coco/val2017/x.jpg")]
    assert [(s.id, s.file_name, s.read()) for s in found.items] == wanted
    assert [read_image({**entry, "width": 1, "height": 1}, "it").file_name for entry in entries] == [
        "val2017/x.jpg",
        "val2017/y.jpg",
        "z.jpg",
    ]


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"images": [{"id": 9, "file_name": "x.jpg"}]}), "utf-8-sig")
    assert [source.file_name for source in sources_from_coco(str(tmp_path / "c.json")).items] == ["x.jpg"]


def test_coco_images_may_have_any_ids(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    for ids, expected in (((0, -3, 10**15), (0, -3, 10**15)), (("b", "a", 7), (1, 2, 3))):
        path.write_text(json.dumps({"images": [{"id": own, "file_name": f"{k}.jpg"} for k, own in enumerate(ids)]}))
        found = sources_from_coco(str(path)).items
        assert {source.file_name: source.id for source in found} == {f"{k}.jpg": number for k, number in enumerate(expected)}


@pytest.mark.parametrize(
    "images",
    [
        [{"id": 1}],
        [{"id": 1, "coco_url": 3}],
        [{"id": 1.5, "file_name": "a"}],
        [{"id": 1, "file_name": "a"}] * 2,
        3,
        [{"id": 1 << 70, "file_name": "a"}],
    ],
)
def test_broken_coco_images_are_refused(tmp_path: Path, images: object) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"images": images}))
    with pytest.raises(InputError):
        sources_from_coco(str(path))


@pytest.mark.parametrize("name", ["\ud800.jpg", "a\0b.jpg"])
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
    show_path(name).encode("utf-8")
    with pytest.raises(MissingInputError, match="not a possible"):
        locate(1, name, str(tmp_path)).read()
