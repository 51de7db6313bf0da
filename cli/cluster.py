"""``ovs-cluster``: regions from features."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from ovskit.cli.command import OvsApp, log, provenance
from ovskit.cli.expand import Choice
from ovskit.cli.groups import Common, Compute, FeaturesIn, PhotographsAt, StreamOut
from ovskit.cli.output import StreamOutput, check_stream
from ovskit.core.cluster.methods import CLUSTER
from ovskit.core.runtime.methods import ChosenMethod

if TYPE_CHECKING:
    from ovskit.core.formats.streams.features import FeatureHeader
    from ovskit.core.formats.streams.masks import MasksHeader

app = OvsApp(
    "ovs-cluster",
    examples=[
        ("regions at six granularities", "ovs-extract imgs/ | ovs-cluster --thresholds 0.6..0.1 > masks.json"),
        ("features saved before; the photographs have moved", "ovs-cluster features.npz --root /data/imgs -o masks.json"),
        ("without the local step, which clusters small regions again in crops", "ovs-cluster --no-local features.npz -o masks.json"),
        (
            "partitions at numbers of regions instead of thresholds",
            "ovs-cluster --counts 400,200,100,50,25,12,6,3 features.npz -o masks.json",
        ),
        ("every distinct region there is", "ovs-cluster --no-local --nms 1 --min-patches 1 features.npz -o masks.json"),
        ("eight clusters of each image's patches (S-Seg)", "ovs-cluster --method kmeans -k 8 features.npz -o masks.json"),
        (
            "27 clusters of all images' patches, kept for others",
            "ovs-cluster --method kmeans -k 27 --scope dataset --save c.npz features.npz",
        ),
        ("features that another program saved with numpy.savez", "ovs-cluster --root imgs/ dino.npz -o masks.json"),
        ("foreground of a set of images (LightCluster)", "ovs-extract --cls imgs/ | ovs-cluster --method lightcluster | ovs-refine"),
    ],
)


@app.ovs_command()
def cluster(
    ctx: typer.Context,
    chosen: Annotated[ChosenMethod, Choice(CLUSTER, "sohes")],
    source: FeaturesIn,
    at: PhotographsAt,
    out: StreamOut,
    compute: Compute,
    common: Common,
) -> None:
    """Merge patch features into regions and write their masks, one COCO annotation per line.

    Each annotation has a score (see --score), the first threshold (or count) at which the region stands alone, and its
    source: global, or local for those found in a crop.
    """
    check_stream(out)

    from ovskit.core.cluster.job import ClusterJob
    from ovskit.core.cluster.merge import is_compiled
    from ovskit.core.cluster.streams import FeatureInputs
    from ovskit.core.formats.photographs.photographs import settled_exif
    from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
    from ovskit.core.formats.streams.numpy_features import with_arrays
    from ovskit.core.models.backbones.interface import BackboneSpec
    from ovskit.core.runtime.progress import track

    if sys.stderr.isatty() and not is_compiled():
        log.warning("first run: compiling the kernels, which takes some ten seconds once")
    paths, failures = source.inputs or ("-",), source.failures()
    local = bool(getattr(chosen.options, "local", False))
    sources = with_arrays(
        paths, root=at.root, grid=source.grid, exif=at.exif or "apply", local=local, failures=failures, max_pixels=at.max_pixels
    )
    output = StreamOutput(out, MasksWriter, "clustering", failures)

    def header_of(features: FeatureHeader) -> MasksHeader:
        spec = BackboneSpec.from_json(features.model)
        pg = provenance(ctx, features.pg, arguments=source.inputs, model=spec.model, model_sha256=spec.weights_sha256)
        where = at.root if at.root is not None else features.root
        exif = settled_exif(at.exif, features.exif, "the feature stream")
        return MasksHeader("regions by ovs-cluster", root=where, pg=pg, exif=exif, shard=features.shard)

    complete = all(map(os.path.isfile, chosen.options.beside()))
    if complete and all(map(os.path.isfile, paths)):  # a pipe's header cannot be read twice
        with FeatureInputs(sources) as streams:
            if output.is_there(header_of(streams.header), categories=False):
                return
    with ExitStack() as stack:
        job = ClusterJob(
            paths, sources, stack, failures, compute.threads(), compute.device, at.root, at.exif, at.max_pixels, out.output, track,
            lambda header: provenance(ctx, header.pg), chosen.given,
        )  # fmt: skip
        clustered = chosen.method.run(job, chosen.options)
        header = header_of(clustered.header)
        if clustered.categories is not None:
            header = replace(header, categories=clustered.categories)
        if not (complete and output.is_there(header)):
            output.write(header, clustered.masks)
