"""Temporary files for data from pipes that are read more than once. Where the data does not fit there, the error says what to do."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, BinaryIO, Self

from ovskit.core.runtime.errors import OutputError
from ovskit.core.runtime.logs import get_logger
from ovskit.core.runtime.output import open_input

log = get_logger("spool")

_ROOM = "set TMPDIR to a folder with room"
_CHUNK = 1 << 20


class Spool:
    """A temporary file that no kill leaves behind, written at its end and read from its start; at most as long as this object.

    A write that fails raises OutputError: "cannot" with the words of ``doing``, and ``advice``. Up to ``in_memory`` bytes are
    kept in memory.
    """

    def __init__(self, doing: str = "write a temporary file", advice: str = _ROOM, *, in_memory: int = 0) -> None:
        self._doing, self._advice = doing, advice
        try:
            file: Any = tempfile.SpooledTemporaryFile(max_size=in_memory) if in_memory else tempfile.TemporaryFile(prefix="ovskit-")
        except OSError as error:
            raise _failed(doing, error, advice) from None
        self._file: BinaryIO = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def write(self, data: bytes) -> int:
        """Add ``data``."""
        try:
            return self._file.write(data)
        except OSError as error:
            raise _failed(f"{self._doing} in {tempfile.gettempdir()}", error, self._advice) from None

    def flush(self) -> None:
        """Flush all that is written to the file."""
        try:
            self._file.flush()
        except OSError as error:
            raise _failed(f"{self._doing} in {tempfile.gettempdir()}", error, self._advice) from None

    def from_start(self) -> BinaryIO:
        """The file, to read all that is written from the beginning; what is written afterwards must wait until it is read to the end."""
        self.flush()
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        """Delete the file. Errors of what could not be written are ignored: nothing reads it any more."""
        try:
            self._file.close()
        except OSError:
            pass


@contextmanager
def kept_stdin(what: str, suffix: str) -> Iterator[str]:
    """The path of a copy of stdin in a temporary file, as long as the context lasts. Raises OutputError if it does not fit there."""
    with tempfile.NamedTemporaryFile(prefix=f"ovskit-{what}-", suffix=suffix) as copy:
        log.warning("%s are read twice: copying stdin to %s; a file named on the command line needs no copy", what, copy.name)
        try:
            with open_input("-") as stream:
                shutil.copyfileobj(stream, copy, _CHUNK)
            copy.flush()
        except OSError as error:
            raise _failed(f"keep stdin in {copy.name}", error, _ROOM) from None
        yield copy.name


def _failed(what: str, error: OSError, advice: str) -> OutputError:
    return OutputError(f"cannot {what}: {error.strerror or error}; {advice}")
