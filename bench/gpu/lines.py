"""What the parts of bench/gpu.sh found: one JSON object a line, and the table of them all.

    python -m gpu.lines LINES.jsonl [--markdown FILE]
    python -m gpu.lines LINES.jsonl --ended PART --code N     add a line if a part's own process broke off, instead of the table

A line has ``part`` (correct, fast, learn), ``what``, ``outcome`` (passed, failed, skipped or measured), ``values`` (names to numbers or
short texts), ``seconds`` and ``note``. Each is written as soon as it is known, so that what was found before a card was taken away is kept.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from harness import report

Outcome = Literal["passed", "failed", "skipped", "measured"]
Value = float | int | str | None
_OVERDUE, _KILLED = 124, 137  # the exit codes of timeout
_NOTE = 300  # characters of an error that a table can bear


@dataclass(frozen=True)
class Line:
    """See the module."""

    part: str
    what: str
    outcome: Outcome
    values: Mapping[str, Value] = field(default_factory=dict)
    seconds: float = 0.0
    note: str = ""


class Lines:
    """The file of lines; several processes may add to it, one after the other."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, line: Line) -> None:
        """Write a line, whole, at the end of the file."""
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(line), ensure_ascii=False) + "\n")

    @contextmanager
    def measuring(self, part: str, what: str, remark: str = "") -> Iterator[dict[str, Value]]:
        """Add what the block puts into the dictionary, with the remark; or that it failed, and why, and go on after it."""
        values: dict[str, Value] = {}
        begun = time.monotonic()
        try:
            yield values
        except Exception as error:  # whatever it is: the other measurements are wanted all the same
            note = f"{type(error).__name__}: {error}".replace("\n", " ")[:_NOTE]
            self.add(Line(part, what, "failed", values, time.monotonic() - begun, note))
        else:
            self.add(Line(part, what, "measured", values, time.monotonic() - begun, remark))


def ended(lines: Lines, part: str, code: int) -> None:
    """Add that a part broke off, unless it came to its end: then it has 0, or 1 where a test has failed, which has its own line."""
    if code == 0 or (code == 1 and part == "correct"):
        return
    why = "its time was over" if code in (_OVERDUE, _KILLED) else f"exit code {code}; what it said is above the table"
    lines.add(Line(part, "the part itself", "failed", note=f"broke off: {why}"))


def read_lines(path: Path) -> list[Line]:
    """The lines of a file, in order; none if there is no such file."""
    if not path.exists():
        return []
    return [Line(**json.loads(text)) for text in path.read_text(encoding="utf-8").splitlines()]


def table(lines: Sequence[Line]) -> str:
    """Markdown: a heading and a table for each part, in order."""
    parts = list(dict.fromkeys(line.part for line in lines))
    return "\n".join(_section(part, [line for line in lines if line.part == part]) for part in parts)


def _section(part: str, lines: Sequence[Line]) -> str:
    rows = [(line.what, line.outcome, _shown(line.values), f"{line.seconds:.1f}", line.note) for line in lines]
    return "\n".join([*report.section(part.capitalize(), ("what", "outcome", "values", "s", "note"), rows)[1:], ""])


def _shown(values: Mapping[str, Value]) -> str:
    return ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--ended", metavar="PART")
    parser.add_argument("--code", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.ended is not None:
        ended(Lines(arguments.lines), arguments.ended, arguments.code)
        return
    text = table(read_lines(arguments.lines))
    if arguments.markdown:
        arguments.markdown.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
