"""Feature streams in, mask sets out: several inputs as one, several images at a time, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heapreplace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ovskit.core.cluster.options import SohesOptions
from ovskit.core.cluster.sohes import cluster_regions
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.streams.features import FeatureReader
from ovskit.core.formats.streams.numpy_features import NumpyFeatures, NumpyReader
from ovskit.core.records import EmbeddingBlock, FeatureMap, MaskSet
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.limits import allow_open_files
from ovskit.core.runtime.output import open_input
from ovskit.core.runtime.provenance import merge_entries
from ovskit.core.runtime.shard import join_shards
from ovskit.core.runtime.workers import ordered_map

if TYPE_CHECKING:  # the local step alone needs torch
    from ovskit.core.cluster.crop_features import CropExtractor


@dataclass(frozen=True, slots=True)
class RootedFeatures:
    """A feature map and the folder its stream's names are relative to."""

    root: str
    features: FeatureMap


class FeatureInputs:
    """Feature streams read as if they were one: shards joined give what the whole run would have given.

    ``header`` is the first stream's, with the provenance of all, and the shard of a single one. Opening raises InputError if a header
    is broken or the streams were not made by the same model in the same way or are not all shards of their run, MissingInputError if a
    file is not there. Features that were saved with NumPy are read as one stream more. ``names`` are what messages call them, if not by
    their paths.
    """

    def __init__(self, paths: Sequence[str | NumpyFeatures], names: Sequence[str] | None = None) -> None:
        self._names = [name_of(path) for path in paths] if names is None else names
        self._stack = ExitStack()
        allow_open_files(len(paths))
        try:
            self._readers = [self._open(path, name) for path, name in zip(paths, self._names, strict=True)]
            headers = [reader.header for reader in self._readers]
            first = headers[0]
            for name, header in zip(self._names, headers, strict=True):
                if (header.model, header.size, header.pool, header.exif) != (first.model, first.size, first.pool, first.exif):
                    raise InputError(f"{name} was not extracted like {self._names[0]}: their models or sizes differ")
            if first.pool is not None:
                raise InputError(f"{self._names[0]} holds pooled embeddings, not patch features; extract without --pool")
            shard = join_shards([header.shard for header in headers], self._names)
        except BaseException:  # whatever it is goes on up; the files must not stay open
            self._stack.close()
            raise
        self.header = replace(first, pg=merge_entries([header.pg for header in headers]), shard=shard)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def _open(self, path: str | NumpyFeatures, name: str) -> FeatureReader | NumpyReader:
        if isinstance(path, NumpyFeatures):
            return self._stack.enter_context(path.open())
        return FeatureReader(self._stack.enter_context(open_input(path)), name)

    def records(self) -> Iterator[RootedFeatures]:
        """Every feature map, in order of id as far as each stream is; one is in memory. To be called once.

        Raises InputError at a damaged stream, or two images of one name or id.
        """
        names: set[str] = set()
        ids: set[int] = set()
        turns = [(images[0].id, k) for k, reader in enumerate(self._readers) if (images := reader.peek())]
        heapify(turns)
        while turns:
            _, k = turns[0]
            reader, name = self._readers[k], self._names[k]
            record = reader.take()
            if isinstance(record, EmbeddingBlock):
                raise InputError(f"{name}: pooled embeddings among patch features")
            image = record.image
            if image.file_name in names or image.id in ids:
                raise InputError(f"{name}: image {image.id} ({show_path(image.file_name)}) appears twice among the inputs")
            names.add(image.file_name)
            ids.add(image.id)
            yield RootedFeatures(reader.header.root, record)
            del record  # or it would still be there while the next one is read
            following = reader.peek()
            if following:
                heapreplace(turns, (following[0].id, k))
            else:
                heappop(turns)


def name_of(path: str | NumpyFeatures) -> str:
    """What messages call one of the inputs."""
    if isinstance(path, NumpyFeatures):
        return path.what
    return "stdin" if path == "-" else show_path(path)


def cluster_stream(
    records: Iterable[RootedFeatures],
    options: SohesOptions,
    failures: Failures,
    *,
    stride: int,
    workers: int,
    crop_extractor: Callable[[str], CropExtractor] | None,
    done: frozenset[int] = frozenset(),
) -> Iterator[MaskSet]:
    """Masks of every image, in order, whatever the number of ``workers``.

    ``stride`` is the backbone's patch in pixels; ``crop_extractor`` opens the features of crops for a stream's root, None leaves the
    local step out. Images whose id is in ``done`` are passed over. An image whose features or photograph cannot be used
    goes to ``failures``; a damaged stream raises InputError whatever ``failures`` says.
    """

    def work(rooted: RootedFeatures) -> MaskSet | InputError | MissingInputError | None:
        features = rooted.features
        if features.image.id in done:
            return None
        height, width, _ = features.patch.shape
        try:
            extractor = None if crop_extractor is None else crop_extractor(rooted.root)
            crop_features = None if extractor is None else (lambda crops: extractor(features.image, crops))
            return cluster_regions(features, options, frame=(height * stride, width * stride), crop_features=crop_features)
        except (InputError, MissingInputError) as error:
            return error

    for result in ordered_map(work, records, workers):
        if isinstance(result, MaskSet):
            yield result
        elif result is not None:
            failures.handle(result)
