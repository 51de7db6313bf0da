"""Checkpoints as others lay them out, against transformers' own networks and DINO's own wrapping; and whose they are taken for."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from ovskit.core.models.backbones.timm_vit import fill
from ovskit.core.models.registry import load_backbone
from ovskit.core.models.weights.layouts import to_authors_names
from ovskit.core.models.weights.state_dict import read_checkpoint, read_state_dict
from ovskit.core.runtime.errors import InputError
from tests.models.conftest import randomise

CPU = torch.device("cpu")
PLAIN = "vit_tiny_patch16_224"
Checkpoint = Callable[[str], tuple[torch.nn.Module, Path]]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8, "layer_norm_eps": 1e-6}


def small_vit(**options: Any) -> Any:
    """timm's network of the same size as transformers' with ``SMALL``."""
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0, dynamic_img_size=True, **options)


def transformers_kinds() -> dict[str, tuple[Any, Any]]:
    """Networks of transformers with random weights, and the empty ones of timm that theirs should fit."""
    plain = ViTConfig(**SMALL, intermediate_size=64)
    registers: dict[str, Any] = {"init_values": 1e-5, "reg_tokens": 4, "no_embed_class": True}
    swiglu = Dinov2Config(**SMALL, mlp_ratio=2, use_swiglu_ffn=True)
    # (2/3 of twice the width, to the next multiple of 8), twice: the gate and what goes through it.
    gated: dict[str, Any] = {"init_values": 1e-5, "mlp_ratio": 2 * 48 / 32, "mlp_layer": SwiGLUPacked, "act_layer": torch.nn.SiLU}
    return {
        "vit": (ViTModel(plain), small_vit(mlp_ratio=2)),
        "vit without a pooler": (ViTModel(plain, add_pooling_layer=False), small_vit(mlp_ratio=2)),
        "vit in a classifier": (ViTForImageClassification(plain), small_vit(mlp_ratio=2)),
        "dinov2": (Dinov2Model(Dinov2Config(**SMALL, mlp_ratio=2)), small_vit(mlp_ratio=2, init_values=1e-5)),
        "dinov2 with registers": (
            Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SMALL, mlp_ratio=2)),
            small_vit(mlp_ratio=2, **registers),
        ),
        "dinov2 with a gate": (Dinov2Model(swiglu), small_vit(**gated)),
    }


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("saved_by", ["save_pretrained", "torch.save"])
def test_transformers_dinov3_gives_its_tokens(gate: bool, saved_by: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    size = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32, "patch_size": 8}
    theirs = DINOv3ViTModel(DINOv3ViTConfig(**size, num_register_tokens=4, use_gated_mlp=gate, hidden_act="silu" if gate else "gelu"))
    randomise(theirs, seed=3)
    gated = {"swiglu_mlp": True, "swiglu_align_to": 8} if gate else {}
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 2, "mlp_ratio": 64 / 48, **gated}
    ours: Any = timm.create_model("vit_tiny_patch16_dinov3_qkvb", num_classes=0, **small)
    path = tmp_path / "model.safetensors"
    if saved_by == "torch.save":
        torch.save(theirs.state_dict(), path)
    else:
        theirs.save_pretrained(tmp_path)
    fill(ours, path, "m")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval().forward_features(images), theirs(images).last_hidden_state, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", transformers_kinds())
@pytest.mark.parametrize("saved_by", ["save_pretrained", "torch.save"])
def test_transformers_layouts_give_transformers_tokens(kind: str, saved_by: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs, ours = transformers_kinds()[kind]
    randomise(theirs, seed=3)
    if saved_by == "torch.save":  # by the names of its modules
        path = tmp_path / "model.bin"
        torch.save(theirs.state_dict(), path)
    else:  # by those of the files on the hub
        theirs.save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
    fill(ours, path, kind)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = getattr(theirs, theirs.base_model_prefix, theirs)(images).last_hidden_state
        torch.testing.assert_close(ours.eval().forward_features(images), expected, rtol=1e-5, atol=1e-5)


def test_a_layout_that_lacks_something_is_refused(tmp_path: Path) -> None:
    theirs, ours = transformers_kinds()["dinov2"]
    for part, message in (
        ("layers.1.attention.k_proj.weight", "blocks.1.attn.qkv.weight is missing"),
        ("layernorm.weight", "norm.weight is missing"),
    ):
        state = {name: tensor for name, tensor in theirs.state_dict().items() if not name.replace("layer.", "layers.").endswith(part)}
        assert len(state) == len(theirs.state_dict()) - 1
        torch.save(state, tmp_path / "less.pth")
        with pytest.raises(InputError, match=message):
            fill(ours, tmp_path / "less.pth", "m")
    torch.save({**theirs.state_dict(), "encoder.layer.1.extra.weight": torch.zeros(1)}, tmp_path / "more.pth")
    with pytest.raises(InputError, match=r"blocks.1.extra.weight is not in the model"):
        fill(ours, tmp_path / "more.pth", "m")


def test_blocks_in_chunks_are_taken_out(tmp_path: Path) -> None:
    """As DINOv2's training keeps them: the number in a chunk is that in the network."""
    state = {name: torch.zeros(1) for name in ("cls_token", "blocks.0.0.norm1.weight", "blocks.1.11.norm1.weight", "norm.weight")}
    assert list(to_authors_names(state)) == ["cls_token", "blocks.0.norm1.weight", "blocks.11.norm1.weight", "norm.weight"]
    plain = {"blocks.0.norm1.weight": torch.zeros(1)}
    assert to_authors_names(plain) == plain


# ---- whose


def dinos(network: torch.nn.Module, *, student: float = 1.0) -> dict[str, Any]:
    """DINO's full checkpoint of a network: student, teacher, their heads, and all that training goes on from."""
    state = {f"backbone.{name}": value.clone() for name, value in network.state_dict().items()}
    heads = {"head.mlp.0.weight": torch.zeros(2, 2), "head.last_layer.weight_v": torch.zeros(2, 2)}
    parameter = torch.nn.Parameter(torch.zeros(1))
    return {
        "student": {f"module.{name}": value + student for name, value in {**state, **heads}.items()},
        "teacher": {**state, **heads},
        "optimizer": torch.optim.AdamW([parameter]).state_dict(),
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", patch_size=16, local_crops_scale=(0.05, 0.4), output_dir="."),
        "dino_loss": {"center": torch.zeros(1, 4)},
    }


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    caplog.clear()
    assert not any("\n" in each for each in found)
    return found


def same_patches(first: Any, second: Any) -> bool:
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return torch.equal(first.extract(pixels).patch, second.extract(pixels).patch)


def test_dinos_full_checkpoint_is_its_teacher(timm_checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network, path = timm_checkpoint("vit_small_patch16_224.dino")
    torch.save(dinos(network), tmp_path / "full.pth")
    full = load_backbone("dino-vits16", weights=tmp_path / "full.pth", device=CPU)
    assert warnings(caplog) == [f"{tmp_path / 'full.pth'}: holds teacher and student; the teacher is taken"]
    assert same_patches(full, load_backbone("dino-vits16", weights=path, device=CPU))
    assert warnings(caplog) == []


def test_a_student_alone_is_read_and_said(timm_checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network, path = timm_checkpoint("vit_small_patch16_224.dino")
    torch.save({"student": dinos(network, student=0.0)["student"]}, tmp_path / "student.pth")
    student = load_backbone("dino-vits16", weights=tmp_path / "student.pth", device=CPU)
    assert warnings(caplog) == [f"{tmp_path / 'student.pth'}: holds a student without its teacher; the student is taken"]
    assert same_patches(student, load_backbone("dino-vits16", weights=path, device=CPU))


ONE, TWO = {"weight": torch.ones(2)}, {"weight": torch.zeros(2)}
DINO_HEAD = {"head.mlp.0.weight": torch.zeros(2)}


@pytest.mark.parametrize(
    ("content", "teacher", "taken"),
    [
        ({"model": ONE, "teacher": TWO}, False, "model"),  # somebody's who learns from another network
        ({"model": ONE, "teacher": TWO}, True, "teacher"),  # for a model of DINO's
        ({"model": ONE, "teacher": {**TWO, **DINO_HEAD}}, False, "teacher"),
        ({"student": ONE, "teacher": TWO}, False, "teacher"),
        ({"model": ONE, "student": ONE, "teacher": TWO}, False, "teacher"),
        ({"model": {"student": ONE, "teacher": TWO}, "epoch": 3}, False, "teacher"),
        ({"state_dict": ONE, "state_dict_ema": TWO}, False, "state_dict"),
        ({"model": ONE, "model_ema": TWO}, False, "model"),
        ({"model": {"name": "vit"}, "teacher": TWO}, False, None),  # settings, no weights
        ({"model": ONE, "teacher": {}}, False, None),
        ({"state_dict": ONE}, False, None),
        (ONE, True, None),
    ],
)  # fmt: skip
def test_of_several_one_is_taken_and_named(
    content: dict[str, Any], teacher: bool, taken: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(content, tmp_path / "w.pth")
    found = read_checkpoint(tmp_path / "w.pth", teacher=teacher).state["weight"]
    said = warnings(caplog)
    assert len(said) == (taken is not None)
    if taken is not None:
        assert said[0].endswith(f"; the {taken} is taken")
        inner = content.get("model", content) if "student" in content.get("model", ()) else content
        assert torch.equal(found, inner[taken]["weight"])


def test_wrappers_without_end_are_no_checkpoint(tmp_path: Path) -> None:
    knot: dict[str, Any] = {"model": {}}
    knot["model"]["model"] = knot
    torch.save(knot, tmp_path / "knot.pth")
    with pytest.raises(InputError, match="holds no tensors"):
        read_state_dict(tmp_path / "knot.pth")


def test_weights_of_dino_under_another_name_are_said(timm_checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network, path = timm_checkpoint("vit_small_patch16_224.dino")
    load_backbone("timm:vit_small_patch16_224", weights=path, device=CPU)  # the backbone alone: nothing in it says so
    (said,) = warnings(caplog)
    assert "has no classifier, so it may not be vit_small_patch16_224.augreg_in21k_ft_in1k, for which images are normalised by" in said
    assert "mean 0.5, 0.5, 0.5 and std 0.5, 0.5, 0.5: for DINO's give --model dino-vits16, else a tag" in said
    torch.save({"teacher": dinos(network)["teacher"]}, tmp_path / "teacher.pth")
    for name in ("vit_small_patch16_224", "vit_small_patch16_224.augreg_in21k_ft_in1k", "deit_small_patch16_224"):
        load_backbone(f"timm:{name}", weights=tmp_path / "teacher.pth", device=CPU)
        (said,) = warnings(caplog)
        assert f"is laid out as DINO's, but timm:{name} normalises images by mean 0." in said
        assert said.endswith(": give --model dino-vits16") or name.startswith("deit")
    load_backbone("timm:vit_small_patch16_224.dino", weights=tmp_path / "teacher.pth", device=CPU)
    assert warnings(caplog) == []


def test_weights_that_say_whose_they_are_are_not_doubted(
    timm_checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network, _ = timm_checkpoint(PLAIN)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    save_file({**state, "head.weight": torch.zeros(5, 192), "head.bias": torch.zeros(5)}, tmp_path / "classifier.safetensors")
    save_file(state, tmp_path / "ours.safetensors", {"ovskit": "{}"})  # as ovs-train dino writes it
    save_file(state, tmp_path / "bare.safetensors")
    for name, file in ((PLAIN, "classifier"), (PLAIN, "ours"), (f"{PLAIN}.augreg_in21k", "bare"), ("deit_tiny_patch16_224", "bare")):
        load_backbone(f"timm:{name}", weights=tmp_path / f"{file}.safetensors", device=CPU)
        assert warnings(caplog) == []


def test_weights_of_our_own_training_under_another_name_are_said(
    timm_checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network, _ = timm_checkpoint("vit_small_patch16_224.dino")
    save_file({name: tensor.clone() for name, tensor in network.state_dict().items()}, tmp_path / "w.safetensors", {"ovskit": "{}"})
    load_backbone("dino-vits16", weights=tmp_path / "w.safetensors", device=CPU)
    (said,) = warnings(caplog)
    assert "is of ovs-train, which normalises images otherwise than dino-vits16 with its mean 0.485" in said
    assert said.endswith(": give --model timm:vit_small_patch16_224")
    load_backbone("timm:vit_small_patch16_224", weights=tmp_path / "w.safetensors", device=CPU)
    assert warnings(caplog) == []


def test_a_classifier_given_for_dino_is_said(timm_checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network, _ = timm_checkpoint("vit_small_patch16_224.dino")
    torch.save({**network.state_dict(), "head.weight": torch.zeros(5, 384), "head.bias": torch.zeros(5)}, tmp_path / "w.pth")
    load_backbone("dino-vits16", weights=tmp_path / "w.pth", device=CPU)
    (said,) = warnings(caplog)
    assert "has a classifier, which dino-vits16 has not; images are normalised as for dino-vits16 all the same, by mean 0.485" in said


def test_timm_still_says_what_is_relied_on() -> None:
    cfg = timm.get_pretrained_cfg(PLAIN)
    assert (cfg.tag, cfg.num_classes, cfg.mean) == ("augreg_in21k_ft_in1k", 1000, (0.5, 0.5, 0.5))
