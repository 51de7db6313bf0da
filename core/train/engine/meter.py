"""Means of losses between two lines of the log, and whether all of them were numbers, without waiting for the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ovskit.core.runtime.errors import InputError
from ovskit.core.train.engine.devices import Devices


class DivergedError(InputError):
    """A loss or a gradient is not a finite number, so the weights are lost."""


class Meter:
    """Sums stay on the device until they are read: reading makes the CPU wait for all that was queued there."""

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        # The first update with a bad loss, and with a bad gradient; −1 for none.
        self._bad = torch.full((2,), -1, dtype=torch.int64, device=devices.device)
        self._clear()

    def _clear(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self.samples = 0

    def add_losses(self, losses: Mapping[str, Tensor], step: int, samples: int) -> None:
        """The losses (scalars) of one batch of update ``step`` (from 0), of ``samples`` samples."""
        for name, value in losses.items():
            self._add(name, value)
        self._note(0, losses["loss"], step)
        self.samples += samples

    def add_norm(self, norm: Any, step: int, *, may_overflow: bool) -> None:
        """The norm of the gradient; under fp16's loss scaling an infinite one is only a step that is skipped."""
        norm = torch.as_tensor(norm, device=self._devices.device)
        if may_overflow:
            norm = torch.where(torch.isfinite(norm), norm, 0.0)
        self._add("gradient norm", norm)
        self._note(1, norm, step)

    def _add(self, name: str, value: Tensor) -> None:
        value = value.detach().float()
        self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._counts[name] = self._counts.get(name, 0) + 1

    def _note(self, kind: int, value: Tensor, step: int) -> None:
        value, first = value.detach(), self._bad[kind]
        self._bad[kind] = torch.where(torch.isfinite(value) | (first >= 0), first, step)

    def check(self, *, seed: int, last_checkpoint: int | None) -> None:
        """Raise DivergedError if anything since the beginning was not finite. All processes must ask at the same step."""
        loss, gradient = (self._devices.maximum(int(value)) for value in self._bad.tolist())
        if max(loss, gradient) < 0:
            return
        step = min(value for value in (loss, gradient) if value >= 0)
        what = "loss" if step == loss else "gradient"
        kept = "no checkpoint was written yet" if last_checkpoint is None else f"the checkpoint of step {last_checkpoint} stays"
        raise DivergedError(
            f"the {what} of step {step + 1} is not a finite number (batch {step} of seed {seed}); {kept}; "
            "try a lower --lr, a longer --warmup or --precision fp32"
        )

    def means(self) -> dict[str, float]:
        """The mean of each name since the last call, over all processes, with ``gradient norm``; then begins anew."""
        names = list(self._sums)
        values = self._devices.mean(torch.stack([self._sums[name] / self._counts[name] for name in names]))
        means = dict(zip(names, values.tolist(), strict=True))
        self._clear()
        return means
