"""Adan: the paper's update, and stopped and resumed anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.train.engine.loop import train
from ovskit.core.train.engine.optimizers import make_optimizer
from ovskit.core.train.engine.options import TrainOptions
from tests.train.toy import ToyRecipe

BETAS = (0.98, 0.92, 0.99)


def options(**others: Any) -> TrainOptions:
    given: dict[str, Any] = {"steps": 8, "optimizer": "adan", "betas": BETAS, "learning_rate": 0.01, "weight_decay": 0.02, "device": "cpu"}
    return TrainOptions(**{**given, **others})


def test_it_is_the_papers_update() -> None:
    """Xie et al., Algorithm 1, in float64, one parameter at a time."""
    recipe = ToyRecipe(plain=True)
    optimizer = make_optimizer(recipe, options())
    parameters = [p for p in recipe.modules.parameters() if p.requires_grad]
    scales = {id(p): g.get("weight_decay", 0.02) for g in optimizer.param_groups for p in g["params"]}
    values = [p.detach().double().clone() for p in parameters]
    m, v, n, before = ([torch.zeros_like(x) for x in values] for _ in range(4))
    for step in range(1, 6):
        optimizer.zero_grad()
        recipe.losses(recipe.batch(step, 0, 1), step)["loss"].backward()  # type: ignore[no-untyped-call]
        for k, parameter in enumerate(parameters):
            gradient = parameter.grad.double()
            change = gradient - before[k] if step > 1 else torch.zeros_like(gradient)
            m[k] = BETAS[0] * m[k] + (1 - BETAS[0]) * gradient
            v[k] = BETAS[1] * v[k] + (1 - BETAS[1]) * change
            n[k] = BETAS[2] * n[k] + (1 - BETAS[2]) * (gradient + BETAS[1] * change) ** 2
            along = m[k] / (1 - BETAS[0] ** step) + BETAS[1] * v[k] / (1 - BETAS[1] ** step)
            size = (n[k] / (1 - BETAS[2] ** step)).sqrt() + 1e-8
            values[k] = (values[k] - 0.01 * along / size) / (1 + 0.01 * scales[id(parameter)])
            before[k] = gradient
        optimizer.step()
        for parameter, value in zip(parameters, values, strict=True):
            torch.testing.assert_close(parameter.detach().double(), value, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("at", [1, 5])
def test_stopped_and_resumed_is_the_same(tmp_path: Path, at: int) -> None:
    train(ToyRecipe(), options(), tmp_path / "whole")
    train(ToyRecipe(), options(stop_after=at), tmp_path / "pieces")
    train(ToyRecipe(), options(), tmp_path / "pieces", resume=True)
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == (tmp_path / "pieces" / "model.safetensors").read_bytes()


def test_another_optimiser_does_not_go_on(tmp_path: Path) -> None:
    train(ToyRecipe(), options(stop_after=2), tmp_path)
    with pytest.raises(InputError, match="optimizer"):
        train(ToyRecipe(), options(optimizer="adamw", betas=(0.9, 0.999)), tmp_path, resume=True)


@pytest.mark.parametrize("wrong", [{"betas": (0.9, 0.999)}, {"optimizer": "sgd"}, {"betas": (0.98, 0.92, 1.0)}])
def test_what_makes_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        options(**wrong)
