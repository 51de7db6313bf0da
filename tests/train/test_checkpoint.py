"""A checkpoint is whole and of this network, or it is refused with everything as it was."""

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ovskit.core.runtime.errors import InputError, MissingInputError, OutputError, UsageError
from ovskit.core.train.engine.checkpoint import (
    FILE_NAME,
    Checkpoint,
    check_folder,
    check_settings,
    collect_tensors,
    find_checkpoint,
    read_checkpoint,
    restore,
    write_checkpoint,
)

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]


def trained(seed: int = 0, steps: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network, one parameter of which never has a gradient, and its optimiser after some steps."""
    torch.manual_seed(seed)
    network = nn.ModuleDict({"a": nn.Conv2d(2, 3, 3), "b": nn.BatchNorm2d(3), "idle": nn.Linear(2, 2)})
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, fused=True)
    for _ in range(steps):
        optimizer.zero_grad()
        network["b"](network["a"](torch.randn(2, 2, 5, 5))).square().sum().backward()
        optimizer.step()
    return network, optimizer


def checkpoint_of(network: nn.Module, optimizer: torch.optim.Optimizer) -> Checkpoint:
    state = {"queue": torch.arange(4.0), "count": torch.tensor(7)}
    return Checkpoint("toy", 3, 1.25, {"a": 1}, {"seed": 0}, collect_tensors(network, optimizer, state), pg=[{"id": "x"}])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / FILE_NAME
    write_checkpoint(path, checkpoint_of(*trained()))
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """All dtypes and shapes, by our reader and by the library's own."""
    generator = torch.Generator().manual_seed(0)
    tensors = {f"t/{str(dtype)[6:]}": (100 * torch.randn(3, 5, generator=generator)).to(dtype) for dtype in DTYPES}
    tensors |= {"bool": torch.tensor([True, False]), "scalar": torch.tensor(3), "empty": torch.zeros(0, 4), "ä b": torch.ones(1)}
    tensors |= {"turned": torch.randn(3, 5).T, "last": torch.randn(1, 2, 3, 4).to(memory_format=torch.channels_last)}
    path = tmp_path / "c.safetensors"
    write_checkpoint(path, Checkpoint("toy", 3, 1.25, {"x": (1, 2)}, {}, tensors, {"scale": 2.0}, [{"id": "x"}]))
    found = read_checkpoint(path)
    for other in (found.tensors, load_file(path)):
        assert other.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert other[name].dtype == tensor.dtype
            assert torch.equal(other[name], tensor), name
    assert replace(found, tensors={}) == Checkpoint("toy", 3, 1.25, {"x": [1, 2]}, {}, {}, {"scale": 2.0}, [{"id": "x"}])
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["ovskit"])["format"] == "ovskit.checkpoint/1"


def test_same_content_same_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    checkpoint = checkpoint_of(*trained())
    write_checkpoint(one, checkpoint)
    write_checkpoint(two, replace(checkpoint, tensors=dict(reversed(checkpoint.tensors.items()))))
    assert one.read_bytes() == two.read_bytes()


def test_names(saved: Path) -> None:
    names = set(read_checkpoint(saved).tensors)
    assert {"model/a.weight", "model/b.running_var", "optimizer/a.weight/exp_avg", "optimizer/b.bias/step", "recipe/queue"} <= names
    assert not any(name.startswith("optimizer/idle") for name in names)


def test_restored_is_the_same(saved: Path) -> None:
    network, optimizer = trained()
    other, its_optimizer = trained(seed=1, steps=1)
    other.to(memory_format=torch.channels_last)
    rest = restore(saved, read_checkpoint(saved), other, its_optimizer, {"queue": torch.zeros(4), "count": torch.tensor(0)})
    assert torch.equal(rest["queue"], torch.arange(4.0))
    expected = collect_tensors(network, optimizer, {})
    found = collect_tensors(other, its_optimizer, {})
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    # The fused optimiser walks weights and moments by their places in memory.
    weight = other["a"].weight  # type: ignore[index]
    assert its_optimizer.state[weight]["exp_avg"].stride() == weight.stride()


Change = Callable[[dict[str, Tensor]], Any]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("model/a.bias"), "model/a.bias is missing"),
        (lambda t: t.update({"model/c": torch.zeros(1)}), "model/c is in it"),
        (lambda t: t.update({"model/a.bias": torch.zeros(4)}), r"model/a.bias has shape \(4,\), this network's has \(3,\)"),
        (lambda t: t.update({"model/a.bias": torch.zeros(3).half()}), "model/a.bias is float16, this network's is float32"),
        (lambda t: t.pop("recipe/count"), "recipe/count is missing"),
        (lambda t: t.update({"recipe/queue": torch.zeros(5)}), "recipe/queue has shape"),
        (lambda t: t.pop("optimizer/b.bias/exp_avg_sq"), "optimizer/b.bias/exp_avg_sq is missing"),
        (lambda t: t.update({"optimizer/b.bias/exp_avg": torch.zeros(1, 3)}), "optimizer/b.bias/exp_avg has shape"),
        (lambda t: t.update({"optimizer/b.bias/step": torch.zeros(2)}), "optimizer/b.bias/step has shape"),
        (lambda t: t.update({"optimizer/c/step": torch.tensor(1.0)}), "optimizer/c/step is in it"),
        (lambda t: t.update({"optimizer/odd": torch.tensor(1.0)}), "optimizer/odd"),
        (lambda t: t.update({"optimizer/b.bias/odd": torch.zeros(3)}), "optimizer/b.bias/odd is in it"),
        (lambda t: t.update({"other": torch.zeros(1)}), "other is in it"),
    ],
)
def test_what_does_not_fit_changes_nothing(saved: Path, change: Change, words: str) -> None:
    found = read_checkpoint(saved)
    tensors = dict(found.tensors)
    change(tensors)
    network, optimizer = trained(seed=1)
    before = {name: tensor.clone() for name, tensor in collect_tensors(network, optimizer, {}).items()}
    with pytest.raises(InputError, match=words) as caught:
        restore(saved, replace(found, tensors=tensors), network, optimizer, {"queue": torch.zeros(4), "count": torch.tensor(0)})
    assert str(saved) in str(caught.value)
    after = collect_tensors(network, optimizer, {})
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_truncated_file(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match="not a complete checkpoint"):
        read_checkpoint(saved)


@pytest.mark.parametrize("data", [b"\x00" * 64, b"PK\x03\x04" + b"x" * 90, b"\x80\x02}q\x00." * 9])
def test_a_foreign_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(data)
    with pytest.raises(InputError, match=FILE_NAME):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "metadata", [None, {"ovskit": "{"}, {"ovskit": "[]"}, {"ovskit": '{"format":"ovskit.checkpoint/1"}'}, {"format": "pt"}]
)
def test_a_safetensors_file_of_another_kind(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / FILE_NAME
    save_file({"a": torch.zeros(1)}, path, metadata)
    with pytest.raises(InputError, match="not a checkpoint of ovs-train"):
        read_checkpoint(path)


def test_a_newer_format(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    save_file({"a": torch.zeros(1)}, path, {"ovskit": '{"format":"ovskit.checkpoint/2"}'})
    with pytest.raises(InputError, match=r"ovskit.checkpoint/2.*this ovskit reads"):
        read_checkpoint(path)


def test_settings_are_compared_by_name() -> None:
    found = Checkpoint("toy", 3, 0.0, {"data": {"shape": [3, 2], "root": "a"}, "old": 1}, {"betas": [0.9, 0.99]}, {})
    path = Path(FILE_NAME)
    same: dict[str, Any] = {"data": {"root": "a", "shape": (3, 2)}, "old": 1}
    check_settings(path, found, recipe="toy", settings=same, run={"betas": (0.9, 0.99)})
    with pytest.raises(InputError) as caught:
        check_settings(path, found, recipe="toy", settings={"data": {"shape": (3, 3), "root": "a"}, "new": True}, run={"betas": (0.9, 0.9)})
    for words in (
        "data.shape ([3, 2], now [3, 3])",
        "old (1, now absent)",
        "new (absent, now true)",
        "betas ([0.9, 0.99], now [0.9, 0.9])",
    ):
        assert words in str(caught.value)
    assert "root" not in str(caught.value)
    with pytest.raises(InputError, match="is of ovs-train toy, not backbone"):
        check_settings(path, found, recipe="backbone", settings=same, run={})


def test_the_former_one_survives_a_failure(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="free some space"):
        write_checkpoint(saved, checkpoint_of(*trained(seed=1)))
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [FILE_NAME]


def test_what_differs_in_both_is_named_once() -> None:
    found = Checkpoint("toy", 3, 0.0, {"seed": 0}, {"seed": 0}, {})
    with pytest.raises(InputError) as caught:
        check_settings(Path(FILE_NAME), found, recipe="toy", settings={"seed": 3}, run={"seed": 3})
    assert str(caught.value).count("seed") == 1


@pytest.mark.parametrize("resume", [False, True])
def test_a_model_without_its_checkpoint_is_not_replaced(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UsageError, match=r"no checkpoint.*another folder, or move model\.safetensors away"):
        check_folder(tmp_path, resume=resume)
    (tmp_path / FILE_NAME).touch()
    with pytest.raises(UsageError, match="add --resume") if not resume else nullcontext():
        check_folder(tmp_path, resume=resume)


def test_finding_one(tmp_path: Path, saved: Path) -> None:
    assert find_checkpoint(tmp_path / "new", resume=True) is None
    found = find_checkpoint(saved.parent, resume=True)
    assert found is not None
    assert found.step == 3
    with pytest.raises(UsageError, match="--resume"):
        find_checkpoint(saved.parent, resume=False)
    with pytest.raises(UsageError, match="is a file"):
        find_checkpoint(saved, resume=True)
    with pytest.raises(MissingInputError, match="absent"):
        read_checkpoint(tmp_path / "absent")
