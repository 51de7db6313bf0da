"""What happens to a mask besides the methods."""

from __future__ import annotations

from typing import ClassVar

from ovskit.core.runtime import values
from ovskit.core.runtime.settings import Options, option


class RefineOptions(Options):
    """``min_component``: components smaller than this share of the image and than an eighth of their mask go, holes as small are filled.

    The default is one patch of a 128 × 128 grid. It and ``fill_holes`` are ours [choice].
    """

    SECTION: ClassVar[str] = "After the methods"

    min_iou: float = option(
        0.5, "Drop a mask whose IoU with what it was is below this.", flag=True, low=0, high=1, metavar="IOU", source="UnSAM's code"
    )
    max_area: float = option(
        0.9, "Drop a mask that covers more of its image than this.", flag=True, low=0, high=1, metavar="SHARE", source="UnSAM's code"
    )
    min_component: float = option(
        1 / 16384, "Remove specks and fill holes below this share of the image; 0 keeps them.",
        flag=True, metavar="SHARE", parse=values.share, shown="1/16384",
    )  # fmt: skip
    fill_holes: bool = option(True, "Fill small holes, or leave them.", flag=True, off="--no-fill-holes", shown="fill", rare=True)
