"""Vectors of patches on a card against those on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ovskit.core.predict.dense.blocks import TowerNamer
from ovskit.core.predict.dense.clear import Clear
from ovskit.core.predict.dense.corr import Corr
from ovskit.core.predict.dense.naclip import Naclip
from ovskit.core.predict.dense.plain import Plain
from ovskit.core.predict.dense.proxy import Proxy
from ovskit.core.predict.dense.sclip import Sclip
from tests.predict.dense_towers import noise, proxy, proxy_network, tower, visual

pytestmark = pytest.mark.gpu

CPU, GPU = torch.device("cpu"), torch.device("cuda")
METHODS: dict[str, Any] = {"plain": Plain, "clear": Clear, "sclip": Sclip, "naclip": Naclip, "proxy": Proxy, "corr": Corr}
NETWORK, PROXY = visual(), proxy_network()


def namer(name: str, device: torch.device, dtype: torch.dtype = torch.float32) -> TowerNamer:
    opened = tower(copy.deepcopy(NETWORK), device, dtype)
    made: TowerNamer = (
        METHODS[name](opened, proxy(copy.deepcopy(PROXY), device=device)) if name in ("proxy", "corr") else METHODS[name](opened)
    )
    return made


def regions() -> torch.Tensor:
    """Three windows with 1, 4 and no regions."""
    blocks = (torch.arange(64)[:, None] // 32 * 2 + torch.arange(80) // 40).to(torch.int32)
    return torch.stack([torch.zeros(64, 80, dtype=torch.int32), blocks, torch.full((64, 80), -1, dtype=torch.int32)])


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("name", METHODS)
def test_vectors_are_the_same_in_single_precision(name: str, measured: Callable[..., None]) -> None:
    """Three windows in one batch there, one by one here: to 1e-4 of vectors of length 1."""
    images = noise(3, 64, 80)
    here, there = namer(name, CPU).vectors(images, regions()), namer(name, GPU).vectors(images, regions())
    assert there.device.type == "cuda"
    difference = float((there.cpu() - here).abs().max())
    measured(difference=difference)
    assert difference < 1e-4


@pytest.mark.parametrize("name", METHODS)
def test_half_the_width_keeps_the_direction(name: str, measured: Callable[..., None]) -> None:
    images = noise(3, 64, 80)
    here, there = namer(name, CPU).vectors(images, regions()), namer(name, GPU, torch.bfloat16).vectors(images, regions())
    cosine = float((there.cpu() * here).sum(dim=-1).min())
    measured(cosine=cosine)
    assert cosine > 0.98


@pytest.mark.parametrize("name", METHODS)
def test_a_flat_window_gives_finite_vectors(name: str) -> None:
    flat = torch.full((2, 3, 64, 80), 90, dtype=torch.uint8)
    assert torch.isfinite(namer(name, GPU).vectors(flat, regions()[:2]).cpu()).all()
