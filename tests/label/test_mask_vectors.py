"""Vectors of masks, one crop after the other as the reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from ovskit.core.label.crops import CropOptions
from ovskit.core.label.mask_vectors import EncodeOptions, MaskVectors, encode_masks
from ovskit.core.masks import rle
from ovskit.core.models.backbones.interface import Features
from ovskit.core.records import Image, MaskSet
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.failures import Failures

from .conftest import Corners, mask_of, scene

BOXES = [[(2, 3, 12, 20), (0, 0, 30, 40), (20, 30, 30, 40)], [], [(5, 5, 6, 6)], [(1, 1, 29, 39)] * 5]


@pytest.fixture
def sets(tmp_path: Path) -> list[MaskSet]:
    return [scene(tmp_path, k + 1, boxes) for k, boxes in enumerate(BOXES)]


def slow(masks: MaskSet, folder: Path, options: CropOptions) -> np.ndarray:
    pixels = np.asarray(Pillow.open(folder / masks.image.file_name))
    rows = []
    for mask in masks.masks:
        inside = rle.decode(mask.rle).astype(bool)
        ys, xs = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        my, mx = round(options.context * len(range(ys[0], ys[-1] + 1))), round(options.context * len(range(xs[0], xs[-1] + 1)))
        whole = pixels.copy()
        if options.masked:
            whole[~inside] = options.fill
        crop = whole[max(0, ys[0] - my) : ys[-1] + 1 + my, max(0, xs[0] - mx) : xs[-1] + 1 + mx]
        small = Pillow.fromarray(crop).resize((options.size, options.size), Pillow.Resampling.BILINEAR)
        vector = Corners().extract(torch.from_numpy(np.array(small).transpose(2, 0, 1))[None], cls=True).cls[0].double().numpy()
        rows.append(vector / np.linalg.norm(vector))
    return np.array(rows, np.float32)


def look(sets: list[MaskSet], backbone: Corners, folder: Path, **options) -> list[MaskVectors]:
    crop = options.pop("crop", CropOptions(16))
    failures = options.pop("failures", Failures(skip=False))
    done = options.pop("done", frozenset())
    return list(encode_masks(sets, backbone, EncodeOptions(crop, str(folder), **options), failures, done=done))


@pytest.mark.parametrize("masked", [False, True])
def test_vectors(sets: list[MaskSet], corners: Corners, tmp_path: Path, masked: bool) -> None:
    crop = CropOptions(16, 0.1, masked, (128, 102, 51))
    found = look(sets, corners, tmp_path, crop=crop)
    assert [each.masks for each in found] == sets
    for each in found:
        assert len(each.vectors) == len(each.masks.masks)
        if len(each.vectors):
            assert each.vectors.dtype == np.float32
            np.testing.assert_allclose(each.vectors, slow(each.masks, tmp_path, crop), atol=1e-6)


@pytest.mark.parametrize(("batch", "workers"), [(1, 3), (2, 1), (4, 2), (100, 4)])
def test_batches_and_workers_change_nothing(sets: list[MaskSet], corners: Corners, tmp_path: Path, batch: int, workers: int) -> None:
    expected = look(sets, Corners(), tmp_path)
    found = look(sets, corners, tmp_path, batch_size=batch, workers=workers)
    assert [each.masks for each in found] == [each.masks for each in expected]
    assert all(np.array_equal(a.vectors, b.vectors) for a, b in zip(found, expected, strict=True))
    assert sum(corners.batches) == 9
    assert corners.batches == [batch] * (9 // batch) + [9 % batch] * (9 % batch > 0)  # across images


def test_what_is_done_is_not_read(sets: list[MaskSet], corners: Corners, tmp_path: Path) -> None:
    (tmp_path / "1.png").unlink()
    (tmp_path / "2.png").unlink()  # it has no masks
    assert [each.masks.image.id for each in look(sets, corners, tmp_path, done=frozenset({1}))] == [2, 3, 4]


def test_masks_without_a_pixel_are_left_out(sets: list[MaskSet], corners: Corners, tmp_path: Path) -> None:
    image = sets[0].image
    nothing = mask_of(99, image, np.zeros((30, 40), bool))
    child = replace(sets[0].masks[0], parent_id=99)
    found = look([MaskSet(image, (nothing, child))], corners, tmp_path)[0]
    assert found.masks == MaskSet(image, (replace(child, parent_id=None),))
    assert len(found.vectors) == 1


def test_images_that_cannot_be_used(sets: list[MaskSet], corners: Corners, tmp_path: Path) -> None:
    (tmp_path / "1.png").unlink()
    Pillow.new("RGB", (7, 7)).save(tmp_path / "3.png")
    with pytest.raises(MissingInputError, match=r"1\.png"):
        look(sets, corners, tmp_path)
    with pytest.raises(InputError, match=r"3\.png is 7×7"):
        look(sets[1:], corners, tmp_path)
    failures = Failures(skip=True)
    found = look(sets, corners, tmp_path, failures=failures, batch_size=3)
    assert [each.masks.image.id for each in found] == [2, 4]
    assert failures.count == 2
    other = MaskSet(sets[3].image, (mask_of(1, Image(4, "4.png", 5, 5), np.ones((5, 5), bool)),))
    with pytest.raises(InputError, match=r"4\.png: mask 1 is 5×5, its image 40×30"):
        look([other], corners, tmp_path)


def test_vectors_that_are_no_numbers(sets: list[MaskSet], corners: Corners, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corners, "extract", lambda batch, **_: Features(torch.empty(0), torch.full((len(batch), 2), float("nan"))))
    with pytest.raises(InputError, match=r"1\.png: the vector of mask 10 is not finite"):
        look(sets, corners, tmp_path)


def test_a_vector_of_zeros_stays_one(sets: list[MaskSet], corners: Corners, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corners, "extract", lambda batch, **_: Features(torch.empty(0), torch.zeros(len(batch), 2)))
    assert not look(sets[:1], corners, tmp_path)[0].vectors.any()
