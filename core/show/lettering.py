"""Text on pictures: one font, one set of colours, and names that fit."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from PIL import ImageFont

from ovskit.core.show.safe_text import printable

GROUND, INK, SOFT = (252, 252, 251), (29, 29, 27), (99, 98, 94)


def font_of(size: int) -> Any:
    """Pillow's own font, letters ``size`` pixels high."""
    return ImageFont.load_default(size)


def fitting(text: str, font: Any, width: int, *, at_end: bool = False) -> str:
    """``text``, printable, cut to ``width`` pixels: at its front, since what tells paths apart is at their end, or ``at_end``."""
    text = printable(text)
    if not isinstance(font, ImageFont.FreeTypeFont):  # a Pillow without FreeType has one small font, of Latin-1
        text = text.encode("latin-1", "replace").decode("latin-1")
    if font.getlength(text) <= width:
        return text

    def cut(letters: int) -> str:
        return text[:letters] + "..." if at_end else "..." + text[len(text) - letters :]

    # The first number of letters that is too many, less one; no letter is narrower than a pixel.
    most = min(len(text), max(0, width))
    return cut(max(0, bisect_right(range(most + 1), float(width), key=lambda letters: float(font.getlength(cut(letters)))) - 1))
