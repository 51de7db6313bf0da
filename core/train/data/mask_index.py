"""The masks that training learns from, out of any masks file, indexed once on disk and mapped, not read.

A masks file is a stream: image k can only be had by reading all before it, and a COCO document only whole. One pass writes
a folder of plain arrays, one entry a mask or an image:

- ``counts.npy`` uint8: the masks' run-length texts, one after the other; ``counts_ends.npy`` int64: where each ends,
- ``parents.npy`` int32: the place of a mask's parent among its image's, or -1; ``areas.npy`` int64; ``scores.npy`` float32, NaN for none,
- ``masks_ends.npy`` int64: where an image's masks end; ``sizes.npy`` int32: height and width of each; ``places.npy`` int64: which of
  the photographs it is; ``names.npy`` uint8 and ``names_ends.npy`` int64: its name in the masks file,
- ``index.json``: what it was made of.

The folder appears when it is complete, or not at all; one made of something else is refused, never mixed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ovskit.core.formats.image_names import ImageNames
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.photographs import check_named
from ovskit.core.formats.photographs.sources import Source
from ovskit.core.formats.streams.masks import open_masks
from ovskit.core.masks import forest
from ovskit.core.masks.coverage import COVER, ancestors
from ovskit.core.masks.runs import run_table
from ovskit.core.models.weights.source import sha256_of
from ovskit.core.records import MaskSet, Rle, RunTable
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.logs import get_logger
from ovskit.core.runtime.output import open_input
from ovskit.core.train.data.growing_npy import GrowingArray
from ovskit.core.train.data.whole_folder import reading, whole_folder

log = get_logger("train")

FORMAT = "ovskit.target-index/1"

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Watch = Callable[[Iterable[Any]], Iterable[Any]]

_PER_MASK: dict[str, type[np.generic]] = {"counts_ends": np.int64, "parents": np.int32, "areas": np.int64, "scores": np.float32}
_PER_IMAGE: dict[str, type[np.generic]] = {"masks_ends": np.int64, "sizes": np.int32, "places": np.int64, "names_ends": np.int64}
_BYTES: dict[str, type[np.generic]] = {"counts": np.uint8, "names": np.uint8}
_ARRAYS = {**_PER_MASK, **_PER_IMAGE, **_BYTES}


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """Which masks to learn from. Crowds and empty masks are always left out.

    Those below ``min_area`` are dropped: pixels from 1 up, below 1 a share of the image. If an image has more than ``max_masks``
    (0: no limit), those of the highest scores are kept if all have one, else the largest; the first of the stream among
    equals [choice]. A mask whose parent is dropped comes under the nearest ancestor that is kept.
    """

    min_area: float = 0.0
    max_masks: int = 0


@dataclass(frozen=True, slots=True)
class ImageMasks:
    """The masks of one image, in the order of the stream.

    ``name`` is the masks file's; ``place`` tells which of the photographs it is. ``areas`` (n,) int64 in pixels, ``scores`` (n,)
    float32, NaN where there is none, ``parents`` (n,) int64 places among these masks or -1. Without ``hierarchical`` the file
    had no parents at all, and every entry of ``parents`` is -1.
    """

    name: str
    place: int
    height: int
    width: int
    rles: tuple[Rle, ...]
    areas: Int64
    scores: npt.NDArray[np.float32]
    parents: Int64
    hierarchical: bool


class MaskIndex:
    """A complete index; ``index[k]`` is image k's ``ImageMasks``, of the masks file's images that have any, in its order."""

    def __init__(self, folder: Path) -> None:
        """Open an index. Raises InputError if it is damaged, MissingInputError if it is not there."""
        what = show_path(str(folder))
        try:
            with reading(folder / "index.json"):
                about = json.loads((folder / "index.json").read_bytes())
                self.key, self.hierarchical = str(about["key"]), bool(about["hierarchical"])
            arrays = {name: _mapped(folder / f"{name}.npy") for name in _ARRAYS}
            lengths = {"counts": int(arrays["counts_ends"][-1]), "names": int(arrays["names_ends"][-1])}
            lengths |= dict.fromkeys(_PER_MASK, int(arrays["masks_ends"][-1])) | dict.fromkeys(_PER_IMAGE, len(arrays["masks_ends"]))
            lengths["sizes"] *= 2
        except FileNotFoundError as error:
            raise MissingInputError(f"{what}: no index of masks ({error.filename} is missing)") from None
        except (TypeError, IndexError):
            raise InputError(f"{what}: a damaged index (its files do not fit each other); delete the folder") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{what}: a damaged index ({error}); delete the folder to have it made again") from None
        if any(arrays[name].shape != (lengths[name],) or arrays[name].dtype != dtype for name, dtype in _ARRAYS.items()):
            raise InputError(f"{what}: a damaged index (its files do not fit each other); delete the folder")
        self._of = arrays

    def __len__(self) -> int:
        return len(self._of["masks_ends"])

    @property
    def masks(self) -> int:
        """How many masks there are in all."""
        return len(self._of["areas"])

    def __getitem__(self, k: int) -> ImageMasks:
        if not 0 <= k < len(self):
            raise IndexError(k)
        of = self._of
        first, last = _bounds(of["masks_ends"], k)
        begin = int(of["counts_ends"][first - 1]) if first else 0
        ends = of["counts_ends"][first:last] - begin
        texts = of["counts"][begin : begin + int(ends[-1])].tobytes()
        height, width = (int(v) for v in of["sizes"][2 * k : 2 * k + 2])
        starts = [0, *ends[:-1].tolist()]
        rles = tuple(Rle(height, width, texts[a:b]) for a, b in zip(starts, ends.tolist(), strict=True))
        name = of["names"][slice(*_bounds(of["names_ends"], k))].tobytes().decode("utf-8", "surrogatepass")
        areas, scores = np.array(of["areas"][first:last]), np.array(of["scores"][first:last])
        parents = of["parents"][first:last].astype(np.int64)
        return ImageMasks(name, int(of["places"][k]), height, width, rles, areas, scores, parents, self.hierarchical)


def _mapped(path: Path) -> npt.NDArray[Any]:
    with reading(path):
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def ancestors_of(targets: ImageMasks, table: RunTable | None = None, cover: float = COVER) -> Bool:
    """Who is above whom: bool (n, n), true at (i, j) where mask i is an ancestor of mask j, as in SOHES' matrix P.

    With parents, all on the way up from j. Without, by coverage (SOHES §3.1, coverage(a, b) = |a ∩ b| / |a|): coverage(j, i)
    > ``cover`` and coverage(i, j) < ``cover``, the paper's 0.9; that is not transitive. ``table`` is the masks' own, where it is
    at hand. Raises InputError for malformed runs.
    """
    if targets.hierarchical:
        return _closure(targets.parents)
    return ancestors(run_table(targets.rles) if table is None else table, cover).T


def _closure(parents: Int64) -> Bool:
    out = np.zeros((len(parents), len(parents)), np.bool_)
    below, above = np.arange(len(parents)), parents.copy()
    while (going := above >= 0).any():
        below, above = below[going], above[going]
        out[above, below] = True
        above = parents[above]
    return out


def index_key(photographs: Sequence[Source], path: Path, options: IndexOptions) -> str:
    """What decides an index's content: a hash of the masks file's bytes, of the photographs' names and of the options."""
    parts = [FORMAT, asdict(options), sha256_of(path), [source.file_name for source in photographs]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def open_mask_index(
    photographs: Sequence[Source],
    path: Path,
    options: IndexOptions,
    folder: Path,
    *,
    failures: Failures,
    watch: Watch = lambda items: items,
) -> MaskIndex:
    """The index of the masks file ``path`` in ``folder``, made now if it is not there yet; a pass over the file, one image in memory.

    COCO documents that are not our stream are parsed whole, once. Images are found among ``photographs`` by name, or by the end of
    their path (``ImageNames``); photographs that the file does not have are left out, and so are images without a target
    [choice: nobody said that they hold no entity]. An image that is not among the photographs goes to ``failures``.

    Raises InputError for an index of something else, a damaged masks file, one that has an image twice, or one with
    no target at all; MissingInputError if there is no such file; OutputError if the index cannot be written, whereupon
    nothing of it stays.
    """
    key = index_key(photographs, path, options)
    if (folder / "index.json").exists():
        index = MaskIndex(folder)
        if index.key != key:
            raise InputError(
                f"{show_path(str(folder))}: made of other masks or photographs, or with other options; name another folder, or delete this"
            )
        return index
    with whole_folder(folder, "the index") as part:
        hierarchical = _write(part, photographs, path, options, failures, watch)
        (part / "index.json").write_text(json.dumps({"format": FORMAT, "key": key, "hierarchical": hierarchical}) + "\n")
    return MaskIndex(folder)


def _write(part: Path, photographs: Sequence[Source], path: Path, options: IndexOptions, failures: Failures, watch: Watch) -> bool:
    """All arrays of the index into ``part``; returns whether any mask has a parent."""
    what = show_path(str(path))
    names = ImageNames(photographs, "the photographs given")
    taken: set[int] = set()
    empty = 0
    hierarchical = False
    with ExitStack() as stack:
        out = {name: stack.enter_context(GrowingArray(part / f"{name}.npy", dtype)) for name, dtype in _ARRAYS.items()}
        stream = stack.enter_context(open_input(str(path)))
        header, sets = open_masks(stream, what, failures)
        check_named(header.named, what)
        for masks in watch(sets):
            if not masks.masks:
                empty += 1
                continue
            name = masks.image.file_name
            found = names.find(name)
            if found is None:
                failures.handle(MissingInputError(f"{show_path(name)} has masks in {what}, but is not among the photographs given"))
                continue
            if found[0] in taken:
                raise InputError(f"{what}: two images fit {show_path(photographs[found[0]].file_name)}")
            taken.add(found[0])
            hierarchical = hierarchical or any(mask.parent_id is not None for mask in masks.masks)
            kept = _kept(masks, options)
            if kept.any():
                _append(out, masks, kept, found[0])
            else:
                empty += 1
        if not out["areas"].length:
            raise InputError(f"{what}: not one mask of the photographs given is left, so there is nothing to learn")
    if empty:
        words = "1 image has no mask to learn from and is" if empty == 1 else f"{empty} images have no mask to learn from and are"
        log.warning("%s: %s left out", what, words)
    return hierarchical


def _kept(masks: MaskSet, options: IndexOptions) -> Bool:
    """Which of an image's masks to learn from, bool (n,)."""
    pixels = masks.image.height * masks.image.width
    smallest = max(1.0, options.min_area if options.min_area >= 1 else options.min_area * pixels)
    of = masks.masks
    kept = np.array([mask.area >= smallest and not mask.iscrowd for mask in of], np.bool_)
    order = np.flatnonzero(kept).tolist()
    if options.max_masks and len(order) > options.max_masks:
        scored = all(of[k].score is not None for k in order)
        order.sort(key=lambda k: (-(of[k].score or 0.0) if scored else 0.0, -of[k].area, k))
        kept[order[options.max_masks :]] = False
    return kept


def _append(out: dict[str, GrowingArray], masks: MaskSet, which: Bool, place: int) -> None:
    parents = forest.pruned_parents(forest.parent_places(masks.masks), which)
    kept = [masks.masks[k] for k in np.flatnonzero(which).tolist()]
    texts = [mask.rle.counts for mask in kept]
    ends = np.cumsum([len(text) for text in texts]) + out["counts"].length
    name = masks.image.file_name.encode("utf-8", "surrogatepass")
    out["counts"].append(np.frombuffer(b"".join(texts), np.uint8))
    out["names"].append(np.frombuffer(name, np.uint8))
    out["counts_ends"].append(ends)
    out["parents"].append(parents)
    out["areas"].append([mask.area for mask in kept])
    out["scores"].append([math.nan if mask.score is None else mask.score for mask in kept])
    out["masks_ends"].append([out["areas"].length])
    out["sizes"].append([masks.image.height, masks.image.width])
    out["places"].append([place])
    out["names_ends"].append([out["names"].length])


def _bounds(ends: Int64, k: int) -> tuple[int, int]:
    return (int(ends[k - 1]) if k else 0), int(ends[k])
