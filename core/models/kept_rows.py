"""Vectors of words that are kept in the user's cache, since a text tower takes minutes over thousands of prompts on a CPU."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ovskit.core.records import Float
from ovskit.core.runtime.cache_folder import can_write, own_folder
from ovskit.core.runtime.errors import OutputError
from ovskit.core.runtime.logs import get_logger
from ovskit.core.runtime.output import open_output

log = get_logger("words")


class Kept(NamedTuple):
    """``rows`` (n, c) float32, and the ``scale`` of the model's cosines."""

    rows: Float
    scale: float


def kept_path(kind: str, said: Any) -> Path | None:
    """Where rows are kept that are a function of ``said`` (JSON values); None where nothing can be kept."""
    folder = own_folder()
    if folder is None or not can_write(os.path.join(folder, kind)):
        return None
    return Path(folder) / kind / f"{hashlib.sha256(json.dumps(said).encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.npz"


def read_kept(path: Path, count: int) -> Kept | None:
    """What is kept there; None where nothing is, or not ``count`` finite rows and a scale."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            rows, scale = arrays["rows"], float(arrays["scale"])
    except FileNotFoundError:
        return None
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        log.info("made again, since %s cannot be read: %s", path, error)
        return None
    sound = rows.dtype == np.float32 and rows.ndim == 2 and len(rows) == count and bool(np.isfinite(rows).all()) and scale > 0
    return Kept(rows, scale) if sound else None


def keep(path: Path, rows: Float, scale: float) -> None:
    """Keep rows for another time, if there is room."""
    arrays = io.BytesIO()
    np.savez(arrays, rows=rows, scale=np.float64(scale))
    try:
        with open_output(str(path)) as file:
            file.write(arrays.getvalue())
    except OutputError as error:
        log.info("not kept: %s", error)
