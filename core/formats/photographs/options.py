"""Where the photographs of a stream are, and how they are read: options of every command that reads photographs."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from ovskit.core.runtime.settings import Options, option

MAX_PIXELS = 178_956_970  # Pillow's own limit of what is taken for a decompression bomb


# For groups of options that have one of these alone.
ROOT: Any = {
    "help": "The folder that image names are relative to.",
    "flag": True,
    "metavar": "DIR",
    "decides": False,
    "environment": "never",
}
EXIF: Any = {
    "help": "Turn photographs upright by their EXIF orientation, or ignore it, for masks drawn on the stored pixels.",
    "flag": True,
    "shown": "the stream's, else apply",
    "rare": True,
}


class PhotographsAt(Options):
    """``root`` is the folder that names are relative to; None takes the stream's. ``exif`` None takes the stream's."""

    SECTION: ClassVar[str] = "Input"

    root: str | None = option(None, **ROOT)
    exif: Literal["apply", "ignore"] | None = option(None, **EXIF)
    max_pixels: int = option(
        MAX_PIXELS, "Refuse images of more pixels than this before decoding them.", flag=True, low=1, decides=False, rare=True
    )
