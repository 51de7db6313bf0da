"""Which images are scored, what is refused, and what a result may not depend on."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from ovskit.core.eval import precision
from ovskit.core.eval.evaluation import Evaluation, Evaluator, evaluate
from ovskit.core.eval.metric import Metric
from ovskit.core.eval.registry import make_metric
from ovskit.core.formats.streams.masks import MasksHeader
from ovskit.core.formats.truth.ground_truth import GroundTruth
from ovskit.core.records import Image, MaskSet
from ovskit.core.runtime.errors import InputError

from .scenes import Scene, box, judge, mask, scene, truth_of

AR = make_metric("ar")


def everything(evaluation: Evaluation) -> tuple[object, ...]:
    return evaluation.metrics(), evaluation.intervals(20), list(evaluation.per_image()), evaluation.counts, evaluation.warnings


@pytest.mark.parametrize("chosen", [AR, make_metric("ap", by_category=True), make_metric("ar", per_annotator=True)])
def test_neither_the_order_of_images_nor_workers_matter(chosen: Metric) -> None:
    data = scene(40, images=12, annotators=chosen.options.per_annotator)
    truth = truth_of(*data.truth)
    before = everything(evaluate(data.predictions, truth, chosen, workers=1))
    random = np.random.default_rng(0)
    for workers in (2, 5):
        shuffled = [data.predictions[k] for k in random.permutation(12)]
        assert everything(evaluate(shuffled, truth, chosen, workers=workers)) == before
    one_by_one = Evaluator(truth, chosen)
    for masks in reversed(data.predictions):
        one_by_one.add(masks)
    assert everything(one_by_one.finish()) == before


def test_images_without_predictions_count_unless_told_otherwise() -> None:
    data = scene(41, images=8)
    half = data.predictions[:4]
    ids = {s.image.id for s in half}
    truth = truth_of(*data.truth)
    whole = evaluate(half, truth, AR)
    wanted = judge(replace(data, predictions=half), (1, 10, 1000))
    assert whole.metrics() == pytest.approx({name: wanted[name] for name in whole.names}, abs=1e-9)
    assert len(whole.images) == 8
    assert "4 of the ground truth's 8 images are not in the predictions and count as without masks" in whole.warnings[0]
    listed = evaluate(half, truth, AR, images="listed")
    wanted = judge(Scene([s for s in data.truth if s.image.id in ids], half), (1, 10, 1000))
    assert listed.metrics() == pytest.approx({name: wanted[name] for name in listed.names}, abs=1e-9)
    assert {image.id for image in listed.images} == ids
    assert listed.counts.unlisted == 4
    assert listed.metrics() != whole.metrics()


def test_images_the_ground_truth_lacks_are_counted_and_not_scored() -> None:
    data = scene(42)
    truth = truth_of(*data.truth)
    before = evaluate(data.predictions, truth, AR)
    strangers = [MaskSet(Image(90 + k, f"stranger-{k}.jpg", 110, 110), data.predictions[0].masks) for k in range(3)]
    after = evaluate([*strangers[:2], *data.predictions, strangers[2]], truth, AR)
    assert after.metrics() == before.metrics()
    assert (after.counts.listed, after.counts.strangers) == (9, 3)
    assert after.predicted_masks == before.predicted_masks
    assert len(after.warnings) == 1
    assert "3 of the 9 images predicted are not in the ground truth (stranger-0.jpg, stranger-1.jpg, stranger-2.jpg)" in after.warnings[0]


def renamed(masks: MaskSet, name: str, number: int | None = None) -> MaskSet:
    return MaskSet(replace(masks.image, file_name=name, id=number or masks.image.id), masks.masks)


def test_images_are_found_by_path_and_by_id() -> None:
    data = scene(43)
    truth = truth_of(*data.truth)
    before = evaluate(data.predictions, truth, AR)
    paths = [renamed(s, f"deep/er/{s.image.file_name}", 100 + k) for k, s in enumerate(data.predictions)]
    assert evaluate(paths, truth, AR).metrics() == before.metrics()
    assert not evaluate(paths, truth, AR).warnings
    with pytest.raises(InputError, match="none of its 6 images"):
        evaluate([renamed(s, f"x{s.image.id}.png") for s in data.predictions], truth, AR)
    by_id = evaluate([renamed(s, str(s.image.id)) for s in data.predictions], truth, AR, header=MasksHeader(named=False))
    assert by_id.metrics() == before.metrics()
    assert by_id.counts.by_id == 6


def test_what_is_refused() -> None:
    data = scene(44)
    truth = truth_of(*data.truth)
    first = data.predictions[0]
    with pytest.raises(InputError, match="every image can be scored once"):
        evaluate([first, renamed(first, f"a/{first.image.file_name}", 77)], truth, AR)
    with pytest.raises(InputError, match=r"none of its 1 image is in the ground truth: it has y.jpg"):
        evaluate([renamed(first, "y.jpg", 77)], truth, AR)
    with pytest.raises(InputError, match="lists no image"):
        evaluate([], truth, AR)
    with pytest.raises(InputError, match="110×109"):
        evaluate([MaskSet(replace(first.image, height=109), ())], truth, AR)
    scored = [m for s in data.predictions for m in s.masks]
    bare = [MaskSet(s.image, tuple(replace(m, score=None) for m in s.masks)) for s in data.predictions]
    with pytest.raises(InputError, match="have no score and cannot be ranked"):
        evaluate([bare[0], *data.predictions[1:]] if bare[0].masks else [*data.predictions[:-1], bare[-1]], truth, AR)
    assert len(scored) > len(first.masks)
    with pytest.raises(InputError, match="not finite"):
        evaluate([MaskSet(first.image, (mask(np.ones((110, 110)), 1, first.image.id, score=float("nan")),))], truth, AR)
    with pytest.raises(InputError, match='no "annotator"'):
        nobodys = [MaskSet(s.image, tuple(replace(m, extra={}) for m in s.masks)) for s in data.truth]
        evaluate(data.predictions, truth_of(*nobodys), make_metric("ar", per_annotator=True))
    with pytest.raises(InputError, match='no annotation with an "annotator"'):
        empty = [MaskSet(s.image, ()) for s in data.truth]
        evaluate(data.predictions, truth_of(*empty), make_metric("ar", per_annotator=True))


def test_masks_without_a_score_rank_as_they_come() -> None:
    data = scene(45)
    bare = [MaskSet(s.image, tuple(replace(m, score=None) for m in s.masks)) for s in data.predictions]
    ones = [MaskSet(s.image, tuple(replace(m, score=1.0) for m in s.masks)) for s in data.predictions]
    truth = truth_of(*data.truth)
    evaluation = evaluate(bare, truth, AR, what="masks.json")
    assert evaluation.metrics() == evaluate(ones, truth, AR).metrics()
    assert evaluation.warnings == ("masks.json: its masks have no score; they rank in the order of the stream, all with score 1",)
    assert evaluation.metrics() != evaluate(data.predictions, truth, AR).metrics()


def test_annotators_and_categories_are_warned_of() -> None:
    data = scene(46, annotators=True)
    truth = truth_of(*data.truth)
    unaware = AR, make_metric("ar", per_annotator=True)
    said = [[w for w in evaluate(data.predictions, truth, o).warnings if "--per-annotator" in w] for o in unaware]
    assert len(said[0]) == 1
    assert "3 annotators" in said[0][0]
    assert not said[1]
    others = [MaskSet(s.image, tuple(replace(m, category_id=99) for m in s.masks)) for s in data.predictions]
    chosen = make_metric("ap", by_category=True)
    assert any("no predicted category_id" in w for w in evaluate(others, truth, chosen).warnings)
    assert not any("category" in w for w in evaluate(data.predictions, truth, chosen).warnings)


@pytest.mark.parametrize("chosen", [AR, make_metric("ap"), make_metric("ap", by_category=True)])
def test_each_image_by_itself(chosen: Metric) -> None:
    data = scene(47, images=8)
    lines = list(evaluate(data.predictions, truth_of(*data.truth), chosen).per_image())
    assert [line["id"] for line in lines] == list(range(1, 9))
    predictions = {s.image.id: s for s in data.predictions}
    for masks in data.truth:
        line = lines[masks.image.id - 1]
        wanted = judge(Scene([masks], [predictions[masks.image.id]]), (1, 10, 1000), by_category=chosen.options.by_category)
        assert line["file_name"] == masks.image.file_name
        assert (line["ground_truth"], line["predictions"]) == (len(masks.masks), len(predictions[masks.image.id].masks))
        for name, value in line["metrics"].items():
            assert value == pytest.approx(wanted[name], abs=1e-9), name


def test_each_image_by_itself_with_annotators() -> None:
    data = scene(48, annotators=True)
    chosen = make_metric("ar", per_annotator=True)
    for line in evaluate(data.predictions, truth_of(*data.truth), chosen).per_image():
        own = [[s for s in side if s.image.id == line["id"]] for side in (data.truth, data.predictions)]
        if own[0][0].masks:
            assert line["metrics"] == pytest.approx(evaluate(own[1], truth_of(*own[0]), chosen).metrics(), abs=1e-12)


def peak(images: int, each: int) -> int:
    """Most bytes held while as many images with as many predictions are scored; the ground truth is there before."""
    shapes = [box(32, 32, y, x, 8, 8) for y in (0, 12, 24) for x in (0, 12, 24)]
    sets = [MaskSet(Image(k, f"{k}", 32, 32), (mask(shapes[4], k, k),)) for k in range(1, images + 1)]
    truth = GroundTruth("it", [s.image for s in sets], sets.__getitem__)

    def predictions() -> Iterator[MaskSet]:
        random = np.random.default_rng(0)
        for s in sets:
            scores = random.random(each)
            yield MaskSet(s.image, tuple(mask(shapes[k % 9], k + 1, s.image.id, score=float(scores[k])) for k in range(each)))

    tracemalloc.start()
    try:
        evaluation = evaluate(predictions(), truth, make_metric("ap"), workers=2)
        evaluation.metrics()
        evaluation.intervals(20)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_CHUNK", 1000)
    monkeypatch.setattr(precision, "_ON_DISK", 1 << 12)
    peak(2, 100)  # whatever is imported and compiled on the way
    few, many = peak(10, 300), peak(80, 300)
    # 21,000 more predictions: their records alone are 840 kB, their masks 10 MB.
    assert many - few < 300_000, (few, many)


@pytest.mark.parametrize("chosen", [make_metric("ar", maxima=(10_000,)), make_metric("hierarchy")])
def test_memory_does_not_grow_with_pairs_of_masks_that_do_not_overlap(chosen: Metric) -> None:
    """1,600 masks against as many: one matrix of float64 would be 20 MB."""
    image = Image(1, "a.jpg", 320, 320)
    shapes = [box(320, 320, y, x, 6, 6) for y in range(0, 320, 8) for x in range(0, 320, 8)]
    truth = truth_of(MaskSet(image, tuple(mask(one, k + 1, parent_id=1 if k else None) for k, one in enumerate(shapes))))
    found = [MaskSet(image, tuple(mask(one, k + 1, score=0.5) for k, one in enumerate(shapes)))]
    evaluate(found, truth, chosen)
    tracemalloc.start()
    try:
        evaluate(found, truth, chosen)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000, peak
