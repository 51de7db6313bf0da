"""A run that is stopped anywhere and goes on must end as one that was not."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ovskit.core.runtime.errors import Exit, InputError, OutputError, UsageError
from ovskit.core.runtime.signals import Terminated, handle_sigterm
from ovskit.core.train.engine.checkpoint import FILE_NAME, read_checkpoint
from ovskit.core.train.engine.events import Evaluated, Event, Finished, Logged, Saved, Started, Stopped, Updated
from ovskit.core.train.engine.loop import Outcome, TrainOptions, train
from ovskit.core.train.engine.meter import DivergedError

from .toy import SAMPLES, ToyRecipe

BASE = {"steps": 12, "learning_rate": 0.01, "warmup": 3, "clip_norm": 1.0, "device": "cpu", "log_every": 4, "checkpoint_every": 5}


def go(folder: Path, recipe: ToyRecipe | None = None, *, resume: bool = False, **changes: Any) -> tuple[ToyRecipe, Outcome, list[Event]]:
    recipe = recipe or ToyRecipe()
    events: list[Event] = []
    outcome = train(recipe, TrainOptions(**{**BASE, **changes}), folder, resume=resume, watch=events.append)
    return recipe, outcome, events


def same(folder: Path, other: Path) -> None:
    """Both runs have the same tensors in their checkpoints, bit for bit, and exported the same bytes."""
    one, two = (read_checkpoint(place / FILE_NAME) for place in (folder, other))
    assert one.step == two.step
    assert one.tensors.keys() == two.tensors.keys()
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, two.tensors[name]), name
    assert (folder / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of twelve steps that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    go(folder)
    return folder


def test_it_is_adamw_with_this_schedule(tmp_path: Path) -> None:
    """Against torch's own AdamW, in a loop as anybody would write it."""
    recipe = ToyRecipe(plain=True)
    twin = ToyRecipe(plain=True)
    optimizer = torch.optim.AdamW(
        [{**group, "lr": 0.01 * group.pop("lr_scale", 1.0)} for group in twin.parameter_groups()], weight_decay=0.05, fused=True
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    shares = [1 / 2, 1.0, 1.0, 0.75, 0.5, 0.25]  # cosine from step 2 to 6 is (1 + cos(πk/4))/2
    shares[3:] = [0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * k / 4, dtype=torch.float64)))) for k in (1, 2, 3)]
    for step, share in enumerate(shares):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * share
        optimizer.zero_grad()
        twin.losses(twin.batch(step, 0, 1), step)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(twin.modules.parameters(), 0.5)
        optimizer.step()
    go(tmp_path, recipe, steps=6, warmup=2, clip_norm=0.5)
    for name, weight in twin.weights().items():
        torch.testing.assert_close(recipe.weights()[name], weight, rtol=1e-6, atol=1e-7)


def test_it_learns(tmp_path: Path) -> None:
    _, outcome, events = go(tmp_path, ToyRecipe(plain=True), steps=300, log_every=50, learning_rate=0.05)
    errors = [event.losses["error"] for event in events if isinstance(event, Logged)]
    assert outcome == Outcome(300, outcome.seconds, finished=True)
    assert errors[-1] < 0.2 * errors[0]


@pytest.mark.parametrize("at", [1, 5, 7, 11])
def test_stopped_and_resumed_is_the_same(tmp_path: Path, whole: Path, at: int) -> None:
    _, outcome, events = go(tmp_path, stop_after=at)
    assert (outcome.step, outcome.finished) == (at, False)
    assert not (tmp_path / "model.safetensors").exists()
    assert [event.reason for event in events if isinstance(event, Stopped)] == ["stop_after"]
    recipe, outcome, events = go(tmp_path, resume=True)
    assert (outcome.step, outcome.finished) == (12, True)
    assert events[0] == Started(at, 12, "cpu", "fp32", 1)
    assert min(step for step, _, _ in recipe.seen) == at  # what was done is not done again
    same(tmp_path, whole)


def test_a_constant_rate_can_be_taken_further(tmp_path: Path) -> None:
    go(tmp_path / "one", schedule="constant", steps=9)
    go(tmp_path / "two", schedule="constant", steps=4)
    go(tmp_path / "two", schedule="constant", steps=9, resume=True)
    same(tmp_path / "one", tmp_path / "two")


def test_minutes_end_a_piece(tmp_path: Path, whole: Path) -> None:
    pieces = 0
    outcome = Outcome(0, 0.0, finished=False)
    while not outcome.finished:
        _, outcome, _ = go(tmp_path, minutes=1e-9, resume=True)
        pieces += 1
    assert pieces == 12
    same(tmp_path, whole)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_ends_the_step_first(tmp_path: Path, whole: Path, number: int, raised: type[BaseException]) -> None:
    class Interrupted(ToyRecipe):
        def losses(self, batch: Any, step: int) -> dict[str, torch.Tensor]:
            if step == 6:
                os.kill(os.getpid(), number)
            return super().losses(batch, step)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(raised, match="^stopped at step 7 of 12 with a checkpoint; the same command with --resume goes on$"):
        go(tmp_path, Interrupted())
    assert signal.getsignal(signal.SIGTERM) is before
    assert read_checkpoint(tmp_path / FILE_NAME).step == 7
    go(tmp_path, resume=True)
    same(tmp_path, whole)


def test_a_signal_ends_an_evaluation_at_once_and_it_is_made_up_for(tmp_path: Path) -> None:
    class Interrupted(ToyRecipe):
        def evaluate(self) -> dict[str, float]:
            if self.evaluations == 1:
                os.kill(os.getpid(), signal.SIGTERM)
                raise AssertionError("still evaluating")
            return super().evaluate()

    handle_sigterm()
    go(tmp_path / "one", eval_every=4)
    with pytest.raises(Terminated, match="stopped at step 8 of 12 with a checkpoint"):
        go(tmp_path / "two", Interrupted(), eval_every=4)
    assert read_checkpoint(tmp_path / "two" / FILE_NAME).step == 8
    go(tmp_path / "two", eval_every=4, resume=True)
    one, two = ([(line["step"], line["evaluation"]) for line in lines(tmp_path / k) if "evaluation" in line] for k in ("one", "two"))
    assert one == two
    assert [step for step, _ in one] == [4, 8, 12]
    same(tmp_path / "one", tmp_path / "two")


def test_killed_between_checkpoints(tmp_path: Path, whole: Path) -> None:
    """SIGKILL leaves the checkpoint of step 5 and a log that is ahead of it."""
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import torch
from toy import ToyRecipe
from ovskit.core.train.engine.events import Updated
from ovskit.core.train.engine.loop import TrainOptions, train
def watch(event):
    if event == Updated(10):
        os.kill(os.getpid(), signal.SIGKILL)
torch.set_num_threads(1)
train(ToyRecipe(), TrainOptions(**{BASE!r}), Path({str(tmp_path)!r}), watch=watch)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert read_checkpoint(tmp_path / FILE_NAME).step == 5
    assert [line["step"] for line in lines(tmp_path)] == [4, 8]
    go(tmp_path, resume=True)
    assert [line["step"] for line in lines(tmp_path)] == [4, 8, 12]
    same(tmp_path, whole)


def test_events_and_log_agree(tmp_path: Path) -> None:
    recipe, _, events = go(tmp_path, eval_every=6)
    assert recipe.evaluations == 2
    assert [event.step for event in events if isinstance(event, Updated)] == list(range(1, 13))
    assert [event.step for event in events if isinstance(event, Saved)] == [5, 10, 12]
    assert events[-1] == Finished(12, tmp_path)
    logged = [event for event in events if isinstance(event, Logged)]
    found = [line for line in lines(tmp_path) if "losses" in line]
    assert [line["losses"] for line in found] == [event.losses for event in logged]
    assert [line["step"] for line in found] == [4, 8, 12]
    assert {event.step: event.scores for event in events if isinstance(event, Evaluated)} == {
        line["step"]: line["evaluation"] for line in lines(tmp_path) if "evaluation" in line
    }
    fine: list[float] = []
    _, _, events = go(tmp_path / "every", log_every=1)
    fine = [event.losses["error"] for event in events if isinstance(event, Logged)]
    assert logged[0].losses["error"] == pytest.approx(sum(fine[:4]) / 4)
    assert logged[2].losses["error"] == pytest.approx(sum(fine[8:]) / 4)


class Sleepy(ToyRecipe):
    """Its batches take far longer than an update."""

    def batch(self, step: int, rank: int, world: int) -> Any:
        time.sleep(0.05)
        return super().batch(step, rank, world)


def test_the_log_says_how_long_updates_waited_for_samples(tmp_path: Path) -> None:
    go(tmp_path, Sleepy(), workers=1)
    waits = [line["waiting"] for line in lines(tmp_path)]
    assert all(0.5 < share <= 1 for share in waits)  # 50 ms of sleep against an update of a few numbers


@pytest.mark.parametrize("changes", [{"workers": 4}, {"log_every": 1, "checkpoint_every": 2}, {"eval_every": 3}])
def test_what_must_not_matter(tmp_path: Path, whole: Path, changes: dict[str, Any]) -> None:
    go(tmp_path, **changes)
    same(tmp_path, whole)


def test_the_seed_matters(tmp_path: Path, whole: Path) -> None:
    recipe, _, _ = go(tmp_path, seed=1)
    other = read_checkpoint(whole / FILE_NAME)
    assert not torch.equal(recipe.weights()["head.weight"], other.tensors["model/head.weight"])


def test_accumulating_is_a_larger_batch(tmp_path: Path) -> None:
    one, _, events = go(tmp_path / "one", ToyRecipe(plain=True), accumulate=2)
    two, _, _ = go(tmp_path / "two", ToyRecipe(plain=True, samples=2 * SAMPLES))
    for name, weight in one.weights().items():
        torch.testing.assert_close(weight, two.weights()[name])
    assert one.seen[:4] == [(0, 0, 2), (0, 1, 2), (1, 0, 2), (1, 1, 2)]
    assert sum(isinstance(event, Updated) for event in events) == 12


def test_a_loss_that_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"loss of step 8 .*batch 7 of seed 0.*checkpoint of step 5") as caught:
        go(tmp_path, ToyRecipe(nan_at=7))
    assert caught.value.exit_code == Exit.DATA
    kept = read_checkpoint(tmp_path / FILE_NAME)
    assert kept.step == 5
    assert all(torch.isfinite(tensor).all() for tensor in kept.tensors.values())


@pytest.mark.parametrize(("at", "words"), [(3, "before the first checkpoint"), (8, "goes on from step 5$")])
def test_a_second_signal_ends_it_at_once(tmp_path: Path, at: int, words: str) -> None:
    class Impatient(ToyRecipe):
        def losses(self, batch: Any, step: int) -> dict[str, torch.Tensor]:
            for _ in range(2 if step == at else 0):
                os.kill(os.getpid(), signal.SIGINT)
            return super().losses(batch, step)

    with pytest.raises(KeyboardInterrupt, match=f"^stopped at step {at} of 12.*{words}"):
        go(tmp_path, Impatient())


@pytest.mark.parametrize(("good", "words"), [(0, "then run the same command again$"), (1, "then --resume goes on from step 5$")])
def test_a_full_disk_says_where_it_goes_on(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, good: int, words: str) -> None:
    left = iter(range(good))

    def sync(number: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", sync)
        with pytest.raises(OutputError, match=rf"checkpoint\.safetensors: No space left on device; free some space, {words}"):
            go(tmp_path)
    go(tmp_path, resume=True)
    same(tmp_path, whole)


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path, whole: Path) -> None:
    before = (whole / FILE_NAME).read_bytes()
    with pytest.raises(UsageError, match="--resume"):
        go(whole)
    assert (whole / FILE_NAME).read_bytes() == before


def test_a_finished_run_only_exports_again(whole: Path) -> None:
    before = (whole / "model.safetensors").read_bytes()
    (whole / "model.safetensors").unlink()
    recipe, outcome, _ = go(whole, resume=True)
    assert (outcome.step, outcome.finished, recipe.seen) == (12, True, [])
    assert (whole / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("recipe", "changes", "words"),
    [
        ({"width": 8}, {}, r"settings.width \(6, now 8\)"),
        ({"samples": 2}, {}, r"data.samples \(4, now 2\)"),
        ({}, {"learning_rate": 0.02, "seed": 3}, r"seed \(0, now 3\), learning_rate \(0.01, now 0.02\)"),
        ({}, {"accumulate": 2}, r"batches_per_step \(1, now 2\)"),
    ],
)
def test_other_settings_are_refused(whole: Path, recipe: dict[str, Any], changes: dict[str, Any], words: str) -> None:
    before = (whole / FILE_NAME).read_bytes(), (whole / "log.jsonl").read_bytes()
    with pytest.raises(InputError, match=words):
        go(whole, ToyRecipe(**recipe), resume=True, **changes)
    assert ((whole / FILE_NAME).read_bytes(), (whole / "log.jsonl").read_bytes()) == before


def test_bf16_on_request(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []

    class Watched(ToyRecipe):
        def losses(self, batch: Any, step: int) -> dict[str, torch.Tensor]:
            seen.append(self.modules["head"](torch.zeros(1, self.width)).dtype)
            return super().losses(batch, step)

    recipe, _, events = go(tmp_path, Watched(), precision="bf16", steps=2)
    assert seen == [torch.bfloat16] * 2
    assert isinstance(events[0], Started)
    assert events[0].precision == "bf16"
    assert {tensor.dtype for tensor in recipe.weights().values()} == {torch.float32, torch.int64}
    go(tmp_path / "later", Watched(), steps=1)  # one process, then another precision
    assert seen[-1] == torch.float32


def test_channels_last_resumes_the_same(tmp_path: Path) -> None:
    class Convolution(ToyRecipe):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.modules = torch.nn.ModuleDict({"body": torch.nn.Conv2d(3, 5, 3), "head": torch.nn.Linear(5, 2)})
            self.average.module = self.modules
            self.average.tensors = {name: tensor.clone() for name, tensor in self.modules.state_dict().items()}

        def batch(self, step: int, rank: int, world: int) -> Any:
            return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(step))

        def losses(self, batch: Any, step: int) -> dict[str, torch.Tensor]:
            assert batch.is_contiguous(memory_format=torch.channels_last)
            return {"loss": self.modules["head"](self.modules["body"](batch).mean((2, 3))).square().mean()}

    go(tmp_path / "one", Convolution(), channels_last=True)
    go(tmp_path / "two", Convolution(), channels_last=True, stop_after=6)
    go(tmp_path / "two", Convolution(), channels_last=True, resume=True)
    same(tmp_path / "one", tmp_path / "two")


def test_a_forgotten_parameter_is_a_bug(tmp_path: Path) -> None:
    class Forgetful(ToyRecipe):
        def parameter_groups(self) -> list[dict[str, Any]]:
            return [{"params": self.modules["body"].parameters()}]

    with pytest.raises(ValueError, match="head.weight"):
        go(tmp_path, Forgetful())


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"schedule": "linear"},
        {"final_share": 2.0},
        {"minutes": -1.0},
    ],
)
def test_options_that_make_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(changes))):
        TrainOptions(**{"steps": 1, **changes})


@pytest.mark.parametrize(("device", "precision"), [("cpu", "fp16"), ("cpu", "fp64"), ("cuda:99", "auto"), ("gpu", "auto")])
def test_devices_and_precisions_that_are_not_there(tmp_path: Path, device: str, precision: str) -> None:
    with pytest.raises(UsageError):
        go(tmp_path, device=device, precision=precision)


def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path, launch: Callable[..., None]) -> None:
    go(tmp_path / "one", ToyRecipe(plain=True, samples=2 * SAMPLES), log_every=3)
    launch(tmp_path / "two", {**BASE, "log_every": 3}, stop_after=5)
    one, two = (read_checkpoint(tmp_path / k / FILE_NAME) for k in ("one", "two"))
    assert two.step == 12
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(two.tensors[name], tensor, rtol=1e-5, atol=1e-6)
    # The losses of the log are means over both.
    errors = [{line["step"]: line["losses"]["error"] for line in lines(tmp_path / k)} for k in ("one", "two")]
    for step in (3, 9, 12):
        assert errors[1][step] == pytest.approx(errors[0][step], rel=1e-4)
