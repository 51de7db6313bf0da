"""``--method sohes``: SOHES' self-exploration (Cao et al., ICLR 2024, section 3.1) over feature streams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ovskit.core.cluster.job import Clustered, ClusterJob
from ovskit.core.runtime import values
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.logs import get_logger
from ovskit.core.runtime.methods import Method, Said
from ovskit.core.runtime.settings import Effect, Options, fields_of, option

if TYPE_CHECKING:
    from ovskit.core.cluster.crop_features import CropExtractor
    from ovskit.core.formats.streams.features import FeatureHeader
    from ovskit.core.models.backbones.interface import BackboneSpec

log = get_logger("cluster")

PAPER = "SOHES section 3.1"
_CROPS = Effect(lambda g: g["local"] is not False, "is about crops of small regions, and --no-local looks at none")


@dataclass(frozen=True, slots=True)
class SohesOptions(Options):
    """Every value of the method; the paper's where it gives one, else a choice.

    ``counts`` is an extension of ours. ``score``, which the paper leaves open, is ``persistence``: the share of the recorded partitions
    that show the region times the square root of its share of the image [choice: AR at 10 masks was below 1 % by the other, about 10 %
    by this]; or ``cosine``, the mean cosine of its patches to its feature. ``soft``: masks say which grid they were cut from, for a CRF
    to start from it.
    """

    thresholds: tuple[float, ...] = option(
        (0.6, 0.5, 0.4, 0.3, 0.2, 0.1),
        "Record a partition as the best similarity falls below each: 0.6..0.1, 0.6..0.1:0.05 or 0.6,0.3.",
        flag=True, metavar="T", parse=values.thresholds, source=PAPER,
        shown="the model's own counts: builtin has some; else 0.6..0.1",
    )  # fmt: skip
    counts: tuple[int, ...] | None = option(
        None, "Record partitions at these region counts instead; crops go by --thresholds.",
        flag=True, metavar="N,N,…", parse=values.counts,
    )  # fmt: skip
    nms: float = option(0.9, "Of two regions above this IoU the smaller goes; 1 keeps all.", flag=True, low=0, high=1, metavar="IOU")
    min_patches: int = option(4, "Smallest region, in patches.", flag=True, low=1)
    connectivity: Literal[4, 8] = option(4, "Which patches are neighbours.", flag=True, source=PAPER)
    local: bool | None = option(
        None, "Look again at small regions in zoomed crops of the images.",
        flag=True, off="--no-local", shown="as the model recommends: builtin no, others yes", source=PAPER,
    )  # fmt: skip
    score: Literal["persistence", "cosine"] = option(
        "persistence", "persistence: regions that many partitions show, and large ones, first; or mean cosine.",
        flag=True, environment="by command",
    )  # fmt: skip
    small: float = option(
        1 / 1024, "Regions below this share of the image are small.",
        flag=True, metavar="SHARE", parse=values.share, shown="1/1024", source=PAPER, effect=_CROPS, rare=True,
    )  # fmt: skip
    local_size: int = option(256, "Crops are resized to N×N.", flag=True, low=8, high=4096, source=PAPER, effect=_CROPS, rare=True)
    min_local: float = option(
        4.0,
        "Smallest subregion of a crop, in patches of the whole image.",
        flag=True,
        low=0,
        high=1e6,
        metavar="N",
        effect=_CROPS,
        rare=True,
    )
    context: float = option(
        2.0,
        "Side of a crop, in longer sides of the region's box.",
        flag=True,
        low=1,
        high=100,
        environment="by command",
        effect=_CROPS,
        rare=True,
    )
    min_crop: int = option(64, "Smallest side of a crop, in resized pixels.", flag=True, low=1, effect=_CROPS, rare=True)
    share: float = option(
        0.5, "Regions share a crop if their crops overlap this much.", flag=True, low=0, high=1, metavar="IOU", effect=_CROPS, rare=True
    )
    soft: bool = option(
        True, "Masks keep what cutting them took away, for ovs-refine --method crf, convcrf.", flag=True, off="--no-soft", shown="soft"
    )
    weights: Path | None = option(
        None,
        "The model's weights: a safetensors file, a torch checkpoint or a TorchScript archive; nothing in it is run. "
        "Otherwise the local cache, then the model hub.",
        flag=True, metavar="FILE", decides=False, effect=_CROPS, rare=True,
    )  # fmt: skip


def run(job: ClusterJob, options: SohesOptions) -> Clustered:
    """Regions of every image. Raises UsageError for options that do not go together, and what opening the streams raises."""
    from ovskit.core.cluster.streams import FeatureInputs, cluster_stream
    from ovskit.core.models.backbones.interface import BackboneSpec

    streams = job.stack.enter_context(FeatureInputs(job.sources))
    spec = BackboneSpec.from_json(streams.header.model)
    if not {"thresholds", "counts"} & job.given.keys() and spec.counts is not None:
        options = replace(options, counts=spec.counts)
    local = spec.local if options.local is None else options.local
    _check_local(job, options, local)
    crops = _crop_features(job, options, streams.header, spec) if local else None
    return Clustered(
        streams.header,
        lambda done: cluster_stream(
            streams.records(), options, job.failures, stride=spec.stride, workers=job.workers, crop_features=crops, done=done
        ),
    )


def _check_local(job: ClusterJob, options: SohesOptions, local: bool) -> None:
    """What is only about crops has no effect without them, which -v tells: the model may have decided so.

    Raises UsageError where --counts stand in the place of --thresholds, which go before them in the environment or on the command line.
    """
    if local:
        return
    given = job.given
    if "counts" in given and "thresholds" in given and given["thresholds"] >= given["counts"]:
        raise UsageError("--counts stand in the place of --thresholds, which without --local say nothing: leave one of them out")
    for one in fields_of(SohesOptions):
        if one.effect is _CROPS and given.get(one.name) is Said.BY_HAND:
            log.info("%s says nothing here: it is about crops of small regions, which need --local", one.flag)


def _crop_features(job: ClusterJob, options: SohesOptions, header: FeatureHeader, spec: BackboneSpec) -> Callable[[str], CropExtractor]:
    """How to get the features of crops: the stream's own backbone, and the images where the stream or ``job`` says."""
    import torch

    from ovskit.core.cluster.crop_features import CropExtractor
    from ovskit.core.models.registry import reload_backbone
    from ovskit.core.runtime.device import choose_device

    # Images are worked on in parallel; threads inside each of them would only contend, and could round differently.
    torch.set_num_threads(1)
    compute = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(header.dtype, torch.float32)
    backbone = reload_backbone(spec, weights=options.weights, device=choose_device(job.device), dtype=compute)
    return lambda root: CropExtractor(
        backbone, root if job.root is None else job.root, side=options.local_size, max_pixels=job.max_pixels, exif=header.exif
    )


METHOD = Method("sohes", "Merge neighbouring patches by similarity, SOHES section 3.1.", SohesOptions, run)
