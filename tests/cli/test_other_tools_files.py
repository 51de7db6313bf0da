"""Mask files of other tools, through the real commands: read as far as they make sense, and left out loudly where they do not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from ovskit.core.masks import rle

from .conftest import Run, one_line, paint

SIDE = 64
SQUARES = [(4, 4, 40), (20, 10, 30), (30, 30, 30)]


def dense(k: int) -> np.ndarray:
    top, left, size = SQUARES[k]
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    pixels[top : top + size, left : left + size] = 1
    return pixels


def coded(k: int) -> dict[str, Any]:
    return {"size": [SIDE, SIDE], "counts": rle.encode(dense(k)).counts.decode()}


def ring(k: int) -> list[float]:
    top, left, size = SQUARES[k]
    return [left, top, left + size, top, left + size, top + size, left, top + size]


def instances(**annotation: Any) -> dict[str, Any]:
    """Three images with a mask each; the last annotation is changed."""
    images = [{"id": k, "file_name": f"{k}.jpg", "width": SIDE, "height": SIDE} for k in range(3)]
    annotations = [{"id": k + 1, "image_id": k, "category_id": 1, "segmentation": coded(k)} for k in range(3)]
    annotations[2] |= annotation
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}


@pytest.fixture
def right(tmp_path: Path) -> Path:
    path = tmp_path / "right.json"
    results = [{"image_id": f"{k}", "category_id": 1, "segmentation": coded(k), "score": 1.0} for k in range(3)]
    path.write_text(json.dumps(results))
    return path


def recall(ovs: Run, folder: Path, truth: Any, predictions: Path, *options: str, code: int = 0) -> tuple[float, str]:
    (folder / "gt.json").write_text(truth if isinstance(truth, str) else json.dumps(truth))
    done = ovs("ovs-eval", "--gt", folder / "gt.json", predictions, "--json", *options)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)["metrics"]["AR@1"], done.stderr.decode()


@pytest.mark.parametrize("rings", [[ring(2), [1, 2, 3, 4]], [[5, 5], ring(2)], [ring(2), []]])
def test_rings_that_enclose_nothing_are_dropped_beside_one_that_does(ovs: Run, tmp_path: Path, right: Path, rings: Any) -> None:
    assert recall(ovs, tmp_path, instances(segmentation=rings), right) == (1, "")


@pytest.mark.parametrize("nothing", [[[1, 2, 3, 4]], [], None, [[]], {}])
def test_annotations_without_a_mask_are_left_out_and_counted(ovs: Run, tmp_path: Path, right: Path, nothing: Any) -> None:
    value = instances(segmentation=nothing, bbox=[1, 2, 3, 4])
    found, said = recall(ovs, tmp_path, value, right)
    assert found == 1
    assert "gt.json: 1 annotation without a mask" in said
    del value["annotations"][2]["segmentation"]
    assert recall(ovs, tmp_path, value, right) == (found, said)
    for annotation in value["annotations"]:
        annotation.pop("segmentation", None)
    (tmp_path / "gt.json").write_text(json.dumps(value))
    done = ovs("ovs-eval", "--gt", tmp_path / "gt.json", right)
    assert (done.returncode, done.stdout) == (65, b"")
    one_line(done, "none of its 3 annotations has a mask")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"segmentation": {"size": [SIDE, SIDE - 1], "counts": "0"}}, "the mask is 63×64, its image 64×64"),
        ({"segmentation": [[0, 0, 9, 0, 9]]}, "x, y pairs"),
        ({"image_id": 7}, "is of image 7, which the file does not list"),
        ({"score": "high"}, "score must be a finite number"),
        ({"segmentation": {"size": [SIDE, SIDE], "counts": [5, -5]}}, "annotation 3"),
    ],
)
def test_what_contradicts_itself_is_refused_or_skipped(ovs: Run, tmp_path: Path, right: Path, broken: dict[str, Any], words: str) -> None:
    (tmp_path / "gt.json").write_text(json.dumps(instances(**broken)))
    done = ovs("ovs-eval", "--gt", tmp_path / "gt.json", right)
    assert (done.returncode, done.stdout) == (65, b"")
    one_line(done, words)
    found, said = recall(ovs, tmp_path, instances(**broken), right, "--on-error", "skip", code=3)
    assert found == 1
    assert words in said
    assert "skipped 1 annotation that could not be used" in said
    done = ovs("ovs-hier", tmp_path / "gt.json")
    assert (done.returncode, done.stdout) == (65, b"")
    done = ovs("ovs-hier", tmp_path / "gt.json", "--on-error", "skip")
    assert done.returncode == 3
    assert len(json.loads(done.stdout)["annotations"]) == 2


def test_masks_of_sam(ovs: Run, tmp_path: Path) -> None:
    """What amg.py --convert-to-rle writes: a list for each image, in a file called as it."""
    (tmp_path / "sam").mkdir()
    for k in range(3):
        masks = [{"segmentation": coded(n), "predicted_iou": 0.9 if n == k else 0.5, "stability_score": 0.9, "area": 1} for n in range(3)]
        (tmp_path / "sam" / f"{k}.json").write_text(json.dumps(masks))
        paint(k, (SIDE, SIDE)).save(tmp_path / f"{k}.jpg")
    found, said = recall(ovs, tmp_path, instances(), tmp_path / "sam" / "1.json", "--images", "listed")
    assert found == 1
    # Joined they are the whole set's; a later stage finds the photographs.
    joined = ovs("ovs-hier", *(tmp_path / "sam" / f"{k}.json" for k in range(3)), "-o", tmp_path / "all.json")
    assert (joined.returncode, joined.stderr) == (0, b"")
    assert recall(ovs, tmp_path, instances(), tmp_path / "all.json") == (1, "")
    refined = ovs("ovs-refine", tmp_path / "sam" / "0.json", "--root", tmp_path, "-o", tmp_path / "refined.json")
    assert refined.returncode == 0, refined.stderr
    assert {a["file_name"] for a in json.loads((tmp_path / "refined.json").read_text())["annotations"]} == {"0"}
    # A folder of them, as predictions and as a ground truth.
    assert recall(ovs, tmp_path, instances(), tmp_path / "sam") == (1, "")
    done = ovs("ovs-eval", "--gt", tmp_path / "sam", tmp_path / "all.json", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["AR@10"] == 1
    done = ovs("ovs-eval", "--gt", tmp_path / "gt.json", stdin=(tmp_path / "sam" / "0.json").read_bytes())
    assert done.returncode == 65
    one_line(done, "no image_id", "name the file")


def test_files_that_cannot_be_used_are_skipped_if_wished(ovs: Run, tmp_path: Path, right: Path) -> None:
    """Of a folder of JSON files, of panoptic PNGs, of label maps: the image is named, counted and not scored."""
    (tmp_path / "sam").mkdir()
    (tmp_path / "maps").mkdir()
    (tmp_path / "pred").mkdir()
    for k in range(3):
        (tmp_path / "sam" / f"{k}.json").write_text(json.dumps([{"segmentation": coded(k), "predicted_iou": 0.9}]))
        for name in ("maps", "pred"):
            Pillow.fromarray(dense(k)).save(tmp_path / name / f"{k}.png")
    (tmp_path / "sam" / "1.json").write_text('[{"segmentation": {"size": [64')
    png = (tmp_path / "maps" / "1.png").read_bytes()
    for truth, options, broken in (
        ("sam", (), None),
        ("maps", ("--metric", "miou"), b"no image"),
        ("maps", ("--metric", "miou"), png[:60]),
    ):
        if broken is not None:
            (tmp_path / "maps" / "1.png").write_bytes(broken)
        predictions = right if truth == "sam" else tmp_path / "pred"
        done = ovs("ovs-eval", "--gt", tmp_path / truth, predictions, *options, "--json")
        assert (done.returncode, done.stdout) == (65, b""), done.stderr
        done = ovs("ovs-eval", "--gt", tmp_path / truth, predictions, *options, "--json", "--on-error", "skip")
        assert done.returncode == 3, done.stderr
        assert b"skipped 1 image that could not be used" in done.stderr
        found = json.loads(done.stdout)
        assert found["images"] == 2
        assert found["metrics"]["mIoU" if options else "AR@1"] == 1


@pytest.mark.parametrize("blank", ["\n", "\n\n  \r\n", "\ufeff\n"])
def test_blank_lines_before_the_document(ovs: Run, tmp_path: Path, right: Path, masks: Path, blank: str) -> None:
    assert recall(ovs, tmp_path, blank + json.dumps(instances(), indent=1), right)[0] == 1
    whole = ovs("ovs-hier", masks, "--no-pg")
    done = ovs("ovs-hier", "--no-pg", stdin=blank.encode() + masks.read_bytes())
    assert (done.returncode, done.stdout) == (0, whole.stdout)


def test_a_document_that_breaks_its_lines_where_ours_does(ovs: Run, tmp_path: Path, right: Path) -> None:
    value = instances()
    rows = [json.dumps(row) for row in value["annotations"]]
    text = json.dumps({"images": value["images"], "info": {}})[:-1] + ',"annotations":[\n' + ",\n".join(rows) + "\n]}"
    assert recall(ovs, tmp_path, text, right) == (1, "")


def test_a_results_list_finds_no_photograph_by_its_numbers(ovs: Run, tmp_path: Path) -> None:
    for k in range(3):
        paint(k, (SIDE, SIDE)).save(tmp_path / f"{k}.jpg")
    path = tmp_path / "results.json"
    path.write_text(json.dumps([{"image_id": k, "segmentation": coded(k), "score": 1.0} for k in range(3)]))
    for arguments in (("ovs-refine", path), ("ovs-label", path, "--clusters", "1"), ("ovs-show", path, "-o", tmp_path / "p.html")):
        done = ovs(*arguments, "--root", tmp_path)
        assert done.returncode in (65, 66)
        one_line(done, "a results list has ids and no names")
    # Beside a ground truth it does: that one knows the names.
    (tmp_path / "gt.json").write_text(json.dumps(instances()))
    done = ovs("ovs-show", path, "--root", tmp_path, "--gt", tmp_path / "gt.json", "-o", tmp_path / "p.html")
    assert (done.returncode, done.stderr) == (0, b"")


def test_panoptic_files_with_texts_as_ids(ovs: Run, tmp_path: Path, right: Path) -> None:
    (tmp_path / "gt").mkdir()
    images, annotations = [], []
    for k in range(3):
        labels = np.zeros((SIDE, SIDE, 3), np.uint8)
        labels[..., 0] = dense(k) * 5
        Pillow.fromarray(labels).save(tmp_path / "gt" / f"{k}.png")
        images.append({"id": f"town_{k}", "file_name": f"{k}.jpg", "width": SIDE, "height": SIDE})
        segments = [{"id": 5, "category_id": 1, "iscrowd": 0}]
        annotations.append({"image_id": f"town_{k}", "file_name": f"{k}.png", "segments_info": segments})
    value = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}, {"id": 2, "name": "other"}]}
    assert recall(ovs, tmp_path, value, right) == (1, "")
    annotations[1]["segments_info"].append({"id": 5, "category_id": 2, "iscrowd": 0})
    (tmp_path / "gt.json").write_text(json.dumps(value))
    done = ovs("ovs-eval", "--gt", tmp_path / "gt.json", right)
    assert done.returncode == 65
    one_line(done, "1.jpg", "2 segments have id 5, of the categories 1 (thing), 2 (other)")


def test_numbers_that_a_table_made_floats_and_ids_that_are_texts(ovs: Run, tmp_path: Path, right: Path) -> None:
    value = instances()
    for k, (image, annotation) in enumerate(zip(value["images"], value["annotations"], strict=True)):
        image |= {"id": float(image["id"]), "width": 64.0}
        annotation |= {"image_id": float(annotation["image_id"]), "id": f"a-{k}", "category_id": 1.0, "iscrowd": 0.0}
    assert recall(ovs, tmp_path, value, right) == (1, "")
    value["annotations"].append({**value["annotations"][2], "id": "part", "parent_id": "a-2"})
    (tmp_path / "gt.json").write_text(json.dumps(value))
    done = ovs("ovs-hier", tmp_path / "gt.json", "--tree")
    assert done.returncode == 0, done.stderr
    value["annotations"][3]["id"] = "a-0"
    (tmp_path / "gt.json").write_text(json.dumps(value))
    done = ovs("ovs-eval", "--gt", tmp_path / "gt.json", right)
    assert done.returncode == 65
    one_line(done, "two annotations have id a-0")


@pytest.mark.parametrize("ids", [[0, 1, 2], [-1, -2, -3], [10**13, 10**14, 10**15], ["a", "b", "c"]])
def test_any_ids_through_the_whole_pipe(ovs: Run, tmp_path: Path, ids: list[Any]) -> None:
    for k in range(3):
        paint(k, (SIDE, SIDE)).save(tmp_path / f"{k}.jpg")
    value = instances()
    for image, number in zip(value["images"], ids, strict=True):
        image["id"] = number
    for annotation in value["annotations"]:
        annotation["image_id"] = ids[annotation["image_id"]]
    (tmp_path / "gt.json").write_text(json.dumps(value))
    features = ovs("ovs-extract", "--images", tmp_path / "gt.json", "--size", "64", "-o", tmp_path / "f.npz")
    assert (features.returncode, features.stderr) == (0, b"")
    assert sorted(np.load(tmp_path / "f.npz").files)[-1] == "ovs.json"
    found = ovs("ovs-cluster", tmp_path / "f.npz", "--no-local")
    assert found.returncode == 0, found.stderr
    listed = json.loads(found.stdout)["images"]
    assert {i["file_name"]: i["id"] for i in listed} == {f"{k}.jpg": k + 1 if isinstance(n, str) else n for k, n in enumerate(ids)}
    done = ovs("ovs-eval", "--gt", tmp_path / "gt.json", "--json", stdin=found.stdout)
    assert (done.returncode, done.stderr) == (0, b"")
