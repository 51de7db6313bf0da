"""The windowed CRF by torch on a card against the compiled kernel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ovskit.core.masks import rle
from ovskit.core.masks.runs import run_table
from ovskit.core.records import Mask
from ovskit.core.refine import convcrf
from ovskit.core.refine.convcrf import Field, convcrf_refiner, mean_field_by_torch, window_of
from ovskit.core.refine.log_odds import log_odds
from ovskit.core.refine.methods.convcrf import ConvCrfOptions

pytestmark = pytest.mark.gpu

GPU = torch.device("cuda")


def crowd(count: int = 12, height: int = 70, width: int = 90) -> tuple[np.ndarray, list[Mask]]:
    """Blocks of colour under noise, and discs."""
    random = np.random.default_rng(11)
    blocks = random.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3)).repeat(4, 0).repeat(4, 1)[:height, :width]
    pixels = np.clip(blocks + random.integers(-12, 13, (height, width, 3)), 0, 255).astype(np.uint8)
    y, x = np.mgrid[:height, :width]
    masks = []
    for k in range(count):
        cy, cx, r = random.uniform(0, height), random.uniform(0, width), random.uniform(4, 50)
        coded = rle.encode(np.ascontiguousarray((y - cy) ** 2 + (x - cx) ** 2 < r * r))
        masks.append(Mask(k + 1, 1, coded, rle.area(coded), rle.bbox(coded)))
    return pixels, masks


@pytest.mark.usefixtures("exact")
def test_beliefs_are_the_kernels(measured: Callable[..., None]) -> None:
    """Sums of some hundred float32 terms in other orders, three times over, through a tanh: 1e-3 of a belief in −1 … 1."""
    pixels, masks = crowd()
    options = ConvCrfOptions(iterations=3, rings=3, directions=6)
    table = run_table([mask.rle for mask in masks])
    boxes = [convcrf.box_around(table, k, 20) for k in range(len(masks))]
    odds = [
        log_odds(mask, convcrf.decode_box(table, k, box), box, options.confidence, options.sharpness, options.soft_area)
        for k, (mask, box) in enumerate(zip(masks, boxes, strict=True))
    ]
    field = Field(pixels, window_of(options), options, None)
    here, there = field.beliefs(boxes, odds), mean_field_by_torch(field, boxes, odds, GPU)
    apart = max(float(np.abs(one - other).max()) for one, other in zip(here, there, strict=True))
    measured(belief=apart)
    assert apart < 1e-3


@pytest.mark.usefixtures("exact")
def test_masks_are_the_cpus_but_for_pixels_in_doubt(measured: Callable[..., None]) -> None:
    """Where a belief is 0 but for rounding a pixel may fall to either side: one in a thousand at most."""
    pixels, masks = crowd()
    options = ConvCrfOptions(rings=3, directions=6)
    here, there = convcrf_refiner(options).refine(pixels, masks), convcrf_refiner(options, GPU).refine(pixels, masks)
    assert here != [mask.rle for mask in masks]
    differ = np.mean([rle.decode(one) != rle.decode(other) for one, other in zip(here, there, strict=True)])
    measured(pixels=differ)
    assert differ < 1e-3


def test_batches_of_masks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mask is summed by itself, elementwise: no tolerance."""
    pixels, masks = crowd()
    refine = convcrf_refiner(ConvCrfOptions(iterations=2, rings=1, directions=4), GPU).refine
    together = refine(pixels, masks)
    monkeypatch.setattr(convcrf, "_MOST_PIXELS", 5 * pixels.shape[0] * pixels.shape[1])
    assert refine(pixels, masks) == together
