"""Training by ``ovs-train`` on a card, and commands that open what it made: a file of its own, since files run beside each other there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenes import Faults, write_scenes

from .streams import read_features, read_masks

pytestmark = [pytest.mark.gpu, pytest.mark.heavy]


def test_train_and_predict_by_default(at_once: Callable[..., None], tmp_path: Path) -> None:
    """``--device auto`` takes the card, with bfloat16 where it has some; what is trained is judged there, and read again."""
    write_scenes(tmp_path, range(4), side=64, faults=Faults())
    images = tmp_path / "images"
    small = ["size=tiny", "queries=8", "points=64", "side=64"]
    narrow = ["widths=8,8,8,8", "blocks=1,1,1,1", "pyramid=8", "embedding=8", "crop=64", "shorter_side=64", "scales=250,1000", "anchors=4"]
    judged = ["--eval", tmp_path / "truth.json", "--eval-root", images, "--eval-every", 2, "--eval-limit", 1]
    how = ["--batch", 2, "--steps", 2, "-j", 1, "--warmup", 1, *judged]

    def settings(values: list[str]) -> list[str]:
        return [word for one in values for word in ("--set", one)]

    at_once(
        ("ovs-train", "segment", tmp_path / "pseudo.json", "--images", images, *how, *settings(small), "-o", tmp_path / "run"),
        ("ovs-train", "backbone", images, *how, *settings([*narrow, "queue=16", "negatives=16"]), "-o", tmp_path / "backbone"),
    )
    for run in ("run", "backbone"):
        assert "evaluation" in (tmp_path / run / "log.jsonl").read_text()
    weights = tmp_path / "backbone/model.safetensors"
    at_once(
        ("ovs-predict", images, "--checkpoint", tmp_path / "run", "-o", tmp_path / "masks.json"),
        ("ovs-extract", images, "--weights", weights, "--size", 64, "--cls", "-o", tmp_path / "features.npz"),
    )
    assert len(read_masks(tmp_path / "masks.json")) == len(read_features(tmp_path / "features.npz")) == 4
