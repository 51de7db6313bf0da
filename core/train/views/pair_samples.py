"""Batches of image-text pairs: photographs decoded as they are asked for, a random crop of each, and the tokens of one of its captions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image

from ovskit.core.concepts.words import tokens_of
from ovskit.core.formats.pairs.record import Pair
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.decoding import decode_photograph, size_and_orientation
from ovskit.core.records import UInt8
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.train.data.pair_draws import Drawn, PairDraws

_TRIES = 10  # crops whose shape is drawn before the middle is taken, as torchvision does it
_RATIO = math.log(4 / 3)
_SIDES = ("left", "right")


class PairBatch(NamedTuple):
    """``images`` (b, 3, S, S) uint8 and ``tokens`` (b, length) int64 of b pairs: batch ``rank`` of the ``world`` batches of a step."""

    images: torch.Tensor
    tokens: torch.Tensor
    rank: int
    world: int


@dataclass(frozen=True, slots=True)
class PairViewOptions:
    """How a pair is seen.

    ``side`` of the square in pixels; ``smallest`` the least share of the photograph's area that a crop shows; ``flip`` the chance of
    mirroring; ``mirror_sides``: images whose caption speaks of left or right are mirrored as well.
    """

    side: int
    smallest: float
    flip: float
    mirror_sides: bool


class Tokenizer(Protocol):
    """Captions to tokens (n, length) int64."""

    def __call__(self, texts: list[str]) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True)
class PairSamples:
    """What makes batches. Photographs that cannot be decoded go to ``failures``, and others take their places, see ``PairDraws.instead``.
    ``words`` makes of a caption what is learned of it."""

    draws: PairDraws
    options: PairViewOptions
    tokenizer: Tokenizer
    failures: Failures
    words: Callable[[str], str] = str

    def batch(self, step: int, rank: int, world: int, size: int) -> PairBatch:
        """See ``PairDraws.batch``. Raises InputError where a place cannot be filled, and the first failure if those are not skipped."""
        images, captions = [], []
        for k, drawn in enumerate(self.draws.batch(step, rank, world, size)):
            image, caption = self._usable(drawn, (step, rank, world, size, k))
            images.append(image)
            captions.append(self.words(caption))
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
        return PairBatch(pixels, self.tokenizer(captions), rank, world)

    def _usable(self, drawn: Drawn, place: tuple[int, int, int, int, int]) -> tuple[UInt8, str]:
        """The view and the caption of a pair, or of the first of those instead of it that can be used."""
        others = self.draws.instead(*place)
        found: Drawn | None = drawn
        while found is not None:
            try:
                return self._view(found)
            except (InputError, MissingInputError) as error:
                self.failures.handle_again(error)
                found = next(others, None)
        raise InputError(
            f"{show_path(drawn.pair.file_name)}: neither this image nor any of those that could take its place can be decoded; see above"
        )

    def _view(self, drawn: Drawn) -> tuple[UInt8, str]:
        pair, rng = drawn
        caption = pair.captions[int(rng.integers(len(pair.captions)))]
        return view_of(pair, caption, rng, self.options), caption


def view_of(pair: Pair, caption: str, rng: np.random.Generator, options: PairViewOptions) -> UInt8:
    """A random crop of a pair's photograph, (side, side, 3) uint8, mirrored or not. Raises InputError or MissingInputError."""
    data, what, side = pair.image.read(), show_path(pair.file_name), options.side
    exif = pair.image.exif == "apply"
    (width, height), _ = size_and_orientation(data, what, exif=exif)
    left, top, right, bottom = random_crop(width, height, rng, options.smallest)
    mirrored = bool(rng.random() < options.flip)
    # Decoded no finer than the crop is wanted.
    least = (math.ceil(width * side / (right - left)), math.ceil(height * side / (bottom - top)))
    pixels = decode_photograph(data, what, exif=exif, at_least=(min(width, least[0]), min(height, least[1]))).pixels
    across, down = pixels.shape[1] / width, pixels.shape[0] / height
    box = (left * across, top * down, min(right * across, pixels.shape[1]), min(bottom * down, pixels.shape[0]))
    seen = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC, box=box))
    if mirrored and (options.mirror_sides or not speaks_of_sides([caption])):
        seen = seen[:, ::-1]
    return seen


def random_crop(width: int, height: int, rng: np.random.Generator, smallest: float) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a random crop: its share of the area uniform from ``smallest`` to 1, the logarithm of its width by its
    height uniform from ln 3/4 to ln 4/3 (Szegedy et al., CVPR 2015); the middle of the photograph where such a crop is not found."""
    for _ in range(_TRIES):
        area = rng.uniform(smallest, 1.0) * width * height
        ratio = math.exp(rng.uniform(-_RATIO, _RATIO))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, max(1, round(height * 4 / 3))), min(height, max(1, round(width * 4 / 3)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def speaks_of_sides(captions: Sequence[str]) -> bool:
    """Whether any caption has a word that begins with left or right, which a mirrored photograph would make untrue."""
    return any(token.startswith(_SIDES) for caption in captions for token in tokens_of(caption))
