"""How good a network under training is on photographs with ground truth: its masks, then average recall."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    import torch

    from ovskit.core.models.backbones.interface import Backbone
    from ovskit.core.models.segmenter.network import Segmenter
    from ovskit.core.records import Image, MaskSet, UInt8

Truth = Annotated[
    str | None,
    typer.Option("--eval", metavar="GT.json", help="Every --eval-every steps: average recall on photographs with this ground truth."),
]
Photographs = Annotated[
    str | None, typer.Option("--eval-root", metavar="DIR", show_default="the ground truth's folder", help="Where those photographs are.")
]
Limit = Annotated[int, typer.Option("--eval-limit", min=1, metavar="N", help="Only the first N of them.")]

Network = TypeVar("Network")

_SIZE = 1024  # as ovs-extract


def every(eval_every: int, checkpoint_every: int, truth: str | None) -> int:
    """Steps between evaluations: 0 without a ground truth, by default those between checkpoints. Raises UsageError."""
    if truth is None:
        if eval_every:
            raise UsageError("--eval-every: say what to evaluate on with --eval GT.json")
        return 0
    return eval_every or checkpoint_every


def recall_on(
    truth: str, root: str | None, limit: int, extractor: Callable[[Network], Backbone], exif: str | None = None
) -> Callable[[Network], dict[str, float]]:
    """A function from a network to its AR and AP on the first ``limit`` photographs of a ground truth, in percent.

    Features as by ``ovs-extract`` of what ``extractor`` makes of the network, masks as by ``ovs-cluster``, with the defaults of both and
    without refinement.
    Raises, before anything is trained, MissingInputError or InputError for a ground truth or photographs that cannot be used.
    """
    from ovskit.core.cluster.options import SohesOptions
    from ovskit.core.cluster.sohes import cluster_regions
    from ovskit.core.records import FeatureMap

    judge = _Judge(truth, root, limit, exif)

    def score(network: Network) -> dict[str, float]:
        backbone = extractor(network)
        options = SohesOptions(counts=backbone.spec.counts)

        def masks(image: Image) -> MaskSet:
            pixels = judge.load(image)
            patch = backbone.extract(backbone.prepare(pixels, _SIZE, _SIZE)[None]).patch[0].half().cpu().numpy()
            return cluster_regions(FeatureMap(image, patch), options, frame=(_SIZE, _SIZE), look_closer=None)

        return judge.score(masks(image) for image in judge.images)

    return score


def segmenter_recall_on(
    truth: str, root: str | None, limit: int, device: torch.device, size: int, exif: str | None = None
) -> Callable[[Segmenter], dict[str, float]]:
    """As ``recall_on`` for a segmenter: masks as by ``ovs-predict`` with images of ``size`` pixels."""
    from ovskit.core.predict.predictor import PredictOptions, predict_pixels

    judge = _Judge(truth, root, limit, exif)
    options = PredictOptions(size=size, parents=False)

    def score(segmenter: Segmenter) -> dict[str, float]:
        return judge.score(predict_pixels(image, judge.load(image), segmenter, options, device) for image in judge.images)

    return score


class _Judge:
    """The first photographs of a ground truth, turned as ``exif`` or else the truth says, and the scores of masks on them."""

    def __init__(self, truth: str, root: str | None, limit: int, exif: str | None = None) -> None:
        from pathlib import Path

        from ovskit.core.formats.photographs.photographs import Photographs, check_named, settled_exif
        from ovskit.core.formats.truth.ground_truth import GroundTruth, open_ground_truth
        from ovskit.core.runtime.errors import InputError

        whole = open_ground_truth(truth)
        check_named(whole.named, whole.what)
        self._some = GroundTruth(
            whole.what, whole.images[:limit], whole.load, whole.categories, named=whole.named, exif=whole.exif, searched=whole.searched
        )
        folder = str(Path(truth).parent) if root is None else root
        self._photographs = Photographs(folder, max_pixels=10**9, exif=settled_exif(exif, whole.exif, whole.what))
        self.images = self._some.images
        if all(mask.iscrowd for k in range(len(self.images)) for mask in self._some.load(k).masks):
            raise InputError(f"{whole.what}: its first {len(self.images)} images have no mask but crowds: there is nothing to find in them")
        self.load(self.images[0])

    def load(self, image: Image) -> UInt8:
        """The photograph's pixels."""
        return self._photographs.load(image)

    def score(self, found: Iterable[MaskSet]) -> dict[str, float]:
        """AR at 10 and 1,000 masks and AP, in percent; of LVIS, whose AP without categories means nothing, AR alone."""
        from ovskit.core.eval.evaluation import evaluate
        from ovskit.core.eval.registry import make_metric

        metrics = evaluate(list(found), self._some, make_metric("ar")).metrics()
        names = ("AR@10", "AR@1000", *(["AP"] if self._some.searched is None else []))
        return {name: 100 * value for name in names if (value := metrics[name]) is not None}
