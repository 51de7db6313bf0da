"""Which images a command is to work on, from its arguments or stdin."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ovskit.core.runtime.errors import MissingInputError, UsageError

if TYPE_CHECKING:
    from ovskit.core.formats.photographs.sources import Source, Sources
    from ovskit.core.runtime.failures import Failures
    from ovskit.core.runtime.shard import Shard


@dataclass(frozen=True, slots=True)
class ChosenImages:
    """The images of a run, in order: its part, ``shard``, of all that were found below ``root``; ``exif`` is as headers say it."""

    items: Sequence[Source]
    root: str
    exif: str
    shard: Shard


def find_images(
    inputs: Sequence[str] | None,
    failures: Failures,
    *,
    coco: str | None = None,
    root: str | None = None,
    nul: bool = False,
    exif: str | None = None,
) -> Sources:
    """The images of ``inputs`` (files, folders, globs, tars; ``-``, also if there are none: a list on stdin), or those a COCO file lists.

    ``exif`` is what to do with their orientations; if nobody said, a stream of ours that lists them decides, and else they are applied.
    A damaged tar goes to ``failures``. Raises UsageError if stdin is a terminal or both are given, MissingInputError if nothing is named,
    and what the sources raise.
    """
    return _find(inputs or (), failures, coco=coco, root=root, nul=nul).with_exif(None if exif is None else str(exif))


def _find(inputs: Sequence[str], failures: Failures, *, coco: str | None, root: str | None, nul: bool) -> Sources:
    from ovskit.core.formats.photographs.coco_sources import sources_from_coco
    from ovskit.core.formats.photographs.sources import list_sources, parse_path_list

    if coco is not None:
        if inputs:
            raise UsageError("--images COCO.json names the images itself: leave out the paths, or the option")
        return sources_from_coco(coco, root=root, failures=failures)
    paths: list[str] = []
    for text in inputs or ("-",):
        if text != "-":
            paths.append(text)
            continue
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("no images: name files, folders, globs or tars, or pipe in a list of paths (see --help)")
        listed = parse_path_list(sys.stdin.buffer.read(), nul=nul)
        if not listed:
            raise MissingInputError("no images: stdin held no path")
        paths += listed
    return list_sources(paths, root=root, failures=failures)
