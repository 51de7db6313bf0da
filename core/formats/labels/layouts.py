"""How data sets keep their label maps: in which folder, under which names, and which number stands for which class.

Reading undoes what the field calls "reduce zero" and "train ids": ids come out as those of the label space that a
layout names. Files are looked for below the root that a user gives, which may be the data set's folder or any within it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ovskit.core.runtime.errors import UsageError


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to keep label maps.

    ``folders`` are candidates below a root, of which the first that exists is used; ``suffix`` ends the maps' file names, and the part
    before it is the image's name without extension and without ``image_suffix``. ``void`` are stored ids that no score counts, then
    ``shift`` is added to the others; one below 0 is void as well. ``two_channels``: an id is red + 256 · green. ``space`` is the built-in
    label space of what comes out. ``split`` is a file below the root that lists the images of the usual evaluation. ``binary``: gray of 128
    and more is 1, whatever is darker 0.
    """

    name: str
    folders: tuple[str, ...]
    suffix: str
    space: str | None
    void: tuple[int, ...] = (255,)
    shift: int = 0
    two_channels: bool = False
    image_suffix: str = ""
    split: str | None = None
    binary: bool = False

    def without(self, ids: Iterable[int]) -> Layout:
        """The same with ``ids`` void too, as they are after the shift."""
        return replace(self, void=tuple({*self.void, *(number - self.shift for number in ids if 0 <= number - self.shift < 1 << 16)}))


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("voc", ("SegmentationClass", "."), ".png", "voc-21", split="ImageSets/Segmentation/val.txt"),
        Layout(
            "context-59", ("SegmentationClassContext", "."), ".png", "context-59", shift=-1, split="ImageSets/SegmentationContext/val.txt"
        ),
        Layout("context-60", ("SegmentationClassContext", "."), ".png", "context-60", split="ImageSets/SegmentationContext/val.txt"),
        Layout(
            "coco-object",
            ("annotations/val2017", "stuffthingmaps/val2017", "val2017", "."),
            "_instanceTrainIds.png",
            "coco-object-81",
        ),
        Layout("coco-stuff", ("annotations/val2017", "stuffthingmaps/val2017", "val2017", "."), "_labelTrainIds.png", "coco-stuff-171"),
        Layout("ade", ("annotations/validation", "validation", "."), ".png", "ade-150", shift=-1),
        Layout("cityscapes", ("gtFine/val", "val", "."), "_gtFine_labelTrainIds.png", "cityscapes-19", image_suffix="_leftImg8bit"),
        Layout("imagenet-s", ("validation-segmentation", "."), ".png", "imagenet-s-50", void=(1000,), two_channels=True),
        Layout("camvid", ("testannot", "labels", "."), ".png", "camvid-11", void=(11,)),
        Layout("binary", (".",), "", "binary-2", void=(), binary=True),
    )
}
"""By name. In data sets without an id for the background, such as ADE, 0 is void and classes begin at 1."""


PLAIN = Layout("plain", (".",), "", None)
"""A folder of index maps whose numbers are the ids; 255 is void, as nearly everywhere [choice]."""


def layout_of(name: str, option: str = "--layout") -> Layout:
    """The layout of that name. Raises UsageError, with the valid names, for another."""
    if name not in LAYOUTS:
        raise UsageError(f"{option} {name}: choose {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
