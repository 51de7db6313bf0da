"""Copy-paste: entities of another photograph laid onto a training sample, pixels and masks (Ghiasi et al., CVPR 2021).

A random subset of the other photograph's whole entities is pasted, each with its parts, where a random view of that
photograph has them. What lies below is cut. The scale of that view, 0.3 to 1, and the rule that a paste which would hide half of a mask
is left out are those of the pipelines for unsupervised masks that SOHES (§3.2) follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ovskit.core.records import RunTable, UInt8
from ovskit.core.runtime.kernels import njit
from ovskit.core.train.views.geometry import View, count_points, warp_image, warp_masks, warp_union

Bool = npt.NDArray[np.bool_]
Spared = Literal["wholes", "all"]


@dataclass(frozen=True, slots=True)
class PasteOptions:
    """``chance`` of a sample to be pasted onto [choice]; ``scales`` of the pasted photograph, at 1 of which its longer side is the
    sample's.

    Masks above ``largest`` of their photograph's area are not pasted, and what is right below them counts as a whole [choice:
    half. Unsupervised masks tile the scene at their coarsest, and a pasted whole would be a pasted photograph].

    An entity is left out if it would hide ``hidden`` or more of a mask, counting those pasted before: of any whole, or with
    ``spared`` "all" of any mask [choice: wholes. Where the rule comes from there are no parts; among a hundred masks, parts
    included, some small one is nearly always hidden, and "all" pastes onto one sample in four only]. Raises ValueError for
    another ``spared``.
    """

    chance: float = 0.5
    scales: tuple[float, float] = (0.3, 1.0)
    largest: float = 0.5
    hidden: float = 0.5
    spared: Spared = "wholes"

    def __post_init__(self) -> None:
        if self.spared not in ("wholes", "all"):
            raise ValueError(f"paste can spare wholes or all, not {self.spared!r}")


class Layer(NamedTuple):
    """A view with its targets: ``image`` (S, S, 3) uint8 RGB, ``masks`` (n, G, G) uint8 of 0 and 1, ``ancestors`` (n, n) bool,
    true at (i, j) where mask i is an ancestor of mask j."""

    image: UInt8
    masks: UInt8
    ancestors: Bool


def paste(
    onto: Layer,
    image: UInt8,
    table: RunTable,
    ancestors: Bool,
    view: View,
    rng: np.random.Generator,
    options: PasteOptions,
    *,
    min_points: int = 1,
) -> Layer:
    """``onto`` with some entities of another photograph over it: its ``image`` (h, w, 3), masks and their ancestors, as ``view`` has them.

    How many is uniform from one to all of the other's wholes (masks without ancestors, of ``min_points`` or more of the grid's
    points; ``largest`` moves the top), which ones is random; parts come along. They are tried in random order, and ``hidden`` and
    ``spared`` say which are left out. Pasted masks are not cut by each other, since they are of one picture. Masks of ``onto`` lose
    what is pasted over, and go below ``min_points``. The inputs are not written to; where nothing is pasted, ``onto`` comes back.
    """
    places = onto.masks.shape[-1]
    masks = warp_masks(table, view, places)
    seen = (count_points(masks) >= min_points) & (table.areas <= options.largest * view.height * view.width)
    wholes = np.flatnonzero(seen & ~ancestors[seen].any(0))
    if not len(wholes):
        return onto
    wholes = rng.permutation(wholes)[: int(rng.integers(1, len(wholes) + 1))]
    guarded = onto.masks if options.spared == "all" else onto.masks[~onto.ancestors.any(0)]
    limits = options.hidden * count_points(guarded)
    below = guarded.reshape(len(guarded), places * places)
    lost = np.zeros(len(below), np.int64)
    covered = np.zeros(places * places, np.bool_)
    chosen = np.zeros(len(masks), np.bool_)
    for whole in wholes.tolist():
        members = ancestors[whole] & seen
        members[whole] = True
        shape = _union(masks.reshape(len(masks), -1), np.flatnonzero(members)).view(np.bool_)
        new = _hidden(below, np.flatnonzero(shape & ~covered))
        if ((new > 0) & (lost + new >= limits)).any():
            continue
        lost += new
        covered |= shape
        chosen |= members
    which = np.flatnonzero(chosen)
    if not len(which):
        return onto
    pixels = onto.image.copy()
    cv2.copyTo(warp_image(image, view), warp_union(table, which, view, view.side), pixels)
    cut = onto.masks & ~covered.reshape(places, places)
    left = count_points(cut) >= min_points
    return Layer(pixels, np.concatenate([cut[left], masks[which]]), _side_by_side(kept(onto.ancestors, left), kept(ancestors, chosen)))


def kept(ancestors: Bool, which: Bool) -> Bool:
    """The relation among those masks alone that ``which`` (n,) tells."""
    return np.asarray(ancestors[np.ix_(which, which)])


def _side_by_side(a: Bool, b: Bool) -> Bool:
    out = np.zeros((len(a) + len(b), len(a) + len(b)), np.bool_)
    out[: len(a), : len(a)] = a
    out[len(a) :, len(a) :] = b
    return out


@njit(nogil=True, cache=True)
def _union(masks: UInt8, which: npt.NDArray[np.int64]) -> UInt8:
    """The points that any of the masks numbered ``which`` of ``masks`` (n, points) holds: uint8 (points,) of 0 and 1."""
    out = np.zeros(masks.shape[1], np.uint8)
    for k in which:
        for p in range(masks.shape[1]):
            out[p] |= masks[k, p]
    return out


@njit(nogil=True, cache=True)
def _hidden(masks: UInt8, points: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many of ``points`` lie in each of ``masks`` (n, points of the grid): int64 (n,)."""
    out = np.zeros(len(masks), np.int64)
    for k in range(len(masks)):
        count = 0
        for p in points:
            count += masks[k, p]
        out[k] = count
    return out
