"""Log lines on stderr that carry the tool's name and, where there are several, the shard."""

from __future__ import annotations

import logging
import sys

_ROOT = "ovskit"


class _StderrHandler(logging.Handler):
    """Writes to whatever ``sys.stderr`` is at that moment, so a progress bar that has taken it over keeps its place."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
        except OSError:  # nobody is left to read it, and a log line is not a reason to stop
            pass


def setup_logging(tool: str, *, shard: str | None = None, verbose: int = 0, quiet: int = 0) -> None:
    """Send ovskit's log lines to stderr at level 30 − 10·(verbose − quiet): warnings by default, ``-v`` adds information."""
    logger = logging.getLogger(_ROOT)
    logger.handlers.clear()
    handler = _StderrHandler()
    name = tool if shard is None else f"{tool}[{shard}]"
    handler.setFormatter(logging.Formatter(f"{name}: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(max(logging.DEBUG, 30 - 10 * (verbose - quiet)))
    logger.propagate = False


def get_logger(name: str) -> logging.Logger:
    """The logger of one module, below ovskit's own root."""
    return logging.getLogger(f"{_ROOT}.{name}")
