"""From photographs to names on pixels: decode, cut into windows, name patches, put together, write as masks.

Decoding, the network and what follows it overlap, with a few images in memory. On a CPU an image's result depends neither on the batch nor
on the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ovskit.core.formats.labels.map_folder import MapFolder
from ovskit.core.formats.labels.named_maps import masks_of_map
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.photographs import read_source
from ovskit.core.formats.photographs.sources import Source
from ovskit.core.models.backbones.resize import resize_rgb
from ovskit.core.models.words import NameOptions, with_names
from ovskit.core.predict.dense.decisions import Decided, Decisions, class_ids
from ovskit.core.predict.dense.mosaic import Mosaic
from ovskit.core.predict.dense.namer import PatchNamer
from ovskit.core.predict.dense.region_vectors import pooled_vectors
from ovskit.core.predict.dense.regions import corrected, painted
from ovskit.core.predict.dense.windows import Windows, windows_of
from ovskit.core.records import Image, Int32, LabelMap, MaskSet
from ovskit.core.runtime.batching import batches, run_halving, successes
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.workers import ordered_map, prefetch

_AUTO_BATCH_CUDA = 32  # windows
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Look:
    """How an image is looked at, see ``windows_of``; ``window`` None is one window that holds all."""

    short_side: int
    window: int | None
    stride: int


@dataclass(frozen=True, slots=True)
class NameRun:
    """A run but for its photographs.

    Pixels of a probability below ``min_prob`` are background. With ``correct`` every region takes its pixels' most frequent class. With
    ``top`` given masks are named and written, rather than a mask for each class, ``top.top`` names listed for each. ``judge`` is told what
    was decided for each image, before the threshold; any thread may call it. ``batch_size`` counts windows, None chooses.
    """

    namer: PatchNamer
    decisions: Decisions
    look: Look
    failures: Failures
    min_prob: float = 0.0
    correct: bool = True
    top: NameOptions | None = None
    maps: MapFolder | None = None
    judge: Callable[[Image, Int32, Decided], None] | None = None
    batch_size: int | None = None
    workers: int = 1
    max_pixels: int = 178_956_970

    def masks(self, photographs: Iterable[tuple[Source, MaskSet | None]]) -> Iterator[MaskSet]:
        """The masks of every photograph, in order; beside each its given masks, if there are some.

        A photograph that cannot be read, or is of another size than its masks, goes to ``failures``.
        """

        def prepare(item: tuple[Source, MaskSet | None]) -> _Prepared | InputError | MissingInputError:
            try:
                return self._prepare(*item)
            except (InputError, MissingInputError) as error:
                return error

        prepared = successes(ordered_map(prepare, photographs, self.workers), self.failures)
        yield from ordered_map(self._finish, prefetch(self._seen(prepared), depth=2), self.workers)

    def _prepare(self, source: Source, masks: MaskSet | None) -> _Prepared:
        image, pixels = read_source(source, max_pixels=self.max_pixels)
        look, spec = self.look, self.namer.spec
        try:
            windows = windows_of(
                image.height, image.width, short_side=look.short_side, window=look.window, stride=look.stride, patch=spec.stride
            )
        except InputError as error:
            raise InputError(f"{show_path(image.file_name)}: {error}") from None
        regions = None
        if masks is not None:
            if (masks.image.height, masks.image.width) != (image.height, image.width):
                said = f"{masks.image.width}×{masks.image.height}"
                raise InputError(
                    f"{show_path(image.file_name)} is {image.width}×{image.height}, its masks {said}: are they of this picture?"
                )
            masks = replace(masks, image=image)
            regions = painted(masks) if self.correct or self.namer.wants_regions else None
        canvas = resize_rgb(pixels, windows.height, windows.width, spec.interpolation)
        return _Prepared(image, canvas, windows, masks, regions)

    def _seen(self, prepared: Iterator[_Prepared]) -> Iterator[_Seen]:
        """Each image with what the network found in each of its windows; batches go across images."""
        device = self.namer.device
        size = self.batch_size or (_AUTO_BATCH_CUDA if device.type == "cuda" else 1)
        waiting: list[_Prepared] = []
        found: list[torch.Tensor] = []

        def cuts() -> Iterator[_Cut]:
            for item in prepared:
                waiting.append(item)
                yield from item.cuts(with_regions=self.namer.wants_regions)

        for batch in batches(cuts(), size, lambda cut: cut.pixels.shape):
            for _, maps in run_halving(batch, self._maps, device):
                found.extend(maps)
            while waiting and len(found) >= len(waiting[0].windows.corners):
                item = waiting.pop(0)
                count = len(item.windows.corners)
                yield _Seen(item, found[:count])
                found = found[count:]

    def _maps(self, cuts: Sequence[_Cut]) -> list[torch.Tensor]:
        """For each window its cosines (h, w, words), or its vectors (h, w, d) where masks are named."""
        regions = torch.stack([cut.regions for cut in cuts if cut.regions is not None]) if self.namer.wants_regions else None
        vectors = self.namer.vectors(torch.stack([cut.pixels for cut in cuts]), regions)
        with torch.inference_mode():
            return [each if self.top is not None else self.decisions.cosines(each) for each in vectors]

    def _finish(self, seen: _Seen) -> MaskSet:
        image, regions = seen.item.image, seen.item.regions
        with torch.inference_mode():
            mosaic = Mosaic(seen.item.windows, seen.maps)
            if self.top is not None:
                masks = seen.item.masks or MaskSet(image, ())
                return with_names(masks, pooled_vectors(mosaic, masks), self.decisions.words, self.top)
            decided = self.decisions.decide(mosaic, image.height, image.width)
        if self.judge is not None:
            self.judge(image, class_ids(decided, self.decisions.words, 0.0), decided)
        ids = class_ids(decided, self.decisions.words, self.min_prob)
        if self.correct and regions is not None:
            ids = corrected(ids, regions)
        found = LabelMap(image, ids)
        if self.maps is not None:
            self.maps.write(found)
        return _with_scores(found, decided)


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """One window: pixels (3, rows, columns) uint8, and the regions of its pixels, where they are wanted."""

    pixels: torch.Tensor
    regions: torch.Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """An image, its canvas (3, H, W) uint8 and windows, its masks and the regions (height, width) that they make."""

    image: Image
    canvas: torch.Tensor
    windows: Windows
    masks: MaskSet | None
    regions: Int32 | None

    def cuts(self, *, with_regions: bool) -> Iterator[_Cut]:
        """The windows."""
        windows = self.windows
        regions = self._canvas_regions() if with_regions else None
        for top, left in windows.corners:
            place = (slice(top, top + windows.rows), slice(left, left + windows.columns))
            yield _Cut(self.canvas[:, *place], None if regions is None else regions[place])

    def _canvas_regions(self) -> torch.Tensor:
        windows = self.windows
        if self.regions is None:
            return torch.full((windows.height, windows.width), -1, dtype=torch.int32)
        rows, columns = (
            np.minimum(((np.arange(n) + 0.5) * side / n).astype(np.int64), side - 1)
            for n, side in zip((windows.height, windows.width), self.regions.shape, strict=True)
        )
        return torch.from_numpy(np.ascontiguousarray(self.regions[rows[:, None], columns]))


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    item: _Prepared
    maps: list[torch.Tensor]


def _with_scores(found: LabelMap, decided: Decided) -> MaskSet:
    """A mask for each class; its score is the mean of its pixels' best probabilities [choice]."""
    masks = masks_of_map(found)
    ids = found.labels.reshape(-1)
    inside = ids >= 0
    chances = decided.probability.reshape(-1)[inside].astype(np.float64)
    total = np.bincount(ids[inside], chances)
    count = np.maximum(np.bincount(ids[inside]), 1)
    scores = np.clip(total / count, 0, 1)
    return replace(masks, masks=tuple(replace(mask, score=round(float(scores[mask.category_id]), _DIGITS)) for mask in masks.masks))
