"""The optimisers that a run can have, and what of them a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.optim import Adan

from ovskit.core.train.engine.options import TrainOptions
from ovskit.core.train.engine.recipe import Recipe


class ResumableAdan(Adan):
    """Adan (Xie et al., TPAMI 2024) as timm has it, with the count of its steps beside each parameter, where a checkpoint finds it."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update."""
        for group in self.param_groups:
            if "step" not in group:  # new, or restored
                known = [int(self.state[p]["step"]) for p in group["params"] if p in self.state and "step" in self.state[p]]
                group["step"] = max(known, default=0)
        found = super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter in self.state:
                    self.state[parameter]["step"] = torch.tensor(float(group["step"]))
        return found


def make_optimizer(recipe: Recipe, options: TrainOptions) -> torch.optim.Optimizer:
    """``options.optimizer`` over the recipe's groups; ``lr_scale`` of a group multiplies its learning rate.

    Raises ValueError unless the groups hold every parameter that learns, once.
    """
    groups = [{"lr_scale": 1.0, **group, "params": list(group["params"])} for group in recipe.parameter_groups()]
    given = [id(parameter) for group in groups for parameter in group["params"]]
    names = {id(p): name for name, p in recipe.modules.named_parameters() if p.requires_grad}
    if sorted(given) != sorted(names):
        lost = [name for key, name in names.items() if given.count(key) != 1]
        raise ValueError(
            f"recipe {recipe.name}: parameters that are not in exactly one group: {', '.join(lost[:3]) or 'not of its modules'}"
        )
    betas: Any = options.decay_rates()  # as many as the optimiser has: TrainOptions has seen to it
    rate, decay = options.learning_rate, options.weight_decay
    if options.optimizer == "adan":
        return ResumableAdan(groups, lr=rate, betas=betas, eps=options.epsilon, weight_decay=decay)
    return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=options.epsilon, weight_decay=decay, fused=True)


def slots(optimizer: torch.optim.Optimizer) -> Sequence[str]:
    """The names of an optimiser's state of one parameter; ``step`` is a scalar, the others have the parameter's shape."""
    more = ("exp_avg_diff", "neg_pre_grad") if isinstance(optimizer, Adan) else ()
    return ("step", "exp_avg", "exp_avg_sq", *more)
