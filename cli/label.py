"""``ovs-label``: categories for masks, by clusters or by names."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from ovskit.cli.command import OvsApp, provenance
from ovskit.cli.expand import Choice
from ovskit.cli.groups import Common, Compute, Faults, PhotographsAt, StreamOut
from ovskit.cli.output import StreamOutput, check_stream
from ovskit.core.label.encoder import Encoder, EncoderOptions
from ovskit.core.label.inputs import sort_inputs
from ovskit.core.label.methods import LABEL, method_of
from ovskit.core.runtime.methods import ChosenMethod
from ovskit.core.runtime.settings import option
from ovskit.core.runtime.shared_options import WEIGHTS

app = OvsApp(
    "ovs-label",
    examples=[
        ("twenty clusters, by the model of the features", "ovs-cluster keys.npz | ovs-label --clusters 20 keys.npz > out.json"),
        ("clusters scored against ground truth", "ovs-label --clusters 9 masks.json | ovs-eval --metric miou --match hungarian --gt maps/"),
        ("keep the clusters", "ovs-label --clusters 20 --save clusters.npz masks.json -o labelled.json"),
        ("and give them to the masks of new images", "ovs-cluster new.npz | ovs-label --from clusters.npz > new.json"),
        ("names of PASCAL VOC", "ovs-label --names voc-20 --model clip:ViT-B-16/openai masks.json -o named.json"),
        ("your own names, the three best of each mask", "ovs-label --names cat,dog,sky --top-k 3 --model clip:ViT-B-16/openai masks.json"),
        ("background where nothing fits", "ovs-label --names voc-21 --min-prob 0.5 --model clip:ViT-B-16/openai masks.json"),
    ],
)  # fmt: skip


class MasksAndFeaturesIn(Faults):
    """Masks files, read as one, and perhaps a feature stream."""

    inputs: tuple[str, ...] = option(
        (),
        "A masks stream or any COCO file; several are joined; - (the default) is stdin. A feature stream (.npz) among them says "
        "which model to use.",
        argument=True, metavar="MASKS.json",
    )  # fmt: skip


class EncoderIn(EncoderOptions):
    """The model that describes masks, and where its weights are."""

    weights: Path | None = option(None, **WEIGHTS)


@app.ovs_command()
def label(
    ctx: typer.Context,
    chosen: Annotated[ChosenMethod, Choice(LABEL, "clusters,centroids,names", by=method_of)],
    encoder: EncoderIn,
    source: MasksAndFeaturesIn,
    at: PhotographsAt,
    out: StreamOut,
    compute: Compute,
    common: Common,
) -> None:
    """Give every mask a category: a cluster of masks that look alike, or a name.

    A mask's box is cut out of its image, and a frozen model makes one vector of it. With --clusters the masks are read twice, and a pipe
    is copied to a temporary file meanwhile. With --names a mask gets the class whose words are nearest, and label_score is the
    probability of this class.
    """
    check_stream(out)

    from ovskit.core.formats.streams.masks import MasksWriter
    from ovskit.core.label.job import LabelJob
    from ovskit.core.runtime.progress import track

    failures = source.failures()
    output = StreamOutput(out, MasksWriter, "labelling", failures)
    with ExitStack() as stack:
        job = LabelJob(
            sort_inputs(source.inputs), stack, failures, Encoder(encoder, encoder.weights, compute.device), compute.threads(),
            at.root, at.exif, at.max_pixels, out.output, track,
            lambda header, spec: provenance(
                ctx, header.pg, arguments=source.inputs, model=spec.model, model_sha256=spec.weights_sha256
            ),
        )  # fmt: skip
        labelled = chosen.method.run(job, chosen.options)
        complete = all(map(os.path.isfile, chosen.options.beside()))
        if not (complete and output.is_there(labelled.header)):
            output.write(labelled.header, labelled.masks())
