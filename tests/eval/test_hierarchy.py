"""Ancestor pairs and forests against sets of pairs, counted with no regard for speed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.eval.evaluation import evaluate
from ovskit.core.eval.registry import make_metric
from ovskit.core.masks.matching import match_masks
from ovskit.core.masks.overlap import iou
from ovskit.core.masks.pairs import pairs_of
from ovskit.core.masks.runs import run_table
from ovskit.core.records import Image, MaskSet
from ovskit.core.runtime.errors import InputError

from .scenes import box, mask, truth_of

HIERARCHY = make_metric("hierarchy")


def forest(random: np.random.Generator, image: int, count: int) -> MaskSet:
    """Overlapping boxes with random parents, which need not contain them; ids in any order."""
    ids = random.permutation(np.arange(1, 100))[:count].tolist()
    masks = []
    for k, number in enumerate(ids):
        top, left = random.integers(0, 3, 2) * 10
        parent = int(ids[random.integers(0, k)]) if k and random.random() < 0.6 else None
        masks.append(mask(box(40, 40, top, left, 8 + random.integers(0, 4), 10), number, image, parent_id=parent))
    shuffled = tuple(masks[k] for k in random.permutation(count))
    return MaskSet(Image(image, f"{image}.png", 40, 40), shuffled)


def ancestors(masks: MaskSet) -> dict[int, set[int]]:
    """Every mask's ancestors, by id."""
    parent = {m.id: m.parent_id for m in masks.masks}
    found: dict[int, set[int]] = {}
    for number in parent:
        found[number], at = set(), parent[number]
        while at is not None:
            found[number].add(at)
            at = parent[at]
    return found


def by_definition(truth: list[MaskSet], predictions: list[MaskSet]) -> dict[str, float | None]:
    predicted, true, hit, every = 0, 0, 0, 0
    levels: list[int] = []
    sizes: list[int] = []
    children = total = 0
    for a, b in zip(sorted(predictions, key=lambda s: s.image.id), sorted(truth, key=lambda s: s.image.id), strict=True):
        overlap = iou(run_table([m.rle for m in a.masks]), run_table([m.rle for m in b.masks]))
        same = {a.masks[i].id: b.masks[j].id for i, j in enumerate(match_masks(pairs_of(overlap, 0.5)).tolist()) if j >= 0}
        above, above_true = ancestors(a), ancestors(b)
        pairs = {(same[i], same[j]) for i in above for j in above[i] if i in same and j in same}
        all_true = {(i, j) for i in above_true for j in above_true[i]}
        paired = {(i, j) for i, j in all_true if i in same.values() and j in same.values()}
        predicted, true, hit, every = predicted + len(pairs), true + len(paired), hit + len(pairs & paired), every + len(all_true)
        children, total = children + sum(m.parent_id is not None for m in a.masks), total + len(a.masks)
        for root in (m.id for m in a.masks if m.parent_id is None):
            tree = [i for i in above if i == root or root in above[i]]
            sizes.append(len(tree))
            levels.append(max(len(above[i]) + 1 for i in tree))

    def ratio(x: float, y: float) -> float | None:
        return x / y if y else None

    return {
        "precision": ratio(hit, predicted), "recall": ratio(hit, true), "f1": ratio(2 * hit, predicted + true),
        "recall_all": ratio(hit, every), "predicted_pairs": predicted, "true_pairs": true, "found_pairs": hit,
        "all_true_pairs": every, "with_parent": ratio(children, total), "trees": len(sizes) / len(truth),
        "mean_depth": ratio(sum(levels), len(levels)), "max_depth": max(levels, default=0),
        "mean_size": ratio(sum(sizes), len(sizes)), "max_size": max(sizes, default=0),
    }  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_random_forests(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = [forest(random, image, random.integers(4, 9)) for image in (1, 2, 3)]
    predictions = [forest(random, image, random.integers(0, 16)) for image in (3, 1, 2)]
    if not any(m.parent_id for s in truth for m in s.masks):
        return
    evaluation = evaluate(predictions, truth_of(*truth), HIERARCHY, workers=2)
    assert evaluation.metrics() == pytest.approx(by_definition(truth, predictions), abs=1e-12)
    alone = {line["id"]: line["metrics"] for line in evaluation.per_image()}
    for masks in truth:
        own = [s for s in predictions if s.image.id == masks.image.id]
        assert alone[masks.image.id] == pytest.approx(by_definition([masks], own), abs=1e-12)


def test_the_truth_itself_is_perfect() -> None:
    # Masks that overlap by less than half, so that each pairs with itself.
    shapes = [box(40, 40, 10 * k, 0, 8, 30) for k in range(4)]
    masks = MaskSet(Image(1, "a", 40, 40), tuple(mask(s, k + 1, parent_id=k or None) for k, s in enumerate(shapes)))
    found = evaluate([masks], truth_of(masks), HIERARCHY).metrics()
    assert found["precision"] == found["recall"] == found["recall_all"] == found["f1"] == 1
    assert found["all_true_pairs"] == 6
    assert (found["max_depth"], found["max_size"], found["trees"]) == (4, 4, 1)


def test_intervals_of_sums_and_none_of_extremes() -> None:
    random = np.random.default_rng(5)
    truth = [forest(random, image, 8) for image in range(1, 13)]
    predictions = [forest(random, image, 14) for image in range(1, 13)]
    evaluation = evaluate(predictions, truth_of(*truth), HIERARCHY)
    spans = evaluation.intervals(200, seed=3)
    draws = np.random.default_rng(3)
    repeats = []
    for _ in range(200):
        drawn = draws.integers(0, 12, 12).tolist()
        repeats.append(by_definition([truth[k] for k in drawn], [predictions[k] for k in drawn]))
    for name in ("recall_all", "trees", "mean_depth", "found_pairs"):
        wanted = np.percentile([r[name] for r in repeats], [2.5, 97.5])
        assert spans[name] == pytest.approx(wanted, abs=1e-12)
        assert spans[name][0] < spans[name][1]
    assert spans["max_depth"] is spans["max_size"] is None


def chain(*parents: int | None) -> MaskSet:
    return MaskSet(Image(1, "a.png", 4, 4), tuple(mask(np.ones((4, 4)), k + 1, parent_id=p) for k, p in enumerate(parents)))


@pytest.mark.parametrize("cycle", [(1,), (2, 1), (None, 3, 4, 2), (2, 3, 3)])
@pytest.mark.parametrize("side", ["the predictions", "the ground truth"])
def test_a_cycle(cycle: tuple[int | None, ...], side: str) -> None:
    good, bad = chain(None, 1), chain(*cycle)
    truth, predictions = (good, bad) if side == "the predictions" else (bad, good)
    with pytest.raises(InputError, match=f"a.png: annotation . of {side} is its own ancestor"):
        evaluate([predictions], truth_of(truth), HIERARCHY)


def test_a_parent_that_is_not_there() -> None:
    with pytest.raises(InputError, match="annotation 2 of the predictions has parent_id 7"):
        evaluate([chain(None, 7)], truth_of(chain(None, 1)), HIERARCHY)


def test_ground_truth_without_parents() -> None:
    with pytest.raises(InputError, match="no parent_id"):
        evaluate([chain(None, 1)], truth_of(chain(None, None)), HIERARCHY)


def test_predictions_without_parents_are_warned_of() -> None:
    evaluation = evaluate([chain(None, None)], truth_of(chain(None, 1)), HIERARCHY)
    assert any("ovs-hier" in warning for warning in evaluation.warnings)
    assert evaluation.metrics()["with_parent"] == 0
    assert not evaluate([chain(None, 1)], truth_of(chain(None, 1)), HIERARCHY).warnings


def test_a_long_chain_is_no_stack_of_calls() -> None:
    shapes = np.ones((3, 3), np.uint8)
    masks = tuple(mask(shapes, k + 1, parent_id=k or None) for k in range(3000))
    deep = MaskSet(Image(1, "a", 3, 3), masks)
    found = evaluate([deep], truth_of(deep), HIERARCHY).metrics()
    assert found["all_true_pairs"] == 3000 * 2999 / 2
    assert found["max_depth"] == 3000
