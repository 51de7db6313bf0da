"""open_clip backbones against open_clip's own image encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from ovskit.core.models.backbones.interface import FACETS, Facet
from ovskit.core.models.clip.image_tower import look_up_clip
from ovskit.core.models.registry import load_backbone
from ovskit.core.runtime.errors import InputError, UsageError

CPU = torch.device("cpu")
NAME = "clip:ovskit-tiny"
Clip = Callable[[str], tuple[Any, Path]]


def images(side: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def normalised(batch: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    return (batch / 255 - mean) / std


@pytest.mark.parametrize("facet", FACETS)
@pytest.mark.parametrize("layer", [-1, 1])
def test_patches_and_image_embedding(clip_checkpoint: Clip, facet: Facet, layer: int) -> None:
    network, path = clip_checkpoint("ovskit-tiny")
    backbone = load_backbone(NAME, facet=facet, layer=layer, weights=path, device=CPU)
    block, seen = network.visual.transformer.resblocks[layer], {}
    handles = [
        block.ln_1.register_forward_hook(lambda _m, _a, out: seen.__setitem__("normed", out)),
        block.register_forward_hook(lambda _m, _a, out: seen.__setitem__("token", out)),
    ]
    with torch.no_grad():
        embedding = network.encode_image(normalised(images()))
    for handle in handles:
        handle.remove()
    if facet == "token":
        expected = network.visual.ln_post(seen["token"]) if layer == -1 else seen["token"]
    else:
        first = {"query": 0, "key": 64, "value": 128}[facet]
        weight, bias = block.attn.in_proj_weight.detach().double().numpy(), block.attn.in_proj_bias.detach().double().numpy()
        rows = seen["normed"].double().numpy() @ weight[first : first + 64].T + bias[first : first + 64]
        expected = torch.from_numpy(rows).float()
    features = backbone.extract(images(), cls=True)
    torch.testing.assert_close(features.patch.reshape(2, 16, 64), expected[:, 1:].detach(), rtol=1e-4, atol=1e-4)
    assert features.cls is not None
    torch.testing.assert_close(features.cls, embedding, rtol=1e-4, atol=1e-4)
    assert features.cls.shape == (2, 24)
    assert torch.equal(backbone.extract(images()).patch, features.patch)


def test_another_size_is_what_open_clip_built_for_that_size_gives(clip_checkpoint: Clip) -> None:
    network, path = clip_checkpoint("ovskit-tiny")
    larger = open_clip.create_model("ovskit-tiny", force_image_size=96)
    open_clip.load_checkpoint(larger, str(path))
    with torch.no_grad():
        embedding = larger.eval().encode_image(normalised(images(96)))
    features = load_backbone(NAME, weights=path, device=CPU).extract(images(96), cls=True)
    assert features.cls is not None
    torch.testing.assert_close(features.cls, embedding, rtol=1e-4, atol=1e-4)


def test_torchs_fast_path_is_left_as_it_was(clip_checkpoint: Clip) -> None:
    backbone = load_backbone(NAME, weights=clip_checkpoint("ovskit-tiny")[1], device=CPU)
    assert torch.backends.mha.get_fastpath_enabled()
    backbone.extract(images())
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_file_of_the_image_tower_alone(clip_checkpoint: Clip, tmp_path: Path) -> None:
    network, path = clip_checkpoint("ovskit-tiny")
    save_file({name: value.clone() for name, value in network.visual.state_dict().items()}, tmp_path / "visual.safetensors")
    whole, alone = (load_backbone(NAME, weights=file, device=CPU) for file in (path, tmp_path / "visual.safetensors"))
    assert torch.equal(whole.extract(images()).patch, alone.extract(images()).patch)
    assert whole.spec.weights_sha256 != alone.spec.weights_sha256


def test_weights_of_another_clip_are_refused(clip_checkpoint: Clip) -> None:
    with pytest.raises(InputError, match="not weights of clip:ovskit-tiny: class_embedding is missing"):
        load_backbone(NAME, weights=clip_checkpoint("ovskit-tiny-timm")[1], device=CPU)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clip:ViT-B16/openai", r"did you mean ViT-B-16"),
        ("clip:ViT-B-16/openia", "with the tags openai, laion400m_e31"),
        ("clip:RN50/openai", "not a ViT"),
        (NAME, "3 blocks, -3 to 2"),
    ],
)
def test_wishes_that_cannot_be_met(clip_checkpoint: Clip, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_backbone(name, layer=99, weights=clip_checkpoint("ovskit-tiny")[1], device=CPU)


def test_a_tag_is_needed_where_no_file_is_given() -> None:
    with pytest.raises(UsageError, match=r"needs a tag.*one of openai, laion400m_e31"):
        look_up_clip("clip:ViT-B-16", "ViT-B-16", need_tag=True)


def test_activation_and_preprocessing_are_those_the_tag_was_trained_with(clip_checkpoint: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    network, path = clip_checkpoint("ovskit-tiny-quickgelu")
    tag = {"quick_gelu": True, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "interpolation": "bilinear", "hf_hub": "x/y/"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ovskit-tiny", {"made_up": tag})
    backbone = load_backbone(f"{NAME}/made-up", weights=path, device=CPU)
    assert (backbone.spec.mean, backbone.spec.std, backbone.spec.interpolation) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear")
    mean, std = (torch.tensor(tag[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        embedding = network.encode_image((images() / 255 - mean) / std)
    features = backbone.extract(images(), cls=True, patch=False)
    assert features.cls is not None
    torch.testing.assert_close(features.cls, embedding, rtol=1e-4, atol=1e-4)


def test_an_image_tower_from_timm(clip_checkpoint: Clip) -> None:
    network, path = clip_checkpoint("ovskit-tiny-timm")
    backbone = load_backbone(f"{NAME}-timm", facet="token", weights=path, device=CPU)
    with torch.no_grad():
        embedding = network.encode_image(normalised(images(224)))
        tokens = network.visual.trunk.forward_features(normalised(images(224)))[:, 1:]
    features = backbone.extract(images(224), cls=True)
    assert features.cls is not None
    torch.testing.assert_close(features.cls, embedding, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features.patch.reshape(2, 196, 192), tokens, rtol=1e-4, atol=1e-4)
    assert backbone.extract(images(96)).patch.shape == (2, 6, 6, 192)
