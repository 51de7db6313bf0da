"""Photographs and their segments, decoded and cut up once, kept on disk as plain arrays that are mapped, not read.

Training looks at every photograph many times. The cache is a folder of three files:

- ``images.npy``: all pixels, RGB, one photograph after the other, (bytes,) uint8,
- ``labels.npy``: for each second pixel in both directions the number of its segment, modulo 256, at each granularity: (bytes,) uint8,
- ``index.npz``: ``sizes`` (n, 2) int32, height and width; ``names`` (n,), and ``key``, what the cache was made of.

Segments are Felzenszwalb's at several scales [choice], the finest first, or come from masks (``mask_segments``), or there are
none. ``index.npz`` is written last, so a folder that has
it is complete; one made of other photographs or settings is refused, never mixed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.lib import format as npy

from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.photographs import IGNORE, read_source
from ovskit.core.formats.photographs.sources import Source
from ovskit.core.models.superpixels import superpixels
from ovskit.core.models.weights.source import sha256_of
from ovskit.core.records import Int32, MaskSet, UInt8
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.workers import ordered_map
from ovskit.core.train.data.mask_segments import mask_segments, with_masks
from ovskit.core.train.data.whole_folder import reading, whole_folder

LABEL_STRIDE = 2
FORMAT = "ovskit.pool-cache/1"
_SHORTEST = 32  # pixels: a shorter side shows nothing to group

Watch = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class SegmentOptions:
    """``shorter_side`` is what larger photographs are shrunk to, in pixels; ``scales`` are Felzenszwalb's k in levels of
    0 to 255, ascending, ``smallest`` the fewest pixels of a segment. On photographs of 176 pixels the defaults give about
    95, 50, 25 and 10 segments (medians). No scales: no segments, photographs alone. All choices."""

    shorter_side: int = 176
    scales: tuple[float, ...] = (250.0, 600.0, 1500.0, 4000.0)
    smallest: int = 24


@dataclass(frozen=True, slots=True)
class MaskOptions:
    """Segments from a masks file instead, at ``shares`` of a photograph's area, ascending; see ``mask_segments``."""

    path: Path
    shares: tuple[float, ...]


class PoolCache:
    """The photographs of one cache folder; ``cache[k]`` is (image (H, W, 3), labels (H/2, W/2, levels)), both uint8."""

    def __init__(self, folder: Path) -> None:
        """Open a complete cache. Raises InputError if it is damaged, MissingInputError if it is not there."""
        try:
            with reading(folder / "index.npz"), np.load(folder / "index.npz", allow_pickle=False) as index:
                self.sizes: Int32 = index["sizes"]
                self.names: list[str] = index["names"].tolist()
                self.key: str = str(index["key"])
                self.levels = int(index["levels"])
            with reading(folder / "images.npy"):
                self._images: UInt8 = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
            with reading(folder / "labels.npy"):  # an empty file cannot be mapped
                self._labels: UInt8 = np.load(folder / "labels.npy", mmap_mode="r" if self.levels else None, allow_pickle=False)
        except FileNotFoundError as error:
            raise MissingInputError(f"{show_path(str(folder))}: no cache of segments ({error.filename} is missing)") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{show_path(str(folder))}: a damaged cache ({error}); delete the folder to have it made again") from None
        area = self.sizes.astype(np.int64).prod(axis=1)
        small = _small(self.sizes.astype(np.int64)).prod(axis=1) * self.levels
        self._image_ends, self._label_ends = np.cumsum(area * 3), np.cumsum(small)
        if self._images.shape != (int(self._image_ends[-1]),) or self._labels.shape != (int(self._label_ends[-1]),):
            raise InputError(f"{show_path(str(folder))}: a damaged cache (its files do not fit each other); delete the folder")

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, k: int) -> tuple[UInt8, UInt8]:
        height, width = (int(v) for v in self.sizes[k])
        h, w = (int(v) for v in _small(self.sizes[k]))
        image = self._images[int(self._image_ends[k]) - height * width * 3 : int(self._image_ends[k])]
        labels = self._labels[int(self._label_ends[k]) - h * w * self.levels : int(self._label_ends[k])]
        return image.reshape(height, width, 3), labels.reshape(h, w, self.levels)


def cache_key(sources: Sequence[Source], options: SegmentOptions, masks: MaskOptions | None = None) -> str:
    """What decides a cache's content: a hash of who and how the photographs are, of the options and of the masks' bytes."""
    parts: list[Any] = [FORMAT, asdict(options), [_identity(source) for source in sources]]
    if masks is not None:
        parts += [sha256_of(masks.path), masks.shares]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _identity(source: Source) -> list[Any]:
    return [source.file_name, source.offset, _length(source), *([IGNORE] if source.exif == IGNORE else [])]


def open_pool(
    sources: Sequence[Source],
    options: SegmentOptions,
    folder: Path,
    *,
    workers: int,
    failures: Failures,
    masks: MaskOptions | None = None,
    watch: Watch = lambda items: items,
) -> PoolCache:
    """The cache of ``sources`` in ``folder``, made now if it is not there yet.

    With ``masks`` the segments come from them, and the photographs are in the order of that file. A source that cannot be
    read or decoded, has a side below 32 pixels, or no masks where they are asked for, goes to ``failures``. Raises InputError
    for a cache made of something else, for masks that are damaged or of other photographs, or if no photograph is left;
    MissingInputError if there is no such masks file; OutputError if it cannot be written, whereupon nothing of it stays.
    """
    key = cache_key(sources, options, masks)
    if (folder / "index.npz").exists():
        cache = PoolCache(folder)
        if cache.key != key:
            raise InputError(
                f"{show_path(str(folder))}: made of other photographs or with other segments; name another with --cache, or delete this"
            )
        return cache
    _make(sources, options, masks, folder, key, workers, failures, watch)
    return PoolCache(folder)


def _make(
    sources: Sequence[Source],
    options: SegmentOptions,
    masks: MaskOptions | None,
    folder: Path,
    key: str,
    workers: int,
    failures: Failures,
    watch: Watch,
) -> None:
    def work(item: tuple[Source, MaskSet | InputError | None]) -> tuple[str, UInt8, UInt8] | InputError | MissingInputError:
        source, own = item
        if isinstance(own, InputError):
            return own
        try:
            pixels = _shrunk(source, options)
            h, w = (side // LABEL_STRIDE for side in pixels.shape[:2])
            if masks is None or own is None:
                return source.file_name, pixels, _segmented(pixels, options)
            return source.file_name, pixels, mask_segments(own, masks.shares, h, w)
        except (InputError, MissingInputError) as error:
            return error

    items = ((source, None) for source in sources) if masks is None else with_masks(sources, masks.path)

    # An empty folder may be there, left by a cache of an older format.
    with whole_folder(folder, "the cache") as part:
        names, sizes = [], []
        with open(part / "images.npy", "wb") as images, open(part / "labels.npy", "wb") as labels:
            _reserve_header(images)
            _reserve_header(labels)
            for result in watch(ordered_map(work, items, workers)):
                if not isinstance(result, tuple):
                    failures.handle(result)
                    continue
                names.append(result[0])
                sizes.append(result[1].shape[:2])
                images.write(result[1].tobytes())
                labels.write(result[2].tobytes())
            if not names:
                raise InputError("no photograph is left to train on")
            _write_header(images)
            _write_header(labels)
        np.savez(
            part / "index.npz",
            sizes=np.array(sizes, np.int32),
            names=np.array(names),
            key=np.array(key),
            levels=np.array(len(options.scales if masks is None else masks.shares)),
        )


def _shrunk(source: Source, options: SegmentOptions) -> UInt8:
    what = show_path(source.file_name)
    pixels = read_source(source)[1]
    height, width = pixels.shape[:2]
    shrink = min(1.0, options.shorter_side / min(height, width))
    if shrink < 1:
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    if min(pixels.shape[:2]) < _SHORTEST:
        raise InputError(f"{what}: {width}×{height} pixels are too few to learn from (a side needs {_SHORTEST})")
    return np.ascontiguousarray(pixels)


def _segmented(pixels: UInt8, options: SegmentOptions) -> UInt8:
    """The numbers of the segments around every second pixel: (H/2, W/2, levels)."""
    if not options.scales:
        return np.zeros((*(side // LABEL_STRIDE for side in pixels.shape[:2]), 0), np.uint8)
    found = superpixels(pixels, options.scales, options.smallest, pixels.shape[0] * pixels.shape[1])
    at = LABEL_STRIDE // 2
    labels = found.labels[:, at::LABEL_STRIDE, at::LABEL_STRIDE].transpose(2, 1, 0)
    return np.ascontiguousarray(labels % 256).astype(np.uint8)


def _small(sizes: Any) -> Any:
    """Height and width of the labels of an image of that height and width."""
    return sizes // LABEL_STRIDE


def _length(source: Source) -> int | None:
    if source.length is not None:
        return source.length
    try:
        return os.stat(source.path).st_size
    except OSError:
        return None


_HEADER = 128


def _reserve_header(file: Any) -> None:
    file.write(b"\0" * _HEADER)


def _write_header(file: Any) -> None:
    """The header of a one-dimensional uint8 array of all that follows, in the space reserved: its length was not known before."""
    length = file.tell() - _HEADER
    file.seek(0)
    npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (length,)})
    if file.tell() != _HEADER:
        raise AssertionError("the header of a .npy file has another length than expected")
