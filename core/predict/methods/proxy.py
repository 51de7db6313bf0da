"""``ovs-predict --method proxy``: ProxyCLIP (Lan et al., ECCV 2024), another network says what attends to what; ``dense.proxy``."""

from __future__ import annotations

from ovskit.core.predict.dense.proxy_options import ProxyOptions as _ProxyOptions
from ovskit.core.predict.job import Predicted, PredictJob, PredictMethod
from ovskit.core.runtime.settings import option

PAPER = "ProxyCLIP"


class ProxyOptions(_ProxyOptions):
    """The values of the method."""

    beta: float = option(1.2, "How many times the mean similarity a similarity must be to count.", low=0, source=PAPER)
    gamma: float = option(3.0, "Sharpness of the softmax over the others.", above=0, source=PAPER)


def run(job: PredictJob, options: ProxyOptions) -> Predicted:
    """See ``dense.job.name_patches``."""
    from ovskit.core.predict.dense.job import name_patches
    from ovskit.core.predict.dense.proxy import Proxy

    return name_patches(job, options, "proxy", lambda tower: Proxy(tower, options.open_proxy(job), beta=options.beta, gamma=options.gamma))


METHOD = PredictMethod("proxy", "ProxyCLIP: patches attend to those that another network finds alike.", ProxyOptions, run)
