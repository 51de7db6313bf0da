"""Weights files: what is read, what is refused, and that every refusal is one line that names the file."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ovskit.core.models.weights.state_dict import NoInit, fit, read_state_dict
from ovskit.core.runtime.errors import InputError

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, 2.0])}


class Ran:
    """Unpickling one of these leaves a trace."""

    trace: Path

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


def same(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == STATE.keys() and all(torch.equal(state[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ""])
def test_safetensors_whatever_the_file_is_called(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    save_file(STATE, path)
    assert same(read_state_dict(path))


def test_a_torch_file_whatever_it_is_called(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "weights.safetensors")
    assert same(read_state_dict(tmp_path / "weights.safetensors"))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wrappers=st.lists(st.sampled_from(["state_dict", "model", "teacher", "student", "model_state_dict"]), max_size=3),
    prefix=st.sampled_from(["", "module.", "backbone.", "module.backbone.", "_orig_mod.module."]),
    legacy=st.booleans(),
)
def test_wrappers_and_prefixes_come_off(tmp_path: Path, wrappers: list[str], prefix: str, legacy: bool) -> None:
    content: Any = {prefix + name: value for name, value in STATE.items()}
    if "backbone." in prefix:
        content[prefix.replace("backbone.", "head.") + "weight"] = torch.zeros(1)
    for wrapper in wrappers:
        content = {wrapper: content, "epoch": 3}
    torch.save(content, tmp_path / "weights.pth", _use_new_zipfile_serialization=not legacy)
    assert same(read_state_dict(tmp_path / "weights.pth"))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, legacy: bool) -> None:
    Ran.trace = tmp_path / "trace"
    torch.save({"state_dict": STATE, "args": Ran()}, tmp_path / "code.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match="code.pth: holds more than tensors .a pickle that runs code when opened") as caught:
        read_state_dict(tmp_path / "code.pth")
    assert "\n" not in str(caught.value)
    assert not Ran.trace.exists()
    with (tmp_path / "bare.pkl").open("wb") as file:
        pickle.dump(Ran(), file)
    with pytest.raises(InputError):
        read_state_dict(tmp_path / "bare.pkl")
    assert not Ran.trace.exists()


class Bag:
    """As ``argparse.Namespace``, but another class."""


@pytest.mark.parametrize("legacy", [False, True])
def test_settings_of_argparse_are_read_over_and_no_other_class_is(tmp_path: Path, legacy: bool) -> None:
    for args, fine in ((argparse.Namespace(lr=0.1, arch="vit", crops=(0.4, 1.0)), True), (Bag(), False)):
        torch.save({"state_dict": STATE, "args": args}, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
        if fine:
            assert same(read_state_dict(tmp_path / "w.pth"))
        else:
            with pytest.raises(InputError, match="holds more than tensors"):
                read_state_dict(tmp_path / "w.pth")
    assert argparse.Namespace not in torch.serialization.get_safe_globals()  # only while a file is read


def test_a_namespace_does_not_let_code_in(tmp_path: Path) -> None:
    Ran.trace = tmp_path / "trace"
    torch.save({"state_dict": STATE, "args": argparse.Namespace(x=Ran())}, tmp_path / "code.pth")
    with pytest.raises(InputError, match="holds more than tensors"):
        read_state_dict(tmp_path / "code.pth")
    assert not Ran.trace.exists()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["safetensors", "zip", "legacy"]), keep=st.floats(0, 0.999))
def test_a_file_cut_short_is_one_clear_error(tmp_path: Path, kind: str, keep: float) -> None:
    path = tmp_path / "weights"
    if kind == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(InputError, match=str(path)) as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), head=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x10\0\0\0\0\0\0\0{"]))
def test_any_bytes_give_an_input_error(tmp_path: Path, content: bytes, head: bytes) -> None:
    path = tmp_path / "weights"
    path.write_bytes(head + content)
    with pytest.raises(InputError, match=str(path)):
        read_state_dict(path)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"state_dict": {}}])
def test_no_tensors(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="holds no tensors"):
        read_state_dict(tmp_path / "weights.pth")


def test_fit_names_the_first_mismatches_and_loads_nothing() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = {"0.weight": torch.zeros(3, 3), "0.bias": torch.zeros(2), "more": torch.zeros(1), "most": torch.zeros(1)}
    message = r"f.pth: not weights of m: 1.weight is missing, 1.bias is missing, 0.weight is 3×3, not 2×3 and 2 more"
    with pytest.raises(InputError, match=message):
        fit(model, state, Path("f.pth"), "m")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_fit_ignores_named_parts_unless_the_model_has_them() -> None:
    model = torch.nn.Linear(3, 2)
    fit(model, {**STATE, "head.weight": torch.zeros(1), "head": torch.zeros(1)}, Path("f"), "m", ignore=["head"])
    assert torch.equal(model.weight, STATE["weight"])
    fit(model, {**STATE, "weight": torch.ones(2, 3)}, Path("f"), "m", ignore=["weight"])
    assert torch.equal(model.weight, torch.ones(2, 3))
    with pytest.raises(InputError, match=r"header is not in the model"):
        fit(model, {**STATE, "header": torch.zeros(1)}, Path("f"), "m", ignore=["head"])


def test_no_init_draws_nothing_and_touches_nothing_else() -> None:
    state = torch.get_rng_state()
    with NoInit():
        layer = torch.nn.Linear(4, 4)
        norm = torch.nn.LayerNorm(4)
    assert torch.equal(torch.get_rng_state(), state)
    assert layer.weight.shape == (4, 4)
    assert torch.equal(norm.weight, torch.ones(4))
    assert torch.nn.Linear(4, 4).weight.std() > 0
