"""Segments from masks: the smallest mask that is large enough, and the photograph that it belongs to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.formats.photographs.sources import Source
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
from ovskit.core.masks import rle
from ovskit.core.records import Image, Mask, MaskSet
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError
from ovskit.core.train.data.mask_segments import mask_segments, with_masks


def mask_set(image: Image, pixels: list[np.ndarray]) -> MaskSet:
    masks = []
    for k, one in enumerate(pixels):
        run = rle.encode(one)
        masks.append(Mask(k + 1, image.id, run, rle.area(run), rle.bbox(run)))
    return MaskSet(image, tuple(masks))


def by_definition(pixels: list[np.ndarray], shares: tuple[float, ...], height: int, width: int) -> np.ndarray:
    """For each place the rank, largest first, of the smallest mask that holds it and is large enough."""
    whole_height, whole_width = pixels[0].shape
    order = sorted(range(len(pixels)), key=lambda k: -int(pixels[k].sum()))
    out = np.zeros((height, width, len(shares)), np.uint8)
    for y in range(height):
        for x in range(width):
            row, col = int((y + 0.5) * whole_height / height), int((x + 0.5) * whole_width / width)
            for level, share in enumerate(shares):
                for rank, k in enumerate(order):
                    if pixels[k][row, col] and pixels[k].sum() >= share * whole_height * whole_width:
                        out[y, x, level] = (rank + 1) % 256
    return out


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 9), st.integers(1, 9))
def test_a_place_belongs_to_the_smallest_mask_that_is_large_enough(seed: int, count: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 20, 2)
    pixels = [(rng.random(size) < rng.random()).astype(np.uint8) for _ in range(count)]
    image = Image(1, "a.jpg", int(size[1]), int(size[0]))
    shares = (0.0, 0.2, 0.5)
    np.testing.assert_array_equal(
        mask_segments(mask_set(image, pixels), shares, height, width), by_definition(pixels, shares, height, width)
    )


def test_nested_masks_give_nested_segmentations() -> None:
    halves = np.zeros((16, 16), np.uint8)
    halves[:, :8] = 1
    quarter = halves.copy()
    quarter[8:] = 0
    labels = mask_segments(mask_set(Image(1, "a.jpg", 16, 16), [quarter, halves, 1 - halves]), (0.1, 0.4), 8, 8)
    assert len(np.unique(labels[..., 0])) == 3
    assert len(np.unique(labels[..., 1])) == 2
    assert (labels[:, 4:, 1] == labels[0, 7, 1]).all()


def test_no_mask_is_no_segment() -> None:
    assert not mask_segments(mask_set(Image(1, "a.jpg", 9, 7), []), (0.1, 0.5), 3, 4).any()


def write(path: Path, names: list[str]) -> None:
    with path.open("wb") as file:
        writer = MasksWriter(file, MasksHeader())
        for k, name in enumerate(names):
            writer.write(mask_set(Image(k + 1, name, 6, 5), [np.ones((5, 6), np.uint8)]))
        writer.finish()


def sources(*names: str) -> list[Source]:
    return [Source(k + 1, name, f"/nowhere/{name}") for k, name in enumerate(names)]


def test_masks_find_their_photographs_in_any_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "masks.json", ["b.jpg", "else.jpg", "x/a.jpg"])
    found = list(with_masks(sources("a.jpg", "b.jpg", "c.jpg"), tmp_path / "masks.json"))
    assert [source.file_name for source, _ in found] == ["b.jpg", "a.jpg", "c.jpg"]
    assert [own.image.file_name for _, own in found[:2] if isinstance(own, MaskSet)] == ["b.jpg", "x/a.jpg"]
    assert isinstance(found[2][1], InputError)
    assert "c.jpg" in str(found[2][1])
    assert "1 images are not among the photographs" in caplog.text


def test_masks_of_other_photographs_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "masks.json", ["b.jpg"])
    with pytest.raises(InputError, match="has none of the photographs"):
        list(with_masks(sources("a.jpg"), tmp_path / "masks.json"))
    write(tmp_path / "masks.json", ["x/a.jpg", "y/a.jpg"])
    with pytest.raises(InputError, match="two images fit a.jpg"):
        list(with_masks(sources("a.jpg"), tmp_path / "masks.json"))
    with pytest.raises(MissingInputError):
        list(with_masks(sources("a.jpg"), tmp_path / "none.json"))


def test_names_in_another_spelling_and_orientations(tmp_path: Path) -> None:
    write(tmp_path / "masks.json", ["set\\a%20b.png", "c.jpg"])
    found = list(with_masks(sources("set/a b.jpg", "c.jpg"), tmp_path / "masks.json"))
    assert [(source.file_name, source.exif) for source, _ in found] == [("set/a b.jpg", "apply"), ("c.jpg", "apply")]
    ignored = (tmp_path / "masks.json").read_bytes().replace(b'"pg":[', b'"exif":"ignore","pg":[', 1)
    (tmp_path / "masks.json").write_bytes(ignored)
    with pytest.raises(UsageError, match="was made with --exif ignore"):
        list(with_masks(sources("c.jpg"), tmp_path / "masks.json"))
    (tmp_path / "masks.json").write_text(json.dumps([{"image_id": 1, "segmentation": {"size": [5, 6], "counts": "0n0"}}]))
    with pytest.raises(InputError, match="ids and no names"):
        list(with_masks(sources("1.jpg"), tmp_path / "masks.json"))
