"""Semantic scores against loops over pixels, torchmetrics, and assignments found by trying all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image as Picture
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

from ovskit.core.eval.confusion import count_pairs
from ovskit.core.eval.semantic import SemanticOptions, SemanticScores
from ovskit.core.runtime.errors import InputError
from tests.reference import semantic as reference

CLASSES = {0: "ground", 1: "sky", 2: "cat", 5: "dog"}

shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@st.composite
def images(draw: st.DrawFn, truth: list[int], predicted: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    found = []
    for _ in range(draw(st.integers(1, 4))):
        shape = draw(shapes)
        maps = [draw(arrays(np.int32, shape, elements=st.sampled_from(ids))) for ids in (truth, predicted)]
        found.append((maps[0], maps[1]))
    return found


def scored(pairs: list[tuple[np.ndarray, np.ndarray]], options: SemanticOptions) -> SemanticScores:
    scores = SemanticScores(options)
    for k, (truth, predicted) in enumerate(pairs):
        scores.add(k, count_pairs(truth, predicted))
    return scores


def metrics(scores: SemanticScores, images: int) -> dict[str, float]:
    return dict(zip((row.name for row in scores.rows), scores.values(np.ones((images, 1), np.int32))[:, 0].tolist(), strict=True))


def mean_of_mmseg(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int) -> float:
    """mmsegmentation's mIoU as it defines it: areas over all images, then the mean of the IoUs that are not 0 / 0. Below 0 is ignored."""
    common, truth, predicted = np.zeros((3, classes), np.float64)
    for true, found in pairs:
        counts = true >= 0
        for k in range(classes):
            common[k] += np.sum((true == k) & (found == k) & counts)
            truth[k] += np.sum((true == k) & counts)
            predicted[k] += np.sum((found == k) & counts)
    with np.errstate(invalid="ignore"):
        return float(np.nanmean(common / (truth + predicted - common)))


def pooled(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[tuple[int, int], int]:
    return reference.confusion(np.concatenate([t.ravel() for t, _ in pairs]), np.concatenate([p.ravel() for _, p in pairs]))


@settings(deadline=None)  # kernels compile
@given(images([-1, *CLASSES], [-1, *CLASSES]), st.sampled_from([None, 0]))
def test_scores_are_those_of_a_loop(pairs: list[tuple[np.ndarray, np.ndarray]], background: int | None) -> None:
    counts = pooled(pairs)
    scores = scored(pairs, SemanticOptions(CLASSES, background))
    if not counts:
        with pytest.raises(InputError, match="every pixel is void"):
            scores.check("truth", "predictions")
        return
    scores.check("truth", "predictions")
    if background is not None:
        renamed: dict[tuple[int, int], int] = {}
        for (t, p), n in counts.items():
            renamed[t, background if p == -1 else p] = renamed.get((t, background if p == -1 else p), 0) + n
        counts = renamed
    assert metrics(scores, len(pairs)) == pytest.approx(reference.scores(counts, list(CLASSES)))
    by_image = scores.values_by_image(len(pairs))
    for k, pair in enumerate(pairs):
        alone = scored([pair], SemanticOptions(CLASSES, background))
        expected = list(metrics(alone, 1).values()) if (pair[0] >= 0).any() else [np.nan] * 5
        np.testing.assert_allclose(by_image[:, k], expected)


@settings(deadline=None)  # kernels compile
@given(images([-1, *CLASSES], [-1, *CLASSES]), st.integers(0, 2**32 - 1))
def test_a_weight_is_so_many_copies(pairs: list[tuple[np.ndarray, np.ndarray]], seed: int) -> None:
    weights = np.random.default_rng(seed).integers(0, 3, (len(pairs), 2)).astype(np.int32)
    values = scored(pairs, SemanticOptions(CLASSES)).values(weights)
    for b in range(2):
        copies = [pair for pair, n in zip(pairs, weights[:, b].tolist(), strict=True) for _ in range(n)]
        if any((truth >= 0).any() for truth, _ in copies):
            np.testing.assert_allclose(values[:, b], list(metrics(scored(copies, SemanticOptions(CLASSES)), len(copies)).values()))
        else:
            assert np.isnan(values[:, b]).all()


def test_torchmetrics_agrees() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = (rng.integers(0, 6, (40, 50)).astype(np.int32) for _ in range(2))
    predicted = np.where(rng.random(truth.shape) < 0.6, truth, predicted).astype(np.int32)
    truth[:5] = 255
    found = metrics(
        scored([(np.where(truth == 255, -1, truth).astype(np.int32), predicted)], SemanticOptions({k: str(k) for k in range(6)})), 1
    )
    t, p = torch.from_numpy(truth).long(), torch.from_numpy(predicted).long()
    assert found["mIoU"] == pytest.approx(float(multiclass_jaccard_index(p, t, 6, ignore_index=255)), rel=1e-6)
    assert found["fwIoU"] == pytest.approx(float(multiclass_jaccard_index(p, t, 6, ignore_index=255, average="weighted")), rel=1e-6)
    assert found["pixel_accuracy"] == pytest.approx(float(multiclass_accuracy(p, t, 6, ignore_index=255, average="micro")), rel=1e-6)
    assert found["mean_accuracy"] == pytest.approx(float(multiclass_accuracy(p, t, 6, ignore_index=255, average="macro")), rel=1e-6)


def test_both_reductions() -> None:
    truth = np.array([[0, 0, 1, 1]], np.int32)
    predicted = np.array([[0, 0, 1, 2]], np.int32)  # class 2 is nowhere in the ground truth, and 5 nowhere at all
    scores = scored([(truth, predicted)], SemanticOptions(CLASSES))
    found = metrics(scores, 1)
    assert found["mIoU"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["mIoU_strict"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert [(c.id, c.truth, c.predicted, c.common, c.iou) for c in scores.by_class()] == [
        (0, 2, 2, 2, 1.0), (1, 2, 1, 1, 0.5), (2, 0, 1, 0, 0.0), (5, 0, 0, 0, None),
    ]  # fmt: skip


@settings(deadline=None)  # kernels compile
@given(images([-1, 0, 1, 2], [1, 2, 3, 4, 5]), st.sampled_from(["counts", "iou"]))
def test_more_clusters_than_classes(pairs: list[tuple[np.ndarray, np.ndarray]], match: str) -> None:
    counts = pooled(pairs)
    if not counts:
        return
    classes = {0: "a", 1: "b", 2: "c"}
    scores = scored(pairs, SemanticOptions(classes, match=match))  # type: ignore[arg-type]
    scores.check("truth", "predictions")
    found = metrics(scores, len(pairs))
    gain = np.zeros((6, 3))
    for (t, p), n in counts.items():
        gain[p, t] += n
    if match == "iou":
        gain = gain / np.maximum(gain.sum(1, keepdims=True) + gain.sum(0, keepdims=True) - gain, 1)
        assert sum(c.iou or 0 for c in scores.by_class()) == pytest.approx(reference.best_sum(gain))
    else:
        assert found["pixel_accuracy"] * sum(counts.values()) == pytest.approx(reference.best_sum(gain))
    # No pixel is dropped: those of the classes and of what is left over are all that there are.
    assert sum(c.predicted for c in scores.by_class()) + sum(scores.leftovers().values()) == sum(counts.values())
    assert sum(c.truth for c in scores.by_class()) == sum(counts.values())


@settings(deadline=None)  # kernels compile
@given(images([0, 1, 2], [-1, 1, 2, 3]), st.permutations([1, 2, 3]), st.booleans())
def test_names_of_clusters_mean_nothing(pairs: list[tuple[np.ndarray, np.ndarray]], names: list[int], joint: bool) -> None:
    options = SemanticOptions({0: "a", 1: "b", 2: "c"}, 0, "iou", joint)
    table = np.array([*names, -1])  # of 1, 2, 3 and -1
    renamed = [(truth, table[np.where(predicted < 0, 3, predicted - 1)].astype(np.int32)) for truth, predicted in pairs]
    assert metrics(scored(renamed, options), len(pairs)) == pytest.approx(metrics(scored(pairs, options), len(pairs)))


def test_a_fixed_background_takes_no_part_in_the_matching() -> None:
    # Cluster 7 is mostly on the background, which unlabelled pixels are.
    truth = np.array([[0] * 6 + [1] * 4], np.int32)
    predicted = np.array([[7] * 7 + [-1] * 3], np.int32)
    fixed = scored([(truth, predicted)], SemanticOptions({0: "background", 1: "cat"}, 0, "counts"))
    assert [(c.cluster, c.common, c.predicted) for c in fixed.by_class()] == [(None, 0, 3), (7, 1, 7)]
    assert fixed.leftovers() == {}
    joint = scored([(truth, predicted)], SemanticOptions({0: "background", 1: "cat"}, 0, "counts", joint=True))
    assert [(c.cluster, c.common, c.predicted) for c in joint.by_class()] == [(7, 6, 7), (-1, 3, 3)]


def test_fewer_clusters_than_classes() -> None:
    truth = np.array([[0, 1, 1, 2]], np.int32)
    scores = scored([(truth, np.full((1, 4), 9, np.int32))], SemanticOptions({0: "a", 1: "b", 2: "c"}, match="counts"))
    assert [c.cluster for c in scores.by_class()] == [None, 9, None]
    assert metrics(scores, 1)["mIoU"] == pytest.approx((2 / 4) / 3)


def test_ids_outside_the_label_space() -> None:
    truth, predicted = np.array([[0, 1]], np.int32), np.array([[1, 77]], np.int32)
    with pytest.raises(InputError, match="predictions: id 77 is outside the label space, whose ids are 0-2, 5"):
        scored([(truth, predicted)], SemanticOptions(CLASSES)).check("truth", "predictions")
    with pytest.raises(InputError, match="truth: ids 3, 4 are outside"):
        scored([(np.array([[3, 4]], np.int32), predicted)], SemanticOptions(CLASSES)).check("truth", "predictions")
    # Without a label space every id is one, and clusters have names of their own.
    scored([(truth, predicted)], SemanticOptions()).check("truth", "predictions")
    scored([(truth, predicted)], SemanticOptions(CLASSES, match="counts")).check("truth", "predictions")


@settings(deadline=None)  # kernels compile
@given(shapes, st.integers(0, 2**32 - 1))
def test_pairs_in_any_order_of_memory(shape: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = (rng.choice([-1, 0, 7, 65535], shape).astype(np.int32) for _ in range(2))
    pairs = count_pairs(truth, predicted)
    assert {(t, p): n for t, p, n in zip(*(part.tolist() for part in pairs), strict=True)} == reference.confusion(truth, predicted)
    for first, second in ((np.asfortranarray(truth), predicted), (truth, np.asfortranarray(predicted))):
        assert all(np.array_equal(a, b) for a, b in zip(count_pairs(first, second), pairs, strict=True))


def test_maps_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="maps of"):
        count_pairs(np.zeros((2, 3), np.int32), np.zeros((3, 2), np.int32))
    with pytest.raises(ValueError, match="expected -1 to 65535"):
        count_pairs(np.zeros((2, 3), np.int32), np.full((2, 3), 65536, np.int32))


def test_the_two_sides_may_have_one_name() -> None:
    scores = scored([(np.array([[0, 9]], np.int32), np.array([[0, 1]], np.int32))], SemanticOptions({0: "a", 1: "b"}))
    with pytest.raises(InputError, match="id 9 is outside"):
        scores.check("x.json", "x.json")


def test_warnings() -> None:
    truth = np.array([[0, 0, 1, 1, -1]], np.int32)
    for predicted, words in (
        ([4, 4, 5, 5, 6], []),
        ([4, 4, 5, 7, 6], ["1 cluster is left over, since there are fewer classes; all their pixels, 1,"]),
        ([4, 7, 5, 8, 6], ["2 clusters are left over"]),
        ([-1, -1, -1, -1, 6], ["no pixel that counts has a label"]),
    ):
        found = scored([(truth, np.array([predicted], np.int32))], SemanticOptions(match="counts")).warnings("it")
        assert len(found) == len(words)
        assert all(text.startswith(f"it: {word}") for text, word in zip(found, words, strict=True))


# mmseg's mean


@given(images([-1, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5]))
def test_the_strict_mean_is_that_of_mmseg(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    if all((truth < 0).all() for truth, _ in pairs):
        pairs = [(np.zeros((2, 2), np.int32), np.ones((2, 2), np.int32))]
    found = metrics(scored(pairs, SemanticOptions({k: str(k) for k in range(7)})), len(pairs))
    assert found["mIoU_strict"] == pytest.approx(mean_of_mmseg(pairs, 7), abs=1e-12)


def test_the_strict_mean_differs_from_the_other_where_a_class_is_only_predicted() -> None:
    pairs = [(np.array([[0, 0, 1, 1]], np.int32), np.array([[0, 2, 1, 1]], np.int32))]
    found = metrics(scored(pairs, SemanticOptions({k: str(k) for k in range(4)})), 1)
    assert found["mIoU"] == pytest.approx(0.75)
    assert found["mIoU_strict"] == pytest.approx(0.5) == mean_of_mmseg(pairs, 4)


VOC = Path(os.environ.get("OVSKIT_TEST_DATA", "")) / "voc2012" / "SegmentationClass"


@pytest.mark.skipif(not os.environ.get("OVSKIT_TEST_DATA") or not VOC.is_dir(), reason="needs the VOC 2012 of OVSKIT_TEST_DATA")
def test_the_strict_mean_is_that_of_mmseg_on_real_maps() -> None:
    random = np.random.default_rng(0)
    pairs = []
    for path in sorted(VOC.glob("*.png"))[:40]:
        truth = np.asarray(Picture.open(path)).astype(np.int32)
        # What is right in most places, shifted by some pixels, with a class that is not there in one corner.
        predicted = np.roll(np.where(truth == 255, 0, truth), random.integers(-9, 10, 2), axis=(0, 1))
        predicted[:5, :5] = random.integers(0, 21)
        pairs.append((np.where(truth == 255, -1, truth), predicted))
    assert len(pairs) == 40
    found = metrics(scored(pairs, SemanticOptions({k: str(k) for k in range(21)})), len(pairs))
    assert found["mIoU_strict"] == pytest.approx(mean_of_mmseg(pairs, 21), abs=1e-12)
