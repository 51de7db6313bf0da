"""The photographs that records name, found again and checked to be the same.

A file's EXIF orientation may ask viewers to turn its pixels. Sizes alone do not always tell whether masks are of the upright picture or of
the stored pixels (a square; a turn by 180°), so the headers of both streams state it: ``apply`` or ``ignore``; ``unknown`` for masks of
other tools, which may have done either.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

from ovskit.core.formats.image_names import ImageNames
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.decoding import MAX_PIXELS, decode_photograph, size_and_orientation
from ovskit.core.formats.photographs.sources import Source, list_sources, locate
from ovskit.core.records import Image, UInt8
from ovskit.core.runtime.errors import InputError, MissingInputError, OvsError, UsageError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.logs import get_logger

log = get_logger("photographs")

APPLY, IGNORE, UNKNOWN = "apply", "ignore", "unknown"


_NAMELESS = "a results list has ids and no names, so it does not say which photograph this is; add file_name to its entries"


def check_named(named: bool, what: str) -> None:
    """Raises InputError if the images of the masks ``what`` have no names, so that their photographs cannot be found."""
    if not named:
        raise InputError(f"{what}: {_NAMELESS.replace('which photograph this is', 'which photographs its images are')}")


def settled_exif(asked: str | None, said: str, what: str) -> str:
    """How EXIF orientations are treated: as ``asked``, if given, else as the stream ``what`` states in its header (``said``).

    Raises UsageError where the two contradict each other.
    """
    if asked is not None and said != UNKNOWN and asked != said:
        raise UsageError(f"{what} was made with --exif {said}, so its sizes and masks do not fit pictures read with --exif {asked}")
    return said if asked is None else asked


def read_source(source: Source, *, max_pixels: int = MAX_PIXELS) -> tuple[Image, UInt8]:
    """An image to read, as a record and its pixels (height, width, 3) RGB uint8.

    Raises MissingInputError if it is not there, InputError if it cannot be decoded or has another size than ``source`` says.
    """
    what = show_path(source.file_name)
    found = decode_photograph(source.read(), what, max_pixels=max_pixels, exif=source.exif != IGNORE)
    height, width = found.pixels.shape[:2]
    if source.size is not None and source.size != (width, height):
        said = f"{source.size[0]}×{source.size[1]}"
        why = _why_turned((width, height), source.size, found.orientation, source.exif != IGNORE)
        raise InputError(f"{what} is {width}×{height}, but the COCO file lists it as {said}{why or '; is it this picture?'}")
    if found.orientation != 1 and source.exif == UNKNOWN:
        _warn_turned(what, found.orientation)
    return Image(source.id, source.file_name, width, height, 1 if source.exif == IGNORE else found.orientation), found.pixels


def measure_source(source: Source, *, max_pixels: int = MAX_PIXELS) -> Image:
    """The record that ``read_source`` gives, from the image's header alone: damage behind that goes unnoticed.

    Raises MissingInputError if the image is not there, InputError if it is not an image or has more than ``max_pixels`` pixels.
    """
    what = show_path(source.file_name)
    exif = source.exif != IGNORE
    if source.offset is not None:
        (width, height), orientation = size_and_orientation(source.read(), what, exif=exif, max_pixels=max_pixels)
    else:
        try:
            with open(source.path, "rb") as file:
                (width, height), orientation = size_and_orientation(file, what, exif=exif, max_pixels=max_pixels)
        except OSError as error:
            raise MissingInputError(f"cannot read {show_path(source.path)}: {error.strerror}") from None
    return Image(source.id, source.file_name, width, height, orientation if exif else 1)


def load_photograph(image: Image, root: str, *, max_pixels: int, exif: bool = True) -> UInt8:
    """The pixels (height, width, 3) RGB uint8 of ``image``, found below ``root``; see ``Photographs``."""
    return Photographs(root, max_pixels=max_pixels, exif=APPLY if exif else IGNORE).load(image)


class Photographs:
    """The photographs below ``root`` that records name; any thread may ask for one.

    A name that is not there is looked for among all photographs there (``ImageNames``). ``exif`` states how orientations are treated;
    ``unknown`` applies them, with a warning at the first turned picture of the process.
    """

    def __init__(self, root: str, *, max_pixels: int = MAX_PIXELS, exif: str = APPLY) -> None:
        self._root, self._max_pixels, self._exif = root, max_pixels, exif
        self._lock = threading.Lock()
        self._there: tuple[tuple[Source, ...], ImageNames] | None = None

    def load(self, image: Image, *, named: bool = True) -> UInt8:
        """The pixels (height, width, 3) RGB uint8 of ``image``; ``named`` is False if its name is only its id.

        Raises MissingInputError if it is not there, InputError if it cannot be decoded or has another size than ``image`` says.
        """
        what = show_path(image.file_name)
        if not named:
            raise MissingInputError(f"image {image.id}: {_NAMELESS}")
        found = decode_photograph(self._read(image), what, max_pixels=self._max_pixels, exif=self._exif != IGNORE)
        height, width = found.pixels.shape[:2]
        if (height, width) != (image.height, image.width):
            own, said = f"{width}×{height}", f"{image.width}×{image.height}"
            why = _why_turned((width, height), (image.width, image.height), found.orientation, self._exif != IGNORE)
            raise InputError(f"{what} is {own} below {show_path(self._root)}, but the stream says {said}{why or '; is --root right?'}")
        if found.orientation != 1 and self._exif == UNKNOWN:
            _warn_turned(what, found.orientation)
        return found.pixels

    def _read(self, image: Image) -> bytes:
        try:
            return locate(image.id, image.file_name, self._root).read()
        except MissingInputError as error:
            other = self._look_for(image.file_name)
            if other is None:
                raise error from None
            return other.read()

    def _look_for(self, name: str) -> Source | None:
        with self._lock:
            if self._there is None:
                try:
                    items = list_sources([self._root], root=self._root).items
                except OvsError:  # that the photograph is not there is what is said
                    items = ()
                self._there = items, ImageNames(items, show_path(self._root))
        items, names = self._there
        place = names.find(name)
        return None if place is None else items[place[0]]


_SAID = threading.Lock()  # taken for good by the first warning of the process


def _warn_turned(what: str, orientation: int) -> None:
    """Warn, once, that a picture was turned upright whose masks may have been drawn on the pixels as they are stored."""
    if _SAID.acquire(blocking=False):
        log.warning(
            "%s has EXIF orientation %d and was turned upright (others may be, too); if its masks were drawn on the stored pixels, add "
            "--exif ignore; if not, add --exif apply",
            what,
            orientation,
        )


def photograph_names(
    images: Sequence[Image],
    root: str,
    plain_name: Callable[[str], str],
    failures: Failures | None = None,
    *,
    maps: str | None = None,
) -> list[str | None]:
    """The names, relative to ``root``, of the photographs that ``images`` are of; None where no photograph fits, or more than one.

    ``plain_name`` makes names comparable; what is in the folder ``maps`` are not photographs; a damaged tar goes to ``failures``. Raises
    MissingInputError if there is no photograph below ``root``, InputError if two have one plain name.
    """
    there = list_sources([root], root=root, failures=failures).items
    if maps is not None and os.path.realpath(maps) != os.path.realpath(root):
        inside = os.path.join(os.path.realpath(maps), "")
        there = tuple(one for one in there if not os.path.realpath(one.path).startswith(inside)) or there
    names = ImageNames([Image(one.id, plain_name(one.file_name), 0, 0) for one in there], show_path(root))
    places = (names.find(plain_name(image.file_name)) for image in images)
    return [None if place is None else there[place[0]].file_name for place in places]


def _why_turned(size: tuple[int, int], said: tuple[int, int], orientation: int, applied: bool) -> str:
    """The end of a message about two sizes that differ by EXIF orientation alone; empty for others."""
    if orientation < 5 or size != (said[1], said[0]):
        return ""
    if applied:
        return f", as it is stored: its EXIF orientation is {orientation}; add --exif ignore"
    return f", as it is upright by its EXIF orientation {orientation}; leave out --exif ignore"
