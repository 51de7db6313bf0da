"""SIGTERM as an exception, so that it cleans up on its way out as Ctrl-C does."""

from __future__ import annotations

import signal
from types import FrameType


class Terminated(BaseException):
    """SIGTERM arrived. Not an Exception: nothing but the command line and ``finally`` clauses may catch it."""


def _raise_terminated(signum: int, frame: FrameType | None) -> None:
    raise Terminated


def handle_sigterm() -> None:
    """From now on SIGTERM raises ``Terminated`` in the main thread; SIGINT keeps raising KeyboardInterrupt.

    A shell starts background jobs with SIGINT ignored; that is left as it is.
    """
    signal.signal(signal.SIGTERM, _raise_terminated)
