"""What a segmenter on a card sees in photographs against what it sees on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from ovskit.core.formats.photographs.sources import Source, list_sources
from ovskit.core.masks.overlap import iou
from ovskit.core.masks.runs import run_table
from ovskit.core.predict.predictor import PredictOptions, predict_masks
from ovskit.core.records import MaskSet
from ovskit.core.runtime.failures import Failures
from ovskit.core.train.recipes.segment import new_segmenter
from ovskit.core.train.recipes.segment_settings import SegmentSettings

pytestmark = pytest.mark.gpu

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SETTINGS = SegmentSettings(size="tiny", queries=12, backbone="timm:test_vit", side=64)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, ...]:
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for k, size in enumerate([(50, 80), (50, 80), (80, 50), (64, 64), (33, 97)]):
        small = rng.integers(0, 255, (size[0] // 8, size[1] // 8, 3)).astype(np.uint8)
        Picture.fromarray(small).resize(size[::-1], Picture.Resampling.BICUBIC).save(folder / f"{k}.png")
    return list_sources([str(folder)]).items


def predicted(sources: tuple[Source, ...], device: torch.device, **changes: Any) -> list[MaskSet]:
    segmenter = new_segmenter(SETTINGS, weights=None, pretrained=False, seed=0)
    options = PredictOptions(**{"size": 96, "workers": 2, **changes})
    return list(predict_masks(sources, segmenter, options, Failures(skip=False), device=device))


def overlap(found: list[MaskSet], expected: list[MaskSet]) -> float:
    """The mean, over all masks expected, of the IoU with the mask found that fits best."""
    best = []
    for one, other in zip(found, expected, strict=True):
        assert one.image == other.image
        table = run_table([mask.rle for mask in other.masks])
        best.append(np.asarray(iou(table, run_table([mask.rle for mask in one.masks]))).max(axis=1))
    return float(np.concatenate(best).mean())


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"batch_size": 1}, marks=pytest.mark.heavy),
        pytest.param({"scales": (1.0, 0.7), "nms": 0.9, "parents": False}, marks=pytest.mark.heavy),
    ],
)
def test_masks_are_the_same_in_single_precision(
    photographs: tuple[Source, ...], changes: dict[str, Any], measured: Callable[..., None]
) -> None:
    """A logit that is 0 but for rounding moves a pixel: masks overlap by 0.999 in the mean. Scores to 1e-3."""
    here, there = predicted(photographs, CPU, **changes), predicted(photographs, GPU, **changes)
    scores = [np.sort([mask.score or 0.0 for masks in found for mask in masks.masks]) for found in (here, there)]
    assert len(scores[0]) == len(scores[1]) > 10
    found = {"iou": overlap(there, here), "score": float(np.abs(scores[0] - scores[1]).max())}
    measured(**found)
    assert found["iou"] > 0.999
    assert found["score"] < 1e-3


def test_masks_are_near_in_bfloat16(photographs: tuple[Source, ...], measured: Callable[..., None]) -> None:
    """Random weights are sure of nothing, so that 0.4 % of rounding moves many pixels: an overlap of 0.8 in the mean."""
    here, there = predicted(photographs, CPU), predicted(photographs, GPU, precision=torch.bfloat16)
    found = overlap(there, here)
    measured(iou=found)
    assert found > 0.8
