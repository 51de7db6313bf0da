"""What a person sees of a training run: a bar with the last losses on a terminal, log lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ovskit.cli.command import log
from ovskit.core.runtime.progress import bar_is_wanted

if TYPE_CHECKING:
    from ovskit.core.train.events import Event, Logged


class Display:
    """Called with every event of ``core.train.loop.train``; open while the run lasts."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._steps = 0

    def __enter__(self) -> Display:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: Event) -> None:
        from ovskit.core.train import events

        match event:
            case events.Started():
                self._start(event.step, event.steps)
                log.info("training on %s in %s, processes: %d", event.device, event.precision, event.processes)
                if event.step:
                    log.warning("going on from step %d of %d", event.step, event.steps)
            case events.Updated() if self._bar is not None:
                self._bar.update(self._task, completed=event.step)
            case events.Logged():
                self._log(event)
            case events.Evaluated():
                log.warning("step %d: %s", event.step, _numbers(event.scores))
            case events.Saved():
                log.info("step %d: wrote %s", event.step, event.path)
            case events.Stopped(reason="signal"):
                log.warning("stopped at step %d of %d with a checkpoint; the same command with --resume goes on", event.step, event.steps)
            case events.Finished():
                log.info("step %d: wrote the model to %s", event.step, event.folder)

    def _start(self, step: int, steps: int) -> None:
        self._steps = steps
        if not bar_is_wanted():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("training"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), transient=False)
        self._task = self._bar.add_task("", total=steps, completed=step)
        self._bar.start()

    def _log(self, event: Logged) -> None:
        rate = f"{event.samples_per_second:.4g} samples/s"
        if self._bar is not None:
            self._bar.update(self._task, description=f"{_numbers(event.losses)}, {rate}")
            return
        log.warning("step %d/%d: %s, rate %.3g, %s", event.step, self._steps, _numbers(event.losses), event.learning_rate, rate)


def _numbers(values: Mapping[str, float]) -> str:
    """Names and numbers; the loss itself first."""
    names = sorted(values, key=lambda name: name != "loss")
    return ", ".join(f"{name} {values[name]:.4g}" for name in names)
