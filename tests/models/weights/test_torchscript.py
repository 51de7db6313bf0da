"""TorchScript archives: their weights without their code, against torch's own reading of them, and what is refused."""

from __future__ import annotations

import contextlib
import copy
import logging
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovskit.core.models.backbones.interface import BackboneSpec
from ovskit.core.models.clip.text_tower import load_clip_text
from ovskit.core.models.registry import load_backbone
from ovskit.core.models.weights.state_dict import read_state_dict
from ovskit.core.runtime.errors import InputError

CPU = torch.device("cpu")
Clip = Callable[[str], tuple[Any, Path]]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")


class Network(torch.nn.Module):
    """One of everything: nested modules, a shared one, a half-precision parameter, buffers, an expanded tensor, lists."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(3, 3), torch.nn.LayerNorm(3)])
        self.again = self.blocks[0]
        self.scale = torch.nn.Parameter(torch.tensor(1.5, dtype=torch.float16))
        self.register_buffer("turned", torch.arange(6.0).reshape(2, 3).T)
        self.register_buffer("wide", torch.ones(1).expand(4))
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("which", torch.tensor([True, False]))
        self.sizes = [1, 2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.again(x) * self.scale


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("script") / "network.pt"
    torch.jit.save(torch.jit.script(Network()), path)
    return path


def test_the_tensors_are_those_that_torch_finds(archive: Path) -> None:
    expected, found = torch.jit.load(archive).state_dict(), read_state_dict(archive)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_no_code_is_opened(archive: Path, tmp_path: Path) -> None:
    """Code that torch could not even compile makes no difference."""
    spoilt = tmp_path / "spoilt.pt"
    _copy(archive, spoilt, lambda name, content: b"import os; this is not code" if name.endswith(".py") else content)
    with pytest.raises(RuntimeError):
        torch.jit.load(spoilt)
    assert read_state_dict(spoilt).keys() == read_state_dict(archive).keys()


class Ran:
    """Unpickling one of these leaves a trace."""

    trace: Path

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("what", [Ran(), {"a": Ran()}, print, torch.nn.Linear, (zipfile.ZipFile,)])
def test_a_pickle_that_asks_for_more_is_refused_and_gets_nothing(archive: Path, tmp_path: Path, what: Any) -> None:
    Ran.trace = tmp_path / "trace"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        hostile = tmp_path / "hostile.pt"
        _copy(archive, hostile, lambda name, content, p=protocol: pickle.dumps(what, p) if name.endswith("/data.pkl") else content)
        with pytest.raises(
            InputError, match=r"hostile.pt: a TorchScript archive that holds more than modules and tensors .*, refused; "
        ) as error:
            read_state_dict(hostile)
        assert "\n" not in str(error.value)
    assert not Ran.trace.exists()


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 0.999), value=st.integers(0, 255), cut=st.booleans(), inside=st.booleans())
def test_damage_is_one_clear_error_or_none(archive: Path, tmp_path: Path, where: float, value: int, cut: bool, inside: bool) -> None:
    broken = tmp_path / "broken.pt"

    def change(content: bytes) -> bytes:
        at = int(where * len(content))
        return content[:at] if cut else content[:at] + bytes([value]) + content[at + 1 :]

    if inside:  # a whole zip, with a damaged pickle in it
        _copy(archive, broken, lambda name, content: change(content) if name.endswith("/data.pkl") else content)
    else:
        broken.write_bytes(change(archive.read_bytes()))
    with contextlib.suppress(InputError):  # whatever else is a bug
        read_state_dict(broken)


def test_a_record_shorter_than_its_tensor_and_a_compressed_one(archive: Path, tmp_path: Path) -> None:
    _copy(archive, tmp_path / "a.pt", lambda name, content: content[:4] if "/data/" in name else content)
    with pytest.raises(InputError, match="not a complete TorchScript archive"):
        read_state_dict(tmp_path / "a.pt")
    _copy(archive, tmp_path / "b.pt", lambda name, content: content, zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="compressed records"):
        read_state_dict(tmp_path / "b.pt")


def _copy(source: Path, target: Path, change: Callable[..., bytes], how: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", how) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


@pytest.fixture(scope="module")
def openai(clip_checkpoint: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP as OpenAI published theirs: traced, with three numbers as buffers."""
    network, _ = clip_checkpoint("ovskit-tiny-quickgelu")
    network = copy.deepcopy(network).eval()
    for name, value in (("input_resolution", 64), ("context_length", 8), ("vocab_size", 32)):
        network.__dict__.pop(name, None)
        network.register_buffer(name, torch.tensor(value))
    path = tmp_path_factory.mktemp("openai") / "ViT-B-32.pt"
    example = {"encode_text": torch.zeros(1, 8, dtype=torch.int64), "encode_image": torch.zeros(1, 3, 64, 64)}
    torch.jit.save(torch.jit.trace_module(network, example, check_trace=False), path)
    return path


def test_openais_archive_is_read_as_its_weights(
    clip_checkpoint: Clip, openai: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = "clip:ovskit-tiny-quickgelu"
    plain = clip_checkpoint("ovskit-tiny-quickgelu")[1]
    first, second = (load_backbone(name, weights=path, device=CPU) for path in (plain, openai))
    pixels = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first.extract(pixels).patch, second.extract(pixels).patch)
    spec: BackboneSpec = second.spec
    tokens = torch.randint(0, 32, (2, 8), generator=torch.Generator().manual_seed(0))
    texts = [load_clip_text(spec, weights=path, device=CPU) for path in (plain, openai)]
    assert texts[0].scale == texts[1].scale
    assert torch.equal(texts[0]._tower(tokens), texts[1]._tower(tokens))
    assert not caplog.records


def test_openais_archive_for_a_network_without_quickgelu_is_said(openai: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_backbone("clip:ovskit-tiny", weights=openai, device=CPU)
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (
        "is OpenAI's, trained with QuickGELU, but clip:ovskit-tiny computes GELU: give --model clip:ovskit-tiny/openai"
        in record.getMessage()
    )


def test_openclip_knows_openais_activation() -> None:
    assert open_clip.get_pretrained_cfg("ViT-B-32", "openai")["quick_gelu"] is True
