"""Samples for training a segmenter: a view of a photograph, the masks in it, and who is above whom.

A photograph is decoded when its turn comes and nothing of it is kept, so memory does not grow with their number. Everything
random comes from the generator given; a batch is a function of the seed, the step and the rank alone, so a run that was
stopped and resumed, or spread over several processes, sees what one run in one process would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.photographs import read_source
from ovskit.core.formats.photographs.sources import Source
from ovskit.core.masks.runs import run_table
from ovskit.core.records import RunTable, UInt8
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.train.data.mask_index import ImageMasks, MaskIndex, ancestors_of
from ovskit.core.train.data.shuffle import place_at
from ovskit.core.train.views.colour_augment import ColourOptions, strongly_changed
from ovskit.core.train.views.copy_paste import Layer, PasteOptions, kept, paste
from ovskit.core.train.views.geometry import View, count_points, jittered_view, visible_areas, warp_image, warp_masks, whole_view

T = TypeVar("T")

GIVE_UP = 100
"""After so many photographs in a row that cannot be used something is wrong with all of them, such as a disk that is gone [choice]."""


@dataclass(frozen=True, slots=True)
class SampleOptions:
    """How samples are made.

    ``side`` is a view's in pixels, a multiple of ``stride``; masks have a point for each ``stride`` × ``stride`` pixels. ``scales``
    are those of the large-scale jitter (``geometry.jittered_view``); None shows the whole photograph, its aspect ignored, as weak
    views do. ``flip`` is the chance to be mirrored. A mask is a target if at least ``min_visible`` of its pixels are in the
    view, and ``min_points`` of the points [choice: 4, a square of two; one point does not tell a shape]. ``paste``
    and ``colours`` are None where there is no copy-paste, no strong change of colours.
    """

    side: int = 512
    stride: int = 4
    scales: tuple[float, float] | None = (0.1, 2.0)
    flip: float = 0.5
    min_visible: float = 0.0
    min_points: int = 4
    paste: PasteOptions | None = field(default_factory=PasteOptions)
    colours: ColourOptions | None = None

    def __post_init__(self) -> None:
        if self.side < 1 or self.stride < 1 or self.side % self.stride:
            raise ValueError(f"a side of {self.side} pixels is not a multiple of the stride {self.stride}")


class Sample(NamedTuple):
    """``image`` (3, S, S) uint8 RGB; ``masks`` (n, S/stride, S/stride) uint8 of 0 and 1; ``ancestors`` (n, n) bool, true at (i, j) where
    mask i is an ancestor of mask j. n may be 0. ``view`` is where in the photograph it is."""

    image: Tensor
    masks: Tensor
    ancestors: Tensor
    view: View


class Batch(NamedTuple):
    """Samples together: ``images`` (b, 3, S, S) uint8; the others as in ``Sample``, one for each image."""

    images: Tensor
    masks: list[Tensor]
    ancestors: list[Tensor]
    views: list[View]


class Pairs(NamedTuple):
    """Weak and strong views of b photographs, (b, 3, S, S) uint8, and where they are; ``geometry.carry`` takes masks across."""

    weak: Tensor
    strong: Tensor
    weak_views: list[View]
    strong_views: list[View]


def read_photograph(source: Source, size: tuple[int, int] | None = None) -> UInt8:
    """The pixels (h, w, 3) RGB uint8 of a photograph.

    Raises MissingInputError if it cannot be read, InputError if it cannot be decoded, or is not of ``size`` (height, width).
    """
    what = show_path(source.file_name)
    pixels = read_source(source)[1]
    if size is not None and pixels.shape[:2] != size:
        found = f"{pixels.shape[1]}×{pixels.shape[0]}"
        raise InputError(f"{what} is {found}, but its masks are {size[1]}×{size[0]}; are they of these photographs?")
    return pixels


def draw_sample(index: MaskIndex, photographs: Sequence[Source], place: int, rng: np.random.Generator, options: SampleOptions) -> Sample:
    """A view of image ``place`` of the index, with what is pasted onto it; ``photographs`` are those that the index was made of.

    Geometry first, then copy-paste, then colours. Errors are ``read_photograph``'s, and InputError for malformed runs.
    """
    image, targets, table = _read(index, photographs, place)
    view = _view(targets.height, targets.width, rng, options)
    layer = _seen(image, targets, table, view, options)
    if options.paste is not None and rng.random() < options.paste.chance and len(index) > 1:
        other = (place + int(rng.integers(1, len(index)))) % len(index)
        image, targets, table = _read(index, photographs, other)
        over = jittered_view(targets.height, targets.width, options.side, rng, options.paste.scales, options.flip)
        layer = paste(layer, image, table, ancestors_of(targets, table), over, rng, options.paste, min_points=options.min_points)
    pixels = layer.image if options.colours is None else strongly_changed(layer.image, rng, options.colours)
    return Sample(_channels_first(pixels), torch.from_numpy(layer.masks), torch.from_numpy(layer.ancestors), view)


def draw_batch(
    index: MaskIndex,
    photographs: Sequence[Source],
    options: SampleOptions,
    *,
    seed: int,
    step: int,
    rank: int,
    world: int,
    size: int,
    failures: Failures | None = None,
) -> Batch:
    """The batch of ``size`` samples of a step, of number ``rank`` of ``world``: images in a new random order every time round.

    With ``failures`` that skip, the next of the index takes the place of an image that cannot be used.
    """
    places = batch_places(len(index), seed=seed, step=step, rank=rank, world=world, size=size)

    def draw(n: int, place: int) -> Sample:
        return draw_sample(index, photographs, place, np.random.default_rng((seed, step, rank, n)), options)

    return collate([_usable(partial(draw, n), place, len(index), failures) for n, place in enumerate(places)])


def batch_places(count: int, *, seed: int, step: int, rank: int, world: int, size: int) -> list[int]:
    """Which of ``count`` images a batch is of."""
    first = (step * world + rank) * size
    return [place_at(k, count, seed) for k in range(first, first + size)]


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples as a batch. Raises ValueError if there are none."""
    if not samples:
        raise ValueError("a batch of no samples")
    return Batch(
        torch.stack([sample.image for sample in samples]),
        [sample.masks for sample in samples],
        [sample.ancestors for sample in samples],
        [sample.view for sample in samples],
    )


def draw_pairs(
    photographs: Sequence[Source],
    places: Sequence[int],
    rng: np.random.Generator,
    options: SampleOptions,
    failures: Failures | None = None,
) -> Pairs:
    """A weak and a strong view of each photograph of ``places``, without targets (SOHES §3.3).

    Weak: the whole photograph, mirrored by chance. Strong: what ``options`` say of geometry and colours; nothing is pasted, as the
    teacher could not know of it. ``failures``: see ``draw_batch``.
    """
    images: tuple[list[Tensor], list[Tensor]] = ([], [])
    views: tuple[list[View], list[View]] = ([], [])
    for place in places:
        image = _usable(lambda k: read_photograph(photographs[k]), place, len(photographs), failures)
        height, width = image.shape[:2]
        weak = whole_view(height, width, options.side)
        weak = weak.flipped() if rng.random() < options.flip else weak
        strong = _view(height, width, rng, options)
        pixels = warp_image(image, strong)
        if options.colours is not None:
            pixels = strongly_changed(pixels, rng, options.colours)
        for k, (view, shown) in enumerate(((weak, warp_image(image, weak)), (strong, pixels))):
            images[k].append(_channels_first(shown))
            views[k].append(view)
    return Pairs(torch.stack(images[0]), torch.stack(images[1]), *views)


def _usable(draw: Callable[[int], T], place: int, count: int, failures: Failures | None) -> T:
    """What ``draw`` makes of ``place``, or of the first after it that it can use. Raises the last error if none of ``GIVE_UP`` is."""
    for further in range(count):
        try:
            return draw((place + further) % count)
        except (InputError, MissingInputError) as error:
            if failures is None or further == count - 1:
                raise
            if further == GIVE_UP - 1:
                raise type(error)(f"{error}; {GIVE_UP} photographs in a row cannot be used: are they still where they were?") from None
            failures.handle_again(error)
    raise ValueError("no photographs")


def _read(index: MaskIndex, photographs: Sequence[Source], place: int) -> tuple[UInt8, ImageMasks, RunTable]:
    targets = index[place]
    image = read_photograph(photographs[targets.place], (targets.height, targets.width))
    return image, targets, run_table(targets.rles)


def _view(height: int, width: int, rng: np.random.Generator, options: SampleOptions) -> View:
    if options.scales is not None:
        return jittered_view(height, width, options.side, rng, options.scales, options.flip)
    view = whole_view(height, width, options.side)
    return view.flipped() if rng.random() < options.flip else view


def _seen(image: UInt8, targets: ImageMasks, table: RunTable, view: View, options: SampleOptions) -> Layer:
    """The view of a photograph with those masks that are targets in it."""
    masks = warp_masks(table, view, options.side // options.stride)
    enough = count_points(masks) >= options.min_points
    if options.min_visible > 0:
        enough &= visible_areas(table, view) >= options.min_visible * table.areas
    return Layer(warp_image(image, view), masks[enough], kept(ancestors_of(targets, table), enough))


def _channels_first(image: UInt8) -> Tensor:
    return torch.from_numpy(np.stack(cv2.split(image)))
