"""The options of a run: what does not depend on what is trained."""

from __future__ import annotations

from typing import ClassVar, Literal

from ovskit.core.runtime.declared import Given
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.settings import Options, option
from ovskit.core.runtime.shared_options import WORKERS

BETAS: dict[str, tuple[float, ...]] = {"adamw": (0.9, 0.999), "adan": (0.98, 0.92, 0.99)}
"""The optimizers, and the decay rates of their averages: AdamW's usual ones, Adan's as timm has them [choice]."""


def _checkpoints_evaluate(given: Given) -> bool:
    """Whether the steps between checkpoints are those between evaluations too, whose scores are kept with the model."""
    return "eval" in given and "eval_every" not in given


class TrainOptions(Options):
    """How long, how fast and how carefully to train. Raises UsageError for values that make no sense.

    The optimizers are AdamW (Loshchilov and Hutter, ICLR 2019) and Adan (Xie et al., TPAMI 2024); the learning rate goes as
    ``schedule.rate_share`` says. What has no flag is the recipe's to say: ``betas`` (None: those of BETAS), ``channels_last``, the memory
    layout of the network, and ``stop_after``, a step that ends the run early, as ``minutes`` does.
    """

    SECTION: ClassVar[str] = "Run"

    steps: int = option(1000, "Total optimizer steps.", flag=True, low=1, metavar="N")
    minutes: float | None = option(
        None,
        "Minutes after which the run ends with a checkpoint and exit status 3; --resume goes on.",
        flag=True,
        above=0,
        metavar="M",
        decides=False,
    )
    accumulate: int = option(1, "Batches of each process per optimizer step.", flag=True, low=1, metavar="N")
    optimizer: Literal["adan", "adamw"] = option("adamw", "Optimizer; SOHES uses Adan.", flag=True)
    learning_rate: float = option(1e-3, "Peak learning rate.", flag="--lr", above=0, metavar="RATE")
    warmup: int = option(0, "Steps over which the learning rate rises from zero.", flag=True, low=0, metavar="N")
    schedule: Literal["cosine", "step", "constant"] = option(
        "cosine", "Learning rate after that: a cosine to zero, a tenth at 90 % and again at 95 % of the steps, or constant.", flag=True
    )
    weight_decay: float = option(0.05, "Decoupled weight decay of matrices and kernels.", flag=True, low=0, metavar="X")
    clip_norm: float = option(0.0, "Clip the gradient norm to this; 0 does not clip.", flag="--clip", low=0, metavar="NORM")
    checkpoint_every: int = option(500, "Steps between checkpoints.", flag=True, low=1, metavar="N", decides=_checkpoints_evaluate)
    log_every: int = option(50, "Steps between lines of the log.", flag=True, low=1, metavar="N", decides=False)
    eval_every: int = option(
        0, "Steps between evaluations, which --eval asks for; 0: as many as --checkpoint-every.", flag=True, low=0, metavar="N"
    )
    tensorboard: bool = option(False, "Also log for TensorBoard, which must be installed.", flag=True, decides=False, rare=True)
    compile: bool = option(False, "Compile the network with torch.compile: minutes once, then faster.", flag=True, rare=True)
    seed: int = option(0, "Random seed of the initial weights and of everything that is drawn.", flag=True, low=0, metavar="N")
    device: str = option(
        "auto",
        "Where to compute: auto, cpu, cuda or mps. Several GPUs: start the command with torchrun.",
        flag=True,
        metavar="DEVICE",
        decides=False,
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", "Precision to compute in; auto: bf16 on a GPU that has it, fp16 on other CUDA GPUs, fp32 elsewhere.", flag=True
    )
    workers: int | None = option(None, **WORKERS)

    stop_after: int | None = None
    betas: tuple[float, ...] | None = None
    final_share: float = 0.0
    milestones: tuple[float, ...] = (0.9, 0.95)
    drop: float = 0.1
    epsilon: float = 1e-8
    channels_last: bool = False

    def check(self) -> None:
        """Raises UsageError for what a recipe got wrong."""
        for name in ("stop_after", "epsilon"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"{name} {getattr(self, name)}: give a positive number")
        if not 0 <= self.final_share <= 1:
            raise UsageError(f"final_share {self.final_share}: give a share of the learning rate, from 0 to 1")
        count = len(BETAS[self.optimizer])
        if len(self.decay_rates()) != count or not all(0 <= beta < 1 for beta in self.decay_rates()):
            raise UsageError(f"betas {self.betas}: {self.optimizer} has {count}, from 0 to below 1")

    def threads(self) -> int:
        """The number of threads that make batches."""
        from ovskit.core.runtime.workers import default_workers

        return self.workers or default_workers()

    def decay_rates(self) -> tuple[float, ...]:
        """The optimizer's betas, as many as it has."""
        return BETAS[self.optimizer] if self.betas is None else self.betas
