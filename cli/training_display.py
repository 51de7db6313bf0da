"""What a person sees of a training run: a bar and a table of its losses on a terminal, log lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ovskit.cli.command import log
from ovskit.cli.plain_text import plain
from ovskit.core.runtime.progress import bar_is_wanted

if TYPE_CHECKING:
    from ovskit.core.train.engine.events import Evaluated, Event, Logged

_HEIGHTS = "▁▂▃▄▅▆▇█"
_PLAIN = str.maketrans(_HEIGHTS, "_.,-~=*#")  # where stderr has no blocks
_CURVE = 40  # its greatest width
_SLOW = 0.1  # a share of the time spent waiting for samples that is worth a word


class Curve:
    """The course of one number over a whole run, in at most ``width`` means of equally many values each."""

    def __init__(self, width: int = _CURVE) -> None:
        self._width = width
        self._each = 1  # values to a mean
        self._means: list[float] = []
        self._rest: list[float] = []
        self.last = float("nan")

    def add(self, value: float) -> None:
        """Go on with ``value``."""
        self.last = value
        self._rest.append(value)
        if len(self._rest) < self._each:
            return
        self._means.append(sum(self._rest) / self._each)
        self._rest = []
        if len(self._means) > self._width:
            pairs = zip(self._means[::2], self._means[1::2], strict=False)
            left = self._means[len(self._means) // 2 * 2 :]
            self._means = [(a + b) / 2 for a, b in pairs]
            self._rest = [value for value in left for _ in range(self._each)]
            self._each *= 2

    def __str__(self) -> str:
        return heights(self._means)


def heights(values: Sequence[float]) -> str:
    """One block for each value, the lowest and the highest of them at the ends; all in the middle if they are the same."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    if not high > low:
        return _HEIGHTS[3] * len(values)
    return "".join(_HEIGHTS[round((value - low) / (high - low) * (len(_HEIGHTS) - 1))] for value in values)


class Display:
    """Called with every event of ``core.train.engine.loop.train``; open while the run lasts."""

    def __init__(self) -> None:
        self._live: Any = None
        self._bar: Any = None
        self._task: Any = None
        self._steps = 0
        self._losses: dict[str, Curve] = {}
        self._scores: dict[str, Curve] = {}

    def __enter__(self) -> Display:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        from ovskit.core.train.engine import events

        match event:
            case events.Started():
                self._start(event.step, event.steps)
                log.info("training on %s in %s, processes: %d", event.device, event.precision, event.processes)
                if event.step:
                    log.warning("going on from step %d of %d", event.step, event.steps)
            case events.Updated() if self._live is not None:
                self._bar.update(self._task, completed=event.step)
            case events.Logged():
                self._log(event)
            case events.Evaluated():
                self._evaluated(event)
            case events.Saved():
                log.info("step %d: wrote %s", event.step, event.path)
            case events.Finished():
                log.info("step %d: wrote the model to %s", event.step, event.folder)

    def _start(self, step: int, steps: int) -> None:
        self._steps = steps
        if not bar_is_wanted():
            return
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn()
        )
        self._task = self._bar.add_task("", total=steps, completed=step)
        self._live = Live(self._bar, console=Console(stderr=True), refresh_per_second=4)
        self._live.start()

    def _log(self, event: Logged) -> None:
        rate = f"{event.samples_per_second:.4g} samples/s"
        if event.waiting >= _SLOW:
            rate += f" (waiting for samples {event.waiting:.0%} of the time)"
        if self._live is None:
            log.warning("step %d/%d: %s, rate %.3g, %s", event.step, self._steps, _numbers(event.losses), event.learning_rate, rate)
            return
        self._bar.update(self._task, description=f"{rate}, learning rate {event.learning_rate:.3g}")
        _go_on(self._losses, event.losses)
        self._draw()

    def _evaluated(self, event: Evaluated) -> None:
        if self._live is None:
            log.warning("step %d: %s", event.step, _numbers(event.scores))
            return
        _go_on(self._scores, event.scores)
        self._draw()

    def _draw(self) -> None:
        from rich.console import Group

        self._live.update(Group(_table(self._losses, self._scores), self._bar))


def _go_on(curves: dict[str, Curve], values: Mapping[str, float]) -> None:
    for name in _ordered(values):
        curves.setdefault(name, Curve()).add(values[name])


def _table(losses: Mapping[str, Curve], scores: Mapping[str, Curve]) -> Any:
    """A row for each number: its name, its last value, its course."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(no_wrap=True)
    for curves, style in ((losses, "cyan"), (scores, "green")):
        for name, curve in curves.items():
            course = str(curve)
            shown = course if plain(course, sys.stderr.encoding) == course else course.translate(_PLAIN)
            table.add_row(name, f"{curve.last:.4g}", f"[{style}]{shown}[/]")
    return table


def _numbers(values: Mapping[str, float]) -> str:
    """Names and numbers; the loss itself first."""
    return ", ".join(f"{name} {values[name]:.4g}" for name in _ordered(values))


def _ordered(values: Mapping[str, float]) -> list[str]:
    return sorted(values, key=lambda name: name != "loss")
