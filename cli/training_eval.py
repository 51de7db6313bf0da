"""How good a network under training is on photographs with ground truth: the whole pipeline up to ``ovs-cluster``, then average recall."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch

    from ovskit.core.models.builtin.network import GroupingNetwork

Truth = Annotated[
    str | None,
    typer.Option("--eval", metavar="GT.json", help="Every --eval-every steps: average recall on photographs with this ground truth."),
]
Photographs = Annotated[
    str | None, typer.Option("--eval-root", metavar="DIR", show_default="the ground truth's folder", help="Where those photographs are.")
]
Limit = Annotated[int, typer.Option("--eval-limit", min=1, metavar="N", help="Only the first N of them.")]

_SIZE = 1024  # as ovs-extract


def recall_on(truth: str, root: str | None, limit: int, device: torch.device) -> Callable[[GroupingNetwork], dict[str, float]]:
    """A function from a network to its AR and AP on the first ``limit`` photographs of a ground truth, in percent.

    Features as by ``ovs-extract --model builtin``, masks as by ``ovs-cluster``, with the defaults of both and without refinement.
    Raises, before anything is trained, MissingInputError or InputError for a ground truth or photographs that cannot be used.
    """
    from pathlib import Path

    from ovskit.core.cluster.sohes import SohesOptions, cluster_regions
    from ovskit.core.eval.evaluation import EvalOptions, evaluate
    from ovskit.core.formats.ground_truth import GroundTruth, open_ground_truth
    from ovskit.core.formats.photographs import load_photograph
    from ovskit.core.models.builtin.extractor import BuiltinBackbone
    from ovskit.core.records import FeatureMap, Image, MaskSet

    whole = open_ground_truth(truth)
    some = GroundTruth(whole.what, whole.images[:limit], whole.load, whole.categories)
    folder = str(Path(truth).parent) if root is None else root
    load_photograph(some.images[0], folder, max_pixels=10**9)

    def score(network: GroupingNetwork) -> dict[str, float]:
        backbone = BuiltinBackbone("builtin", copy.deepcopy(network), "", device)
        options = SohesOptions(counts=backbone.spec.counts)

        def masks(image: Image) -> MaskSet:
            pixels = load_photograph(image, folder, max_pixels=10**9)
            patch = backbone.extract(backbone.prepare(pixels, _SIZE, _SIZE)[None]).patch[0].half().cpu().numpy()
            return cluster_regions(FeatureMap(image, patch), options, frame=(_SIZE, _SIZE), look_closer=None)

        found = evaluate([masks(image) for image in some.images], some, EvalOptions(metric="ar")).metrics()
        return {name: 100 * value for name in ("AR@10", "AR@1000", "AP") if (value := found[name]) is not None}

    return score
