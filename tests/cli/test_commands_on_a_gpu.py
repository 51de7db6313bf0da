"""Commands with ``--device cuda`` against the same with ``--device cpu``, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from ovskit.core.formats import rle
from ovskit.core.formats.features import FeatureReader
from ovskit.core.formats.masks import open_masks
from ovskit.core.models.segmenter.checkpoint import save_segmenter
from ovskit.core.records import FeatureMap, MaskSet
from ovskit.core.train.segment import new_segmenter
from ovskit.core.train.segment_settings import SegmentSettings
from tests.differences import between_patches
from tests.scenes import Faults, write_scenes

pytestmark = [pytest.mark.gpu, pytest.mark.heavy]

PRETEND = Path(__file__).parents[1] / "pretend_card.py"
# As the installed script does; where ovskit is only on the path there is none.
SCRIPT = "import sys; sys.argv[0] = {tool!r}; from ovskit.cli.{name} import app; app()"

Measured = Callable[..., None]


@pytest.fixture
def command(request: pytest.FixtureRequest) -> Callable[..., None]:
    """``command("ovs-extract", …)`` runs it, on the pretend card if that is what the test has."""
    pretended = hasattr(torch.zeros(1, device="cuda"), "inside")

    def run(tool: str, *arguments: object) -> None:
        name = tool.removeprefix("ovs-")
        start = [str(PRETEND), tool] if pretended else ["-c", SCRIPT.format(tool=tool, name=name)]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("OVS_")}
        paths = os.pathsep.join([str(PRETEND.parents[1]), *filter(None, [kept.get("PYTHONPATH")])])
        done = subprocess.run(
            [sys.executable, *start, *map(str, arguments)], capture_output=True, env={**kept, "PYTHONPATH": paths}, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr.decode()[-2000:]

    return run


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs") / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(3):
        small = rng.integers(0, 255, (10, 13, 3)).astype(np.uint8)
        Picture.fromarray(small).resize((130, 100), Picture.Resampling.BICUBIC).save(folder / f"{k}.png")
    return folder


def features(path: Path) -> list[FeatureMap]:
    with open(path, "rb") as stream:
        reader = FeatureReader(stream, str(path))
        found: list[Any] = []
        while reader.peek():
            found.append(reader.take())
        return found


def masks(path: Path) -> list[MaskSet]:
    with open(path, "rb") as stream:
        return list(open_masks(stream, str(path))[1])


def overlap(found: list[MaskSet], expected: list[MaskSet]) -> float:
    best = []
    for one, other in zip(found, expected, strict=True):
        assert one.image == other.image
        table = rle.RunTable([mask.rle for mask in other.masks])
        best.append(np.asarray(rle.iou(table, rle.RunTable([mask.rle for mask in one.masks]))).max(axis=1))
    return float(np.concatenate(best).mean())


def test_extract(command: Callable[..., None], photographs: Path, tmp_path: Path, measured: Measured) -> None:
    """With TF32 in the network's convolutions, as a person has it: a mean difference of 0.02 between patches' cosines."""
    for device in ("cpu", "cuda"):
        command("ovs-extract", photographs, "--size", "128", "--device", device, "-o", tmp_path / f"{device}.npz")
    here, there = (features(tmp_path / f"{device}.npz") for device in ("cpu", "cuda"))
    assert [one.image for one in here] == [one.image for one in there]
    apart = [
        (between_patches(torch.from_numpy(one.patch)[None]) - between_patches(torch.from_numpy(other.patch)[None])).abs()
        for one, other in zip(here, there, strict=True)
    ]
    mean = float(torch.stack([one.mean() for one in apart]).mean())
    measured(mean=mean)
    assert mean < 0.02


def test_cluster_looks_closer(command: Callable[..., None], photographs: Path, tmp_path: Path, measured: Measured) -> None:
    """The same features, so only the crops of the local step are seen by the card: masks overlap by 0.9 in the mean."""
    command("ovs-extract", photographs, "--size", "128", "--device", "cpu", "-o", tmp_path / "f.npz")
    for device in ("cpu", "cuda"):
        how = ["--thresholds", "0.6..0.2", "--local", "--local-size", "64", "--device", device]
        command("ovs-cluster", tmp_path / "f.npz", *how, "-o", tmp_path / f"{device}.json")
    here, there = (masks(tmp_path / f"{device}.json") for device in ("cpu", "cuda"))
    found = overlap(there, here)
    measured(iou=found)
    assert found > 0.9


def test_predict(command: Callable[..., None], photographs: Path, tmp_path: Path, measured: Measured) -> None:
    """In single precision but for TF32: random weights are sure of nothing, so an overlap of 0.95 in the mean."""
    settings = SegmentSettings(size="tiny", queries=12, backbone="builtin", side=64)
    save_segmenter(tmp_path / "model", new_segmenter(settings, weights=None, pretrained=False, seed=0), {"size": 96})
    for device in ("cpu", "cuda"):
        how = ["--checkpoint", tmp_path / "model", "--device", device, "--precision", "fp32"]
        command("ovs-predict", photographs, *how, "-o", tmp_path / f"{device}.json")
    here, there = (masks(tmp_path / f"{device}.json") for device in ("cpu", "cuda"))
    assert sum(len(one.masks) for one in here) > 10
    found = overlap(there, here)
    measured(iou=found)
    assert found > 0.95


def test_train_and_predict_by_default(command: Callable[..., None], tmp_path: Path) -> None:
    """``--device auto`` takes the card, with bfloat16 where it has some, and what it has made is read again."""
    write_scenes(tmp_path, range(4), side=64, faults=Faults())
    small = ["size=tiny", "queries=8", "points=64", "side=64"]
    how = ["--batch", "2", "--steps", "2", "-j", "1", *(word for one in small for word in ("--set", one))]
    command("ovs-train", "segment", tmp_path / "pseudo.json", "--images", tmp_path / "images", *how, "-o", tmp_path / "run")
    command("ovs-predict", tmp_path / "images", "--checkpoint", tmp_path / "run", "-o", tmp_path / "masks.json")
    assert len(masks(tmp_path / "masks.json")) == 4
