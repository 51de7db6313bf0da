"""``--method pamr``: pixel-adaptive mask refinement (Araslanov and Roth, CVPR 2020); see ``refine.pamr``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ovskit.core.refine.job import RefineJob
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.methods import Method
from ovskit.core.runtime.settings import Options, option

if TYPE_CHECKING:
    from ovskit.core.refine.refiner import Refiner

RELATIVES = "SCLIP's and TCL's code"


class PamrOptions(Options):
    """Iterations and dilations are those of SCLIP and TCL, which refine the probabilities of frozen models. Masks are sure of every pixel,
    and one that is smaller than the distances is spread thin and may vanish: give small ones for small masks.

    ``together``: masks that do not overlap, such as the classes of a label map, share out the pixels between them, and each pixel goes to
    the one that is most believed there [choice: auto]. By itself a mask keeps the pixels of which it is believed more than not.
    """

    iterations: int = option(10, "How often beliefs are spread.", low=1, source=RELATIVES)
    dilations: tuple[int, ...] = option((8, 16), "Distances of a pixel's eight neighbours, in pixels.", source=RELATIVES)
    together: Literal["auto", "yes", "no"] = option(
        "auto", "Whether each pixel goes to the mask that is most believed there; auto: where no masks of the image overlap."
    )

    def check(self) -> None:
        """See ``Options``."""
        if not self.dilations or min(self.dilations) < 1 or max(self.dilations) > 1024:
            raise UsageError(f"pamr: dilations={','.join(map(str, self.dilations))}: give whole numbers from 1 to 1024, such as 8,16")


def run(job: RefineJob, options: PamrOptions) -> Refiner:
    """The refiner."""
    from ovskit.core.refine.pamr import pamr_refiner

    return pamr_refiner(options)


METHOD = Method("pamr", "Spread masks over pixels that look alike.", PamrOptions, run)
