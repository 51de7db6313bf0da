"""The learning rate, against points that can be computed by hand and torch's own schedulers."""

import pytest
import torch

from ovskit.core.train.engine.schedule import rate_share


def shares(steps: int, **settings: object) -> list[float]:
    return [rate_share(step, steps=steps, **settings) for step in range(steps)]  # type: ignore[arg-type]


def torchs(steps: int, make: object, warmup: int = 0) -> list[float]:
    """The rates of one of torch's schedulers, after a linear warm-up."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)  # type: ignore[operator]
    rates = [(k + 1) / warmup for k in range(warmup)]
    for _ in range(steps - warmup):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("warmup", "final"), [(0, 0.0), (7, 0.0), (5, 0.1)])
def test_cosine_is_torchs(warmup: int, final: float) -> None:
    expected = torchs(40, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 40 - warmup, eta_min=final), warmup)
    assert shares(40, schedule="cosine", warmup=warmup, final=final) == pytest.approx(expected, abs=1e-12)


def test_steps_are_torchs() -> None:
    expected = torchs(40, lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [36, 38], gamma=0.1))
    assert shares(40, schedule="step") == pytest.approx(expected)


def test_milestones_count_from_the_beginning() -> None:
    assert shares(8, schedule="step", warmup=2, milestones=(0.5,), drop=0.5) == [0.5, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]


def test_constant_after_warming_up() -> None:
    assert shares(5, schedule="constant", warmup=3) == [1 / 3, 2 / 3, 1, 1, 1]


def test_a_warm_up_longer_than_the_run() -> None:
    assert shares(3, schedule="cosine", warmup=6) == pytest.approx([1 / 6, 2 / 6, 3 / 6])


def test_an_unknown_schedule() -> None:
    with pytest.raises(ValueError, match="cosine, step, constant"):
        rate_share(0, schedule="linear", steps=1)
