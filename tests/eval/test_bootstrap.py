"""Resamples, percentile intervals and paired differences against the same done by hand."""

import numpy as np
import pytest

from ovskit.core.eval import bootstrap
from ovskit.core.eval.bootstrap import interval, resamples
from ovskit.core.eval.evaluation import evaluate
from ovskit.core.eval.registry import make_metric
from ovskit.core.runtime.errors import InputError

from .scenes import Scene, judge, repeated, scene, truth_of

AR = make_metric("ar")


def test_resamples_draw_as_many_as_there_are_and_depend_on_the_seed_alone() -> None:
    positions = np.array([1, 3, 4, 7])
    whole = np.concatenate(list(resamples(positions, 9, 25, 5, 25)), axis=1)
    assert whole.shape == (9, 25)
    assert (whole.sum(axis=0) == 4).all()
    assert not whole[[0, 2, 5, 6, 8]].any()
    blocks = list(resamples(positions, 9, 25, 5, 4))
    assert [b.shape[1] for b in blocks] == [4, 4, 4, 4, 4, 4, 1]
    assert np.array_equal(np.concatenate(blocks, axis=1), whole)
    assert not np.array_equal(np.concatenate(list(resamples(positions, 9, 25, 6, 25)), axis=1), whole)


def test_an_interval_is_between_percentiles() -> None:
    assert interval(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))
    assert interval(np.array([np.nan, 1.0, 3.0, np.nan]), 0.5) == pytest.approx((1.5, 2.5))
    assert interval(np.full(4, np.nan), 0.95) is None


@pytest.mark.parametrize("metric", ["ar", "ap"])
def test_intervals_are_those_of_pycocotools_on_copies(metric: str) -> None:
    data = scene(30, images=6, distinct=True)
    spans = evaluate(data.predictions, truth_of(*data.truth), make_metric(metric)).intervals(12, seed=4, confidence=0.8)
    random = np.random.default_rng(4)
    repeats = []
    for _ in range(12):
        times = np.bincount(random.integers(0, 6, 6), minlength=6)
        repeats.append(judge(repeated(data, dict(enumerate(times.tolist(), 1))), (1, 10, 1000)))
    for name, span in spans.items():
        values = [r[name] for r in repeats if r[name] is not None]
        assert span == pytest.approx(np.percentile(values, [10, 90]), abs=1e-9), name


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = scene(31, images=8)
    before = evaluate(data.predictions, truth_of(*data.truth), AR).intervals(30)
    monkeypatch.setattr(bootstrap, "_CELLS", 1)
    assert evaluate(data.predictions, truth_of(*data.truth), AR).intervals(30) == before


def test_a_difference_is_paired() -> None:
    one, other = scene(32, images=10), scene(33, images=10)
    truth = truth_of(*one.truth)
    first = evaluate(one.predictions, truth, AR, what="first")
    worse = evaluate([s for s in one.predictions if s.image.id != 3], truth, AR, what="worse")
    assert any(s.image.id == 3 and s.masks for s in one.predictions)
    found = worse.difference(first, 200, seed=1)
    assert found["AR@1000"].value == worse.metrics()["AR@1000"] - first.metrics()["AR@1000"]
    assert found["AR@1000"].value < 0
    # Taking masks away can only lower recall, in every resample: apart, the two intervals overlap.
    assert found["AR@1000"].interval[1] <= 0
    assert worse.intervals(200, 1)["AR@1000"][1] > first.intervals(200, 1)["AR@1000"][0]
    same = first.difference(first, 50)
    assert all(d.value == 0 and d.interval == (0, 0) for d in same.values())
    assert all(d.interval is None for d in worse.difference(first).values())
    foreign = evaluate(other.predictions, truth_of(*other.truth[:9]), AR, what="foreign")
    with pytest.raises(InputError, match="foreign and first are not scored on the same images"):
        foreign.difference(first)


def test_an_undefined_metric_has_no_interval() -> None:
    data = scene(34)
    large = [s for s in data.truth if all(m.extra.get("area", m.area) <= 9000 for m in s.masks)]
    ids = {s.image.id for s in large}
    small = Scene(large, [s for s in data.predictions if s.image.id in ids])
    evaluation = evaluate(small.predictions, truth_of(*small.truth), AR)
    assert evaluation.metrics()["AR_L"] is None
    assert evaluation.intervals(20)["AR_L"] is None
    assert evaluation.intervals(20)["AR@1000"] is not None
    assert evaluation.difference(evaluation, 20)["AR_L"].value is None
