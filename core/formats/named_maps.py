"""Folders of label maps whose ids have names, and label maps as masks, to be shown and compared like any others."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ovskit.core.formats import rle
from ovskit.core.formats.label_layouts import LAYOUTS, PLAIN
from ovskit.core.formats.label_maps import LabelTruth, open_label_folder
from ovskit.core.formats.labels import LabelSpace, open_label_space
from ovskit.core.formats.sources import show_path
from ovskit.core.records import LabelMap, Mask, MaskSet
from ovskit.core.runtime.errors import InputError, UsageError

_NAMED = 10  # ids that a message lists


@dataclass(frozen=True, slots=True)
class NamedMaps:
    """The label ``maps`` of a folder and the label ``space`` that their ids are of, None if nobody said."""

    maps: LabelTruth
    space: LabelSpace | None

    @property
    def categories(self) -> Sequence[Mapping[str, Any]]:
        """The classes as COCO's categories; none without a space."""
        return () if self.space is None else tuple({"id": one.id, "name": one.name} for one in self.space.classes)

    def load(self, k: int) -> LabelMap:
        """The map of ``maps.images[k]``. Raises InputError if it cannot be used or has an id that is no class."""
        found = self.maps.load(k)
        if self.space is not None:
            strangers = np.setdiff1d(found.labels, [-1, *(one.id for one in self.space.classes)])
            if len(strangers):
                listed = ", ".join(map(str, strangers[:_NAMED].tolist())) + (" …" if len(strangers) > _NAMED else "")
                which = f"id {listed} is" if len(strangers) == 1 else f"ids {listed} are"
                raise InputError(
                    f"{self.maps.what}: {show_path(found.image.file_name)}: {which} outside the label space {self.space.name}; "
                    "another --layout or --names?"
                )
        return found


def chosen_space(layout: str | None, names: str | None) -> LabelSpace | None:
    """The label space that --names names, else the layout's own; None where neither says one. Raises UsageError for no such layout."""
    if layout is not None and layout not in LAYOUTS:
        raise UsageError(f"--layout {layout}: choose {', '.join(LAYOUTS)}")
    named = names if names is not None or layout is None else LAYOUTS[layout].space
    return None if named is None else open_label_space(named)


def open_named_maps(path: str, *, layout: str | None = None, space: LabelSpace | None = None) -> NamedMaps:
    """The index maps of a folder as ``layout`` says; without one, ids are those of ``space``. What the space ignores is void.

    Raises UsageError, InputError and MissingInputError for what cannot be used.
    """
    if layout is not None and not os.path.isdir(path):
        raise UsageError(f"--layout {layout}: {show_path(path)} is no folder; a layout says how a folder of label maps is kept")
    chosen = PLAIN if layout is None else LAYOUTS[layout]
    if space is not None:
        chosen = replace(PLAIN, void=space.ignore) if layout is None else chosen.without(space.ignore)
    return NamedMaps(open_label_folder(path, chosen), space)


def masks_of_map(found: LabelMap) -> MaskSet:
    """A mask for each class that a label map has, in order of their ids; void (-1) is none.

    ``category_id`` is the class. Masks do not overlap, have no scores, and are numbered from 1.
    """
    image, pixels = found.image, found.labels.T.reshape(-1)
    bounds = np.flatnonzero(np.diff(pixels)) + 1
    starts, ends = np.concatenate([[0], bounds]), np.concatenate([bounds, [pixels.size]])
    ids = pixels[starts]
    # Runs of one class together, each class's from first to last.
    order = np.argsort(ids, kind="stable")
    classes, first = np.unique(ids[order], return_index=True)
    masks: list[Mask] = []
    for number, places in zip(classes.tolist(), np.split(order, first[1:]), strict=True):
        if number < 0:
            continue
        edges = np.stack([starts[places], ends[places]], axis=1).reshape(-1)
        runs = np.diff(edges, prepend=0, append=pixels.size)
        one = rle.from_runs(image.height, image.width, runs)
        masks.append(Mask(len(masks) + 1, image.id, one, rle.area(one), rle.bbox(one), category_id=number))
    return MaskSet(image, tuple(masks))
