"""How far two results of the same computation are apart, where they are not the same bits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from ovskit.core.masks.overlap import iou
from ovskit.core.masks.runs import table_of
from ovskit.core.records import MaskSet


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The length of the difference as a share of that of ``expected``, all numbers as one vector."""
    difference, length = (found.double() - expected.double()).norm(), expected.double().norm()
    return float(difference / length.clamp_min(1e-300))


def least_cosine(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The smallest cosine between rows (…, c) of the two."""
    rows = [one.double().flatten(0, -2) for one in (found, expected)]
    return float(torch.nn.functional.cosine_similarity(*rows, dim=1).min())


def between_patches(features: torch.Tensor) -> torch.Tensor:
    """Cosines between all patches of an image, (b, n, n), of features (b, h, w, c): what clustering makes of them, which neither the
    signs of principal components nor a rotation changes."""
    rows = torch.nn.functional.normalize(features.double().flatten(1, 2), dim=2)
    return rows @ rows.mT


def joined(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """All numbers of some tensors as one vector of the CPU, float64."""
    return torch.cat([one.detach().cpu().double().flatten() for one in tensors])


def overlap(found: Sequence[MaskSet], expected: Sequence[MaskSet]) -> float:
    """The mean, over all masks expected, of the IoU with the mask found that fits best; both of the same images."""
    best = []
    for one, other in zip(found, expected, strict=True):
        assert one.image == other.image
        table = table_of(other)
        best.append(np.asarray(iou(table, table_of(one))).max(axis=1))
    return float(np.concatenate(best).mean())
