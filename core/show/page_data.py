"""The data of the page's script, as plain values for JSON: the masks of one image, and the summary of the whole page."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ovskit.core.records import Mask, MaskSet
from ovskit.core.show.agreement import Agreement
from ovskit.core.show.categories import Categories, Category, category_map
from ovskit.core.show.colours import colours
from ovskit.core.show.safe_text import printable
from ovskit.core.show.scene import Column, Scene, TruthColumn
from ovskit.core.show.truth_matches import AnnotatorTruth
from ovskit.core.show.views import NESTED, MaskView, larger_first, most_legible, order_by_area, runs_in_order, views

_MOST_EXTRAS = 8
_LONGEST_EXTRA = 80
_MOST_LEVELS = 48  # of one key over all images
_STATED_AREA = "area"  # COCO's, of the polygons; the mask's own is shown


class Summary:
    """The page as a whole: its size, which levels there are and which to open with, and what of the ground truth is found."""

    def __init__(self, columns: Sequence[Column], truth: TruthColumn | None, categories: Categories | None = None) -> None:
        self.categories = Categories([*columns, *([] if truth is None else [truth])]) if categories is None else categories
        self.images = 0
        self.masked_images = 0
        self.masks = 0
        self._columns = columns
        self._truth = truth
        self._levels: dict[str, dict[float, list[int]]] = defaultdict(dict)
        self._keys: list[set[str]] = [set() for _ in range(len(columns) + 1)]  # the last is the ground truth's
        self._found = [0] * len(columns)
        self._to_find = 0
        self._annotators: list[str] = []
        self._categories: dict[Category, int] = {}
        self._right: list[Agreement | None] = [None] * len(columns)

    def add(self, panel: int, found: Iterable[MaskView], masks: int) -> None:
        """Count the masks and the views of one image in one file."""
        if not self._columns[panel].is_map:
            self.masks += masks
            self.masked_images += masks > 0
        for view in found:
            self._keys[panel].add(view.key)
            self._add_level(view).append(len(view.members))

    def add_truth(self, place: int, truth: AnnotatorTruth, found: Iterable[MaskView]) -> None:
        """Count what is found of the ground truth of one image; of the annotators, ``place`` from 0, only the first counts."""
        for view in found:
            self._keys[-1].add(view.key)
            self._add_level(view)
        if truth.annotator is not None and truth.annotator not in self._annotators and len(self._annotators) < _MOST_LEVELS:
            self._annotators.append(truth.annotator)
        if place == 0:
            self._found = [sum(pair) for pair in zip(self._found, (f.hits for f in truth.found), strict=True)]
            self._to_find += truth.found[0].total

    def add_agreement(self, panel: int, agreement: Agreement) -> None:
        """Count what one file has right of an image's ground truth."""
        before = self._right[panel]
        both = agreement if before is None else Agreement(before.right + agreement.right, before.counted + agreement.counted)
        self._right[panel] = both

    def place_of(self, category: Category) -> int:
        """Where a category stands in the page's list of those that occur."""
        return self._categories.setdefault(category, len(self._categories))

    def _add_level(self, view: MaskView) -> list[int]:
        numbers = self._levels[view.key]
        return numbers.setdefault(view.value, []) if view.value in numbers or len(numbers) <= _MOST_LEVELS else []

    def to_json(self) -> dict[str, Any]:
        levels = {key: numbers for key, numbers in self._levels.items() if len(numbers) <= _MOST_LEVELS}
        # A level that few images have says little about the rest.
        common = [
            (key, value, sum(counts) / len(counts))
            for key, numbers in levels.items()
            for value, counts in numbers.items()
            if counts and 2 * len(counts) >= self.masked_images
        ]
        first = most_legible(common, self.masks / max(1, self.masked_images))
        data: dict[str, Any] = {
            "images": self.images,
            "masks": self.masks,
            "levels": [[key, sorted(numbers, reverse=key in NESTED)] for key, numbers in levels.items()],
            "first": list(first) if first else None,
            "panels": [{"title": printable(c.title), "keys": sorted(k)} for c, k in zip(self._columns, self._keys, strict=False)],
        }
        by_category = any(column.by_category for column in self._columns)
        if by_category:
            data["first"] = None  # what is painted of all masks is what a score of classes is made of
        if self._categories:
            data["categories"] = [[printable(c.name), _hex(c), int(c.is_background)] for c in self._categories]
        if any(self._right):
            data["right"] = [None if one is None else one.share for one in self._right]
        if self._truth is not None:
            if not by_category:
                data["first"] = ["matched", 1]
            data["truth"] = {
                "title": printable(self._truth.title),
                "keys": sorted(self._keys[-1]),
                "at": self._truth.at,
                "annotators": [printable(name) for name in self._annotators],
                "found": self._found,
                "total": self._to_find,
            }
        return data


def scene_data(scene: Scene, columns: Sequence[Column], truth: TruthColumn | None, summary: Summary) -> dict[str, Any]:
    """One image for the script; ``summary`` is told of it."""
    data: dict[str, Any] = {"width": scene.image.width, "height": scene.image.height, "panels": []}
    for place, (masks, column) in enumerate(zip(scene.panels, columns, strict=True)):
        if masks is None:
            data["panels"].append(None)
            continue
        found, panel = _panel(masks, column, summary)
        summary.add(place, found, len(masks.masks))
        right = scene.agreements[place] if place < len(scene.agreements) else None
        if right is not None:
            panel["right"] = right.share
            summary.add_agreement(place, right)
        data["panels"].append(panel)
    if truth is not None:
        data["truths"] = []
        for place, one in enumerate(scene.truths):
            found, panel = _panel(one.masks, truth, summary)
            summary.add_truth(place, one, found)
            data["truths"].append({**panel, "annotator": printable(one.annotator) if one.annotator else None, **_found(one)})
    return data


def _found(truth: AnnotatorTruth) -> dict[str, Any]:
    """For each file, a row [ground-truth mask, prediction, IoU, 1 if paired or 0 if only nearest] for every mask touched."""
    rows = []
    for found in truth.found:
        touched = [(g, int(k)) for g, k in enumerate(found.nearest) if k >= 0 and found.counted[g]]
        rows.append([[g, k, round(float(found.iou[g]), 4), int(found.partner[g] >= 0)] for g, k in touched])
    return {"found": rows}


def _panel(masks: MaskSet, column: Column, summary: Summary) -> tuple[list[MaskView], dict[str, Any]]:
    ordered = larger_first(masks)
    found = views(ordered, runs_in_order(masks, order_by_area(masks)))
    place = {mask.id: k for k, mask in enumerate(ordered)}
    hexes = colours(len(ordered)).tobytes().hex()
    panel: dict[str, Any] = {
        "masks": [_mask(mask, hexes[6 * k : 6 * k + 6], place, column.names) for k, mask in enumerate(ordered)],
        "views": [[view.key, view.value, view.members] for view in found],
    }
    if column.by_category:
        panel |= _by_category(masks, panel["masks"], place, column, summary)
    return found, panel


def _by_category(
    masks: MaskSet, shown: Sequence[dict[str, Any]], place: Mapping[int, int], column: Column, summary: Summary
) -> dict[str, Any]:
    """The legend, rows [category, pixels, masks], and the masks' order from the lowest to the topmost; each mask is told its row."""
    drawn = category_map(masks, column, summary.categories)
    for mask, group in zip(masks.masks, drawn.groups, strict=True):
        category = drawn.swatches[group].category
        shown[place[mask.id]].update(rgb=_hex(category), category=printable(category.name), group=group)
    return {
        "legend": [[summary.place_of(one.category), one.pixels, one.masks] for one in drawn.swatches],
        "order": [place[masks.masks[k].id] for k in drawn.order],
    }


def _hex(category: Category) -> str:
    return bytes(category.rgb).hex()


def _mask(mask: Mask, colour: str, place: Mapping[int, int], names: Mapping[int, str]) -> dict[str, Any]:
    data: dict[str, Any] = {"id": mask.id, "rle": mask.rle.counts.decode("ascii"), "area": mask.area, "rgb": colour}
    if mask.score is not None and math.isfinite(mask.score):
        data["score"] = mask.score
    if mask.parent_id is not None:
        data["parentId"] = mask.parent_id
        if mask.parent_id in place:
            data["parent"] = place[mask.parent_id]
    if mask.category_id in names:
        data["category"] = printable(names[mask.category_id])
    if mask.iscrowd:
        data["crowd"] = True
    more = [
        [printable(str(key)), shown] for key, value in mask.extra.items() if key != _STATED_AREA and (shown := _scalar(value)) is not None
    ]
    if more:
        data["more"] = more[:_MOST_EXTRAS]
    return data


def _scalar(value: object) -> str | float | None:
    """What of an unknown key can be said in a few words: text, a number, yes or no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return int(value) if abs(value) < 2**53 else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str) and value:
        text = printable(value)
        return text if len(text) <= _LONGEST_EXTRA else text[: _LONGEST_EXTRA - 1] + "…"
    return None
