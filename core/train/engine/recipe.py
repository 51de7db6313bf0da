"""What a training recipe is: a network, its batches and its losses. The loop, the optimiser and the run folder are shared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn


class Recipe(Protocol):
    """One way to train something, as ``loop.train`` drives it.

    A *step* is one update of the weights, counted from 0. Every step draws ``world`` batches, which are numbered by
    ``rank``: as many as there are processes times the batches that each of them accumulates. A recipe cannot tell the
    two apart, so that four processes give what one process gives with four accumulated batches (but for rounding, and the
    running statistics of batch normalisation, which one process updates four times a step).

    All of it must be a function of the recipe's settings, its seed, the step and the rank, or a resumed run would differ
    from one that was not stopped. Before every call of ``losses`` torch's generators are seeded from the run's seed, the
    step and the rank, so dropout and the like are free to use them; ``batch`` must not, because it runs in another thread.

    A recipe whose loss of one batch depends on the other batches of the step has one more method, ``prepare_step(batches, step)``. It is
    called before the first ``losses`` of a step, without gradients and under autocast, with an iterator over this process's batches in
    the order in which ``losses`` will have them; torch's generators are seeded for each as they will be then. All of them are held on the
    device for that long. What it needs of other processes it asks them for; all processes are there.
    """

    name: str
    """The subcommand of ``ovs-train``, and what a checkpoint says that it is of."""

    modules: nn.ModuleDict
    """All that is optimised; its buffers are saved as well. It is moved to the device before the first batch."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parameters of ``modules`` that learn, each exactly once, as the optimiser's groups.

        A group has ``params``, and may have ``weight_decay`` (default: the run's) and ``lr_scale``, a factor on the run's
        learning rate (default 1). Called once, when the modules are on the device.
        """
        ...

    def batch(self, step: int, rank: int, world: int) -> Any:
        """The batch of a step: tensors on the CPU, alone or nested in dicts, lists and tuples.

        Called in background threads, ahead of need, several at a time if the run has ``workers``. The length of the first
        tensor's first dimension is the number of samples that the log counts.
        """
        ...

    def losses(self, batch: Any, step: int) -> dict[str, Tensor]:
        """Scalars: ``loss`` is minimised, the others are logged. Called under autocast, with the batch on the device.

        The names are the same at every step. Every parameter of the groups takes part in ``loss``.
        """
        ...

    def after_step(self, step: int) -> None:
        """Called once the weights of the step are updated: moving averages, queues."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What must survive beside the modules, by name; always the same names, shapes and dtypes.

        Process 0's is saved, and all of them take it up: a queue must hold the same in each.
        """
        ...

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what ``state`` gave; the tensors are on the CPU, and fit. Called when the modules are on the device."""
        ...

    def metadata(self) -> dict[str, Any]:
        """Settings and data, as JSON. A checkpoint that says otherwise is refused, by the names that differ."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Scores by name, or nothing. Called by one process, in evaluation mode and without gradients.

        Whatever it changes it puts back, also when it is interrupted.
        """
        ...

    def export(self, folder: Path) -> None:
        """Write the finished model into the run's folder, every file whole or not at all. Called by one process.

        Also after a resumed run that had nothing left to do, so it must not matter if it is called twice.
        """
        ...
