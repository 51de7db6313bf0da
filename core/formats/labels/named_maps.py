"""Folders of label maps whose ids have names, and label maps as masks, to be shown and compared like any others."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ovskit.core.formats.labels.census import census_of
from ovskit.core.formats.labels.layouts import PLAIN, layout_of
from ovskit.core.formats.labels.maps import LabelTruth, open_label_folder
from ovskit.core.formats.labels.spaces import LabelSpace, open_label_space
from ovskit.core.formats.paths import show_path
from ovskit.core.masks.runs import measure
from ovskit.core.records import LabelMap, Mask, MaskSet
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.failures import Failures

_NAMED = 10  # ids that a message lists
_LOOKED_AT = 64  # maps that are checked before the first is shown


@dataclass(frozen=True, slots=True)
class NamedMaps:
    """The label ``maps`` of a folder and the label ``space`` of their ids, None where it is not stated.

    ``doubtful``: the meaning of 255 is not stated either, and it is taken for void by custom (``census``); ``binary``: the maps were read
    as black-and-white masks.
    """

    maps: LabelTruth
    space: LabelSpace | None
    doubtful: bool = False
    binary: bool = False

    def check(self, option: str = "--layout") -> None:
        """Check some of the maps. Raises InputError if they were probably read with the wrong meaning."""
        if self.doubtful:
            census_of(self.maps, _LOOKED_AT).check(self.maps.what, binary=self.binary, option=option, one_class=False)

    @property
    def categories(self) -> Sequence[Mapping[str, Any]]:
        """The classes as COCO's categories; empty without a space."""
        return () if self.space is None else tuple({"id": one.id, "name": one.name} for one in self.space.classes)

    def load(self, k: int) -> LabelMap:
        """The map of ``maps.images[k]``. Raises InputError if it cannot be used or has an id that is not a class."""
        found = self.maps.load(k)
        if self.space is not None:
            strangers = np.setdiff1d(found.labels, [-1, *(one.id for one in self.space.classes)])
            if len(strangers):
                listed = ", ".join(map(str, strangers[:_NAMED].tolist())) + (" …" if len(strangers) > _NAMED else "")
                which = f"id {listed} is" if len(strangers) == 1 else f"ids {listed} are"
                raise InputError(
                    f"{self.maps.what}: {show_path(found.image.file_name)}: {which} outside the label space {self.space.name}; "
                    "give another --layout or --names"
                )
        return found


def chosen_space(layout: str | None, names: str | None) -> LabelSpace | None:
    """The label space of --names, else the layout's own; None without both. Raises UsageError for an unknown layout."""
    own = None if layout is None else layout_of(layout).space
    named = own if names is None else names
    return None if named is None else open_label_space(named)


def open_named_maps(
    path: str,
    *,
    layout: str | None = None,
    space: LabelSpace | None = None,
    void: tuple[int, ...] | None = None,
    partial: bool = False,
    predicted: bool = False,
    failures: Failures | None = None,
) -> NamedMaps:
    """The index maps of a folder as ``layout`` says; without one, ids are those of ``space``. What the space ignores is void.

    ``void`` are the void ids, where the user states them. ``partial``, ``predicted`` and ``failures``: see ``open_label_folder``. Raises
    UsageError, InputError and MissingInputError for what cannot be used.
    """
    if layout is not None and not os.path.isdir(path):
        raise UsageError(f"--layout {layout}: {show_path(path)} is not a folder; a layout says how a folder of label maps is kept")
    if void is not None and layout is not None:
        raise UsageError(f"--layout {layout} states which ids are void, so --void has no effect with it: leave one of them out")
    chosen = PLAIN if layout is None else layout_of(layout)
    if void is not None:
        taken = (
            [] if space is None else [f"{one.id}: that is {one.name}, a class of {space.name}" for one in space.classes if one.id in void]
        )
        if taken:
            raise UsageError(f"--void {taken[0]}")
        chosen = replace(PLAIN, void=void)
    elif space is not None and not chosen.binary:
        chosen = replace(PLAIN, void=space.ignore) if layout is None else chosen.without(space.ignore)
    doubtful = chosen.binary or (layout is None and void is None and (space is None or not space.void_said))
    return NamedMaps(
        open_label_folder(path, chosen, partial=partial, predicted=predicted, failures=failures), space, doubtful, chosen.binary
    )


def masks_of_map(found: LabelMap) -> MaskSet:
    """A mask for each class that a label map has, in order of their ids; void (-1) gets no mask.

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
        one = measure(image.height, image.width, runs)
        masks.append(Mask(len(masks) + 1, image.id, *one, category_id=number))
    return MaskSet(image, tuple(masks))
