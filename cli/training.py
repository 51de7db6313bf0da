"""What the subcommands of ``ovs-train`` share: their options, their images, and the run itself.

======================  ===  =====================================================
``--output``            -o   the folder of the run
``--steps``                  updates of the weights in all
``--minutes``                leave with a checkpoint, exit 3, after so long
``--resume``                 go on from the folder's checkpoint
``--lr, --warmup`` …         the learning rate and its schedule
``--accumulate``             batches to an update
``--precision``              auto, fp32, bf16, fp16
``--checkpoint-every`` …     what to keep, and how often
``--set``                    NAME=X, a setting of what is trained
======================  ===  =====================================================
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ovskit.cli.command import provenance
from ovskit.cli.training_display import Display
from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    from ovskit.core.train.engine.devices import Devices
    from ovskit.core.train.engine.options import TrainOptions
    from ovskit.core.train.engine.recipe import Recipe


class Schedule(StrEnum):
    """How the learning rate goes after its warm-up."""

    cosine = "cosine"
    step = "step"
    constant = "constant"


class Optimizer(StrEnum):
    """What makes the updates."""

    adan = "adan"
    adamw = "adamw"


class Precision(StrEnum):
    """What the network computes in."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


def _above_zero(value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise typer.BadParameter("give a number above 0")
    return value


def _finite(value: float) -> float:
    if not value < float("inf"):
        raise typer.BadParameter("give a number from 0 up")
    return value


Run = Annotated[
    str | None, typer.Option("--output", "-o", metavar="RUN", help="The folder of the run: checkpoint, log and the finished model.")
]
Steps = Annotated[int, typer.Option("--steps", min=1, metavar="N", help="Updates of the weights in all.")]
Minutes = Annotated[
    float | None,
    typer.Option(
        "--minutes", callback=_above_zero, metavar="M", help="End after so long with a checkpoint and exit status 3; --resume goes on."
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint, where there is one.")]
Seed = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Decides the first weights and all that is drawn.")]
Device = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or mps. Several GPUs: start the command with torchrun.")
]
PrecisionOption = Annotated[
    Precision, typer.Option("--precision", help="auto: bf16 on a GPU that has it, fp16 on other CUDA GPUs, fp32 elsewhere.")
]
Batch = Annotated[
    int | None, typer.Option("--batch", min=1, metavar="N", show_default="the recipe's", help="Samples that a process computes at once.")
]
Accumulate = Annotated[int, typer.Option("--accumulate", min=1, metavar="N", help="Batches of each process to one update.")]
Rate = Annotated[float, typer.Option("--lr", callback=_above_zero, metavar="RATE", help="The learning rate at its highest.")]
OptimizerOption = Annotated[Optimizer, typer.Option("--optimizer", help="Adan is SOHES' own.")]
Warmup = Annotated[int, typer.Option("--warmup", min=0, metavar="N", help="Steps over which the learning rate rises from zero.")]
ScheduleOption = Annotated[
    Schedule, typer.Option("--schedule", help="Then: a cosine to zero, a tenth at 90 % and again at 95 % of the steps, or constant.")
]
WeightDecay = Annotated[
    float, typer.Option("--weight-decay", min=0.0, callback=_finite, metavar="X", help="Decoupled weight decay, of matrices and kernels.")
]
Clip = Annotated[
    float, typer.Option("--clip", min=0.0, callback=_finite, metavar="NORM", help="Shorten gradients that are longer; 0 leaves them.")
]
CheckpointEvery = Annotated[int, typer.Option("--checkpoint-every", min=1, metavar="N", help="Steps between checkpoints.")]
LogEvery = Annotated[int, typer.Option("--log-every", min=1, metavar="N", help="Steps between lines of the log.")]
EvalEvery = Annotated[
    int,
    typer.Option(
        "--eval-every", min=0, metavar="N", help="Steps between evaluations, which --eval asks for; 0: as many as --checkpoint-every."
    ),
]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Also log for TensorBoard, which must be installed.")]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the network with torch.compile: minutes once, then faster.")]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache", metavar="DIR", show_default="RUN/cache", help="Keep the prepared images here; runs on the same images share it."
    ),
]
Init = Annotated[
    Path | None,
    typer.Option("--init", metavar="FILE", help="Begin with these weights, a run's model.safetensors, instead of random ones."),
]
Setting = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=X", help="A setting of the recipe, see the manual; may be given several times.")
]


def run_folder(output: str | None, *, resume: bool) -> Path:
    """The folder of the run. Raises UsageError if it is not given, no folder, or holds a run that is not to be resumed."""
    from ovskit.core.train.engine.checkpoint import check_folder

    if output is None or output == "-":
        raise UsageError("a run is a folder: name it with -o RUN")
    folder = Path(output)
    check_folder(folder, resume=resume)
    return folder


def train_options(ctx: typer.Context, **own: Any) -> TrainOptions:
    """What the command's options say of the run, and what it says itself (``own``). Raises UsageError for values that make no sense."""
    from ovskit.core.runtime.workers import default_workers
    from ovskit.core.train.engine.options import TrainOptions

    given = ctx.params
    as_they_are = "steps minutes seed warmup weight_decay accumulate device compile checkpoint_every log_every tensorboard".split()
    options: dict[str, Any] = {name: given[name] for name in as_they_are}
    options |= {name: str(given[name]) for name in ("optimizer", "schedule", "precision") if name in given}
    options |= {"learning_rate": given["lr"], "clip_norm": given["clip"] or None, "workers": given["workers"] or default_workers()}
    return TrainOptions(**options | own)


def fields_of(texts: list[str] | None, *kinds: type, **flags: Any) -> dict[str, Any]:
    """Fields of ``kinds`` from ``--set`` and from flags of their own, which go before; a flag that is None was not given."""
    from ovskit.cli.method_settings import parse_fields

    return parse_fields(texts or [], *kinds) | {name: value for name, value in flags.items() if value is not None}


def run_recipe(
    ctx: typer.Context, recipe: Recipe, options: TrainOptions, folder: Path, devices: Devices, *, resume: bool, arguments: list[str]
) -> None:
    """Train and show it. Raises PartialError if --minutes ended it early, and all that ``train`` raises."""
    from ovskit.core.runtime.failures import PartialError
    from ovskit.core.train.engine.loop import train

    facts: dict[str, Any] = {"arguments": arguments}
    with Display() as display:
        outcome = train(recipe, options, folder, devices=devices, resume=resume, pg=provenance(ctx, [], **facts), watch=display)
    devices.close()
    if not outcome.finished:
        raise PartialError(f"stopped at step {outcome.step} of {options.steps} with a checkpoint; the same command with --resume goes on")
