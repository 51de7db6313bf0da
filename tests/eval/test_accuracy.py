"""Top-1 and top-5 accuracy: against torchmetrics and by counting, with one class an image and with several."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_accuracy

from ovskit.core.eval.accuracy import Accuracy, AccuracyOptions
from ovskit.core.eval.evaluation import Evaluation, evaluate
from ovskit.core.eval.report import score_files, tables, to_json
from ovskit.core.eval.request import Bootstrap, Compared, EvalRequest
from ovskit.core.eval.run import run_evaluation
from ovskit.core.formats.labels.spaces import built_in
from ovskit.core.formats.streams.image_labels import ImageLabelsHeader, ImageLabelsWriter
from ovskit.core.formats.streams.masks import MasksHeader
from ovskit.core.formats.truth.image_classes import ImageClasses, open_image_classes, read_mapping
from ovskit.core.records import Image, ImageLabel, ImageLabels
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.failures import Failures

NAMES = [f"class {k}" for k in range(8)]
CATEGORIES = tuple({"id": k, "name": name} for k, name in enumerate(NAMES))


def ranked(number: int, scores: Sequence[float], top: int = 8) -> ImageLabels:
    order = np.argsort(-np.asarray(scores), kind="stable")[:top].tolist()
    return ImageLabels(Image(number, f"{number}.jpg", 4, 3), tuple(ImageLabel(k, NAMES[k], float(scores[k])) for k in order))


def scored(predictions: list[ImageLabels], classes: list[tuple[int | str, ...]], **options: object) -> Evaluation:
    truth = ImageClasses("truth", [f"{k}.jpg" for k in range(1, len(classes) + 1)], classes)
    return evaluate(iter(predictions), truth, Accuracy(), header=MasksHeader(categories=CATEGORIES), **options)  # type: ignore[arg-type]


def test_it_is_the_accuracy_of_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    scores, truth = rng.random((60, 8)), rng.integers(0, 7, 60)  # class 7 has no image
    scores[np.arange(60), truth] += 0.4
    found = scored([ranked(k + 1, row) for k, row in enumerate(scores)], [(int(k),) for k in truth]).metrics()
    logits, target = torch.from_numpy(scores), torch.from_numpy(truth)
    for name, top in (("top1", 1), ("top5", 5)):
        assert found[name] == pytest.approx(float(multiclass_accuracy(logits, target, 8, average="micro", top_k=top)), abs=1e-6)
    by_class = multiclass_accuracy(logits, target, 8, average=None)[:7]
    assert found["mean_class_top1"] == pytest.approx(float(by_class.mean()), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12))
def test_an_image_of_several_classes_is_right_with_any_of_them(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    classes = [tuple(sorted(rng.choice(8, rng.integers(1, 4), replace=False).tolist())) for _ in range(n)]
    predictions = [ranked(k + 1, rng.random(8)) for k in range(n)]
    evaluation = scored(predictions, list(classes))
    best = [one.labels[0].id in own for one, own in zip(predictions, classes, strict=True)]
    five = [bool({label.id for label in one.labels[:5]} & set(own)) for one, own in zip(predictions, classes, strict=True)]
    shares = [np.mean([b for b, own in zip(best, classes, strict=True) if k in own]) for k in range(8) if any(k in own for own in classes)]
    expected = {"top1": np.mean(best), "top5": np.mean(five), "mean_class_top1": np.mean(shares)}
    assert evaluation.metrics() == pytest.approx(expected)
    assert [line["metrics"]["top1"] for line in evaluation.per_image()] == best
    for low, high in filter(None, evaluation.intervals(50).values()):
        assert 0 <= low <= high <= 1


def test_every_resample_is_scored_as_if_its_images_were_all() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 9).tolist()
    predictions = [ranked(k + 1, rng.random(8)) for k in range(9)]
    scores = scored(predictions, [(k,) for k in truth]).scores
    weights = rng.multinomial(9, np.full(9, 1 / 9), 20).T.astype(np.int32)
    for column, values in zip(weights.T, scores.values(weights).T, strict=True):
        drawn = np.repeat(np.arange(9), column)
        right = np.array([predictions[k].labels[0].id == truth[k] for k in drawn])
        own = np.array(truth)[drawn]
        assert values[0] == pytest.approx(right.mean())
        assert values[2] == pytest.approx(np.mean([right[own == k].mean() for k in np.unique(own)]))


def test_images_that_are_not_predicted_are_wrong_or_left_out() -> None:
    predictions = [ranked(1, np.eye(8)[2])]
    evaluation = scored(predictions, [(2,), (2,)])
    assert evaluation.metrics()["top1"] == 0.5
    assert evaluation.warnings == ("the predictions: 1 of the ground truth's 2 images are not in the predictions and count as wrong",)
    listed = scored(predictions, [(2,), (2,)], images="listed")
    assert (listed.metrics()["top1"], listed.counts.unlisted) == (1, 1)


def test_too_few_labels_leave_top_5_undefined() -> None:
    evaluation = scored([ranked(1, np.eye(8)[2], top=3)], [(2,)])
    assert (evaluation.metrics()["top1"], evaluation.metrics()["top5"]) == (1, None)
    assert evaluation.warnings == ("the predictions: top-5 is not defined: an image has 3 labels, and 5 are needed",)


# Paths


def photographs(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def predictions_at(path: Path, found: dict[str, list[int]], space: str | None = None) -> str:
    categories = CATEGORIES if space is None else tuple({"id": one.id, "name": one.name} for one in built_in(space).classes)
    labels = None if space is None else {"name": space, "version": 1, "hash": built_in(space).hash}
    name_of = {one["id"]: str(one["name"]) for one in categories}
    with path.open("wb") as out:
        writer = ImageLabelsWriter(out, ImageLabelsHeader("imgs", categories, labels))
        for number, (name, ids) in enumerate(found.items(), 1):
            writer.write(ImageLabels(Image(number, name, 9, 9), tuple(ImageLabel(k, name_of[k], 1 - 0.1 * i) for i, k in enumerate(ids))))
        writer.finish()
    return str(path)


def run(truth: Path, *predictions: str, **options: object) -> tuple[list[Evaluation], EvalRequest]:
    metric = Accuracy(AccuracyOptions(**options))  # type: ignore[arg-type]
    request = EvalRequest(metric, Compared(gt=str(truth), masks=predictions), Bootstrap(resamples=20))
    return [file.evaluation for file in run_evaluation(request)], request


def test_folders_are_classes_by_name_synonym_or_number(tmp_path: Path) -> None:
    truth = photographs(tmp_path / "gt", "Double_Door/a.JPG", "edifice/b.png", "20/c.png", "20/notes.txt")
    found = predictions_at(
        tmp_path / "p.jsonl", {"a.jpg": [14, 1, 0, 2, 3], "b.png": [0, 1, 2, 3, 4], "c.png": [20, 1, 2, 3, 4]}, "ade-150"
    )
    (evaluation,), request = run(truth, found, classes=True)
    assert evaluation.metrics()["top1"] == pytest.approx(2 / 3)
    assert evaluation.metrics()["top5"] == 1
    report = score_files([("p", evaluation, ())], request.bootstrap)
    said = to_json(report, request)
    assert said["classes"] == [
        {"id": 1, "name": "building", "images": 1, "right": 0},
        {"id": 14, "name": "door", "images": 1, "right": 1},
        {"id": 20, "name": "car", "images": 1, "right": 1},
    ]
    assert said["intervals"]["top5"] == [1, 1]
    assert tables(report, request)[1][1] == [["building", "1", "1", "0.00"], ["door", "14", "1", "100.00"], ["car", "20", "1", "100.00"]]


def test_a_mapping_says_what_folders_are(tmp_path: Path) -> None:
    truth = photographs(tmp_path / "gt", "n1/a.jpg", "n2/b.jpg", "n3/c.jpg")
    (tmp_path / "map.json").write_text(json.dumps({"n1": "class 1", "n2": [2, "class 3"], "n3": None}))
    found = predictions_at(tmp_path / "p.jsonl", {"a.jpg": [1, 0, 2, 3, 4], "b.jpg": [3, 0, 1, 4, 5]})
    metric = Accuracy(AccuracyOptions(mapping=str(tmp_path / "map.json")))
    said: list[str] = []
    (file,) = run_evaluation(EvalRequest(metric, Compared(gt=str(truth), masks=(found,))), warn=said.append)
    assert file.evaluation.metrics()["top1"] == 1
    assert said == [f"{truth}: 1 image left out, to which the mapping gives no class"]


def test_lines_give_an_image_one_class_or_several(tmp_path: Path) -> None:
    truth = tmp_path / "gt.jsonl"
    truth.write_text(
        '{"file_name":"a.jpg","label":"CLASS 1"}\n\n{"file_name":"b.jpg","labels":["class 5",6]}\n{"file_name":"c.jpg","label":7}\n'
    )
    found = {"a.jpg": [1, 0, 2, 3, 4], "b.jpg": [6, 0, 1, 4, 5], "c.jpg": [0, 1, 2, 3, 4]}
    first, second = predictions_at(tmp_path / "p.jsonl", found), predictions_at(tmp_path / "q.jsonl", found | {"c.jpg": [7, 1, 2, 3, 4]})
    (one, two), _ = run(truth, first, second)
    assert (one.metrics()["top1"], two.metrics()["top1"]) == (pytest.approx(2 / 3), 1)
    assert two.difference(one, 100)["top1"].value == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("nonsense\n", "line 1 is not valid JSON"),
        ('{"file_name":"a.jpg","label":"class 1"}\n{"file_name":"b.jpg"}\n', 'line 2 is not an object with "file_name" and "label"'),
        ('{"file_name":"a.jpg","labels":[]}\n', "line 1 is not an object"),
        ('{"file_name":"a.jpg","label":1.5}\n', "line 1 is not an object"),
        ('{"file_name":"a.jpg","label":true}\n', "line 1 is not an object"),
        ("", "has no image with a class"),
        ('{"file_name":"a.jpg","label":1}\n{"file_name":"a.jpg","label":2}\n', "two images are called a.jpg"),
    ],
)
def test_broken_lines_are_said(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "gt.jsonl").write_text(lines)
    with pytest.raises(InputError, match=message):
        open_image_classes(str(tmp_path / "gt.jsonl"))


def test_broken_lines_can_be_skipped(tmp_path: Path) -> None:
    (tmp_path / "gt.jsonl").write_text('{"file_name":"a.jpg","label":"class 1"}\nnonsense\n')
    failures = Failures(skip=True)
    assert len(open_image_classes(str(tmp_path / "gt.jsonl"), failures=failures)) == 1
    assert failures.count == 1


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    truth = photographs(tmp_path / "gt", *(f"n{k}/{k}.jpg" for k in range(7)))
    found = predictions_at(tmp_path / "p.jsonl", {"1.jpg": [1, 0, 2, 3, 4]})
    with pytest.raises(InputError, match=r"n0, n1, n2, n3, n4 and 2 more: not classes of .*p\.jsonl's label space; .*--set mapping=FILE"):
        run(truth, found)
    with pytest.raises(InputError, match="two label spaces are mixed"):
        run(truth, predictions_at(tmp_path / "q.jsonl", {"1.jpg": [1]}, "voc-20"), names="voc-21")
    with pytest.raises(InputError, match=r"loose\.jpg is in no folder of a class"):
        open_image_classes(str(photographs(tmp_path / "loose", "loose.jpg")))
    with pytest.raises(UsageError, match="is a folder"):
        run(truth, str(truth))
    with pytest.raises(InputError, match="is not a stream of image labels"):
        run(truth, str(Path(__file__)))
    (tmp_path / "map.json").write_text('{"n1": 1.5}')
    with pytest.raises(InputError, match="'n1' must stand for"):
        read_mapping(str(tmp_path / "map.json"))


def test_a_cut_file_gives_no_scores(tmp_path: Path) -> None:
    truth = photographs(tmp_path / "gt", "class 1/1.jpg")
    found = predictions_at(tmp_path / "p.jsonl", {"1.jpg": [1, 0, 2, 3, 4]})
    Path(found).write_bytes(Path(found).read_bytes()[:-11])
    with pytest.raises(InputError, match="truncated"):
        run(truth, found)
