"""An index of faiss over the rows, for sets that are too large to compare everything with everything.

An inverted file keeps the rows by the nearest of some centroids and looks into the lists of ``nprobe`` of them only, so it misses
neighbours. How many is measured: ``nprobe`` is doubled until the index, with the re-ranking that follows, finds the wanted share of the
true neighbours of rows that lie evenly among all, by exact search.

Many queries at once go through the lists, not lists through the queries (faiss' ``big_batch_search``): each list is read once, and its rows
are compared with all queries that look into it by one matrix product, three to seven times as fast. Which candidate is the last is then
decided by float32 sums whose rounding depends on what is searched together; that it is also one of the nearest is most unlikely, but with
an index, unlike exact search, nothing rules it out.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ovskit.core.curate.kernels import Float32, normalise, unit
from ovskit.core.curate.neighbours import CHUNK, ExactSearch, Keys, find_neighbours
from ovskit.core.formats import jsonbytes
from ovskit.core.formats.paths import show_path
from ovskit.core.records import Int64
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.logs import get_logger
from ovskit.core.runtime.output import open_output
from ovskit.core.runtime.progress import Watch

if TYPE_CHECKING:
    from ovskit.core.formats.streams.row_files import RowFiles

log = get_logger("curate")

EXACT_CPU, EXACT_GPU = 1e12, 1e15  # comparisons [choice]: hours on a core, minutes on a GPU
_RERANK = 4  # candidates for each neighbour that is wanted
_SAMPLE = 1000
_PER_CENTROID = 64  # rows to train on; faiss warns below 39
_FIRST_PROBES = 8
_A_LIST = 8  # queries on average from which on a list is read once for all of them
_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What an index is: its factory string, how many lists it looks into (None where it has none), and the share of true neighbours that
    it finds."""

    factory: str
    nprobe: int | None
    recall: float

    def to_json(self) -> dict[str, Any]:
        """As the header of a curated stream has it."""
        return {"factory": self.factory, "nprobe": self.nprobe, "recall": self.recall}


def choose_index(wanted: str, rows: int, queries: int, *, gpu: bool) -> str:
    """``exact`` or a factory string, for ``wanted`` as a person gave it."""
    if wanted != "auto":
        return wanted
    if float(rows) * queries <= (EXACT_GPU if gpu else EXACT_CPU):
        return "exact"
    lists = 65536 if rows >= 10_000_000 else 2 ** round(math.log2(4 * math.sqrt(rows)))
    return f"IVF{lists},SQ8"


class IndexSearch:
    """Candidates of an index; see ``neighbours.Candidates``."""

    error = math.inf

    def __init__(self, index: Any, report: IndexReport) -> None:
        self._index, self.report = index, report

    def search(self, queries: Float32, count: int) -> tuple[Float32, Int64]:
        """See ``Candidates``; ``count`` grows by what re-ranking wants."""
        count = min(count * _RERANK, self._index.ntotal)
        values, positions = _by_lists(self._index, queries, count) if self._by_lists(len(queries)) else self._index.search(queries, count)
        return values, positions

    def _by_lists(self, queries: int) -> bool:
        return _has_lists(self._index) and queries * self._index.nprobe >= _A_LIST * self._index.nlist

    def probing(self, nprobe: int) -> IndexSearch:
        """The same, looking into ``nprobe`` lists."""
        ivf = _ivf(self._index)
        if ivf is not None:
            ivf.nprobe = nprobe
        return IndexSearch(self._index, replace(self.report, nprobe=nprobe if ivf is not None else None))


def open_index(rows: RowFiles, factory: str, count: int, recall: float, keys: Keys, *, path: Path | None, watch: Watch) -> IndexSearch:
    """The index of ``rows`` by its factory string, which finds the share ``recall`` of the ``count`` nearest or says that it does not.

    It is read from ``path`` if it is there, else trained (on rows that lie evenly among all), filled, and written there. Raises UsageError
    for a factory string that faiss does not know or that has no inner product; InputError for a file that is not an index of these rows.
    """
    if path is not None and path.is_file():
        return _read(path, rows, factory)
    found = IndexSearch(_build(rows, factory, watch), IndexReport(factory, None, 0.0))
    found = _tuned(found, rows, count, recall, keys)
    if path is not None:
        _write(path, found, rows)
    return found


def _build(rows: RowFiles, factory: str, watch: Watch) -> Any:
    import faiss

    try:
        index = faiss.index_factory(rows.width, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise UsageError(f"--index {factory}: faiss knows no such index: {str(error).splitlines()[0][:120]}") from None
    ivf = _ivf(index)
    wanted = max(_PER_CENTROID * (1 if ivf is None else ivf.nlist), 4 * _PER_CENTROID**2)
    if ivf is not None and len(rows) < ivf.nlist:
        raise UsageError(f"--index {factory} has {ivf.nlist} lists for {len(rows)} rows: give fewer, or --index exact")
    if isinstance(index, faiss.IndexIVFScalarQuantizer):
        index.by_residual = False  # the product with a residual is not that with its row; eight bits are enough for the row
    if not index.is_trained:
        places = np.unique(np.linspace(0, len(rows) - 1, min(wanted, len(rows))).astype(np.int64))
        log.info("training %s on %d of %d rows", factory, len(places), len(rows))
        index.train(unit(rows.take(places)))
    for _, block in watch(rows.chunks(CHUNK), "filling the index", -(-len(rows) // CHUNK)):
        normalise(block)
        index.add(block)
    return index


def _tuned(found: IndexSearch, rows: RowFiles, count: int, wanted: float, keys: Keys) -> IndexSearch:
    own = np.unique(np.linspace(0, len(rows) - 1, min(_SAMPLE, len(rows))).astype(np.int64))
    queries = unit(rows.take(own))
    true = find_neighbours(queries, own, rows, count, ExactSearch(rows), keys).positions
    ivf = _ivf(found._index)
    most, nprobe = (1, 1) if ivf is None else (ivf.nlist, min(_FIRST_PROBES, ivf.nlist))
    while True:
        found = found.probing(nprobe)
        positions = find_neighbours(queries, own, rows, count, found, keys).positions
        share = float(np.mean([len(np.intersect1d(a[a >= 0], b)) / max(1, (a >= 0).sum()) for a, b in zip(true, positions, strict=True)]))
        if share >= wanted or nprobe >= most:
            break
        nprobe = min(2 * nprobe, most)
    say = log.info if share >= wanted else log.warning
    say("%s with nprobe %d finds %.4f of the %d nearest of %d rows", found.report.factory, nprobe, share, count, len(own))
    return IndexSearch(found._index, replace(found.report, recall=round(share, 4)))


def _has_lists(index: Any) -> bool:
    """Whether its lists can be compared with many queries at once: plain rows in plain lists."""
    import faiss

    return isinstance(index, faiss.IndexIVFFlat | faiss.IndexIVFScalarQuantizer) and not index.by_residual


def _by_lists(index: Any, queries: Float32, count: int) -> tuple[Float32, Int64]:
    from faiss.contrib.big_batch_search import big_batch_search

    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # it prints how far it is, whatever it is told
        values, positions = big_batch_search(index, queries, count)
    return values, positions


def _ivf(index: Any) -> Any:
    import faiss

    return faiss.try_extract_index_ivf(index)


def _about(rows: RowFiles) -> str:
    """What the index is of: how many rows, and the headers of their files."""
    digest = hashlib.sha256(str((len(rows), rows.width)).encode())
    for header in rows.headers:
        digest.update(header.to_bytes())
    return digest.hexdigest()


def _write(path: Path, found: IndexSearch, rows: RowFiles) -> None:
    import faiss

    library: Any = faiss  # whose stubs lack the writer
    with open_output(str(path) + _SUFFIX) as file:
        file.write(json.dumps({"rows": _about(rows), **found.report.to_json()}, indent=1).encode() + b"\n")
    with open_output(str(path)) as file:  # last: where it is, what it is is known, whenever a run was killed
        library.write_index(found._index, library.PyCallbackIOWriter(file.write))


def _read(path: Path, rows: RowFiles, factory: str) -> IndexSearch:
    import faiss

    what = show_path(str(path))
    try:
        with open(str(path) + _SUFFIX, "rb") as file:
            said = jsonbytes.loads(file.read(), what + _SUFFIX)
        report = IndexReport(str(said["factory"]), said["nprobe"], float(said["recall"]))
    except (OSError, KeyError, TypeError, ValueError):
        raise InputError(f"{what} has no {path.name}{_SUFFIX} that says what it is: remove it to have it made again") from None
    if said.get("rows") != _about(rows) or report.factory != factory:
        raise InputError(f"{what} is the index {report.factory} of other rows, or another than {factory}: remove it, or name another file")
    try:
        index = faiss.read_index(str(path))
    except RuntimeError:
        raise InputError(f"{what} is damaged: remove it to have it made again") from None
    if index.ntotal != len(rows) or index.d != rows.width:
        raise InputError(f"{what} is the index of {index.ntotal} rows, and there are {len(rows)}: remove it to have it made again")
    log.info("%s: %s with nprobe %s, which finds %.4f of the nearest", what, factory, report.nprobe, report.recall)
    return IndexSearch(index, report).probing(report.nprobe or 1)
