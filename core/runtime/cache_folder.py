"""Where what is costly to make again is kept for the user: a folder that nobody else can write.

The first of these that can be used: ``$XDG_CACHE_HOME/ovskit``, ``~/.cache/ovskit``, ``ovskit-UID`` in ``$TMPDIR`` or ``/tmp``.
"""

from __future__ import annotations

import os
import stat
import tempfile
from functools import cache

from ovskit.core.runtime.logs import get_logger

log = get_logger("cache")

_TEMPORARY = "/tmp"


@cache
def own_folder() -> str | None:
    """The first folder for the user's caches that is the user's alone."""
    home = os.path.expanduser("~")
    caches = [os.environ.get("XDG_CACHE_HOME", ""), os.path.join(home, ".cache")]
    temporary = [os.environ.get("TMPDIR", ""), _TEMPORARY]
    candidates = [os.path.join(path, "ovskit") for path in caches] + [os.path.join(path, f"ovskit-{os.geteuid()}") for path in temporary]
    # A path that is not absolute counts as not given, as XDG has it; a user without an entry has no home either.
    return next((path for path in candidates if os.path.isabs(path) and is_own(path)), None)


def is_own(path: str) -> bool:
    """Make ``path`` if it is not there; whether it is a folder of this user's that this process can write and no other user can."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        if not os.path.lexists(path):
            os.mkdir(path, mode=0o700)
        status = os.lstat(path)
    except OSError:
        return False
    private = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
    if not private:
        log.warning("%s is not used as a cache: it is not yours alone", path)
    return private and can_write(path)


@cache
def can_write(folder: str) -> bool:
    """Whether files can be made in ``folder``, which is made if need be."""
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True
