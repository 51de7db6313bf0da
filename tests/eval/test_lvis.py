"""LVIS' rule for images that were searched for some categories only, against the ``lvis`` package."""

from dataclasses import replace

import numpy as np
import pytest

from ovskit.core.eval.evaluation import Evaluation, evaluate
from ovskit.core.eval.registry import make_metric
from ovskit.core.formats.coco.lvis import searched_categories
from ovskit.core.records import MaskSet
from ovskit.core.runtime.errors import InputError

from .lvis_judge import federated, judge, truth_of
from .scenes import Scene, mask, repeated

AR = make_metric("ar")


def scored(data: Scene, entries: list, metric: str, maxima: tuple[int, ...] = (300,)) -> Evaluation:
    return evaluate(data.predictions, truth_of(data, entries), make_metric(metric, maxima=maxima, by_category=True), workers=2)


def same(data: Scene, entries: list, maxima: tuple[int, ...] = (300,)) -> dict[str, float | None]:
    """Assert that we agree with the package; returns what both say."""
    expected = judge(data, entries, maxima)
    for metric in ("ar", "ap"):
        found = scored(data, entries, metric, maxima).metrics()
        wanted = {name: expected[name] for name in found}
        assert found == {name: None if value is None else pytest.approx(value, abs=1e-9) for name, value in wanted.items()}
    return expected


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("maxima", [(300,), (1, 3, 6)])
def test_random_scenes(seed: int, maxima: tuple[int, ...]) -> None:
    values = same(*federated(seed), maxima)
    assert set(values) >= {"APr", "APc", "APf"}


def test_scenes_have_what_they_are_for() -> None:
    """Each part of the rule changes a number somewhere, and so do the maxima, which are of all categories together."""
    data, entries = federated(0)
    before = judge(data, entries, (1, 3, 300))
    assert (before["AR@1"] or 0) < (before["AR@3"] or 0) < (before["AR@300"] or 0)
    assert 0.02 < (before["AP"] or 0) < 0.98
    for key in ("neg_category_ids", "not_exhaustive_category_ids"):
        assert judge(data, [{**one, key: []} for one in entries])["AP"] != before["AP"]
    coco = evaluate(data.predictions, truth_of(data, []), make_metric("ap", maxima=(300,), by_category=True)).metrics()
    assert coco["AP"] != before["AP"]
    assert "APr" not in coco


def test_empty_masks_and_masks_of_no_area_are_left_out() -> None:
    data, entries = federated(1)
    blank = np.zeros((110, 110), np.uint8)
    first = data.predictions[0]
    filled = [MaskSet(first.image, (mask(blank, 99, first.image.id, category_id=1, score=2.0), *first.masks)), *data.predictions[1:]]
    truth = [MaskSet(s.image, tuple(replace(m, extra={"area": 0.0}) if k == 0 else m for k, m in enumerate(s.masks))) for s in data.truth]
    same(Scene(truth, filled), entries, (2, 300))


def test_resamples_are_what_the_package_says_of_repeated_images() -> None:
    data, entries = federated(3, distinct=True)
    random = np.random.default_rng(5)
    times = {s.image.id: int(random.integers(0, 4)) for s in data.truth}
    many = repeated(data, times)
    by_id = {one["id"]: one for one in entries}
    copies = [{**by_id[s.image.id // 1000], "id": s.image.id} for s in many.truth]
    for metric in ("ar", "ap"):
        found = scored(data, entries, metric)
        weights = np.array([[times[image.id]] for image in found.images], np.int32)
        values = dict(zip(found.names, found.scores.values(weights)[:, 0].tolist(), strict=True))
        expected = judge(many, copies)
        for name, value in values.items():
            assert (None if np.isnan(value) else pytest.approx(value, abs=1e-9)) == expected[name], name


def test_each_image_by_itself() -> None:
    data, entries = federated(4)
    for metric in ("ar", "ap"):
        for line in scored(data, entries, metric).per_image():
            own = Scene(*([s for s in side if s.image.id == line["id"]] for side in (data.truth, data.predictions)))
            if not own.predictions[0].masks:
                continue  # the package wants a result
            wanted = judge(own, [one for one in entries if one["id"] == line["id"]])
            for name, value in line["metrics"].items():
                assert (None if value is None else pytest.approx(value, abs=1e-9)) == wanted[name], name


def test_the_order_of_images_and_workers_change_nothing() -> None:
    data, entries = federated(5)
    values = [
        evaluate(sets, truth_of(data, entries), make_metric("ap", by_category=True), workers=workers)
        for sets, workers in ((data.predictions, 1), (data.predictions[::-1], 3))
    ]
    assert values[0].metrics() == values[1].metrics()
    assert values[0].intervals(20) == values[1].intervals(20)


def test_without_categories_ar_is_as_ever_and_ap_comes_with_a_sentence() -> None:
    data, entries = federated(6)
    found, plain = (evaluate(data.predictions, truth_of(data, images), AR) for images in (entries, []))
    assert found.metrics() == plain.metrics()
    assert not plain.warnings
    assert "LVIS" in found.warnings[0]
    assert "AP without --by-category" in found.warnings[0]


def test_what_contradicts_itself_is_refused() -> None:
    data, entries = federated(7)
    chosen = make_metric("ap", by_category=True)
    bare = [entries[0], *({k: v for k, v in one.items() if k != "neg_category_ids"} for one in entries[1:])]
    with pytest.raises(InputError, match=r"image \d+ has no neg_category_ids, which others have"):
        evaluate(data.predictions, truth_of(data, bare), chosen)
    evaluate(data.predictions, truth_of(data, bare), AR)
    with pytest.raises(InputError, match="must be a list of whole numbers"):
        searched_categories([{"images": [{"id": 1, "neg_category_ids": ["1"]}]}], "it")
    others = [MaskSet(s.image, tuple(replace(m, category_id=50) for m in s.masks)) for s in data.predictions]
    assert "is of a category that its image was searched for" in evaluate(others, truth_of(data, entries), chosen).warnings[0]
