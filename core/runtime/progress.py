"""One progress bar with a rate, on stderr, drawn only by the stage a person looks at."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Watch(Protocol):
    """Shows how far an iteration is, under a label; gives the same items. ``total`` is their number, if it is known."""

    def __call__(self, items: Iterable[T], label: str, total: int | None = None) -> Iterable[T]: ...


def unwatched(items: Iterable[T], label: str, total: int | None = None) -> Iterable[T]:
    """A ``Watch`` that shows nothing."""
    return items


def bar_is_wanted() -> bool:
    """Whether stderr is a terminal and stdout is not a pipe: of a pipeline only the last stage draws."""
    try:
        return sys.stderr.isatty() and not stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):
        return False


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` unchanged, counting them on a bar where one is wanted (``bar_is_wanted``)."""
    if not bar_is_wanted():
        # rich would still print a last bar into a log file; not starting it is the only way to stay silent
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            rate = task.completed / task.elapsed if task.completed and task.elapsed else 0.0
            text = "" if not rate else f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
            return Text(text, style="progress.data.speed")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), RateColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=False) as progress:
        task = progress.add_task(label, total=total)
        for item in items:
            yield item
            progress.advance(task)
        progress.update(task, total=progress.tasks[0].completed)
