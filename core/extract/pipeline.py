"""From sources to features: decode in workers, extract in batches, in order, with a few images in memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ovskit.core.extract.options import ExtractOptions
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.photographs import read_source
from ovskit.core.formats.photographs.sources import Source
from ovskit.core.models.backbones.interface import Backbone, Features
from ovskit.core.models.registry import load_backbone
from ovskit.core.records import EmbeddingBlock, FeatureMap, Float, Image
from ovskit.core.runtime.batching import batches, run_halving, successes
from ovskit.core.runtime.device import choose_device
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.workers import ordered_map, prefetch

BLOCK_ROWS = 256  # pooled embeddings per block; fixed, so that the bytes do not depend on the batch size
_AUTO_BATCH_CUDA = 16


@dataclass(frozen=True, slots=True)
class _Prepared:
    image: Image
    pixels: torch.Tensor  # (3, height, width) uint8


def open_backbone(options: ExtractOptions, *, weights: Path | None = None, device: str = "auto") -> Backbone:
    """The model whose features are wanted. Raises UsageError where it has no CLS token and one is, and what ``load_backbone`` raises."""
    backbone = load_backbone(
        options.model,
        facet=options.facet,
        layer=options.layer,
        weights=weights,
        device=choose_device(device),
        dtype=getattr(torch, options.dtype),
        positions=options.positions,
        interpolation=options.resample,
    )
    if (options.cls or options.pool == "cls") and not backbone.spec.has_cls:
        raise UsageError(f"--model {options.model} has no CLS token; leave out --cls, or use --pool mean")
    return backbone


def frame_size(options_size: tuple[int, int] | None, stride: int, height: int, width: int) -> tuple[int, int]:
    """The size (height, width) an image is resized to: multiples of the patch, at least one patch a side."""
    target = (height, width) if options_size is None else options_size
    return max(1, round(target[0] / stride)) * stride, max(1, round(target[1] / stride)) * stride


def extract_features(
    sources: Sequence[Source],
    backbone: Backbone,
    options: ExtractOptions,
    failures: Failures,
    *,
    workers: int = 1,
    max_pixels: int = 178_956_970,
) -> Iterator[FeatureMap | EmbeddingBlock]:
    """Patch features of every source, in order; or, with ``options.pool``, blocks of pooled embeddings.

    Decoding, in ``workers`` threads, forward passes and the caller's own work overlap; images of more than ``max_pixels`` are refused
    before they are decoded. A source that cannot be read or decoded goes to
    ``failures``. Raises InputError where a feature does not fit the storage dtype.
    """

    def prepare(source: Source) -> _Prepared | InputError | MissingInputError:
        try:
            return _prepare(source, backbone, options, max_pixels)
        except (InputError, MissingInputError) as error:
            return error

    prepared = successes(ordered_map(prepare, sources, workers), failures)
    batch_size = options.batch_size or (_AUTO_BATCH_CUDA if backbone.device.type == "cuda" else 1)
    if options.pool is None:
        yield from prefetch(_maps(prepared, backbone, options, batch_size), depth=2)
    else:
        yield from prefetch(_blocks(prepared, backbone, options, batch_size), depth=2)


def _prepare(source: Source, backbone: Backbone, options: ExtractOptions, max_pixels: int) -> _Prepared:
    image, pixels = read_source(source, max_pixels=max_pixels)
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
