"""``ovs-cluster``: regions from features."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ovskit.cli import options as opt
from ovskit.cli.command import OvsApp, log, provenance
from ovskit.cli.existing import is_there
from ovskit.cli.values import parse_counts, parse_fraction, parse_thresholds
from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    from ovskit.core.cluster.crop_features import CropExtractor
    from ovskit.core.formats.streams.features import FeatureHeader
    from ovskit.core.models.backbones.interface import BackboneSpec

app = OvsApp(
    "ovs-cluster",
    examples=[
        ("regions at six granularities", "ovs-extract imgs/ | ovs-cluster --thresholds 0.6..0.1 > masks.json"),
        ("features saved before; the photographs have moved", "ovs-cluster features.npz --root /data/imgs -o masks.json"),
        ("without the closer look at small regions", "ovs-cluster --no-local features.npz -o masks.json"),
        ("at numbers of regions instead of thresholds", "ovs-cluster --counts 400,200,100,50,25,12,6,3 features.npz -o masks.json"),
        ("every distinct region there is", "ovs-cluster --no-local --nms 1 --min-patches 1 features.npz -o masks.json"),
        ("eight clusters of each image's patches (S-Seg)", "ovs-cluster --method kmeans -k 8 features.npz -o masks.json"),
        (
            "27 clusters of all images' patches, kept for others",
            "ovs-cluster --method kmeans -k 27 --scope dataset --save c.npz features.npz",
        ),
        ("foreground of a set of images (LightCluster)", "ovs-extract --cls imgs/ | ovs-cluster --method lightcluster | ovs-refine"),
    ],
)


PAPER_THRESHOLDS = "0.6..0.1"


class Method(StrEnum):
    """How features become regions."""

    sohes = "sohes"
    kmeans = "kmeans"
    lightcluster = "lightcluster"


class Scope(StrEnum):
    """Whose patches are clustered together."""

    image = "image"
    batch = "batch"
    dataset = "dataset"


class Level(StrEnum):
    """What LightCluster writes."""

    final = "final"
    image = "image"
    category = "category"
    dataset = "dataset"


class Score(StrEnum):
    """What a mask's score says."""

    persistence = "persistence"
    cosine = "cosine"


@app.ovs_command()
def cluster(
    ctx: typer.Context,
    inputs: Annotated[list[str] | None, typer.Argument(metavar="FEATURES.npz", help="Feature streams; - (the default) is stdin.")] = None,
    method: Annotated[
        Method,
        typer.Option(
            "--method",
            help="sohes: merge neighbouring patches, SOHES section 3.1. kmeans: clusters of patches. lightcluster: foreground, by two "
            "clusters at three levels.",
        ),
    ] = Method.sohes,
    thresholds: Annotated[
        str | None,
        typer.Option(
            "--thresholds",
            metavar="T",
            show_default="the model's own counts: builtin has some; else 0.6..0.1",
            help="Record a partition as the best similarity falls below each: 0.6..0.1, 0.6..0.1:0.05 or 0.6,0.3.",
        ),
    ] = None,
    counts: Annotated[
        str | None,
        typer.Option("--counts", metavar="N,N,…", help="Record partitions at these region counts instead; crops go by --thresholds."),
    ] = None,
    nms: Annotated[
        float, typer.Option("--nms", min=0.0, max=1.0, metavar="IOU", help="Of two regions above this IoU the smaller goes; 1 keeps all.")
    ] = 0.9,
    min_patches: Annotated[int, typer.Option("--min-patches", min=1, metavar="N", help="Smallest region, in patches.")] = 4,
    connectivity: Annotated[str, typer.Option("--connectivity", metavar="4|8", help="Which patches are neighbours.")] = "4",
    local: Annotated[
        bool | None,
        typer.Option(
            "--local/--no-local",
            show_default="as the model recommends: builtin no, others yes",
            help="Look again at small regions in zoomed crops of the images.",
        ),
    ] = None,
    score: Annotated[
        Score, typer.Option("--score", help="persistence: regions that many partitions show, and large ones, first; or mean cosine.")
    ] = Score.persistence,
    small: Annotated[str, typer.Option("--small", metavar="SHARE", help="Regions below this share of the image are small.")] = "1/1024",
    local_size: Annotated[int, typer.Option("--local-size", min=8, max=4096, metavar="N", help="Crops are resized to N×N.")] = 256,
    min_local: Annotated[
        float,
        typer.Option("--min-local", min=0.0, max=1e6, metavar="N", help="Smallest subregion of a crop, in patches of the whole image."),
    ] = 4.0,
    context: Annotated[
        float, typer.Option("--context", min=1.0, max=100.0, metavar="X", help="Side of a crop, in longer sides of the region's box.")
    ] = 2.0,
    min_crop: Annotated[int, typer.Option("--min-crop", min=1, metavar="N", help="Smallest side of a crop, in resized pixels.")] = 64,
    share: Annotated[
        float, typer.Option("--share", min=0.0, max=1.0, metavar="IOU", help="Regions share a crop if their crops overlap this much.")
    ] = 0.5,
    clusters: Annotated[int, typer.Option("--clusters", "-k", min=1, metavar="K", help="Clusters of k-means; S-Seg has 8.")] = 8,
    scope: Annotated[
        Scope, typer.Option("--scope", help="k-means of each image, of --batch images at a time, or of all: then a cluster is a category.")
    ] = Scope.image,
    batch: Annotated[int, typer.Option("--batch", min=1, metavar="N", help="Images that --scope batch clusters together.")] = 64,
    components: Annotated[bool, typer.Option("--components", help="One mask for each connected piece of a cluster (k-means).")] = False,
    emit: Annotated[
        Level, typer.Option("--emit", help="LightCluster: what all levels agree on, or the foreground of one of them.")
    ] = Level.final,
    soft: Annotated[
        bool, typer.Option("--soft/--no-soft", help="Masks keep what cutting them took away, for ovs-refine --method crf, convcrf.")
    ] = True,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE.npz", help="Keep the centroids (lightcluster; kmeans of --scope dataset).")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE.npz", help="Take these centroids instead of fitting some: one pass is enough.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Of k-means.")] = 0,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=X", help="Another value of kmeans or lightcluster, see the manual; several times."),
    ] = None,
    root: opt.Root = None,
    weights: opt.Weights = None,
    exif: opt.Exif = None,
    max_pixels: opt.MaxPixels = 178_956_970,
    on_error: opt.OnErrorOption = opt.OnError.fail,
    output: opt.Output = "-",
    resume: opt.Resume = False,
    skip_existing: opt.SkipExisting = False,
    device: opt.Device = "auto",
    workers: opt.Workers = None,
    no_pg: opt.NoPg = False,
    config: opt.Config = None,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = 0,
    version: opt.Version = False,
) -> None:
    """Merge patch features into regions and write their masks, one COCO annotation per line.

    Each annotation has a score (see --score), the first threshold (or count) at which the region stands alone, and its
    source: global, or local for those found in a crop.
    """
    levels = parse_thresholds(PAPER_THRESHOLDS if thresholds is None else thresholds)
    numbers = None if counts is None else parse_counts(counts)
    if connectivity not in ("4", "8"):
        raise UsageError(f"--connectivity {connectivity}: choose 4 or 8")
    small_share = parse_fraction(small, "--small")

    from ovskit.core.runtime.output import check_output, open_output, part_path

    check_output(output, binary=False, resume=resume, pg=not no_pg)

    from ovskit.cli.cluster_methods import Found, check_files, check_flags, check_local, find_kmeans, find_light
    from ovskit.core.cluster.merge import is_compiled
    from ovskit.core.cluster.sohes import SohesOptions
    from ovskit.core.cluster.streams import FeatureInputs, cluster_stream
    from ovskit.core.formats.photographs.photographs import settled_exif
    from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
    from ovskit.core.models.backbones.interface import BackboneSpec
    from ovskit.core.runtime.failures import Failures
    from ovskit.core.runtime.progress import track
    from ovskit.core.runtime.workers import default_workers

    check_flags(ctx, method.value)
    check_files(inputs or ["-"], output, save=save, source=source)
    if sys.stderr.isatty() and not is_compiled():
        log.warning("first run: compiling the kernels, which takes some ten seconds once")
    failures = Failures(skip=on_error is opt.OnError.skip)
    threads = workers or default_workers()

    def header_of(features: FeatureHeader) -> MasksHeader:
        spec = BackboneSpec.from_json(features.model)
        pg = provenance(ctx, features.pg, arguments=inputs or [], model=spec.model, model_sha256=spec.weights_sha256)
        where = root if root is not None else features.root
        exif_of_all = settled_exif(exif, features.exif, "the feature stream")
        return MasksHeader("regions by ovs-cluster", root=where, pg=pg, exif=exif_of_all, shard=features.shard)

    skip = skip_existing and (save is None or os.path.isfile(save))
    if skip and all(map(os.path.isfile, inputs or ["-"])):  # a pipe's header cannot be read twice
        with FeatureInputs(inputs or []) as streams:
            if is_there(output, header_of(streams.header), categories=False):
                return
    with ExitStack() as stack:
        if method is Method.sohes:
            options = SohesOptions(
                thresholds=levels,
                counts=numbers,
                nms=nms,
                small=small_share,
                min_patches=min_patches,
                min_local=min_local,
                context=context,
                min_crop=min_crop,
                share=share,
                connectivity=int(connectivity),
                score=score.value,
                soft=soft,
            )
            streams = stack.enter_context(FeatureInputs(inputs or ["-"]))
            spec = BackboneSpec.from_json(streams.header.model)
            if thresholds is None and counts is None and spec.counts is not None:
                options = replace(options, counts=spec.counts)
            look_closer = spec.local if local is None else local
            check_local(ctx, look_closer)
            closer = _closer(streams.header, spec, root, weights, device, local_size, max_pixels) if look_closer else None
            found = Found(
                streams.header,
                lambda done: cluster_stream(
                    streams.records(), options, failures, stride=spec.stride, workers=threads, closer=closer, done=done
                ),
            )
        else:
            find = find_kmeans if method is Method.kmeans else find_light
            found = find(ctx, stack, inputs or ["-"], failures, threads, track)
        header = header_of(found.header)
        if found.categories is not None:
            header = replace(header, categories=found.categories)
        if skip and is_there(output, header):
            return
        done: set[int] = set()
        with open_output(output, resume=resume) as out:
            if resume:
                writer, done = MasksWriter.resume(out, header, str(part_path(output)))
                log.info("resuming: %d images are done", len(done))
            else:
                writer = MasksWriter(out, header)
            finished = len(done)
            for masks in track(found.masks(frozenset(done)), "clustering"):
                writer.write(masks)
                finished += 1
            writer.finish()
    failures.report(finished)


def _closer(
    header: FeatureHeader, spec: BackboneSpec, root: str | None, weights: Path | None, device: str, side: int, max_pixels: int
) -> Callable[[str], CropExtractor]:
    """How to get the features of crops: the stream's own backbone, and the images where the stream or --root says."""
    import torch

    from ovskit.core.cluster.crop_features import CropExtractor
    from ovskit.core.models.registry import reload_backbone
    from ovskit.core.runtime.device import choose_device

    # Images are worked on in parallel; threads inside each of them would only contend, and could round differently.
    torch.set_num_threads(1)
    compute = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(header.dtype, torch.float32)
    backbone = reload_backbone(spec, weights=weights, device=choose_device(device), dtype=compute)
    return lambda stream_root: CropExtractor(
        backbone, stream_root if root is None else root, side=side, max_pixels=max_pixels, exif=header.exif
    )
