"""``ovs-train correct``: the threshold of Eq. 3, what the teacher's masks become, and runs that are one and the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ovskit.core.models.segmenter.network import Predictions
from ovskit.core.models.segmenter.open import open_segmenter
from ovskit.core.runtime.errors import UsageError
from ovskit.core.train.engine.loop import train
from ovskit.core.train.engine.options import TrainOptions
from ovskit.core.train.recipes.correct import CorrectRecipe, CorrectSettings
from ovskit.core.train.recipes.segment import new_segmenter
from ovskit.core.train.recipes.teacher import one_of_several, teacher_labels
from ovskit.core.train.views.geometry import View, whole_view
from tests.train.small_segmenter import SETTINGS, Data, scenes_to_learn


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return scenes_to_learn(tmp_path_factory.mktemp("scenes"), 5)


def recipe(data: Data, folder: Path, correct: CorrectSettings, seed: int = 3) -> CorrectRecipe:
    segmenter = new_segmenter(SETTINGS, weights=None, pretrained=False, seed=seed)
    return CorrectRecipe(*data, segmenter, SETTINGS, folder, correct=correct, seed=3)


def options(steps: int, **others: Any) -> TrainOptions:
    return TrainOptions(steps=steps, learning_rate=1e-3, clip_norm=1.0, device="cpu", **others)


def test_the_threshold_is_that_of_equation_3() -> None:
    shares = torch.tensor([0.0, 1 / 1024, 0.01, 1.0], dtype=torch.float64)
    np.testing.assert_allclose(CorrectSettings().of_share(shares), [0.3, 0.3710, 0.6464, 0.7], atol=5e-5)
    np.testing.assert_allclose(CorrectSettings(threshold="fixed", threshold_large=0.6).of_share(shares), 0.6)
    rising = CorrectSettings().of_share(torch.linspace(0, 1, 100))
    assert (rising.diff() >= 0).all()


def seen(masks: torch.Tensor, scores: list[float], ancestors: torch.Tensor | None = None) -> Predictions:
    """What a teacher would have to say: ``masks`` (n, G, G) bool, each surely so, with these scores."""
    logits = torch.where(masks, 30.0, -30.0)[None]
    chance = torch.tensor(scores)
    classes = torch.stack([chance.log(), (1 - chance).log()], dim=1)[None]
    above = torch.zeros(1, len(masks), len(masks)) - 30 if ancestors is None else torch.where(ancestors, 30.0, -30.0)[None]
    return Predictions([classes], [logits], above)


def test_small_masks_need_less() -> None:
    masks = torch.zeros(3, 32, 32, dtype=torch.bool)
    masks[0, :2, :2] = True  # 1/256 of the image: 0.517
    masks[1, :, 16:] = True  # half of it: 0.7
    masks[2, 20:24, :4] = True
    view = whole_view(640, 640, 128)
    labels = teacher_labels(seen(masks, [0.55, 0.55, 0.2]), [view], [view], CorrectSettings().of_share)
    assert torch.equal(labels.targets[0].masks, masks[:1].to(torch.uint8))
    assert labels.sizes.tolist() == [0, 1, 0]  # 1600 pixels of 640²
    labels = teacher_labels(seen(masks, [0.55, 0.75, 0.2]), [view], [view], CorrectSettings(threshold="fixed").of_share)
    assert torch.equal(labels.targets[0].masks, masks[1:2].to(torch.uint8))
    assert labels.sizes.tolist() == [0, 0, 1]


def test_masks_go_where_the_student_sees_them() -> None:
    masks = torch.zeros(3, 32, 32, dtype=torch.bool)
    masks[0, :8, :8] = True
    masks[1, 16:, 16:] = True
    masks[2, 18:22, 18:22] = True
    ancestors = torch.zeros(3, 3, dtype=torch.bool)
    ancestors[1, 2] = True
    weak = whole_view(128, 128, 128).flipped()
    strong = View(128, 128, 256, 256, 128, 0, 128)  # the lower left quarter, twice as large
    labels = teacher_labels(seen(masks, [0.99] * 3, ancestors), [weak], [strong], CorrectSettings().of_share)
    target = labels.targets[0]
    assert target.masks.shape == (2, 32, 32)  # the first is in another corner
    assert target.masks[0].all()  # the weak view is mirrored: its right is the photograph's left
    inside = torch.nonzero(target.masks[1])
    assert inside.min(0).values.tolist() == [4, 20]
    assert inside.max(0).values.tolist() == [11, 27]
    assert target.ancestors.tolist() == [[False, True], [False, False]]
    assert labels.sizes.tolist() == [1, 2, 0]  # all that the teacher is sure of, seen by the student or not


def test_nothing_sure_is_no_target() -> None:
    view = whole_view(64, 64, 128)
    labels = teacher_labels(seen(torch.ones(2, 32, 32, dtype=torch.bool), [0.1, 0.2]), [view], [view], CorrectSettings().of_share)
    assert labels.targets[0].masks.shape == (0, 32, 32)
    assert labels.targets[0].ancestors.shape == (0, 0)


def test_the_teacher_is_the_students_moving_average(data: Data, tmp_path: Path) -> None:
    made = recipe(data, tmp_path, CorrectSettings(momentum=0.75))
    start = {name: tensor.clone() for name, tensor in made.modules["student"].named_parameters()}
    train(made, options(1), tmp_path)
    student, teacher = (dict(made.modules[name].named_parameters()) for name in ("student", "teacher"))
    for name, tensor in teacher.items():
        torch.testing.assert_close(tensor, 0.75 * start[name] + 0.25 * student[name].detach())
    assert not any(tensor.requires_grad for tensor in teacher.values())


def test_a_stopped_and_resumed_run_ends_with_the_same_bytes(data: Data, tmp_path: Path) -> None:
    low = CorrectSettings(threshold_large=0.3, threshold_small=0.1)  # so that an untrained teacher has something to say
    train(recipe(data, tmp_path / "whole", low), options(4), tmp_path / "whole")
    train(recipe(data, tmp_path / "pieces", low), options(4, stop_after=2), tmp_path / "pieces")
    # Another network to begin with: all comes from the checkpoint.
    train(recipe(data, tmp_path / "pieces", low, seed=4), options(4), tmp_path / "pieces", resume=True)
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == (tmp_path / "pieces" / "model.safetensors").read_bytes()
    loaded = open_segmenter(tmp_path / "whole")
    assert loaded.training["recipe"] == "correct"
    assert loaded.training["correct"]["threshold_large"] == 0.3


def test_both_halves_count_alike(data: Data, tmp_path: Path) -> None:
    made = recipe(data, tmp_path, CorrectSettings(threshold_large=0.3, threshold_small=0.1))
    batch = made.batch(0, 0, 1)
    found = made.losses(batch, 0)
    torch.testing.assert_close(found["loss"].detach(), found["initial"] + found["teacher"])
    assert not torch.equal(batch.initial.images[0], batch.pairs.strong[0])
    again = made.batch(0, 0, 1)
    assert torch.equal(batch.pairs.strong, again.pairs.strong)


def test_what_makes_no_sense() -> None:
    for changes in ({"threshold": "some"}, {"momentum": 1.5}, {"gamma": -1.0}, {"threshold_small": 2.0}):
        with pytest.raises(UsageError):
            replace(CorrectSettings(), **changes)


def test_of_several_queries_in_an_entity_one_is_a_label() -> None:
    masks = torch.zeros(5, 8, 8, dtype=torch.bool)
    masks[0, :4, :8] = masks[1, :4, :8] = True
    masks[2, :4, :7] = True  # an IoU of 7/8 with both
    masks[3, 4:, :] = True  # by itself; the last is empty
    scores = torch.tensor([0.3, 0.4, 0.2, 0.6, 0.9])
    alike = 1 - 0.7 * 0.6 * 0.8
    found = one_of_several(masks, scores, 0.85)
    torch.testing.assert_close(found, torch.tensor([alike, 0.0, 0.0, 0.6, 0.0]), rtol=1e-5, atol=1e-6)
    # Above their overlap the third one stands by itself.
    found = one_of_several(masks, scores, 0.9)
    torch.testing.assert_close(found, torch.tensor([1 - 0.7 * 0.6, 0.0, 0.2, 0.6, 0.0]), rtol=1e-5, atol=1e-6)


def test_labels_of_several_queries() -> None:
    view = whole_view(32, 32, 32)
    masks = torch.zeros(3, 32, 32, dtype=torch.bool)
    masks[:2, :, :16] = True
    masks[2, :, 16:] = True
    plain = teacher_labels(seen(masks, [0.5, 0.5, 0.5]), [view], [view], CorrectSettings(threshold="fixed").of_share)
    assert len(plain.targets[0].masks) == 0
    pooled = teacher_labels(seen(masks, [0.5, 0.5, 0.5]), [view], [view], CorrectSettings(threshold="fixed").of_share, nms=0.85)
    assert len(pooled.targets[0].masks) == 1  # 0.75, of the two together
    assert bool(pooled.targets[0].masks[0, 0, 0])
