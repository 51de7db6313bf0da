"""Fully connected CRF: masks whose edges follow the photograph's, without training and without labels.

Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", NeurIPS 2011, by pydensecrf.
Mean-field updates (Algorithm 1) with a smoothness and an appearance kernel (Eq. 3) and Potts compatibility:

    Q(x_i = l) ∝ exp(log p_i(l) + Σ_m w_m Σ_j k_m(i, j) Q(x_j = l)),
    k₁ = exp(-|p_i - p_j|² / 2σ²),    k₂ = exp(-|p_i - p_j|² / 2α² - |I_i - I_j|² / 2β²),

both kernels normalised symmetrically by their row sums. p_i is ``confidence`` for what the mask says at pixel i [choice], or less, where
its soft margin is less sure (``log_odds``).

Each mask is foreground against background, in a crop around it: what lies outside the crop takes no part. Or ``joint``: regions
of one level of a partition compete, one label each. The level of a mask is the ``threshold`` (or ``count``) that it carries. A
pool names the level at which a region was *first* seen, so the masks of a level need not cover the image; what they leave
uncovered, finer regions that are still standing included, is one label more [choice]. Masks without a level, and those
that overlap one of their level that comes before them, are refined by themselves. Soft margins have no effect there.

pydensecrf keeps the interpreter lock while it works: it may be called from several threads, but they take turns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ovskit.core.formats.streams.soft_margin import KEY as SOFT
from ovskit.core.masks.boxes import Box, box_around, decode_box, encode_box
from ovskit.core.masks.rle import encode
from ovskit.core.records import Int32, Mask, Rle, RunTable, UInt8
from ovskit.core.refine.log_odds import log_odds
from ovskit.core.refine.refiner import Refiner
from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    from ovskit.core.refine.methods.crf import CrfOptions

_MOST_VALUES = 1 << 24  # labels × pixels of one joint CRF, of which pydensecrf holds about six float32 arrays
_LEVELS = ("threshold", "count")


def crf_refiner(options: CrfOptions) -> Refiner:
    """The refiner ``crf``. Raises UsageError if pydensecrf is not installed."""
    try:
        from pydensecrf import densecrf
    except ImportError:
        raise UsageError("--method crf needs pip install 'ovskit[crf]'; --method convcrf is much the same without it") from None

    def refine(pixels: UInt8, masks: Sequence[Mask], table: RunTable) -> list[Rle]:
        refined = [mask.rle for mask in masks]
        alone = [k for k in range(len(masks)) if table.areas[k]]
        if options.joint:
            partitions = _partitions(table, masks)
            for members in partitions:
                for k, rle in zip(members, _refine_jointly(densecrf, pixels, table, members, masks, options), strict=True):
                    refined[k] = rle
            together = {k for members in partitions for k in members}
            alone = [k for k in alone if k not in together]
        for k in alone:
            refined[k] = _refine_alone(densecrf, pixels, table, k, masks[k], options)
        return refined

    return Refiner("crf", refine)


def _refine_alone(densecrf: Any, pixels: UInt8, table: RunTable, k: int, mask: Mask, options: CrfOptions) -> Rle:
    box = box_around(table, k, options.margin)
    top, left, bottom, right = box
    odds = log_odds(mask, decode_box(table, k, box), box, options.confidence, options.sharpness, options.soft_area)
    # -log of both sides' probabilities, 1 / (1 + exp(∓ odds)).
    unary = np.logaddexp(0, np.stack([odds, -odds])).reshape(2, -1)
    marginals = _infer(densecrf, pixels[top:bottom, left:right], unary, options)
    return encode_box((marginals[1] > marginals[0]).reshape(odds.shape), box, table.height, table.width)


def _refine_jointly(
    densecrf: Any, pixels: UInt8, table: RunTable, members: Sequence[int], masks: Sequence[Mask], options: CrfOptions
) -> list[Rle]:
    """The masks of one partition. Where they are too many for the memory, so many at a time, the others as uncovered."""
    height, width = pixels.shape[:2]
    room = max(1, _MOST_VALUES // (height * width) - 1)
    refined: list[Rle] = []
    for first in range(0, len(members), room):
        labels = np.zeros((height, width), np.int32)  # 0 is what no mask covers
        some = members[first : first + room]
        for label, k in enumerate(some, start=1):
            _part(labels, box_around(table, k, 0))[decode_box(table, k, box_around(table, k, 0)) != 0] = label
        base = 0 if (labels == 0).any() else 1
        count = len(some) + 1 - base
        best = labels
        if count > 1:
            if not math.isinf(options.sharpness) and any(masks[k].extra.get(SOFT) is not None for k in some):
                unary = _each_as_sure_as_it_is(table, some, masks, base, options)
            else:
                unary = _certain(labels - base, count, options)
            marginals = _infer(densecrf, pixels, unary, options)
            best = marginals.argmax(axis=0).reshape(height, width).astype(np.int32) + base
        refined += [encode(best == label) for label in range(1, len(some) + 1)]
    return refined


def _certain(labels: Int32, count: int, options: CrfOptions) -> npt.NDArray[np.float32]:
    """The unary (count, h·w) that says ``labels`` (h, w) in 0…count - 1."""
    unary = np.full((count, labels.size), -math.log((1 - options.confidence) / (count - 1)), np.float32)
    unary[labels.ravel(), np.arange(labels.size)] = -math.log(options.confidence)
    return unary


def _each_as_sure_as_it_is(
    table: RunTable, members: Sequence[int], masks: Sequence[Mask], base: int, options: CrfOptions
) -> npt.NDArray[np.float32]:
    """The unary (count, h·w) of labels some of which have a soft margin. Each is as probable as against its background alone; what is
    uncovered, label 0 unless ``base`` is 1, as the background of the most probable of them [choice]."""
    everywhere = 0, 0, table.height, table.width
    unary = np.empty((len(members) + 1 - base, table.height * table.width), np.float32)
    most = np.full(table.height * table.width, -np.inf, np.float32)
    for label, k in enumerate(members, start=1 - base):
        odds = log_odds(
            masks[k], decode_box(table, k, everywhere), everywhere, options.confidence, options.sharpness, options.soft_area
        ).ravel()
        unary[label] = np.logaddexp(0, -odds)
        np.maximum(most, odds, out=most)
    if not base:
        unary[0] = np.logaddexp(0, most)
    return unary


def _infer(densecrf: Any, pixels: UInt8, unary: npt.NDArray[np.float32], options: CrfOptions) -> npt.NDArray[np.float32]:
    """Marginals (count, h·w) of a CRF over ``pixels`` (h, w, 3) with the energies ``unary`` (count, h·w)."""
    height, width = pixels.shape[:2]
    crf = densecrf.DenseCRF2D(width, height, len(unary))
    crf.setUnaryEnergy(unary)
    if options.gaussian_compat:
        crf.addPairwiseGaussian(sxy=options.gaussian_sxy, compat=options.gaussian_compat)
    if options.bilateral_compat:
        crf.addPairwiseBilateral(
            sxy=options.bilateral_sxy, srgb=options.bilateral_srgb, rgbim=np.ascontiguousarray(pixels), compat=options.bilateral_compat
        )
    return np.asarray(crf.inference(options.iterations), np.float32)


def _partitions(table: RunTable, masks: Sequence[Mask]) -> list[list[int]]:
    """Disjoint masks of one level each, in the order of the stream; a level with one mask is its own partition."""
    levels: dict[tuple[str, float], list[int]] = {}
    for k, mask in enumerate(masks):
        for key in _LEVELS:
            value = mask.extra.get(key)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and table.areas[k]:
                levels.setdefault((key, float(value)), []).append(k)
                break
    covered = np.empty((table.height, table.width), np.bool_)
    partitions = []
    for candidates in levels.values():
        covered[:] = False
        members = []
        for k in candidates:
            box = box_around(table, k, 0)
            part, inside = _part(covered, box), decode_box(table, k, box) != 0
            if not part[inside].any():
                part |= inside
                members.append(k)
        partitions.append(members)
    return partitions


def _part(array: npt.NDArray[Any], box: Box) -> npt.NDArray[Any]:
    top, left, bottom, right = box
    return array[top:bottom, left:right]
