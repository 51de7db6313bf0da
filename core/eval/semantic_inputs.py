"""What semantic scores are made of: a ground truth as label maps, its label space, and predictions that speak of the same classes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ovskit.core.eval.semantic import SemanticOptions
from ovskit.core.formats.ground_truth import open_ground_truth
from ovskit.core.formats.label_layouts import LAYOUTS, PLAIN, Layout
from ovskit.core.formats.label_maps import LabelTruth, open_label_folder, painted_truth
from ovskit.core.formats.labels import LabelClass, LabelSpace, open_label_space
from ovskit.core.records import LabelMap
from ovskit.core.runtime.errors import InputError, UsageError

_NAMED = 8  # names that a message lists


@dataclass(frozen=True, slots=True)
class SemanticTruth:
    """``maps`` to be compared with, the label ``space`` that their ids are of (None if nobody said), the ``classes`` by id (None: those
    that the maps have), and ``warnings`` for a person."""

    maps: LabelTruth
    space: LabelSpace | None
    classes: Mapping[int, str] | None
    warnings: tuple[str, ...] = ()

    def options(self, match: Any, *, joint: bool) -> SemanticOptions:
        """How to score against it."""
        return SemanticOptions(self.classes, None if self.space is None else self.space.background, match, joint)


def open_semantic_truth(
    path: str, *, layout: str | None = None, names: str | None = None, segments: str | None = None, by_stem: bool = False
) -> SemanticTruth:
    """The ground truth at ``path``: a folder of index maps, as ``layout`` says, or a COCO file, instances or panoptic.

    ``names`` is its label space; a layout has one of its own. A COCO file's categories are found in the space by name or synonym. Those
    that are not there are background, with a warning, where the space has one. ``by_stem``: images are found by their name
    without extension. Raises UsageError, InputError and MissingInputError for what cannot be used.
    """
    if layout is not None and layout not in LAYOUTS:
        raise UsageError(f"--layout {layout}: choose {', '.join(LAYOUTS)}")
    chosen = PLAIN if layout is None else LAYOUTS[layout]
    named = names if names is not None else chosen.space
    space = None if named is None else open_label_space(named)
    if os.path.isdir(path):
        if layout is None and space is not None:
            chosen = replace(PLAIN, void=space.ignore)
        classes = None if space is None else {one.id: one.name for one in space.classes}
        return SemanticTruth(open_label_folder(path, chosen), space, classes)
    if layout is not None:
        raise UsageError(f"--layout {layout}: {path} is no folder; a layout says how a folder of label maps is kept")
    return _of_masks(path, space, segments, by_stem=by_stem)


def _of_masks(path: str, space: LabelSpace | None, segments: str | None, *, by_stem: bool) -> SemanticTruth:
    truth = open_ground_truth(path, segments=segments)
    listed = {int(one["id"]): str(one.get("name", one["id"])) for one in truth.categories}
    if space is None:
        if not listed:
            raise InputError(f"{truth.what} lists no categories: say with --names what its classes are")
        maps = painted_truth(truth, {number: number for number in listed}, None, by_stem=by_stem)
        return SemanticTruth(maps, None, listed)
    by_word = {word.casefold(): one.id for one in space.classes for word in one.words}
    class_of = {number: by_word[name.casefold()] for number, name in listed.items() if name.casefold() in by_word}
    others = [name for number, name in listed.items() if number not in class_of]
    warnings: tuple[str, ...] = ()
    if others:
        text = ", ".join(others[:_NAMED]) + (f" and {len(others) - _NAMED} more" if len(others) > _NAMED else "")
        if space.background is None:
            raise InputError(f"{truth.what}: its categories {text} are not in the label space {space.name}, which has no background either")
        warnings = (f"{truth.what}: its categories {text} are not in the label space {space.name} and count as background",)
    maps = painted_truth(truth, class_of, space.background, by_stem=by_stem)
    return SemanticTruth(maps, space, {one.id: one.name for one in space.classes}, warnings)


def predicted_maps(path: str, truth: SemanticTruth) -> Iterator[LabelMap]:
    """The index maps of a folder of predictions; void ids are pixels without a label. Raises as ``open_label_folder``."""
    void = (255,) if truth.space is None else truth.space.ignore
    maps = open_label_folder(path, Layout("predictions", (".",), "", None, void=void))
    return (maps.load(k) for k in range(len(maps)))


def check_same_space(categories: Sequence[Mapping[str, Any]], truth: SemanticTruth, what: str) -> None:
    """Raises InputError if the categories of the predictions ``what`` have ids of the label space under other names."""
    if truth.classes is None:
        return
    words: dict[int, LabelClass] = {} if truth.space is None else {one.id: one for one in truth.space.classes}
    for category in categories:
        number, name = category.get("id"), category.get("name")
        if not isinstance(number, int) or not isinstance(name, str) or number not in truth.classes:
            continue
        known = words[number].words if number in words else (truth.classes[number],)
        if name.casefold() not in (word.casefold() for word in known):
            of = "the ground truth's" if truth.space is None else f"{truth.space.name}'s"
            raise InputError(
                f"{what}: category {number} is {name!r}, but {of} {number} is {truth.classes[number]!r}: two label spaces are mixed; "
                "name the masks with the ground truth's (ovs-label --names), or match clusters with --match hungarian"
            )
