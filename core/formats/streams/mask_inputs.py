"""Several masks files read as one: the shards of a run, joined."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from ovskit.core.formats.paths import show_path
from ovskit.core.formats.streams.masks import MasksHeader, open_masks
from ovskit.core.records import MaskSet
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.limits import allow_open_files
from ovskit.core.runtime.output import open_input
from ovskit.core.runtime.provenance import merge_entries
from ovskit.core.runtime.shard import join_shards


class MaskInputs:
    """Masks files (``-`` is stdin) as one stream; ``header`` is the first one's, with the provenance of all.

    Images come in order of id as far as each file is in that order, so shards joined give what the whole run would have
    given. One image of each file is in memory. Opening raises InputError if a header is broken, if two files name different
    folders of images, label spaces or categories, or if not all shards of a run are there; MissingInputError if a file is not
    there, UsageError for stdin named twice. Broken annotations of files that are not ours go to ``failures`` if given.
    """

    def __init__(self, paths: Sequence[str], failures: Failures | None = None) -> None:
        if list(paths).count("-") > 1:
            raise UsageError("stdin (-) can be read once only; name it once")
        allow_open_files(len(paths))
        self._stack = ExitStack()
        self._names = ["stdin" if path == "-" else show_path(path) for path in paths]
        headers, self._streams = [], []
        try:
            for path, name in zip(paths, self._names, strict=True):
                header, sets = open_masks(self._stack.enter_context(open_input(path)), name, failures)
                headers.append(header)
                self._streams.append(sets)
            first = headers[0]
            for header, name in zip(headers[1:], self._names[1:], strict=True):
                if header.root != first.root:
                    raise InputError(
                        f"{name} has its images below {header.root}, {self._names[0]} below {first.root}: only shards of one run are joined"
                    )
                if header.named != first.named:
                    nameless = name if first.named else self._names[0]
                    raise InputError(f"{nameless} has no image names, the others have: only shards of one run are joined")
                if header.exif != first.exif:
                    raise InputError(
                        f"{name} has EXIF orientations {_exif(header)}, {self._names[0]} {_exif(first)}: only shards of one run are joined"
                    )
                if _space_hash(header) != _space_hash(first):
                    raise InputError(
                        f"{name} has masks named by {_space(header)}, {self._names[0]} by {_space(first)}: label spaces are not mixed; "
                        "name all of them by one, with ovs-label --names"
                    )
                if list(header.categories) != list(first.categories):
                    raise InputError(f"{name} and {self._names[0]} have different categories: only shards of one run are joined")
            shard = join_shards([header.shard for header in headers], self._names)
        except BaseException:  # whatever it is goes on up; the files must not stay open
            self._stack.close()
            raise
        self.header = replace(first, pg=merge_entries([header.pg for header in headers]), shard=shard)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def sets(self) -> Iterator[MaskSet]:
        """Every image's masks. Raises InputError at a damaged stream, or an image that is there twice."""
        if len(self._streams) == 1:
            yield from self._streams[0]
            return
        seen: dict[int, int] = {}
        names: dict[str, int] = {}
        tagged = [_tagged(sets, k) for k, sets in enumerate(self._streams)]
        for k, masks in heapq.merge(*tagged, key=lambda pair: pair[1].image.id):
            image = masks.image
            other = seen.get(image.id, names.get(image.file_name))
            if other is not None:
                raise InputError(f"image {image.id} ({show_path(image.file_name)}) is in {self._names[other]} and in {self._names[k]}")
            seen[image.id] = names[image.file_name] = k
            yield masks


def _exif(header: MasksHeader) -> str:
    return {"apply": "applied", "ignore": "ignored"}.get(header.exif, "treated in an unknown way")


def _space_hash(header: MasksHeader) -> Any:
    return None if header.labels is None else header.labels.get("hash")


def _space(header: MasksHeader) -> str:
    if header.labels is None:
        return "no label space"
    return f"the label space {show_path(str(header.labels.get('name')))} ({show_path(str(_space_hash(header))[:12])})"


def _tagged(sets: Iterator[MaskSet], k: int) -> Iterator[tuple[int, MaskSet]]:
    for masks in sets:
        yield k, masks
