"""How an existing output, whole or unfinished, differs from what a run would write: for ``--resume`` and ``--skip-existing``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ovskit.core.formats.paths import show_path
from ovskit.core.runtime.shard import Shard


class Header(Protocol):
    """What the headers of both streams have in common."""

    @property
    def shard(self) -> Shard | None: ...

    @property
    def root(self) -> str | None: ...

    @property
    def pg(self) -> Sequence[Mapping[str, Any]]: ...


def unlike(found: Header, wanted: Header) -> str:
    """The first difference between two headers, in words that follow "it"."""
    if found.shard != wanted.shard:
        return f"is {_part(found)}, and this run is {_part(wanted)}: give the same --shard, or another -o"
    before, now = _command(found), _command(wanted)
    if before != now:
        return f"was made by {before!r}" if before else "does not say by which command it was made"
    if found.root != wanted.root:
        return f"has its images below {show_path(str(found.root))}, and this run below {show_path(str(wanted.root))}"
    return "is of other inputs, another model or another version"


def begun_otherwise(what: str, how: str) -> str:
    """The message of a ``--resume`` that cannot go on with ``what``."""
    return f"{what} was begun with other inputs or options: it {how}; run the same command again, or remove it to start anew"


def _part(header: Header) -> str:
    return "the whole" if header.shard is None else f"shard {header.shard}"


def _command(header: Header) -> str:
    return str(header.pg[-1].get("command", "")) if header.pg else ""
