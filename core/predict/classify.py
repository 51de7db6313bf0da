"""Zero-shot classification of whole images: the words nearest to an image, in the space of a model that knows words.

The image is resized so that its shorter side is 256/224 of what the model sees, as GroupViT is evaluated [code], its centre is cropped, and
the vector of the crop is compared with those of the words, as in CLIP (Radford et al., ICML 2021, section 3.1.4; see ``words``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.photographs import read_source
from ovskit.core.formats.photographs.sources import Source
from ovskit.core.models.backbones.interface import Backbone, BackboneSpec
from ovskit.core.models.backbones.resize import resize_rgb
from ovskit.core.models.families import image_size
from ovskit.core.models.words import Words
from ovskit.core.records import Float, Image, ImageLabel, ImageLabels, UInt8
from ovskit.core.runtime.batching import run_halving, successes
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.workers import ordered_map

_AUTO_BATCH_CUDA = 64
_USUAL_SIZE = 224  # for models that state no size
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class ClassifyOptions:
    """``top`` labels are listed for each image, fewer where there are not so many classes.

    ``size`` is the side in pixels of the square that the model sees (None: the model's own, else 224 [choice]), made a multiple of its
    patch; ``shorter`` what the image's shorter side is resized to before (None: 256/224 of ``size``, rounded). CLIP's own preprocessing has
    both alike. ``batch_size`` None chooses one for the device; neither it nor ``workers`` changes a result.
    """

    top: int = 5
    size: int | None = None
    shorter: int | None = None
    batch_size: int | None = None
    workers: int = 1
    max_pixels: int = 178_956_970

    def sides(self, spec: BackboneSpec) -> tuple[int, int]:
        """The shorter side after resizing and the side of the crop, for a model; the first is never below the second."""
        wanted = self.size or image_size(spec.model) or _USUAL_SIZE
        size = max(1, round(wanted / spec.stride)) * spec.stride
        return max(size, round(256 * size / 224) if self.shorter is None else self.shorter), size


@dataclass(frozen=True, slots=True)
class _Prepared:
    image: Image
    pixels: torch.Tensor  # (3, size, size) uint8


def classify(
    sources: Sequence[Source], backbone: Backbone, words: Words, options: ClassifyOptions, failures: Failures
) -> Iterator[ImageLabels]:
    """The best labels of every image, in the order of ``sources``; scores are probabilities, a softmax over all classes of ``words``.

    A source that cannot be read or decoded goes to ``failures``. A few images and a batch are in memory. Raises InputError for a vector
    that is not finite; ``backbone.spec.has_cls`` must be true, and ``words`` of the text tower beside the ``backbone``.
    """
    shorter, size = options.sides(backbone.spec)

    def prepare(source: Source) -> _Prepared | InputError | MissingInputError:
        try:
            image, pixels = read_source(source, max_pixels=options.max_pixels)
        except (InputError, MissingInputError) as error:
            return error
        crop = centre_crop(pixels, shorter, size, backbone.spec)
        return _Prepared(image, backbone.prepare(crop, size, size))

    def run(items: Sequence[_Prepared]) -> torch.Tensor:
        found = backbone.extract(torch.stack([item.pixels for item in items]), cls=True, patch=False).cls
        assert found is not None
        return found

    most = options.batch_size or (_AUTO_BATCH_CUDA if backbone.device.type == "cuda" else 1)
    batch: list[_Prepared] = []
    for item in successes(ordered_map(prepare, sources, options.workers), failures):
        batch.append(item)
        if len(batch) == most:
            yield from _labelled(run_halving(batch, run, backbone.device), words, options.top)
            batch = []
    if batch:
        yield from _labelled(run_halving(batch, run, backbone.device), words, options.top)


def centre_crop(pixels: UInt8, shorter: int, size: int, spec: BackboneSpec) -> UInt8:
    """The centre (size, size, 3) of an image (H, W, 3) whose shorter side was resized to ``shorter`` (from ``size``) by the model's own
    interpolation.

    The longer side is cut to whole pixels, and the crop's corner rounded half to even, as torchvision does it, which models were trained
    with. Thread-safe.
    """
    height, width = pixels.shape[:2]
    if height <= width:
        tall, wide = shorter, max(shorter, shorter * width // height)
    else:
        tall, wide = max(shorter, shorter * height // width), shorter
    resized = resize_rgb(pixels, tall, wide, spec.interpolation)
    top, left = round((tall - size) / 2), round((wide - size) / 2)
    return np.ascontiguousarray(resized[:, top : top + size, left : left + size].numpy().transpose(1, 2, 0))


def _labelled(pieces: Iterator[tuple[Sequence[_Prepared], torch.Tensor]], words: Words, top: int) -> Iterator[ImageLabels]:
    for items, found in pieces:
        for item, vector in zip(items, found.float().cpu().numpy(), strict=True):
            # One image after the other: a product of several may round otherwise than that of one.
            yield ImageLabels(item.image, _best(words, words.probabilities(_unit(vector, item.image)[None])[0], top))


def _best(words: Words, chances: npt.NDArray[np.float64], top: int) -> tuple[ImageLabel, ...]:
    order = np.argsort(-chances, kind="stable")[:top].tolist()
    return tuple(ImageLabel(words.classes[k].id, words.classes[k].name, round(float(chances[k]), _DIGITS)) for k in order)


def _unit(vector: Float, image: Image) -> Float:
    """The vector at length 1, in float32; a vector of zeros stays as it is."""
    if not np.isfinite(vector).all():
        raise InputError(f"{show_path(image.file_name)}: its vector is not finite; the model's weights may be damaged")
    exact = vector.astype(np.float64)
    length = float(np.sqrt(np.square(exact).sum()))
    return (exact / length if length > 0 else exact).astype(np.float32)
