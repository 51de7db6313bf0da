"""A moving average of a module's weights, which is often the better model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MovingAverage:
    """Exponential moving average of the parameters and buffers of ``module``.

    After update n (from 1) with weights w: a ← d·a + (1 − d)·w, with d = min(``decay``, n/(n + 9)), so that the random
    first weights are soon forgotten [choice; the form is TensorFlow's ExponentialMovingAverage]. Buffers that are not
    floating point (counters) are copied. The average follows the module to its device at the next update.

    Raises ValueError for a ``decay`` outside [0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay {decay}: give a number from 0 to below 1")
        self.decay = decay
        self.updates = 0
        self.module = module
        self.tensors = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the module's weights as they are now."""
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 9))
        averages: list[Tensor] = []
        weights: list[Tensor] = []
        for name, weight in self.module.state_dict().items():
            average = self.tensors[name]
            if average.device != weight.device:
                average = self.tensors[name] = average.to(weight.device)
            if weight.is_floating_point():
                averages.append(average)
                weights.append(weight)
            else:
                average.copy_(weight)
        if averages:
            torch._foreach_lerp_(averages, weights, 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """The averages by the module's own names, and ``updates``, an int64 scalar; for a checkpoint."""
        return {"updates": torch.tensor(self.updates), **{f"average/{name}": tensor for name, tensor in self.tensors.items()}}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what ``state`` gave. Raises KeyError for a name that is missing."""
        found = {name: tensors[f"average/{name}"] for name in self.tensors}
        self.updates = int(tensors["updates"])
        for name, tensor in found.items():
            self.tensors[name].copy_(tensor)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module with the averaged weights; on the way out, also by an exception, it has its own again."""
        own = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        try:
            self.module.load_state_dict(self.tensors)
            yield
        finally:
            self.module.load_state_dict(own)
