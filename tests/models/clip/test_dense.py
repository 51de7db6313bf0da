"""Image towers of open_clip opened for naming patches: against open_clip's own forward pass, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from ovskit.core.models import families
from ovskit.core.models.clip.dense import is_plain, plain_architectures
from ovskit.core.models.registry import load_backbone, load_dense
from ovskit.core.runtime.errors import InputError, UsageError
from tests.models.clip.test_image_tower import CPU, NAME, images, normalised

Clip = Callable[[str], tuple[Any, Path]]


def tokens_of(network: Any, batch: torch.Tensor) -> torch.Tensor:
    """What comes out of open_clip's last block, as its own forward pass computes it."""
    seen: list[torch.Tensor] = []
    handle = network.visual.transformer.resblocks[-1].register_forward_hook(lambda _m, _a, out: seen.append(out))
    with torch.no_grad():
        network.encode_image(batch)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("name", ["ovskit-tiny", "ovskit-tiny-quickgelu"])
def test_blocks_as_they_are_and_put_together_of_their_parts(clip_checkpoint: Clip, name: str) -> None:
    network, path = clip_checkpoint(name)
    tower = load_dense(f"clip:{name}", weights=path, device=CPU)
    x = parts = tower.embed(images())
    assert x.shape == (2, tower.prefix + 16, 64)
    for index in range(tower.depth):
        x = tower.block(index, x)
        block = tower.attended(index, parts)
        assert block.query.shape == (2, tower.heads, 17, 64 // tower.heads)
        parts = parts + tower.joined(index, torch.nn.functional.scaled_dot_product_attention(*block))
        parts = parts + tower.feed_forward(index, parts)
    expected = tokens_of(network, normalised(images()))
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(parts, expected, rtol=1e-4, atol=1e-4)


def test_the_head_makes_the_image_vector_of_the_class_token(clip_checkpoint: Clip) -> None:
    network, path = clip_checkpoint("ovskit-tiny")
    tower = load_dense(NAME, weights=path, device=CPU)
    x = tower.embed(images())
    for index in range(tower.depth):
        x = tower.block(index, x)
    vectors = tower.head(x)
    with torch.no_grad():
        embedding = network.encode_image(normalised(images()))
        everywhere = network.visual.ln_post(x.clone()) @ network.visual.proj
    assert vectors.shape == (2, 17, tower.spec.dim) == (2, 17, 24)
    torch.testing.assert_close(vectors[:, 0], embedding, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(vectors, everywhere, rtol=1e-5, atol=1e-5)


def test_other_sizes_are_as_the_extractor_has_them(clip_checkpoint: Clip) -> None:
    path = clip_checkpoint("ovskit-tiny")[1]
    tower, batch = load_dense(NAME, weights=path, device=CPU), images(96)[:, :, :48]
    x = tower.embed(batch)
    for index in range(tower.depth):
        x = tower.block(index, x)
    features = load_backbone(NAME, weights=path, device=CPU).extract(batch, cls=True)
    assert features.cls is not None
    torch.testing.assert_close(tower.head(x)[:, 0], features.cls, rtol=1e-5, atol=1e-5)


def test_its_description_is_the_extractors_but_for_the_width(clip_checkpoint: Clip) -> None:
    path = clip_checkpoint("ovskit-tiny")[1]
    dense = load_dense(NAME, weights=path, device=CPU).spec.to_json()
    backbone = load_backbone(NAME, facet="token", weights=path, device=CPU).spec.to_json()
    assert (dense.pop("dim"), backbone.pop("dim")) == (24, 64)
    assert dense == backbone


def test_it_computes_in_the_type_it_was_loaded_in(clip_checkpoint: Clip) -> None:
    tower = load_dense(NAME, weights=clip_checkpoint("ovskit-tiny")[1], device=CPU, dtype=torch.bfloat16)
    x = tower.block(0, tower.embed(images()))
    assert x.dtype == tower.attended(1, x).value.dtype == tower.head(x).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "name", ["clip:RN50/openai", "clip:ViT-B-16-SigLIP/webli", "clip:coca_ViT-B-32/laion2b_s13b_b90k", "clip:ViT-L-14-CLIPA/datacomp1b",
             "clip:convnext_base/laion400m_s13b_b51k", "clip:ovskit-tiny-timm"]
)  # fmt: skip
def test_towers_without_a_class_token_of_that_kind_are_refused_by_name(clip_checkpoint: Clip, name: str) -> None:
    path = clip_checkpoint("ovskit-tiny-timm")[1]
    with pytest.raises(UsageError, match=rf"^{name}: .*take ViT-B-16, ViT-B-32, .*ViT-L-14") as caught:
        load_dense(name, weights=path, device=CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["builtin", "handmade", "dino-vits8"])
def test_models_without_words_are_refused(name: str) -> None:
    assert not families.has_dense(name)
    with pytest.raises(
        UsageError, match=f"{name} has no image tower whose patches can be named: name clip:ARCH/TAG, such as clip:ViT-B-16/openai"
    ):
        load_dense(name, device=CPU)


def test_a_type_of_integers_and_the_weights_of_others_are_refused(clip_checkpoint: Clip) -> None:
    assert families.has_dense("clip:ViT-B-16/openai")
    assert not families.has_dense("nobody")
    with pytest.raises(UsageError, match="choose a floating-point type"):
        load_dense(NAME, weights=clip_checkpoint("ovskit-tiny")[1], device=CPU, dtype=torch.int32)
    with pytest.raises(InputError, match="not weights of clip:ovskit-tiny"):
        load_dense(NAME, weights=clip_checkpoint("ovskit-tiny-timm")[1], device=CPU)


def test_what_is_plain_is_what_open_clip_builds_as_a_plain_transformer() -> None:
    """Built without memory, so that every architecture can be looked at; those of timm are other classes by their configuration."""
    from open_clip.model import _build_vision_tower
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        if config["vision_cfg"].get("timm_model_name"):
            assert not is_plain(config), name
            continue
        with torch.device("meta"):
            network = _build_vision_tower(config["embed_dim"], config["vision_cfg"])
        plain = isinstance(network, VisionTransformer) and network.attn_pool is None and network.pool_type == "tok"
        plain = plain and all(type(block) is ResidualAttentionBlock for block in network.transformer.resblocks)
        assert is_plain(config) == plain, name


def test_the_list_in_the_message_is_short_and_true() -> None:
    names = plain_architectures()
    assert {"ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-H-14"} <= set(names)
    assert len(names) < 20
    assert all(is_plain(open_clip.get_model_config(name)) for name in names)
