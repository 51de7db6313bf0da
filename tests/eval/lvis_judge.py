"""Random LVIS ground truth and predictions, and what the ``lvis`` package says of them."""

import contextlib
import importlib
import io
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ovskit.core.formats.coco.lvis import searched_categories
from ovskit.core.formats.truth.ground_truth import GroundTruth
from ovskit.core.records import MaskSet

from .scenes import Scene, as_coco, scene

CATEGORIES = [{"id": k, "name": f"thing {k}", "frequency": letter} for k, letter in ((1, "f"), (2, "c"), (3, "r"), (4, "c"), (7, "r"))]


@contextlib.contextmanager
def lvis_package() -> Iterator[ModuleType]:
    """The package, which is of 2020: it draws with matplotlib as soon as it is imported, and asks NumPy and logging for what is gone."""
    with pytest.MonkeyPatch.context() as patch:
        if "lvis" not in sys.modules:
            drawing = ModuleType("lvis.vis")
            drawing.LVISVis = object  # type: ignore[attr-defined]
            patch.setitem(sys.modules, "lvis.vis", drawing)
        patch.setattr(np, "float", float, raising=False)
        patch.setattr(logging.Logger, "warn", logging.Logger.warning, raising=False)
        patch.setattr(logging, "basicConfig", lambda **_: None)
        try:
            yield importlib.import_module("lvis")
        except ModuleNotFoundError as error:
            if error.name != "lvis":
                raise
            pytest.skip("the lvis package is not installed: pip install --no-deps lvis, as make setup does")


def federated(seed: int, images: int = 8, distinct: bool = False) -> tuple[Scene, list[dict[str, Any]]]:
    """A scene without crowds, and its images as LVIS lists them: some of the categories that an image lacks are known to be absent,
    some of those that it has are not drawn everywhere."""
    random = np.random.default_rng(seed)
    data = scene(seed, images=images, distinct=distinct)
    truth = [MaskSet(s.image, tuple(replace(m, iscrowd=0) for m in s.masks if m.category_id != 3 or s.image.id % 2)) for s in data.truth]
    names = [one["id"] for one in CATEGORIES]
    there = {s.image.id: {m.category_id for m in s.masks} for s in truth}
    predictions = []
    for s in data.predictions:
        found = tuple(replace(m, category_id=4) if m.category_id == 3 and random.random() < 0.2 else m for m in s.masks)
        predictions.append(MaskSet(s.image, found))
    entries = [
        {
            "id": s.image.id,
            "coco_url": f"http://images.example.org/val2017/{s.image.file_name}",
            "width": s.image.width,
            "height": s.image.height,
            "neg_category_ids": [k for k in names if k not in there[s.image.id] and random.random() < 0.5],
            "not_exhaustive_category_ids": [k for k in names if random.random() < 0.3],
        }
        for s in truth
    ]
    return Scene(truth, predictions), entries


def truth_of(data: Scene, entries: list[dict[str, Any]]) -> GroundTruth:
    found = searched_categories([{"images": entries}], "the ground truth")
    return GroundTruth("the ground truth", [s.image for s in data.truth], data.truth.__getitem__, CATEGORIES, searched=found)


def document(data: Scene, entries: list[dict[str, Any]]) -> dict[str, Any]:
    annotations = [as_coco(m) for s in data.truth for m in s.masks]
    return {
        "images": entries,
        "annotations": [{k: v for k, v in a.items() if k != "iscrowd"} for a in annotations],
        "categories": CATEGORIES,
    }


def judge(data: Scene, entries: list[dict[str, Any]], maxima: tuple[int, ...] = (300,)) -> dict[str, float | None]:
    """All AR and AP by the package, under our names, None where it has -1; AP and sizes at the largest of ``maxima``."""
    values: dict[str, float] = {}
    results = [
        {k: v for k, v in as_coco(m).items() if k in ("image_id", "category_id", "segmentation", "score")}
        for s in data.predictions
        for m in s.masks
    ]
    with lvis_package() as lvis, contextlib.redirect_stdout(io.StringIO()):
        truth = lvis.LVIS.__new__(lvis.LVIS)
        truth.logger, truth.dataset = logging.getLogger("lvis"), document(data, entries)
        truth._create_index()
        truth.logger.setLevel(logging.ERROR)
        for most in sorted(maxima):
            found = lvis.LVISEval(truth, lvis.LVISResults(truth, [dict(one) for one in results], max_dets=most))
            found.params.max_dets = most
            found.run()
            values |= found.get_results()
    last = max(maxima)
    ours = {f"AR_{name.upper()}": f"AR{name}@{last}" for name in "sml"} | {f"AP_{name.upper()}": f"AP{name}" for name in "sml"}
    named = {new: values[old] for new, old in ours.items()} | {f"AR@{most}": values[f"AR@{most}"] for most in maxima}
    named |= {name: values[name] for name in ("AP", "AP50", "AP75", "APr", "APc", "APf")}
    return {name: None if value == -1 else float(value) for name, value in named.items()}
