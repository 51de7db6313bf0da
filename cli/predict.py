"""``ovs-predict``: masks, and which is part of which, by a segmenter that ``ovs-train`` made."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ovskit.cli import images as img
from ovskit.cli import options as opt
from ovskit.cli.command import OvsApp, log, provenance
from ovskit.cli.existing import is_there
from ovskit.cli.values import parse_numbers
from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    import torch

app = OvsApp(
    "ovs-predict",
    examples=[
        ("masks of every photograph in a folder, as a forest", "ovs-predict --checkpoint run imgs/ > forest.json"),
        ("look at the better ones", "ovs-predict --checkpoint run --min-score 0.3 imgs/ | ovs-show --root imgs -o page.html"),
        ("how good they are", "ovs-predict --checkpoint run --images gt.json --root imgs | ovs-eval --gt gt.json"),
        ("boundaries moved to the image's edges", "ovs-predict --checkpoint run imgs/ | ovs-refine --root imgs > refined.json"),
        ("a closer look as well", "ovs-predict --checkpoint run --scales 1,2 --hier coverage imgs/ -o masks.json"),
        (
            "one part of a large set, in a SLURM array",
            "ovs-predict --checkpoint run --shard auto --resume set/*.tar -o part-$SLURM_ARRAY_TASK_ID.json",
        ),
    ],
)


class Hier(StrEnum):
    """Where parents come from."""

    head = "head"
    coverage = "coverage"
    none = "none"


class Score(StrEnum):
    """What a mask's score is."""

    own = "own"
    pooled = "pooled"


class Precision(StrEnum):
    """What the network computes in."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


@app.ovs_command()
def predict(
    ctx: typer.Context,
    inputs: img.Inputs = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", metavar="RUN", help="The folder of a finished run of ovs-train segment or correct, or best in it."),
    ] = None,
    nul: img.Null = False,
    images: img.Coco = None,
    root: opt.Root = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            min=32,
            metavar="N",
            show_default="as trained",
            help="Longer side of what the network sees, in pixels, to the nearest 32.",
        ),
    ] = None,
    scales: Annotated[
        str, typer.Option("--scales", metavar="X,X…", help="Look at each image at these multiples of --size, and pool the masks.")
    ] = "1",
    queries: Annotated[
        int | None,
        typer.Option(
            "--queries",
            min=1,
            max=10_000,
            metavar="N",
            show_default="as trained",
            help="Begin with about so many masks, of a segmenter whose queries begin at places (kinds, see ovs-train).",
        ),
    ] = None,
    nms: Annotated[
        float | None,
        typer.Option(
            "--nms",
            min=0.0,
            max=1.0,
            metavar="IOU",
            show_default="1 (off); 0.9 with several scales; 0.85 where queries begin at places",
            help="Drop a mask that overlaps a better one by more.",
        ),
    ] = None,
    score: Annotated[
        Score | None,
        typer.Option(
            "--score",
            show_default="pooled where queries begin at places, else own",
            help="own: the query's. pooled: the chance that it or a mask that --nms drops for it is right.",
        ),
    ] = None,
    most: Annotated[int, typer.Option("--max", min=1, metavar="N", help="At most so many masks an image, the best first.")] = 1000,
    min_score: Annotated[
        float,
        typer.Option(
            "--min-score", min=0.0, max=1.0, metavar="X", help="Leave out masks below this score; 0 keeps what ovs-eval can rank."
        ),
    ] = 0.0,
    hier: Annotated[
        Hier | None,
        typer.Option(
            "--hier",
            show_default="head; none with several scales",
            help="Parents by the ancestor head, by coverage as ovs-hier has them, or none.",
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            "--ancestor-threshold", min=0.0, max=1.0, metavar="P", help="The head's probability from which a mask is an ancestor."
        ),
    ] = 0.5,
    batch_size: img.BatchSize = "auto",
    precision: Annotated[Precision, typer.Option("--precision", help="auto: bf16 on a GPU that has it, fp32 elsewhere.")] = Precision.auto,
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
    """Write the masks that a trained segmenter sees in every image, with scores and parents, one COCO annotation per line.

    A score is the probability that a mask is an entity times the mean probability of its pixels. Images are resized to the
    size that the segmenter was trained at, their aspect kept.
    """
    if checkpoint is None:
        raise UsageError("no segmenter: name the folder of a run with --checkpoint RUN")
    factors = parse_numbers(scales, "--scales")
    forest = hier or (Hier.head if len(factors) == 1 else Hier.none)
    batch = img.parse_batch(batch_size)

    from ovskit.core.runtime.failures import Failures
    from ovskit.core.runtime.output import check_output, open_output, part_path
    from ovskit.core.runtime.shard import parse_shard

    part = parse_shard(shard)
    check_output(output, binary=False, resume=resume, pg=not no_pg)
    failures = Failures(skip=on_error is opt.OnError.skip)
    sources = img.find_images(inputs, failures, coco=images, root=root, nul=nul, exif=exif)
    chosen = part.pick(sources.items)
    log.info("%d images, %d in this shard", len(sources.items), len(chosen))

    from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
    from ovskit.core.hier.coverage_forest import grow_forest
    from ovskit.core.models.segmenter.open import input_size, open_segmenter
    from ovskit.core.predict.predictor import PredictOptions, predict_masks
    from ovskit.core.runtime.device import choose_device
    from ovskit.core.runtime.progress import track
    from ovskit.core.runtime.workers import default_workers

    target = choose_device(device)
    loaded = open_segmenter(checkpoint)
    if queries is not None and not loaded.segmenter.config.kinds:
        raise UsageError(
            f"--queries: the {loaded.segmenter.config.queries} queries of {checkpoint} were learned one by one; there are no others"
        )
    places = loaded.segmenter.config.kinds > 0
    suppression = nms if nms is not None else 0.9 if len(factors) > 1 else 0.85 if places else 1.0
    if score is Score.pooled and suppression >= 1:
        raise UsageError("--score pooled: give --nms below 1, or nothing is pooled")
    options = PredictOptions(
        size=size or input_size(loaded),
        scales=factors,
        queries=queries,
        nms=suppression,
        pooled=score is Score.pooled or (score is None and places and suppression < 1),
        max_masks=most,
        min_score=min_score,
        parents=forest is Hier.head,
        threshold=threshold,
        batch_size=batch,
        workers=workers or default_workers(),
        max_pixels=max_pixels,
        precision=_dtype(precision, target),
    )
    pg = provenance(ctx, [], arguments=inputs or [], model=loaded.segmenter.config.backbone, model_sha256=loaded.sha256)
    header = MasksHeader("masks by ovs-predict", root=sources.root, pg=pg, exif=sources.exif, shard=part.stated)
    if skip_existing and is_there(output, header, chosen=chosen, failures=failures):
        return
    with open_output(output, resume=resume) as out:
        done: set[int] = set()
        if resume:
            writer, done = MasksWriter.resume(out, header, str(part_path(output)))
            chosen = img.left_of(chosen, done, str(part_path(output)))
            log.info("resuming: %d images are done, %d to go", len(done), len(chosen))
        else:
            writer = MasksWriter(out, header)
        finished = len(done)
        found = predict_masks(chosen, loaded.segmenter, options, failures, device=target)
        for masks in track(found, "predicting", total=len(chosen)):
            writer.write(grow_forest(masks) if forest is Hier.coverage else masks)
            finished += 1
        writer.finish()
    failures.report(finished)


def _dtype(precision: Precision, device: torch.device) -> torch.dtype:
    import torch

    if precision is Precision.auto:
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if precision is Precision.bf16 else torch.float32
