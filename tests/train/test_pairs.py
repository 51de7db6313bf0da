"""The recipe of image-text pairs: what a step learns from, in how many parts it may be, and what is left at the end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ovskit.core.formats.pairs.options import PairInputs
from ovskit.core.models.towers.checkpoint import load_towers
from ovskit.core.models.towers.network import tokenizer_of
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.failures import Failures
from ovskit.core.train.data.pair_draws import PairDraws
from ovskit.core.train.engine.checkpoint import read_checkpoint
from ovskit.core.train.engine.loop import Outcome, train
from ovskit.core.train.engine.options import TrainOptions
from ovskit.core.train.recipes.pairs import PairsRecipe, PairsSettings, make_towers
from ovskit.core.train.views.pair_samples import PairSamples

from .small_pairs import write_shards

SETTINGS = PairsSettings(arch="test_vit", batch=4, side=32, dim=8, text_width=16, text_heads=2, text_layers=1, context=12)
RUN = TrainOptions(steps=1, warmup=0, schedule="constant", learning_rate=1e-3, device="cpu", workers=2, log_every=1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


def recipe_of(shards: Path, settings: PairsSettings, index: Path) -> PairsRecipe:
    failures = Failures(skip=True)
    draws = PairDraws(PairInputs((str(shards),)), seed=0, failures=failures, index_folder=str(index))
    samples = PairSamples(draws, settings.views(), tokenizer_of(settings.config()), failures)
    towers, _ = make_towers(settings, None, 0)
    return PairsRecipe(samples, towers, settings, data=draws.key, total=draws.total)


def trained(shards: Path, folder: Path, *, resume: bool = False, run: TrainOptions = RUN, **changed: Any) -> Outcome:
    settings = replace(SETTINGS, **changed)
    return train(recipe_of(shards, settings, folder.parent / "index"), run, folder, resume=resume)


def losses(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line)["losses"] for line in (folder / "log.jsonl").read_text().splitlines()]


def gradients(folder: Path) -> dict[str, torch.Tensor]:
    """The gradient of the first step: after it AdamW's average of gradients is a tenth of that."""
    tensors = read_checkpoint(folder / "checkpoint.safetensors").tensors
    return {name: 10 * tensor for name, tensor in tensors.items() if name.endswith("/exp_avg")}


def alike(one: Path, other: Path) -> None:
    first, second = gradients(one), gradients(other)
    assert first.keys() == second.keys()
    largest = max(tensor.abs().max().item() for tensor in first.values())
    assert largest > 1e-2
    for name, tensor in first.items():
        assert (second[name] - tensor).abs().max().item() <= 1e-5 * largest, name
    for name in ("loss", "scale", "accuracy", "negatives"):
        assert losses(one)[0][name] == pytest.approx(losses(other)[0][name], abs=1e-5), name


@pytest.mark.parametrize("arch", ["test_vit", "test_convnext"])
def test_accumulated_batches_are_one_large_one(shards: Path, tmp_path: Path, arch: str) -> None:
    trained(shards, tmp_path / "whole", arch=arch, batch=8)
    trained(shards, tmp_path / "two", arch=arch, negatives="all", run=replace(RUN, accumulate=2))
    trained(shards, tmp_path / "four", arch=arch, batch=2, negatives="all", run=replace(RUN, accumulate=4))
    alike(tmp_path / "whole", tmp_path / "two")
    alike(tmp_path / "whole", tmp_path / "four")
    assert losses(tmp_path / "four")[0]["negatives"] == 7
    trained(shards, tmp_path / "own", arch=arch, run=replace(RUN, accumulate=2))
    assert losses(tmp_path / "own")[0]["negatives"] == 3
    assert losses(tmp_path / "own")[0]["loss"] != pytest.approx(losses(tmp_path / "two")[0]["loss"], abs=1e-3)


def test_stochastic_depth_is_the_same_in_both_passes(shards: Path, tmp_path: Path) -> None:
    """The other vectors of the loss are those that get gradients later: then every batch's loss is the same."""
    recipe = recipe_of(shards, replace(SETTINGS, negatives="all", drop_path=0.5), tmp_path)
    found: list[float] = []
    inside = recipe.losses

    def noted(batch: Any, step: int) -> dict[str, torch.Tensor]:
        said = inside(batch, step)
        found.append(float(said["loss"].detach()))
        return said

    recipe.losses = noted  # type: ignore[method-assign]
    train(recipe, replace(RUN, accumulate=3), tmp_path / "run")
    assert len(found) == 3
    assert found[1:] == pytest.approx(found[:1] * 2, abs=1e-5)


_PROCESS = """
from pathlib import Path
from dataclasses import replace
from tests.train.test_pairs import RUN, trained
trained(Path({shards!r}), Path({folder!r}), batch={batch}, negatives={negatives!r}, run=replace(RUN, accumulate={accumulate}))
"""


@pytest.fixture
def in_two_processes(shards: Path) -> Callable[..., None]:
    """Trains in two processes, as torchrun would start them."""

    def run(folder: Path, batch: int, accumulate: int, negatives: str) -> None:
        code = _PROCESS.format(shards=str(shards), folder=str(folder), batch=batch, accumulate=accumulate, negatives=negatives)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        root = Path(__file__).parents[2]
        common = {**os.environ, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", code],
                cwd=root,
                env={**common, "RANK": str(k), "LOCAL_RANK": str(k), "OMP_NUM_THREADS": "1"},
                stderr=subprocess.PIPE,
            )
            for k in range(2)
        ]
        try:
            for process in processes:
                _, errors = process.communicate(timeout=240)
                assert process.returncode == 0, errors.decode()
        finally:
            for process in processes:
                process.kill()
                process.wait()

    return run


@pytest.mark.parametrize(("batch", "accumulate"), [(4, 1), (2, 2)])
def test_two_processes_are_one_large_batch(
    shards: Path, tmp_path: Path, in_two_processes: Callable[..., None], batch: int, accumulate: int
) -> None:
    """By gloo; with one batch each the vectors of the other come with gradients at once, with two in a pass before."""
    trained(shards, tmp_path / "whole", batch=8)
    in_two_processes(tmp_path / "two", batch, accumulate, "all")
    alike(tmp_path / "whole", tmp_path / "two")


def test_two_processes_with_negatives_of_their_own(shards: Path, tmp_path: Path, in_two_processes: Callable[..., None]) -> None:
    trained(shards, tmp_path / "one", run=replace(RUN, accumulate=2))
    in_two_processes(tmp_path / "two", 4, 1, "own")
    alike(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("negatives", ["own", "all"])
def test_a_run_that_was_stopped_is_the_same_bytes(shards: Path, tmp_path: Path, negatives: str) -> None:
    run = replace(RUN, steps=4, accumulate=2, schedule="cosine")
    torch.set_num_threads(1)
    settings = {"arch": "test_convnext", "drop_path": 0.2, "negatives": negatives}
    trained(shards, tmp_path / "whole", run=run, **settings)
    assert not trained(shards, tmp_path / "parts", run=replace(run, stop_after=2), **settings).finished
    assert trained(shards, tmp_path / "parts", run=run, resume=True, **settings).finished
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == (tmp_path / "parts" / "model.safetensors").read_bytes()
    one, two = (read_checkpoint(tmp_path / name / "checkpoint.safetensors").tensors for name in ("whole", "parts"))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_other_pairs_are_not_gone_on_with(shards: Path, tmp_path: Path) -> None:
    trained(shards, tmp_path / "run")
    with pytest.raises(InputError, match="made with other settings: pairs"):
        trained(write_shards(tmp_path / "more", pairs=10), tmp_path / "run", resume=True, run=replace(RUN, steps=2))


def test_what_is_left_at_the_end(shards: Path, tmp_path: Path) -> None:
    trained(shards, tmp_path / "run")
    loaded = load_towers(tmp_path / "run")
    assert loaded.towers.config == SETTINGS.config()
    assert loaded.training["count"] == 18
    assert loaded.training["updates"] == 1
    assert loaded.scale == pytest.approx(1 / 0.07, rel=1e-2)


def test_it_learns_which_caption_is_which(shards: Path, tmp_path: Path) -> None:
    run = replace(RUN, steps=150, learning_rate=3e-3, clip_norm=1.0)
    trained(shards, tmp_path / "run", run=run, arch="test_convnext", batch=6)
    found = losses(tmp_path / "run")
    early, late = (sum(each["accuracy"] for each in part) / len(part) for part in (found[:20], found[-20:]))
    assert late > early + 0.15
    assert sum(each["loss"] for each in found[-10:]) < sum(each["loss"] for each in found[:10])


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(UsageError, match="text_width 10: give a multiple of text_heads"):
        PairsSettings(text_width=10, text_heads=4)
    with pytest.raises(UsageError, match="batch 1"):
        PairsSettings(batch=1)
