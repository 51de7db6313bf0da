"""An image tower at its seams: put together again it is the tower itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from ovskit.core.models.backbones.dense import DenseTower
from ovskit.core.models.family import BackboneRequest
from ovskit.core.models.towers.dense import open_dense
from ovskit.core.models.towers.network import Towers
from ovskit.core.runtime.errors import UsageError

CPU = torch.device("cpu")
Saved = Callable[..., tuple[Path, Towers]]
VITS = ("test_vit", "test_vit2", "test_vit3", "deit3_small_patch16_224")
CONVOLUTIONAL = ("test_convnext", "test_resnet", "test_efficientnet")


def opened(folder: Path) -> DenseTower:
    name = f"run:{folder}"
    return open_dense(BackboneRequest(name, name, None, CPU, torch.float32, "key", -1, "official", None))


def images(side: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def said(towers: Towers, batch: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return towers.image(batch)


@pytest.mark.parametrize("arch", VITS[:3])
def test_all_blocks_and_the_head_are_the_tower(saved: Saved, arch: str) -> None:
    folder, towers = saved(arch)
    tower = opened(folder)
    x = tower.embed(images())
    assert x.shape[1] == tower.prefix + (32 // tower.spec.stride) ** 2
    for index in range(tower.depth):
        x = tower.block(index, x)
    vectors = tower.head(x)
    trunk = towers.image.trunk
    assert trunk is not None
    pooled = vectors[:, 0] if trunk.has_cls else vectors[:, tower.prefix :].mean(dim=1)
    torch.testing.assert_close(pooled, said(towers, images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", VITS)
def test_a_block_is_its_halves(saved: Saved, arch: str) -> None:
    """deit3 has layer scale."""
    folder, _ = saved(arch)
    tower = opened(folder)
    x = tower.embed(images())
    for index in range(min(2, tower.depth)):
        q, k, v = tower.attended(index, x)
        assert q.shape == (2, tower.heads, x.shape[1], x.shape[2] // tower.heads)
        mixed = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v
        y = x + tower.joined(index, mixed)
        y = y + tower.feed_forward(index, y)
        expected = tower.block(index, x)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(expected, x, atol=1e-3)
        x = expected


@pytest.mark.parametrize("arch", CONVOLUTIONAL)
def test_the_mean_of_all_places_is_what_a_convolutional_tower_says(saved: Saved, arch: str) -> None:
    folder, towers = saved(arch)
    tower = opened(folder)
    assert (tower.depth, tower.prefix) == (0, 0)
    batch = images(96)
    x = tower.embed(batch)
    assert x.shape[:2] == (2, (96 // tower.spec.stride) ** 2)
    vectors = tower.head(x)
    torch.testing.assert_close(vectors.mean(dim=1), said(towers, batch), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(vectors[:, 0], vectors[:, -1])
    with pytest.raises(UsageError, match="has no blocks"):
        tower.block(0, x)


def test_blocks_with_norms_of_their_own(saved: Saved) -> None:
    """Norms of queries, keys and of what is mixed, and layer scale, in one network."""
    from timm.models.vision_transformer import Attention

    folder, towers = saved("test_vit")
    tower = opened(folder)
    for block in tower._blocks:  # type: ignore[attr-defined]
        before = block.attn
        width = before.proj.in_features
        block.attn = Attention(width, before.num_heads, qkv_bias=True, qk_norm=True, scale_norm=True, norm_layer=nn.LayerNorm).eval()
        for parameter in block.attn.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    x = tower.embed(images())
    q, k, v = tower.attended(0, x)
    y = x + tower.joined(0, (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v)
    torch.testing.assert_close(y + tower.feed_forward(0, y), tower.block(0, x), rtol=1e-4, atol=1e-4)


def test_rotary_positions_cannot_be_taken_apart(saved: Saved) -> None:
    folder, _ = saved("eva02_tiny_patch14_224", 28)
    with pytest.raises(UsageError, match="cannot be taken apart"):
        opened(folder)
