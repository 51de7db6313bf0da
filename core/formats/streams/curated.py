"""The curated stream: JSON lines, one for each image-text pair, with the concepts that its caption and its neighbours' name.

The first line is the header, the last ``{"end": n}``, without which every reader calls the stream truncated::

    {"format":"ovskit.curated/1","root":"shards","model":{…},"vocabulary":{…},"curation":{…},"pg":[…]}
    {"id":31,"key":"00000/000000031","file_name":"00000.tar/000000031.jpg","captions":["…"],
     "concepts":[{"name":"grass","score":1.44,"alignment":0.24,"cluster":0,"own":false,"seen":[0,1]},…],
     "neighbours":[{"key":"00000/000000007","similarity":0.8712},…]}
    {"end":1}

(the second is one line). ``id`` is the place of the image's row among all rows, from 1; lines are in its order. ``concepts`` come the best
first; ``alignment`` is the cosine of image and concept (Eq. 6 of CoCu), ``score`` what they are ranked by, ``cluster`` counts from 0 in the
order of the clusters' best, ``own`` says whether the captions name it, ``seen`` which of the ``neighbours`` do, from 0.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

from ovskit.core.formats import jsonbytes
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.streams.json_lines import LinesWriter, stated
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.limits import allow_open_files
from ovskit.core.runtime.output import open_input
from ovskit.core.runtime.provenance import merge_entries
from ovskit.core.runtime.shard import Shard, join_shards, shard_of

FORMAT = "ovskit.curated/1"
_LONGEST_LINE = 64 << 20
_AGAIN = "run ovs-curate again"


class Concept(NamedTuple):
    """A concept of an archive, see the module."""

    name: str
    score: float
    alignment: float
    cluster: int
    own: bool
    seen: tuple[int, ...]


class Neighbour(NamedTuple):
    """An image that looks alike: its key and the cosine."""

    key: str
    similarity: float


@dataclass(frozen=True, slots=True)
class CuratedPair:
    """One line of a curated stream, see the module."""

    id: int
    key: str
    file_name: str
    captions: tuple[str, ...]
    concepts: tuple[Concept, ...]
    neighbours: tuple[Neighbour, ...]

    def to_line(self) -> bytes:
        """The line, with its end."""
        return (
            jsonbytes.dumps(
                {
                    "id": self.id,
                    "key": self.key,
                    "file_name": self.file_name,
                    "captions": list(self.captions),
                    "concepts": [dict(zip(Concept._fields, concept, strict=True)) for concept in self.concepts],
                    "neighbours": [dict(zip(Neighbour._fields, neighbour, strict=True)) for neighbour in self.neighbours],
                }
            )
            + b"\n"
        )

    @classmethod
    def from_json(cls, value: Any, what: str) -> CuratedPair:
        """Raises InputError for what is not such a line."""
        try:
            concepts = tuple(
                Concept(
                    str(c["name"]), float(c["score"]), float(c["alignment"]), int(c["cluster"]), bool(c["own"]), tuple(map(int, c["seen"]))
                )
                for c in value["concepts"]
            )
            neighbours = tuple(Neighbour(str(n["key"]), float(n["similarity"])) for n in value["neighbours"])
            captions = tuple(map(str, value["captions"]))
            pair = cls(int(value["id"]), str(value["key"]), str(value["file_name"]), captions, concepts, neighbours)
        except (TypeError, KeyError, ValueError):
            raise InputError(f"{what} is not a line of a curated stream; {_AGAIN}") from None
        if any(not 0 <= place < len(neighbours) for concept in concepts for place in concept.seen):
            raise InputError(f"{what}: a concept is seen in a neighbour that is not listed; {_AGAIN}")
        return pair


@dataclass(frozen=True, slots=True)
class CuratedHeader:
    """The header: the folder ``root`` that images' names are relative to, the ``model`` of the rows, the ``vocabulary`` (hash, size),
    ``curation``, the options that a trainer needs to draw, the provenance ``pg``, and which ``shard`` of the rows it is, None for all."""

    root: str | None
    model: Mapping[str, Any]
    vocabulary: Mapping[str, Any]
    curation: Mapping[str, Any]
    pg: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    shard: Shard | None = None

    def to_line(self) -> bytes:
        """The first line, with its end."""
        part = {} if self.shard is None else {"shard": str(self.shard)}
        said = {"format": FORMAT, "root": self.root, "model": dict(self.model), "vocabulary": dict(self.vocabulary)}
        return jsonbytes.dumps({**said, "curation": dict(self.curation), **part, "pg": [dict(entry) for entry in self.pg]}) + b"\n"

    @classmethod
    def from_line(cls, line: bytes, what: str) -> CuratedHeader:
        """Raises InputError for another format, a newer version or missing fields."""
        value = stated(line, what, FORMAT, "a curated stream, as ovs-curate writes it")
        try:
            root, model, vocabulary, curation = (value[name] for name in ("root", "model", "vocabulary", "curation"))
            tables = (model, vocabulary, curation)
            if not (all(isinstance(table, dict) for table in tables) and isinstance(value["pg"], list) and isinstance(root, str | None)):
                raise TypeError
            return cls(root, model, vocabulary, curation, tuple(value["pg"]), shard_of(value.get("shard")))
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{what}: its header is incomplete; {_AGAIN}") from None


class CuratedWriter(LinesWriter):
    """Writes a curated stream line by line; ``finish`` closes it, and without it every reader calls it truncated."""

    @classmethod
    def header_of(cls, line: bytes, what: str) -> CuratedHeader:
        """See ``LinesWriter``."""
        return CuratedHeader.from_line(line, what)

    @classmethod
    def id_of(cls, line: bytes, what: str) -> int:
        """See ``LinesWriter``."""
        return CuratedPair.from_json(jsonbytes.loads(line, what), what).id

    def write(self, pair: CuratedPair) -> None:
        """Append one pair."""
        self.append(pair.to_line())


def open_curated(stream: BinaryIO, what: str) -> tuple[CuratedHeader, Iterator[CuratedPair]]:
    """The header, and the pairs as they arrive.

    The iterator raises InputError at damage, so only a consumer that reads to the end may call its input complete.
    """
    header = CuratedHeader.from_line(stream.readline(_LONGEST_LINE), what)
    return header, _pairs(stream, what)


def _pairs(stream: BinaryIO, what: str) -> Iterator[CuratedPair]:
    number, last = 1, 0
    while line := stream.readline(_LONGEST_LINE):
        number += 1
        here = f"{what}: line {number}"
        if not line.endswith(b"\n"):
            break
        value = jsonbytes.loads(line, here)
        if isinstance(value, dict) and "end" in value:
            if value["end"] != number - 2:
                raise InputError(f"{here} says that there are {value['end']} pairs, and there are {number - 2}; {_AGAIN}")
            if stream.readline(1):
                raise InputError(f"{here}: there is more after the end; two streams in one file? Join them with ovs-curate --join")
            return
        pair = CuratedPair.from_json(value, here)
        if pair.id <= last:
            raise InputError(f"{here}: ids must rise, but {pair.id} follows {last}")
        last = pair.id
        yield pair
    raise InputError(f'{what} is truncated: it ends at line {number} without {{"end":…}}; {_AGAIN}')


class CuratedInputs:
    """Curated files (``-`` is stdin) as one stream in the order of ids; ``header`` is the first one's, with the provenance of all.

    Raises InputError if a header is broken, if files are of different models, vocabularies or options, or if not all shards of a run are
    there; MissingInputError if a file is not there, UsageError for stdin named twice.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        if list(paths).count("-") > 1:
            raise UsageError("stdin (-) can be read once only; name it once")
        allow_open_files(len(paths))
        self._names = ["stdin" if path == "-" else show_path(path) for path in paths]
        self._streams: list[Iterator[CuratedPair]] = []
        headers: list[CuratedHeader] = []
        with ExitStack() as stack:
            for path, name in zip(paths, self._names, strict=True):
                header, pairs = open_curated(stack.enter_context(open_input(path)), name)
                headers.append(header)
                self._streams.append(pairs)
                for what in ("root", "model", "vocabulary", "curation"):
                    if getattr(header, what) != getattr(headers[0], what):
                        raise InputError(f"{name} has another {what} than {self._names[0]}: only shards of one run are joined")
            shard = join_shards([header.shard for header in headers], self._names)
            self._stack = stack.pop_all()
        self.header = replace(headers[0], pg=merge_entries([header.pg for header in headers]), shard=shard)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def pairs(self) -> Iterator[CuratedPair]:
        """All pairs. Raises InputError at a damaged stream, or a pair that is there twice."""
        before: tuple[int, int] | None = None
        tagged = [_tagged(pairs, k) for k, pairs in enumerate(self._streams)]
        for k, pair in heapq.merge(*tagged, key=lambda one: one[1].id):
            if before is not None and pair.id == before[1]:
                raise InputError(f"pair {show_path(pair.key)} ({pair.id}) is in {self._names[before[0]]} and in {self._names[k]}")
            before = (k, pair.id)
            yield pair


def _tagged(pairs: Iterator[CuratedPair], k: int) -> Iterator[tuple[int, CuratedPair]]:
    for pair in pairs:
        yield k, pair


def listed_ids(stream: BinaryIO, what: str) -> set[int]:
    """The ids of a whole stream. Raises InputError."""
    return {pair.id for pair in open_curated(stream, what)[1]}
