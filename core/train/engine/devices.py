"""Where a run computes and with how many processes: device, precision and distribution, through accelerate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs

from ovskit.core.runtime.device import choose_device
from ovskit.core.runtime.errors import UsageError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")

# One process prepares data while the others wait for it, which may take hours; torch's own limit is ten minutes.
_PATIENCE = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Devices:
    """The processes of a run as this one sees them; ``precision`` is fp32, bf16 or fp16."""

    accelerator: Accelerator
    precision: str

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def rank(self) -> int:
        """Which process this is, from 0."""
        return self.accelerator.process_index

    @property
    def world(self) -> int:
        """How many processes there are."""
        return self.accelerator.num_processes

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and logs."""
        return self.rank == 0

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """The body is run by process 0, and only then by the others, which find what it left on disk."""
        with self.accelerator.main_process_first():
            yield

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is set in any process; all of them must ask."""
        return flag if self.world == 1 else bool(self.maximum(int(flag)))

    def maximum(self, value: int) -> int:
        """The largest ``value`` of all processes; all of them must ask."""
        if self.world == 1:
            return value
        tensor = torch.tensor([value], device=self.device)
        torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MAX)
        return int(tensor.item())

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean of ``values`` over all processes; all of them must ask."""
        reduced: Any = self.accelerator.reduce(values, "mean") if self.world > 1 else values
        return reduced

    def wait(self) -> None:
        """Until every process is here."""
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Leave the other processes, at the end of a command."""
        self.accelerator.end_training()


def open_devices(device: str = "auto", precision: str = "auto", *, accumulate: int = 1) -> Devices:
    """Join the processes that torchrun or SLURM's launcher started (otherwise: be the only one) and settle the precision.

    ``device`` is auto, cpu, cuda or mps; which of several GPUs is the launcher's choice, or CUDA_VISIBLE_DEVICES'.
    ``precision`` auto is bf16 on a GPU that has it, fp16 on other CUDA GPUs, and fp32 elsewhere. Raises UsageError for a
    device that is not there or a precision that it does not have.
    """
    chosen = choose_device(device)
    if chosen.index is not None:
        raise UsageError(f"--device {device}: training takes cuda; choose the GPU with CUDA_VISIBLE_DEVICES={chosen.index}")
    settled = _settle(precision, chosen)
    if chosen.type == "cuda":
        torch.backends.cudnn.benchmark = True  # batches are all of one size, so the fastest convolution is sought once
    # accelerate keeps one state a process, with the precision of the first run; the group of processes may stay.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    GradientState._reset_state()
    accelerator = Accelerator(
        cpu=chosen.type == "cpu",
        mixed_precision={"fp32": "no"}.get(settled, settled),
        # Given as an object, since a bare number would be overridden by a variable in the environment.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=accumulate, sync_with_dataloader=False),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
    )
    return Devices(accelerator, settled)


def _settle(precision: str, device: torch.device) -> str:
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: choose {', '.join(PRECISIONS)}")
    if precision == "auto":
        if device.type != "cuda":
            return "fp32"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("--precision fp16: a CPU trains in fp32 or bf16")
    return precision
