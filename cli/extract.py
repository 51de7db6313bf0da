"""``ovs-extract``: features of a frozen backbone, as a stream."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ovskit.cli import images as img
from ovskit.cli import options as opt
from ovskit.cli.command import OvsApp, log, provenance
from ovskit.cli.existing import is_there
from ovskit.cli.plain_text import plain
from ovskit.core.runtime.errors import UsageError

app = OvsApp(
    "ovs-extract",
    examples=[
        ("regions of every photograph in a folder", "ovs-extract imgs/ | ovs-cluster > masks.json"),
        ("DINO keys, as SOHES uses them", "ovs-extract --model dino-vitb8 imgs/ -o keys.npz"),
        ("as HASSOD resizes", "ovs-extract --model dino-vitb8 --resample lanczos imgs/ -o keys.npz"),
        ("a list of paths on stdin", "find imgs -name '*.jpg' -print0 | ovs-extract -0 -o features.npz"),
        ("one part of a large set, in a SLURM array", "ovs-extract --shard auto --resume shards/*.tar -o part-$SLURM_ARRAY_TASK_ID.npz"),
        ("one embedding per image", "ovs-extract --model clip:ViT-B-16/openai --pool cls imgs/ -o clip.npz"),
    ],
)


class Facet(StrEnum):
    """What of the attention block a feature is."""

    key = "key"
    query = "query"
    value = "value"
    token = "token"


class Positions(StrEnum):
    """How position embeddings come to another grid of patches than the trained one."""

    official = "official"
    size = "size"


class Resample(StrEnum):
    """By which interpolation photographs are resized."""

    bicubic = "bicubic"
    lanczos = "lanczos"
    bilinear = "bilinear"


class Pool(StrEnum):
    """How an image's features become one embedding."""

    cls = "cls"
    mean = "mean"


class DType(StrEnum):
    """Precision of computing and storing."""

    float16 = "float16"
    float32 = "float32"
    bfloat16 = "bfloat16"


def _list_models(value: bool) -> None:
    if value:
        from ovskit.core.models.names import model_names

        for entry in model_names():
            typer.echo(plain(f"{entry.name:<20} {entry.description}"))
        raise typer.Exit()


@app.ovs_command()
def extract(
    ctx: typer.Context,
    inputs: img.Inputs = None,
    nul: img.Null = False,
    images: img.Coco = None,
    root: opt.Root = None,
    model: Annotated[
        str,
        typer.Option("--model", metavar="NAME", help="builtin, dino-vitb8, dinov2-vitb14, clip:ARCH/TAG, timm:NAME; see --list-models."),
    ] = "builtin",
    list_models: Annotated[
        bool, typer.Option("--list-models", is_eager=True, callback=_list_models, show_default=False, help="List the models and exit.")
    ] = False,
    weights: opt.Weights = None,
    facet: Annotated[Facet, typer.Option("--facet", help="Which output of the attention block; heads concatenated.")] = Facet.key,
    layer: Annotated[int, typer.Option("--layer", metavar="N", help="Transformer block, from 0; negative from the end.")] = -1,
    size: Annotated[
        str, typer.Option("--size", metavar="N|keep", help="Resize to N×N, aspect ignored; keep: own size. Rounded to the patch.")
    ] = "1024",
    resample: Annotated[
        Resample | None,
        typer.Option(
            "--resample",
            show_default="the model's own: builtin bilinear, most others bicubic",
            help="Resize photographs by this interpolation, Pillow's. HASSOD has lanczos.",
        ),
    ] = None,
    positions: Annotated[
        Positions,
        typer.Option(
            "--positions",
            help="Resample position embeddings as the model's authors do, or by size, which differs for DINO and DINOv2 without registers.",
        ),
    ] = Positions.official,
    cls: Annotated[bool, typer.Option("--cls", help="Also write the CLS token of each image.")] = False,
    pool: Annotated[Pool | None, typer.Option("--pool", help="Write one embedding per image instead of patch features.")] = None,
    dtype: Annotated[
        DType, typer.Option("--dtype", help="Compute and store as. On a CPU float16 is computed in float32; bfloat16 is stored as float32.")
    ] = DType.float16,
    batch_size: img.BatchSize = "auto",
    exif: opt.Exif = None,
    max_pixels: opt.MaxPixels = 178_956_970,
    on_error: opt.OnErrorOption = opt.OnError.fail,
    shard: opt.ShardOption = None,
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
    """Write patch features of a frozen backbone for every image, as one .npz stream.

    The stream can be piped into ovs-cluster, or saved and opened with numpy.load. --model builtin needs no download.
    """
    target, batch = _parse_size(size), img.parse_batch(batch_size)
    if pool is not None and cls:
        raise UsageError("--pool writes one embedding per image and --cls adds one to patch features: choose one")

    from ovskit.core.runtime.failures import Failures
    from ovskit.core.runtime.output import check_output, open_output, part_path
    from ovskit.core.runtime.shard import parse_shard

    part = parse_shard(shard)
    check_output(output, binary=True, resume=resume, pg=not no_pg)
    failures = Failures(skip=on_error is opt.OnError.skip)
    sources = img.find_images(inputs, failures, coco=images, root=root, nul=nul, exif=exif)
    chosen = part.pick(sources.items)
    log.info("%d images, %d in this shard", len(sources.items), len(chosen))

    import torch

    from ovskit.core.extract.pipeline import ExtractOptions, extract_features, frame_size
    from ovskit.core.formats.streams.features import FeatureHeader, FeatureWriter
    from ovskit.core.models.registry import load_backbone
    from ovskit.core.records import FeatureMap
    from ovskit.core.runtime.device import choose_device
    from ovskit.core.runtime.progress import track
    from ovskit.core.runtime.workers import default_workers

    backbone = load_backbone(
        model,
        facet=facet.value,
        layer=layer,
        weights=weights,
        device=choose_device(device),
        dtype=getattr(torch, dtype.value),
        positions=positions.value,
        interpolation=None if resample is None else resample.value,
    )
    if (cls or pool is Pool.cls) and not backbone.spec.has_cls:
        raise UsageError(f"--model {model} has no CLS token; leave out --cls, or use --pool mean")
    spec = backbone.spec
    frame = None if target is None else frame_size(target, spec.stride, *target)
    options = ExtractOptions(
        size=frame,
        cls=cls,
        pool=None if pool is None else pool.value,
        storage="float16" if dtype is DType.float16 else "float32",
        batch_size=batch,
        workers=workers or default_workers(),
        max_pixels=max_pixels,
    )
    pg = provenance(ctx, [], arguments=inputs or [], model=spec.model, model_sha256=spec.weights_sha256)
    header = FeatureHeader(spec.to_json(), frame, dtype.value, sources.root, options.pool, pg, exif=sources.exif, shard=part.stated)
    if skip_existing and is_there(output, header, chosen=chosen, failures=failures):
        return
    with open_output(output, resume=resume) as out:
        if resume:
            writer, done = FeatureWriter.resume(out, header, str(part_path(output)))
            chosen = img.left_of(chosen, done, str(part_path(output)))
            log.info("resuming: %d images are done, %d to go", len(done), len(chosen))
        else:
            writer, done = FeatureWriter(out, header), set()
        finished = len(done)
        for record in track(extract_features(chosen, backbone, options, failures), "extracting", total=len(chosen)):
            if isinstance(record, FeatureMap):
                writer.write(record)
                finished += 1
            else:
                writer.write(record)
                finished += len(record.images)
        writer.finish()
    failures.report(finished)


def _parse_size(text: str) -> tuple[int, int] | None:
    if text == "keep":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 16384:
        raise UsageError(f"--size {text}: give a number of pixels from 1 to 16384, or keep")
    return int(text), int(text)
