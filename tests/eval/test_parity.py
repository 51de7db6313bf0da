"""AR and AP against pycocotools' COCOeval, to the last digits."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.eval import precision
from ovskit.core.eval.evaluation import evaluate
from ovskit.core.eval.registry import make_metric
from ovskit.core.formats.truth.ground_truth import open_ground_truth
from ovskit.core.masks import rle
from ovskit.core.records import Image, MaskSet

from .scenes import Scene, as_coco, box, judge, mask, repeated, scene, truth_of

DATA = Path(os.environ.get("OVSKIT_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
SETS = {"coco_entities": "entities_dev.json", "bsds500": "bsds_val.json", "ccp_parts": "parts_dev.json"}


def same(data: Scene, maxima: tuple[int, ...], *, by_category: bool = False) -> dict[str, float | None]:
    """Assert that we agree with pycocotools; returns what both say."""
    expected = judge(data, maxima, by_category=by_category)
    for metric in ("ar", "ap"):
        chosen = make_metric(metric, maxima=maxima, by_category=by_category)
        found = evaluate(data.predictions, truth_of(*data.truth), chosen, workers=2).metrics()
        wanted = {name: expected[name] for name in found}
        assert {name for name in found if found[name] is None} == {name for name in wanted if wanted[name] is None}
        for name, value in found.items():
            assert value == pytest.approx(wanted[name], abs=1e-9), name
    return expected


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([(1, 10, 1000), (1, 3, 5), (4,)]))
def test_random_scenes(seed: int, by_category: bool, maxima: tuple[int, ...]) -> None:
    same(scene(seed), maxima, by_category=by_category)


def test_scenes_have_what_they_are_for() -> None:
    """The property above would be worth little if nothing ever matched, tied or was undefined."""
    values = [judge(scene(seed), (1, 10, 1000)) for seed in range(5)]
    assert all(0.02 < (v["AP"] or 0) < 0.98 for v in values)
    assert all((v["AR@1"] or 0) < (v["AR@10"] or 0) for v in values)
    scores = [m.score for seed in range(5) for s in scene(seed).predictions for m in s.masks]
    assert len(set(scores)) < len(scores) / 10
    assert sum(m.iscrowd for seed in range(5) for s in scene(seed).truth for m in s.masks) > 5
    assert any(not s.masks for seed in range(5) for s in scene(seed).truth)
    assert any(not s.masks for seed in range(5) for s in scene(seed).predictions)


@pytest.mark.parametrize("by_category", [False, True])
def test_more_predictions_than_count(by_category: bool) -> None:
    random = np.random.default_rng(1)
    shapes = [box(40, 40, y, x, 12, 12) for y in (0, 14, 28) for x in (0, 14, 28)]
    truth, predictions = [], []
    for number in (1, 2):
        image = Image(number, f"{number}.jpg", 40, 40)
        truth.append(MaskSet(image, tuple(mask(s, 9 * number + k, number, category_id=1 + k % 2) for k, s in enumerate(shapes))))
        found = []
        for k in range(1300):
            pixels = np.roll(shapes[random.integers(9)], random.integers(-3, 4, 2), (0, 1))
            found.append(mask(pixels, k + 1, number, score=float(random.integers(0, 40)), category_id=int(random.integers(1, 3))))
        predictions.append(MaskSet(image, tuple(found)))
    values = same(Scene(truth, predictions), (1, 10, 300 if by_category else 1000), by_category=by_category)
    assert 0 < (values["AP"] or 0) < 1


@pytest.mark.parametrize("what", ["truth", "predictions"])
def test_one_side_is_empty(what: str) -> None:
    data = scene(3)
    bare = [MaskSet(s.image, ()) for s in getattr(data, what)]
    values = same(replace(data, **{what: bare}), (1, 10, 1000))
    assert values["AP"] == (None if what == "truth" else 0)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_images_that_count_several_times(seed: int, by_category: bool) -> None:
    """What the bootstrap computes from weights is what pycocotools computes from copies of the images."""
    data = scene(seed, distinct=True)
    times = dict(enumerate(np.random.default_rng(seed).integers(0, 4, 6).tolist(), 1))
    expected = judge(repeated(data, times), (1, 10, 1000), by_category=by_category)
    for metric in ("ar", "ap"):
        evaluation = evaluate(data.predictions, truth_of(*data.truth), make_metric(metric, by_category=by_category))
        weights = np.array([[times[k], 1] for k in range(1, 7)], np.int32)
        for name, value in zip(evaluation.names, evaluation.scores.values(weights)[:, 0], strict=True):
            wanted = np.nan if expected[name] is None else expected[name]
            assert value == pytest.approx(wanted, abs=1e-9, nan_ok=True), name


def test_the_size_of_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = scene(8, images=12)
    before = evaluate(data.predictions, truth_of(*data.truth), make_metric("ap"))
    numbers, spans = before.metrics(), before.intervals(50)
    monkeypatch.setattr(precision, "_CHUNK", 3)
    monkeypatch.setattr(precision, "_ON_DISK", 1)
    monkeypatch.setattr(precision, "_HELD", 0)
    after = evaluate(data.predictions, truth_of(*data.truth), make_metric("ap"))
    assert (after.metrics(), after.intervals(50)) == (numbers, spans)


@pytest.mark.parametrize("name", SETS)
def test_photographs(name: str) -> None:
    """Real annotations, and predictions made of them: shifted, cut, halves of two."""
    path = DATA / name / SETS[name]
    if not path.is_file():
        pytest.skip(f"no {path}: set OVSKIT_TEST_DATA to the folder of the development sets")
    truth = open_ground_truth(str(path))
    random = np.random.default_rng(0)
    chosen, predictions = [truth.load(k) for k in range(8)], []
    for masks in chosen:
        dense = [rle.decode(m.rle) for m in masks.masks]
        found = []
        for k in range(60):
            one, other = (dense[i] for i in random.integers(0, len(dense), 2))
            pixels = np.roll(one, random.integers(-9, 10, 2), (0, 1)) | (other if random.random() < 0.2 else 0)
            found.append(mask(pixels, k + 1, masks.image.id, score=float(random.integers(0, 30))))
        predictions.append(MaskSet(masks.image, tuple(found)))
    values = same(Scene(chosen, predictions), (1, 10, 1000))
    assert 0.1 < (values["AR@1000"] or 0) < 0.95


@pytest.mark.parametrize("metric", ["ar", "ap"])
def test_annotators_one_by_one(metric: str) -> None:
    """The mean over annotators, weighted by their images, of what pycocotools says of each on the images that have it."""
    data = scene(11, images=10, annotators=True)
    chosen = make_metric(metric, per_annotator=True)
    found = evaluate(data.predictions, truth_of(*data.truth), chosen).metrics()
    parts = []
    for annotator in (1, 2, 3):
        truth = [MaskSet(s.image, tuple(m for m in s.masks if m.extra["annotator"] == annotator)) for s in data.truth]
        truth = [s for s in truth if s.masks]
        ids = {s.image.id for s in truth}
        part = Scene(truth, [s for s in data.predictions if s.image.id in ids])
        parts.append((len(ids), judge(part, (1, 10, 1000))))
    assert len({count for count, _ in parts}) > 1
    for name, value in found.items():
        defined = [(count, values[name]) for count, values in parts if values[name] is not None]
        assert value == pytest.approx(sum(c * v for c, v in defined) / sum(c for c, _ in defined), abs=1e-9)


def test_ground_truth_from_a_file(tmp_path: Path) -> None:
    """The same through files: stated areas decide sizes, as they do in pycocotools."""
    data = scene(21)
    document = {
        "images": [{"id": s.image.id, "file_name": s.image.file_name, "width": 110, "height": 110} for s in data.truth],
        "annotations": [as_coco(m) for s in data.truth for m in s.masks],
    }
    (tmp_path / "gt.json").write_text(json.dumps(document))
    truth = open_ground_truth(str(tmp_path / "gt.json"))
    expected = judge(data, (1, 10, 1000))
    for metric in ("ar", "ap"):
        found = evaluate(data.predictions, truth, make_metric(metric)).metrics()
        assert found == pytest.approx({name: expected[name] for name in found}, abs=1e-9)
