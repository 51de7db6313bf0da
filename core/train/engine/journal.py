"""``log.jsonl``: what a run did, one JSON object a line, in the order of steps and without repetitions.

A line of training has ``step`` (updates made), ``seconds`` of training, ``samples_per_second``, ``waiting`` (the share of the time
that updates waited for their batch), ``learning_rate``, ``gradient_norm`` (before clipping) and ``losses``, each the mean since
the line before it. A line of an evaluation has ``step``, ``seconds`` and ``evaluation``. What is not a finite number is null.
"""

from __future__ import annotations

import fcntl
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from ovskit.core.runtime.errors import OutputError, UsageError
from ovskit.core.runtime.output import write_error

FILE_NAME = "log.jsonl"


class Journal:
    """The log of the run in ``folder``, open for the step after ``step`` (0: from the beginning).

    Lines beyond ``step`` are from updates that were lost with a kill, and will be made again; they are cut off. While it
    is open no other run can have the same folder. With ``tensorboard`` the numbers also go to ``folder/tensorboard``.

    Raises OutputError where it cannot be written or another run has it, UsageError if TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, step: int = 0, tensorboard: bool = False) -> None:
        self.path = folder / FILE_NAME
        self.evaluated = False
        """Whether the evaluation of ``step`` itself is in the log already."""
        writer = _tensorboard_writer() if tensorboard else None
        if self.path.exists() and not self.path.is_file():  # a device may have no end
            raise OutputError(f"cannot write {self.path}: it is not an ordinary file; use another folder")
        with self._errors():
            self._file = open(self.path, "a+b", buffering=0)
        try:
            with self._errors():
                self._claim()
                self._file.truncate(self._end_of(step))
        except BaseException:  # Ctrl-C too: the lock goes with the file
            self._file.close()
            raise
        # Events that were written for lost updates are hidden by the later ones.
        self._board = None if writer is None else writer(str(folder / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line, which has at least ``step``."""
        data = json.dumps(_finite(line), separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"
        with self._errors():
            while data:  # unbuffered: on a disk that is nearly full only a part may be written
                data = data[self._file.write(data) or 0 :]
        if self._board is not None:
            for name, value in _scalars("", {key: item for key, item in line.items() if key != "step"}):
                self._board.add_scalar(name, value, line["step"])

    def _end_of(self, step: int) -> int:
        """Where the lines up to ``step`` end. The first line that is broken, or whose step goes back, ends them too."""
        self._file.seek(0)
        end, last = 0, 0
        for data in self._file.read().splitlines(keepends=True):
            try:
                line = json.loads(data)
                at = int(line["step"])
            except (ValueError, KeyError, TypeError):
                break
            if not data.endswith(b"\n") or not last <= at <= step:
                break
            end, last = end + len(data), at
            self.evaluated = at == step and "evaluation" in line
        return end

    def _claim(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"another run is writing {self.path}; wait for it to end") from None
        except OSError:  # a file system without locks: go on as without
            pass

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise write_error(str(self.path), error, "free some space") from None


def _tensorboard_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError("--tensorboard: the package tensorboard is not installed; pip install 'ovskit[tensorboard]'") from None
    return SummaryWriter


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _scalars(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _scalars(f"{name}/{key}" if name else key, item)
    elif isinstance(value, int | float):
        yield name, float(value)
