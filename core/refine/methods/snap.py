"""``--method snap``: edges of superpixels, at several scales. Ours; see ``refine.snap``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ovskit.core.refine.job import RefineJob
from ovskit.core.runtime.declared import text_of
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.methods import Method
from ovskit.core.runtime.settings import Options, option

if TYPE_CHECKING:
    from ovskit.core.refine.refiner import Refiner


class SnapOptions(Options):
    """All are [choice], the best or within the noise of it on forty photographs each of three sets."""

    scales: tuple[float, ...] = option(
        (10, 25, 50, 100, 200, 400),
        "Scales of the maps of superpixels: k of Felzenszwalb and Huttenlocher (IJCV 2004), in levels of 0 to 255.",
    )
    smallest: int = option(20, "Smallest superpixel, in pixels.", low=1)
    band: float = option(
        1.5 / 128, "How far from its boundary a mask can change, in shares of the image's sides; at least a pixel.", low=0, high=1
    )
    threshold: float = option(0.4, "A pixel is in the mask if its superpixels lie in it by more than this, on average.", above=0, below=1)
    most_pixels: int = option(
        1 << 20, "Most pixels of the image that is cut into superpixels; larger images are shrunk to this first.", low=1
    )

    def check(self) -> None:
        """See ``Options``."""
        if not self.scales or not all(0 <= scale < math.inf for scale in self.scales):
            raise UsageError(f"snap: scales {text_of(self.scales) or '(none)'}: give one or more, each 0 or above")


def run(job: RefineJob, options: SnapOptions) -> Refiner:
    """The refiner."""
    from ovskit.core.refine.snap import snap_refiner

    return snap_refiner(options)


METHOD = Method("snap", "Snap boundaries to edges of superpixels, at several scales.", SnapOptions, run)
