"""How well a forest of masks agrees with the ground truth's, and statistics of its trees.

Masks are paired one to one at IoU 0.5 (``masks.matching``). An ancestor pair is a mask and one of its ancestors: its parent, that
one's parent, and so on. No paper fixes a measure, so these are ours [choice]:

- precision: of the predicted ancestor pairs whose masks are both paired, the share that are ancestor pairs in the ground truth;
- recall: of the ground truth's ancestor pairs whose masks are both paired, the share that are predicted;
- recall_all: the same of all of the ground truth's ancestor pairs, so that a mask that was not found costs too.

A mask without a parent and all below it are a tree; its depth is its number of levels, 1 for a mask alone [choice]. Scores and numbers
of masks play no part, and a crowd of the ground truth is a mask like any other [choice].
"""

from __future__ import annotations

from array import array

import numpy as np
import numpy.typing as npt

from ovskit.core.eval.metric import Row, Scores
from ovskit.core.masks import forest
from ovskit.core.masks.matching import match_masks
from ovskit.core.masks.pairs import overlaps
from ovskit.core.masks.runs import table_of
from ovskit.core.records import MaskSet
from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.kernels import njit

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Weights = npt.NDArray[np.int32]

# One image's sums: ancestor pairs predicted, true and both, between paired masks; all true ones; then the predicted forest's.
_PREDICTED, _TRUE, _FOUND, _ALL_TRUE, _MASKS, _CHILDREN, _TREES, _LEVELS = range(8)
_SUMS = 8
_AT = 0.5  # IoU at which masks are paired


class HierarchyScores(Scores):
    """Ancestor pairs and statistics of forests, from sums over images.

    Its rows are precision, recall, f1 and recall_all in [0, 1]; the numbers of ancestor pairs in them; and for the predicted forests the
    share of masks with a parent, trees an image, and depth and size of trees.
    """

    rows = (
        Row("precision", "precision of ancestor pairs"),
        Row("recall", "recall of ancestor pairs"),
        Row("f1", "F1 of ancestor pairs"),
        Row("recall_all", "recall, masks not found count"),
        Row("predicted_pairs", "pairs predicted", "whole"),
        Row("true_pairs", "pairs to find", "whole"),
        Row("found_pairs", "pairs found", "whole"),
        Row("all_true_pairs", "pairs in all", "whole"),
        Row("with_parent", "masks with a parent"),
        Row("trees", "trees an image", "number"),
        Row("mean_depth", "mean levels of a tree", "number"),
        # The maximum of a resample does not estimate the maximum.
        Row("max_depth", "most levels of a tree", "whole", resampled=False),
        Row("mean_size", "mean masks of a tree", "number"),
        Row("max_size", "most masks of a tree", "whole", resampled=False),
    )

    def __init__(self) -> None:
        self._sums = array("q")  # position, sums, levels and size of the largest trees

    def work(self, truth: MaskSet, predictions: MaskSet) -> Int64:
        """One image's counts. Independent of other images, so it may run in any thread. Raises InputError for a cycle."""
        parents = parent_indices(predictions, "the predictions")
        true_parents = parent_indices(truth, "the ground truth")
        tables = table_of(predictions), table_of(truth)
        counts = np.zeros(_SUMS + 2, np.int64)
        _count_pairs(parents, true_parents, match_masks(overlaps(*tables, _AT).pairs), counts)
        _count_trees(parents, counts)
        return counts

    def add(self, position: int, counts: Int64) -> None:
        """Take in the image at ``position`` of the ground truth."""
        self._sums.extend([position, *counts.tolist()])

    @property
    def _table(self) -> tuple[Int64, Int64, Int64]:
        table = np.array(self._sums, np.int64).reshape(-1, 3 + _SUMS)
        return table[:, 0], table[:, 1 : 1 + _SUMS], table[:, 1 + _SUMS :]

    def check(self, truth: str, predictions: str) -> None:
        """Raises InputError if no mask of the ground truth has a parent."""
        if not self._table[1][:, _ALL_TRUE].any():
            raise InputError(f"{truth} has no parent_id on any image that is scored: there is no hierarchy to compare with")

    def warnings(self, predictions: str) -> list[str]:
        """What a reader of the scores should know."""
        if self._table[1][:, _CHILDREN].any():
            return []
        return ["no mask of the predictions has a parent_id, so each is a tree by itself; ovs-hier makes a forest of them"]

    def cells(self) -> int:
        """How many numbers ``values`` holds for every column of its weights."""
        return 2 * (_SUMS + len(self.rows))

    def values(self, weights: Weights) -> Float64:
        """Every metric, float64 (names, b), where the image at position k counts ``weights[k]`` (images, b) times."""
        position, sums, largest = self._table
        chosen = weights[position]
        most = np.array([np.where(chosen > 0, column[:, None], 0).max(axis=0, initial=0) for column in largest.T])
        return self._metrics(sums.T @ chosen, most, chosen.sum(axis=0))

    def values_by_image(self, images: int) -> Float64:
        """Every metric of every image by itself, float64 (names, images)."""
        position, sums, largest = self._table
        by_image, most = np.zeros((_SUMS, images), np.int64), np.zeros((2, images), np.int64)
        by_image[:, position], most[:, position] = sums.T, largest.T
        return self._metrics(by_image, most, np.ones(images, np.int64))

    def _metrics(self, sums: Int64, largest: Int64, images: Int64) -> Float64:
        predicted, true, found, all_true, masks, children, trees, levels = sums.astype(np.float64)
        precision, recall = _ratio(found, predicted), _ratio(found, true)
        rows = [
            precision, recall, _ratio(2 * found, predicted + true), _ratio(found, all_true),
            predicted, true, found, all_true,
            _ratio(children, masks), _ratio(trees, images), _ratio(levels, trees), largest[0], _ratio(masks, trees), largest[1],
        ]  # fmt: skip
        return np.array(rows, np.float64)


def parent_indices(masks: MaskSet, what: str) -> Int64:
    """The place of each mask's parent among ``masks``, -1 without a parent: int64 (n,).

    Raises InputError, naming ``what``, for a parent that is not there and for masks that are their own ancestors.
    """
    parents = forest.parent_places(masks.masks)
    for k in np.flatnonzero(parents == forest.LOST).tolist():
        mask = masks.masks[k]
        raise InputError(f"{masks.image.file_name}: annotation {mask.id} of {what} has parent_id {mask.parent_id}, which is not there")
    if (member := forest.cycle(parents)) >= 0:
        number = masks.masks[member].id
        raise InputError(f"{masks.image.file_name}: annotation {number} of {what} is its own ancestor: parent_id must lead to a root")
    return parents


def _ratio(above: Float64, below: Float64 | Int64) -> Float64:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)


@njit(nogil=True, cache=True)
def _count_pairs(parents: Int64, true_parents: Int64, partner: Int64, counts: Int64) -> None:
    """Ancestor pairs into ``counts``; ``partner`` is the ground truth's mask that each predicted one is paired with, -1 without one."""
    paired = np.zeros(len(true_parents), np.bool_)
    ancestor_of = np.full(len(true_parents), -1, np.int64)  # the last predicted mask whose partner is below
    for i in range(len(parents)):
        if partner[i] < 0:
            continue
        paired[partner[i]] = True
        g = true_parents[partner[i]]
        while g >= 0:
            ancestor_of[g] = i
            g = true_parents[g]
        j = parents[i]
        while j >= 0:
            if partner[j] >= 0:
                counts[_PREDICTED] += 1
                counts[_FOUND] += ancestor_of[partner[j]] == i
            j = parents[j]
    for i in range(len(true_parents)):
        j = true_parents[i]
        while j >= 0:
            counts[_ALL_TRUE] += 1
            counts[_TRUE] += paired[i] and paired[j]
            j = true_parents[j]


@njit(nogil=True, cache=True)
def _count_trees(parents: Int64, counts: Int64) -> None:
    levels = np.zeros(len(parents), np.int64)
    sizes = np.zeros(len(parents), np.int64)
    for i in range(len(parents)):
        depth = 1
        root = i
        while parents[root] >= 0:
            root = parents[root]
            depth += 1
        levels[root] = max(levels[root], depth)
        sizes[root] += 1
        counts[_CHILDREN] += parents[i] >= 0
    counts[_MASKS] += len(parents)
    for i in range(len(parents)):
        if parents[i] < 0:
            counts[_TREES] += 1
            counts[_LEVELS] += levels[i]
            counts[_SUMS] = max(counts[_SUMS], levels[i])
            counts[_SUMS + 1] = max(counts[_SUMS + 1], sizes[i])
