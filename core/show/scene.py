"""What is drawn together: one photograph, the masks that each file has of it, and the ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ovskit.core.records import Image, MaskSet, UInt8
from ovskit.core.show.found import Truth
from ovskit.core.show.overlay import check_picture


@dataclass(frozen=True, slots=True)
class Column:
    """One mask file, or the ground truth: its ``title``, COCO's ``categories`` (``id`` and ``name``), its provenance."""

    title: str
    categories: Sequence[Mapping[str, Any]] = ()
    pg: Sequence[Mapping[str, Any]] = ()
    names: Mapping[int, str] = field(init=False)  # of the categories, where they tell masks apart

    def __post_init__(self) -> None:
        names = {c["id"]: c["name"] for c in self.categories if isinstance(c.get("id"), int) and isinstance(c.get("name"), str)}
        object.__setattr__(self, "names", names if len(names) > 1 else {})


@dataclass(frozen=True, slots=True)
class TruthColumn(Column):
    """The ground truth, and the IoU ``at`` which a mask of it counts as found."""

    at: float = 0.5


@dataclass(frozen=True, slots=True)
class Scene:
    """One image: ``pixels`` (H, W, 3) uint8 RGB, a panel for each mask file, None where the file lacks the image.

    ``truths`` has one entry for each annotator; none where there is no ground truth of the image.
    """

    image: Image
    pixels: UInt8
    panels: tuple[MaskSet | None, ...]
    truths: tuple[Truth, ...] = ()

    def check(self) -> None:
        """Raises InputError unless the pixels have the size that the image and every mask set say."""
        for masks in (MaskSet(self.image, ()), *filter(None, self.panels), *(truth.masks for truth in self.truths)):
            check_picture(self.pixels, masks)


def found_line(truth: Truth, file: int, at: float) -> str:
    """What a mask file has of the ground truth, in words: ``31 of 45 found at IoU 0.5``."""
    found = truth.found[file]
    return f"{found.hits:,} of {found.total:,} found at IoU {at:g}"
