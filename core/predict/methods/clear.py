"""``ovs-predict --method clear``: ClearCLIP (Lan et al., ECCV 2024): in the last block queries attend to queries, and nothing is added;
see ``dense.clear``.
"""

from __future__ import annotations

from ovskit.core.predict.dense.options import NamingOptions
from ovskit.core.predict.job import Predicted, PredictJob, PredictMethod


class ClearOptions(NamingOptions):
    """The values of the method."""


def run(job: PredictJob, options: ClearOptions) -> Predicted:
    """See ``dense.job.name_patches``."""
    from ovskit.core.predict.dense.clear import Clear
    from ovskit.core.predict.dense.job import name_patches

    return name_patches(job, options, "clear", Clear)


METHOD = PredictMethod("clear", "ClearCLIP: queries attend to queries in the last block, nothing is added.", ClearOptions, run)
