"""The adapter beside a vision transformer: what it leaves alone at the start, and what it learns from there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ovskit.core.models.pyramids.vit_adapter import ViTAdapter
from ovskit.core.models.registry import build_pyramid

Checkpoint = Callable[[str], tuple[torch.nn.Module, Path]]
# Learned positions; a patch that does not divide 32, with rotary ones; rotary ones that learn and differ from block to block.
KINDS = ["test_vit", "eva02_tiny_patch14_224", "vit_tiny_patch16_dinov3_qkvb"]


def built(name: str, weights: Path | None = None, *, freeze: bool = False) -> Any:
    torch.manual_seed(0)
    return build_pyramid(f"timm:{name}", weights=weights, pretrained=False, freeze=freeze)


def images(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def last_tokens(adapter: Any, batch: torch.Tensor) -> torch.Tensor:
    """What leaves the last block, after timm's final norm."""
    seen: list[torch.Tensor] = []
    handle = adapter.trunk.blocks[-1].register_forward_hook(lambda _m, _a, out: seen.append(out))
    adapter(batch)
    handle.remove()
    found: torch.Tensor = adapter.trunk.norm(seen[0])
    return found


def away_from_start(adapter: Any) -> Any:
    """Injectors that inject."""
    with torch.no_grad():
        for injector in adapter.injectors:
            injector.gamma.add_(0.5 * torch.randn_like(injector.gamma))
    return adapter


def test_its_layer_norms_have_the_authors_epsilon() -> None:
    adapter = built("test_vit")
    own = [each for name, each in adapter.named_modules() if isinstance(each, torch.nn.LayerNorm) and not name.startswith("trunk.")]
    assert len(own) == 4 * 2 + 6 * 3  # injectors, extractors
    assert {each.eps for each in own} == {1e-6}


def test_positions_of_a_dino_are_resampled_by_size() -> None:
    adapter = built("vit_small_patch16_224.dino")  # whatever its own authors do: ViT-Adapter's do this
    assert adapter._vit.sampling == "size"


@pytest.mark.parametrize("name", KINDS)
def test_at_the_start_the_transformer_computes_what_timm_does(timm_checkpoint: Checkpoint, name: str) -> None:
    network: Any
    network, path = timm_checkpoint(name)
    adapter = built(name, path).eval()
    assert isinstance(adapter, ViTAdapter)
    patch = network.patch_embed.patch_size[0]
    normalised = (images() - adapter.mean) / adapter.std
    if 32 % patch:  # it looks at a grid of stride 16
        normalised = F.interpolate(normalised, (4 * patch, 6 * patch), mode="bilinear", antialias=True)
    with torch.no_grad():
        expected = network.forward_features(normalised)
        torch.testing.assert_close(last_tokens(adapter, images()), expected, rtol=1e-4, atol=1e-4)
        moved = last_tokens(away_from_start(adapter), images())
    assert (moved - expected).norm() > 0.01 * expected.norm()


@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch16_rope_mixed_224"])
@pytest.mark.parametrize("freeze", [False, True])
def test_everything_that_is_trained_learns(name: str, freeze: bool) -> None:
    adapter = away_from_start(built(name, freeze=freeze))
    with torch.no_grad():
        for parameter in adapter.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    # More than one place in the coarsest map, or its normalisation leaves nothing of some of it.
    generator = torch.Generator().manual_seed(2)
    maps = adapter(images(64, 64))
    torch.stack([(each * torch.randn(each.shape, generator=generator)).sum() for each in maps]).sum().backward()
    for key, parameter in adapter.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
            assert parameter.grad.any(), key
        else:
            assert parameter.grad is None, key
            assert freeze or key.startswith("trunk.norm"), key


def test_at_the_start_only_gamma_learns_of_an_injector() -> None:
    adapter = built("test_vit")
    torch.stack([(each**3).sum() for each in adapter(images())]).sum().backward()
    for injector in adapter.injectors:
        assert injector.gamma.grad.any()
        assert not injector.attention.out.weight.grad.any()


def test_tokens_of_a_finer_patch_keep_their_grid() -> None:
    adapter = away_from_start(built("vit_small_patch8_224"))
    with torch.no_grad():
        maps = adapter(images(32, 64))
        tokens = last_tokens(adapter, images(32, 64))
    assert tokens.shape[1] == 1 + 4 * 8
    assert [tuple(each.shape) for each in maps] == [(2, 384, 8, 16), (2, 384, 4, 8), (2, 384, 2, 4), (2, 384, 1, 2)]


def test_groups_are_the_embedding_the_blocks_and_the_adapter() -> None:
    adapter = built("test_vit")
    embedding, *blocks, own = adapter.depth_groups()
    names = {id(parameter): name for name, parameter in adapter.named_parameters()}
    assert {names[id(p)] for p in embedding} >= {"trunk.pos_embed", "trunk.cls_token", "trunk.patch_embed.proj.weight"}
    assert len(blocks) == len(adapter.trunk.blocks)
    for k, block in enumerate(blocks):
        assert all(names[id(p)].startswith(f"trunk.blocks.{k}.") for p in block)
    assert not any(names[id(p)].startswith("trunk.") for p in own)
    assert len(built("test_vit", freeze=True).depth_groups()) == 1


def test_positions_follow_the_weights_and_the_size() -> None:
    adapter = built("test_vit").eval()
    with torch.no_grad():
        before = adapter(images())[2]
        adapter(images(32, 32))
        assert torch.equal(adapter(images())[2], before)
        adapter.trunk.pos_embed.mul_(5).add_(torch.randn_like(adapter.trunk.pos_embed))
        assert not torch.allclose(adapter(images())[2], before)
