"""``ovs-predict``: the masks that a trained segmenter sees in images, and which is part of which.

SOHES §3.2: every query is one mask; its score is the entity probability times the mean probability of the mask's own pixels,
as in Mask2Former. The ancestor head's probabilities become a forest (``models.segmenter.forest``).

Choices, since the paper leaves inference open: an image is resized so that its longer side is ``size``, its aspect kept up to
the rounding of both sides to multiples of 32; masks are cut at a logit of 0 in the image's own pixels; queries whose masks
have no pixel are left out. With several ``scales`` the network runs on the image at each of them, and masks that overlap a better one by
more than ``nms`` are dropped; masks of different scales have no ancestor probability, so no parents.

Where queries begin at places, several lie in one entity, and training makes one of them the entity's: the score of each is its chance to be
that one, and the entity's chance is that of all together. So with ``pooled`` a mask's score is 1 − Π (1 − score) over itself and the masks
that overlap it by more than ``nms``, computed before ``nms``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ovskit.core.formats.photographs.photographs import read_source
from ovskit.core.formats.photographs.sources import Source
from ovskit.core.masks.nms import suppress
from ovskit.core.masks.pairs import overlaps
from ovskit.core.masks.runs import chosen, run_table
from ovskit.core.models.backbones.resize import resize_rgb
from ovskit.core.models.segmenter.forest import forest
from ovskit.core.models.segmenter.network import MULTIPLE, Segmenter
from ovskit.core.predict.outlines import outline
from ovskit.core.records import Float, Image, Mask, MaskSet, RunTable, UInt8
from ovskit.core.runtime.batching import batches, run_halving, successes
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.workers import ordered_map, prefetch

_AUTO_BATCH_CUDA = 8
_LARGEST = 16_384  # pixels of a side [choice]: beyond any memory, so that a typing error is refused at once


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """See the module. ``max_masks`` an image, the best first, of at least ``min_score``; ``parents``: build the ancestor head's forest, at
    ``threshold``. ``queries`` is the approximate number of queries, for a segmenter whose queries begin at places; None: as many as in
    training. ``precision`` is what a GPU computes in. Raises UsageError for values that make no sense."""

    size: int = 512
    scales: tuple[float, ...] = (1.0,)
    nms: float = 1.0
    pooled: bool = False
    queries: int | None = None
    max_masks: int = 1000
    min_score: float = 0.0
    parents: bool = True
    threshold: float = 0.5
    batch_size: int | None = None
    workers: int = 1
    max_pixels: int = 178_956_970
    precision: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if self.size < MULTIPLE:
            raise UsageError(f"size {self.size}: give at least {MULTIPLE} pixels")
        if not self.scales or not all(0 < scale < float("inf") for scale in self.scales):
            raise UsageError("scales: give at least one positive number")
        if self.size * max(self.scales) > _LARGEST:
            raise UsageError(f"size {self.size} at scale {max(self.scales):g}: give at most {_LARGEST} pixels")
        if self.parents and len(self.scales) > 1:
            raise UsageError("masks of several scales have no ancestor probabilities: take --hier coverage or none")


@dataclass(frozen=True, slots=True)
class _Prepared:
    image: Image
    pixels: tuple[torch.Tensor, ...]  # one (3, height, width) uint8 for each scale


@dataclass(frozen=True, slots=True)
class _Queries:
    """The queries of one image that are worth a mask: ``logits`` (n, h, w) float32 of each scale, scores and ancestor probabilities."""

    image: Image
    logits: tuple[Float, ...]
    scores: tuple[Float, ...]
    ancestors: Float | None


def frame_size(size: int, height: int, width: int) -> tuple[int, int]:
    """What an image of ``height`` × ``width`` is resized to: the longer side ``size``, both multiples of 32."""
    scale = size / max(height, width)
    return tuple(max(1, round(side * scale / MULTIPLE)) * MULTIPLE for side in (height, width))  # type: ignore[return-value]


def predict_masks(
    sources: Sequence[Source], segmenter: Segmenter, options: PredictOptions, failures: Failures, *, device: torch.device
) -> Iterator[MaskSet]:
    """The masks of every source, in order; within an image the best score first.

    Decoding, forward passes and outlines overlap, with a few images in memory. A source that cannot be read or decoded goes
    to ``failures``. On a CPU an image's masks do not depend on the batch.
    """

    def prepare(source: Source) -> _Prepared | InputError | MissingInputError:
        try:
            return _prepare(source, options)
        except (InputError, MissingInputError) as error:
            return error

    segmenter.eval().to(device)
    prepared = successes(ordered_map(prepare, sources, options.workers), failures)
    size = options.batch_size or (_AUTO_BATCH_CUDA if device.type == "cuda" else 1)
    queries = prefetch(_forward_batches(prepared, segmenter, options, size, device), depth=2)
    yield from ordered_map(lambda one: _mask_set(one, options), queries, options.workers)


def predict_pixels(image: Image, pixels: UInt8, segmenter: Segmenter, options: PredictOptions, device: torch.device) -> MaskSet:
    """The masks of an image that is decoded already: ``pixels`` (H, W, 3) uint8 RGB.

    The segmenter is on the device, and in evaluation mode.
    """
    return _mask_set(_forward([_views(image, pixels, options)], segmenter, options, device)[0], options)


def _prepare(source: Source, options: PredictOptions) -> _Prepared:
    return _views(*read_source(source, max_pixels=options.max_pixels), options)


def _views(image: Image, pixels: UInt8, options: PredictOptions) -> _Prepared:
    frames = [frame_size(round(options.size * scale), image.height, image.width) for scale in options.scales]
    return _Prepared(image, tuple(resize_rgb(pixels, *frame, "bilinear") for frame in frames))


def _forward_batches(
    prepared: Iterator[_Prepared], segmenter: Segmenter, options: PredictOptions, size: int, device: torch.device
) -> Iterator[_Queries]:
    def run(items: Sequence[_Prepared]) -> list[_Queries]:
        groups = [[item] for item in items] if device.type == "cpu" else [items]
        return [one for group in groups for one in _forward(group, segmenter, options, device)]

    for batch in batches(prepared, size, lambda item: [view.shape for view in item.pixels]):
        for _, found in run_halving(batch, run, device):
            yield from found


def _forward(items: Sequence[_Prepared], segmenter: Segmenter, options: PredictOptions, device: torch.device) -> list[_Queries]:
    logits: list[list[Float]] = [[] for _ in items]
    scores: list[list[Float]] = [[] for _ in items]
    ancestors: list[Float | None] = [None for _ in items]
    mixed = torch.autocast(device.type, dtype=options.precision, enabled=options.precision != torch.float32)
    for k in range(len(options.scales)):
        with torch.inference_mode(), mixed:
            found = segmenter(torch.stack([item.pixels[k] for item in items]).to(device), options.queries)
            marks = found.scores()
        for n in range(len(items)):
            best = torch.argsort(marks[n], descending=True, stable=True)[: options.max_masks]
            best = best if options.pooled else best[marks[n][best] >= options.min_score]
            logits[n].append(found.masks[-1][n][best].float().cpu().numpy())
            scores[n].append(marks[n][best].float().cpu().numpy())
            if options.parents:
                ancestors[n] = found.ancestors[n][best][:, best].float().sigmoid().cpu().numpy()
    return [_Queries(item.image, tuple(logits[n]), tuple(scores[n]), ancestors[n]) for n, item in enumerate(items)]


def _mask_set(queries: _Queries, options: PredictOptions) -> MaskSet:
    image = queries.image
    outlines = [outline(np.ascontiguousarray(one), image.height, image.width) for logits in queries.logits for one in logits]
    scores = np.concatenate(queries.scores)
    table = run_table(outlines)
    order = np.argsort(-scores, kind="stable")
    order = order[table.areas[order] > 0]
    if options.pooled and len(order):
        scores[order] = pooled(chosen(table, order), scores[order], options.nms)
        order = order[np.argsort(-scores[order], kind="stable")]
        order = order[scores[order] >= options.min_score]
    if options.nms < 1 and len(order):
        order = order[suppress(chosen(table, order), options.nms)]
    order = order[: options.max_masks]
    table = chosen(table, order)
    parent = np.full(len(order), -1, np.int64)
    if queries.ancestors is not None and len(order):
        parent = forest(queries.ancestors[np.ix_(order, order)], table.areas, options.threshold)
    masks = tuple(
        Mask(
            id=number + 1,
            image_id=image.id,
            rle=outlines[k],
            area=area,
            bbox=(box[0], box[1], box[2], box[3]),
            score=round(float(scores[k]), 6),
            parent_id=None if parent[number] < 0 else int(parent[number]) + 1,
        )
        for number, (k, area, box) in enumerate(zip(order.tolist(), table.areas.tolist(), table.bboxes.tolist(), strict=True))
    )
    return MaskSet(image, masks, table)


def pooled(table: RunTable, scores: Float, nms: float) -> Float:
    """The chance of each mask that it or one that overlaps it by an IoU above ``nms`` is right, if each is right with the chance of its
    score, 0 … 1.

    1 − Π (1 − score), the same type and shape as ``scores``. Memory goes with the number of pairs that overlap so.
    """
    pairs = overlaps(table, table, np.nextafter(max(nms, 0.0), 1.0)).pairs
    with np.errstate(divide="ignore"):
        wrong = np.log1p(-np.clip(scores.astype(np.float64), 0.0, 1.0))
    # Every row has its own mask at least.
    together = np.add.reduceat(wrong[pairs.column], pairs.offsets[:-1])
    return (-np.expm1(together)).astype(scores.dtype)
