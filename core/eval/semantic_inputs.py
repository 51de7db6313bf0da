"""The inputs of semantic scores: a ground truth as label maps, its label space, and predictions of the same classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ovskit.core.eval.categories import contradiction, listed_names
from ovskit.core.eval.semantic import SemanticOptions
from ovskit.core.formats.labels.census import Census
from ovskit.core.formats.labels.layouts import PLAIN, layout_of
from ovskit.core.formats.labels.maps import LabelTruth, open_label_folder, painted_truth
from ovskit.core.formats.labels.named_maps import NamedMaps, chosen_space, open_named_maps
from ovskit.core.formats.labels.spaces import LARGEST_ID, LabelSpace, comparable
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.streams.masks import ENTITY, MasksHeader
from ovskit.core.formats.truth.ground_truth import GroundTruth, open_ground_truth
from ovskit.core.records import LabelMap
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.failures import Failures

_NAMED = 8  # names that a message lists


class SemanticTruth(LabelTruth):
    """The ``maps`` to be compared with, the label ``space`` of their ids (None where it is not stated), the ``classes`` by id (None:
    those that the maps have), ``warnings`` for a person, and a ``check`` to call when they have been scored, which raises InputError if
    they were probably read with the wrong meaning."""

    def __init__(
        self,
        maps: LabelTruth,
        space: LabelSpace | None,
        classes: Mapping[int, str] | None,
        warnings: tuple[str, ...] = (),
        check: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(maps.what, maps.images, maps.load, maps._plain_name, named=maps.named, exif=maps.exif, folder=maps.folder)
        self.space = space
        self.classes = classes
        self.warnings = warnings
        self.check = check

    def options(self, match: Any, *, joint: bool) -> SemanticOptions:
        """How to score against it."""
        return SemanticOptions(self.classes, None if self.space is None else self.space.background, match, joint)


def open_semantic_truth(
    path: str,
    *,
    layout: str | None = None,
    names: str | None = None,
    segments: str | None = None,
    void: tuple[int, ...] | None = None,
    partial: bool = False,
    failures: Failures | None = None,
) -> SemanticTruth:
    """The ground truth at ``path``: a folder of index maps, as ``layout`` says, or a COCO file, instances or panoptic.

    ``names`` is its label space; a layout has one of its own. A COCO file's categories are found in the space by name or synonym. Those
    that are not there are background, with a warning, where the space has one. Raises UsageError, InputError and MissingInputError for what
    cannot be used.
    """
    space = chosen_space(layout, names)
    if layout is not None or os.path.isdir(path):
        found = open_named_maps(path, layout=layout, space=space, void=void, partial=partial, failures=failures)
        maps, check = _watched(found)
        return SemanticTruth(maps, space, None if space is None else {one.id: one.name for one in space.classes}, check=check)
    if void is not None:
        raise UsageError("--void has no effect with masks, which have no void pixels: it is for a folder of label maps")
    return _of_masks(path, space, segments, failures)


def _of_masks(path: str, space: LabelSpace | None, segments: str | None, failures: Failures | None) -> SemanticTruth:
    truth = open_ground_truth(path, segments=segments, failures=failures)
    listed = _listed(truth)
    if space is None:
        if not listed:
            raise InputError(f"{truth.what} lists no categories: say with --names what its classes are")
        for number in listed:
            if not 0 <= number <= LARGEST_ID:
                raise InputError(f"{truth.what}: category {number}: ids of classes go from 0 to {LARGEST_ID}; --names gives it another")
        maps = painted_truth(truth, {number: number for number in listed}, None)
        return SemanticTruth(maps, None, listed)
    by_word = {comparable(word): one.id for one in space.classes for word in one.words}
    class_of = {number: by_word[comparable(name)] for number, name in listed.items() if comparable(name) in by_word}
    if not listed:  # so its numbers are the space's
        class_of = {one.id: one.id for one in space.classes}
    others = {number: show_path(name) for number, name in listed.items() if number not in class_of}
    warnings: tuple[str, ...] = ()
    if others:
        names = list(others.values())
        text = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        if space.background is None:
            raise InputError(f"{truth.what}: its categories {text} are not in the label space {space.name}, which has no background either")
        warnings = (f"{truth.what}: its categories {text} are not in the label space {space.name} and count as background",)
        class_of |= dict.fromkeys(others, space.background)
    maps = painted_truth(truth, class_of, space.background)
    return SemanticTruth(maps, space, {one.id: one.name for one in space.classes}, warnings)


def _listed(truth: GroundTruth) -> dict[int, str]:
    """The names of a ground truth's categories by id. Raises InputError for one without an id, or an id of two."""
    found: dict[int, str] = {}
    for k, one in enumerate(truth.categories, 1):
        number, name = one.get("id"), one.get("name")
        if type(number) is not int:
            raise InputError(f"{truth.what}: category {k} of its list has no whole number as id")
        if number in found:
            raise InputError(f"{truth.what}: two of its categories have id {number}")
        found[number] = name if isinstance(name, str) else str(number)
    return found


@dataclass(frozen=True, slots=True)
class PredictedMaps:
    """The index ``maps`` of a folder of predictions, and a ``check`` for when they have been scored."""

    maps: Iterator[LabelMap]
    check: Callable[[], None]


def predicted_maps(path: str, truth: SemanticTruth, layout: str | None = None, *, clusters: bool = False) -> PredictedMaps:
    """The index maps of a folder of predictions, numbered as ``layout`` says; ids are the label space's where it is None or "plain".

    Void ids become pixels without a label, which is not suspicious for ``clusters``. Raises as ``open_label_folder``; ``check`` raises
    InputError if they are black-and-white masks, whose white was taken for void.
    """
    chosen = PLAIN if layout is None or layout == PLAIN.name else layout_of(layout, "--pred-layout")
    ignored = PLAIN.void if truth.space is None else truth.space.ignore
    if chosen is PLAIN:
        chosen = replace(PLAIN, void=ignored)
    elif not chosen.binary:
        chosen = chosen.without(ignored)
    maps = open_label_folder(path, chosen, predicted=True)
    census = Census()
    counted = maps if clusters or chosen.name != PLAIN.name or ignored != PLAIN.void else census.counted(maps)

    def check() -> None:
        census.check(maps.what, option="--pred-layout", one_class=False)

    return PredictedMaps((counted.load(k) for k in range(len(counted))), check)


def _watched(found: NamedMaps) -> tuple[LabelTruth, Callable[[], None]]:
    """The maps, and a check to call when they have been scored: it raises InputError if they were probably read with the wrong meaning."""
    if not found.doubtful:
        return found.maps, lambda: None
    census = Census()
    return census.counted(found.maps), lambda: census.check(found.maps.what, binary=found.binary)


def check_same_space(header: MasksHeader, truth: SemanticTruth, what: str) -> None:
    """Raises InputError if the predictions ``what``, whose ``header`` is given, are of other classes than the ground truth.

    An id that both have must have the same name, or a synonym, and a name the same id. Where the header names a label space with
    another hash, both must have the same ids as well: it may differ in templates, say, but not in classes.
    """
    # A results list names no categories; all that ovskit writes says where its images are.
    if truth.classes is None or (header.root is None and list(header.categories) == [ENTITY]):
        return
    space = truth.space
    ours: dict[int, tuple[str, ...]] = {number: (name,) for number, name in truth.classes.items() if name != str(number)}
    if space is not None:
        ours |= {one.id: one.words for one in space.classes}
    advice = (
        "two label spaces are mixed; name the masks by the ground truth's (ovs-label --names), or match clusters with --match hungarian"
    )
    found = contradiction(listed_names(header.categories), ours, "the ground truth's" if space is None else f"{space.name}'s")
    if found is not None:
        raise InputError(f"{what}: {found}: {advice}")
    if header.labels is None or (space is not None and header.labels.get("hash") == space.hash):
        return
    theirs = {one["id"] for one in header.categories if type(one.get("id")) is int}
    if theirs != truth.classes.keys():
        number = min(theirs ^ truth.classes.keys())
        which = f"has a class {number}" if number in theirs else f"has no class {number}"
        name, than = show_path(str(header.labels.get("name"))), "the ground truth" if space is None else space.name
        raise InputError(f"{what}: its label space {name} {which}, unlike {than}: {advice}")
