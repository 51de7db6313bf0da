"""Which class a pixel gets, and how probable it is, against one pixel at a time in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ovskit.core.formats.labels.spaces import LabelClass
from ovskit.core.models.words import Words
from ovskit.core.predict.dense.decisions import Decided, Decisions, class_ids
from ovskit.core.predict.dense.mosaic import Mosaic
from ovskit.core.predict.dense.windows import windows_of

CPU = torch.device("cpu")
CLASSES = (LabelClass(3, "cat", ("kitten",)), LabelClass(7, "dog"), LabelClass(0, "background", ("sky", "wall")))


def words(background: int | None = 0) -> Words:
    random = np.random.default_rng(0)
    rows = random.normal(size=(6, 5)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Words(CLASSES, rows, np.array([0, 2, 3]), 100.0, background)


def one_by_one(cosines: np.ndarray, scale: float, over_classes: bool) -> tuple[np.ndarray, np.ndarray]:
    bounds = [(0, 2), (2, 3), (3, 6)]
    places, chances = np.zeros(cosines.shape[:2], int), np.zeros(cosines.shape[:2])
    for y, x in np.ndindex(*places.shape):
        logits = scale * cosines[y, x].astype(np.float64)
        if over_classes:
            logits = np.array([logits[a:b].max() for a, b in bounds])
            share = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        else:
            share = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            share = np.array([share[a:b].max() for a, b in bounds])
        places[y, x], chances[y, x] = share.argmax(), share.max()
    return places, chances


@pytest.mark.parametrize("over_classes", [False, True])
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_the_best_class_and_its_probability(scale: float, over_classes: bool) -> None:
    windows = windows_of(24, 24, short_side=24, window=None, stride=8, patch=4)
    vectors = torch.nn.functional.normalize(torch.randn(6, 6, 5, generator=torch.Generator().manual_seed(1)), dim=2)
    decisions = Decisions(words(), scale=scale, over_classes=over_classes, device=CPU)
    cosines = decisions.cosines(vectors)
    torch.testing.assert_close(cosines, vectors @ torch.from_numpy(words().rows).T)
    mosaic = Mosaic(windows, [cosines])
    found = decisions.decide(mosaic, 31, 17)
    places, chances = one_by_one(mosaic.at(31, 17).numpy(), scale, over_classes)
    np.testing.assert_array_equal(found.place, places)
    np.testing.assert_allclose(found.probability, chances, rtol=1e-5)
    assert found.place.dtype == np.int32
    assert found.probability.dtype == np.float32


def test_unlikely_pixels_are_background_or_nothing() -> None:
    decided = Decided(np.array([[0, 1, 2, 0]], np.int32), np.array([[0.5, 0.19, 0.9, 0.2]], np.float32))
    assert class_ids(decided, words(), 0.2).tolist() == [[3, 0, 0, 3]]
    assert class_ids(decided, words(background=None), 0.2).tolist() == [[3, -1, 0, 3]]
    assert class_ids(decided, words(), 0.0).tolist() == [[3, 7, 0, 3]]
