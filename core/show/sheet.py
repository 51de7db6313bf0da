"""A contact sheet: one picture of many images, a row each, with a column for every way to look at them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from ovskit.core.records import MaskSet, UInt8
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.show.categories import Categories, Category, CategoryMap, category_map
from ovskit.core.show.colours import colours
from ovskit.core.show.legend import category_overlay, legend_height, legend_strip
from ovskit.core.show.lettering import GROUND, INK, SOFT, fitting, font_of
from ovskit.core.show.overlay import Paint, overlay
from ovskit.core.show.scene import Column, Scene, TruthColumn, classes_line, found_line, percent, right_line
from ovskit.core.show.truth_matches import AnnotatorTruth
from ovskit.core.show.views import larger_first

# A PNG of more is refused or shrunk by many viewers, and has to be held in memory as three bytes a pixel.
MOST_PIXELS = 40_000_000
TALLEST = 32_000

_MARGIN = 16
_GAP = 8
_FONT = 13
_LINE = 18  # of text, in pixels
_WELL = (240, 240, 238)
_MISSED, _CROWD = (224, 52, 58), (143, 142, 137)

_NO_FILE = Column("")


@dataclass(frozen=True, slots=True)
class SheetColumn:
    """What a column shows: the masks of one file (``panel``, its place among a scene's) that ``choose`` picks of a scene.

    ``file`` says what the file's categories are; needed where its masks are coloured by them.
    """

    title: str
    panel: int
    choose: Callable[[Scene], MaskSet]
    file: Column = _NO_FILE


@dataclass(frozen=True, slots=True)
class Sheet:
    """How many images are on the sheet, and the name of the first that did not fit, where one did not."""

    shown: int
    left_out: str | None = None


def write_sheet(
    scenes: Iterable[Scene],
    out: BinaryIO,
    *,
    columns: Sequence[SheetColumn],
    truth: TruthColumn | None = None,
    side: int = 320,
    opacity: float = 0.55,
    categories: Categories | None = None,
    legend: bool = True,
    most_pixels: int = MOST_PIXELS,
    tallest: int = TALLEST,
) -> Sheet:
    """Write a PNG with a row for each scene: the photograph, then ``columns``, then the ground truth if ``truth`` is given.

    Each picture fits a square of ``side`` pixels. Ground truth is drawn in the colours of the first file's masks that match
    it, what is missed in red stripes; with several annotators, the first's. Where columns are coloured by category, ``categories`` says
    how, and below the last row stands a ``legend`` of those that occur, larger first; with their share of all pixels, if it is one column.
    The sheet has at most ``most_pixels`` pixels and is at most ``tallest`` high; at the first image that does not fit it ends, and no more
    are read. One scene and the sheet are in memory. Raises InputError without an image, or for one of another size than its masks;
    UsageError if not even one image can fit.
    """
    cells = 1 + len(columns) + (truth is not None)
    width = 2 * _MARGIN + cells * side + (cells - 1) * _GAP
    highest = min(tallest, most_pixels // width)
    top = _MARGIN + _LINE + _GAP
    if highest < top + _LINE + side + _GAP + _MARGIN:
        raise UsageError(f"{cells} pictures of {side} pixels side by side are more than a sheet holds: make them smaller or fewer")
    # Memory is only taken where something is written, so the sheet's final height need not be known.
    canvas = np.empty((highest, width, 3), np.uint8)
    canvas[:top] = GROUND
    titles = ["Photograph", *(column.title for column in columns), *([truth.title] if truth is not None else [])]
    _write_row(canvas[_MARGIN : _MARGIN + _LINE], [(title, INK) for title in titles], side)
    at, made = top, Sheet(0)
    key = Categories([*(column.file for column in columns), *([truth] if truth is not None else [])]) if categories is None else categories
    seen = _LegendCounts()
    for scene in scenes:
        maps = _maps(scene, columns, truth, key)
        row = _row(scene, columns, truth, side, opacity, width, maps)
        more = seen.also(maps) if legend else seen
        if at + len(row) + legend_height(more.lines(), width, margin=_MARGIN) + _MARGIN > highest:
            made = Sheet(made.shown, scene.image.file_name)
            break
        canvas[at : at + len(row)] = row
        at, made, seen = at + len(row), Sheet(made.shown + 1), more
    if made.left_out is not None and not made.shown:
        raise UsageError(f"not even one row of pictures of {side} pixels fits on a sheet, with its legend: make them smaller or fewer")
    if not made.shown:
        raise InputError("there is no image to put on the sheet")
    below = legend_strip(seen.lines(), width, margin=_MARGIN)
    canvas[at : at + len(below)] = below
    at += len(below)
    canvas[at : at + _MARGIN - _GAP] = GROUND
    Pillow.fromarray(canvas[: at + _MARGIN - _GAP]).save(out, "PNG")
    return made


class _LegendCounts:
    """For the legend: the pixels of each category in the rows so far, for each column that has a map, and the pixels of each column."""

    def __init__(self, pixels: dict[Category, dict[int, int]] | None = None, totals: dict[int, int] | None = None) -> None:
        self._pixels, self._totals = pixels or {}, totals or {}

    def also(self, maps: Sequence[CategoryMap | None]) -> _LegendCounts:
        """These counts and those of another row."""
        pixels, totals = {category: dict(by) for category, by in self._pixels.items()}, dict(self._totals)
        for place, shown in enumerate(maps):
            if shown is None:
                continue
            totals[place] = totals.get(place, 0) + shown.labels.size
            for swatch in shown.swatches:
                if swatch.pixels:
                    by = pixels.setdefault(swatch.category, {})
                    by[place] = by.get(place, 0) + swatch.pixels
        return _LegendCounts(pixels, totals)

    def lines(self) -> list[tuple[Category, str]]:
        """The legend, larger first."""
        shares = {category: max(n / self._totals[place] for place, n in by.items()) for category, by in self._pixels.items()}
        alone = len(self._totals) == 1
        return [(c, percent(shares[c]) if alone else "") for c in sorted(shares, key=lambda c: (-shares[c], c.name))]


def _maps(scene: Scene, columns: Sequence[SheetColumn], truth: TruthColumn | None, key: Categories) -> list[CategoryMap | None]:
    """What is drawn in each column and the ground truth, where it is coloured by category."""
    scene.check()
    maps: list[CategoryMap | None] = []
    for column in columns:
        there = column.file.by_category and scene.panels[column.panel] is not None
        maps.append(category_map(column.choose(scene), column.file, key) if there else None)
    if truth is not None:
        there = truth.by_category and bool(scene.truths)
        maps.append(category_map(scene.truths[0].masks, truth, key) if there else None)
    return maps


def _row(
    scene: Scene,
    columns: Sequence[SheetColumn],
    truth: TruthColumn | None,
    side: int,
    opacity: float,
    width: int,
    maps: Sequence[CategoryMap | None],
) -> UInt8:
    """One image: a line of captions and the pictures below, (height, width, 3)."""
    scale = side / max(scene.image.width, scene.image.height)
    size = (max(1, round(scene.image.width * scale)), max(1, round(scene.image.height * scale)))
    line = max(1, round(1 / scale))  # as wide as a pixel of the sheet
    pictures: list[Pillow.Image | None] = [_scaled(scene.pixels, size)]
    captions = [(scene.image.file_name, INK)]
    first = scene.truths[0] if scene.truths else None
    for column, shown in zip(columns, maps, strict=False):
        whole = scene.panels[column.panel]
        if whole is None:
            pictures.append(None)
            captions.append(("no such image", SOFT))
            continue
        if shown is not None:
            pictures.append(_scaled(category_overlay(scene.pixels, shown, opacity=opacity, thickness=line), size))
            right = scene.agreements[column.panel] if column.panel < len(scene.agreements) else None
            said = classes_line(len(shown.order), len(shown.swatches)) if right is None else right_line(right)
            captions.append((said if first is None or truth is None else found_line(first, column.panel, truth.at), SOFT))
            continue
        chosen = column.choose(scene)
        drawn = overlay(scene.pixels, chosen, opacity=opacity, paint=_ranks(whole, chosen), thickness=line)
        pictures.append(_scaled(drawn, size))
        said = f"{len(chosen.masks):,} mask{'' if len(chosen.masks) == 1 else 's'}"
        captions.append((found_line(first, column.panel, truth.at) if first is not None and truth is not None else said, SOFT))
    if truth is not None and first is None:
        pictures.append(None)
        captions.append(("no such image", SOFT))
    elif first is not None:
        if maps[-1] is not None:
            drawn = category_overlay(scene.pixels, maps[-1], opacity=opacity, thickness=line)
        else:
            drawn = overlay(scene.pixels, first.masks, opacity=opacity, paint=_verdict(first, scene.panels[0]), thickness=line)
        pictures.append(_scaled(drawn, size))
        missed = first.found[0].total - first.found[0].hits
        whose = "" if first.annotator is None else f" by annotator {first.annotator}"
        captions.append((f"{len(first.masks.masks):,} mask{'' if len(first.masks.masks) == 1 else 's'}{whose}, {missed:,} missed", SOFT))
    row = np.empty((_LINE + size[1] + 2 * _GAP, width, 3), np.uint8)
    row[:] = GROUND
    _write_row(row[:_LINE], captions, side)
    for k, picture in enumerate(pictures):
        left = _MARGIN + k * (side + _GAP)
        row[_LINE : _LINE + size[1], left : left + size[0]] = _WELL if picture is None else np.asarray(picture)
    return row


def _scaled(pixels: UInt8, size: tuple[int, int]) -> Pillow.Image:
    return Pillow.fromarray(pixels).resize(size, Pillow.Resampling.LANCZOS, reducing_gap=3.0)


def _ranks(whole: MaskSet, chosen: MaskSet) -> Paint:
    """The colours that the chosen masks have among all of their file: the same in every column, as on the page."""
    palette = dict(zip((mask.id for mask in larger_first(whole)), colours(len(whole.masks)), strict=True))
    ordered = larger_first(chosen)
    rgb = np.array([palette[mask.id] for mask in ordered], np.uint8).reshape(-1, 3)
    return Paint(rgb, np.zeros(len(ordered), np.bool_))


def _verdict(truth: AnnotatorTruth, predictions: MaskSet | None) -> Paint:
    found = truth.found[0]
    palette = colours(len(predictions.masks)) if predictions is not None else np.zeros((0, 3), np.uint8)
    rgb = np.empty((len(found.partner), 3), np.uint8)
    rgb[:] = np.where(found.counted[:, None], _MISSED, _CROWD)
    hit = found.partner >= 0
    rgb[hit] = palette[found.partner[hit]]
    return Paint(rgb, found.counted & ~hit)


def _write_row(strip: UInt8, texts: Sequence[tuple[str, tuple[int, int, int]]], side: int) -> None:
    """Text above each cell, cut at its front to fit: what tells names apart is at their end. Changes ``strip``."""
    picture = Pillow.fromarray(strip)
    pen, font = ImageDraw.Draw(picture), font_of(_FONT)
    for k, (text, colour) in enumerate(texts):
        pen.text((_MARGIN + k * (side + _GAP), 0), fitting(text, font, side), fill=colour, font=font)
    strip[:] = np.asarray(picture)
