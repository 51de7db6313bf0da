"""``--method crf``: the fully connected CRF (Krähenbühl and Koltun, NeurIPS 2011) by pydensecrf; see ``refine.crf``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ovskit.core.refine.job import RefineJob
from ovskit.core.refine.methods.mean_field import MeanFieldOptions
from ovskit.core.runtime.methods import Method
from ovskit.core.runtime.settings import option

if TYPE_CHECKING:
    from ovskit.core.refine.refiner import Refiner


class CrfOptions(MeanFieldOptions):
    """``joint``: regions of one level of a partition compete, as told in ``refine.crf``."""

    joint: bool = option(False, "Refine all masks of a partition together, instead of each against its background.", flag=True)


def run(job: RefineJob, options: CrfOptions) -> Refiner:
    """The refiner. Raises UsageError if pydensecrf is not installed."""
    from ovskit.core.refine.crf import crf_refiner

    return crf_refiner(options)


METHOD = Method("crf", "Fully connected CRF (DenseCRF).", CrfOptions, run, needs="pip install 'ovskit[crf]'")
