"""``ovs-eval`` where two files, or a file and the question, do not mean the same: categories, LVIS, nothing to find or nothing found."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.eval import lvis_judge

from .conftest import Run, one_line, paint
from .test_eval import annotation, document, written

# COCO's numbers have gaps: 80 classes end at 90.
NAMES = ["person", "bicycle", "stop sign", "parking meter"]
COCO = [{"id": k, "name": name} for k, name in zip((1, 2, 13, 14), NAMES, strict=True)]
CONTIGUOUS = [{"id": k, "name": name} for k, name in enumerate(NAMES, 1)]
ENTITY = {"id": 1, "name": "entity", "supercategory": "entity"}


def squares(numbers: tuple[int, ...], **keys: Any) -> list[dict[str, Any]]:
    return [annotation(k + 1, k + 1, 8, 8, 20 + 4 * k, category_id=number, **keys) for k, number in enumerate(numbers)]


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return written(tmp_path / "gt.json", document(squares((1, 2, 13, 14)), categories=COCO))


def predicted(path: Path, numbers: tuple[int, ...], categories: list[dict[str, Any]]) -> Path:
    return written(path, document(squares(numbers, score=0.5), categories=categories))


@pytest.mark.parametrize(
    ("categories", "numbers", "words"),
    [
        (CONTIGUOUS, (1, 2, 3, 4), ["category 3 is 'stop sign', which is the ground truth's 13"]),
        ([{**one, "id": one["id"] - 1} for one in CONTIGUOUS], (0, 1, 2, 3), ["category 0 is 'person', which is the ground truth's 1"]),
        ([{"id": 1, "name": "bicycle"}, {"id": 2, "name": "person"}], (1, 2, 2, 2), ["category 1 is 'bicycle'", "'person'"]),
        ([{"id": 1, "name": "cluster 1"}, {"id": 2, "name": "cluster 2"}], (1, 2, 1, 1), ["category 1 is 'cluster 1'"]),
        ([{"id": 1, "name": "fg"}], (1, 1, 1, 1), ["category 1 is 'fg'"]),
    ],
)
def test_categories_that_contradict_each_other_are_refused(
    ovs: Run, truth: Path, tmp_path: Path, categories: list[dict[str, Any]], numbers: tuple[int, ...], words: list[str]
) -> None:
    masks = predicted(tmp_path / "masks.json", numbers, categories)
    for metric in ("ap", "ar"):
        done = ovs("ovs-eval", "--metric", metric, "--by-category", "--gt", truth, masks)
        assert done.returncode == 65
        assert not done.stdout
        one_line(done, str(masks), *words, "--by-category")
    assert ovs("ovs-eval", "--gt", truth, masks).returncode == 0  # without categories they do not matter


def test_numbers_that_agree_are_scored(ovs: Run, truth: Path, tmp_path: Path) -> None:
    """Spelling makes no difference; a file may list fewer or more classes; a results list lists none."""
    spelled = [
        {"id": 1, "name": "Person"},
        {"id": 13, "name": "stop_sign"},
        {"id": 2, "name": "bicycle"},
        {"id": 14, "name": "parking-meter"},
    ]
    results = written(tmp_path / "results.json", squares((1, 2, 13, 14), score=0.5))
    for path in (predicted(tmp_path / "masks.json", (1, 2, 13, 14), [*spelled, {"id": 99, "name": "kite"}]), results):
        done = ovs("ovs-eval", "--metric", "ap", "--by-category", "--gt", truth, path, "--json")
        assert done.returncode == 0
        assert b"categor" not in done.stderr
        assert json.loads(done.stdout)["metrics"]["AP"] == pytest.approx(1)


def test_numbers_that_the_ground_truth_does_not_list_are_named(ovs: Run, truth: Path, tmp_path: Path) -> None:
    results = written(tmp_path / "results.json", squares((1, 2, 3, 4), score=0.5))
    done = ovs("ovs-eval", "--metric", "ap", "--by-category", "--gt", truth, results)
    assert done.returncode == 0
    assert "category_id 3, 4 are not scored" in done.stderr.decode()


def test_masks_without_a_class_by_category_come_with_a_line(ovs: Run, truth: Path, masks: Path, tmp_path: Path) -> None:
    plain = document(squares((1, 1, 1, 1), score=0.5), categories=[ENTITY])
    bare = document(squares((1, 1, 1, 1), score=0.5))
    del bare["categories"]
    for value in (plain, bare, squares((1, 1, 1, 1), score=0.5)):
        path = written(tmp_path / "masks.json", value)
        done = ovs("ovs-eval", "--metric", "ap", "--by-category", "--gt", truth, path)
        assert done.returncode == 0
        text = done.stderr.decode().splitlines()[-1]
        assert "masks without a class" in text
        assert "(person)" in text
        assert "leave --by-category out" in text
        # The other way round: they are the ground truth.
        done = ovs("ovs-eval", "--metric", "ap", "--by-category", "--gt", written(tmp_path / "agnostic.json", plain), truth)
        assert done.returncode == 0
        assert "all masks of the ground truth have category_id 1" in done.stderr.decode()
    # Nobody has classes, or there is one: nothing to say.
    assert not ovs("ovs-eval", "--by-category", "--gt", masks, masks).stderr
    only = predicted(tmp_path / "only.json", (1, 1, 1, 1), COCO)
    assert not ovs("ovs-eval", "--by-category", "--gt", truth, only).stderr


@pytest.mark.parametrize("metric", ["ar", "ap", "hierarchy", "miou"])
def test_a_detector_that_found_nothing(ovs: Run, tmp_path: Path, metric: str) -> None:
    value = document([annotation(1, 1, 0, 0, 40), annotation(2, 1, 4, 4, 20, parent_id=1)])
    truth, results = written(tmp_path / "gt.json", value), written(tmp_path / "results.json", [])
    done = ovs("ovs-eval", "--metric", metric, "--gt", truth, "--json", results)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)["metrics"]
    zero = {"ar": ("AR@1", "AR@1000", "AP"), "ap": ("AP", "AP50"), "hierarchy": ("recall_all",), "miou": ("mIoU",)}[metric]
    assert [metrics[name] for name in zero] == [0] * len(zero)
    assert "4 of the ground truth's 4 images are not in the predictions" in done.stderr.decode()
    done = ovs("ovs-eval", "--metric", metric, "--gt", truth, "--images", "listed", results)
    assert done.returncode == 65
    one_line(done, "lists no image")
    # A file that lists its images, and lists none, has not looked at any.
    done = ovs("ovs-eval", "--metric", metric, "--gt", truth, written(tmp_path / "none.json", document([], images=0)))
    assert done.returncode == 65


@pytest.mark.parametrize("options", [[], ["--metric", "ap", "--by-category"], ["--images", "listed"], ["--per-annotator"]])
def test_a_ground_truth_of_crowds(ovs: Run, tmp_path: Path, options: list[str]) -> None:
    crowds = document(squares((1, 1, 1, 1), iscrowd=1, annotator=1))
    truth, masks = written(tmp_path / "gt.json", crowds), predicted(tmp_path / "masks.json", (1, 1, 1, 1), [ENTITY])
    done = ovs("ovs-eval", *options, "--gt", truth, masks)
    assert done.returncode == 65
    assert not done.stdout
    one_line(done, str(truth), "(4) are crowds (iscrowd 1)", "nothing to score")
    one = document([*crowds["annotations"], annotation(9, 1, 40, 40, 10, annotator=1)])
    assert ovs("ovs-eval", *options, "--gt", written(truth, one), masks).returncode == 0


def test_a_ground_truth_without_a_mask_is_said_to_be_one(ovs: Run, tmp_path: Path) -> None:
    truth, masks = written(tmp_path / "gt.json", document([])), predicted(tmp_path / "masks.json", (1, 1, 1, 1), [ENTITY])
    done = ovs("ovs-eval", "--gt", truth, "--json", masks)
    assert done.returncode == 0
    assert json.loads(done.stdout)["metrics"]["AP"] is None
    one_line(done, "no mask on any image", "undefined")


def test_lvis(ovs: Run, tmp_path: Path) -> None:
    """What the command says is what the lvis package says, at its own 300 masks an image if nothing else is asked for."""
    data, entries = lvis_judge.federated(8)
    truth = written(tmp_path / "lvis.json", lvis_judge.document(data, entries))
    results = written(tmp_path / "results.json", [lvis_judge.as_coco(m) for s in data.predictions for m in s.masks])
    wanted = lvis_judge.judge(data, entries)
    for metric in ("ap", "ar"):
        done = ovs("ovs-eval", "--metric", metric, "--by-category", "--gt", truth, "--json", results)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["metrics"] == {name: pytest.approx(wanted[name], abs=1e-9) for name in found["metrics"]}
        assert found["settings"]["max"] == [300]
        assert found["settings"]["federated"]
    few = lvis_judge.judge(data, entries, (2, 5))
    done = ovs("ovs-eval", "--by-category", "--max", "2,5", "--gt", truth, "--json", results)
    assert json.loads(done.stdout)["metrics"] == {
        name: pytest.approx(few[name], abs=1e-9) for name in ("AR@2", "AR@5", "AR_S", "AR_M", "AR_L", "AP")
    }
    text = ovs("ovs-eval", "--metric", "ap", "--by-category", "--gt", truth, "--bootstrap", 20, results).stdout.decode()
    assert re.search(r"APr .* \[", text)
    assert "LVIS' rule" in text
    done = ovs("ovs-eval", "--gt", truth, results)
    assert done.returncode == 0
    assert "AP without --by-category" in done.stderr.decode()


def test_the_images_of_lvis(ovs: Run, tmp_path: Path) -> None:
    """They have addresses, no names: extracted by them, masks are found again in the same file's ground truth."""
    data, entries = lvis_judge.federated(9, images=2)
    truth = written(tmp_path / "lvis.json", lvis_judge.document(data, entries))
    (tmp_path / "coco" / "val2017").mkdir(parents=True)
    for one in entries:
        paint(one["id"], (one["width"], one["height"])).save(tmp_path / "coco" / "val2017" / f"{one['id']}.jpg")
    done = ovs("ovs-extract", "--images", truth, "--root", tmp_path / "coco", "--size", 64, "-o", tmp_path / "f.npz")
    assert done.returncode == 0, done.stderr
    done = ovs("ovs-cluster", tmp_path / "f.npz", "--no-local", "-o", tmp_path / "masks.json")
    assert done.returncode == 0, done.stderr
    assert {one["file_name"] for one in json.loads((tmp_path / "masks.json").read_bytes())["images"]} == {"val2017/1.jpg", "val2017/2.jpg"}
    done = ovs("ovs-eval", "--gt", truth, "--json", tmp_path / "masks.json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["matched_by_id"] == 0
