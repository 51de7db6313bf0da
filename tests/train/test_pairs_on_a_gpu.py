"""A step of the recipe of pairs on a card against the same step on the CPU, and the towers that it opens there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ovskit.core.models.registry import load_backbone, load_text
from tests.differences import relative
from tests.train.small_pairs import write_shards
from tests.train.test_pairs import RUN, gradients, losses, trained

pytestmark = pytest.mark.gpu

Measured = Callable[..., None]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.mark.parametrize(("arch", "negatives"), [("test_convnext", "all"), ("test_vit", "own")])
def test_losses_and_gradients(shards: Path, tmp_path: Path, measured: Measured, arch: str, negatives: str) -> None:
    run = replace(RUN, accumulate=2, precision="fp32")
    for device in ("cpu", "cuda"):
        trained(shards, tmp_path / device, run=replace(run, device=device), arch=arch, negatives=negatives)
    one, two = (gradients(tmp_path / device) for device in ("cpu", "cuda"))
    found = {
        "loss": abs(losses(tmp_path / "cpu")[0]["loss"] - losses(tmp_path / "cuda")[0]["loss"]),
        "gradient": relative(torch.cat([two[name].flatten() for name in one]), torch.cat([each.flatten() for each in one.values()])),
    }
    measured(**found)
    assert found["loss"] < 1e-3
    assert found["gradient"] < 1e-2


@pytest.mark.parametrize("arch", ["test_convnext", "test_vit"])
def test_vectors_of_images_and_words(shards: Path, tmp_path: Path, measured: Measured, arch: str) -> None:
    trained(shards, tmp_path / "run", arch=arch)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    seen, said = [], []
    for device in (torch.device("cpu"), torch.device("cuda")):
        backbone = load_backbone(f"run:{tmp_path / 'run'}", device=device)
        seen.append(backbone.extract(images, cls=True).cls.cpu())
        said.append(torch.from_numpy(load_text(backbone.spec, device=device).embed(["a dog", "red"])))
    found = {"image": relative(seen[1], seen[0]), "text": relative(said[1], said[0])}
    measured(**found)
    assert max(found.values()) < 1e-2
