"""What is drawn together: one photograph, the masks that each file has of it, and the ground truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ovskit.core.records import Image, MaskSet, UInt8
from ovskit.core.show.agreement import Agreement
from ovskit.core.show.overlay import check_picture
from ovskit.core.show.truth_matches import AnnotatorTruth


@dataclass(frozen=True, slots=True)
class Column:
    """One mask file, or the ground truth: its ``title``, COCO's ``categories`` (``id`` and ``name``), its provenance.

    ``by_category``: masks have the colour of their category, and are painted over each other as ``formats.label_maps`` does it.
    ``is_map``: this is a ground truth of label maps, the last of the columns.
    """

    title: str
    categories: Sequence[Mapping[str, Any]] = ()
    pg: Sequence[Mapping[str, Any]] = ()
    by_category: bool = False
    is_map: bool = False
    all_names: Mapping[int, str] = field(init=False)
    names: Mapping[int, str] = field(init=False)  # of the categories, where they tell masks apart

    def __post_init__(self) -> None:
        names = {c["id"]: c["name"] for c in self.categories if isinstance(c.get("id"), int) and isinstance(c.get("name"), str)}
        object.__setattr__(self, "all_names", names)
        object.__setattr__(self, "names", names if len(names) > 1 else {})


@dataclass(frozen=True, slots=True)
class TruthColumn(Column):
    """The ground truth, and the IoU ``at`` which a mask of it counts as found."""

    at: float = 0.5


@dataclass(frozen=True, slots=True)
class Scene:
    """One image: ``pixels`` (H, W, 3) uint8 RGB, a panel for each mask file, None where the file lacks the image.

    ``truths`` has one entry for each annotator; none where there is no ground truth of the image. A ground truth of label maps is a
    panel instead, the last, and ``agreements`` say how far those before it are the same, None where there is nothing to compare.
    """

    image: Image
    pixels: UInt8
    panels: tuple[MaskSet | None, ...]
    truths: tuple[AnnotatorTruth, ...] = ()
    agreements: tuple[Agreement | None, ...] = ()

    def check(self) -> None:
        """Raises InputError unless the pixels have the size that the image and every mask set say."""
        for masks in (MaskSet(self.image, ()), *filter(None, self.panels), *(truth.masks for truth in self.truths)):
            check_picture(self.pixels, masks)


def found_line(truth: AnnotatorTruth, file: int, at: float) -> str:
    """What a mask file has of the ground truth, in words: ``31 of 45 found at IoU 0.5``."""
    found = truth.found[file]
    return f"{found.hits:,} of {found.total:,} found at IoU {at:g}"


def classes_line(masks: int, classes: int) -> str:
    """What a panel coloured by category shows, in words: ``7 classes``, ``23 masks of 7 classes``."""
    if not masks:
        return "no masks"
    said = f"{classes:,} class{'' if classes == 1 else 'es'}"
    return said if masks == classes else f"{masks:,} masks of {said}"


def right_line(agreement: Agreement) -> str:
    """How much of the ground truth's pixels a panel has right, in words: ``82 % of pixels right``."""
    return f"{percent(agreement.share)} of pixels right"


def percent(share: float) -> str:
    """A share in [0, 1] as the page writes it: ``27 %``, ``0.45 %``, ``< 0.01 %``."""
    value = 100 * share
    if value >= 9.95:
        return f"{math.floor(value + 0.5)} %"
    if value >= 0.995:
        return f"{value:.1f} %"
    if value >= 0.01:
        return f"{value:.2f} %"
    return "< 0.01 %" if value > 0 else "0 %"
