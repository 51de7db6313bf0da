"""What a bench says: numbers as text, tables on the terminal and in Markdown, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def percent(value: float | None, form: str = ".1f") -> str:
    """A share as text, in percent; a dash for None."""
    return "–" if value is None else format(100 * value, form)


def span(ends: Sequence[float] | None, form: str = ".1f") -> str:
    """``[14.8, 19.9]``: an interval of shares, in percent; nothing for None."""
    return "" if ends is None else f"[{', '.join(percent(end, form) for end in ends)}]"


def with_interval(value: float | None, ends: Sequence[float] | None, form: str = ".1f") -> str:
    """``17.3 [14.8, 19.9]``, in percent; ``form`` is ``+.1f`` for a difference."""
    return percent(value, form) if value is None or ends is None else f"{percent(value, form)} {span(ends, form)}"


def metric_text(scored: Mapping[str, Any], metric: str, form: str = ".1f") -> str:
    """A metric of one file, or of a difference, in what ``ovs-eval --json`` says, with its interval."""
    return with_interval(scored["metrics"][metric], scored.get("intervals", {}).get(metric), form)


def table(columns: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table."""
    return [line(columns), "|---" * len(columns) + "|", *(line(row) for row in rows)]


def line(cells: Iterable[object]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in cells)} |"


def section(title: str, columns: Sequence[object], rows: Iterable[Sequence[object]], text: str | None = None) -> list[str]:
    """The lines of a part of a report: a heading, ``text`` if there is any, and a table."""
    return ["", f"## {title}", "", *([] if text is None else [text, ""]), *table(columns, rows)]


def made_by(about: Mapping[str, Any]) -> str:
    """The words with which a report begins; ``about`` is ``surroundings()``."""
    return f"Made by `{about['command']}` at commit {about['commit']}, {about['date']}, on {about['machine']['cpu']}"


def publish(lines: Sequence[str], markdown: Path | None) -> None:
    """Print a report, and write it where ``--markdown`` says."""
    text = "\n".join(lines) + "\n"
    if markdown:
        markdown.write_text(text)
    print(text, end="")


def show(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *notes: object,
    left: Sequence[str] | None = None,
    width: int = 150,
) -> None:
    """Print a table and notes below it. Columns are flush right but for ``left``, by default the first.

    ``width`` is in characters and for a log, which has none of its own.
    """
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=title)
    for column in columns:
        drawn.add_column(column, justify="left" if column in (columns[:1] if left is None else left) else "right")
    for row in rows:
        drawn.add_row(*map(str, row))
    console = Console() if sys.stdout.isatty() else Console(width=width)
    for each in (drawn, *notes):
        console.print(each)


def write_json(path: Path | None, found: Mapping[str, Any]) -> None:
    """Write the numbers where ``--json`` says."""
    if path:
        path.write_text(json.dumps(found, indent=1) + "\n")


def progress(*text: object) -> None:
    """Say on stderr how far the bench is."""
    print(*text, file=sys.stderr, flush=True)
