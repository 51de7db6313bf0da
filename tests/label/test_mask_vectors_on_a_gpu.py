"""Vectors of masks by a card against the CPU's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ovskit.core.label.crops import crop_options
from ovskit.core.label.mask_vectors import EncodeOptions, encode_masks
from ovskit.core.models.builtin.extractor import load_builtin
from ovskit.core.runtime.failures import Failures

from .conftest import scene

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.gpu
@pytest.mark.usefixtures("exact")
def test_masks_have_the_same_vectors(tmp_path: Path, measured: Callable[..., None]) -> None:
    """Batches go across images. The vector is rounded to 2⁻¹² at its end: a cosine of 0.999."""
    boxes = [(2, 3, 20, 30), (5, 5, 25, 15), (0, 0, 29, 39)]
    sets = [scene(tmp_path, number, boxes[: 1 + number % 3]) for number in (1, 2, 3)]
    found = []
    for device in (CPU, GPU):
        backbone = load_builtin("builtin", device=device)
        options = EncodeOptions(crop_options(backbone.spec), str(tmp_path), batch_size=4, workers=2)
        found.append(list(encode_masks(sets, backbone, options, Failures(skip=False))))
    here, there = (np.concatenate([one.vectors for one in each]) for each in found)
    assert here.shape == there.shape == (6, 128)
    cosine = float((here * there).sum(axis=1).min())
    measured(cosine=cosine)
    assert cosine > 0.999
