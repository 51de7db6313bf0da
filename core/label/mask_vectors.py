"""One vector for every mask: its crop as a frozen backbone sees it as a whole, of length 1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.photographs import APPLY, Photographs
from ovskit.core.label.crops import CropOptions, crop_mask
from ovskit.core.masks.forest import kept_masks
from ovskit.core.masks.runs import table_of
from ovskit.core.models.backbones.interface import Backbone
from ovskit.core.records import Float, MaskSet, RunTable, UInt8
from ovskit.core.runtime.batching import run_halving
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.workers import ordered_map

_AUTO_BATCH_CUDA = 64
Fault = InputError | MissingInputError


@dataclass(frozen=True, slots=True)
class MaskVectors:
    """The masks of an image that have a pixel, and a vector for each: ``vectors`` (n, c) float32 of length 1."""

    masks: MaskSet
    vectors: Float


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """``root`` is where the images are, ``exif`` how their orientations are taken; ``batch_size`` None chooses one for the device. Neither
    it nor ``workers`` changes a result."""

    crop: CropOptions
    root: str
    batch_size: int | None = None
    workers: int = 1
    max_pixels: int = 178_956_970
    exif: str = APPLY


@dataclass(frozen=True, slots=True)
class _Photograph:
    masks: MaskSet
    table: RunTable
    pixels: UInt8


@dataclass(frozen=True, slots=True)
class _Job:
    """Mask ``k`` of an image."""

    photograph: _Photograph
    k: int


@dataclass(frozen=True, slots=True)
class _Crop:
    masks: MaskSet
    k: int
    pixels: torch.Tensor  # (3, size, size) uint8


def drop_empty(masks: MaskSet) -> MaskSet:
    """The masks that have a pixel: others cannot be cropped."""
    return kept_masks(masks, np.array([mask.area > 0 for mask in masks.masks], np.bool_))


def encode_masks(
    sets: Iterable[MaskSet], backbone: Backbone, options: EncodeOptions, failures: Failures, *, done: frozenset[int] = frozenset()
) -> Iterator[MaskVectors]:
    """The vectors of every image's masks, in order; batches go across images.

    Images whose id is in ``done`` are passed over. One that cannot be found or decoded, or has another size than its masks,
    goes to ``failures``; the photograph of an image without masks is not read. In memory are a few images, a few crops and a batch.
    Raises InputError for a vector that is not finite; ``backbone.spec.has_cls`` must be true.
    """

    photographs = Photographs(options.root, max_pixels=options.max_pixels, exif=options.exif)

    def load(masks: MaskSet) -> MaskSet | _Photograph | Fault | None:
        if masks.image.id in done:
            return None
        try:
            masks = drop_empty(masks)
            _check_sizes(masks)
            return _Photograph(masks, table_of(masks), photographs.load(masks.image)) if masks.masks else masks
        except (InputError, MissingInputError) as error:
            return error

    def jobs() -> Iterator[_Job | MaskSet | Fault]:
        for found in ordered_map(load, sets, options.workers):
            if isinstance(found, _Photograph):
                for k in range(len(found.masks.masks)):
                    yield _Job(found, k)
            elif found is not None:
                yield found

    def crop(job: _Job | MaskSet | Fault) -> _Crop | MaskSet | Fault:
        if not isinstance(job, _Job):
            return job
        of, side = job.photograph, options.crop.size
        pixels = crop_mask(of.pixels, of.masks.masks[job.k], of.table, job.k, options.crop)
        return _Crop(of.masks, job.k, backbone.prepare(pixels, side, side))

    size = options.batch_size or (_AUTO_BATCH_CUDA if backbone.device.type == "cuda" else 1)
    waiting: list[_Crop | MaskSet] = []
    rows: list[Float] = []  # of the image that is under way
    crops = 0
    for item in ordered_map(crop, jobs(), options.workers):
        if isinstance(item, Fault):
            failures.handle(item)
            continue
        waiting.append(item)
        crops += isinstance(item, _Crop)
        if crops == size or not crops:
            yield from _completed(waiting, rows, backbone)
            waiting, crops = [], 0
    yield from _completed(waiting, rows, backbone)


def _check_sizes(masks: MaskSet) -> None:
    image = masks.image
    for mask in masks.masks:
        if (mask.rle.height, mask.rle.width) != (image.height, image.width):
            found = f"{mask.rle.width}×{mask.rle.height}"
            raise InputError(f"{show_path(image.file_name)}: mask {mask.id} is {found}, its image {image.width}×{image.height}")


def _completed(items: Sequence[_Crop | MaskSet], rows: list[Float], backbone: Backbone) -> Iterator[MaskVectors]:
    """The images that a batch completes; ``rows`` holds the vectors of the image that the batch before left incomplete, and then of the one
    that this batch does."""

    def run(crops: Sequence[_Crop]) -> torch.Tensor:
        found = backbone.extract(torch.stack([each.pixels for each in crops]), cls=True, patch=False).cls
        assert found is not None
        return found

    crops = [item for item in items if isinstance(item, _Crop)]
    pieces = run_halving(crops, run, backbone.device) if crops else ()
    vectors = iter([row for _, found in pieces for row in found.float().cpu().numpy()])
    for item in items:
        if isinstance(item, MaskSet):
            yield MaskVectors(item, np.empty((0, 0), np.float32))
            continue
        rows.append(_unit(next(vectors), item))
        if len(rows) == len(item.masks.masks):
            yield MaskVectors(item.masks, np.stack(rows))
            rows.clear()


def _unit(vector: Float, crop: _Crop) -> Float:
    """The vector at length 1, in float32; a vector of zeros stays as it is."""
    if not np.isfinite(vector).all():
        name, number = show_path(crop.masks.image.file_name), crop.masks.masks[crop.k].id
        raise InputError(f"{name}: the vector of mask {number} is not finite; the model's weights may be damaged")
    exact = vector.astype(np.float64)
    length = float(np.sqrt(np.square(exact).sum()))
    return (exact / length if length > 0 else exact).astype(np.float32)
