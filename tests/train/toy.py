"""A recipe small enough to be run to its end many times: a network with dropout and batch norm, a queue, a moving average."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from ovskit.core.train.engine.averaging import MovingAverage

SAMPLES = 4


class ToyRecipe:
    """Regression of a fixed linear map from noise; ``plain`` leaves out what looks at other samples of its own batch."""

    name = "toy"

    def __init__(self, *, width: int = 6, seed: int = 0, plain: bool = False, samples: int = SAMPLES, nan_at: int | None = None) -> None:
        self.width, self.seed, self.plain, self.samples, self.nan_at = width, seed, plain, samples, nan_at
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            body = [nn.Linear(3, width), nn.Tanh()] if plain else [nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(0.3)]
            self.modules = nn.ModuleDict({"body": nn.Sequential(*body), "head": nn.Linear(width, 2)})
        self.average = MovingAverage(self.modules, 0.9)
        self.queue = torch.zeros(3)
        self.seen: list[tuple[int, int, int]] = []
        self.evaluations = 0

    def parameter_groups(self) -> list[dict[str, Any]]:
        decayed = [p for p in self.modules.parameters() if p.dim() > 1]
        return [
            {"params": decayed, "lr_scale": 0.5},
            {"params": [p for p in self.modules.parameters() if p.dim() <= 1], "weight_decay": 0.0},
        ]

    def batch(self, step: int, rank: int, world: int) -> Any:
        self.seen.append((step, rank, world))
        generator = torch.Generator().manual_seed(1000 * self.seed + step)
        inputs = torch.randn(self.samples * world, 3, generator=generator)[rank * self.samples : (rank + 1) * self.samples]
        return {"inputs": inputs, "step": step}

    def losses(self, batch: Any, step: int) -> dict[str, Tensor]:
        inputs = batch["inputs"]
        target = torch.stack([inputs.sum(1), inputs[:, 0] - inputs[:, 1]], 1)
        error = F.mse_loss(self.modules["head"](self.modules["body"](inputs)), target)
        if step == self.nan_at:
            error = error * float("nan")
        return {"loss": error + (0 if self.plain else 0.01 * self.queue.mean()), "error": error}

    def after_step(self, step: int) -> None:
        self.average.update()
        newest = self.modules["head"].weight.detach().mean()[None]
        self.queue = torch.cat([self.queue[1:].to(newest.device), newest])

    def state(self) -> dict[str, Tensor]:
        return {"queue": self.queue, **self.average.state()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        self.queue = tensors["queue"].clone()
        self.average.load_state(tensors)

    def metadata(self) -> dict[str, Any]:
        return {"settings": {"width": self.width, "shape": (3, 2)}, "data": {"samples": self.samples}}

    def evaluate(self) -> dict[str, float]:
        self.evaluations += 1
        assert not self.modules.training
        with self.average.applied():
            return {"weight": float(self.modules["head"].weight.mean())}

    def export(self, folder: Path) -> None:
        save_file(self.weights(), folder / "model.safetensors")

    def weights(self) -> dict[str, Tensor]:
        return {name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in self.modules.state_dict().items()}
