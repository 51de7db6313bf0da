"""Decode image files to RGB: JPEG, PNG, WebP, TIFF, BMP and GIF, whatever their mode, depth and orientation.

Safe to call from many threads at once: no setting of Pillow's is touched per call.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ovskit.core.records import Int32, UInt8
from ovskit.core.runtime.errors import InputError

MAX_PIXELS = 178_956_970  # where Pillow by default refuses as well: 512 MiB of RGB

# Pillow warns about metadata that it skips (EXIF, TIFF tags, APNG chunks) where the pixels are fine. Once, at import:
# filters belong to the process, and switching them per call is not thread-safe.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.(Bmp|Gif|Jpeg|Png|Tiff|WebP)ImagePlugin$")


class _Tiff(TiffImageFile):
    def load_prepare(self) -> None:
        # Pillow's own version first compares with its limit on pixels, one for the whole process; ours is checked by now.
        if self._im is None:
            self.im = Image.core.new(self.mode, self._tile_size)
        ImageFile.load_prepare(self)


# Pillow's classes are called by themselves, not through Image.open, so that no other decoder of Pillow's can be
# reached, and again that its limit on pixels does not stand in the way of --max-pixels.
_DECODERS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"II*\0", _Tiff),
    (b"MM\0*", _Tiff),
    (b"II+\0", _Tiff),  # BigTIFF
    (b"MM\0+", _Tiff),
    (b"GIF87a", GifImageFile),
    (b"GIF89a", GifImageFile),
    (b"BM", BmpImageFile),
)
_KNOWN = "JPEG, PNG, WebP, TIFF, BMP or GIF"
_HEAD = 16
_LARGEST_ID = 65535

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}


@dataclass(frozen=True, slots=True)
class Photograph:
    """``pixels`` (H, W, 3) uint8 RGB, C-contiguous and writable, and the EXIF ``orientation`` that the file states, 1 to 8."""

    pixels: UInt8
    orientation: int


def decode_image(data: bytes, what: str, *, max_pixels: int = MAX_PIXELS, exif: bool = True) -> UInt8:
    """The pixels that ``decode_photograph`` gives."""
    return decode_photograph(data, what, max_pixels=max_pixels, exif=exif).pixels


def decode_photograph(
    data: bytes, what: str, *, max_pixels: int = MAX_PIXELS, exif: bool = True, at_least: tuple[int, int] | None = None
) -> Photograph:
    """Decode an image file's bytes to RGB, upright by its EXIF orientation, or as it is stored if ``exif`` is False.

    A file of several frames or pages gives the first. No colour profile is applied. Choices where files leave it open:

    - Alpha, transparent palettes and colour keys: blended over white, as a page shows them. Dropping alpha instead
      would bring out the arbitrary colours that files keep under transparent pixels.
    - 16 bits per channel: the full range, 65535 becomes 255; grayscale is rounded, colour keeps the high byte.
    - 32-bit integers: as 16 bits. Floats: white is the smallest of 1, 255 and 65535 that no value exceeds.

    With ``at_least``, a width and a height of what comes out, a JPEG may come out smaller by a whole factor of 2, 4 or 8 that leaves it
    that large, which its decoder does in a fraction of the time; other files come out as they are.

    Raises ``InputError``, naming the file as ``what``, for an empty, truncated, damaged or foreign file, and, before
    any pixel is decoded, for one of more than ``max_pixels`` pixels. (A JPEG whose compressed data was altered without
    breaking its syntax decodes to other colours: the format has no checksum.)
    """
    with _reporting(what):
        image = _open(io.BytesIO(data), what)
        _check_pixels(image, what, max_pixels)
        orientation = _orientation(image)
        turn = _turn(image, orientation, exif)
        if at_least is not None and isinstance(image, JpegImageFile):
            width, height = at_least[::-1] if turn in _ON_ITS_SIDE else at_least
            image.draft(image.mode, (max(1, width), max(1, height)))
        rgb = _to_rgb(image, what)
        if turn is not None:
            rgb = rgb.transpose(turn)
        return Photograph(np.array(rgb), orientation)


def decode_ids(data: bytes, what: str, *, max_pixels: int = MAX_PIXELS, two_channels: bool = False) -> Int32:
    """Decode a map of ids, (H, W) int32: the numbers that the file has, not colours made of them.

    Gray of 1 to 16 bits, and palettes, whose places are the ids. With ``two_channels`` a colour image whose ids are red + 256 · green
    (ImageNet-S). Raises ``InputError`` as ``decode_image`` does, and for a colour image, since colours by themselves are not ids.
    """
    with _reporting(what):
        image = _open(io.BytesIO(data), what)
        width, height = image.size
        if width * height > max_pixels:
            raise InputError(f"{what} is too large for a map of ids: {width} × {height} pixels, the limit is {max_pixels}")
        raw = " ".join(str(tile[3]) for tile in image.tile)
        image.load()
        values: npt.NDArray[Any] = np.asarray(image)
        if two_channels:
            if image.mode != "RGB" or ";16" in raw:
                raise InputError(f"{what} is {image.mode}; ids in red and green need an image with 8-bit colours")
            return values[..., 0].astype(np.int32) + 256 * values[..., 1].astype(np.int32)
        if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
            raise InputError(f"{what} is a colour image ({image.mode}); a map of ids is gray or has a palette")
        # Pillow stretches gray of few bits to the whole of 8.
        few = next((255 // top for bits, top in (("L;2", 3), ("L;4", 15)) if bits in raw), 1)
        ids: Int32 = values.astype(np.int32) // few
        if ids.min() < 0 or ids.max() > _LARGEST_ID:
            raise InputError(f"{what} has ids from {ids.min()} to {ids.max()}, outside of 0 to {_LARGEST_ID}")
        return ids


def decode_gray(data: bytes, what: str, *, max_pixels: int = MAX_PIXELS) -> UInt8:
    """The brightness of every pixel of a black-and-white picture: (H, W) uint8, as the file stores it, 0 black and 255 white.

    Any kind of image; colours count by their luma. Gray of 1 to 16 bits is stretched to the whole of 8. Raises ``InputError`` as
    ``decode_image`` does.
    """
    with _reporting(what):
        pixels = decode_photograph(data, what, max_pixels=max_pixels, exif=False).pixels
        return np.asarray(Image.fromarray(pixels).convert("L"))


def image_size(source: bytes | BinaryIO, what: str, *, exif: bool = True) -> tuple[int, int]:
    """(width, height) in pixels of the image that ``decode_image`` makes of it, from the header alone.

    ``source`` is the file's bytes or the file itself, which must seek and stays open. Raises ``InputError``, naming
    the file as ``what``, if the header is not that of an image; damage behind the header goes unnoticed.
    """
    return size_and_orientation(source, what, exif=exif)[0]


def size_and_orientation(
    source: bytes | BinaryIO, what: str, *, exif: bool = True, max_pixels: int | None = None
) -> tuple[tuple[int, int], int]:
    """What ``image_size`` gives, and the EXIF orientation that the file states, 1 to 8.

    Raises ``InputError`` as ``image_size`` does, and for more than ``max_pixels`` pixels, if that is not None.
    """
    with _reporting(what):
        image = _open(io.BytesIO(source) if isinstance(source, bytes) else source, what)
        if max_pixels is not None:
            _check_pixels(image, what, max_pixels)
        width, height = image.size
        orientation = _orientation(image)
        return (height, width) if _turn(image, orientation, exif) in _ON_ITS_SIDE else (width, height), orientation


def _check_pixels(image: ImageFile, what: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise InputError(
            f"{what} is too large: {width} × {height} is {width * height} pixels, the limit is {max_pixels}; "
            "if the file can be trusted, raise it with --max-pixels"
        )


@contextmanager
def _reporting(what: str) -> Iterator[None]:
    """Turn what Pillow raises into one ``InputError`` line."""
    try:
        yield
    except InputError:
        raise
    # Pillow's parsers work on unchecked bytes and let escape whatever those provoke: OSError, SyntaxError, ValueError,
    # TypeError, KeyError, IndexError, AttributeError, AssertionError, EOFError, OverflowError, ZeroDivisionError,
    # RuntimeError, MemoryError (a claimed size), struct.error, zlib.error … a list that changes with every release.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{what} cannot be decoded: {reason}; the file is damaged, cut short or of an unusual kind") from error


def _open(file: BinaryIO, what: str) -> ImageFile:
    """Read the header, by the decoder that the first bytes ask for."""
    head = file.read(_HEAD)
    file.seek(0)
    if not head:
        raise InputError(f"{what} is empty: zero bytes, where an image was expected")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WebPImageFile(file)
    for magic, decoder in _DECODERS:
        if head.startswith(magic):
            return decoder(file)
    if head[4:8] == b"ftyp":
        raise InputError(f"{what} is a HEIC, AVIF or video file; convert it to {_KNOWN}")
    raise InputError(f"{what} is not an image of a supported kind ({_KNOWN}): it starts with the bytes {head[:8].hex(' ')}")


def _orientation(image: ImageFile) -> int:
    """The EXIF orientation that the file states, 1 to 8."""
    # Pillow would decode a whole PNG in search of an EXIF chunk behind the pixels.
    if isinstance(image, PngImageFile) and "exif" not in image.info:
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # as in _reporting; a broken EXIF block does not spoil the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turn(image: ImageFile, orientation: int, exif: bool) -> Image.Transpose | None:
    """What is left to be done to the pixels that Pillow loads: it turns a TIFF itself, and nothing else."""
    if isinstance(image, TiffImageFile):
        return None if exif else _TURNS.get({6: 8, 8: 6}.get(orientation, orientation))
    return _TURNS.get(orientation) if exif else None


def _to_rgb(image: ImageFile, what: str) -> Image.Image:
    raw = " ".join(str(tile[3]) for tile in image.tile)  # how samples are packed in the file; gone after load()
    image.load()
    if image.mode == "RGB" and ";16" in raw:
        image.info.pop("transparency", None)  # a 16-bit colour key, which the 8-bit pixels no longer tell apart
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_to_rgb(image, what, 4095 if "I;12" in raw else 65535)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _deep_to_rgb(image: ImageFile, what: str, white: int) -> Image.Image:
    """Grayscale of 16 or 32 bits, or float, to RGB. ``white`` is the largest value that the file's samples can take."""
    values: npt.NDArray[Any] = np.asarray(image)
    key = image.info.get("transparency")
    if image.mode == "F":
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 65535):  # so that NaN is refused as well
            raise InputError(f"{what} has float samples from {low:g} to {high:g}, outside of 0 to 65535; scale them first")
        scale = 255 / next(top for top in (1, 255, 65535) if high <= top)
        gray = (values * np.float32(scale) + np.float32(0.5)).astype(np.uint8)
    else:
        lowest, highest = int(values.min()), int(values.max())
        if lowest < 0 or highest > white:
            raise InputError(f"{what} has integer samples from {lowest} to {highest}, outside of 0 to {white}; scale them first")
        levels = ((np.arange(white + 1) * 255 + white // 2) // white).astype(np.uint8)
        if isinstance(image, TiffImageFile) and image.tag_v2.get(262) == 0:  # WhiteIsZero, which Pillow applies to 8 bits only
            levels = levels[::-1]
        if isinstance(key, int) and 0 <= key <= white:
            levels[key] = 255  # the transparent value, over white
        gray = levels[values]
    return Image.fromarray(gray).convert("RGB")
