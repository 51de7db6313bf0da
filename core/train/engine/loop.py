"""The training loop that every recipe shares: updates, log, evaluations and checkpoints, to be stopped and resumed anywhere.

A run that is stopped at any step and resumed ends, on a CPU with as many threads, with the very same weights as one that
is not: batches and random numbers are functions of the seed, the step and the rank, and the checkpoint holds all the rest.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ovskit.core.runtime.errors import DiskFullError, Exit, OutputError, OvsError, UsageError
from ovskit.core.runtime.logs import get_logger
from ovskit.core.runtime.signals import Terminated
from ovskit.core.train.engine import checkpoint as ck
from ovskit.core.train.engine.batches import Share, count_samples, make_batches, to_device
from ovskit.core.train.engine.devices import Devices, open_devices
from ovskit.core.train.engine.events import Evaluated, Event, Finished, Logged, Saved, Started, Stopped, Updated
from ovskit.core.train.engine.journal import Journal
from ovskit.core.train.engine.meter import Meter
from ovskit.core.train.engine.optimizers import make_optimizer
from ovskit.core.train.engine.options import TrainOptions
from ovskit.core.train.engine.recipe import Recipe
from ovskit.core.train.engine.schedule import rate_share
from ovskit.core.train.engine.stopping import Stopping, stop_at_step

log = get_logger("train")

# What of the options decides the result. Another number of steps means to go on; another precision, another machine.
_DECIDING = (
    "seed", "optimizer", "learning_rate", "warmup", "schedule", "final_share", "milestones", "drop",
    "weight_decay", "epsilon",
)  # fmt: skip


class DoesNotFitError(OvsError):
    """The device has not enough memory for a batch."""

    exit_code = Exit.BUG


@dataclass(frozen=True, slots=True)
class Outcome:
    """``step`` updates are made, in ``seconds`` over all pieces of the run; ``finished`` if that is all of them."""

    step: int
    seconds: float
    finished: bool


def train(
    recipe: Recipe,
    options: TrainOptions,
    folder: Path,
    *,
    devices: Devices | None = None,
    resume: bool = False,
    pg: Sequence[Mapping[str, Any]] = (),
    watch: Callable[[Event], None] = lambda event: None,
) -> Outcome:
    """Train ``recipe`` in ``folder``, which gets ``checkpoint.safetensors``, ``log.jsonl`` and what the recipe exports.

    With ``resume`` it goes on from the folder's checkpoint, if there is one; without, such a folder is refused. ``devices``
    is what ``open_devices`` gave, with the same ``accumulate``. ``pg`` is the provenance that the checkpoint carries.
    SIGTERM and Ctrl-C end the run after the step under way, with a checkpoint, as Terminated and KeyboardInterrupt, whose text says
    where it goes on.

    Raises UsageError for a folder that holds a run, InputError for a checkpoint that is damaged or of other settings,
    DivergedError (an InputError) for a loss that is not finite, OutputError, and DoesNotFitError if memory is short.
    """
    ck.check_folder(folder, resume=resume)
    devices = devices or open_devices(options.device, options.precision, accumulate=options.accumulate)
    _make_folder(folder)
    found = ck.find_checkpoint(folder, resume=resume)
    # No process writes before all have looked.
    devices.wait()
    run = _Run(recipe, options, folder, devices, pg, watch)
    if found is not None:
        run.restore(found)
    with _told_how_to_go_on(run):
        if not devices.is_first:
            return run.go(None)
        with Journal(folder, step=run.step, tensorboard=options.tensorboard) as journal:
            return run.go(journal)


class _Forward(nn.Module):
    """The recipe's losses as a module's forward: what mixed precision and distribution wrap."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.modules_of_recipe = recipe.modules
        self._losses = recipe.losses

    def forward(self, batch: Any, step: int) -> dict[str, Tensor]:
        return self._losses(batch, step)


class _Run:
    """One run of ``train``, from the checkpoint it begins with to where it is stopped."""

    def __init__(
        self,
        recipe: Recipe,
        options: TrainOptions,
        folder: Path,
        devices: Devices,
        pg: Sequence[Mapping[str, Any]],
        watch: Callable[[Event], None],
    ) -> None:
        self.recipe, self.options, self.folder, self.devices, self.pg = recipe, options, folder, devices, pg
        self.watch = watch if devices.is_first else lambda event: None
        self.path = folder / ck.FILE_NAME
        self.step = 0
        self.saved: int | None = None
        self.spent = 0.0  # seconds of the pieces before this one
        self.begun = time.monotonic()
        layout = torch.channels_last if options.channels_last else torch.preserve_format
        recipe.modules.to(devices.device, memory_format=layout)  # type: ignore[call-overload]
        if options.compile:
            for module in recipe.modules.values():
                module.compile()
        accelerator = devices.accelerator
        self.plain_optimizer = make_optimizer(recipe, options)
        self.model, self.optimizer = accelerator.prepare(_Forward(recipe), self.plain_optimizer)
        self.decisive = {name: getattr(options, name) for name in _DECIDING}
        self.decisive |= {"betas": options.decay_rates(), "clip_norm": options.clip_norm or None}
        self.decisive["batches_per_step"] = options.accumulate * devices.world

    @property
    def seconds(self) -> float:
        return self.spent + time.monotonic() - self.begun

    def restore(self, found: ck.Checkpoint) -> None:
        """Go back to the checkpoint, or raise InputError with everything unchanged."""
        settings = {"steps": self.options.steps, "precision": self.devices.precision}
        known = {name: value for name, value in found.run.items() if name not in settings}
        ck.check_settings(
            self.path,
            ck.Checkpoint(found.recipe, found.step, found.seconds, found.settings, known, {}),
            recipe=self.recipe.name,
            settings=self.recipe.metadata(),
            run=self.decisive,
        )
        if found.step > self.options.steps:
            raise UsageError(
                f"{self.path}: is of step {found.step}, beyond --steps {self.options.steps}; ask for more, or use another folder"
            )
        rest = ck.restore(self.path, found, self.recipe.modules, self.plain_optimizer, self.recipe.state())
        self.recipe.load_state(rest)
        if found.run.get("steps") != self.options.steps and self.options.schedule != "constant":
            log.warning(
                "--steps was %s and is %d: the learning rate goes on as in a run of %d", found.run.get("steps"), *[self.options.steps] * 2
            )
        if found.run.get("precision") != self.devices.precision:
            log.warning("the precision was %s and is %s from here on", found.run.get("precision"), self.devices.precision)
        scaler = self.devices.accelerator.scaler
        if scaler is not None and found.scaler:
            scaler.load_state_dict(dict(found.scaler))
        self.step = self.saved = found.step
        self.spent = found.seconds

    def go(self, journal: Journal | None) -> Outcome:
        """Make the updates that are left; ``journal`` is process 0's."""
        options, devices = self.options, self.devices
        self.watch(Started(self.step, options.steps, str(devices.device), devices.precision, devices.world))
        self.meter = Meter(devices)
        self.last_line = time.monotonic()
        self.waited = 0.0  # seconds for batches since then
        with stop_at_step() as stopping:
            if self._evaluation_is_due() and journal is not None and not journal.evaluated:
                self._evaluate(journal, stopping)  # the run was stopped while it evaluated
            devices.wait()
            try:
                reason = self._update_all(journal, stopping)
            except torch.OutOfMemoryError:
                raise DoesNotFitError(
                    f"out of memory on {devices.device} at step {self.step + 1}: make the batch smaller (and --accumulate larger)"
                ) from None
            if reason is not None:
                self.watch(Stopped(self.step, options.steps, reason))
                stopping.leave()
                # Another process had the signal.
                return Outcome(self.step, self.seconds, finished=False)
            if devices.is_first:
                with stopping.at_once():
                    self.recipe.modules.eval()
                    self.recipe.export(self.folder)
            devices.wait()
            self.watch(Finished(self.step, self.folder))
            return Outcome(self.step, self.seconds, finished=True)

    def _update_all(self, journal: Journal | None, stopping: Stopping) -> str | None:
        """Updates until the last one, or until something ends the run: what."""
        options, devices = self.options, self.devices
        batches = make_batches(
            self.recipe,
            self.step,
            options.steps,
            process=devices.rank,
            processes=devices.world,
            accumulate=options.accumulate,
            workers=options.threads(),
            pin=devices.device.type == "cuda",
        )
        self.recipe.modules.train()
        while self.step < options.steps:
            self._update(batches)
            self.step += 1
            self.watch(Updated(self.step))
            reason = self._reason_to_stop(stopping)
            ending = reason is not None or self.step == options.steps
            to_log = ending or self.step % options.log_every == 0
            to_evaluate = self._evaluation_is_due() and reason is None
            to_save = ending or self.step % options.checkpoint_every == 0
            # On a GPU reading the flag would make every step wait; nothing is kept before it is read.
            if to_log or to_evaluate or to_save or devices.device.type == "cpu":
                self.meter.check(seed=options.seed, last_checkpoint=self.saved)
            if to_log:
                self._log(journal)
            if to_evaluate:
                self._evaluate(journal, stopping)
            if to_save:
                self._save()
            if reason is not None:
                return reason
        return None

    def _update(self, batches: Iterator[tuple[Share, Any]]) -> None:
        """One update of the weights from ``accumulate`` batches."""
        options, accelerator = self.options, self.devices.accelerator
        rate = options.learning_rate * rate_share(
            self.step,
            schedule=options.schedule,
            steps=options.steps,
            warmup=options.warmup,
            final=options.final_share,
            milestones=options.milestones,
            drop=options.drop,
        )
        self.rate = rate
        for group in self.plain_optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        for share, batch in self._prepared(batches):
            _seed_torch(options.seed, share.step, share.rank)
            with accelerator.accumulate(self.model):
                losses = self.model(batch, self.step)
                accelerator.backward(losses["loss"])
                self.meter.add_losses(losses, self.step, count_samples(batch))
                if accelerator.sync_gradients:
                    limit = options.clip_norm or float("inf")
                    norm = accelerator.clip_grad_norm_(self.model.parameters(), limit)
                    self.meter.add_norm(norm, self.step, may_overflow=accelerator.scaler is not None)
                self.optimizer.step()
                self.optimizer.zero_grad()
        self.recipe.after_step(self.step)

    def _prepared(self, batches: Iterator[tuple[Share, Any]]) -> Iterator[tuple[Share, Any]]:
        """This process's batches of the step on the device, as they come; a recipe with ``prepare_step`` has seen all of them before."""
        prepare = getattr(self.recipe, "prepare_step", None)
        drawn = (self._drawn(batches) for _ in range(self.options.accumulate))
        if prepare is None:
            yield from drawn
            return
        held = list(drawn)

        def seeded() -> Iterator[Any]:
            for share, batch in held:
                _seed_torch(self.options.seed, share.step, share.rank)
                yield batch

        with torch.no_grad(), self.devices.accelerator.autocast():
            prepare(seeded(), self.step)
        yield from held

    def _drawn(self, batches: Iterator[tuple[Share, Any]]) -> tuple[Share, Any]:
        """The next batch, on the device."""
        asked = time.monotonic()
        share, batch = next(batches)
        self.waited += time.monotonic() - asked
        return share, to_device(batch, self.devices.device, channels_last=self.options.channels_last)

    def _reason_to_stop(self, stopping: Stopping) -> str | None:
        """Why to stop after this step; the same in all processes."""
        minutes, after = self.options.minutes, self.options.stop_after
        if self.devices.any(stopping.asked):
            return "signal"
        if self.step == self.options.steps:
            return None
        if minutes is not None and self.devices.any(time.monotonic() - self.begun >= 60 * minutes):
            return "minutes"
        return "stop_after" if after is not None and self.step >= after else None

    def _evaluation_is_due(self) -> bool:
        every = self.options.eval_every
        return every > 0 and self.step > 0 and (self.step % every == 0 or self.step == self.options.steps)

    def _log(self, journal: Journal | None) -> None:
        samples = self.meter.samples * self.devices.world
        means = self.meter.means()
        now = time.monotonic()
        norm = means.pop("gradient norm")
        spent = now - self.last_line
        event = Logged(self.step, round(self.seconds, 3), round(samples / spent, 2), round(self.waited / spent, 4), self.rate, norm, means)
        self.last_line, self.waited = now, 0.0
        if journal is not None:
            journal.write(
                {
                    "step": event.step,
                    "seconds": event.seconds,
                    "samples_per_second": event.samples_per_second,
                    "waiting": event.waiting,
                    "learning_rate": event.learning_rate,
                    "gradient_norm": event.gradient_norm,
                    "losses": dict(event.losses),
                }
            )
        self.watch(event)

    def _evaluate(self, journal: Journal | None, stopping: Stopping) -> None:
        """Process 0 evaluates while the others wait. Interrupted, it leaves a checkpoint, and is made up for on resuming."""
        begun = time.monotonic()
        if journal is not None:
            self.recipe.modules.eval()
            try:
                with stopping.at_once(), torch.no_grad(), _sizes_of_all_kinds():
                    scores = self.recipe.evaluate()
            except BaseException:  # a signal may arrive as any; the steps since the last checkpoint must not be lost
                if stopping.asked and self.saved != self.step:
                    self._write()
                    self.saved = self.step
                raise
            finally:
                self.recipe.modules.train()
            if scores:
                event = Evaluated(self.step, round(self.seconds, 3), scores)
                journal.write({"step": event.step, "seconds": event.seconds, "evaluation": dict(scores)})
                self.watch(event)
        self.devices.wait()
        self.last_line += time.monotonic() - begun  # the log's rate is that of training

    def _save(self) -> None:
        if self.devices.is_first:
            self._write()
        self.saved = self.step
        self.devices.wait()

    def _write(self) -> None:
        scaler = self.devices.accelerator.scaler
        ck.write_checkpoint(
            self.path,
            ck.Checkpoint(
                recipe=self.recipe.name,
                step=self.step,
                seconds=self.seconds,
                settings=self.recipe.metadata(),
                run={**self.decisive, "steps": self.options.steps, "precision": self.devices.precision},
                tensors=ck.collect_tensors(self.recipe.modules, self.plain_optimizer, self.recipe.state()),
                scaler={} if scaler is None else scaler.state_dict(),
                pg=self.pg,
            ),
        )
        self.watch(Saved(self.step, self.path))


@contextmanager
def _told_how_to_go_on(run: _Run) -> Iterator[None]:
    """A full disk and a signal are raised with what there is to go on from."""
    try:
        yield
    except DiskFullError as error:
        how = "run the same command again" if run.saved is None else f"--resume goes on from step {run.saved}"
        raise OutputError(f"{error.failed}; free some space, then {how}") from None
    except (KeyboardInterrupt, Terminated) as signal:
        at = f"stopped at step {run.step} of {run.options.steps}"
        if run.saved is None:
            raise type(signal)(f"{at}, before the first checkpoint; nothing half-written is left") from None
        where = " with a checkpoint; the same command with --resume goes on"
        if run.saved != run.step:
            where = f"; the same command with --resume goes on from step {run.saved}"
        raise type(signal)(at + where) from None


@contextmanager
def _sizes_of_all_kinds() -> Iterator[None]:
    """Photographs to evaluate on have many sizes: the fastest convolutions are not sought anew for each, see ``open_devices``."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _seed_torch(seed: int, step: int, rank: int) -> None:
    """Seed torch's generators on all devices with a number that no other step or rank of the run has."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little"))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}; give another one with -o") from None
