"""``ovs-train dino``: a vision transformer, from photographs alone."""

from __future__ import annotations

import typer

from ovskit.cli import images as img
from ovskit.cli import options as opt
from ovskit.cli import training as run
from ovskit.cli.training_app import app

FINAL_SHARE = 0.002  # from 5e-4 to 1e-6, as in the paper


@app.ovs_command(
    "dino",
    examples=[
        ("from a folder of photographs, without any labels", "ovs-train dino imgs/ -o run"),
        (
            "features of the model that it makes",
            "ovs-extract --model timm:vit_tiny_patch16_224 --weights run/model.safetensors --cls imgs/",
        ),
        (
            "on a CPU, with smaller views",
            "ovs-train dino imgs/ -o run --batch 32 --set global_crop=128 --set local_crop=64 --set local_crops=4",
        ),
        (
            "a larger network, on a GPU",
            "ovs-train dino imgs/ -o run --set arch=vit_small_patch16_224 --set prototypes=16384 --steps 100000",
        ),
    ],
)
def dino(
    ctx: typer.Context,
    inputs: img.Inputs = None,
    output: run.Run = None,
    steps: run.Steps = 10000,
    minutes: run.Minutes = None,
    resume: run.Resume = False,
    batch: run.Batch = None,
    accumulate: run.Accumulate = 1,
    lr: run.Rate = 5e-4,
    warmup: run.Warmup = 1000,
    schedule: run.ScheduleOption = run.Schedule.cosine,
    weight_decay: run.WeightDecay = 0.04,
    clip: run.Clip = 3.0,
    setting: run.Setting = None,
    cache: run.Cache = None,
    root: opt.Root = None,
    exif: opt.Exif = None,
    checkpoint_every: run.CheckpointEvery = 500,
    log_every: run.LogEvery = 50,
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
    """Train a vision transformer by self-distillation (DINO), from photographs without labels.

    RUN then has checkpoint.safetensors, log.jsonl and, at the end, model.safetensors: the teacher, as weights of the timm
    model that is trained, for ovs-extract --model timm:NAME --weights. The log's divergence is that of student and
    teacher; if it stays at zero, the two have collapsed. The paper's learning rate is 5e-4 per 256 photographs to an update.
    Ctrl-C and SIGTERM leave a checkpoint after the step under way. On a CPU a run that was stopped and resumed ends with the
    same bytes as one that was not.
    """
    from ovskit.core.runtime.failures import Failures

    failures = Failures(skip=on_error is opt.OnError.skip)
    sources = img.find_images(inputs, failures, root=root, exif=exif)
    folder = run.run_folder(output, resume=resume)

    from ovskit.core.runtime.progress import track
    from ovskit.core.train.engine.devices import open_devices
    from ovskit.core.train.recipes.dino import DinoRecipe, DinoSettings, precompute

    settings = DinoSettings(**run.fields_of(setting, DinoSettings, batch=batch))
    options = run.train_options(ctx, final_share=FINAL_SHARE)
    devices = open_devices(device, precision.value, accumulate=accumulate)
    with devices.first_goes_first():
        pool = precompute(
            sources.items,
            settings,
            cache or folder / "cache",
            workers=options.workers,
            failures=failures,
            watch=lambda items: track(items, "preparing", total=len(sources.items)),
        )
    recipe = DinoRecipe(pool, settings, steps=steps, seed=seed)
    run.run_recipe(ctx, recipe, options, folder, devices, resume=resume, arguments=inputs or [])
    failures.report(len(pool))
