"""A forest of masks as text that a person can read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from ovskit.core.formats.paths import show_path
from ovskit.core.records import Mask, MaskSet


def draw_forest(masks: MaskSet) -> Iterator[str]:
    """Lines of text, without line ends: one about the image, then one for each mask, under its parent, larger first.

    ``masks`` is a forest, as every reader of masks checks. Shares are of the image's area.
    """
    image = masks.image
    below: dict[int | None, list[Mask]] = defaultdict(list)
    for mask in sorted(masks.masks, key=lambda m: (-m.area, m.id)):
        below[mask.parent_id].append(mask)
    wholes = len(below[None])
    number = len(masks.masks)
    said = f"{number} mask{'' if number == 1 else 's'}, {wholes} whole{'' if wholes == 1 else 's'}" if number else "no masks"
    yield f"{show_path(image.file_name)}  {image.width}×{image.height}  {said}"
    # Not recursive: nothing bounds how deep somebody else's forest is.
    stack = [(mask, "", k == 0) for k, mask in enumerate(reversed(below[None]))]
    while stack:
        mask, before, is_last = stack.pop()
        yield f"{before}{'└─ ' if is_last else '├─ '}{_about(mask, image.width * image.height, len(below[mask.id]))}"
        inner = before + ("   " if is_last else "│  ")
        stack += [(part, inner, k == 0) for k, part in enumerate(reversed(below[mask.id]))]


def _about(mask: Mask, pixels: int, parts: int) -> str:
    x, y, width, height = mask.bbox
    words = [f"{mask.id}", f"{100 * mask.area / pixels:.1f} %", f"{width:g}×{height:g} at {x:g},{y:g}"]
    if mask.score is not None:
        words.append(f"score {mask.score:.2f}")
    if parts:
        words.append(f"{parts} part{'' if parts == 1 else 's'}")
    return "  ".join(words)
