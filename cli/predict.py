"""``ovs-predict``: masks, and which is part of which, by a segmenter that ``ovs-train`` made; or names on pixels, by a model of words."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from ovskit.cli.command import OvsApp, provenance
from ovskit.cli.expand import Choice
from ovskit.cli.groups import Common, Compute, ImagesIn, PhotographsAt, StreamOut
from ovskit.cli.output import StreamOutput, check_stream
from ovskit.core.predict.job import Predicted, PredictJob
from ovskit.core.predict.methods import PREDICT, method_of
from ovskit.core.runtime.declared import Effect
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.methods import ChosenMethod
from ovskit.core.runtime.settings import Options, option
from ovskit.core.runtime.shared_options import WEIGHTS

if TYPE_CHECKING:
    from ovskit.core.formats.photographs.sources import Source
    from ovskit.core.runtime.failures import Failures

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
        ("your own words on pixels, by CLIP", "ovs-predict --model clip:ViT-B-16/openai --names cat,dog,sky imgs/ > named.json"),
        (
            "PASCAL VOC's, DINO saying what belongs together",
            "ovs-predict --model clip:ViT-B-16/openai --proxy dino-vitb8 --names voc-21 imgs/ > named.json",
        ),
        (
            "within masks that no label ever touched",
            "ovs-extract imgs/ | ovs-cluster | ovs-predict --model clip:ViT-B-16/openai --masks - --names names.txt imgs/ > named.json",
        ),
        (
            "whole images, scored against folders that are named by class",
            "ovs-predict --classify --model clip:ViT-B-16/openai --names names.txt val/ | ovs-eval --metric accuracy --gt val/",
        ),
        ("which threshold for the background is best", "ovs-predict --model run:towers --names voc-21 --sweep maps/ imgs/ -o sweep.json"),
        ("a label map of each photograph", "ovs-predict --model run:towers --names voc-20 --maps maps/ imgs/ -o named.json"),
        (
            "one part of a large set, in a SLURM array",
            "ovs-predict --checkpoint run --shard auto --resume set/*.tar -o part-$SLURM_ARRAY_TASK_ID.json",
        ),
    ],
)


class Network(Options):
    """What predicts: a segmenter that ``ovs-train`` made, whose kind chooses the method, or a model that knows words."""

    SECTION: ClassVar[str] = "Model"

    checkpoint: Path | None = option(
        None, "The folder of a finished run of ovs-train segment or correct, or the folder best in it.", flag=True, metavar="RUN"
    )
    model: str | None = option(
        None, "Or a model that knows words, with --names: clip:ARCH/TAG, or run:DIR, a run of ovs-train pairs.", flag=True, metavar="NAME",
        effect=Effect(lambda g: g["checkpoint"] is None, "has no effect beside --checkpoint, a segmenter's run: give one of the two"),
    )  # fmt: skip
    weights: Path | None = option(
        None, **WEIGHTS, effect=Effect(lambda g: g["checkpoint"] is None, "is about --model, and a checkpoint has its own: leave it out")
    )
    classify: bool = option(
        False,
        "Name whole images instead of pixels: a line for each, for ovs-eval --metric accuracy.",
        flag=True,
    )
    method: str | None = option(
        None, "How patches are named: plain, clear, sclip, naclip, proxy or corr.", flag=True, metavar="NAME", environment="by command",
        shown="proxy with --proxy, corr with --masks, else naclip with clip:, plain with run:",
    )  # fmt: skip


@app.ovs_command()
def predict(
    ctx: typer.Context,
    network: Network,
    source: ImagesIn,
    chosen: Annotated[ChosenMethod, Choice(PREDICT, "segmenter", by=method_of)],
    at: PhotographsAt,
    out: StreamOut,
    compute: Compute,
    common: Common,
) -> None:
    """Write the masks that a trained segmenter sees in every image, with scores and parents; or name pixels with words of your choice.

    With --checkpoint a score is the probability that a mask is an entity times the mean probability of its pixels. Images are resized to
    the size that the segmenter was trained at, their aspect kept. With --model and --names every pixel gets the name that is nearest to
    the patch around it, and a mask of each name that is seen is written; nothing is trained for that.
    """
    check_stream(out)
    _check_stdin(chosen.options, source)
    failures = source.failures()
    images = source.choose(at, failures)

    from ovskit.core.formats.photographs.sources import left_of
    from ovskit.core.hier.coverage_forest import grow_forest
    from ovskit.core.runtime.progress import track

    with ExitStack() as stack:
        job = PredictJob(
            network.checkpoint, failures, grow_forest, compute.device, compute.threads(), at.max_pixels, network.model, network.weights,
            images.exif, stack, track,
        )  # fmt: skip
        predicted = chosen.method.run(job, chosen.options)
        pg = provenance(ctx, predicted.pg, arguments=source.inputs, model=predicted.model, model_sha256=predicted.model_sha256)
        said = {"root": images.root, "pg": pg, "exif": images.exif, "shard": images.shard.stated}
        if predicted.report is not None:
            _write_report(predicted, images.items, out, failures, pg)
            return
        header, writer = _stream_of(predicted, said)
        output = StreamOutput(out, writer, "predicting", failures, images.items)
        if not output.is_there(header):
            output.write(header, lambda done: predicted.records(left_of(images.items, done)))


def _stream_of(predicted: Predicted, said: dict[str, Any]) -> tuple[Any, Any]:
    """The header and the writer of what was predicted."""
    from ovskit.core.formats.streams.image_labels import ImageLabelsHeader, ImageLabelsWriter
    from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter

    if predicted.of_images:
        return ImageLabelsHeader(categories=predicted.categories, labels=predicted.labels, **said), ImageLabelsWriter
    if predicted.labels is None:
        return MasksHeader("masks by ovs-predict", **said), MasksWriter
    return MasksHeader("masks named by ovs-predict", categories=predicted.categories, labels=predicted.labels, **said), MasksWriter


def _write_report(predicted: Predicted, sources: Sequence[Source], out: StreamOut, failures: Failures, pg: Sequence[Any]) -> None:
    """Go through all records, then write what there is to say of them."""
    from ovskit.core.formats import jsonbytes
    from ovskit.core.runtime.output import open_output
    from ovskit.core.runtime.progress import track

    assert predicted.report is not None
    for flag, given in (("--resume", out.resume), ("--skip-existing", out.skip_existing)):
        if given:
            raise UsageError(f"{flag}: a report is written at the end of a run, so there is nothing to go on from: leave it out")
    seen = sum(1 for _ in track(predicted.records(sources), "predicting", total=len(sources)))
    with open_output(out.output) as file:
        file.write(jsonbytes.dumps({**predicted.report(), "pg": [dict(entry) for entry in pg]}) + b"\n")
    failures.report(seen)


def _check_stdin(options: Any, source: ImagesIn) -> None:
    """Raises UsageError where both masks and the list of images are to come from stdin."""
    if getattr(options, "masks", None) == "-" and source.images is None and (not source.inputs or "-" in source.inputs):
        raise UsageError("--masks - reads the masks from stdin, so the images cannot be listed there: name them as arguments")
