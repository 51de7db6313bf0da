"""A recipe that another package brings, in one file, is a subcommand as ours are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Run, one_line

RECIPE = '''
"""The mean colour of photographs, by gradient descent."""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from ovskit.core.formats.photographs.photographs import read_source
from ovskit.core.runtime.settings import Options, option, with_defaults
from ovskit.core.train.engine.options import TrainOptions
from ovskit.core.train.job import Prepared, TrainMethod


@dataclass(frozen=True, slots=True)
class ToySettings(Options):
    batch: int = option(2, "Photographs at once.", flag=True, low=1)
    start: float = option(0.5, "Brightness to begin with.", low=0, high=1)


class ToyRecipe:
    name = "toy"

    def __init__(self, job, settings):
        self.photographs, self.settings = job.photographs, settings
        self.modules = nn.ModuleDict({"mean": nn.ParameterList([torch.full((3,), settings.start)])})

    def batch(self, step, rank, world):
        size = self.settings.batch
        first = (step * world + rank) * size
        images = [read_source(self.photographs[k % len(self.photographs)])[1] for k in range(first, first + size)]
        return torch.stack([torch.from_numpy(np.asarray(image.reshape(-1, 3).mean(0) / 255, np.float32)) for image in images])

    def losses(self, batch, step):
        return {"loss": ((batch - self.modules["mean"][0]) ** 2).mean()}

    def parameter_groups(self):
        return [{"params": list(self.modules.parameters())}]

    def after_step(self, step):
        pass

    def state(self):
        return {}

    def load_state(self, tensors):
        pass

    def metadata(self):
        return {"settings": asdict(self.settings)}

    def evaluate(self):
        return {}

    def export(self, folder):
        save_file({"mean": self.modules["mean"][0].detach().cpu()}, folder / "model.safetensors")


METHOD = TrainMethod(
    "toy",
    "the mean colour of photographs.",
    ToySettings,
    lambda job, settings: Prepared(ToyRecipe(job, settings), len(job.photographs)),
    run_options=with_defaults(TrainOptions, fixed=("optimizer",), steps=3, learning_rate=0.1),
    about="Learn the mean colour of photographs.",
    examples=(("of a folder", "ovs-train toy imgs/ -o run"),),
)
'''


@pytest.fixture
def others(tmp_path: Path) -> dict[str, str]:
    """An environment in which the package is installed."""
    folder = tmp_path / "site"
    about = folder / "toy_recipe-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "toy_recipe.py").write_text(RECIPE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-recipe\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[ovskit.methods]\ntrain.toy = toy_recipe:METHOD\n")
    return {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def test_it_is_a_subcommand(process: Run, images: Path, others: dict[str, str], tmp_path: Path) -> None:
    listed = process("ovs-train", "--help", env=others).stdout.decode()
    assert "toy       Learn the mean colour of photographs." in listed
    assert listed.index("  correct ") < listed.index("  toy ")
    text = process("ovs-train", "toy", "--help", env=others).stdout.decode()
    assert "Photographs at once. [default 2; from 1 up]" in text
    assert "default 3;" in text
    assert "--optimizer" not in text
    assert "--eval" not in text
    run = ("ovs-train", "toy", images, "-o", tmp_path / "run", "--device", "cpu", "-q", "--set", "start=0.25")
    done = process(*run, "--log-every", 1, env=others)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "run" / "model.safetensors").exists()
    losses = [json.loads(line)["losses"]["loss"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 3
    assert losses[2] < losses[0]
    done = process(*run, "--resume", "--batch", 3, env=others)
    assert done.returncode == 65
    one_line(done, "settings.batch (2, now 3)")


def test_it_is_not_there_without_its_package(process: Run) -> None:
    done = process("ovs-train", "toy")
    assert done.returncode == 2
    one_line(done, "toy")


def test_a_method_of_another_kind(process: Run, others: dict[str, str]) -> None:
    path = Path(others["PYTHONPATH"]) / "toy_recipe.py"
    path.write_text(
        "from ovskit.core.runtime.methods import Method\nfrom ovskit.core.runtime.settings import Options\n"
        "METHOD = Method('toy', 'toy.', Options, print)\n"
    )
    done = process("ovs-train", "toy", env=others)
    assert done.returncode != 0
    assert b"is not a TrainMethod called toy" in done.stderr
