"""The photographs that records name, found again and checked to be the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ovskit.core.formats.image_names import ImageNames
from ovskit.core.formats.images import decode_image
from ovskit.core.formats.sources import list_sources, locate, show_path
from ovskit.core.records import Image, UInt8
from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.failures import Failures


def load_photograph(image: Image, root: str, *, max_pixels: int) -> UInt8:
    """The pixels (height, width, 3) RGB uint8 of ``image``, found below ``root``.

    Raises MissingInputError if it is not there, InputError if it cannot be decoded or has another size than ``image`` says.
    """
    what = show_path(image.file_name)
    pixels = decode_image(locate(image.id, image.file_name, root).read(), what, max_pixels=max_pixels)
    if pixels.shape[:2] != (image.height, image.width):
        found = f"{pixels.shape[1]}×{pixels.shape[0]}"
        raise InputError(f"{what} is {found} below {show_path(root)}, but the stream says {image.width}×{image.height}; is --root right?")
    return pixels


def photograph_names(
    images: Sequence[Image], root: str, plain_name: Callable[[str], str], failures: Failures | None = None
) -> list[str | None]:
    """The names, relative to ``root``, of the photographs that ``images`` are of; None where there is none, or no single one.

    ``plain_name`` makes names comparable; a damaged tar goes to ``failures``. Raises MissingInputError if there is no photograph
    below ``root``, InputError if two have one plain name.
    """
    there = list_sources([root], root=root, failures=failures).items
    names = ImageNames([Image(one.id, plain_name(one.file_name), 0, 0) for one in there], show_path(root))
    places = (names.find(plain_name(image.file_name)) for image in images)
    return [None if place is None else there[place[0]].file_name for place in places]
