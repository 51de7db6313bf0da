"""``ovs-predict --method naclip``: NACLIP (Hajimiri et al., WACV 2025): in the last block keys attend to near keys, and nothing is added;
see ``dense.naclip``.
"""

from __future__ import annotations

from ovskit.core.predict.dense.options import NamingOptions
from ovskit.core.predict.job import Predicted, PredictJob, PredictMethod
from ovskit.core.runtime.settings import option


class NaclipOptions(NamingOptions):
    """The values of the method."""

    sigma: float = option(5.0, "Standard deviation of the window that favours near patches, in patches.", above=0, source="NACLIP")


def run(job: PredictJob, options: NaclipOptions) -> Predicted:
    """See ``dense.job.name_patches``."""
    from ovskit.core.predict.dense.job import name_patches
    from ovskit.core.predict.dense.naclip import Naclip

    return name_patches(job, options, "naclip", lambda tower: Naclip(tower, sigma=options.sigma))


METHOD = PredictMethod("naclip", "NACLIP: keys attend to keys near them in the last block, nothing is added.", NaclipOptions, run)
