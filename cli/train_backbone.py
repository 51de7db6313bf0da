"""``ovs-train backbone``: the built-in network, from photographs alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ovskit.cli import images as img
from ovskit.cli import options as opt
from ovskit.cli import training as run
from ovskit.cli import training_eval as dev
from ovskit.cli.training_app import app

# A choice: a shorter memory of squared gradients than AdamW's usual one, since runs are short.
BETAS = (0.9, 0.98)
FINAL_SHARE = 0.01

Segments = Annotated[
    Path | None,
    typer.Option(
        "--segments",
        metavar="MASKS.json",
        show_default="Felzenszwalb's",
        help="Learn from the masks of this file: a network's own, or any others of the same IMAGES.",
    ),
]


@app.ovs_command(
    "backbone",
    examples=[
        ("from a folder of photographs, without any labels", "ovs-train backbone imgs/ -o run"),
        (
            "in pieces of ten minutes; 3 is the status of a piece",
            "while ovs-train backbone imgs/ -o run --minutes 10 --resume; [ $? -eq 3 ]; do :; done",
        ),
        (
            "on four GPUs, with the batches of sixteen",
            "torchrun --no-python --nproc-per-node 4 ovs-train backbone imgs/ -o run --accumulate 4",
        ),
        ("a quick look at a setting", "ovs-train backbone imgs/ -o try --steps 2000 --set temperature=0.2 --cache cache"),
        ("with the average recall on photographs with masks, as it learns", "ovs-train backbone imgs/ -o run --eval dev/instances.json"),
        ("further, with other photographs", "ovs-train backbone more/ -o run2 --init run/model.safetensors --lr 2e-4"),
        (
            "the segments that its network finds …",
            "ovs-extract --weights run/model.safetensors --size 512 imgs/ | ovs-cluster --counts 200,100,50,25,12,6 -o own.json",
        ),
        ("… and a second round that learns from them", "ovs-train backbone imgs/ -o run2 --segments own.json"),
    ],
)
def backbone(
    ctx: typer.Context,
    inputs: img.Inputs = None,
    output: run.Run = None,
    steps: run.Steps = 3600,
    minutes: run.Minutes = None,
    resume: run.Resume = False,
    batch: run.Batch = None,
    accumulate: run.Accumulate = 1,
    lr: run.Rate = 2e-3,
    warmup: run.Warmup = 100,
    schedule: run.ScheduleOption = run.Schedule.cosine,
    weight_decay: run.WeightDecay = 0.05,
    clip: run.Clip = 1.0,
    setting: run.Setting = None,
    init: run.Init = None,
    segments: Segments = None,
    cache: run.Cache = None,
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
    """Train the built-in network by segment contrast, from photographs without labels.

    The photographs are cut into segments once, into a cache. RUN then has checkpoint.safetensors, log.jsonl and, at the end,
    model.safetensors. Ctrl-C and SIGTERM leave a checkpoint after the step under way. On a CPU a run that was stopped and
    resumed ends with the same bytes as one that was not.
    """
    from ovskit.core.runtime.failures import Failures

    failures = Failures(skip=on_error is opt.OnError.skip)
    sources = img.find_images(inputs, failures, root=root, exif=exif)
    folder = run.run_folder(output, resume=resume)

    from ovskit.core.runtime.progress import track
    from ovskit.core.train.engine.devices import open_devices
    from ovskit.core.train.recipes.backbone import BackboneRecipe, BackboneSettings, extractor_of, precompute

    settings = BackboneSettings(**run.fields_of(setting, BackboneSettings, batch=batch))
    options = run.train_options(
        ctx, final_share=FINAL_SHARE, betas=BETAS, channels_last=True, eval_every=dev.every(eval_every, checkpoint_every, truth)
    )
    devices = open_devices(device, precision.value, accumulate=accumulate)
    with devices.first_goes_first():
        pool = precompute(
            sources.items,
            settings,
            cache or folder / "cache",
            workers=options.workers,
            failures=failures,
            masks=segments,
            watch=lambda items: track(items, "preparing", total=len(sources.items)),
        )
    judge = None if truth is None else dev.recall_on(truth, eval_root, eval_limit, extractor_of(devices.device), exif)
    recipe = BackboneRecipe(pool, settings, seed=seed, init=init, evaluate=judge)
    run.run_recipe(ctx, recipe, options, folder, devices, resume=resume, arguments=inputs or [])
    failures.report(len(pool))
