"""Categories: whether masks are about them, what they are called, and which colour each has, the same in every column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ovskit.core.formats.labels.maps import prediction_order, truth_order
from ovskit.core.formats.labels.spaces import BUILT_IN, LabelSpace, built_in, comparable
from ovskit.core.formats.streams.masks import MasksHeader
from ovskit.core.masks.paint import topmost
from ovskit.core.records import Int32, MaskSet
from ovskit.core.show.colours import BACKGROUND, category_colours
from ovskit.core.show.scene import Column, TruthColumn
from ovskit.core.show.views import runs_in_order

_GIVES_CATEGORIES = ("ovs-label", "ovs-cluster")
_BACKGROUND = "background"


def speaks_of_categories(header: MasksHeader) -> bool:
    """Whether categories are what the masks of a file are about, as far as the file says so.

    They are of a label space, or ``ovs-label`` or ``ovs-cluster`` gave them several categories. Instances of another data set are
    things first, each by itself, whatever their categories.
    """
    if header.labels is not None:
        return True
    return len(header.categories) > 1 and any(entry.get("tool") in _GIVES_CATEGORIES for entry in header.pg)


def space_of(header: MasksHeader) -> LabelSpace | None:
    """The built-in label space that the categories of a file are of; None for another one, of which a file has only the names."""
    labels = header.labels or {}
    name = labels.get("name")
    space = built_in(name) if isinstance(name, str) and name in BUILT_IN else None
    return space if space is not None and space.hash == labels.get("hash") else None


@dataclass(frozen=True, slots=True)
class Category:
    """What a category is called, its colour (red, green, blue; 0 to 255), and whether it is the background, which is drawn faintly."""

    name: str
    rgb: tuple[int, int, int]
    is_background: bool = False


class Categories:
    """The categories of all ``columns``, told apart by their names alone: those of one name, or of one class of ``spaces``, are one.

    Colours go by the order in which names are listed: first the classes of the spaces, then the columns' categories. A category without a
    name is ``class 7`` by its id, and has the colour that many places after the last of those. What a space calls its background, and
    what is called ``background``, is gray.
    """

    def __init__(self, columns: Sequence[Column], spaces: Iterable[LabelSpace] = ()) -> None:
        self._names: dict[str, str] = {}  # by word: the class that it stands for
        backgrounds = {_BACKGROUND}
        for space in spaces:
            for one in space.classes:
                for word in one.words:
                    self._names.setdefault(comparable(word), one.name)
            backgrounds |= {comparable(one.name) for one in space.classes if one.id == space.background}
        for column in columns:
            for name in column.all_names.values():
                self._names.setdefault(comparable(name), name)
        self._places: dict[str, int] = {}
        for name in dict.fromkeys(self._names.values()):
            if comparable(name) not in backgrounds:
                self._places.setdefault(name, len(self._places))
        self._backgrounds = backgrounds
        self._palette = [(r, g, b) for r, g, b in category_colours().tolist()]
        self._found: dict[str, Category] = {}

    def of(self, column: Column, category_id: int) -> Category:
        """The category that a column's masks of this id are of."""
        said = column.all_names.get(category_id, f"class {category_id}")
        name = self._names.get(comparable(said), said)
        if name not in self._found:
            is_background = comparable(name) in self._backgrounds
            place = self._places.get(name, len(self._places) + category_id)
            self._found[name] = Category(name, BACKGROUND if is_background else self._palette[place % len(self._palette)], is_background)
        return self._found[name]


@dataclass(frozen=True, slots=True)
class Swatch:
    """A line of a legend: a category, of how many ``pixels`` it is the topmost, and its ``masks``."""

    category: Category
    pixels: int
    masks: int


@dataclass(frozen=True, slots=True)
class CategoryMap:
    """The categories of an image's masks painted over each other.

    ``labels`` (H, W) int32 is 0 where no mask is, else k for ``swatches[k - 1]``; swatches are by descending number of pixels. ``order``
    holds the places of the masks from the lowest to the topmost, ``groups[k]`` the swatch of mask k.
    """

    labels: Int32
    swatches: tuple[Swatch, ...]
    order: tuple[int, ...]
    groups: tuple[int, ...]


def category_map(masks: MaskSet, column: Column, categories: Categories) -> CategoryMap:
    """The map that a score of classes is made of: of a prediction the higher score lies on top, then the smaller mask.

    Of a ground truth it is the smaller mask. Raises InputError if the masks have not the size of their image.
    """
    order = truth_order(masks) if isinstance(column, TruthColumn) else prediction_order(masks)
    found = [categories.of(column, mask.category_id) for mask in masks.masks]
    distinct = list(dict.fromkeys(found))
    place = {category: k for k, category in enumerate(distinct)}
    if masks.masks:
        top = topmost(runs_in_order(masks, order))
        table = np.array([0, *(1 + place[found[k]] for k in order)], np.int32)
        labels = table[top]
    else:
        labels = np.zeros((masks.image.height, masks.image.width), np.int32)
    pixels = np.bincount(labels.reshape(-1, order="A"), minlength=len(distinct) + 1)[1:].tolist()
    counts = [0] * len(distinct)
    for category in found:
        counts[place[category]] += 1
    ranked = sorted(range(len(distinct)), key=lambda k: (-pixels[k], distinct[k].name))
    new = np.zeros(len(distinct) + 1, np.int32)
    new[1 + np.array(ranked, np.int64)] = 1 + np.arange(len(ranked), dtype=np.int32)
    swatches = tuple(Swatch(distinct[k], pixels[k], counts[k]) for k in ranked)
    return CategoryMap(new[labels], swatches, tuple(order), tuple(int(new[1 + place[c]]) - 1 for c in found))
