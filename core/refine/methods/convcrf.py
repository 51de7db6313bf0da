"""``--method convcrf``: what ``crf`` does in a sparse window, after ConvCRF (Teichmann and Cipolla, BMVC 2019); see ``refine.convcrf``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ovskit.core.refine.job import RefineJob
from ovskit.core.refine.methods.mean_field import MeanFieldOptions
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.methods import Method
from ovskit.core.runtime.settings import option, redeclared

if TYPE_CHECKING:
    from ovskit.core.refine.refiner import Refiner


class ConvCrfOptions(MeanFieldOptions):
    """As ``CrfOptions``, but for the window and what goes with it.

    The five other defaults agree with ``crf`` at its own (10, 0.999, 3, 50, 5) better than those same numbers do here: its lattice spreads
    colours, and this window has fewer samples far away [choice, by ``bench/convcrf_fit.py``]. 10 iterations come nearer by 0.007 in IoU,
    and cost twice the time. The outermost ring is at 1.25 ``bilateral_sxy`` [choice].
    """

    iterations: int = redeclared(MeanFieldOptions, "iterations", 5)
    gaussian_compat: float = redeclared(MeanFieldOptions, "gaussian_compat", 5)
    bilateral_sxy: float = redeclared(MeanFieldOptions, "bilateral_sxy", 35)
    bilateral_srgb: float = redeclared(MeanFieldOptions, "bilateral_srgb", 6)
    confidence: float = redeclared(MeanFieldOptions, "confidence", 0.9997)
    rings: int = option(9, "Number of rings of samples around a pixel.", low=1)
    directions: int = option(14, "Number of samples on a ring.", low=4, multiple=2)
    window: int = option(0, "Side of the paper's square window, an odd number of samples, instead of rings; 0: rings.", low=0)
    dilation: int = option(1, "Spacing of the square window's samples, in pixels.", low=1)

    def check(self) -> None:
        """See ``Options``."""
        if self.window and (self.window < 3 or self.window % 2 == 0):
            raise UsageError(f"convcrf: a window of {self.window}: choose an odd one from 3 up, or 0 for rings")


def run(job: RefineJob, options: ConvCrfOptions) -> Refiner:
    """The refiner, on the job's device."""
    from ovskit.core.refine.convcrf import convcrf_refiner
    from ovskit.core.runtime.device import choose_device

    return convcrf_refiner(options, choose_device(job.device))


METHOD = Method("convcrf", "CRF in a sparse window, on the CPU or a GPU.", ConvCrfOptions, run)
