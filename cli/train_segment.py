"""``ovs-train segment``: a segmenter from masks, SOHES' self-instruction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ovskit.cli import options as opt
from ovskit.cli import training as run
from ovskit.cli import training_eval as dev
from ovskit.cli import training_masks as job
from ovskit.cli.training_app import app
from ovskit.core.runtime.errors import UsageError


@app.ovs_command(
    "segment",
    examples=[
        ("masks that nobody drew …", "ovs-extract imgs/ | ovs-cluster | ovs-refine | ovs-hier > pseudo.json"),
        ("… to learn from", "ovs-train segment pseudo.json --images imgs -o run"),
        ("and what was learned", "ovs-predict --checkpoint run imgs/ > forest.json"),
        (
            "SOHES' own size, on eight GPUs",
            "torchrun --no-python --nproc-per-node 8 ovs-train segment pseudo.json --images imgs -o run --batch 16 --lr 8e-4 "
            "--backbone dino-vitb8 --set size=base --set side=1024",
        ),
        (
            "a look at it on a CPU",
            "ovs-train segment pseudo.json --images imgs -o try --set size=tiny --set side=256 --batch 4 --steps 500",
        ),
        (
            "with the average recall on photographs with ground truth",
            "ovs-train segment pseudo.json --images imgs -o run --eval dev/instances.json",
        ),
    ],
)
def segment(
    ctx: typer.Context,
    masks: job.Masks = None,
    images: job.ImagesOf = None,
    output: run.Run = None,
    steps: run.Steps = 40000,
    minutes: run.Minutes = None,
    resume: run.Resume = False,
    backbone: Annotated[
        str | None,
        typer.Option("--backbone", metavar="NAME", show_default="builtin", help="builtin, dino-vitb8, dinov2-vitb14 or timm:NAME."),
    ] = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="The backbone's own weights stay as they are; its adapter learns.")] = False,
    batch: run.Batch = None,
    accumulate: run.Accumulate = 1,
    optimizer: run.OptimizerOption = run.Optimizer.adan,
    lr: run.Rate = 2e-4,
    warmup: run.Warmup = 500,
    schedule: run.ScheduleOption = run.Schedule.cosine,
    weight_decay: run.WeightDecay = 0.02,
    clip: run.Clip = 1.0,
    setting: run.Setting = None,
    weights: opt.Weights = None,
    scratch: Annotated[bool, typer.Option("--scratch", help="Begin with a random backbone instead of its published weights.")] = False,
    init: Annotated[
        Path | None, typer.Option("--init", metavar="RUN", help="Begin with the segmenter of this finished run, its backbone too.")
    ] = None,
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
    """Train a segmenter from masks, which may be pseudo-labels: Mask2Former with SOHES' ancestor head.

    The masks' parents teach the ancestor head; where a file has none, coverage says who is above whom. RUN then has
    checkpoint.safetensors, log.jsonl and, at the end, the segmenter: model.safetensors, config.json, training.json; and in
    RUN/best the one that --eval scored highest. The paper's learning rate is 8e-4 at 128 images to an update.
    """
    if init is not None and (weights is not None or scratch):
        raise UsageError("--init brings a whole segmenter, its backbone too: leave out --weights and --scratch")

    from functools import partial

    from ovskit.core.models.segmenter.open import open_segmenter
    from ovskit.core.models.weights.source import sha256_of
    from ovskit.core.train.recipes.segment import SegmentRecipe, new_segmenter
    from ovskit.core.train.recipes.segment_settings import SegmentSettings

    flags = run.fields_of(setting, SegmentSettings, batch=batch, backbone=backbone, freeze=freeze or None)
    settings = SegmentSettings(**flags)
    task = job.MaskJob(ctx)
    begun: dict[str, Any]
    if init is None:
        segmenter = new_segmenter(settings, weights=weights, pretrained=not scratch, seed=seed)
        begun = {"weights": None if weights is None else sha256_of(weights), "pretrained": not scratch}
    else:
        loaded = open_segmenter(init)
        if not settings.fit(loaded.segmenter):
            raise UsageError(f"--init {init}: a segmenter of another size or backbone; give the settings that it was trained with")
        segmenter, begun = loaded.segmenter.train(), {"segmenter": loaded.sha256}
    task.train(partial(SegmentRecipe, segmenter=segmenter), settings, begun)
