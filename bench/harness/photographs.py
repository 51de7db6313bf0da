"""The photographs that annotators outlined: where they are, their ground truth, and their features as ``ovs-extract`` makes them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from harness import DATA
from ovskit.core.cluster.options import SohesOptions
from ovskit.core.eval.metric import Metric
from ovskit.core.eval.registry import make_metric
from ovskit.core.formats.photographs.photographs import load_photograph
from ovskit.core.formats.truth.ground_truth import GroundTruth, open_ground_truth
from ovskit.core.records import FeatureMap, Image, UInt8

SETS = {"coco_entities": "entities_dev.json", "bsds500": "bsds_val.json", "ccp_parts": "parts_dev.json"}
SIZE = 1024
"""Pixels a side at which photographs are described."""


def truth_file(name: str) -> Path:
    """The ground truth of a set."""
    return DATA / name / SETS[name]


def photographs_at_hand(names: Iterable[str]) -> str | None:
    """None if the sets' ground truths are there; otherwise what to do about it."""
    missing = [name for name in names if not truth_file(name).is_file()]
    return f"no photographs of {', '.join(missing)} in {DATA}; set OVSKIT_TEST_DATA to the folder that has them" if missing else None


def truth_of(name: str, limit: int, skip: int = 0, *, spread: bool = False) -> GroundTruth:
    """A set's ground truth cut down to ``limit`` photographs by name, after the first ``skip``; if ``spread``, evenly over the set."""
    whole = open_ground_truth(str(truth_file(name)))
    places = sorted(range(len(whole)), key=lambda k: whole.images[k].file_name)[skip:]
    places = places[:: max(1, len(places) // limit) if spread else 1][:limit]
    return GroundTruth(whole.what, [whole.images[k] for k in places], lambda k: whole.load(places[k]), whole.categories)


def in_order(images: Iterable[Image]) -> list[Image]:
    """Images in the order of their names; a ground truth has them in that of their ids."""
    return sorted(images, key=lambda image: image.file_name)


def recall_of(name: str) -> Metric:
    """Class-agnostic AR and AP; on bsds500 for each annotator, then averaged."""
    return make_metric("ar", per_annotator=name == "bsds500")


def pixels_of(image: Image, name: str) -> UInt8:
    """A photograph of a set, (height, width, 3) RGB."""
    return load_photograph(image, str(DATA / name), max_pixels=10**9)


def described(backbone: Any, image: Image, pixels: UInt8, size: int = SIZE) -> FeatureMap:
    """The features of a photograph at ``size`` × ``size`` pixels, float16 as in a stream."""
    patch = backbone.extract(backbone.prepare(pixels, size, size)[None]).patch[0].cpu().float().numpy()
    return FeatureMap(image, np.ascontiguousarray(patch.astype(np.float16)))


def recommended(backbone: Any) -> SohesOptions:
    """The options with which ``ovs-cluster`` cuts features of this model."""
    counts = backbone.spec.counts
    return SohesOptions() if counts is None else SohesOptions(counts=counts)


def first_images(truth: Path, limit: int, folder: Path) -> str:
    """The first ``limit`` images of a COCO file as options of ``ovs-extract``, which read a list that is made in ``folder``."""
    path = folder / f"{truth.parent.name}-{limit}.json"
    images = json.loads(truth.read_text())["images"][:limit]
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    return f"--images {shlex.quote(str(path))} --root {shlex.quote(str(truth.parent))}"


def pool() -> list[Path]:
    """The tars of the pool, photographs that nobody outlined."""
    return sorted((DATA / "pool").glob("*.tar"))
