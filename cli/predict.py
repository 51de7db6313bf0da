"""``ovs-predict``: masks, and which is part of which, by a segmenter that ``ovs-train`` made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import typer

from ovskit.cli.command import OvsApp, provenance
from ovskit.cli.expand import Choice
from ovskit.cli.groups import Common, Compute, ImagesIn, PhotographsAt, StreamOut
from ovskit.cli.output import StreamOutput, check_stream
from ovskit.core.predict.job import PredictJob
from ovskit.core.predict.methods import PREDICT, method_of
from ovskit.core.runtime.methods import ChosenMethod
from ovskit.core.runtime.settings import Options, option

app = OvsApp(
    "ovs-predict",
    examples=[
        ("masks of every photograph in a folder, as a forest", "ovs-predict --checkpoint run imgs/ > forest.json"),
        ("look at the better ones", "ovs-predict --checkpoint run --min-score 0.3 imgs/ | ovs-show --root imgs -o page.html"),
        ("score them against ground truth", "ovs-predict --checkpoint run --images gt.json --root imgs | ovs-eval --gt gt.json"),
        ("boundaries moved to the image's edges", "ovs-predict --checkpoint run imgs/ | ovs-refine --root imgs > refined.json"),
        (
            "at twice the size too, which finds smaller things",
            "ovs-predict --checkpoint run --scales 1,2 --hier coverage imgs/ -o masks.json",
        ),
        (
            "one part of a large set, in a SLURM array",
            "ovs-predict --checkpoint run --shard auto --resume set/*.tar -o part-$SLURM_ARRAY_TASK_ID.json",
        ),
    ],
)


class Trained(Options):
    """The model that ``ovs-train`` made; its kind chooses the method."""

    SECTION: ClassVar[str] = "Model"

    checkpoint: Path | None = option(
        None, "The folder of a finished run of ovs-train segment or correct, or the folder best in it.", flag=True, metavar="RUN"
    )


@app.ovs_command()
def predict(
    ctx: typer.Context,
    trained: Trained,
    source: ImagesIn,
    chosen: Annotated[ChosenMethod, Choice(PREDICT, "segmenter", by=method_of)],
    at: PhotographsAt,
    out: StreamOut,
    compute: Compute,
    common: Common,
) -> None:
    """Write the masks that a trained segmenter sees in every image, with scores and parents, one COCO annotation per line.

    A score is the probability that a mask is an entity times the mean probability of its pixels. Images are resized to the
    size that the segmenter was trained at, their aspect kept.
    """
    check_stream(out)
    failures = source.failures()
    images = source.choose(at, failures)

    from ovskit.core.formats.photographs.sources import left_of
    from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
    from ovskit.core.hier.coverage_forest import grow_forest

    assert trained.checkpoint is not None  # or no method would be chosen
    job = PredictJob(trained.checkpoint, failures, grow_forest, compute.device, compute.threads(), at.max_pixels)
    predicted = chosen.method.run(job, chosen.options)
    pg = provenance(ctx, [], arguments=source.inputs, model=predicted.model, model_sha256=predicted.model_sha256)
    header = MasksHeader("masks by ovs-predict", root=images.root, pg=pg, exif=images.exif, shard=images.shard.stated)
    output = StreamOutput(out, MasksWriter, "predicting", failures, images.items)
    if not output.is_there(header):
        output.write(header, lambda done: predicted.masks(left_of(images.items, done)))
