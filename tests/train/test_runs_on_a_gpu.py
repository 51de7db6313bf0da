"""Whole runs of training on a card: stopped and resumed, in half precision, by two processes, and without memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ovskit.core.formats.photographs.sources import list_sources
from ovskit.core.runtime.failures import Failures
from ovskit.core.train.data.mask_index import open_mask_index
from ovskit.core.train.engine import devices as devices_
from ovskit.core.train.engine.checkpoint import FILE_NAME, read_checkpoint
from ovskit.core.train.engine.events import Event, Logged, Started, Updated
from ovskit.core.train.engine.loop import DoesNotFitError, train
from ovskit.core.train.engine.options import TrainOptions
from ovskit.core.train.recipes import backbone, dino
from ovskit.core.train.recipes.backbone import BackboneSettings
from ovskit.core.train.recipes.correct import CorrectRecipe, CorrectSettings
from ovskit.core.train.recipes.segment import SegmentRecipe, SegmentSettings, new_segmenter
from tests.differences import joined
from tests.scenes import Faults, write_scenes

from .toy import ToyRecipe

pytestmark = pytest.mark.gpu

BASE: dict[str, Any] = {"learning_rate": 0.01, "warmup": 3, "clip_norm": 1.0, "device": "cuda", "log_every": 4, "checkpoint_every": 5}
SETTINGS = SegmentSettings(size="tiny", queries=8, points=64, backbone="builtin", side=64, batch=2, paste=0.3)


@pytest.fixture(autouse=True)
def _repeatable(exact: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run seeks the fastest convolutions, by the clock: not here."""
    opened = devices_.open_devices

    def open_devices(*args: Any, **kwargs: Any) -> Any:
        found = opened(*args, **kwargs)
        torch.backends.cudnn.benchmark = False
        return found

    monkeypatch.setattr("ovskit.core.train.engine.loop.open_devices", open_devices)


def toy(folder: Path, *, resume: bool = False, recipe: ToyRecipe | None = None, **changes: Any) -> list[Event]:
    events: list[Event] = []
    train(recipe or ToyRecipe(), TrainOptions(**{**BASE, "steps": 12, **changes}), folder, resume=resume, watch=events.append)
    return events


@pytest.mark.parametrize("optimizer", [{}, {"optimizer": "adan", "betas": (0.98, 0.92, 0.99)}])
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.heavy), "fp16"])
def test_a_stopped_and_resumed_run_ends_with_the_same_bits(optimizer: dict[str, Any], precision: str, tmp_path: Path) -> None:
    """Products, normalisation, dropout and the optimiser of the toy add nothing up in an order of chance: no tolerance. The card's random
    numbers are seeded at every step."""
    how = {"precision": precision, **optimizer}
    toy(tmp_path / "whole", **how)
    toy(tmp_path / "pieces", stop_after=7, **how)
    toy(tmp_path / "pieces", resume=True, **how)
    one, two = (read_checkpoint(tmp_path / name / FILE_NAME) for name in ("whole", "pieces"))
    assert one.step == two.step == 12
    assert one.tensors.keys() == two.tensors.keys()
    assert [name for name, tensor in one.tensors.items() if not torch.equal(tensor, two.tensors[name])] == []
    assert one.scaler == two.scaler
    assert bool(one.scaler) == (precision == "fp16")


def test_a_run_goes_on_on_another_device(tmp_path: Path) -> None:
    """From the card to the CPU and back: checkpoints belong to none."""
    toy(tmp_path, stop_after=3, precision="fp32")
    toy(tmp_path, resume=True, stop_after=6, device="cpu", precision="fp32")
    toy(tmp_path, resume=True, precision="fp32")
    assert read_checkpoint(tmp_path / FILE_NAME).step == 12


def test_steps_that_log_nothing_do_not_wait(tmp_path: Path) -> None:
    """The flag for bad losses is read with the log and with checkpoints only. Counted on the pretend card; a real one runs it."""
    counts: list[int] = []
    waits = getattr(torch.zeros(1, device="cuda"), "waits", None)

    def watch(event: Event) -> None:
        if isinstance(event, Updated) and waits is not None:
            counts.append(waits.total())

    options = TrainOptions(**{**BASE, "steps": 12, "log_every": 12, "checkpoint_every": 12})
    recipe = ToyRecipe()
    train(recipe, options, tmp_path, watch=watch)
    assert read_checkpoint(tmp_path / FILE_NAME).step == 12
    if waits is not None:
        assert len(counts) == 12
        assert {after - before for before, after in pairwise(counts[2:])} == {0}


def test_convolutions_are_sought_for_training_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are all of one size; photographs to evaluate on are not, and the search for each would take longer than it gains."""
    monkeypatch.undo()
    recipe = ToyRecipe()
    seen: list[tuple[str, bool]] = []
    losses = recipe.losses
    monkeypatch.setattr(recipe, "losses", lambda *of: seen.append(("train", torch.backends.cudnn.benchmark)) or losses(*of))
    monkeypatch.setattr(recipe, "evaluate", lambda: seen.append(("evaluate", torch.backends.cudnn.benchmark)) or {})
    toy(tmp_path, recipe=recipe, steps=4, eval_every=2)
    assert seen == [*[("train", True)] * 2, ("evaluate", False)] * 2


@pytest.mark.parametrize("name", [pytest.param("segment", marks=pytest.mark.heavy), "correct", "backbone", "dino"])
def test_every_recipe_runs_to_its_end(name: str, tmp_path: Path) -> None:
    """And evaluates, keeps a checkpoint, goes on from it and exports what a CPU can read."""
    write_scenes(tmp_path / "scenes", range(4), side=64, faults=Faults())
    photographs = list_sources([str(tmp_path / "scenes/images")]).items
    failures = Failures(skip=False)
    judged: list[str] = []

    def judge(network: torch.nn.Module) -> dict[str, float]:
        twin = copy.deepcopy(network)  # as the judge of the built-in network does
        judged.append(next(twin.parameters()).device.type)
        return {"AR@1000": float(len(judged))}

    def recipe() -> Any:
        if name == "backbone":
            settings = BackboneSettings(
                widths=(8, 12, 16, 16), blocks=(1, 1, 1, 1), pyramid=12, embedding=12, shorter_side=64, scales=(200.0, 1000.0), batch=2,
                crop=32, anchors=4, negatives=20, queue=16,
            )  # fmt: skip
            pool = backbone.precompute(photographs, settings, tmp_path / "pool", workers=1, failures=failures)
            return backbone.BackboneRecipe(pool, settings, seed=0, evaluate=judge)
        if name == "dino":
            small = dino.DinoSettings(
                arch="test_vit",
                shorter_side=64,
                batch=2,
                global_crop=32,
                local_crop=16,
                local_crops=2,
                hidden=16,
                bottleneck=8,
                prototypes=16,
            )
            pool = dino.precompute(photographs, small, tmp_path / "pool", workers=1, failures=failures)
            return dino.DinoRecipe(pool, small, steps=2, seed=0)
        targets = SETTINGS.index_options()
        index = open_mask_index(photographs, tmp_path / "scenes/pseudo.json", targets, tmp_path / "targets", failures=failures)
        segmenter = new_segmenter(SETTINGS, weights=None, pretrained=False, seed=3)
        if name == "correct":
            return CorrectRecipe(index, photographs, segmenter, SETTINGS, tmp_path / "run", correct=CorrectSettings(), evaluate=judge)
        return SegmentRecipe(index, photographs, segmenter, SETTINGS, tmp_path / "run", evaluate=judge)

    options = TrainOptions(**{**BASE, "steps": 2, "learning_rate": 1e-3, "eval_every": 1, "workers": 2, "channels_last": True})
    train(recipe(), replace(options, stop_after=1), tmp_path / "run")
    train(recipe(), options, tmp_path / "run", resume=True)
    assert judged == ([] if name == "dino" else ["cuda"] * 2)  # for step 1 when it went on
    exported = load_file(tmp_path / "run/model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in exported.values())


@pytest.mark.heavy
def test_segment_resumes_nearly_the_same(tmp_path: Path, measured: Callable[..., None]) -> None:
    """Gradients of what is sampled at points are atomic additions, in no order, so no two runs have the same bits. What is asserted: the
    resumed run's weights are as far from the whole run's as a hundredth of the way that both went."""
    write_scenes(tmp_path / "scenes", range(6), side=64, faults=Faults())
    photographs = list_sources([str(tmp_path / "scenes/images")]).items
    index = open_mask_index(
        photographs, tmp_path / "scenes/pseudo.json", SETTINGS.index_options(), tmp_path / "targets", failures=Failures(skip=False)
    )

    def run(name: str, **changes: Any) -> torch.Tensor:
        segmenter = new_segmenter(SETTINGS, weights=None, pretrained=False, seed=3)
        begun = joined(segmenter.parameters())
        options = TrainOptions(**{**BASE, "steps": 4, "learning_rate": 1e-3, "epsilon": 1e-4, "precision": "fp32", **changes})
        train(SegmentRecipe(index, photographs, segmenter, SETTINGS, tmp_path / name, seed=3), options, tmp_path / name, resume=True)
        return joined(segmenter.parameters()) - begun

    whole, again = run("whole"), run("again")
    run("pieces", stop_after=2)
    pieces = joined(load_file(tmp_path / "pieces" / FILE_NAME)[f"model/segmenter.{name}"] for name in _names())
    resumed = run("pieces")
    assert pieces.shape == resumed.shape
    begun = joined(new_segmenter(SETTINGS, weights=None, pretrained=False, seed=3).parameters())
    found = {
        "resumed": float((resumed - whole).norm() / whole.norm()),
        "again": float((again - whole).norm() / whole.norm()),
        "half": float((pieces - begun - whole).norm() / whole.norm()),
    }
    measured(**found)
    assert found["resumed"] < 0.01
    assert found["half"] > 0.1  # the measure can tell


def _names() -> list[str]:
    return [name for name, _ in new_segmenter(SETTINGS, weights=None, pretrained=False, seed=3).named_parameters()]


@pytest.mark.gpu(real="it is in one process only")
def test_two_processes_on_one_card_are_one_with_twice_the_batch(launch: Callable[..., None], tmp_path: Path) -> None:
    """By gloo, since NCCL refuses two ranks on one card. Both in float32 in full, torch's own choice for products: the same sums in
    another order, 1e-4."""
    options = {**BASE, "steps": 6, "log_every": 2, "checkpoint_every": 2, "precision": "fp32"}
    launch(tmp_path / "two", options, stop_after=3, device="cuda")
    toy(tmp_path / "one", recipe=ToyRecipe(plain=True), **{**options, "accumulate": 2})
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_batch_that_does_not_fit_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(batch: Any, step: int) -> dict[str, torch.Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    recipe = ToyRecipe()
    monkeypatch.setattr(recipe, "losses", full)
    with pytest.raises(DoesNotFitError, match="out of memory on cuda(:0)? at step 1: make the batch smaller"):
        toy(tmp_path, recipe=recipe)


def test_bfloat16_is_chosen_where_there_is_some(tmp_path: Path) -> None:
    events = toy(tmp_path)
    best = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    assert [(event.device.partition(":")[0], event.precision) for event in events if isinstance(event, Started)] == [("cuda", best)]
    assert [event.step for event in events if isinstance(event, Logged)] == [4, 8, 12]
