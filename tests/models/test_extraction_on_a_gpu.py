"""Features of a card against those of the CPU, for each kind of model, with random weights where none come along."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.data import resolve_model_data_config

from ovskit.core.models.backbones.handmade import load_handmade
from ovskit.core.models.backbones.interface import BackboneSpec
from ovskit.core.models.backbones.timm_vit import move, open_vit
from ovskit.core.models.backbones.vit import VitBackbone
from ovskit.core.models.builtin.diffusion import probability
from ovskit.core.models.builtin.extractor import load_builtin
from ovskit.core.models.registry import build_pyramid
from ovskit.core.models.weights.state_dict import NoInit
from tests.differences import between_patches, least_cosine, relative

pytestmark = pytest.mark.gpu

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SMALL, LARGE = "vit_tiny_patch16_224", "vit_base_patch8_224.dino"
MODELS = [SMALL, pytest.param(LARGE, marks=pytest.mark.heavy)]  # the second is what SOHES extracts with, with patches of 8
Measured = Callable[..., None]


def pictures(count: int, height: int, width: int) -> torch.Tensor:
    """Smooth blobs of colour under some noise, (count, 3, height, width) uint8."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    out = np.full((count, 3, height, width), 90.0)
    for picture in out:
        for _ in range(7):
            cy, cx, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0.1, 0.4) * min(height, width)
            picture[:, (y - cy) ** 2 + (x - cx) ** 2 < r * r] = rng.uniform(0, 255, (3, 1))
    return torch.from_numpy(np.clip(out + rng.normal(0, 4, out.shape), 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def networks() -> Callable[[str], Any]:
    """A timm network with the first weights that it draws, by name."""
    made: dict[str, dict[str, torch.Tensor]] = {}

    def open_(name: str) -> Any:
        with NoInit() if name in made else nullcontext():  # drawing them takes seconds
            torch.manual_seed(0)
            trunk = open_vit(name, name)
        if name not in made:
            made[name] = {key: value.clone() for key, value in trunk.network.state_dict().items()}
        trunk.network.load_state_dict(made[name])
        return trunk

    return open_


def backbone(networks: Callable[[str], Any], name: str, device: torch.device, dtype: torch.dtype = torch.float32) -> VitBackbone:
    """As ``load_timm`` makes it, but for the file that the weights come from."""
    trunk = networks(name)
    data = resolve_model_data_config(trunk.network)
    move(trunk.network, device, dtype)
    spec = BackboneSpec(
        name=name, model=f"timm:{name}", facet="key", layer=-1, stride=trunk.stride, dim=trunk.network.embed_dim, has_cls=True,
        mean=data["mean"], std=data["std"], interpolation="bicubic", positions=trunk.sampling,
    )  # fmt: skip
    return VitBackbone(spec, trunk, device, dtype)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("model", MODELS)
def test_a_vit_in_single_precision_gives_the_same(networks: Callable[[str], Any], model: str, measured: Measured) -> None:
    """Twelve blocks of float32 products summed in other orders: some 1e-6 relative each time, so 1e-4 is far from any mistake."""
    images = pictures(4, 96, 64)
    here = backbone(networks, model, CPU).extract(images, cls=True)
    there = backbone(networks, model, GPU).extract(images, cls=True)
    assert there.patch.device.type == "cuda"
    assert here.cls is not None
    assert there.cls is not None
    patch, cls = relative(there.patch.cpu(), here.patch), relative(there.cls.cpu(), here.cls)
    measured(patch=patch, cls=cls)
    assert max(patch, cls) < 1e-4


@pytest.mark.parametrize(("dtype", "cosine", "error"), [(torch.bfloat16, 0.99, 0.08), (torch.float16, 0.9999, 0.01)], ids=["bf16", "fp16"])
@pytest.mark.parametrize("model", MODELS)
def test_a_vit_in_half_precision_is_near(
    networks: Callable[[str], Any], model: str, dtype: torch.dtype, cosine: float, error: float, measured: Measured
) -> None:
    """bfloat16 rounds to 2⁻⁹ (0.2 %), float16 to 2⁻¹² (0.02 %), some hundred times over on the way through twelve blocks: ten times as
    much and more is left for the sum of it. Cosines are those of each patch's key with itself."""
    images = pictures(2, 96, 64)
    here = backbone(networks, model, CPU).extract(images).patch
    there = backbone(networks, model, GPU, dtype).extract(images).patch
    assert there.dtype == dtype
    found = {"cosine": least_cosine(there.cpu().float(), here), "error": relative(there.cpu().float(), here)}
    measured(**found)
    assert found["cosine"] > cosine
    assert found["error"] < error


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)], ids=["fp32", "bf16"])
@pytest.mark.parametrize("model", MODELS)
def test_a_vit_sees_one_image_as_it_sees_eight(
    networks: Callable[[str], Any], model: str, dtype: torch.dtype, error: float, measured: Measured
) -> None:
    """Libraries choose kernels by the size of a batch, so the same up to rounding: in bfloat16 a few times its 0.4 %."""
    images = pictures(8, 96, 64)
    seen = backbone(networks, model, GPU, dtype)
    together = seen.extract(images).patch.cpu().float()
    alone = torch.cat([seen.extract(image[None]).patch.cpu().float() for image in images])
    found = relative(alone, together)
    measured(error=found)
    assert found < error


@pytest.mark.usefixtures("exact")
def test_the_handmade_descriptor_gives_the_same_between_patches(measured: Measured) -> None:
    """Its sums are exact and its functions tables, so only the axes of two solvers differ; what is rounded to 2⁻¹² may fall either way."""
    images = pictures(3, 128, 96)
    here, there = (load_handmade("handmade", device=device).extract(images).patch.cpu() for device in (CPU, GPU))
    found = float((between_patches(there) - between_patches(here)).abs().max())
    measured(cosines=found, patches=relative(there, here))
    assert found < 1e-2


@pytest.mark.usefixtures("exact")
def test_builtin_gives_the_same_between_patches(measured: Measured) -> None:
    """A rounding of the network's embedding turns principal components that are equally strong, so cosines between patches are compared,
    which no turn changes, and not channels. Forty steps of diffusion amplify what differs across a boundary."""
    images = pictures(3, 128, 96)
    here, there = (load_builtin("builtin", device=device).extract(images, cls=True) for device in (CPU, GPU))
    assert here.cls is not None
    assert there.cls is not None
    apart = (between_patches(there.patch.cpu()) - between_patches(here.patch)).abs()
    found = {"largest": float(apart.max()), "mean": float(apart.mean()), "cls": relative(there.cls.cpu(), here.cls)}
    measured(**found)
    assert found["largest"] < 0.05
    assert found["mean"] < 2e-3
    assert found["cls"] < 1e-2


def test_builtin_as_it_runs_by_default_is_near(measured: Measured) -> None:
    """With TF32, which cuDNN's convolutions take unless told otherwise: 2⁻¹¹ in each product of the network."""
    images = pictures(3, 128, 96)
    here, there = (load_builtin("builtin", device=device).extract(images).patch.cpu() for device in (CPU, GPU))
    apart = (between_patches(there) - between_patches(here)).abs()
    measured(largest=float(apart.max()), mean=float(apart.mean()))
    assert float(apart.mean()) < 0.02


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("name", ["ovskit-tiny", "ovskit-tiny-timm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_clip_gives_the_same(name: str, dtype: torch.dtype, request: pytest.FixtureRequest, measured: Measured) -> None:
    """As for a ViT; weights and their positions move to the card after the network was opened."""
    pytest.importorskip("open_clip", reason="open_clip is not installed")
    from ovskit.core.models.clip.image_tower import load_clip
    from ovskit.core.models.weights.source import WeightsSource

    path: Path = request.getfixturevalue("clip_checkpoint")(name)[1]
    images = pictures(2, 64, 96)
    found = [
        load_clip(
            f"clip:{name}", f"clip:{name}", facet="key", layer=-1, source=WeightsSource(name, path), device=device, dtype=kind
        ).extract(images, cls=True)
        for device, kind in ((CPU, torch.float32), (GPU, dtype))
    ]
    here, there = found
    assert there.cls is not None
    assert here.cls is not None
    patch, cls = relative(there.patch.cpu().float(), here.patch), relative(there.cls.cpu().float(), here.cls)
    measured(patch=patch, cls=cls)
    assert max(patch, cls) < (1e-4 if dtype == torch.float32 else 0.08)


def test_tables_are_brought_to_the_card_once(waiting: Callable[[], AbstractContextManager[list[str]]]) -> None:
    """Every copy from the CPU makes it wait for the card."""
    logits = torch.linspace(-20, 20, 50).to(GPU)
    first = probability(logits)
    with waiting() as found:
        again = probability(logits)
    assert not found
    assert torch.equal(again, first)


@pytest.mark.parametrize("name", ["builtin", "timm:test_vit", "timm:test_convnext"])
def test_trained_backbones_never_wait(name: str, waiting: Callable[[], AbstractContextManager[list[str]]]) -> None:
    """Nor do their gradients: the CPU is to run ahead of the card."""
    network = build_pyramid(name, weights=None, pretrained=False, freeze=False).to(GPU)
    images = pictures(2, 64, 96).to(GPU)
    network(images)
    with waiting() as found:
        sum(each.float().square().mean() for each in network(images)).backward()
    assert not found


def test_the_networks_of_extraction_never_wait(
    networks: Callable[[str], Any], waiting: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    """Of a batch that is on the card already."""
    images = pictures(2, 64, 96).to(GPU)
    vit, builtin = backbone(networks, SMALL, GPU), load_builtin("builtin", device=GPU)
    vit.extract(images, cls=True)
    builtin.extract(images, cls=True, patch=False)
    with waiting() as found:
        vit.extract(images, cls=True)
        builtin.extract(images, cls=True, patch=False)
    assert not found
