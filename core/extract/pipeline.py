"""From sources to features: decode in workers, extract in batches, in order, with a few images in memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.photographs import read_source
from ovskit.core.formats.photographs.sources import Source
from ovskit.core.models.backbones.interface import Backbone, Features
from ovskit.core.records import EmbeddingBlock, FeatureMap, Float, Image
from ovskit.core.runtime.batching import batches, run_halving, successes
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.workers import ordered_map, prefetch

Pool = Literal["cls", "mean"]
BLOCK_ROWS = 256  # pooled embeddings per block; fixed, so that the bytes do not depend on the batch size
_AUTO_BATCH_CUDA = 16


@dataclass(frozen=True, slots=True)
class ExtractOptions:
    """``size`` is the (height, width) in pixels every image is resized to, or None to keep its own, rounded to the patch.

    ``storage`` is the dtype written; ``batch_size`` None chooses one for the device. SOHES resizes to a square of 1024,
    aspect ignored [paper].
    """

    size: tuple[int, int] | None = (1024, 1024)
    cls: bool = False
    pool: Pool | None = None
    storage: Literal["float16", "float32"] = "float16"
    batch_size: int | None = None
    workers: int = 1
    max_pixels: int = 178_956_970


@dataclass(frozen=True, slots=True)
class _Prepared:
    image: Image
    pixels: torch.Tensor  # (3, height, width) uint8


def frame_size(options_size: tuple[int, int] | None, stride: int, height: int, width: int) -> tuple[int, int]:
    """The size (height, width) an image is resized to: multiples of the patch, at least one patch a side."""
    target = (height, width) if options_size is None else options_size
    return max(1, round(target[0] / stride)) * stride, max(1, round(target[1] / stride)) * stride


def extract_features(
    sources: Sequence[Source], backbone: Backbone, options: ExtractOptions, failures: Failures
) -> Iterator[FeatureMap | EmbeddingBlock]:
    """Patch features of every source, in order; or, with ``options.pool``, blocks of pooled embeddings.

    Decoding, forward passes and the caller's own work overlap. A source that cannot be read or decoded goes to
    ``failures``. Raises InputError where a feature does not fit the storage dtype.
    """

    def prepare(source: Source) -> _Prepared | InputError | MissingInputError:
        try:
            return _prepare(source, backbone, options)
        except (InputError, MissingInputError) as error:
            return error

    prepared = successes(ordered_map(prepare, sources, options.workers), failures)
    batch_size = options.batch_size or (_AUTO_BATCH_CUDA if backbone.device.type == "cuda" else 1)
    if options.pool is None:
        yield from prefetch(_maps(prepared, backbone, options, batch_size), depth=2)
    else:
        yield from prefetch(_blocks(prepared, backbone, options, batch_size), depth=2)


def _prepare(source: Source, backbone: Backbone, options: ExtractOptions) -> _Prepared:
    image, pixels = read_source(source, max_pixels=options.max_pixels)
    return _Prepared(image, backbone.prepare(pixels, *frame_size(options.size, backbone.spec.stride, image.height, image.width)))


def _forward(
    batch: list[_Prepared], backbone: Backbone, *, cls: bool, patch: bool
) -> Iterator[tuple[Image, torch.Tensor, torch.Tensor | None]]:
    """(image, patch (h, w, c), cls (c,) or None) of a batch."""

    def run(items: Sequence[_Prepared]) -> Features:
        # One by one to the device, which puts them together at once; a core takes a millisecond or two over each.
        return backbone.extract(torch.stack([item.pixels.to(backbone.device) for item in items]), cls=cls, patch=patch)

    for items, features in run_halving(batch, run, backbone.device):
        for k, item in enumerate(items):
            yield item.image, features.patch[k], None if features.cls is None else features.cls[k]


def _shape(item: _Prepared) -> torch.Size:
    return item.pixels.shape


def _maps(prepared: Iterable[_Prepared], backbone: Backbone, options: ExtractOptions, batch_size: int) -> Iterator[FeatureMap]:
    for batch in batches(prepared, batch_size, _shape):
        for image, patch, cls in _forward(batch, backbone, cls=options.cls, patch=True):
            stored = _store(patch, image, options)
            yield FeatureMap(image, stored, None if cls is None else _store(cls, image, options))


def _blocks(prepared: Iterable[_Prepared], backbone: Backbone, options: ExtractOptions, batch_size: int) -> Iterator[EmbeddingBlock]:
    images: list[Image] = []
    rows: list[Float] = []
    by_cls = options.pool == "cls"
    for batch in batches(prepared, batch_size, _shape):
        for image, patch, cls in _forward(batch, backbone, cls=by_cls, patch=not by_cls):
            pooled = cls if cls is not None else patch.float().mean(dim=(0, 1))
            images.append(image)
            rows.append(_store(pooled, image, options))
            if len(rows) == BLOCK_ROWS:
                yield EmbeddingBlock(tuple(images), np.stack(rows))
                images, rows = [], []
    if rows:
        yield EmbeddingBlock(tuple(images), np.stack(rows))


def _store(values: torch.Tensor, image: Image, options: ExtractOptions) -> Float:
    dtype = torch.float16 if options.storage == "float16" else torch.float32
    there = values.to(dtype)
    here = there.cpu()
    # By the extremes, among which NaN wins, and by a GPU where it has them: a core takes as long over one image as a GPU over the network.
    finite = all(math.isfinite(extreme) for extreme in torch.stack((there if there.is_cuda else here).aminmax()).tolist())
    stored: Float = here.contiguous().numpy()
    if not finite:
        remedy = "use --dtype float32" if options.storage == "float16" else "the model's weights may be damaged"
        raise InputError(f"{show_path(image.file_name)}: a feature is not finite as {options.storage}; {remedy}")
    return stored
