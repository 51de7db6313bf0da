"""SOHES' claim in miniature: a segmenter trained on faulty pseudo-labels is better than they are, since their faults average out.

Scenes are generated (``tests.scenes``), so the truth is known, and so are the faults of the labels: masks left out, masks of two
things in one, outlines that are off. ``bench/segmenter.py`` is the long form. That it is better than its labels takes minutes of training,
and is marked ``slow``; that what it learns is the things, not the labels' faults, shows after one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from ovskit.core.eval.evaluation import evaluate
from ovskit.core.eval.registry import make_metric
from ovskit.core.formats.photographs.sources import list_sources
from ovskit.core.formats.streams.masks import open_masks
from ovskit.core.formats.truth.ground_truth import open_ground_truth
from ovskit.core.models.segmenter.network import Segmenter
from ovskit.core.models.segmenter.open import open_segmenter
from ovskit.core.predict.predictor import PredictOptions, predict_masks
from ovskit.core.records import MaskSet
from ovskit.core.runtime.failures import Failures
from ovskit.core.train.data.mask_index import open_mask_index
from ovskit.core.train.engine.loop import train
from ovskit.core.train.engine.options import TrainOptions
from ovskit.core.train.recipes.segment import SegmentRecipe, SegmentSettings, new_segmenter
from tests.scenes import Faults, write_scenes

FAULTS = Faults(dropped=0.3, merged=0.2, jitter=6)
# Queries learned one by one, which know nothing to begin with: what they find was learned from the labels alone.
# Pairs of ancestors count as much as the others: as they come, whether the head has said yes by then is a matter of luck.
SETTINGS = SegmentSettings(
    size="tiny", kinds=0, side=96, batch=8, smallest_scale=0.9, largest_scale=1.2, paste=0.0, colours=False,
    backbone_rate=1.0, layer_decay=1.0, balance="weight",
)  # fmt: skip
OPTIONS = TrainOptions(
    steps=900, learning_rate=4e-3, warmup=50, weight_decay=0.02, clip_norm=10.0, device="cpu", checkpoint_every=1000, log_every=200
)


def score(found: list[MaskSet], truth: Path, metric: Literal["ar", "hierarchy"], name: str) -> float:
    return float(evaluate(found, open_ground_truth(str(truth)), make_metric(metric)).metrics()[name] or 0)


def chance(truth: list[MaskSet]) -> float:
    """F1 of saying of every mask that it is above every other one: nothing is gained by guessing less often."""
    above = sum(mask.parent_id is not None for masks in truth for mask in masks.masks)  # these forests have two levels
    pairs = sum(len(masks.masks) * (len(masks.masks) - 1) for masks in truth)
    return 2 * above / (pairs + above)


def read(path: Path) -> list[MaskSet]:
    with open(path, "rb") as stream:
        return list(open_masks(stream, path.name)[1])


@dataclass(frozen=True)
class Learned:
    """What a segmenter finds in 60 scenes that it was not trained on; the truth of these, and labels of the same faults as it learned from.

    ``before`` is what it finds before its training.
    """

    before: list[MaskSet]
    found: list[MaskSet]
    truth: Path
    labels: Path


def learn(folder: Path, scenes: int, settings: SegmentSettings, options: TrainOptions) -> Learned:
    torch.set_num_threads(1)
    write_scenes(folder / "train", range(scenes), faults=FAULTS)
    write_scenes(folder / "test", range(10_000, 10_060), faults=FAULTS)
    photographs = list_sources([str(folder / "train" / "images")]).items
    unseen = list_sources([str(folder / "test" / "images")]).items
    failures = Failures(skip=False)

    def find(segmenter: Segmenter) -> list[MaskSet]:
        return list(predict_masks(unseen, segmenter, PredictOptions(size=96), failures, device=torch.device("cpu")))

    index = open_mask_index(photographs, folder / "train" / "pseudo.json", settings.index_options(), folder / "index", failures=failures)
    before = find(new_segmenter(settings, weights=None, pretrained=True, seed=0))
    segmenter = new_segmenter(settings, weights=None, pretrained=True, seed=0)
    train(SegmentRecipe(index, photographs, segmenter, settings, folder / "run"), options, folder / "run")
    found = find(open_segmenter(folder / "run").segmenter)
    return Learned(before, found, folder / "test" / "truth.json", folder / "test" / "pseudo.json")


def test_what_is_learned_is_the_things_and_not_the_faults(tmp_path: Path) -> None:
    """What it finds is nearer to the truth than to labels with the faults that it was taught; and before it learned it found nothing."""
    made = learn(tmp_path, 250, replace(SETTINGS, batch=4), replace(OPTIONS, steps=250, warmup=25))
    right = score(made.found, made.truth, "ar", "AR@1000")
    assert right > score(made.found, made.labels, "ar", "AR@1000")
    assert right > 5 * score(made.before, made.truth, "ar", "AR@1000")


@pytest.mark.slow
def test_a_segmenter_is_better_than_its_labels(tmp_path: Path) -> None:
    made = learn(tmp_path, 600, SETTINGS, OPTIONS)
    labels = score(read(made.labels), made.truth, "ar", "AR@1000")
    assert score(made.found, made.truth, "ar", "AR@1000") > 1.1 * labels
    assert score(made.found, made.truth, "hierarchy", "f1") > 1.8 * chance(read(made.truth))
