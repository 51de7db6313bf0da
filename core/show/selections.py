"""What ``--view`` picks of one file's masks in a scene: drawn all at once, a pool of several granularities is a mess."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    from ovskit.core.records import MaskSet
    from ovskit.core.show.scene import Column, Scene
    from ovskit.core.show.sheet import SheetColumn


class MaskSelection(Protocol):
    """The masks of one of a scene's panels that are shown."""

    def __call__(self, scene: Scene, panel: int) -> MaskSet: ...


_DEPTHS = {0: "entities", 1: "parts", 2: "subparts"}


def parse_view(text: str, judged: bool, by_category: Sequence[bool]) -> tuple[str, MaskSelection]:
    """A view's name, for the head of its column, and what it picks.

    ``judged``: there are masks to match with. ``by_category`` says of each file whether its masks are coloured so: then auto is all of
    them, since what is painted of all is what a score of classes is made of. Raises UsageError.
    """

    def masks_of(scene: Scene, panel: int) -> MaskSet:
        found = scene.panels[panel]
        assert found is not None  # a panel is drawn only where the file has the image
        return found

    def standing(key: str, value: float) -> MaskSelection:
        def choose(scene: Scene, panel: int) -> MaskSet:
            from ovskit.core.show.views import view_of

            return view_of(masks_of(scene, panel), key, value)

        return choose

    def legible(scene: Scene, panel: int) -> MaskSet:
        from ovskit.core.show.views import legible_view

        return legible_view(masks_of(scene, panel))

    def matched(scene: Scene, panel: int) -> MaskSet:
        from ovskit.core.show.truth_matches import matched_masks

        return matched_masks(masks_of(scene, panel), scene.truths[0].found[panel]) if scene.truths else legible(scene, panel)

    def auto(scene: Scene, panel: int) -> MaskSet:
        return (masks_of if by_category[panel] else matched if judged else legible)(scene, panel)

    if text == "auto":
        return "", auto
    if text == "all":
        return "all", masks_of
    if text == "matched" and not judged:
        raise UsageError("--view matched: there is nothing to match; add --gt GT")
    if text == "matched":
        return "matched", matched
    key, _, number = text.rpartition(":")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if key not in ("", "threshold", "count", "level", "depth") or value != value:
        raise UsageError(f"--view {text}: give auto, all, matched, a threshold such as 0.4, or level:0, depth:1, count:50")
    name = _DEPTHS.get(int(value), f"depth {value:g}") if key == "depth" else f"{key or 'threshold'} {value:g}"
    return name, standing(key or "threshold", value)


def sheet_columns(files: Sequence[Column], views: Sequence[tuple[str, MaskSelection]]) -> list[SheetColumn]:
    """A column for each view of each file, the views of one beside each other; a ground truth of label maps has one."""
    from ovskit.core.show.sheet import SheetColumn

    columns = []
    alone = sum(not file.is_map for file in files) == 1
    for panel, file in enumerate(files):
        if file.is_map:
            views = [parse_view("all", False, ())]
        for name, choose in views:
            picked = partial(choose, panel=panel)
            head = name.capitalize() if alone else f"{file.title}, {name}"
            columns.append(SheetColumn(head if name and not file.is_map else file.title, panel, picked, file))
    return columns
