"""Photographs with their masks, whatever the order and the names of either."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from ovskit.core.formats.photographs.sources import Source
from ovskit.core.formats.streams.mask_inputs import MaskInputs
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
from ovskit.core.masks import rle
from ovskit.core.predict.dense.masks_beside import MasksBeside
from ovskit.core.records import Image, Mask, MaskSet
from ovskit.core.runtime.errors import InputError

NAMES = ("a.jpg", "sub/b.jpg", "c.jpg", "d.jpg")


def sources(*names: str) -> list[Source]:
    return [Source(k + 1, name, f"/nowhere/{name}") for k, name in enumerate(names)]


def stream(path: Path, *names: str) -> str:
    with open(path, "wb") as file:
        writer = MasksWriter(file, MasksHeader())
        for k, name in enumerate(names):
            image = Image(k + 11, name, 4, 3)
            outline = rle.encode(np.ones((3, 4), np.uint8))
            writer.write(MaskSet(image, (Mask(k + 1, image.id, outline, 12, (0, 0, 4, 3)),)))
        writer.finish()
    return str(path)


def beside(path: str, *names: str) -> list[tuple[str, str | None]]:
    with MaskInputs([path]) as masks:
        pairs = list(MasksBeside(masks, sources(*names), "masks.json"))
    return [(source.file_name, None if found is None else found.image.file_name) for source, found in pairs]


@pytest.mark.parametrize("order", [NAMES, NAMES[::-1], (NAMES[2], NAMES[0], NAMES[3], NAMES[1])])
def test_masks_are_found_in_any_order(tmp_path: Path, order: tuple[str, ...]) -> None:
    path = stream(tmp_path / "masks.json", *order)
    assert beside(path, *NAMES) == [(name, name) for name in NAMES]


def test_masks_are_found_under_other_forms_of_the_name(tmp_path: Path) -> None:
    path = stream(tmp_path / "masks.json", "images/a.png", "b.jpg", "extra.jpg")
    assert beside(path, "a.jpg", "sub/b.jpg") == [("a.jpg", "images/a.png"), ("sub/b.jpg", "b.jpg")]


def test_a_photograph_without_masks_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = stream(tmp_path / "masks.json", "a.jpg")
    with caplog.at_level(logging.WARNING, logger="ovskit"):
        assert beside(path, *NAMES) == [("a.jpg", "a.jpg"), *((name, None) for name in NAMES[1:])]
    assert "no masks of 3 of the photographs" in caplog.text


def test_masks_of_other_photographs_are_refused(tmp_path: Path) -> None:
    path = stream(tmp_path / "masks.json", "x.jpg", "y.jpg")
    with pytest.raises(InputError, match=r"masks of other photographs, such as x\.jpg; none is of those named, such as a\.jpg"):
        beside(path, *NAMES)


def test_masks_without_names_are_found_by_id(tmp_path: Path) -> None:
    outline = rle.encode(np.ones((3, 4), np.uint8)).counts.decode()
    one = {"category_id": 1, "score": 0.5, "segmentation": {"size": [3, 4], "counts": outline}}
    (tmp_path / "results.json").write_text(json.dumps([{"image_id": k} | one for k in (2, 1)]))
    with MaskInputs([str(tmp_path / "results.json")]) as masks:
        found = [
            (source.id, None if each is None else each.image.id) for source, each in MasksBeside(masks, sources("a", "b"), "results.json")
        ]
    assert found == [(1, 1), (2, 2)]
