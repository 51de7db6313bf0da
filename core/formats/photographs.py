"""The photograph that a record names, found again and checked to be the same."""

from __future__ import annotations

from ovskit.core.formats.images import decode_image
from ovskit.core.formats.sources import locate, show_path
from ovskit.core.records import Image, UInt8
from ovskit.core.runtime.errors import InputError


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
