"""Being told to stop while the weights are half updated: SIGTERM and Ctrl-C wait for the end of the step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ovskit.core.runtime.signals import Terminated


class Stopping:
    """Whether a signal asked for the end of the run."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._at_once = False

    @property
    def asked(self) -> bool:
        return self.signal is not None

    def leave(self) -> None:
        """Raise what the signal stands for: KeyboardInterrupt or Terminated. Does nothing if there was none."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise Terminated

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the body, which leaves the weights alone, a signal is raised where it arrives."""
        self._at_once = True
        try:
            self.leave()
            yield
        finally:
            self._at_once = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        impatient = self.asked
        self.signal = number
        if impatient or self._at_once:
            self.leave()


@contextmanager
def stop_at_step() -> Iterator[Stopping]:
    """While the body runs, the first SIGTERM or SIGINT is only noted; a second one is raised at once.

    A signal that is ignored stays so, as SIGINT is in a shell's background job. Outside the main thread nothing is
    changed, since only the main thread may.
    """
    stopping = Stopping()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, stopping._handle)
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
