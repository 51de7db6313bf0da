"""Which device to compute on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.logs import get_logger

if TYPE_CHECKING:
    import torch

log = get_logger("device")


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` takes CUDA, then Apple's MPS, then the CPU, and logs it; ``cpu``, ``cuda``, ``cuda:N``, ``mps`` are taken at their word.

    Raises UsageError for a device that is unknown or not there: an explicit choice is never quietly replaced.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            device = torch.device("cuda")
        elif torch.backends.mps.is_available():
            device = torch.device("mps")
        else:
            device = torch.device("cpu")
        log.info("device: %s", device)
        return device
    if not re.fullmatch(r"cpu|cuda(:\d+)?|mps", name):
        raise UsageError(f"--device {name}: choose auto, cpu, cuda, cuda:N or mps")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if count == 0:
            raise UsageError(f"--device {name}: torch {torch.__version__} sees no CUDA device; use --device cpu or auto")
        if (device.index or 0) >= count:
            raise UsageError(f"--device {name}: there are {count} CUDA devices, cuda:0 to cuda:{count - 1}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: not available here; use --device cpu or auto")
    return device
