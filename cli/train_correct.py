"""``ovs-train correct``: a segmenter that learns from its own average, SOHES' self-correction."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ovskit.cli import options as opt
from ovskit.cli import training as run
from ovskit.cli import training_eval as dev
from ovskit.cli import training_masks as job
from ovskit.cli.training_app import app
from ovskit.core.runtime.errors import UsageError


class Threshold(StrEnum):
    """Which of the teacher's masks are targets."""

    dynamic = "dynamic"
    fixed = "fixed"


@app.ovs_command(
    "correct",
    examples=[
        ("after ovs-train segment, with its masks and images", "ovs-train correct pseudo.json --images imgs --from run -o run2"),
        (
            "without the threshold that goes by size, to compare",
            "ovs-train correct pseudo.json --images imgs --from run -o run3 --threshold fixed",
        ),
        ("with more images than have masks", "ovs-train correct pseudo.json --images imgs --images more --from run -o run2"),
        ("and what was learned", "ovs-predict --checkpoint run2 imgs/ > forest.json"),
    ],
)
def correct(
    ctx: typer.Context,
    masks: job.Masks = None,
    images: job.ImagesOf = None,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="RUN", help="The finished run of ovs-train segment (or correct) to begin with.")
    ] = None,
    output: run.Run = None,
    threshold: Annotated[
        Threshold | None,
        typer.Option(
            "--threshold", show_default="dynamic", help="The score from which the teacher's mask is a target: by its size, or one for all."
        ),
    ] = None,
    steps: run.Steps = 5000,
    minutes: run.Minutes = None,
    resume: run.Resume = False,
    batch: run.Batch = None,
    accumulate: run.Accumulate = 1,
    optimizer: run.OptimizerOption = run.Optimizer.adan,
    lr: run.Rate = 1e-4,
    warmup: run.Warmup = 100,
    schedule: run.ScheduleOption = run.Schedule.cosine,
    weight_decay: run.WeightDecay = 0.02,
    clip: run.Clip = 1.0,
    setting: run.Setting = None,
    cache: job.Cache = None,
    root: opt.Root = None,
    exif: opt.Exif = None,
    checkpoint_every: run.CheckpointEvery = 500,
    log_every: run.LogEvery = 50,
    eval_every: run.EvalEvery = 0,
    truth: dev.Truth = None,
    eval_root: dev.Photographs = None,
    eval_limit: dev.Limit = 50,
    tensorboard: run.TensorBoard = False,
    compile: run.Compile = False,
    seed: run.Seed = 0,
    device: run.Device = "auto",
    precision: run.PrecisionOption = run.Precision.auto,
    on_error: opt.OnErrorOption = opt.OnError.fail,
    workers: opt.Workers = None,
    no_pg: opt.NoPg = False,
    config: opt.Config = None,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = 0,
    version: opt.Version = False,
) -> None:
    """Train a segmenter further, with a moving average of itself as a second teacher beside the initial masks.

    The teacher labels weak views of all images; what it is sure enough of becomes the target of strong views. The log tells how many
    small, medium and large masks an image it finds. The settings are those of the run to begin with, unless --set says otherwise.
    """
    if source is None:
        raise UsageError("no segmenter to begin with: name the folder of a run with --from RUN")

    from functools import partial

    from ovskit.cli.method_settings import settings_of
    from ovskit.core.models.segmenter.open import open_segmenter
    from ovskit.core.train.recipes.correct import CorrectRecipe, CorrectSettings
    from ovskit.core.train.recipes.segment_settings import SegmentSettings, settings_from

    given = run.fields_of(setting, CorrectSettings, SegmentSettings, threshold=threshold, batch=batch)
    names = set(settings_of(CorrectSettings))
    corrections = CorrectSettings(**{name: value for name, value in given.items() if name in names})
    changes = {name: value for name, value in given.items() if name not in names}
    task = job.MaskJob(ctx)
    loaded = open_segmenter(source)
    settings = settings_from(loaded.training, changes, str(source))
    if not settings.fit(loaded.segmenter):
        raise UsageError(f"--from {source}: its size and backbone stay as they are; leave out the --set that changes them")
    recipe = partial(CorrectRecipe, segmenter=loaded.segmenter.train(), correct=corrections)
    task.train(recipe, settings, {"segmenter": loaded.sha256}, unlabelled=True)
