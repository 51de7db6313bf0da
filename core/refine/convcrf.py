"""Windowed CRF: what ``crf`` does, in a fixed number of samples around each pixel; on the CPU compiled, on a GPU by torch.

Teichmann and Cipolla, "Convolutional CRFs for Semantic Segmentation", BMVC 2019 (arXiv 1805.04777): in the mean field of
Krähenbühl and Koltun (see ``crf``) the sum over all pixels is cut to a window, and what is left is a convolution with
weights that depend on the image alone (§4). With two labels one number, b = 2 Q(foreground) - 1, is enough:

    b_i ← tanh(½ (u_i + Σ_m w_m Σ_o n_i k_m(i, i + o) n_{i+o} b_{i+o})),    1 / n_i² = Σ_o k_m(i, i + o),

u_i the log-odds that the mask begins with (``log_odds``). As in ``crf`` every mask has a crop of its own, what lies outside it takes no
part, and the kernels k_m are normalised within it; the kernels themselves are the image's, and shared by all its masks.

The window is a [choice]. The paper's, a square with dilation, misses what is near when it reaches as far as the appearance
kernel does, and costs a hundred times as much when it is dense. Here samples lie on rings whose radii grow geometrically,
around a dense 3 × 3, each counted with the area it stands for. The pixel itself hardly counts [choice]: in ``crf``, whose
lattice blurs it into its neighbourhood, no colour is so rare that a pixel listens to itself only. The square is there too,
by ``window`` and ``dilation``; one that covers the crop is the dense CRF.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ovskit.core.masks.boxes import Box, box_around, decode_box, encode_box
from ovskit.core.records import Mask, Rle, RunTable, UInt8
from ovskit.core.refine import convcrf_kernels as kernels
from ovskit.core.refine.crop_groups import crop_groups
from ovskit.core.refine.log_odds import log_odds
from ovskit.core.refine.refiner import Refiner

if TYPE_CHECKING:
    import torch

    from ovskit.core.refine.methods.convcrf import ConvCrfOptions

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_MOST_PIXELS = 1 << 23  # pixels of crops that are worked on together, about 30 bytes each
_INNERMOST_RING = 2.5
_ITSELF = 1e-3
_NOTHING = 3e-5  # Gaussian weights below this share of the largest are 0
_LOWEST = -87.0  # exp of this is the last that float32 holds in full


def convcrf_refiner(options: ConvCrfOptions, device: torch.device | None = None) -> Refiner:
    """The refiner ``convcrf``; ``device`` other than a CPU's works by torch."""
    window = window_of(options)

    def refine(pixels: UInt8, masks: Sequence[Mask], table: RunTable) -> list[Rle]:
        refined = [mask.rle for mask in masks]
        field = Field(pixels, window, options, device)
        boxes = [box_around(table, k, options.margin) for k in range(len(masks))]
        for members in crop_groups(boxes, _MOST_PIXELS):
            crops = [boxes[k] for k in members]
            odds = [
                log_odds(masks[k], decode_box(table, k, boxes[k]), boxes[k], options.confidence, options.sharpness, options.soft_area)
                for k in members
            ]
            beliefs = field.beliefs(crops, odds)
            for k, belief in zip(members, beliefs, strict=True):
                refined[k] = encode_box(belief > 0, boxes[k], table.height, table.width)
        return refined

    return Refiner("convcrf", refine)


@dataclass(frozen=True, slots=True)
class Window:
    """``offsets`` int64 (n, 2), the (dy, dx) of its samples, symmetric about 0; ``share`` (n,), the pixels each stands for."""

    offsets: Int64
    share: Float64


def window_of(options: ConvCrfOptions) -> Window:
    """The samples that ``options`` ask for, nearest first."""
    pixels: dict[tuple[int, int], float] = {}
    if options.window:
        reach = options.window // 2
        for y in range(-reach, reach + 1):
            for x in range(-reach, reach + 1):
                pixels[y * options.dilation, x * options.dilation] = float(options.dilation**2)
        pixels[0, 0] = 1.0
    else:
        for y in range(-1, 2):
            for x in range(-1, 2):
                pixels[y, x] = 1.0
        pixels[0, 0] = _ITSELF
        outermost = max(_INNERMOST_RING, 1.25 * options.bilateral_sxy)
        growth = (outermost / _INNERMOST_RING) ** (1 / max(1, options.rings - 1))
        inner = math.sqrt(9 / math.pi)  # the disc that the 3 × 3 stands for
        for ring in range(options.rings):
            radius = _INNERMOST_RING * growth**ring
            outer = max(inner, radius * math.sqrt(growth))
            area = math.pi * (outer**2 - inner**2) / options.directions
            for k in range(options.directions // 2):
                # Every other ring is turned by half a step; none has samples along the image's axes only.
                angle = 2 * math.pi * (k + 0.5 * (ring % 2)) / options.directions + 0.1
                y, x = round(radius * math.sin(angle)), round(radius * math.cos(angle))
                for offset in ((y, x), (-y, -x)):
                    pixels[offset] = pixels.get(offset, 0.0) + area
            inner = outer
    order = sorted(pixels, key=lambda offset: (offset[0] ** 2 + offset[1] ** 2, offset))
    return Window(np.array(order, np.int64), np.array([pixels[offset] for offset in order]))


class Field:
    """The CRF of one image: everything that its masks share."""

    def __init__(self, pixels: UInt8, window: Window, options: ConvCrfOptions, device: torch.device | None) -> None:
        self._by_torch = device if device is not None and device.type != "cpu" else None
        self._options = options
        squares = (window.offsets**2).sum(axis=1)
        near = window.share * np.exp(-squares / (2 * options.gaussian_sxy**2))
        self._offsets = window.offsets
        self._distance = (squares / (2 * options.bilateral_sxy**2)).astype(np.float32)
        self._share = window.share.astype(np.float32)
        self._near = np.where(near > _NOTHING * near.max(), near, 0).astype(np.float32)
        unit = np.float32(1 / (math.sqrt(2) * options.bilateral_srgb))
        self._planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32) * unit

    def beliefs(self, boxes: Sequence[Box], odds: Sequence[Float32]) -> list[Float32]:
        """2 Q - 1 in the crop of every mask, float32 (bottom - top, right - left) in [-1, 1]; ``odds`` are the log-odds that the masks
        begin with there."""
        if self._by_torch is not None:
            return mean_field_by_torch(self, boxes, odds, self._by_torch)
        starts = np.cumsum([0] + [one.size for one in odds])
        flat = np.concatenate([one.ravel() for one in odds])
        options = self._options
        found = kernels.mean_field(
            self._planes, self._offsets, self._distance, self._share, self._near, np.array(boxes, np.int64), starts, flat,
            options.bilateral_compat, options.gaussian_compat, options.iterations,
        )  # fmt: skip
        return [found[starts[k] : starts[k + 1]].reshape(one.shape) for k, one in enumerate(odds)]


def mean_field_by_torch(field: Field, boxes: Sequence[Box], odds: Sequence[Float32], device: torch.device) -> list[Float32]:
    """What ``Field.beliefs`` gives, with torch on ``device``: the masks of a batch share every weight, in one image-wide sum."""
    import torch

    planes = torch.from_numpy(field._planes).to(device)
    options = field._options
    _, height, width = planes.shape
    offsets = [(int(dy), int(dx)) for dy, dx in field._offsets]

    def listen(by_colour: torch.Tensor, by_place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        colour_sum, place_sum = torch.zeros_like(by_colour), torch.zeros_like(by_place)
        for o, offset in enumerate(offsets):
            here, there = _overlap(offset, height, width)
            differ = ((planes[:, here[0], here[1]] - planes[:, there[0], there[1]]) ** 2).sum(dim=0)
            weight = float(field._share[o]) * torch.exp((-(differ + float(field._distance[o]))).clamp(min=_LOWEST))
            colour_sum[:, here[0], here[1]] += weight * by_colour[:, there[0], there[1]]
            if field._near[o]:
                place_sum[:, here[0], here[1]] += float(field._near[o]) * by_place[:, there[0], there[1]]
        return colour_sum, place_sum

    found: list[Float32] = []
    batch = max(1, _MOST_PIXELS // (height * width))
    for first in range(0, len(boxes), batch):
        some = range(first, min(first + batch, len(boxes)))
        unary = torch.zeros((len(some), height, width), device=device)
        within = torch.zeros_like(unary)
        for k, m in enumerate(some):
            top, left, bottom, right = boxes[m]
            unary[k, top:bottom, left:right] = torch.from_numpy(odds[m]).to(device)
            within[k, top:bottom, left:right] = 1
        # Outside its crop a mask sends nothing, and what it hears there goes unheard.
        colour_sum, place_sum = listen(within, within)
        by_colour = torch.where(within > 0, colour_sum.rsqrt(), 0)
        by_place = torch.where(within > 0, place_sum.rsqrt(), 0)
        belief = torch.tanh(unary / 2)
        for _ in range(options.iterations):
            colour_sum, place_sum = listen(by_colour * belief, by_place * belief)
            heard = options.bilateral_compat * by_colour * colour_sum + options.gaussian_compat * by_place * place_sum
            belief = torch.tanh((unary + heard) / 2)
        result = belief.cpu().numpy()
        for k, m in enumerate(some):
            top, left, bottom, right = boxes[m]
            found.append(result[k, top:bottom, left:right])
    return found


def _overlap(offset: tuple[int, int], height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The pixels that have one at ``offset`` from them, and those."""
    here, there = [], []
    for step, size in zip(offset, (height, width), strict=True):
        first, last = max(0, -step), max(0, -step, min(size, size - step))
        here.append(slice(first, last))
        there.append(slice(first + step, max(0, last + step) if last > first else first + step))
    return (here[0], here[1]), (there[0], there[1])
