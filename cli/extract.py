"""``ovs-extract``: features of a frozen backbone, as a stream."""

from __future__ import annotations

import typer

from ovskit.cli.command import OvsApp, provenance
from ovskit.cli.groups import Common, Compute, ImagesIn, PhotographsAt, StreamOut, Weights
from ovskit.cli.output import StreamOutput, check_stream
from ovskit.cli.plain_text import plain
from ovskit.core.extract.options import ExtractOptions
from ovskit.core.runtime.settings import option

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


def _list_models(value: bool) -> None:
    if value:
        from ovskit.core.models.families import model_names

        for entry in model_names():
            typer.echo(plain(f"{entry.name:<20} {entry.description}"))
        raise typer.Exit()


class ModelFiles(Weights):
    """Where the model's weights are, and which models there are."""

    list_models: bool = option(False, "List the models and exit.", flag=True, decides=False, environment="never", now=_list_models)


@app.ovs_command()
def extract(
    ctx: typer.Context,
    source: ImagesIn,
    options: ExtractOptions,
    model: ModelFiles,
    at: PhotographsAt,
    out: StreamOut,
    compute: Compute,
    common: Common,
) -> None:
    """Write patch features of a frozen backbone for every image, as one .npz stream.

    The stream can be piped into ovs-cluster, or saved and opened with numpy.load. --model builtin needs no download.
    """
    check_stream(out, binary=True)
    failures = source.failures()
    images = source.choose(at, failures)

    from ovskit.core.extract.pipeline import extract_features, frame_size, open_backbone
    from ovskit.core.formats.photographs.sources import left_of
    from ovskit.core.formats.streams.features import FeatureHeader, FeatureWriter

    backbone = open_backbone(options, weights=model.weights, device=compute.device)
    spec = backbone.spec
    header = FeatureHeader(
        spec.to_json(),
        None if options.size is None else frame_size(options.size, spec.stride, *options.size),
        options.dtype,
        images.root,
        options.pool,
        provenance(ctx, [], arguments=source.inputs, model=spec.model, model_sha256=spec.weights_sha256),
        exif=images.exif,
        shard=images.shard.stated,
    )
    output = StreamOutput(out, FeatureWriter, "extracting", failures, images.items)
    if output.is_there(header):
        return
    workers, most = compute.threads(), at.max_pixels
    output.write(
        header,
        lambda done: extract_features(left_of(images.items, done), backbone, options, failures, workers=workers, max_pixels=most),
    )
