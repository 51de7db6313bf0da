"""The options of methods that ask another network what belongs together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ovskit.core.predict.dense.options import NamingOptions
from ovskit.core.predict.job import PredictJob
from ovskit.core.runtime.settings import option

if TYPE_CHECKING:
    from ovskit.core.models.backbones.interface import Backbone


class ProxyOptions(NamingOptions):
    """The other network, and where its weights are."""

    proxy: str = option(
        "dino-vitb8", "The network that says what belongs together: dino-vitb8, dinov2-vitb14, builtin …", flag=True, metavar="NAME"
    )
    proxy_weights: Path | None = option(None, "Its weights, as for --weights.", flag=True, metavar="FILE")

    def open_proxy(self, job: PredictJob) -> Backbone:
        """The other network, for the tokens of its last layer. Raises what ``load_backbone`` raises."""
        from ovskit.core.models.registry import load_backbone
        from ovskit.core.predict.dense.job import dtype_of
        from ovskit.core.runtime.device import choose_device

        device = choose_device(job.device)
        return load_backbone(self.proxy, facet="token", weights=self.proxy_weights, device=device, dtype=dtype_of(self.precision, device))
