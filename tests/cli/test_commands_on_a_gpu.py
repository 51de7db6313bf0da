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

from ovskit.core.formats.streams.features import FeatureReader
from ovskit.core.formats.streams.masks import open_masks
from ovskit.core.masks.overlap import iou
from ovskit.core.masks.runs import run_table
from ovskit.core.models.segmenter.checkpoint import save_segmenter
from ovskit.core.records import FeatureMap, MaskSet
from ovskit.core.train.recipes.segment import new_segmenter
from ovskit.core.train.recipes.segment_settings import SegmentSettings
from tests.differences import between_patches
from tests.scenes import Faults, write_scenes

pytestmark = [pytest.mark.gpu, pytest.mark.heavy]

PRETEND = Path(__file__).parents[1] / "pretend_card.py"
# As the installed script does; where ovskit is only on the path there is none.
SCRIPT = "import sys; sys.argv[0] = {tool!r}; from ovskit.cli.{name} import app; app()"

Measured = Callable[..., None]


@pytest.fixture
def at_once() -> Callable[..., None]:
    """``at_once((tool, *arguments), …)`` runs commands beside each other, on the pretend card if that is what the test has."""
    pretended = hasattr(torch.zeros(1, device="cuda"), "inside")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OVS_")}
    paths = os.pathsep.join([str(PRETEND.parents[1]), *filter(None, [kept.get("PYTHONPATH")])])

    def words(tool: str, *arguments: object) -> list[str]:
        start = [str(PRETEND), tool] if pretended else ["-c", SCRIPT.format(tool=tool, name=tool.removeprefix("ovs-"))]
        return [sys.executable, *start, *map(str, arguments)]

    def run(*commands: tuple[object, ...]) -> None:
        processes = [
            subprocess.Popen(words(*one), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**kept, "PYTHONPATH": paths})  # type: ignore[arg-type]
            for one in commands
        ]
        try:
            for process in processes:
                _, errors = process.communicate(timeout=200)
                assert process.returncode == 0, errors.decode()[-2000:]
        finally:
            for process in processes:
                process.kill()
                process.wait()

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
        table = run_table([mask.rle for mask in other.masks])
        best.append(np.asarray(iou(table, run_table([mask.rle for mask in one.masks]))).max(axis=1))
    return float(np.concatenate(best).mean())


def test_extract(at_once: Callable[..., None], photographs: Path, tmp_path: Path, measured: Measured) -> None:
    """With TF32 in the network's convolutions, as a person has it: a mean difference of 0.02 between patches' cosines."""
    at_once(
        *(("ovs-extract", photographs, "--size", 128, "--device", device, "-o", tmp_path / f"{device}.npz") for device in ("cpu", "cuda"))
    )
    here, there = (features(tmp_path / f"{device}.npz") for device in ("cpu", "cuda"))
    assert [one.image for one in here] == [one.image for one in there]
    apart = [
        (between_patches(torch.from_numpy(one.patch)[None]) - between_patches(torch.from_numpy(other.patch)[None])).abs()
        for one, other in zip(here, there, strict=True)
    ]
    mean = float(torch.stack([one.mean() for one in apart]).mean())
    measured(mean=mean)
    assert mean < 0.02


def test_cluster_looks_closer(at_once: Callable[..., None], photographs: Path, tmp_path: Path, measured: Measured) -> None:
    """The same features, so only the crops of the local step are seen by the card: masks overlap by 0.9 in the mean."""
    at_once(("ovs-extract", photographs, "--size", 128, "--device", "cpu", "-o", tmp_path / "f.npz"))
    how = ["--thresholds", "0.6..0.2", "--local", "--local-size", 64]
    at_once(
        *(("ovs-cluster", tmp_path / "f.npz", *how, "--device", device, "-o", tmp_path / f"{device}.json") for device in ("cpu", "cuda"))
    )
    here, there = (masks(tmp_path / f"{device}.json") for device in ("cpu", "cuda"))
    found = overlap(there, here)
    measured(iou=found)
    assert found > 0.9


def test_predict(at_once: Callable[..., None], photographs: Path, tmp_path: Path, measured: Measured) -> None:
    """In single precision but for TF32: random weights are sure of nothing, so an overlap of 0.95 in the mean."""
    settings = SegmentSettings(size="tiny", queries=12, backbone="builtin", side=64)
    save_segmenter(tmp_path / "model", new_segmenter(settings, weights=None, pretrained=False, seed=0), {"size": 96})
    how = ["--checkpoint", tmp_path / "model", "--precision", "fp32"]
    at_once(*(("ovs-predict", photographs, *how, "--device", device, "-o", tmp_path / f"{device}.json") for device in ("cpu", "cuda")))
    here, there = (masks(tmp_path / f"{device}.json") for device in ("cpu", "cuda"))
    assert sum(len(one.masks) for one in here) > 10
    found = overlap(there, here)
    measured(iou=found)
    assert found > 0.95


def test_train_and_predict_by_default(at_once: Callable[..., None], tmp_path: Path) -> None:
    """``--device auto`` takes the card, with bfloat16 where it has some; what is trained is judged on the way, and read again."""
    write_scenes(tmp_path, range(4), side=64, faults=Faults())
    images = tmp_path / "images"
    small = ["size=tiny", "queries=8", "points=64", "side=64"]
    narrow = ["widths=8,8,8,8", "blocks=1,1,1,1", "pyramid=8", "embedding=8", "crop=64", "shorter_side=64", "scales=250,1000", "anchors=4"]
    judged = ["--eval", tmp_path / "truth.json", "--eval-root", images, "--eval-every", 1, "--eval-limit", 1]
    how = ["--batch", 2, "--steps", 2, "-j", 1, "--warmup", 1, *judged]

    def settings(values: list[str]) -> list[str]:
        return [word for one in values for word in ("--set", one)]

    at_once(
        ("ovs-train", "segment", tmp_path / "pseudo.json", "--images", images, *how, *settings(small), "-o", tmp_path / "run"),
        ("ovs-train", "backbone", images, *how, *settings([*narrow, "queue=16", "negatives=16"]), "-o", tmp_path / "backbone"),
    )
    weights = tmp_path / "backbone/model.safetensors"
    at_once(
        ("ovs-predict", images, "--checkpoint", tmp_path / "run", "-o", tmp_path / "masks.json"),
        ("ovs-extract", images, "--weights", weights, "--size", 64, "--cls", "-o", tmp_path / "features.npz"),
    )
    assert len(masks(tmp_path / "masks.json")) == len(features(tmp_path / "features.npz")) == 4
