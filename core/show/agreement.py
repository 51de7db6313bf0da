"""How far a prediction and a ground truth of label maps agree, pixel by pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ovskit.core.formats.labels.maps import painted_prediction
from ovskit.core.formats.labels.spaces import LabelSpace, comparable
from ovskit.core.records import LabelMap, MaskSet

_NO_CLASS = -2  # of a predicted pixel; -1 is void of the ground truth


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many pixels are ``right``, of how many ``counted``: those whose class the ground truth says."""

    right: int
    counted: int

    @property
    def share(self) -> float:
        """In [0, 1]."""
        return self.right / self.counted


@dataclass(frozen=True, slots=True)
class SameClasses:
    """The ground truth's class for each category of the prediction, None without one; ``background`` is the class of pixels without a
    mask."""

    of: Callable[[int], int | None]
    background: int | None


def same_classes(predicted: Mapping[int, str], truth: Mapping[int, str], space: LabelSpace | None) -> SameClasses | None:
    """Classes found again by their names, or by a synonym that the ground truth's ``space`` has; case and white space make no difference.

    Where neither side has names, ids are the classes. None where no name is on both sides, as with clusters: there is nothing to compare.
    """
    if not predicted and not truth:
        return SameClasses(lambda number: number, None)
    known = {comparable(name): number for number, name in truth.items()}
    if space is not None:
        known |= {comparable(word): one.id for one in space.classes for word in one.words}
    found = {number: known[comparable(name)] for number, name in predicted.items() if comparable(name) in known}
    return SameClasses(found.get, None if space is None else space.background) if found else None


def agreement(predicted: MaskSet, truth: LabelMap, same: SameClasses) -> Agreement | None:
    """The pixels at which the prediction, painted as ``ovs-eval --metric miou`` does it, has the class of the ground truth.

    None where every pixel of the ground truth is void.

    Raises InputError if the masks have not the size of their image.
    """
    labels = painted_prediction(predicted).labels
    ids, places = np.unique(labels, return_inverse=True)
    table = np.full(len(ids), _NO_CLASS, np.int32)
    for k, number in enumerate(ids.tolist()):
        found = same.background if number < 0 else same.of(number)
        table[k] = _NO_CLASS if found is None else found
    counted = truth.labels >= 0
    right = table[places].reshape(labels.shape)[counted] == truth.labels[counted]
    return Agreement(int(right.sum()), len(right)) if len(right) else None
