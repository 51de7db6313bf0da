"""``ovs-predict --method plain``: the tower's own patches, as its last block leaves them; see ``dense.plain``."""

from __future__ import annotations

from ovskit.core.predict.dense.options import NamingOptions
from ovskit.core.predict.job import Predicted, PredictJob, PredictMethod


class PlainOptions(NamingOptions):
    """The values of the method."""


def run(job: PredictJob, options: PlainOptions) -> Predicted:
    """See ``dense.job.name_patches``."""
    from ovskit.core.predict.dense.job import name_patches
    from ovskit.core.predict.dense.plain import Plain

    return name_patches(job, options, "plain", Plain)


METHOD = PredictMethod("plain", "its own patches, taken as they are: what there is to improve on.", PlainOptions, run)
