"""SOHES' claim in miniature: a segmenter trained on faulty pseudo-labels is better than they are, since their faults average out.

Scenes are generated (``tests.scenes``), so the truth is known, and so are the faults of the labels: masks left out, masks of two
things in one, outlines that are off. ``bench/segmenter.py`` is the long form.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch

from ovskit.core.eval.evaluation import evaluate
from ovskit.core.eval.registry import make_metric
from ovskit.core.formats.photographs.sources import list_sources
from ovskit.core.formats.streams.masks import open_masks
from ovskit.core.formats.truth.ground_truth import open_ground_truth
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


@pytest.mark.first
def test_a_segmenter_is_better_than_its_labels(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    write_scenes(tmp_path / "train", range(600), faults=FAULTS)
    write_scenes(tmp_path / "test", range(10_000, 10_060), faults=FAULTS)
    photographs = list_sources([str(tmp_path / "train" / "images")]).items
    failures = Failures(skip=False)
    index = open_mask_index(
        photographs, tmp_path / "train" / "pseudo.json", SETTINGS.index_options(), tmp_path / "index", failures=failures
    )
    segmenter = new_segmenter(SETTINGS, weights=None, pretrained=True, seed=0)
    train(SegmentRecipe(index, photographs, segmenter, SETTINGS, tmp_path / "run"), OPTIONS, tmp_path / "run")

    unseen = list_sources([str(tmp_path / "test" / "images")]).items
    loaded = open_segmenter(tmp_path / "run").segmenter
    found = list(predict_masks(unseen, loaded, PredictOptions(size=96), failures, device=torch.device("cpu")))
    truth = tmp_path / "test" / "truth.json"
    labels = score(read(tmp_path / "test" / "pseudo.json"), truth, "ar", "AR@1000")
    assert score(found, truth, "ar", "AR@1000") > 1.1 * labels
    assert score(found, truth, "hierarchy", "f1") > 1.8 * chance(read(truth))
