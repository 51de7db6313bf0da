"""timm backbones against timm's own forward pass, seen through hooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from ovskit.core.models.backbones.interface import FACETS, BackboneSpec
from ovskit.core.models.backbones.timm_vit import look_up, resamples_as_dino
from ovskit.core.models.backbones.vit import VitBackbone
from ovskit.core.models.families import resolve_name
from ovskit.core.models.registry import load_backbone, reload_backbone
from ovskit.core.runtime.errors import InputError, UsageError
from tests.reference import vit

Checkpoint = Callable[[str], tuple[torch.nn.Module, Path]]
CPU = torch.device("cpu")
PLAIN = "vit_tiny_patch16_224"
NO_CLS = "vit_wee_patch16_reg1_gap_256"
# One of each kind: learned positions, registers, two prefix tokens, rotary with biases apart from the projection,
# three projections instead of one, rotary positions that differ from block to block, and no CLS token.
KINDS = [
    PLAIN,
    "vit_small_patch14_reg4_dinov2",
    "deit_tiny_distilled_patch16_224",
    "vit_tiny_patch16_dinov3_qkvb",
    "eva02_tiny_patch14_224",
    "vit_small_patch16_rope_mixed_224",
    NO_CLS,
]


def images(stride: int, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, 2 * stride, 3 * stride), dtype=torch.uint8, generator=generator)


def seen_by_hooks(network: Any, x: torch.Tensor, layer: int) -> dict[str, torch.Tensor]:
    """What timm's own forward pass computes at one block, as token sequences (b, n, d)."""
    block, seen = network.blocks[layer], {}

    def heads_together(key: str) -> Callable[[Any, Any], None]:
        def hook(_module: Any, args: Any) -> None:
            seen[key] = args[0].transpose(1, 2).flatten(2)

        return hook

    handles = [
        block.attn.q_norm.register_forward_pre_hook(heads_together("query")),
        block.attn.k_norm.register_forward_pre_hook(heads_together("key")),
        block.norm1.register_forward_hook(lambda _m, _a, out: seen.__setitem__("normed", out)),
        block.register_forward_hook(lambda _m, _a, out: seen.__setitem__("token", out)),
    ]
    with torch.no_grad():
        seen["final"] = network.forward_features(x)
    for handle in handles:
        handle.remove()
    seen["value"] = torch.from_numpy(value_rows(block.attn, seen.pop("normed").double().numpy())).float()
    return seen


def value_rows(attention: Any, normed: np.ndarray) -> np.ndarray:
    state = {name: tensor.double().numpy() for name, tensor in attention.state_dict().items()}
    if "v_proj.weight" in state:
        return normed @ state["v_proj.weight"].T + state["v_proj.bias"]
    width = len(state["qkv.weight"]) // 3
    bias = state["v_bias"] if "v_bias" in state else state.get("qkv.bias", np.zeros(3 * width))[-width:]
    return normed @ state["qkv.weight"][-width:].T + bias


@pytest.mark.parametrize("name", KINDS)
def test_every_facet_is_what_timm_computes(timm_checkpoint: Checkpoint, name: str) -> None:
    network, path = timm_checkpoint(name)
    loaded: Any = load_backbone(f"timm:{name}", weights=path, device=CPU)
    spec, batch = loaded.spec, images(loaded.spec.stride)
    x = (batch / 255 - torch.tensor(spec.mean).view(1, 3, 1, 1)) / torch.tensor(spec.std).view(1, 3, 1, 1)
    assert spec.has_cls == (network.cls_token is not None)
    for layer in (-1, 4):
        seen = seen_by_hooks(network, x, layer)
        for facet in FACETS:
            backbone = VitBackbone(replace(spec, facet=facet, layer=layer), loaded._trunk, CPU, torch.float32)
            expected = (seen["final"] if facet == "token" and layer == -1 else seen[facet])[:, network.num_prefix_tokens :]
            features = backbone.extract(batch, cls=spec.has_cls)
            assert features.patch.shape == (2, 2, 3, spec.dim)
            torch.testing.assert_close(features.patch.reshape(2, 6, -1), expected, rtol=1e-4, atol=1e-4)
            if features.cls is not None:
                torch.testing.assert_close(features.cls, seen["final"][:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [PLAIN, "eva02_tiny_patch14_224"])
def test_features_of_an_image_are_the_same_bytes_in_any_batch(timm_checkpoint: Checkpoint, name: str) -> None:
    backbone = load_backbone(f"timm:{name}", weights=timm_checkpoint(name)[1], device=CPU)
    batch = images(backbone.spec.stride, 3)
    together = backbone.extract(batch, cls=True)
    assert together.cls is not None
    for index in range(3):
        alone = backbone.extract(batch[index : index + 1], cls=True)
        assert alone.cls is not None
        assert torch.equal(alone.patch[0], together.patch[index])
        assert torch.equal(alone.cls[0], together.cls[index])
        assert torch.equal(backbone.extract(batch[index : index + 1]).patch, alone.patch)
        assert torch.equal(backbone.extract(batch[index : index + 1], cls=True, patch=False).cls, alone.cls)
    assert not torch.equal(together.patch[0], together.patch[1])


def test_nothing_runs_beyond_the_projection(timm_checkpoint: Checkpoint) -> None:
    backbone: Any = load_backbone(f"timm:{PLAIN}", facet="key", layer=4, weights=timm_checkpoint(PLAIN)[1], device=CPU)
    blocks, ran = backbone._trunk.network.blocks, []
    for index, block in enumerate(blocks):
        block.register_forward_pre_hook(lambda _m, _a, index=index: ran.append(index))
    backbone.extract(images(16, 1))
    assert ran == [0, 1, 2, 3]
    ran.clear()
    backbone.extract(images(16, 1), cls=True)
    assert ran == list(range(12))


def test_cls_alone_leaves_the_patches_out(timm_checkpoint: Checkpoint) -> None:
    backbone = load_backbone(f"timm:{PLAIN}", weights=timm_checkpoint(PLAIN)[1], device=CPU)
    features = backbone.extract(images(16), cls=True, patch=False)
    assert features.patch.shape == (2, 0, 0, 192)
    assert features.cls is not None
    assert features.cls.shape == (2, 192)
    assert backbone.extract(images(16), patch=False).patch.shape == (2, 0, 0, 192)


def test_float16_on_a_cpu_is_float32_and_bfloat16_is_near(timm_checkpoint: Checkpoint) -> None:
    path, batch = timm_checkpoint("eva02_tiny_patch14_224")[1], images(14, 1)
    full, half, brain = (
        load_backbone("timm:eva02_tiny_patch14_224", weights=path, device=CPU, dtype=dtype).extract(batch).patch
        for dtype in (torch.float32, torch.float16, torch.bfloat16)
    )
    assert torch.equal(full, half)
    assert brain.dtype == torch.bfloat16
    assert not torch.equal(brain.float(), full)
    assert torch.nn.functional.cosine_similarity(brain.float(), full, dim=-1).min() > 0.99


def test_spec_carries_the_models_own_preprocessing(timm_checkpoint: Checkpoint) -> None:
    backbone = load_backbone(f"timm:{PLAIN}", weights=timm_checkpoint(PLAIN)[1], device=CPU)
    config = timm.data.resolve_model_data_config(timm.create_model(PLAIN))
    assert (backbone.spec.mean, backbone.spec.std, backbone.spec.interpolation) == (config["mean"], config["std"], "bicubic")
    assert backbone.spec.model == f"timm:{PLAIN}.augreg_in21k_ft_in1k"
    assert (backbone.spec.stride, backbone.spec.dim, backbone.spec.has_cls) == (16, 192, True)


def test_prepare_is_pillows_resize(timm_checkpoint: Checkpoint) -> None:
    backbone = load_backbone(f"timm:{PLAIN}", weights=timm_checkpoint(PLAIN)[1], device=CPU)
    image = np.random.default_rng(0).integers(0, 256, (50, 41, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((48, 32), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    prepared = backbone.prepare(image, 32, 48)
    assert prepared.dtype == torch.uint8
    assert np.array_equal(prepared.numpy(), expected)
    for height, width in [(33, 48), (32, 8), (0, 16)]:
        with pytest.raises(UsageError, match="16-pixel patch"):
            backbone.prepare(image, height, width)


def test_reload_gives_the_same_extractor_and_refuses_other_weights(timm_checkpoint: Checkpoint, tmp_path: Path) -> None:
    network, path = timm_checkpoint(PLAIN)
    first = load_backbone(f"timm:{PLAIN}", facet="value", layer=3, weights=path, device=CPU)
    spec = type(first.spec).from_json(first.spec.to_json())
    again = reload_backbone(spec, weights=path, device=CPU)
    assert torch.equal(first.extract(images(16)).patch, again.extract(images(16)).patch)
    changed = {name: tensor + 1 for name, tensor in network.state_dict().items()}
    torch.save(changed, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"were made by .* with weights sha256 .* but --weights .*other.pth are sha256"):
        reload_backbone(spec, weights=tmp_path / "other.pth", device=CPU)


def test_no_cls_is_said(timm_checkpoint: Checkpoint) -> None:
    backbone = load_backbone(f"timm:{NO_CLS}", weights=timm_checkpoint(NO_CLS)[1], device=CPU)
    with pytest.raises(UsageError, match="has no CLS token"):
        backbone.extract(images(16), cls=True)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (f"timm:{PLAIN}", {"layer": 12}, "12 blocks, -12 to 11"),
        (f"timm:{PLAIN}", {"layer": -13}, "12 blocks"),
        (f"timm:{PLAIN}", {"facet": "keys"}, "--facet keys: choose key, query"),
        (f"timm:{PLAIN}", {"dtype": torch.int8}, "floating-point"),
        (f"timm:{PLAIN}", {"positions": "scale"}, "--positions scale: choose official, size"),
        (f"timm:{PLAIN}", {"interpolation": "cubic"}, "--resample cubic: choose .*bicubic, lanczos"),
        ("timm:vit_tiny_patch16_223", {}, "did you mean vit_tiny_patch16_224"),
        ("timm:vit_base_patch8_224.dina", {}, "with the tags .*dino"),
        ("timm:resnet18", {}, "not supported: timm's plain ViTs"),
        ("timm:beit_base_patch16_224", {}, "not supported"),
        ("timm:samvit_base_patch16", {}, "not supported"),
        ("dino-vitb9", {}, r"did you mean dino-vitb8\?.*; valid: builtin, handmade, dino-vits8.*timm:NAME"),
        ("handmade", {}, "no weights to replace"),
    ],
)
def test_wishes_that_cannot_be_met(timm_checkpoint: Checkpoint, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_backbone(name, weights=timm_checkpoint(PLAIN)[1], device=CPU, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_tiny_patch16_384", "pos_embed is 1×197×192, not 1×577×192"),
        ("vit_small_patch32_224", "patch_embed.proj.weight is 192×3×16×16, not 384×3×32×32"),
        ("deit_tiny_distilled_patch16_224", "dist_token is missing"),
    ],
)
def test_weights_of_another_model_are_refused(timm_checkpoint: Checkpoint, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_backbone(f"timm:{name}", weights=timm_checkpoint(PLAIN)[1], device=CPU)


def test_the_authors_own_names_are_converted(timm_checkpoint: Checkpoint, tmp_path: Path) -> None:
    name = "vit_small_patch14_reg4_dinov2"
    network, _ = timm_checkpoint(name)
    state = dict(network.state_dict())
    # DINOv2's own layout: registers under another name, and a position for the CLS token, here of zeros.
    state["register_tokens"] = state.pop("reg_token")
    state["pos_embed"] = torch.cat([torch.zeros(1, 1, 384), state["pos_embed"]], dim=1)
    state["mask_token"] = torch.zeros(1, 384)
    torch.save(state, tmp_path / "dinov2.pth")
    converted: Any = load_backbone(f"timm:{name}", weights=tmp_path / "dinov2.pth", device=CPU)
    loaded = converted._trunk.network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in network.state_dict().items())
    state["pos_embed"] = state["pos_embed"][:, :257]
    torch.save(state, tmp_path / "smaller.pth")
    with pytest.raises(InputError, match="pos_embed is 1×257×384, for another image size than 1369 patches"):
        load_backbone(f"timm:{name}", weights=tmp_path / "smaller.pth", device=CPU)
    state["patch_embed.proj.weight"] = torch.zeros(384, 3, 16, 16)
    torch.save(state, tmp_path / "coarser.pth")
    with pytest.raises(InputError, match=r"patch_embed.proj.weight is 384×3×16×16, not 384×3×14×14"):
        load_backbone(f"timm:{name}", weights=tmp_path / "coarser.pth", device=CPU)


AS_DINO = ("dino-vits8", "dino-vitb16", "dinov2-vits14", "dinov2-vitg14")
OTHERS = ("dinov2-vits14-reg", "dinov2-vitg14-reg", "dinov3-vits16", f"timm:{PLAIN}", "timm:vit_base_patch16_224.mae")


@pytest.mark.parametrize(("name", "as_dino"), [*((name, True) for name in AS_DINO), *((name, False) for name in OTHERS)])
def test_whose_positions_are_resampled_as_dinos(name: str, as_dino: bool) -> None:
    assert resamples_as_dino(look_up(name, resolve_name(name))[0]) == as_dino


@pytest.mark.parametrize(("name", "size"), [("vit_small_patch16_224.dino", (3, 5)), ("vit_small_patch14_dinov2", (4, 3))])
def test_the_keys_of_dino_are_its_authors_at_another_size(timm_checkpoint: Checkpoint, name: str, size: tuple[int, int]) -> None:
    """Against the equations, in float64; by size, the other way, they are other keys, and of other shapes of grid too."""
    network, path = timm_checkpoint(name)
    official, by_size = (
        load_backbone(f"timm:{name}", weights=path, device=CPU, dtype=torch.float64, positions=positions)  # type: ignore[arg-type]
        for positions in ("official", "size")
    )
    stride = official.spec.stride
    pixels = torch.randint(
        0, 256, (1, 3, size[0] * stride, size[1] * stride), dtype=torch.uint8, generator=torch.Generator().manual_seed(4)
    )
    x = (pixels[0].double().numpy() / 255 - np.array(official.spec.mean)[:, None, None]) / np.array(official.spec.std)[:, None, None]
    state = {key: tensor.double().numpy() for key, tensor in network.state_dict().items()}
    expected = vit.keys(state, x, heads=6, layer=11)
    found = official.extract(pixels).patch[0].numpy()
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()
    assert np.abs(by_size.extract(pixels).patch[0].numpy() - expected).max() > 1e-3 * np.abs(expected).max()
    assert (official.spec.positions, by_size.spec.positions) == ("scale", "size")


def test_what_the_spec_says_of_positions_and_interpolation_is_what_a_reload_does(timm_checkpoint: Checkpoint) -> None:
    name = "vit_small_patch16_224.dino"
    path = timm_checkpoint(name)[1]
    pixels, image = images(16), np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for positions, interpolation in (("official", None), ("size", "lanczos")):
        first = load_backbone(f"timm:{name}", weights=path, device=CPU, positions=positions, interpolation=interpolation)  # type: ignore[arg-type]
        again = reload_backbone(BackboneSpec.from_json(first.spec.to_json()), weights=path, device=CPU)
        assert again.spec == first.spec
        assert torch.equal(again.extract(pixels).patch, first.extract(pixels).patch)
        resampling = Image.Resampling[(interpolation or "bicubic").upper()]
        expected = np.asarray(Image.fromarray(image).resize((32, 16), resampling)).transpose(2, 0, 1)
        assert np.array_equal(again.prepare(image, 16, 32).numpy(), expected)
    before = {key: value for key, value in first.spec.to_json().items() if key != "positions"}  # a stream of an older ovskit
    old = reload_backbone(BackboneSpec.from_json(before), weights=path, device=CPU)
    assert torch.equal(old.extract(pixels).patch, first.extract(pixels).patch)


@pytest.mark.parametrize("change", [{"interpolation": "cubic"}, {"interpolation": None}, {"positions": "sizes"}, {"positions": None}])
def test_a_spec_of_unknown_ways_is_refused(timm_checkpoint: Checkpoint, change: dict[str, Any]) -> None:
    spec = load_backbone("handmade", device=CPU).spec.to_json()
    with pytest.raises(InputError, match="model description is incomplete"):
        BackboneSpec.from_json({**spec, **change})


def test_the_heads_of_a_checkpoint_are_left_out_and_nothing_else(timm_checkpoint: Checkpoint, tmp_path: Path) -> None:
    network, _ = timm_checkpoint(PLAIN)
    state = {**network.state_dict(), "head.weight": torch.zeros(5, 192), "head.bias": torch.zeros(5)}
    torch.save({"teacher": {f"module.backbone.{name}": value for name, value in state.items()}}, tmp_path / "teacher.pth")
    backbone = load_backbone(f"timm:{PLAIN}", weights=tmp_path / "teacher.pth", device=CPU)
    plain = load_backbone(f"timm:{PLAIN}", weights=timm_checkpoint(PLAIN)[1], device=CPU)
    assert torch.equal(backbone.extract(images(16)).patch, plain.extract(images(16)).patch)
    torch.save({**state, "adapter.weight": torch.zeros(2)}, tmp_path / "more.pth")
    with pytest.raises(InputError, match=r"adapter.weight is not in the model"):
        load_backbone(f"timm:{PLAIN}", weights=tmp_path / "more.pth", device=CPU)
