"""What a person names as pairs: tars, lists, folders of those, globs; and the folder that their names are relative to."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence

from ovskit.core.formats.pairs.json_lines import JsonLines
from ovskit.core.formats.pairs.listing import Listing
from ovskit.core.formats.pairs.tables import Table
from ovskit.core.formats.pairs.whole_files import CocoCaptions, Parquet
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.sources import expand_input
from ovskit.core.formats.walk import files_below
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError
from ovskit.core.runtime.logs import get_logger

log = get_logger("pairs")

_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_LISTS = (".jsonl", ".ndjson", ".json", ".tsv", ".csv", ".parquet")
_KINDS = " ".join((".tar", *_LISTS))
_HEAD = 1 << 16


def find_inputs(inputs: Sequence[str]) -> list[tuple[str, str | None]]:
    """The tars and lists that ``inputs`` name, and the folder or tar that the names of each can be relative to; None for a list that is
    named itself, since that is where its images are.

    Of a folder, its tars; if it has none its lists: JSON Lines, TSV, CSV, Parquet, and JSON that looks like COCO's. What img2dataset
    writes beside its tars is passed over. Raises MissingInputError for what is not there or has no pairs, UsageError for a file of another
    kind, InputError for one that is named twice.
    """
    if not inputs:
        raise MissingInputError("no pairs: name tars, lists of captions, or folders of these")
    found: list[tuple[str, str | None]] = []
    for text in inputs:
        matches = expand_input(text)
        alone = matches == [text]  # a glob may match others
        for path in map(os.path.normpath, matches):
            if os.path.isdir(path):
                below = _in_folder(path)
                if not below and alone:
                    raise MissingInputError(f"no pairs in {show_path(path)} (looked for {_KINDS})")
                found += [(one, path) for one in below]
            elif _is_of_a_tar(path):
                log.info("passed over %s: its tar has the pairs", show_path(path))
            elif alone or _is_known(path):
                found.append((_checked(path), path if path.endswith(".tar") else None))
    if not found:
        raise MissingInputError(f"no pairs in {', '.join(map(show_path, inputs[:3]))}{' …' if len(inputs) > 3 else ''}")
    times = Counter(os.path.abspath(path) for path, _ in found)
    if twice := next((path for path, _ in found if times[os.path.abspath(path)] > 1), None):
        raise InputError(f"{show_path(twice)} is named twice; name every file once")
    return found


def open_list(path: str, columns: str) -> Listing:
    """The list at ``path``, by its suffix."""
    match os.path.splitext(path)[1].lower():
        case ".jsonl" | ".ndjson":
            return JsonLines(path)
        case ".json":
            return CocoCaptions(path)
        case ".parquet":
            return Parquet(path)
        case _:
            return Table(path, columns)


def _is_known(path: str) -> bool:
    return path.endswith(".tar") or path.lower().endswith(_LISTS)


def _checked(path: str) -> str:
    if path.lower().endswith(_PACKED):
        raise UsageError(f"{show_path(path)}: compressed tars cannot be read at random; unpack it, or store it as plain .tar")
    if not _is_known(path):
        raise UsageError(f"{show_path(path)} is not a file of image-text pairs: give {_KINDS}, or folders of these")
    return path


def _is_of_a_tar(path: str) -> bool:
    """Whether it is a file that img2dataset writes beside a tar: ``00000.parquet``, ``00000_stats.json``."""
    stem = path.removesuffix("_stats.json") if path.endswith("_stats.json") else path.removesuffix(".parquet")
    return stem != path and os.path.exists(f"{stem}.tar")


def _in_folder(folder: str) -> list[str]:
    files = [path for path in files_below(folder) if _is_known(path)]
    tars = [path for path in files if path.endswith(".tar")]
    if tars:
        return tars
    return [path for path in files if not path.endswith("_stats.json") and (not path.lower().endswith(".json") or _looks_like_coco(path))]


def _looks_like_coco(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return re.search(rb'"(images|annotations)"\s*:\s*\[', file.read(_HEAD)) is not None
    except OSError:
        return False
