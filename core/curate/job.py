"""A run of ``ovs-curate``: what it opens, the header that it writes, and what it says at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from ovskit.core.concepts.matching import Matcher
from ovskit.core.concepts.vocabulary import Vocabulary, open_vocabulary
from ovskit.core.curate.concept_rows import embed_concepts, read_concept_rows
from ovskit.core.curate.index import choose_index, open_index
from ovskit.core.curate.kernels import Float32
from ovskit.core.curate.neighbours import ExactSearch
from ovskit.core.curate.options import CurateOptions, SearchOptions, VocabularyOptions
from ovskit.core.curate.pipeline import Counts, Curation, Reference, check_together, curate, sorting_keys
from ovskit.core.formats.pairs.pair_set import PairSet
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.streams.curated import CuratedHeader, CuratedPair
from ovskit.core.formats.streams.row_files import RowFiles
from ovskit.core.runtime.device import choose_device
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.progress import Watch
from ovskit.core.runtime.shard import parse_shard

if TYPE_CHECKING:
    import torch

Provenance = Callable[[Sequence[Mapping[str, Any]], Mapping[str, Any]], list[dict[str, Any]]]
"""The entries of the output, from those of the rows and from their model."""

_OF_TRAINING = ("expansion", "neighbours", "near_duplicates", "own", "score", "texts", "sampling", "temperature", "seed")


class CurateInputs(NamedTuple):
    """Files: ``rows`` of the images and the ``pairs`` that they are of, the ``root`` of images and the ``columns`` of tables among the
    pairs, the rows and pairs to expand them by (empty for the images themselves), the
    ``metadata`` of rows that are matrices, and which ``shard`` of the rows is curated."""

    rows: tuple[str, ...]
    pairs: tuple[str, ...]
    root: str | None = None
    columns: str = "auto"
    from_rows: tuple[str, ...] = ()
    from_pairs: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    shard: str | None = None


class CurateJob:
    """Everything that a run has open. Raises what opening rows, pairs, vocabulary, model and index raises."""

    def __init__(
        self,
        source: CurateInputs,
        options: CurateOptions,
        concepts: VocabularyOptions,
        search: SearchOptions,
        failures: Failures,
        device: str,
        workers: int,
        watch: Watch,
    ) -> None:
        import faiss

        faiss.omp_set_num_threads(workers)
        self._watch, self._template = watch, concepts.template
        self._shard = parse_shard(source.shard)
        self.counts = Counts()
        chosen_device = choose_device(device)
        with ExitStack() as stack:
            rows = stack.enter_context(RowFiles(source.rows, metadata=source.metadata, root=source.root))
            if not len(rows):
                raise InputError(f"{', '.join(map(show_path, source.rows[:3]))}: there are no rows")
            vocabulary = open_vocabulary(concepts.vocabulary)
            texts = self._texts(rows, vocabulary, concepts, chosen_device)
            pairs = _pairs(source.pairs, source, failures)
            check_together(rows, pairs)
            reference = self._reference(rows, pairs, source, options, search, failures, chosen_device, stack)
            self._run = Curation(rows, pairs, reference, vocabulary, Matcher(vocabulary), texts, options, workers, self.counts)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def _reference(
        self,
        rows: RowFiles,
        pairs: PairSet,
        source: CurateInputs,
        options: CurateOptions,
        search: SearchOptions,
        failures: Failures,
        device: torch.device,
        stack: ExitStack,
    ) -> Reference:
        """What the images are expanded by, and the search in it."""
        other = options.caption_rows if options.expansion == "language" else source.from_rows
        base = rows
        if other:
            base = stack.enter_context(RowFiles(other))
            if base.width != rows.width or base.header.model != rows.header.model:
                raise InputError(f"{show_path(other[0])} is of another model than {show_path(source.rows[0])}: they cannot be compared")
            pairs = _pairs(source.from_pairs, source, failures) if source.from_pairs else pairs
            check_together(base, pairs)
        gpu = device if device.type == "cuda" else None
        # By all rows and not by this shard's, so that parts are what a single run would have given.
        chosen = choose_index(search.index, len(base), len(rows), gpu=gpu is not None)
        if chosen == "exact":
            self._index: dict[str, Any] = {"factory": "exact"}
            exact = ExactSearch(base, gpu, lambda items, total: self._watch(items, "searching", total))
            return Reference(base, pairs, exact, not other)
        kept = search.index_file
        index = open_index(base, chosen, options.neighbours, search.recall, sorting_keys(base), path=kept, watch=self._watch)
        self._index = index.report.to_json()
        return Reference(base, pairs, index, not other)

    def _texts(self, rows: RowFiles, vocabulary: Vocabulary, concepts: VocabularyOptions, device: torch.device) -> Float32:
        if concepts.concept_rows is not None:
            return read_concept_rows(concepts.concept_rows, vocabulary.names, rows.width)
        if rows.header.model["model"] is None:
            raise UsageError("a .npy file does not say which model made its rows: give the concepts' with --concept-rows FILE.npz")
        from ovskit.core.models.backbones.interface import BackboneSpec

        spec = BackboneSpec.from_json(rows.header.model)
        return embed_concepts(
            spec, vocabulary, concepts.template, rows.width, weights=concepts.weights, device=device, watch=self._watch
        )  # fmt: skip

    def __len__(self) -> int:
        """How many rows are of this shard."""
        return len(range(self._shard.index, len(self._run.rows), self._shard.count))

    def header(self, provenance: Provenance) -> CuratedHeader:
        """The header of the output."""
        run, first = self._run, self._run.rows.header
        said = {name: getattr(run.options, name) for name in _OF_TRAINING}
        said["ranking"] = "guided" if run.options.is_guided else "naive"
        if np.isinf(said["near_duplicates"]):
            said["near_duplicates"] = None  # which JSON has no number for
        curation = {**said, "template": self._template, "index": self._index}
        vocabulary = {"hash": run.vocabulary.hash, "size": len(run.vocabulary.names)}
        model = {name: first.model.get(name) for name in ("model", "weights_sha256")}
        return CuratedHeader(first.root, model, vocabulary, curation, provenance(first.pg, first.model), self._shard.stated)

    def pairs(self, done: frozenset[int]) -> Iterator[CuratedPair]:
        """The pairs of this shard whose ids are not ``done``, in order."""
        positions = np.arange(self._shard.index, len(self._run.rows), self._shard.count, dtype=np.int64)
        if done:
            positions = positions[~np.isin(positions + 1, np.fromiter(done, np.int64, len(done)))]
        return curate(self._run, positions)

    def report(self) -> Iterator[tuple[str, bool]]:
        """What is to be said at the end, and whether it is a warning."""
        counts = self.counts
        yield f"{counts.done} pairs curated with {len(self._run.vocabulary.names)} concepts", False
        if counts.unpaired:
            some = ", ".join(map(show_path, counts.examples))
            yield f"{counts.unpaired} rows have no pair, such as {some}: they were left out", True
        if counts.empty:
            yield f"{counts.empty} pairs have no concept: a training step sees their captions alone", True
        if counts.clamped:
            yield f"{counts.clamped} similarities of image and concept were not positive, and counted as 1e-6", True


def _pairs(paths: Sequence[str], source: CurateInputs, failures: Failures) -> PairSet:
    return PairSet(paths, root=source.root, columns=source.columns, failures=failures, need_images=False)
