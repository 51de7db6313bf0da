"""``ovs-predict --method sclip``: SCLIP (Wang et al., ECCV 2024): in the last block queries attend to queries and keys to keys;
see ``dense.sclip``.
"""

from __future__ import annotations

from ovskit.core.predict.dense.options import NamingOptions
from ovskit.core.predict.job import Predicted, PredictJob, PredictMethod


class SclipOptions(NamingOptions):
    """The values of the method."""


def run(job: PredictJob, options: SclipOptions) -> Predicted:
    """See ``dense.job.name_patches``."""
    from ovskit.core.predict.dense.job import name_patches
    from ovskit.core.predict.dense.sclip import Sclip

    return name_patches(job, options, "sclip", Sclip)


METHOD = PredictMethod("sclip", "SCLIP: queries attend to queries and keys to keys in the last block.", SclipOptions, run)
