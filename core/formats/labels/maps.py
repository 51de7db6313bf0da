"""Label maps: the class of every pixel, from a folder of index images, or painted from masks.

A folder holds one image a photograph, gray or with a palette, of 8 or 16 bits; see ``layouts``. Masks are painted over each other: in a
prediction the higher score lies on top, then the smaller mask; in a ground truth the smaller mask [choice].
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ovskit.core.formats.image_names import without_suffix
from ovskit.core.formats.labels.layouts import PLAIN, Layout
from ovskit.core.formats.labels.spaces import LARGEST_ID
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.decoding import decode_gray, decode_ids, image_size
from ovskit.core.formats.photographs.sources import SUFFIXES as PICTURES
from ovskit.core.formats.photographs.sources import Source
from ovskit.core.formats.truth.ground_truth import GroundTruth, TruthImages
from ovskit.core.formats.walk import files_below
from ovskit.core.masks.paint import topmost
from ovskit.core.masks.runs import chosen, table_of
from ovskit.core.records import Image, Int32, LabelMap, Mask, MaskSet
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.logs import get_logger

SUFFIXES = (".png", ".tif", ".tiff")
_NAMED = 5  # images that a message names

log = get_logger("formats")


class LabelTruth(TruthImages):
    """A ground truth of label maps: ``load(k)`` gives that of ``images[k]``. ``folder`` is where the maps are, if they are files."""

    def __init__(
        self,
        what: str,
        images: Sequence[Image],
        load: Callable[[int], LabelMap],
        plain_name: Callable[[str], str] | None = None,
        *,
        named: bool = True,
        exif: str = "unknown",
        folder: str | None = None,
    ) -> None:
        super().__init__(what, images, plain_name, named=named, exif=exif)
        self.load = load
        self.folder = folder

    def with_load(self, load: Callable[[int], LabelMap]) -> LabelTruth:
        """The same images, whose maps ``load`` gives."""
        return LabelTruth(self.what, self.images, load, self._plain_name, named=self.named, exif=self.exif, folder=self.folder)


def open_label_folder(
    root: str, layout: Layout = PLAIN, *, partial: bool = False, predicted: bool = False, failures: Failures | None = None
) -> LabelTruth:
    """The maps of a folder, in order of their names, each read when it is asked for.

    Images are found by their name without extension. Where the layout's list of evaluated images exists, each of them must have a map,
    unless ``partial``. ``predicted``: the maps are predictions, with the layout's ids but not necessarily its folders and file names. A map
    that is not an image goes to ``failures`` if given. Raises MissingInputError if the folder or a map is not there, InputError if it has
    no map; ``load`` raises InputError for one that cannot be used.
    """
    what = show_path(root)
    if not os.path.isdir(root):
        raise MissingInputError(f"{what} is not a folder: label maps are a folder of images, one for each photograph")
    folder = next(path for path in (os.path.join(root, name) if name != "." else root for name in layout.folders) if os.path.isdir(path))
    names = sorted(_maps_below(folder, layout))
    if predicted and not names and layout.suffix:
        names = sorted(_maps_below(folder, replace(layout, suffix="")))
    names = _listed(names, root, layout, partial=partial or predicted)
    if not names:
        kinds = f"*{layout.suffix}" if layout.suffix else ", ".join(f"*{suffix}" for suffix in _suffixes(layout))
        raise InputError(f"{what} has no label maps ({kinds}); --layout says how a data set keeps them")
    sources, images = [], []
    for k, name in enumerate(names, 1):
        source = Source(k, name, os.path.join(folder, name))
        try:
            images.append(_image(source))
            sources.append(source)
        except InputError as error:
            if failures is None:
                raise
            failures.handle_again(error)
    if not images:
        raise InputError(f"{what}: none of its label maps can be used")

    def load(k: int) -> LabelMap:
        return LabelMap(images[k], _labels(sources[k], layout))

    return LabelTruth(what, images, load, lambda name: _stem(name, layout), folder=folder)


def _listed(names: Sequence[str], root: str, layout: Layout, *, partial: bool) -> list[str]:
    """Those of the maps that the layout's list of images names; all if there is no list."""
    split = None if layout.split is None else os.path.join(root, layout.split)
    if split is None or not os.path.isfile(split):
        return list(names)
    # Some lists have a second column, of the map's path or of what is in the image.
    wanted = dict.fromkeys(_stem(line.split()[0], layout).rpartition("/")[2] for line in _text(split).splitlines() if line.strip())
    found = {_stem(name, layout).rpartition("/")[2]: name for name in names}
    missing = [stem for stem in wanted if stem not in found]
    if missing:
        some = ", ".join(map(show_path, missing[:_NAMED])) + ", …" * (len(missing) > _NAMED)
        how = "1 image" if len(missing) == 1 else f"{len(missing)} images"
        said = f"{show_path(split)} lists {len(wanted)} images, of which {how} have no label map: {some}"
        if not partial:
            raise MissingInputError(f"{said}; copy them again, or take what is there with --images listed")
        log.warning("%s", said)
    return [name for name in names if _stem(name, layout).rpartition("/")[2] in wanted]


def painted_truth(truth: GroundTruth, class_of: Mapping[int, int], background: int | None) -> LabelTruth:
    """A ground truth of masks as label maps: the smaller mask on top, each with the class of its category.

    Pixels without a mask are ``background``, or void (-1) where that is None. ``load`` raises InputError for a mask of a category without a
    class.
    """
    empty = -1 if background is None else background

    def load(k: int) -> LabelMap:
        masks = truth.load(k)
        try:
            ids = [class_of[mask.category_id] for mask in masks.masks]
        except KeyError as error:
            raise InputError(
                f"{truth.what}: {show_path(masks.image.file_name)} has a mask of category {error}, which its list of categories lacks"
            ) from None
        return LabelMap(masks.image, _painted(masks, truth_order(masks), ids, empty))

    return LabelTruth(truth.what, truth.images, load, named=truth.named, exif=truth.exif)


def painted_prediction(masks: MaskSet) -> LabelMap:
    """Masks as a label map of their categories, -1 where no mask is: the higher score on top, then the smaller mask, then the first one.

    Raises InputError for a category that no label map can hold.
    """
    for mask in masks.masks:
        if not 0 <= mask.category_id <= LARGEST_ID:
            name = show_path(masks.image.file_name)
            raise InputError(f"{name}: mask {mask.id} is of category {mask.category_id}; ids of classes go from 0 to {LARGEST_ID}")
    return LabelMap(masks.image, _painted(masks, prediction_order(masks), [mask.category_id for mask in masks.masks], -1))


def prediction_order(masks: MaskSet) -> list[int]:
    """The places of a prediction's masks from the lowest to the topmost, as ``painted_prediction`` lays them over each other."""
    return sorted(range(len(masks.masks)), key=lambda k: (_score(masks.masks[k]), -masks.masks[k].area, -k))


def truth_order(masks: MaskSet) -> list[int]:
    """The places of a ground truth's masks from the lowest to the topmost, as ``painted_truth`` lays them over each other."""
    return sorted(range(len(masks.masks)), key=lambda k: -masks.masks[k].area)


def _painted(masks: MaskSet, order: Sequence[int], ids: Sequence[int], empty: int) -> Int32:
    height, width = masks.image.height, masks.image.width
    if not order:
        return np.full((height, width), empty, np.int32)
    table = np.array([empty, *(ids[k] for k in order)], np.int32)
    found: Int32 = table[topmost(chosen(table_of(masks), order))]
    if found.shape != (height, width):
        raise InputError(f"{show_path(masks.image.file_name)} is {width}×{height}, but its masks are {found.shape[1]}×{found.shape[0]}")
    return found


def _score(mask: Mask) -> float:
    return 1.0 if mask.score is None else mask.score


def _labels(source: Source, layout: Layout) -> Int32:
    if layout.binary:
        return (decode_gray(source.read(), show_path(source.path)) >= 128).astype(np.int32)
    stored = decode_ids(source.read(), show_path(source.path), two_channels=layout.two_channels)
    table = np.arange(1 << 16, dtype=np.int32) + layout.shift
    table[list(layout.void)] = -1
    return np.maximum(table, -1)[stored]


def _image(source: Source) -> Image:
    what = show_path(source.path)
    try:
        with open(source.path, "rb") as file:
            width, height = image_size(file, what, exif=False)  # ids are read as they are stored
    except OSError as error:
        raise MissingInputError(f"cannot read {what}: {error.strerror}") from None
    return Image(source.id, source.file_name, width, height)


def _maps_below(folder: str, layout: Layout) -> Iterator[str]:
    """Names relative to ``folder``, with slashes."""
    suffixes = _suffixes(layout)
    for path in files_below(folder):
        if path.lower().endswith(suffixes) if not layout.suffix else path.endswith(suffixes):
            yield os.path.relpath(path, folder).replace(os.sep, "/")


def _suffixes(layout: Layout) -> tuple[str, ...]:
    """The suffixes of a layout's maps. Black-and-white masks may be JPEG files, which would change ids."""
    return (layout.suffix,) if layout.suffix else PICTURES if layout.binary else SUFFIXES


def _stem(name: str, layout: Layout) -> str:
    """The name of a map or of its image without what tells them apart: extension and the layout's endings."""
    if layout.suffix and name.endswith(layout.suffix):
        return name[: -len(layout.suffix)]
    return without_suffix(name).removesuffix(layout.image_suffix)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return file.read()
    except OSError as error:
        raise MissingInputError(f"cannot read {show_path(path)}: {error.strerror}") from None
