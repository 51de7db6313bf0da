"""Which method opens a checkpoint is told by what the finished model says of itself."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ovskit.core.predict.job import PredictMethod, kind_of
from ovskit.core.predict.methods import PREDICT, method_of
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.settings import Options


def finished(folder: Path, kind: str) -> Path:
    folder.mkdir()
    said = {"ovskit": json.dumps({"format": kind, "config": {}})}
    save_file({"weight": np.zeros(3, np.float32)}, folder / "model.safetensors", said)
    return folder


def test_what_a_model_says_that_it_is(tmp_path: Path) -> None:
    assert kind_of(finished(tmp_path / "a", "ovskit.segmenter/1")) == "ovskit.segmenter/1"
    assert kind_of(tmp_path) == kind_of(tmp_path / "gone") == kind_of(tmp_path / "a" / "model.safetensors") == ""
    for k, content in enumerate((b"", b"\x08\0\0\0\0\0\0\0{}      ", b"\xff" * 9, b"\x02\0\0\0\0\0\0\0[]", b"\x90\0\0\0\0\0\0\0{")):
        (tmp_path / f"{k}").mkdir()
        (tmp_path / f"{k}" / "model.safetensors").write_bytes(content)
        assert kind_of(tmp_path / f"{k}") == ""


class ToyOptions(Options):
    """None."""


def test_a_method_says_which_checkpoints_it_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = PredictMethod("toy", "nothing.", ToyOptions, lambda job, options: None, opens=lambda path: kind_of(path) == "ovskit.toy/1")
    assert "toy" not in {method.name for method in PREDICT}
    monkeypatch.setitem(PREDICT._loaded, "toy", toy)
    assert method_of({"checkpoint": str(finished(tmp_path / "toy", "ovskit.toy/1"))}) == "toy"
    assert method_of({"checkpoint": str(finished(tmp_path / "ours", "ovskit.segmenter/1"))}) == "segmenter"
    # A checkpoint that no method opens is reported by the first method.
    assert method_of({"checkpoint": str(tmp_path / "gone")}) == "segmenter"
    with pytest.raises(UsageError, match="--checkpoint RUN"):
        method_of({})
