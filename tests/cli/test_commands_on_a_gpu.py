"""Commands with ``--device cuda`` against the same with ``--device cpu``, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from ovskit.core.models.segmenter.checkpoint import save_segmenter
from ovskit.core.train.recipes.segment import SegmentSettings, new_segmenter
from tests.differences import between_patches, overlap

from .streams import read_features, read_masks

pytestmark = [pytest.mark.gpu, pytest.mark.heavy]

Measured = Callable[..., None]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs") / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(3):
        small = rng.integers(0, 255, (10, 13, 3)).astype(np.uint8)
        Picture.fromarray(small).resize((130, 100), Picture.Resampling.BICUBIC).save(folder / f"{k}.png")
    return folder


def test_extract(at_once: Callable[..., None], photographs: Path, tmp_path: Path, measured: Measured) -> None:
    """With TF32 in the network's convolutions, as a person has it: a mean difference of 0.02 between patches' cosines."""
    at_once(
        *(("ovs-extract", photographs, "--size", 128, "--device", device, "-o", tmp_path / f"{device}.npz") for device in ("cpu", "cuda"))
    )
    here, there = (read_features(tmp_path / f"{device}.npz") for device in ("cpu", "cuda"))
    assert [one.image for one in here] == [one.image for one in there]
    apart = [
        (between_patches(torch.from_numpy(one.patch)[None]) - between_patches(torch.from_numpy(other.patch)[None])).abs()
        for one, other in zip(here, there, strict=True)
    ]
    mean = float(torch.stack([one.mean() for one in apart]).mean())
    measured(mean=mean)
    assert mean < 0.02


def test_cluster_looks_closer(at_once: Callable[..., None], photographs: Path, tmp_path: Path, measured: Measured) -> None:
    """The same features, so only the crops of the local step are seen by the card: masks overlap by 0.9 in the mean."""
    at_once(("ovs-extract", photographs, "--size", 128, "--device", "cpu", "-o", tmp_path / "f.npz"))
    how = ["--thresholds", "0.6..0.2", "--local", "--local-size", 64]
    at_once(
        *(("ovs-cluster", tmp_path / "f.npz", *how, "--device", device, "-o", tmp_path / f"{device}.json") for device in ("cpu", "cuda"))
    )
    here, there = (read_masks(tmp_path / f"{device}.json") for device in ("cpu", "cuda"))
    found = overlap(there, here)
    measured(iou=found)
    assert found > 0.9


def test_predict(at_once: Callable[..., None], photographs: Path, tmp_path: Path, measured: Measured) -> None:
    """In single precision but for TF32: random weights are sure of nothing, so an overlap of 0.95 in the mean.

    Queries are learned one by one: those that begin at places all see the whole photograph before they are trained, and all but one of
    their masks are dropped.
    """
    settings = SegmentSettings(size="tiny", queries=12, kinds=0, backbone="builtin", side=64)
    save_segmenter(tmp_path / "model", new_segmenter(settings, weights=None, pretrained=False, seed=0), {"size": 96})
    how = ["--checkpoint", tmp_path / "model", "--precision", "fp32"]
    at_once(*(("ovs-predict", photographs, *how, "--device", device, "-o", tmp_path / f"{device}.json") for device in ("cpu", "cuda")))
    here, there = (read_masks(tmp_path / f"{device}.json") for device in ("cpu", "cuda"))
    assert sum(len(one.masks) for one in here) > 10
    found = overlap(there, here)
    measured(iou=found)
    assert found > 0.95
