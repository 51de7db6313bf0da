"""Pairs from lists: JSON Lines, COCO's captions, tables, Parquet."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.formats.pairs.listing import Listing
from ovskit.core.runtime.errors import InputError, MissingInputError, OvsError, UsageError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.shard import Shard
from tests.formats.pairs.shards import pairs, said, sample, shard, write_tar


def images(folder: Path, *names: str) -> Path:
    """Files that hold their names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def json_lines(path: Path, *entries: object) -> Path:
    path.write_bytes(b"".join(entry if isinstance(entry, bytes) else json.dumps(entry).encode() + b"\n" for entry in entries))
    return path


def coco(path: Path, names: dict[object, str | None], captions: list[tuple[object, object]]) -> Path:
    listed = [{"id": number} | ({"file_name": name} if name else {}) for number, name in names.items()]
    path.write_text(json.dumps({"images": listed, "annotations": [{"image_id": number, "caption": text} for number, text in captions]}))
    return path


# JSON Lines.


def test_lines_about_one_image_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images(tmp_path, "b/1.jpg", "a.PNG", "c.jpg", "d.jpg"))
    json_lines(
        Path("l.jsonl"),
        b"\xef\xbb\xbf" + json.dumps({"file_name": "b/1.jpg", "caption": "one\ntwo"}).encode() + b"\n",
        b"\n  \n",
        {"image": "a.PNG", "captions": ["x", " y ", "x"]},
        {"image_path": "./b//1.jpg", "caption": "three", "captions": ["one\ntwo", "four"]},
        {"filename": "c.jpg", "text": "five"},
        b'{"file_name": "d.jpg", "caption": "no line break at the end"}',
    )
    found = pairs(tmp_path, "l.jsonl")
    assert said(found.read()) == {
        "a": ("x", "y"),
        "b/1": ("one\ntwo", "three", "four"),
        "c": ("five",),
        "d": ("no line break at the end",),
    }
    assert [(pair.file_name, pair.where, pair.image.read()) for pair in found.read()] == [
        ("a.PNG", "l.jsonl: line 4", b"a.PNG"),
        ("b/1.jpg", "l.jsonl: line 1", b"b/1.jpg"),
        ("c.jpg", "l.jsonl: line 6", b"c.jpg"),
        ("d.jpg", "l.jsonl: line 7", b"d.jpg"),
    ]
    assert said(found.find(["c", "nothing", "a"])) == {"c": ("five",), "a": ("x", "y")}
    assert [pair.key for k in range(2) for pair in found.read(Shard(k, 2))] == ["a", "c", "b/1", "d"]


def test_lines_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg", "b.jpg")
    path = json_lines(
        tmp_path / "l.ndjson",
        {"file_name": "a.jpg", "caption": "good"},
        {"file_name": "a.jpg", "caption": "  "},
        {"file_name": "b.jpg"},
        {"file_name": "gone.jpg", "caption": "c"},
        {"file_name": "\0", "caption": "c"},
        {"caption": "of nothing"},
        b"[1]\n",
        b'{"file_name": "b.jpg", "capt\n',
    )
    found = pairs(tmp_path, path)
    assert said(found.read()) == {"a": ("good",)}
    assert found.left_out == {
        "blank captions": 1,
        "images without a caption": 1,
        "captions without an image": 3,
        "captions in damaged JSON or rows": 2,
    }


def test_the_folder_of_images(tmp_path: Path) -> None:
    path = json_lines(images(tmp_path / "x", "images/a.jpg") / "l.jsonl", {"file_name": "a.jpg", "caption": "c"})
    (pair,) = pairs(tmp_path, path).read()
    assert (pair.key, pair.file_name, pair.image.read()) == ("a", "a.jpg", b"images/a.jpg")
    (pair,) = pairs(tmp_path, tmp_path / "x").read()
    assert (pair.key, pair.file_name, pair.image.read()) == ("images/a", "images/a.jpg", b"images/a.jpg")
    images(tmp_path / "x", "a.jpg")
    (pair,) = pairs(tmp_path, path).read()
    assert (pair.key, pair.image.read()) == ("a", b"a.jpg")
    images(tmp_path / "y", "a.jpg")
    (pair,) = pairs(tmp_path, path, root=str(tmp_path / "y")).read()
    assert (pair.key, pair.image.path) == ("a", str(tmp_path / "y" / "a.jpg"))
    json_lines(path, {"file_name": str(tmp_path / "y" / "a.jpg"), "caption": "c"})
    assert said(pairs(tmp_path, path, root=str(tmp_path)).read()) == {"y/a": ("c",)}
    with pytest.raises(UsageError, match="does not hold"):
        pairs(tmp_path, path)


def test_images_of_a_list_may_be_in_tars(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", shard(0, 2))
    path = json_lines(tmp_path / "l.jsonl", {"file_name": "0.tar/00001.jpg", "caption": "c"}, {"file_name": "0.tar/9.jpg", "caption": "c"})
    (pair,) = pairs(tmp_path, path).read()
    assert (pair.key, pair.file_name, pair.image.read()) == ("0/00001", "0.tar/00001.jpg", b"00001.jpg")


def test_tars_and_lists_together_have_one_root(tmp_path: Path) -> None:
    write_tar(tmp_path / "t" / "0.tar", sample("a", "of a tar"))
    path = json_lines(images(tmp_path / "l", "images/a.jpg") / "l.jsonl", {"file_name": "a.jpg", "caption": "of a list"})
    found = pairs(tmp_path, tmp_path / "t", path)
    assert found.root == str(tmp_path)
    assert said(found.read()) == {"t/0/a": ("of a tar",), "l/images/a": ("of a list",)}
    assert [pair.image.read() for pair in found.read()] == [b"images/a.jpg", b"a.jpg"]


def test_lists_of_other_things_are_errors(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg", "a.png")
    refused: list[tuple[Path, type[OvsError], str]] = [
        (json_lines(tmp_path / "1.jsonl", {"a": 1}, {"b": 2}), InputError, "none of its lines"),
        (json_lines(tmp_path / "2.jsonl", {"file_name": "g.jpg", "caption": "c"}), MissingInputError, r"none of its images \(1\) is in"),
        (
            json_lines(tmp_path / "3.jsonl", *({"file_name": f"a.{suffix}", "caption": "c"} for suffix in ("jpg", "png"))),
            InputError,
            "two images have the key a: a.jpg and a.png",
        ),
        (json_lines(tmp_path / "4.json", b"{"), InputError, "not valid JSON"),
        (json_lines(tmp_path / "5.json", {"images": []}), InputError, '"images" and "annotations"'),
        (json_lines(tmp_path / "6.json", {"images": [], "annotations": [{"bbox": []}]}), InputError, "no captions"),
        (json_lines(tmp_path / "7.tsv", b"one\ttwo\n"), InputError, "neither column"),
        (json_lines(tmp_path / "8.csv", b'a.jpg,"' + b"x" * 200_000), InputError, "not a readable table"),
    ]
    for path, kind, words in refused:
        with pytest.raises(kind, match=words) as caught:
            pairs(tmp_path, path)
        assert str(path) in str(caught.value)
    failures = Failures(skip=True)
    good = json_lines(tmp_path / "good.jsonl", {"file_name": "a.jpg", "caption": "c"})
    found = pairs(tmp_path, good, *(path for path, _, _ in refused), failures=failures)
    assert said(found.read()) == {"a": ("c",)}
    assert found.units == (str(good),)
    assert failures.count == len(refused)


def test_a_list_that_changes_under_a_run_is_noticed(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg", "b.jpg")
    path = json_lines(tmp_path / "l.jsonl", *({"file_name": f"{name}.jpg", "caption": name} for name in "ab"))
    found = pairs(tmp_path, path)
    json_lines(path, {"file_name": "a.jpg", "caption": "longer than before"}, {"file_name": "b.jpg", "caption": "b"})
    with pytest.raises(InputError, match="line 1 was changed"):
        list(found.read())


# COCO.


def test_coco_captions(tmp_path: Path) -> None:
    images(tmp_path, "b.jpg", "a.jpg", "silent.jpg")
    path = coco(
        tmp_path / "captions.json",
        {9: "b.jpg", 3: "a.jpg", 4: "gone.jpg", 5: "silent.jpg", 6: None},
        [
            (9, "one\nline"),
            (3, " two "),
            (9, "three"),
            (9, "one\nline"),
            (4, "c"),
            (3, ""),
            (77, "c"),
            (3, "\ud800"),
            (6, "c"),
            (None, "c"),
        ],
    )
    found = pairs(tmp_path, path)
    assert said(found.read()) == {"a": ("two",), "b": ("one\nline", "three")}
    assert found.left_out == {
        "captions without an image": 4,
        "blank captions": 1,
        "images without a caption": 1,
        "captions that are not UTF-8": 1,
    }
    assert next(found.read()).where == f"{path}: annotation 2"
    assert said(found.find(["b"])) == {"b": ("one\nline", "three")}


def test_a_folder_has_the_lists_that_look_like_such(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg", "b.jpg")
    coco(tmp_path / "c.json", {1: "a.jpg"}, [(1, "c")])
    json_lines(tmp_path / "l.jsonl", {"file_name": "b.jpg", "caption": "c"})
    (tmp_path / "info.json").write_text('{"images": 100, "annotations": {}}')
    (tmp_path / "a.json").write_text('{"caption": "loose"}')
    found = pairs(tmp_path, tmp_path)
    assert [Path(path).name for path in found.units] == ["c.json", "l.jsonl"]
    assert said(found.read()) == {"a": ("c",), "b": ("c",)}


# Tables.


def table(path: Path, rows: list[list[str]], delimiter: str = "\t") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if delimiter == ",":
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows(rows)
    else:
        path.write_text("".join("\t".join(row) + "\n" for row in rows))
    return path


URL = "https://example.org/d/{}?size=1"


def test_images_by_the_last_part_of_their_addresses(tmp_path: Path) -> None:
    images(tmp_path / "images", "a.jpg", "deep/b c.png", "twice.jpg", "other/twice.jpg", "both.jpg")
    rows = [
        ["a <PERSON> stands", URL.format("a.jpg")],
        ['"so", she said', URL.format("b%20c.png")],
        ["gone", URL.format("gone.jpg")],
        ["which of two files", URL.format("twice.jpg")],
        ["one address", "http://x.org/both.jpg"],
        ["another address", "http://y.org/both.jpg"],
        ["", URL.format("a.jpg")],
        ["not one", "http://[broken/a.jpg"],
    ]
    for suffix, delimiter in (("tsv", "\t"), ("csv", ",")):
        found = pairs(tmp_path, table(tmp_path / f"t.{suffix}", rows, delimiter))
        assert said(found.read()) == {"images/a": ("a <PERSON> stands",), "images/deep/b c": ('"so", she said',)}
        assert found.left_out == {
            "captions without an image": 2,
            "captions whose image cannot be told from another": 3,
            "blank captions": 1,
        }
        (tmp_path / f"t.{suffix}").unlink()


def test_images_by_the_numbers_of_rows(tmp_path: Path) -> None:
    images(tmp_path / "train", "00000.jpg", "2.png", "0003.jpg", "x.jpg")
    images(tmp_path / "val", "00000.jpg", "00001.jpg")
    rows = [[f"caption {k}", URL.format("same.jpg")] for k in range(5)]
    for titles in ([], [["caption", "url"]]):
        path = table(tmp_path / "train.tsv", titles + rows)
        found = pairs(tmp_path, path)
        assert said(found.read()) == {"train/00000": ("caption 0",), "train/0003": ("caption 3",), "train/2": ("caption 2",)}
        assert found.left_out == {"captions without an image": 2}
        assert [pair.where for pair in found.read()] == [f"{path}: line {k + 1 + len(titles)}" for k in (0, 3, 2)]
    found = pairs(tmp_path, path, root=str(tmp_path / "val"))
    assert said(found.read()) == {"00000": ("caption 0",), "00001": ("caption 1",)}


@pytest.mark.parametrize("swapped", [False, True])
def test_images_by_path(tmp_path: Path, swapped: bool) -> None:
    images(tmp_path, "images/a.jpg", "images/b/a.jpg", "c.jpg")
    rows = [["one", "images/a.jpg"], ["two", "b/a.jpg"], ["three", str(tmp_path / "images" / "b" / "a.jpg")], ["four", "./images/a.jpg"]]
    expected = {"images/a": ("one", "four"), "images/b/a": ("two", "three")}
    rows = [row[::-1] for row in rows] if swapped else rows
    orders = ("image,caption" if swapped else "caption,image", "auto")
    path = table(tmp_path / "t.tsv", rows)
    for columns in orders:
        found = pairs(tmp_path, path, columns=columns)
        # Rows that lead to one image by different words are no proof of a mistake where the words are paths.
        assert said(found.read()) == expected
    titles = ["filepath", "title"] if swapped else ["title", "filepath"]
    assert said(pairs(tmp_path, table(tmp_path / "t.csv", [titles, *rows], ",")).read()) == expected


def test_columns_by_name_wherever_they_are(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg")
    path = table(tmp_path / "t.csv", [["id", "Image", "score", "TEXT"], ["7", "a.jpg", "0.5", "two\nlines, quoted"], ["8"]], ",")
    found = pairs(tmp_path, path)
    assert said(found.read()) == {"a": ("two\nlines, quoted",)}
    assert found.left_out == {"images without a caption": 1}
    with pytest.raises(UsageError, match="--columns both: choose from auto caption,image image,caption"):
        pairs(tmp_path, path, columns="both")


def test_encodings_of_tables(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "t.tsv").write_bytes("\ufeff„Anführung“\ta.jpg\r\n".encode() + b"latin \xe9\tb.jpg\r\n\r\nlast\tc.jpg")
    found = pairs(tmp_path, tmp_path / "t.tsv")
    assert said(found.read()) == {"a": ("„Anführung“",), "c": ("last",)}
    assert found.left_out == {"captions that are not UTF-8": 1}


words = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\r"), min_size=1, max_size=8).filter(str.strip)


@given(st.lists(words, min_size=1, max_size=8), st.booleans())
def test_tables_give_what_was_written(tmp_path_factory: pytest.TempPathFactory, captions: list[str], marked: bool) -> None:
    folder = images(tmp_path_factory.mktemp("table"), *(f"{k}.jpg" for k in range(len(captions))))
    with open(folder / "t.csv", "w", newline="", encoding="utf-8-sig" if marked else "utf-8") as file:
        csv.writer(file).writerows([[f"{k}.jpg", text] for k, text in enumerate(captions)])
    found = pairs(folder, folder / "t.csv", columns="image,caption")
    if not any("\t" in text for text in captions):  # a tab in the first line makes it a table of tabs
        assert said(found.read()) == {f"{k}": (text.strip(),) for k, text in enumerate(captions)}


# Parquet.


@pytest.fixture
def parquet() -> Callable[[Path, dict[str, list[Any]]], Path]:
    arrow = pytest.importorskip("pyarrow", reason="no pyarrow: pip install 'ovskit[parquet]'")
    from pyarrow import parquet

    def write(path: Path, columns: dict[str, list[Any]]) -> Path:
        parquet.write_table(arrow.table(columns), path, row_group_size=2)
        return path

    return write


def test_parquet_of_clip_retrieval(tmp_path: Path, parquet: Callable[[Path, dict[str, list[Any]]], Path]) -> None:
    images(tmp_path, "b.jpg", "a/1.jpg")
    columns = {
        "image_path": ["b.jpg", "a/1.jpg", "gone.jpg", "b.jpg", "b.jpg", None],
        "caption": [" two\nlines ", "one", "c", "three", None, "c"],
        "url": ["u"] * 6,
    }
    path = parquet(tmp_path / "metadata_0.parquet", columns)
    for inputs in (path, tmp_path):
        found = pairs(tmp_path, inputs)
        assert said(found.read()) == {"a/1": ("one",), "b": ("two\nlines", "three")}
        assert found.left_out == {"captions without an image": 2, "images without a caption": 1}
        assert [pair.where for pair in found.read()] == [f"{path}: row 1", f"{path}: row 0"]


def test_other_parquet_is_refused(tmp_path: Path, parquet: Callable[[Path, dict[str, list[Any]]], Path]) -> None:
    for columns, message in (
        ({"key": ["1"], "caption": ["c"], "status": ["success"]}, "belongs to a tar of img2dataset, which is not beside it"),
        ({"a": [1]}, "no columns image_path and caption, but a"),
    ):
        with pytest.raises(InputError, match=message):
            pairs(tmp_path, parquet(tmp_path / "0.parquet", columns))
    (tmp_path / "0.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        pairs(tmp_path, tmp_path / "0.parquet")


def test_without_pyarrow_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "0.parquet").write_bytes(b"")
    with pytest.raises(UsageError, match=r"pip install 'ovskit\[parquet\]'"):
        pairs(tmp_path, tmp_path / "0.parquet")


def test_lists_keep_no_file_open_beyond_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(5):
        json_lines(images(tmp_path / f"{k}", "a.jpg") / "l.jsonl", {"file_name": "a.jpg", "caption": "c"})
    files: list[Any] = []
    plain = Listing.file

    def spy(self: Listing) -> Any:
        files.append(plain(self))
        assert sum(not file.closed for file in files) <= 2
        return files[-1]

    monkeypatch.setattr(Listing, "file", spy)
    found = pairs(tmp_path, *(tmp_path / f"{k}" / "l.jsonl" for k in range(5)), open_units=2)
    assert len(list(found.read())) == 5
    assert len(files) == 5
