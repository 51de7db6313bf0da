"""``ovs-predict --method corr``: CorrCLIP (Zhang et al., ICCV 2025), with regions from any masks file; see ``dense.corr``."""

from __future__ import annotations

from ovskit.core.predict.dense.proxy_options import ProxyOptions
from ovskit.core.predict.job import Predicted, PredictJob, PredictMethod
from ovskit.core.runtime.settings import option

PAPER = "CorrCLIP"


class CorrOptions(ProxyOptions):
    """The values of the method."""

    sharpness: float = option(4.0, "What similarities are multiplied with before the softmax.", above=0, source=PAPER)
    alpha: float = option(1.0, "Weight of the branch of earlier blocks; 0 leaves it out.", low=0, source=PAPER)
    beta: float = option(0.5, "Weight of the branch with a class token for each region; 0 leaves it out.", low=0, source=PAPER)
    eps: float = option(0.2, "Regions are merged whose similarity is at most this much below the largest.", low=0, source=PAPER)


def run(job: PredictJob, options: CorrOptions) -> Predicted:
    """See ``dense.job.name_patches``."""
    from ovskit.core.predict.dense.corr import Corr
    from ovskit.core.predict.dense.job import name_patches

    numbers = {"scale": options.sharpness, "alpha": options.alpha, "beta": options.beta, "eps": options.eps}
    return name_patches(job, options, "corr", lambda tower: Corr(tower, options.open_proxy(job), **numbers))


METHOD = PredictMethod(
    "corr", "CorrCLIP: patches attend within their mask and those like it, as another network finds them alike.", CorrOptions, run
)
