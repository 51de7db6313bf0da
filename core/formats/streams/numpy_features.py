"""Features that others saved with NumPy, read as if they were a feature stream: bring your own backbone.

One array for each photograph, named like it: the key in an archive, or the path of an ``.npy`` file, is matched to the photographs below
a root by ``ImageNames`` (with or without the photograph's suffix, with as many of its folders as tell it from others). Ids are places in
the sorted list of all photographs there, as ``ovs-extract`` numbers them; sizes and orientations come from the photographs' headers. What
fits no photograph is passed over with a warning; what fits several, and a photograph that two arrays fit, is an error.

The grid covers the whole photograph, as it does in a stream of ours. What is not known is not made up where it would decide anything:
the model is called ``numpy``, has no CLS (but see ``array_layout``) and recommends no local step, which needs the model to extract crops;
its stride is 1, which only crops would ask for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ovskit.core.formats.image_names import ImageNames
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.photographs import measure_source
from ovskit.core.formats.photographs.sources import Source, list_sources
from ovskit.core.formats.streams.features import HEADER, FeatureHeader
from ovskit.core.formats.streams.numpy_arrays import ArrayFiles, StoredArray, holds_arrays, list_arrays
from ovskit.core.records import FeatureMap, Image
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.logs import get_logger

log = get_logger("features")

Grid = tuple[int, int]

_WANTED = "want (h, w, c), or (n, c) with n = h·w: one array for each photograph, channels last"

# ``BackboneSpec.to_json()`` of features of which only the width is known.
_MODEL: dict[str, Any] = {
    "name": "numpy",
    "model": "numpy",
    "facet": "token",
    "layer": -1,
    "stride": 1,
    "has_cls": False,
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
    "interpolation": "bicubic",
    "weights_sha256": None,
    "counts": None,
    "local": False,
    "positions": "size",
}


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """How an array is read: its ``grid`` (h, w), its channels, whether a ``cls`` row comes first, and whether the grid was ``guessed``
    by the photograph's aspect."""

    grid: Grid
    channels: int
    cls: bool = False
    guessed: bool = False


class NumpyFeatures:
    """The arrays of archives, folders and ``.npy`` files, each with its photograph, in the order of ids; can be read again and again.

    ``header`` is the header of a feature stream of them; ``what`` is their name in messages.
    """

    def __init__(self, paths: Sequence[str], *, root: str, grid: Grid | None, exif: str, failures: Failures, max_pixels: int) -> None:
        """``grid`` is the grid of arrays of rows, and what the shapes of other arrays are checked against; ``exif`` and ``max_pixels`` are
        as the photographs are to be read. Photographs and arrays that cannot be used go to ``failures``.

        Raises MissingInputError if there are no photographs or arrays; InputError if an archive is damaged, no array fits a photograph,
        one fits several, or two fit one.
        """
        self.what = ", ".join(map(show_path, paths[:3])) + (" …" if len(paths) > 3 else "")
        self._grid, self._failures, self._max_pixels = grid, failures, max_pixels
        self._said_guessed = False
        sources = [replace(source, exif=exif) for source in list_sources([root], root=root).items]
        self._pairs = _matched(list_arrays(paths), sources, self.what, show_path(root))
        self._channels, self._first = self._width()
        self.header = FeatureHeader({**_MODEL, "dim": self._channels}, None, "float32", root, exif=exif)

    @contextmanager
    def open(self) -> Iterator[NumpyReader]:
        """A reader of all of them from the beginning, for as long as the context lasts."""
        with ArrayFiles([array for _, array in self._pairs]) as files:
            yield NumpyReader(self.header, self._records(files))

    def _width(self) -> tuple[int, str]:
        """The channels and the name of the first array that can be used. Raises InputError if no array can."""
        with ArrayFiles([array for _, array in self._pairs]) as files:
            for source, array in self._pairs:
                try:
                    image = measure_source(source, max_pixels=self._max_pixels)
                    return array_layout(files.header(array).shape, image, self._grid, array.what).channels, array.what
                except (InputError, MissingInputError) as error:
                    self._failures.handle_again(error)
        raise InputError(f"{self.what}: none of its arrays can be used")

    def _records(self, files: ArrayFiles) -> Iterator[FeatureMap]:
        for source, array in self._pairs:
            try:
                image = measure_source(source, max_pixels=self._max_pixels)
                found = self._checked(array_layout(files.header(array).shape, image, self._grid, array.what), array.what)
                values = files.read(array)
            except (InputError, MissingInputError) as error:
                self._failures.handle_again(error)
                continue
            if values.dtype == np.float64:
                with np.errstate(over="ignore"):  # infinities are found where all features are checked to be finite
                    values = values.astype(np.float32)
            rows = values.reshape(-1, found.channels)
            yield FeatureMap(image, rows[int(found.cls) :].reshape(*found.grid, found.channels), rows[0] if found.cls else None)
            del values, rows  # or they would still be there while the next ones are read

    def _checked(self, found: ArrayLayout, what: str) -> ArrayLayout:
        if found.channels != self._channels:
            raise InputError(f"{what} has {found.channels} channels and {self._first} {self._channels}: they are not of one model")
        if found.guessed and not self._said_guessed:
            self._said_guessed = True
            log.warning(
                "%s is read as a grid of %s, by the aspect of its photograph; add --grid HxW if it is another", what, _text(found.grid)
            )
        return found


class NumpyReader:
    """What ``FeatureReader`` is for a stream: a ``header``, and records that can be asked for before they are taken."""

    def __init__(self, header: FeatureHeader, records: Iterator[FeatureMap]) -> None:
        self.header = header
        self._records = records
        self._next: FeatureMap | None = None

    def peek(self) -> tuple[Image, ...]:
        """The image of the next record; none at the end."""
        if self._next is None:
            self._next = next(self._records, None)
        return () if self._next is None else (self._next.image,)

    def take(self) -> FeatureMap:
        """The next record, to be called if ``peek`` says that there is one."""
        self.peek()
        assert self._next is not None
        record, self._next = self._next, None
        return record


def with_arrays(
    paths: Sequence[str], *, root: str | None, grid: Grid | None, exif: str, local: bool, failures: Failures, max_pixels: int
) -> list[str | NumpyFeatures]:
    """The inputs ``paths`` in their order: feature streams as paths, and all paths that hold NumPy arrays together, at the place of the
    first.

    ``holds_arrays`` tells which these are; pipes never are. For NumPy arrays, raises UsageError without a ``root`` and with the ``local``
    step, and otherwise as ``NumpyFeatures`` does.
    """
    foreign = [path for path in paths if holds_arrays(path, HEADER)]
    if not foreign:
        return list(paths)
    what = show_path(foreign[0])
    if root is None:
        raise UsageError(
            f"{what} is not a feature stream; if it holds NumPy arrays named like photographs, add --root DIR, the folder of those"
        )
    if local:
        raise UsageError(f"--local needs the model that made the features, which {what} does not name: leave --local out")
    arrays = NumpyFeatures(foreign, root=root, grid=grid, exif=exif, failures=failures, max_pixels=max_pixels)
    at = list(paths).index(foreign[0])
    others = [path for path in paths if path not in foreign]
    return [*others[:at], arrays, *others[at:]]


def array_layout(shape: tuple[int, ...], image: Image, grid: Grid | None, what: str) -> ArrayLayout:
    """How an array of ``shape`` holds the features of ``image``. Raises InputError, naming it ``what``, if that cannot be told.

    Leading axes of 1, a batch of one, are dropped. (h, w, c) is taken as it is; ``grid``, if given, must then be (h, w). (n, c) are
    the rows of ``grid``, or one row more, of which the first is CLS. Without ``grid`` they are the rows of the one grid of n patches that
    is square, as ViTs at a square size give, or has the photograph's aspect to within a patch; several such grids are an error, and so is a
    CLS row. (c, h, w) is told from (h, w, c) by ``grid``, or by the axes of which two are such a grid [choice].
    """
    said = f"{what} has shape ({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"
    plain = shape
    while len(plain) > 2 and plain[0] == 1:
        plain = plain[1:]
    if len(plain) not in (2, 3) or 0 in plain:
        raise InputError(f"{said}; {_WANTED}")
    if len(plain) == 2:
        return _rows(plain[0], plain[1], image, grid, said)
    height, width, channels = plain
    is_grid = (height, width) == grid if grid else _is_usual((height, width), image)
    if not is_grid and ((width, channels) == grid if grid else _is_usual((width, channels), image) or height == max(plain)):
        anyway = "" if grid else f"; if it is that already, add --grid {height}x{width}"
        raise InputError(f"{said}, which looks like (c, h, w); save it as (h, w, c), array.transpose(1, 2, 0){anyway}")
    if grid and not is_grid:
        raise InputError(f"{said}, another grid than --grid {_text(grid)}")
    return ArrayLayout((height, width), channels)


def _rows(count: int, channels: int, image: Image, grid: Grid | None, said: str) -> ArrayLayout:
    if grid is not None:
        cells = grid[0] * grid[1]
        if count in (cells, cells + 1):
            return ArrayLayout(grid, channels, cls=count == cells + 1)
        turned = ": transpose it, array.T" if channels in (cells, cells + 1) else ""
        raise InputError(f"{said}; --grid {_text(grid)} wants {cells} rows, or {cells + 1} of which the first is CLS{turned}")
    grids = _usual_grids(count, image)
    if len(grids) == 1:
        return ArrayLayout(grids[0], channels, guessed=grids[0][0] != grids[0][1])
    where = f"a photograph of {image.width}×{image.height}"
    if grids:
        raise InputError(f"{said}: {count} rows could be {' or '.join(map(_text, grids))} patches of {where}; add --grid HxW")
    less = _usual_grids(count - 1, image)
    hint = f" ({_text(less[0])} if the first row is CLS)" if less else ""
    raise InputError(f"{said}: {count} rows do not make a grid of {where}; add --grid HxW{hint}, or save (h, w, c)")


def _usual_grids(count: int, image: Image) -> list[Grid]:
    """The grids of ``count`` patches that are square or have the photograph's aspect, those of fewer rows first."""
    small = [side for side in range(1, math.isqrt(count) + 1) if count % side == 0]
    sides = sorted({*small, *(count // side for side in small)})
    return [(side, count // side) for side in sides if _is_usual((side, count // side), image)]


def _is_usual(grid: Grid, image: Image) -> bool:
    """Whether a grid is square, or whole patches of the photograph at some size: h and w are off by less than one."""
    height, width = grid
    wide, tall = (height - 1) * image.width < (width + 1) * image.height, (width - 1) * image.height < (height + 1) * image.width
    return height == width or (wide and tall)


def _text(grid: Grid) -> str:
    return f"{grid[0]}x{grid[1]}"


def _matched(arrays: Sequence[StoredArray], sources: Sequence[Source], what: str, root: str) -> list[tuple[Source, StoredArray]]:
    names = ImageNames(sources, root)
    places: dict[int, StoredArray] = {}
    strangers = []
    for array in arrays:
        found = names.find(array.name)
        if found is None:
            if several := names.fits(array.name):
                raise InputError(f"{array.what} fits {several} photographs below {root}; name it by more of the path, or by the suffix")
            strangers.append(array)
        elif (twin := places.setdefault(found[0], array)) is not array:
            name = show_path(sources[found[0]].file_name)
            raise InputError(f"{twin.what} and {array.what} both fit {name}; there may be one array for each photograph")
    if not places:
        raise InputError(
            f"{what}: no array is named like a photograph below {root} (the first is {show_path(arrays[0].name)!r}, "
            f"a photograph is {show_path(sources[0].file_name)!r})"
        )
    if strangers:
        more = "" if len(strangers) == 1 else f" and {len(strangers) - 1} more"
        log.warning("passed over %s%s: no photograph below %s has such a name", strangers[0].what, more, root)
    log.info("%d of %d photographs below %s have features", len(places), len(sources), root)
    return [(sources[place], places[place]) for place in sorted(places)]
