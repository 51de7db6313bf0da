"""``--method cascadepsp``: CascadePSP (Cheng et al., CVPR 2020), a network trained on labelled masks; see ``refine.cascadepsp``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ovskit.core.refine.job import RefineJob
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.methods import Method
from ovskit.core.runtime.settings import Options, option

if TYPE_CHECKING:
    from ovskit.core.refine.refiner import Refiner

# Below this the package's local step has no stride.
LEAST_SIDE = 66


class CascadeOptions(Options):
    """A crop whose longer side is not within ``smallest`` to ``largest`` is resized for the network to the nearer of the two. At 900 it
    needs about 4 GB."""

    weights: Path | None = option(
        None,
        "The network's weights: a safetensors file or a torch checkpoint; no code in it is run. "
        "Otherwise its authors' own, downloaded once.",
        flag=True, metavar="FILE", decides=False,
    )  # fmt: skip
    smallest: int = option(100, "Smallest longer side of a crop as the network sees it, in pixels.", low=LEAST_SIDE, source="UnSAM's code")
    largest: int = option(900, "Largest longer side of a crop as the network sees it, in pixels.", low=LEAST_SIDE, source="UnSAM's code")
    fast: bool = option(
        True, "Take the global step only; false adds the paper's local step (section 3.3).", shown="true", source="UnSAM's code"
    )

    def check(self) -> None:
        """See ``Options``."""
        if self.smallest > self.largest:
            raise UsageError(f"sides from {self.smallest} to {self.largest}: choose {LEAST_SIDE} <= smallest <= largest")


def run(job: RefineJob, options: CascadeOptions) -> Refiner:
    """The refiner, its network loaded. Raises what ``refine.cascadepsp.cascadepsp_refiner`` does."""
    from ovskit.core.refine.cascadepsp import cascadepsp_refiner

    return cascadepsp_refiner(options, job.device)


METHOD = Method(
    "cascadepsp", "CascadePSP, a refinement network.", CascadeOptions, run, needs="pip install 'ovskit[cascadepsp]'", supervised=True
)
