"""Pooled embeddings of many images, left on disk: rows by position, names when they are asked for.

Files are the pooled streams that ``ovs-extract --pool`` writes, or the matrices of clip-retrieval (``img_emb_*.npy``), whose images are
named by its metadata (``metadata_*.parquet``). A position counts rows in the order of the files, from 0. In memory is where the blocks are,
some 2 bytes a row, and what a caller asks for; and of matrices the names of the images.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self
from zlib import crc32

import numpy as np
import numpy.typing as npt

from ovskit.core.formats import jsonbytes
from ovskit.core.formats.pairs.record import to_text
from ovskit.core.formats.pairs.whole_files import Parquet
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.streams.features import HEADER, FeatureHeader
from ovskit.core.formats.streams.npy import parse_header
from ovskit.core.formats.streams.zipstream import Member, data_start, read_directory, read_members
from ovskit.core.records import Int64
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.limits import allow_open_files
from ovskit.core.runtime.output import open_input
from ovskit.core.runtime.shard import join_shards

Float32 = npt.NDArray[np.float32]

_IMAGES, _ROWS = "/images.json", "/embedding.npy"
_GAP = 16  # rows that are read between two wanted ones, rather than by another call
_MATRIX_BLOCK = 1024  # rows of a matrix that are read at once
_NPY_HEADER = 256  # bytes that hold the header of any embedding.npy
_MODEL = ("model", "weights_sha256", "dim")


class Named(NamedTuple):
    """Who a row is of: the image's name, below ``root``."""

    file_name: str
    root: str


class _Block(NamedTuple):
    file: int
    images: Member | None  # None in a matrix, whose names are given
    rows: Member | None
    start: int  # position of its first row
    size: int  # rows
    data: int  # byte of its first row
    dtype: np.dtype[Any]


class RowFiles:
    """The rows of the pooled feature streams ``paths``, of one model, by position.

    ``header`` is the first one's, ``width`` the length of a row. Of matrices in ``.npy`` files the n-th is of the images that the n-th of
    ``metadata`` lists, relative to ``root`` if it is given. Raises MissingInputError for a file that is not there; InputError for one that
    is not a whole stream of pooled embeddings, for a matrix that has not one row for each image, where two are of different models, and
    where some shards of a run are missing.
    """

    def __init__(self, paths: Sequence[str], *, metadata: Sequence[str] = (), root: str | None = None) -> None:
        allow_open_files(len(paths))
        self._names = ["stdin" if path == "-" else show_path(path) for path in paths]
        self._files: list[BinaryIO] = []
        self._blocks: list[_Block] = []
        self.headers: list[FeatureHeader] = []
        self._given: dict[int, list[bytes]] = {}
        self._first: dict[int, int] = {}
        self.width = 0
        matrices = [path for path in paths if path.endswith(".npy")]
        if len(matrices) != len(metadata):
            raise UsageError(f"{len(matrices)} .npy files and {len(metadata)} metadata files: give one of each, in the same order")
        lists = dict(zip(matrices, metadata, strict=True))
        total = 0
        with ExitStack() as stack:
            for path, name in zip(paths, self._names, strict=True):
                self._files.append(stack.enter_context(open_input(path)))
                if path in lists:
                    total = self._open_matrix(len(self._files) - 1, name, Parquet(lists[path]), root, total)
                else:
                    total = self._open(len(self._files) - 1, name, total)
            self._check_shards()
            self._stack = stack.pop_all()
        self._starts = np.array([block.start for block in self._blocks], np.int64)
        self._total = total

    def __len__(self) -> int:
        return self._total

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    @property
    def header(self) -> FeatureHeader:
        """The header of the first file."""
        return self.headers[0]

    def chunks(self, size: int) -> Iterator[tuple[int, Float32]]:
        """All rows from the first to the last, up to about ``size`` at a time: the position of the first, and (n, width) float32.

        Raises InputError for bytes that are damaged and for infinities and NaN.
        """
        found: list[Float32] = []
        start, held = 0, 0
        for block in self._blocks:
            found.append(self._whole(block))
            held += block.size
            if held >= size:
                yield start, np.concatenate(found)
                start, held, found = start + held, 0, []
        if found:
            yield start, np.concatenate(found)

    def take(self, positions: Int64) -> Float32:
        """The rows at ``positions`` (m,), in any order and as often as they are named: (m, width) float32.

        Raises InputError for infinities and NaN.
        """
        rows = np.empty((len(positions), self.width), np.float32)
        order = np.argsort(positions, kind="stable")
        for block, which in self._by_block(positions[order]):
            inside = positions[order[which]] - block.start
            for run in np.split(inside, np.flatnonzero(np.diff(inside) > _GAP) + 1):
                data = self._read(block, int(run[0]), int(run[-1]) + 1)
                rows[order[which][: len(run)]] = data[run - run[0]]
                which = slice(which.start + len(run), which.stop)
        if not np.isfinite(rows).all():
            raise self._not_finite(int(positions[~np.isfinite(rows).all(axis=1)][0]))
        return rows

    def names(self, positions: Int64) -> list[Named]:
        """Who the rows at ``positions`` (m,) are of. Raises InputError for a list of images that is damaged."""
        found: list[Named] = [Named("", "")] * len(positions)
        order = np.argsort(positions, kind="stable")
        for block, which in self._by_block(positions[order]):
            listed, root = self._images(block), self.headers[block.file].root
            for place in order[which].tolist():
                found[place] = Named(listed[int(positions[place]) - block.start], root)
        return found

    def _by_block(self, ascending: Int64) -> Iterator[tuple[_Block, slice]]:
        if len(ascending) == 0:
            return
        of = np.searchsorted(self._starts, ascending, side="right") - 1
        cuts = np.flatnonzero(np.diff(of)) + 1
        for first, last in zip([0, *cuts.tolist()], [*cuts.tolist(), len(of)], strict=True):
            yield self._blocks[int(of[first])], slice(first, last)

    def _images(self, block: _Block) -> list[str]:
        if block.images is None:
            first = block.start - self._first[block.file]
            return [to_text(name) for name in self._given[block.file][first : first + block.size]]
        what = f"{self._names[block.file]}: {block.images.name}"
        data = self._bytes(block.file, data_start(block.images), block.images.size)
        if crc32(data) != block.images.crc:
            raise InputError(f"{what} is damaged; extract the embeddings again")
        listed = jsonbytes.loads(data, what)
        if not isinstance(listed, list) or len(listed) != block.size:
            raise InputError(f"{what} does not list the {block.size} images of its rows; extract the embeddings again")
        try:
            return [str(entry["file_name"]) for entry in listed]
        except (TypeError, KeyError):
            raise InputError(f"{what}: an image needs a file_name") from None

    def _whole(self, block: _Block) -> Float32:
        if block.rows is None:
            rows = self._read(block, 0, block.size)
            if not np.isfinite(rows).all():
                raise self._not_finite(block.start + int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0]))
            return rows
        data = self._bytes(block.file, data_start(block.rows), block.rows.size)
        if crc32(data) != block.rows.crc:
            raise InputError(f"{self._names[block.file]}: {block.rows.name} is damaged; extract the embeddings again")
        rows = np.frombuffer(data, block.dtype, offset=block.data - data_start(block.rows)).reshape(block.size, self.width)
        rows = rows.astype(np.float32)
        if not np.isfinite(rows).all():
            raise self._not_finite(block.start + int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0]))
        return rows

    def _read(self, block: _Block, first: int, last: int) -> Float32:
        wide = self.width * block.dtype.itemsize
        data = self._bytes(block.file, block.data + first * wide, (last - first) * wide)
        return np.frombuffer(data, block.dtype).reshape(last - first, self.width).astype(np.float32)

    def _bytes(self, file: int, start: int, size: int) -> bytes:
        data = os.pread(self._files[file].fileno(), size, start)
        while len(data) < size:  # more than 2 GiB at once, or a signal
            more = os.pread(self._files[file].fileno(), size - len(data), start + len(data))
            if not more:
                raise InputError(f"{self._names[file]} has become shorter while it was read")
            data += more
        return data

    def _not_finite(self, position: int) -> InputError:
        name = self.names(np.array([position], np.int64))[0].file_name
        return InputError(f"the embedding of {show_path(name)} holds infinities or NaN; extract it again")

    def _open(self, file: int, name: str, total: int) -> int:
        stream = self._files[file]
        if not stream.seekable():
            raise InputError(f"{name}: embeddings are read at random, so they cannot come through a pipe; name files")
        members = read_directory(stream, name)
        stream.seek(0)
        if not members or members[0].name != HEADER:
            raise InputError(f"{name} is not a feature stream; make one with ovs-extract --pool cls")
        header = FeatureHeader.from_bytes(next(read_members(stream, name))[1], name)
        if header.pool is None:
            raise InputError(f"{name} has features of patches, and one vector of each image is needed: make it with ovs-extract --pool cls")
        if self.headers and _model(self.header.model) != _model(header.model):
            raise InputError(
                f"{name} and {self._names[0]} are of different models, or of other weights: their embeddings cannot be compared"
            )
        self.headers.append(header)
        blocks = members[1:]
        for images, rows in zip(blocks[::2], blocks[1::2], strict=False):
            if not (images.name.endswith(_IMAGES) and rows.name.endswith(_ROWS)) or len(blocks) % 2:
                raise InputError(f"{name}: unexpected member {images.name!r}; this is not a stream that ovs-extract --pool wrote")
            total += self._add(file, name, images, rows, total)
        return total

    def _check_shards(self) -> None:
        """Raises InputError where some shards of a run are there and others are not. Several runs may be."""
        runs: dict[tuple[str, int], list[int]] = {}
        for file, header in enumerate(self.headers):
            runs.setdefault((header.root, 0 if header.shard is None else header.shard.count), []).append(file)
        for (_, count), files in runs.items():
            if count:
                join_shards([self.headers[file].shard for file in files], [self._names[file] for file in files])

    def _open_matrix(self, file: int, name: str, images: Parquet, root: str | None, total: int) -> int:
        stream = self._files[file]
        size = stream.seek(0, os.SEEK_END)
        count, width, dtype, start = _shape(self._bytes(file, 0, min(_NPY_HEADER, size)), size, name)
        self._check_width(width, name)
        names = images.image_names(root)
        if len(names) != count:
            raise InputError(f"{name} has {count} rows, and {images.what} lists {len(names)} images: they do not belong together")
        self._given[file], self._first[file] = names, total
        self.headers.append(FeatureHeader({"model": None, "weights_sha256": None, "dim": width}, None, str(dtype), images.base, "cls"))
        wide = width * dtype.itemsize
        for first in range(0, count, _MATRIX_BLOCK):
            rows = min(_MATRIX_BLOCK, count - first)
            self._blocks.append(_Block(file, None, None, total + first, rows, start + first * wide, dtype))
        return total + count

    def _check_width(self, width: int, what: str) -> None:
        if self.width not in (0, width):
            raise InputError(f"{what} has rows of {width} numbers, and those before have {self.width}")
        self.width = width

    def _add(self, file: int, name: str, images: Member, rows: Member, start: int) -> int:
        what, at = f"{name}: {rows.name}", data_start(rows)
        count, width, dtype, header = _shape(self._bytes(file, at, min(_NPY_HEADER, rows.size)), rows.size, what)
        self._check_width(width, what)
        self._blocks.append(_Block(file, images, rows, start, count, at + header, dtype))
        return count


def _model(model: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(model.get(key) for key in _MODEL)


def _shape(head: bytes, size: int, what: str) -> tuple[int, int, np.dtype[Any], int]:
    """Rows, width and dtype of a .npy file of ``size`` bytes that begins with ``head``, and where its data begin."""
    dtype, shape, start = parse_header(memoryview(head), what)
    if dtype not in (np.dtype(np.float16), np.dtype(np.float32)) or len(shape) != 2 or not all(shape):
        raise InputError(f"{what}: expected float16 or float32 rows, found {dtype} {shape}")
    if start + shape[0] * shape[1] * dtype.itemsize != size:
        raise InputError(f"{what} has {size} bytes where {dtype} {shape} wants another number; extract the embeddings again")
    return shape[0], shape[1], dtype, start
