"""Two towers on disk: what is read is what was written, and what is not one is refused in a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ovskit.core.models.towers.checkpoint import load_towers, save_towers
from ovskit.core.models.towers.config import TowersConfig
from ovskit.core.models.towers.header import read_config
from ovskit.core.models.towers.network import Towers
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError

from .conftest import make

Saved = Callable[..., tuple[Path, Towers]]


def test_there_and_back(saved: Saved) -> None:
    folder, towers = saved("test_resnet")
    loaded = load_towers(folder)
    assert loaded.scale == 20.0
    assert loaded.training == {"recipe": "pairs"}
    assert loaded.towers.config == towers.config == read_config(folder)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(loaded.towers.image(images), towers.image(images))
    before = (folder / "model.safetensors").read_bytes()
    assert save_towers(folder, towers, 20.0, {"recipe": "pairs"}) == loaded.sha256
    assert (folder / "model.safetensors").read_bytes() == before


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    towers = make("test_convnext")
    towers.image.projection.weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match="image.projection.weight is not finite"):
        save_towers(tmp_path, towers, 1.0, {})
    assert not list(tmp_path.iterdir())


def rewritten(folder: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> None:
    """The folder's model with another header or other tensors."""
    path = folder / "model.safetensors"
    content = path.read_bytes()
    header = json.loads(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["ovskit"])
    tensors = load_file(path)
    change(header, tensors)
    save_file(tensors, path, {"ovskit": json.dumps(header)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header, tensors: header.update(format="ovskit.segmenter/1"), "it is a segmenter; ovs-predict takes its folder"),
        (lambda header, tensors: header.update(format="ovskit.vit/1"), "a backbone without words"),
        (lambda header, tensors: header.update(format="ovskit.pairs/9"), "its format is 'ovskit.pairs/9'"),
        (lambda header, tensors: header.pop("config"), "the configuration in its header is damaged"),
        (lambda header, tensors: header["config"].update(text_layers=250, text_width=16_000), "beyond those of the weights"),
        (lambda header, tensors: header["config"].update(dim=13), "image.projection.weight is 12×"),
        (lambda header, tensors: header["config"].update(side=-3), "side is -3"),
        (lambda header, tensors: header["config"].update(text_heads=True), "text_heads is True, must be of type int"),
        (lambda header, tensors: header["config"].update(colour=1), "colour is unknown"),
        (lambda header, tensors: header["config"].update(arch="nothing"), "'nothing' cannot be made here"),
        (lambda header, tensors: header.update(scale="much"), "scale 'much'"),
        (lambda header, tensors: tensors.pop("text.ln_final.bias"), "lacks tensor text.ln_final.bias"),
        (lambda header, tensors: tensors.update(more=torch.zeros(1)), "has an unknown tensor more"),
        (lambda header, tensors: tensors["text.ln_final.bias"].fill_(float("inf")), "not finite"),
    ],
)
def test_what_is_refused(saved: Saved, change: Callable[..., None], message: str) -> None:
    folder, _ = saved("test_convnext")
    rewritten(folder, change)
    with pytest.raises(InputError, match=message) as caught:
        load_towers(folder)
    assert "\n" not in str(caught.value)


def test_what_is_not_there(saved: Saved, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such folder"):
        load_towers(tmp_path / "nowhere")
    with pytest.raises(MissingInputError, match="holds no model"):
        read_config(tmp_path)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"")
    with pytest.raises(MissingInputError, match="not finished: --resume goes on"):
        load_towers(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        load_towers(tmp_path / "checkpoint.safetensors")


@pytest.mark.parametrize("keep", [0, 7, 100, -10])
def test_a_file_that_was_cut(saved: Saved, keep: int) -> None:
    folder, _ = saved("test_convnext")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError):
        load_towers(folder)


@pytest.mark.parametrize(
    ("arch", "side", "message"),
    [
        ("nothing_of_the_kind", 32, "unknown model"),
        ("resnet18.a1_in1k", 32, "give resnet18, without the tag"),
        ("test_vit", 33, "multiple of"),
        ("swin_tiny_patch4_window7_224", 224, "not supported"),
    ],
)
def test_architectures_that_do_not_do(arch: str, side: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Towers(TowersConfig(arch, side, dim=4, context=8, text_width=8, text_heads=1, text_layers=1))
