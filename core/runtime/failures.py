"""What happens at an image, or a whole tar of them, that cannot be used: stop, or name it, count it and go on."""

from __future__ import annotations

import threading
from collections import Counter

from ovskit.core.runtime.errors import Exit, InputError, MissingInputError, OvsError
from ovskit.core.runtime.logs import get_logger

log = get_logger("failures")


class PartialError(OvsError):
    """The work is done and written, but for inputs that were skipped."""

    exit_code = Exit.PARTIAL


class Failures:
    """Collects the inputs that were skipped; with ``skip=False`` the first one ends the run instead. Any thread may call it."""

    def __init__(self, *, skip: bool) -> None:
        self._skip = skip
        self._lock = threading.Lock()
        self._named: set[tuple[str, str]] = set()
        self._kinds: Counter[str] = Counter()

    @property
    def skips(self) -> bool:
        """Whether inputs may be skipped."""
        return self._skip

    @property
    def count(self) -> int:
        """How many were skipped."""
        return self._kinds.total()

    @property
    def named_once(self) -> int:
        """How many of the images among ``count`` came by ``handle_again``."""
        return sum(kind == "image" for kind, _ in self._named)

    def handle(self, error: InputError | MissingInputError, kind: str = "image") -> None:
        """Raise ``error``, or log it as skipped; ``kind`` is what it is about."""
        if not self._skip:
            raise error
        with self._lock:
            self._kinds[kind] += 1
        log.error("skipped: %s", error)

    def handle_again(self, error: InputError | MissingInputError, kind: str = "image") -> None:
        """As ``handle``, for inputs that come round more than once: the same error is named and counted the first time only."""
        if not self._skip:
            raise error
        with self._lock:
            known = len(self._named)
            self._named.add((kind, str(error)))
            if len(self._named) == known:
                return
        self.handle(error, kind)

    def report(self, done: int) -> None:
        """Call when the output is complete. Raises PartialError if anything was skipped."""
        if self.count:
            said = " and ".join(f"{number} {kind}{'' if number == 1 else 's'}" for kind, number in sorted(self._kinds.items()))
            raise PartialError(f"skipped {said} that could not be used, named above; {done} done")
