"""Whatever an image is called, its overlay stays in the folder, and no two meet."""

from __future__ import annotations

import os
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.show.overlay_names import overlay_name

# Text rich in what paths are made of, with undecodable bytes and other lone surrogates.
PIECES = st.sampled_from(
    [
        "/",
        "..",
        ".",
        "",
        "a",
        "A",
        ".png",
        ".PNG",
        "%",
        "%2E",
        "%u{",
        "}",
        "\n",
        "\0",
        "\\",
        "\udcff",
        "\ud800",
        "é",
        "\u200b",
        " ",
        "~",
        "x" * 250,
    ]
)
NAMES = st.one_of(st.lists(PIECES, max_size=6).map("".join), st.text(st.characters(), max_size=12))


@settings(deadline=None, max_examples=200)
@given(NAMES)
def test_stays_inside_and_is_a_plain_name(name: str) -> None:
    result = overlay_name(name)
    assert result.endswith(".png")
    assert not os.path.isabs(result)
    assert os.path.normpath(result) == result
    assert result.isprintable()
    for part in result.split("/"):
        assert part not in ("", ".", "..")
        assert len(part.encode("utf-8")) <= 255


@settings(deadline=None, max_examples=200)
@given(st.lists(NAMES, max_size=6, unique=True))
def test_distinct_names_never_meet(names: list[str]) -> None:
    results = sorted(overlay_name(name).split("/") for name in names)
    for before, after in pairwise(results):
        # Sorted, so a path that is another's folder (or equal) comes right before something below it.
        assert after[: len(before)] != before


def test_can_all_be_written(tmp_path: os.PathLike[str]) -> None:
    names = [
        "a.jpg",
        "a.png",
        "a",
        "a.png/b.jpg",
        "A.PNG/b.jpg",
        "../a.jpg",
        "/a.jpg",
        "a//b.jpg",
        "a/./b.jpg",
        "\udcff.jpg",
        "\n.jpg",
        "y" * 255,
    ]
    for name in names:
        path = os.path.join(tmp_path, overlay_name(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "x"):
            pass
    found = [os.path.join(where, file) for where, _, files in os.walk(tmp_path) for file in files]
    assert len(found) == len(names)


def test_ordinary_names_stay_readable() -> None:
    assert overlay_name("train/été 01.jpg") == "train/été 01.jpg.png"
