"""``--method sohes``: SOHES' self-exploration (Cao et al., ICLR 2024, section 3.1) over feature streams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ovskit.core.cluster.job import Clustered, ClusterJob
from ovskit.core.cluster.options import OF_CROPS, SohesOptions
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.logs import get_logger
from ovskit.core.runtime.methods import GivenBy, Method
from ovskit.core.runtime.settings import fields_of

if TYPE_CHECKING:
    from ovskit.core.cluster.crop_features import CropExtractor
    from ovskit.core.formats.streams.features import FeatureHeader
    from ovskit.core.models.backbones.interface import BackboneSpec

log = get_logger("cluster")


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
    crop_extractor = _crop_extractor(job, options, streams.header, spec) if local else None
    return Clustered(
        streams.header,
        lambda done: cluster_stream(
            streams.records(), options, job.failures, stride=spec.stride, workers=job.workers, crop_extractor=crop_extractor, done=done
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
        raise UsageError("--counts replace --thresholds, which have no effect without --local: leave one of them out")
    for one in fields_of(SohesOptions):
        if one.effect is OF_CROPS and given.get(one.name) is GivenBy.FLAG:
            log.info("%s has no effect here: it is about crops of small regions, which need --local", one.flag)


def _crop_extractor(job: ClusterJob, options: SohesOptions, header: FeatureHeader, spec: BackboneSpec) -> Callable[[str], CropExtractor]:
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


METHOD = Method("sohes", "Merge neighbouring patches in order of similarity (SOHES, section 3.1).", SohesOptions, run)
