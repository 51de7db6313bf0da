"""One vector for a whole image: what the network sees in each of 4 × 4 fields, and which way edges run there.

The image is looked at in 128 × 128 pixels, whatever its size and aspect. Two descriptions are taken of it,

- the network's embedding, its mean over each field: 16 fields × its channels,
- the strength of gradients at eight orientations in each field, as in GIST (Oliva and Torralba, IJCV 42(3), 2001) and HOG
  (Dalal and Triggs, CVPR 2005): 128 numbers, their square roots, of norm 1,

each is centred and half-whitened along its 64 strongest axes over the photographs that the network was trained on, and they
are put side by side, the network's counting 0.7 of the other. The axes are learned, so they belong to the weights. Layout
counts: an image and its mirror image are two things. All of it is a choice; docs/notes/builtin.md has what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F

from ovskit.core.models.backbones.whitening import quantise
from ovskit.core.models.builtin.network import GroupingNetwork, normalise

SIDE = 128
FIELDS = 4
WIDTH = 64  # axes kept of each description
LEARNED = 0.7
_ORIENTATIONS = 8
_SMOOTH = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_DIFFERENCE = (-1 / 8, -2 / 8, 0.0, 2 / 8, 1 / 8)
_TABLE = 1024
_STEP = 2.0**-10
_AXIS_STEP = 2.0**-20


@dataclass(frozen=True, slots=True)
class Axes:
    """Where a description is centred and what it is projected on: ``mean`` (d,) and ``axes`` (d, ``WIDTH``), float32."""

    mean: torch.Tensor
    axes: torch.Tensor

    def project(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows (b, d) as (b, ``WIDTH``) float32; exact sums, so that a row does not depend on the others or on threads."""
        centred = quantise(rows.double(), _STEP) - quantise(self.mean.double(), _STEP)
        return (centred @ quantise(self.axes.double(), _AXIS_STEP)).float()


@dataclass(frozen=True, slots=True)
class GlobalVector:
    """The axes of both descriptions."""

    learned: Axes
    gradients: Axes

    @property
    def width(self) -> int:
        """How long the vector is."""
        return self.learned.axes.shape[1] + self.gradients.axes.shape[1]

    def to(self, device: torch.device) -> GlobalVector:
        """The same axes on a device, which must have float64."""
        return GlobalVector(*(Axes(each.mean.to(device), each.axes.to(device)) for each in (self.learned, self.gradients)))

    def tensors(self) -> dict[str, torch.Tensor]:
        """The axes by name, for a weights file."""
        return {
            f"{name}.{what}": getattr(each, what)
            for name, each in (("learned", self.learned), ("gradients", self.gradients))
            for what in ("mean", "axes")
        }

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> GlobalVector:
        """The inverse of ``tensors``. Raises KeyError if one is missing, ValueError if their shapes do not fit each other."""
        both = [Axes(tensors[f"{name}.mean"].float(), tensors[f"{name}.axes"].float()) for name in ("learned", "gradients")]
        for each in both:
            if each.mean.ndim != 1 or each.axes.ndim != 2 or each.axes.shape[0] != each.mean.shape[0]:
                raise ValueError(f"{tuple(each.axes.shape)} axes for {tuple(each.mean.shape)} numbers")
        if both[1].mean.shape[0] != FIELDS * FIELDS * _ORIENTATIONS or both[0].mean.shape[0] % (FIELDS * FIELDS):
            raise ValueError(f"axes for {both[0].mean.shape[0]} and {both[1].mean.shape[0]} numbers")
        return cls(*both)

    def __call__(self, network: GroupingNetwork, images: torch.Tensor) -> torch.Tensor:
        """The vectors (b, ``width``) float32 of images (b, 3, H, W) of 0 to 255, on the network's device; quantised."""
        learned, gradients = describe(network, images, self.learned.mean.device)
        return quantise(torch.cat([LEARNED * self.learned.project(learned), self.gradients.project(gradients)], dim=1))


def describe(network: GroupingNetwork, images: torch.Tensor, place: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Both descriptions of images (b, 3, H, W) of 0 to 255: (b, 16·embedding) and (b, 128) float32, on ``place``."""
    small = glance(images)
    embedding = network(normalise(small).contiguous(memory_format=torch.channels_last)).embedding
    return _fields(embedding.float().to(place)), oriented_gradients(small.to(place))


def glance(images: torch.Tensor) -> torch.Tensor:
    """Images (b, 3, H, W) of 0 to 255 as they are looked at: (b, 3, 128, 128) float32."""
    if images.shape[2:] == (SIDE, SIDE):
        return images.float()
    return F.interpolate(images.float(), (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)


def oriented_gradients(images: torch.Tensor) -> torch.Tensor:
    """Gradients of the luma of (b, 3, S, S), 0 to 255, at eight orientations in 4 × 4 fields: (b, 128), of norm 1 or 0.

    A gradient of magnitude m at the angle α counts for the two orientations beside it, by its distance from each, the
    opposite direction alike; the square root of a field's mean tames strong edges.
    """
    r, g, b = images.float().unbind(1)
    luma = F.pad(0.299 * r + 0.587 * g + 0.114 * b, (2, 2, 2, 2), mode="replicate")
    # Sobel's kernels on an image smoothed by [1 2 1] / 4.
    gx = _filtered(_filtered(luma, _DIFFERENCE, 2), _SMOOTH, 1)
    gy = _filtered(_filtered(luma, _SMOOTH, 2), _DIFFERENCE, 1)
    magnitude = torch.sqrt(gx * gx + gy * gy)
    position = _orientation(gx, gy)
    bins = []
    for k in range(_ORIENTATIONS):
        away = (position - k).abs()
        near = (1 - torch.minimum(away, _ORIENTATIONS - away)).clamp_min(0)
        bins.append(quantise(magnitude * near, _STEP))
    strength = quantise(torch.sqrt(_fields(torch.stack(bins, dim=1))), _STEP).double()
    norm = torch.sqrt((strength * strength).sum(dim=1, keepdim=True))
    return (strength / norm.clamp_min(1e-6)).float()


def _filtered(x: torch.Tensor, kernel: tuple[float, ...], dim: int) -> torch.Tensor:
    """Elementwise, since a library's convolution may round differently with the number of threads."""
    length = x.shape[dim] - len(kernel) + 1
    return sum((weight * x.narrow(dim, k, length) for k, weight in enumerate(kernel) if weight), x.new_zeros(()))


def _orientation(gx: torch.Tensor, gy: torch.Tensor) -> torch.Tensor:
    """The direction of gradients modulo π, in [0, 8] where 8 is 0 again; by a table, as vectorised arctangents round differently."""
    x, y = gx.abs(), gy.abs()
    ratio = torch.minimum(x, y) / torch.maximum(x, y).clamp_min(1e-30)
    angle = _angles(gx.device)[torch.round(ratio * _TABLE).long()]
    angle = torch.where(y > x, _ORIENTATIONS / 2 - angle, angle)
    return torch.where((gx < 0) != (gy < 0), _ORIENTATIONS - angle, angle)


@cache
def _angles(device: torch.device) -> torch.Tensor:
    """From 0 to an eighth of a turn, by the tangent in steps of 1/1024, in bins."""
    table = torch.atan(torch.arange(_TABLE + 1, dtype=torch.float64) / _TABLE) * (_ORIENTATIONS / math.pi)
    return quantise(table, 2.0**-12).float().to(device)


def fit_axes(rows: torch.Tensor, width: int = WIDTH) -> Axes:
    """The axes of a description, from rows (n, d) of many photographs.

    With the covariance U diag(λ) Uᵀ they are the ``width`` strongest columns of U λ^(−1/4), so that the standard deviation of
    each component becomes its square root, all scaled such that the mean squared norm is 1. What n photographs cannot
    tell apart is 0.
    """
    x = rows.double()
    mean = x.mean(dim=0)
    covariance = (x - mean).mT @ (x - mean) / len(x)
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0)[:width].clamp_min(0), vectors.flip(1)[:, :width]
    kept = values > 1e-9 * values[0].clamp_min(1e-30)
    scale = torch.where(kept, values.clamp_min(1e-30) ** -0.25, 0.0)
    power = (values.sqrt() * kept).sum().clamp_min(1e-30)  # the mean squared norm of what they give
    axes = vectors * scale / power.sqrt()
    return Axes(mean.float().cpu(), F.pad(axes, (0, width - axes.shape[1])).float().cpu())


def _fields(x: torch.Tensor) -> torch.Tensor:
    """The mean of (b, c, s, s) over each of 4 × 4 fields: (b, 16·c)."""
    return F.avg_pool2d(x, x.shape[-1] // FIELDS).flatten(1)
