"""The folder of a trained segmenter: bytes, refusals and crashes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from stand_in import TINY, StandIn, made

from ovskit.core.models.builtin.network import NetworkConfig
from ovskit.core.models.segmenter import checkpoint
from ovskit.core.models.segmenter.checkpoint import load_segmenter, save_segmenter
from ovskit.core.models.segmenter.config import SegmenterConfig
from ovskit.core.models.segmenter.open import input_size, open_segmenter
from ovskit.core.runtime.errors import InputError, MissingInputError, OutputError

TRAINING = {"pg": [{"id": "ovs-train"}], "data": "häuser.tar", "step": 7, "scores": {"AR": 0.25}}
Edit = Callable[[dict[str, torch.Tensor], dict[str, Any]], None]


def build(config: SegmenterConfig) -> StandIn:
    assert config.backbone == "builtin"
    return StandIn()


def tampered(folder: Path, edit: Edit) -> None:
    """Change a saved segmenter's tensors and header in place."""
    path = folder / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["ovskit"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    edit(tensors, header)
    save_file(tensors, path, {"ovskit": json.dumps(header)})


def test_round_trip(tmp_path: Path) -> None:
    network = made().train()
    sha256 = save_segmenter(tmp_path / "new" / "folder", network, TRAINING)
    found = load_segmenter(tmp_path / "new" / "folder", build)
    assert not found.segmenter.training
    assert found.segmenter.config == TINY
    assert found.training == TRAINING
    assert found.sha256 == sha256 == hashlib.sha256((tmp_path / "new/folder/model.safetensors").read_bytes()).hexdigest()
    before, after = network.state_dict(), found.segmenter.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(network.eval()(images).masks[-1], found.segmenter(images).masks[-1])


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    save_segmenter(tmp_path / "a", made(), TRAINING)
    save_segmenter(tmp_path / "b", made().to(memory_format=torch.channels_last), TRAINING)  # type: ignore[call-overload]
    loaded = load_segmenter(tmp_path / "a", build)
    save_segmenter(tmp_path / "c", loaded.segmenter, loaded.training)
    for name in ("model.safetensors", "config.json", "training.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()


def test_the_copies_name_the_weights(tmp_path: Path) -> None:
    sha256 = save_segmenter(tmp_path, made(), TRAINING)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config == {"format": "ovskit.segmenter/1", "sha256": sha256, "config": TINY.to_json()}
    training = json.loads((tmp_path / "training.json").read_text(encoding="utf-8"))
    assert training == {"format": "ovskit.segmenter/1", "sha256": sha256, "training": TRAINING}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors", "training.json"]


def test_lower_precision_is_saved_in_float32(tmp_path: Path) -> None:
    network = made().bfloat16()
    save_segmenter(tmp_path, network, {})
    found = load_segmenter(tmp_path, build).segmenter.state_dict()
    assert all(found[name].dtype == torch.float32 and torch.equal(found[name], t.float()) for name, t in network.state_dict().items())


@pytest.mark.parametrize("crash", [0, 1, 2])
def test_a_crash_between_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: int) -> None:
    """What is read is the old segmenter, all of it, until the new one is there; then the copies are new as well."""
    old = save_segmenter(tmp_path, made(seed=0), {"step": 1})
    plain, calls = checkpoint._write, []

    def write(path: Path, content: bytes) -> None:
        if len(calls) == crash:
            raise KeyboardInterrupt
        calls.append(path.name)
        plain(path, content)

    monkeypatch.setattr(checkpoint, "_write", write)
    other = replace(TINY, queries=9)
    with pytest.raises(KeyboardInterrupt):
        save_segmenter(tmp_path, made(other, seed=1), {"step": 2})
    found = load_segmenter(tmp_path, build)
    assert (found.sha256, found.training, found.segmenter.config) == (old, {"step": 1}, TINY)
    assert all(torch.equal(a, b) for a, b in zip(found.segmenter.state_dict().values(), made(seed=0).state_dict().values(), strict=True))
    copies = [json.loads((tmp_path / name).read_text())["sha256"] for name in ("config.json", "training.json")]
    assert [sha256 == old for sha256 in copies] == [crash <= k for k in range(2)]
    monkeypatch.setattr(checkpoint, "_write", plain)
    new = save_segmenter(tmp_path, made(other, seed=1), {"step": 2})
    found = load_segmenter(tmp_path, build)
    assert (found.sha256, found.training, found.segmenter.config) == (new, {"step": 2}, other)


def test_a_disk_that_fills_up_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = save_segmenter(tmp_path, made(), TRAINING)

    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="free some space"):
        save_segmenter(tmp_path, made(seed=1), TRAINING)
    monkeypatch.undo()
    assert load_segmenter(tmp_path, build).sha256 == old
    assert len(list(tmp_path.iterdir())) == 3


def test_nothing_is_written_for_weights_gone_wrong(tmp_path: Path) -> None:
    network = made()
    with torch.no_grad():
        network.ancestors.ancestor[0, 0] = torch.inf
    with pytest.raises(InputError, match="ancestors.ancestor is not finite"):
        save_segmenter(tmp_path / "out", network, {})
    with pytest.raises(ValueError, match="JSON"):
        save_segmenter(tmp_path / "out", made(), {"score": float("nan")})
    assert not (tmp_path / "out").exists()


def test_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such folder"):
        load_segmenter(tmp_path / "none", build)
    with pytest.raises(MissingInputError, match="holds no model.safetensors"):
        load_segmenter(tmp_path, build)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; give the folder"):
        load_segmenter(tmp_path / "file", build)
    with pytest.raises(OutputError, match="cannot make the folder"):
        save_segmenter(tmp_path / "file", made(), {})


@pytest.mark.parametrize("content", [b"", b"{}", b"\x80\x02}q\x00.", 7, 9, 4000, -1])
def test_damaged(tmp_path: Path, content: bytes | int) -> None:
    save_segmenter(tmp_path, made(), TRAINING)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:content] if isinstance(content, int) else content)
    with pytest.raises(InputError, match="not a complete safetensors file"):
        load_segmenter(tmp_path, build)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    torch.save(made().state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="not a complete safetensors file"):
        load_segmenter(tmp_path, build)


WEIGHT = "ancestors.descendant"
LAST = "pyramid.layers.3.weight"


def _set(name: str, value: torch.Tensor) -> Edit:
    return lambda tensors, header: tensors.update({name: value})


def _config(**changes: Any) -> Edit:
    return lambda tensors, header: header["config"].update(changes)


def _nan(tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    tensors[LAST].view(-1)[-1] = torch.nan


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tensors, header: header.update(format="ovskit.segmenter/2"), "not a segmenter's weights \\(format 'ovskit.segmenter/2'"),
        (lambda tensors, header: header.update(format="ovskit.vit/1"), "it is a backbone; ovs-extract takes it"),
        (lambda tensors, header: header.update(format="ovskit.grouping/1"), "it is a backbone; ovs-extract takes it"),
        (lambda tensors, header: header.update(format="ovskit.checkpoint/1"), "it is a run's checkpoint"),
        (lambda tensors, header: header.clear(), "format None"),
        (lambda tensors, header: header.pop("training"), "training is missing"),
        (lambda tensors, header: header.update(training=3), "header is damaged"),
        (lambda tensors, header: header["config"].pop("queries"), "queries is missing"),
        (_config(queries="6"), "queries is '6', must be of type int"),
        (_config(queries=7), "queries_embedder.weight is 6×32, the network's is 7×32"),
        (_config(decoder_layers=4), "lacks tensor decoders.queries.decoder.layers.2"),
        (_config(queries=64 * 10**9), "its sizes are beyond those of the weights"),
        (_config(hidden=32 * 10**9), "its sizes are beyond those of the weights"),
        (_config(decoder_feedforward=10**12), "its sizes are beyond those of the weights"),
        (_config(pixel_layers=10**7), "its sizes are beyond those of the weights"),
        (_config(decoder_layers=10**7), "its sizes are beyond those of the weights"),
        (lambda tensors, header: tensors.pop(WEIGHT), f"lacks tensor {WEIGHT}"),
        (_set("more", torch.zeros(1)), "has an unknown tensor more"),
        (_set(WEIGHT, torch.zeros(3, 3)), f"{WEIGHT} is 3×3, the network's is 32×32"),
        (_set(WEIGHT, torch.zeros(32, 32, dtype=torch.float16)), f"{WEIGHT} holds torch.float16 values"),
        (_nan, f"{LAST} holds values that are not finite"),
    ],
)
def test_refused(tmp_path: Path, edit: Edit, message: str) -> None:
    """And nothing of it is taken over."""
    save_segmenter(tmp_path, made(), TRAINING)
    tampered(tmp_path, edit)
    pyramid = StandIn()
    before = [parameter.clone() for parameter in pyramid.parameters()]
    with pytest.raises(InputError, match=message) as caught:
        load_segmenter(tmp_path, lambda config: pyramid)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, pyramid.parameters(), strict=True))


def test_another_pyramid_does_not_fit(tmp_path: Path) -> None:
    save_segmenter(tmp_path, made(), TRAINING)

    def larger(config: SegmenterConfig) -> StandIn:
        pyramid = StandIn()
        pyramid.layers[0] = torch.nn.Conv2d(3, 8, 8, stride=4)
        return pyramid

    with pytest.raises(InputError, match="pyramid.layers.0.weight is 8×3×4×4, the network's is 8×3×8×8"):
        load_segmenter(tmp_path, larger)


def test_extra_metadata_without_ours(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="format None"):
        load_segmenter(tmp_path, build)
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors", {"ovskit": "[1"})
    with pytest.raises(InputError, match="format None"):
        load_segmenter(tmp_path, build)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "timm:nosuch"}, "its backbone 'timm:nosuch' cannot be made here \\(unknown model"),
        ({"backbone": "handmade"}, "'handmade' cannot be made here"),
        ({"backbone": "builtin"}, "'builtin' cannot be made here \\(attention is missing"),
        ({"backbone": "builtin", "backbone_config": {"attention": "x"}}, "'builtin' cannot be made here"),
    ],
)
def test_a_backbone_that_cannot_be_made(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """Damage, or another version's: the file is named, and it is not the user's command that is wrong."""
    save_segmenter(tmp_path, made(), TRAINING)
    tampered(tmp_path, _config(**changes))
    with pytest.raises(InputError, match=message) as caught:
        open_segmenter(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_sizes_of_a_backbone_beyond_memory(tmp_path: Path) -> None:
    save_segmenter(tmp_path, made(), TRAINING)
    tampered(tmp_path, _config(backbone_config={**NetworkConfig().to_json(), "widths": [10**9] * 4}))
    with pytest.raises(InputError, match="'builtin' cannot be made here"):
        open_segmenter(tmp_path)


def test_a_file_without_an_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="not an ordinary file"):
        load_segmenter(tmp_path, build)


@pytest.mark.parametrize(("size", "read"), [(64, 64), (0, 512), (-5, 512), (True, 512), (10**9, 512), ("64", 512), (None, 512)])
def test_the_size_it_was_trained_at(tmp_path: Path, size: Any, read: int) -> None:
    save_segmenter(tmp_path, made(), {"size": size})
    assert input_size(load_segmenter(tmp_path, build)) == read
