"""LightCluster over feature streams: sample and fit, look at every image and vote, then write masks.

Features are read twice, for the sample and for the margins; margins (float16) wait in a temporary file until all images have voted.
With centroids from before, whose sides are known, one reading is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ovskit.core.cluster.light_levels import Levels, Seen, Votes, fit_levels, foreground_last, see, turned
from ovskit.core.cluster.lightcluster import Margins, joined, masks_of_margin
from ovskit.core.cluster.options import Level, LightOptions
from ovskit.core.cluster.patch_sample import PatchSample
from ovskit.core.cluster.streams import RootedFeatures
from ovskit.core.formats.streams.spool import Spool
from ovskit.core.models.kmeans import KMeansOptions
from ovskit.core.records import Image, MaskSet
from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.progress import Watch, unwatched
from ovskit.core.runtime.workers import ordered_map


def fit_light(
    records: Iterable[RootedFeatures],
    options: LightOptions,
    clustering: KMeansOptions,
    watch: Watch = unwatched,
    device: torch.device | None = None,
) -> Levels:
    """Centroids of the data set and of its superclasses, whose sides are not known yet. Raises InputError for features that cannot be
    clustered."""
    sample = PatchSample(clustering.max_points, clustering.seed)
    for record in watch(records, "sampling"):
        sample.add(record.features)
    if not len(sample):
        raise InputError("no image has features that can be clustered")
    return fit_levels(sample, options.superclasses, clustering, device)


class Margined:
    """All images' margins, kept in a temporary file; ``levels`` have their foreground in row 1."""

    def __init__(
        self,
        records: Iterable[RootedFeatures],
        levels: Levels,
        options: LightOptions,
        clustering: KMeansOptions,
        failures: Failures,
        workers: int,
        watch: Watch = unwatched,
    ) -> None:
        self._spool = Spool("keep margins")
        self._entries: list[_Entry] = []
        votes = Votes(len(levels.categories), options.sign)
        for image, seen in watch(_seen(records, levels, options, clustering, failures, workers), "voting"):
            votes.add(seen)
            self._keep(image, seen)
        self._signs = votes.signs()
        self.levels = foreground_last(levels, self._signs)

    def __len__(self) -> int:
        return len(self._entries)

    def margins(self) -> Iterator[tuple[Image, Margins]]:
        """Every image, in order, with the foreground above 0."""
        file = self._spool.from_start()
        for entry in self._entries:
            height, width = entry.grid
            data = file.read(3 * height * width * 2)
            image, dataset, category = np.frombuffer(data, np.float16).reshape(3, height, width).astype(np.float32)
            yield entry.image, turned(Seen(Margins(dataset, category, image), entry.category), self._signs)

    def _keep(self, image: Image, seen: Seen) -> None:
        margins = seen.margins
        stacked = np.stack([margins.image, margins.dataset, margins.category]).astype(np.float16)
        self._spool.write(stacked.tobytes())
        self._entries.append(_Entry(image, (stacked.shape[1], stacked.shape[2]), seen.category))


@dataclass(frozen=True, slots=True)
class _Entry:
    image: Image
    grid: tuple[int, int]
    category: int


def margins_of(
    records: Iterable[RootedFeatures], levels: Levels, options: LightOptions, clustering: KMeansOptions, failures: Failures, workers: int
) -> Iterator[tuple[Image, Margins]]:
    """Every image's margins by centroids whose foreground is in row 1."""
    for image, seen in _seen(records, levels, options, clustering, failures, workers):
        yield image, Margins(*(margin.astype(np.float16).astype(np.float32) for margin in seen.margins))


def light_masks(margins: Iterable[tuple[Image, Margins]], level: Level, options: LightOptions, workers: int) -> Iterator[MaskSet]:
    """The masks of one level, or of all together, of every image in order, whatever the number of ``workers``."""

    def work(pair: tuple[Image, Margins]) -> MaskSet:
        image, found = pair
        margin = joined(found, options) if level == "final" else getattr(found, level)
        return masks_of_margin(image, margin, level, options)

    return ordered_map(work, margins, workers)


def _seen(
    records: Iterable[RootedFeatures], levels: Levels, options: LightOptions, clustering: KMeansOptions, failures: Failures, workers: int
) -> Iterator[tuple[Image, Seen]]:
    def work(record: RootedFeatures) -> tuple[Image, Seen] | InputError:
        try:
            return record.features.image, see(record.features, levels, clustering, options.side)
        except InputError as error:
            return error

    for found in ordered_map(work, records, workers):
        if isinstance(found, InputError):
            failures.handle(found)
        else:
            yield found
