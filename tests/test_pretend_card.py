"""The pretend card refuses what CUDA refuses and allows what it allows; bench/gpu.sh --dry runs the tests for a card on it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.pretend_card import Card, pretending

ROOT = Path(__file__).parents[1]
GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def _card() -> Iterator[None]:
    with pretending():
        yield


def on_card(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, device=GPU)


REFUSED: dict[str, Callable[[], Any]] = {
    "numpy": lambda: on_card(3).numpy(),
    "an array of it": lambda: np.asarray(on_card(3)),
    "two devices": lambda: on_card(3) + torch.rand(3),
    "two devices, the other way": lambda: torch.rand(3) * on_card(3),
    "a product": lambda: torch.rand(2, 3) @ on_card(3, 2),
    "joined": lambda: torch.cat([on_card(2), torch.rand(2)]),
    "stacked with a number of the CPU": lambda: torch.stack([on_card(1)[0], torch.rand(())]),
    "gathered": lambda: on_card(3).gather(0, torch.tensor([1])),
    "an index of the card into the CPU": lambda: torch.rand(3)[torch.tensor([1], device=GPU)],
    "values of the CPU by index": lambda: on_card(3).index_put_((torch.tensor([0, 1]),), torch.rand(2)),
    "a mask of the CPU": lambda: on_card(3).masked_fill_(torch.tensor([True, False, True]), 0.0),
    "a layer on the CPU": lambda: nn.Linear(3, 2)(on_card(1, 3)),
    "a generator of the CPU": lambda: torch.rand(3, device=GPU, generator=torch.Generator()),
    "a generator of the CPU in place": lambda: on_card(3).uniform_(generator=torch.Generator()),
    "the optimiser's lists": lambda: torch._foreach_lerp_([on_card(3)], [torch.rand(3)], 0.5),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cuda_refuses(what: str) -> None:
    with pytest.raises((RuntimeError, TypeError), match="same device|numpy|either on cpu|generator"):
        REFUSED[what]()


def test_what_cuda_allows() -> None:
    x = on_card(4, 3)
    assert (x * torch.tensor(2.0)).device == x.device  # no dimensions
    assert x[torch.tensor([0, 2])].shape == (2, 3)
    assert x[torch.tensor([True, False, False, True])].is_cuda
    x[torch.tensor([1])] = torch.tensor(5.0)
    x[0] = torch.ones(3)
    assert x[:2].cpu().tolist() == [[1.0] * 3, [5.0] * 3]
    host = torch.zeros(4, 3)
    host.copy_(x)
    assert torch.equal(host, x.cpu())
    assert torch.where(x > 2, x, 0.0).is_cuda
    assert x.to("cpu", torch.float64).numpy().dtype == np.float64


def test_it_computes_as_the_cpu_does() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(), nn.Flatten(2))
    images = torch.rand(2, 3, 6, 5)

    def run(device: str) -> list[torch.Tensor]:
        x = layers(images.to(device)).mT
        loss = F.scaled_dot_product_attention(x, x, x).square().mean() + F.one_hot(x.argmax(1)).float().var()
        layers.zero_grad()
        loss.backward()
        return [loss.detach(), *(p.grad for p in layers.parameters() if p.grad is not None)]

    here = [one.clone() for one in run("cpu")]
    identities = [id(p) for p in layers.parameters()]
    layers.to("cuda")
    assert [id(p) for p in layers.parameters()] == identities  # as on a real card: whoever holds a parameter has it there
    there = run("cuda")
    assert all(one.is_cuda for one in there)
    for one, other in zip(here, there, strict=True):
        torch.testing.assert_close(other.cpu(), one)


def test_autocast_is_honoured() -> None:
    layer = nn.Linear(3, 2).to("cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert layer(on_card(1, 3)).dtype == torch.bfloat16
        with torch.autocast("cuda", enabled=False):
            assert layer(on_card(1, 3)).dtype == torch.float32
    assert layer(on_card(1, 3)).dtype == torch.float32


def test_the_cards_numbers_are_its_own_and_seeded() -> None:
    torch.manual_seed(3)
    here, there = torch.rand(5), torch.rand(5, device=GPU)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(5, device=GPU).cpu(), there.cpu())
    assert torch.equal(torch.rand(5), here)
    assert not torch.equal(here, there.cpu())


def test_threads_have_it_too() -> None:
    found: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: found.append(torch.zeros(2, device=GPU) + 1))
    thread.start()
    thread.join()
    assert found[0].is_cuda


def test_what_waits_is_counted() -> None:
    x = on_card(4)
    Card.waits.clear()
    (x * 2).relu_()
    torch.rand(3).pin_memory().to(GPU, non_blocking=True)
    assert not Card.waits
    x.sum().item()
    x.nonzero()
    x.cpu()
    torch.tensor([1, 2], device=GPU)
    assert Card.waits == {"_local_scalar_dense": 1, "nonzero": 1, "download": 1, "upload": 1}


def test_photographs_go_to_the_card_as_bytes() -> None:
    """Converted on the way they would be four times as many, and converted by the CPU."""
    from ovskit.core.models.backbones.interface import BackboneSpec
    from ovskit.core.models.backbones.timm_vit import move, open_vit
    from ovskit.core.models.backbones.vit import VitBackbone

    trunk = open_vit("test_vit", "test_vit")
    move(trunk.network, GPU, torch.float32)
    ones = (0.5, 0.5, 0.5)
    spec = BackboneSpec("test", "timm:test_vit", "key", -1, trunk.stride, 64, True, ones, ones, "bicubic")
    backbone = VitBackbone(spec, trunk, GPU, torch.float32)
    images = torch.zeros(2, 3, 64, 96, dtype=torch.uint8)
    Card.moved = 0
    backbone.extract(images)
    assert Card.moved == images.numel()
