"""The moving average, against its closed form in float64."""

import pytest
import torch
from torch import nn

from ovskit.core.train.engine.averaging import MovingAverage


def module(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))


def train_a_little(network: nn.Module, steps: int, average: MovingAverage) -> list[dict[str, torch.Tensor]]:
    """Random walks of all that is a number; the weights after every step."""
    history = []
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for tensor in network.state_dict().values():
                if tensor.is_floating_point():
                    tensor.add_(torch.randn(tensor.shape, generator=generator))
                else:
                    tensor.add_(1)
        average.update()
        history.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
    return history


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_closed_form(decay: float) -> None:
    network = module()
    first = {name: tensor.double() for name, tensor in network.state_dict().items()}
    average = MovingAverage(network, decay)
    history = train_a_little(network, 20, average)
    for name, value in average.tensors.items():
        if not value.is_floating_point():
            assert value == 20
            continue
        expected = first[name]
        for n, weights in enumerate(history, 1):
            d = min(decay, n / (n + 9))
            expected = d * expected + (1 - d) * weights[name].double()
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)


def test_the_module_is_left_alone() -> None:
    network, twin = module(), module()
    average = MovingAverage(network, 0.9)
    average.update()
    for one, two in zip(network.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    assert not any(tensor.requires_grad for tensor in average.tensors.values())


def test_applied_and_put_back() -> None:
    network = module()
    average = MovingAverage(network, 0.9)
    own = train_a_little(network, 3, average)[-1]
    with pytest.raises(KeyboardInterrupt), average.applied():
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, average.tensors[name])
        raise KeyboardInterrupt
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, own[name])


def test_state_goes_on_as_if_nothing_had_been() -> None:
    network, other = module(), module(1)
    average, taken_up = MovingAverage(network, 0.99), MovingAverage(other, 0.99)
    train_a_little(network, 5, average)
    other.load_state_dict(network.state_dict())
    taken_up.load_state({name: tensor.clone() for name, tensor in average.state().items()})
    train_a_little(network, 4, average)
    train_a_little(other, 4, taken_up)
    assert average.updates == taken_up.updates == 9
    for name, tensor in average.state().items():
        assert torch.equal(tensor, taken_up.state()[name])


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_decay_out_of_range(decay: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        MovingAverage(module(), decay)
