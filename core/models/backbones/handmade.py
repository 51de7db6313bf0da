"""``handmade-v1``: a dense descriptor without learning or weights, on an 8-pixel grid.

What the image shows, per image, from fine to coarse:

1. *Colour and texture*: CIE Lab in cells of 4 pixels, and the strength of gradients at six orientations around (central
   differences of L at half resolution, smoothed over some 100 pixels). All nine are standardised over the image.
2. *A kernel*: random Fourier features, cosine and sine of 32 random projections of those nine numbers, so that an inner
   product approximates a Gaussian kernel (Rahimi and Recht, NeurIPS 2007), averaged into the patch. Without it, the
   merging's cosine compares directions from the image's mean colour, and all that is near the mean is arbitrary. With
   it, the mean of a region's features stands for the distribution of its colours (a kernel mean embedding).
3. *Context*: the 20 principal components of that, as they are and smoothed at two radii.
4. *Half-power whitening* of all 60 per image (``whitening.half_whiten``).

All of it is a choice; ``bench/descriptor.py`` measures what it is worth on three sets of photographs. The same image gives
the same bytes on one CPU whatever the batch and the number of threads: sums over an image are exact (see ``whitening``), and
non-linear functions are tables, since vectorised ones may round differently at the end of a thread's share.
"""

from __future__ import annotations

import math
import random
from statistics import NormalDist

import torch
import torch.nn.functional as F

from ovskit.core.models.backbones.interface import BackboneSpec, Features, Interpolation, check_images
from ovskit.core.models.backbones.names import HANDMADE
from ovskit.core.models.backbones.resize import resize_rgb
from ovskit.core.models.backbones.whitening import half_whiten, principal_components, quantise, standardise
from ovskit.core.records import UInt8
from ovskit.core.runtime.errors import UsageError

STRIDE = 8
_FREQUENCIES = 32
_COMPONENTS = 20
_CONTEXT = (0, 2, 4)  # radii of the smoothing, in patches
_TEXTURE_RADIUS = 4
_TEXTURE_WEIGHT = 0.2  # standard deviation of each of the six, where a colour channel has 1
_ORIENTATIONS = 6
_BANDWIDTH = 1.0
_LAB_FLOOR = 0.002  # of Lab / 100: what is left of a flat surface after JPEG should not become its pattern
_TEXTURE_FLOOR = 0.002

_TURN = 4096  # entries of the cosine table
_CUBE_ROOT = 1 << 14  # entries of the table of Lab's non-linearity
_CPU_PIXELS = 1 << 20  # computed at a time: bounds memory to some 200 MB
_GPU_PIXELS = 1 << 24


class HandmadeBackbone:
    """The descriptor as a ``Backbone``: (b, H/8, W/8, 60) float32, mean about 0 per image, no CLS token.

    It has no facets and no layers; the specification records ``key`` and −1.
    """

    def __init__(self, name: str, device: torch.device, interpolation: Interpolation | None = None) -> None:
        self.spec = BackboneSpec(
            name=name,
            model=HANDMADE,
            facet="key",
            layer=-1,
            stride=STRIDE,
            dim=_COMPONENTS * len(_CONTEXT),
            has_cls=False,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            interpolation=interpolation or "bilinear",
        )
        self.device = device
        # Exact sums need float64, which Apple's GPUs do not have.
        self._place = torch.device("cpu") if device.type == "mps" else device
        self._tables = _Tables(self._place)

    def prepare(self, image: UInt8, height: int, width: int) -> torch.Tensor:
        """See ``Backbone.prepare``. Raises UsageError if a side is not a positive multiple of 8."""
        self._check_size(height, width)
        return resize_rgb(image, height, width, self.spec.interpolation)

    def extract(self, batch: torch.Tensor, *, cls: bool = False, patch: bool = True) -> Features:
        """See ``Backbone.extract``. Constant images, and images of a single patch, have zero features."""
        if cls:
            raise UsageError(f"{self.spec.name} has no CLS token; leave --cls out, or name a vision transformer with --model")
        check_images(batch, self.spec.name)
        height, width = batch.shape[2:]
        self._check_size(height, width)
        if not patch or not len(batch):
            grid = (height // STRIDE, width // STRIDE) if patch else (0, 0)
            return Features(torch.empty(len(batch), *grid, self.spec.dim, device=self.device), None)
        pixels = _CPU_PIXELS if self._place.type == "cpu" else _GPU_PIXELS
        with torch.inference_mode():
            pieces = batch.split(max(1, pixels // (height * width)))
            found = torch.cat([self._describe(piece.to(self._place)) for piece in pieces])
            return Features(found.to(self.device), None)

    def _describe(self, images: torch.Tensor) -> torch.Tensor:
        batch, height, width = len(images), images.shape[2] // STRIDE, images.shape[3] // STRIDE
        lab = self._tables.lab(images)
        colour = standardise(F.avg_pool2d(lab, 2).flatten(2), _LAB_FLOOR)
        texture = standardise(_texture(lab[:, :1]).flatten(2), _TEXTURE_FLOOR) * _TEXTURE_WEIGHT
        kernel = self._tables.fourier(colour, quantise(texture), (height, width))
        components = principal_components(kernel.flatten(2), _COMPONENTS).view(batch, _COMPONENTS, height, width)
        context = torch.cat([quantise(_smooth(components, radius)) for radius in _CONTEXT], dim=1)
        return half_whiten(context.flatten(2)).mT.reshape(batch, height, width, -1)

    def _check_size(self, height: int, width: int) -> None:
        if height < STRIDE or width < STRIDE or height % STRIDE or width % STRIDE:
            raise UsageError(f"size {height}×{width}: {self.spec.name} needs multiples of its {STRIDE}-pixel patch")


def load_handmade(name: str, *, device: torch.device, interpolation: Interpolation | None = None) -> HandmadeBackbone:
    """The built-in descriptor under the name that the user typed. Nothing is downloaded or read."""
    return HandmadeBackbone(name, device, interpolation)


class _Tables:
    """Constants of the descriptor on one device: sRGB, Lab, Fourier frequencies, a cosine."""

    def __init__(self, device: torch.device) -> None:
        # Means of 2 × 2 bytes have 1021 values; IEC 61966-2-1's transfer function.
        srgb = torch.arange(1021, dtype=torch.float64) / 1020
        self._linear = torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).float().to(device)
        t = torch.arange(_CUBE_ROOT + 1, dtype=torch.float64) / _CUBE_ROOT
        low = t * (841 / 108) + 4 / 29  # CIE 15: below (6/29)³ the cube root goes on as a line
        self._root = torch.where(t > (6 / 29) ** 3, t ** (1 / 3), low).float().to(device)
        turn = torch.arange(_TURN, dtype=torch.float64) * (2 * math.pi / _TURN)
        self._cosine = quantise(torch.cos(turn), 2.0**-14).float().to(device)
        # Python's own generator: its numbers are the same in every version and on every machine.
        rng, normal = random.Random(0), NormalDist(0, 1 / (2 * math.pi * _BANDWIDTH))
        turns = [[normal.inv_cdf(rng.random()) for _ in range(3 + _ORIENTATIONS)] for _ in range(_FREQUENCIES)]
        self._turns = quantise(torch.tensor(turns, dtype=torch.float64)).to(device)

    def lab(self, images: torch.Tensor) -> torch.Tensor:
        """CIE Lab / 100 (D65) of (b, 3, H, W) uint8 at half resolution: (b, 3, H/2, W/2) float32."""
        sums = torch.round(F.avg_pool2d(images.float(), 2) * 4)
        r, g, b = self._linear[sums.long()].unbind(1)
        # Rows of the sRGB matrix over the white point's X, Y, Z, so that white is (1, 1, 1).
        x = 0.4339499 * r + 0.3762098 * g + 0.1898402 * b
        y = 0.2126729 * r + 0.7151522 * g + 0.0721750 * b
        z = 0.0177566 * r + 0.1094680 * g + 0.8727755 * b
        fx, fy, fz = (self._root[torch.round(v.clamp(0, 1) * _CUBE_ROOT).long()] for v in (x, y, z))
        return torch.stack([1.16 * fy - 0.16, 5 * (fx - fy), 2 * (fy - fz)], dim=1)

    def fourier(self, colour: torch.Tensor, texture: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Fourier features (b, 64, h, w) in [−1, 1] of colour (b, 3, 4·h·w), in cells of 2 × 2 to the patch, and texture (b, 6, h·w).

        The mean over the patch; multiples of 2⁻¹⁶.
        """
        height, width = grid
        fine = (self._turns[:, :3] @ colour.double()).view(-1, _FREQUENCIES, height, 2, width, 2)
        coarse = (self._turns[:, 3:] @ texture.double()).view(-1, _FREQUENCIES, height, 1, width, 1)
        turns = torch.round((fine + coarse) * _TURN).to(torch.int32).view(-1, _FREQUENCIES, 2 * height, 2 * width)
        parts = [self._cosine[turns & (_TURN - 1)], self._cosine[(turns - _TURN // 4) & (_TURN - 1)]]
        return torch.cat([F.avg_pool2d(part, 2) for part in parts], dim=1)


def _texture(lightness: torch.Tensor) -> torch.Tensor:
    """Strength of gradients at six orientations around each patch: (b, 6, h, w) from (b, 1, 4·h, 4·w).

    A gradient of magnitude m at the angle α adds m·max(0, cos 2(α − θ))² to the orientation θ: its opposite counts alike,
    and the six bins are half a bin's width apart. The square root of the mean tames strong edges.
    """
    padded = F.pad(lightness, (1, 1, 1, 1), mode="replicate")
    gx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    gy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    power = gx * gx + gy * gy
    strength = torch.sqrt(power)
    scale = 1 / power.clamp_min(1e-12)
    cosine, sine = (gx * gx - gy * gy) * scale, 2 * gx * gy * scale
    bins = []
    for k in range(_ORIENTATIONS):
        angle = 2 * math.pi * k / _ORIENTATIONS
        near = (cosine * math.cos(angle) + sine * math.sin(angle)).clamp_min(0)
        bins.append(F.avg_pool2d(strength * near * near, 4))
    return _smooth(torch.sqrt(torch.cat(bins, dim=1)), _TEXTURE_RADIUS)


def _smooth(x: torch.Tensor, radius: int) -> torch.Tensor:
    """Two box filters of 2·radius + 1 patches, about a Gaussian; at the border, the mean of what is inside."""
    if radius == 0:
        return x
    size = 2 * radius + 1
    for _ in range(2):
        x = F.avg_pool2d(x, (1, size), 1, (0, radius), count_include_pad=False)
        x = F.avg_pool2d(x, (size, 1), 1, (radius, 0), count_include_pad=False)
    return x
