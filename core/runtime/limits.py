"""What the system lets this process have."""

from __future__ import annotations

import contextlib
import resource

_OTHERS = 128  # files that are open besides: libraries, outputs, worker threads' images


def allow_open_files(count: int) -> None:
    """Raise this process's own limit, as far as the system lets it, so that ``count`` inputs can be open at once.

    Shards of a run are read in step, so all of them are open; the usual limit is 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHERS
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    with contextlib.suppress(OSError, ValueError):  # opening one too many reports it
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
