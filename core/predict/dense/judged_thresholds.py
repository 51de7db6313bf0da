"""``--sweep``: which ``--min-prob`` is best on photographs with ground truth, which should not be those that are scored later."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovskit.core.formats.labels.named_maps import open_named_maps
from ovskit.core.formats.labels.spaces import LabelSpace
from ovskit.core.formats.paths import show_path
from ovskit.core.predict.dense.decisions import Decided
from ovskit.core.predict.dense.sweep import ThresholdSweep
from ovskit.core.records import Image, Int32
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.logs import get_logger

log = get_logger("predict")

GRID = tuple(k / 100 for k in range(100))
"""Thresholds that are tried [choice]."""


class JudgedThresholds:
    """Holds what was decided against the label maps in ``folder``, image by image.

    Raises UsageError for a label space without a background, or an unknown ``layout``, and what opening the maps raises.
    """

    def __init__(self, folder: str, layout: str | None, space: LabelSpace, failures: Failures) -> None:
        if space.background is None:
            raise UsageError(f"--sweep: the label space {space.name} has no background, so there is no threshold to be found")
        self._maps = open_named_maps(folder, layout=layout, space=space, failures=failures)
        self._maps.check()
        self._sweep = ThresholdSweep([one.id for one in space.classes], space.background, GRID)
        self._lock = threading.Lock()
        self._judged = self._unknown = 0
        self._what = show_path(folder)

    def judge(self, image: Image, ids: Int32, decided: Decided) -> None:
        """Take in an image; one that has no label map is counted. Raises InputError for a map of another size."""
        found = self._maps.maps.find(image)
        if found is None:
            with self._lock:
                self._unknown += 1
            return
        truth = self._maps.load(found.index).labels
        if truth.shape != ids.shape:
            said = f"{truth.shape[1]}×{truth.shape[0]}"
            raise InputError(f"{show_path(image.file_name)} is {image.width}×{image.height}, its label map {said}")
        with self._lock:
            self._sweep.add(ids, decided.probability, truth)
            self._judged += 1

    def report(self) -> Mapping[str, Any]:
        """Thresholds, what each gives, and the best. Raises InputError if no image has a label map."""
        if not self._judged:
            raise InputError(f"--sweep: {self._what} has no label map of any of these photographs")
        if self._unknown:
            log.warning("%s has no label map of %d of the photographs, which are left out", self._what, self._unknown)
        scores = self._sweep.scores()
        best = scores.best()
        chosen = None if best is None else float(scores.miou[np.searchsorted(scores.thresholds, best)])
        if best is not None and chosen is not None:
            log.warning("the best --min-prob is %.2f: mIoU %.2f %%, and %.2f %% at 0", best, 100 * chosen, 100 * scores.miou[0])
        return {
            "format": "ovskit.sweep/1",
            "images": self._judged,
            "best": best,
            "mIoU": chosen,
            "thresholds": [
                {"min_prob": round(float(threshold), 2), "mIoU": _number(miou), "mIoU_strict": _number(strict)}
                for threshold, miou, strict in zip(scores.thresholds, scores.miou, scores.miou_strict, strict=True)
            ],
        }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
