"""A folder that appears when everything in it is written, or not at all; and files of it that were damaged since."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile

from ovskit.core.formats.paths import show_path
from ovskit.core.runtime.output import umask, write_error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever the body does not understand of ``path`` is ValueError that only names it: readers tell of themselves, and numpy's
    advises to allow that code is run. OSError stays."""
    try:
        yield
    except (ValueError, KeyError, TypeError, IndexError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path.name} cannot be read") from error


@contextmanager
def whole_folder(folder: Path, what: str) -> Iterator[Path]:
    """Yield a new folder beside ``folder``, with the mode that the umask asks for, and move it there after the body.

    ``folder`` may be there if it is empty. Raises OutputError, naming it ``what``, for an OSError in the body too; on any exception
    nothing stays.
    """
    part: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        os.chmod(part, 0o777 & ~umask())
        yield part
        if folder.is_dir():
            folder.rmdir()
        os.replace(part, folder)
    except OSError as error:
        advice = "free some space, or name another folder with --cache"
        raise write_error(f"{what} {show_path(str(folder))}", error, advice) from None
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
