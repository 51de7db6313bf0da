"""``ovs-eval --metric miou`` and classes that do not fit: label spaces, categories, ids; and what must not be written over."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from ovskit.core.formats.labels.spaces import open_label_space
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
from ovskit.core.masks.rle import encode
from ovskit.core.records import Image, Mask, MaskSet

from .conftest import Run, one_line

TRUTH = np.array([[0, 0, 1, 1], [0, 0, 2, 2]], np.uint8)
PREDICTED = np.array([[0, 0, 1, 1], [0, 1, 1, 2]], np.uint8)
MIOU = (3 / 4 + 2 / 4 + 1 / 2) / 3
NAMES = {0: "ground", 1: "caf\u00e9", 2: "sky"}


def coco(ids: np.ndarray) -> dict[str, Any]:
    annotations = []
    for number in np.unique(ids).tolist():
        rle = encode(ids == number)
        segmentation = {"size": [rle.height, rle.width], "counts": rle.counts.decode()}
        annotations.append({"id": number + 1, "image_id": 1, "category_id": number, "segmentation": segmentation, "iscrowd": 0})
    images = [{"id": 1, "file_name": "a.jpg", "width": 4, "height": 2}]
    return {"images": images, "annotations": annotations, "categories": [{"id": k, "name": name} for k, name in NAMES.items()]}


def space(classes: dict[int, str], **more: Any) -> dict[str, Any]:
    return {"format": "ovskit.labels/1", "classes": [{"id": k, "name": name} for k, name in classes.items()], **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, ids in (("gt", TRUTH), ("maps", PREDICTED)):
        (tmp_path / name).mkdir()
        Picture.fromarray(ids).save(tmp_path / name / "a.png")
    (tmp_path / "gt.json").write_text(json.dumps(coco(TRUTH)))
    (tmp_path / "masks.json").write_text(json.dumps(coco(PREDICTED)))
    (tmp_path / "space.json").write_text(json.dumps(space(NAMES)))
    return tmp_path


def named(folder: Path, classes: dict[int, str], **more: Any) -> str:
    """The predictions as ovs-label --names writes them."""
    (folder / "theirs.json").write_text(json.dumps(space(classes, **more)))
    theirs = open_label_space(str(folder / "theirs.json"))
    labels = {"name": theirs.name, "version": theirs.version, "hash": theirs.hash}
    with (folder / "named.json").open("wb") as file:
        writer = MasksWriter(file, MasksHeader(categories=[{"id": k, "name": v} for k, v in classes.items()], root="x", labels=labels))
        found = [(k, k == PREDICTED) for k in range(3)]
        masks = [Mask(k + 1, 1, encode(where), int(where.sum()), (0, 0, 0, 0), k) for k, where in found]
        writer.write(MaskSet(Image(1, "a.jpg", 4, 2), tuple(masks)))
        writer.finish()
    return "named.json"


def test_masks_named_by_another_label_space(folder: Path, ovs: Run) -> None:
    for gt in (("--gt", "gt", "--names", "space.json"), ("--gt", "gt.json"), ("--gt", "gt.json", "--names", "space.json")):
        begin = ("ovs-eval", "--metric", "miou", *gt)
        done = ovs(*begin, "--json", named(folder, NAMES, templates=["{}, seen"], version=3), cwd=folder)
        assert (done.returncode, done.stderr) == (0, b"")
        assert json.loads(done.stdout)["metrics"]["mIoU"] == pytest.approx(MIOU)
        for classes, words in (
            ({0: "ground", 1: "caf\u00e9"}, "no class 2"),
            ({**NAMES, 7: "sea"}, "a class 7"),
            ({**NAMES, 1: "tea"}, "category 1 is 'tea'"),
        ):
            done = ovs(*begin, named(folder, classes), cwd=folder)
            assert done.returncode == 65
            one_line(done, "named.json", words, "two label spaces are mixed", "ovs-label --names")
        assert ovs(*begin, "--match", "hungarian", named(folder, {**NAMES, 7: "sea"}), cwd=folder).returncode == 0


def test_a_results_list_names_no_categories(folder: Path, ovs: Run) -> None:
    (folder / "results.json").write_text(json.dumps([{**one, "score": 0.5, "id": None} for one in coco(PREDICTED)["annotations"]]))
    done = ovs("ovs-eval", "--metric", "miou", "--gt", "gt.json", "--json", "results.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["mIoU"] == pytest.approx(MIOU)


def test_a_ground_truth_without_categories_has_the_ids_of_the_label_space(folder: Path, ovs: Run) -> None:
    document = coco(TRUTH)
    del document["categories"]
    (folder / "gt.json").write_text(json.dumps(document))
    (folder / "space.json").write_text(json.dumps(space(NAMES, background=0)))
    done = ovs("ovs-eval", "--metric", "miou", "--gt", "gt.json", "--names", "space.json", "--json", "maps", cwd=folder)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["metrics"]["mIoU"] == pytest.approx(MIOU)


def test_words_are_the_same_in_any_form_of_unicode(folder: Path, ovs: Run) -> None:
    for name in ("gt.json", "masks.json"):
        document = json.loads((folder / name).read_text())
        document["categories"][1]["name"] = "Cafe\u0301"
        (folder / name).write_text(json.dumps(document))
    done = ovs("ovs-eval", "--metric", "miou", "--gt", "gt.json", "--names", "space.json", "masks.json", cwd=folder)
    assert (done.returncode, done.stderr) == (0, b"")


def test_categories_that_cannot_be_used(folder: Path, ovs: Run) -> None:
    def changed(ids: np.ndarray, change: Any) -> str:
        document = copy.deepcopy(coco(ids))
        change(document)
        return json.dumps(document)

    for change, words in (
        (lambda d: d["categories"].append({"id": 1, "name": "tea"}), "two of its categories have id 1"),
        (lambda d: d["categories"].append({"name": "tea"}), "category 4"),
        (lambda d: d["categories"].append({"id": "3", "name": "tea"}), "category 4"),
        (lambda d: d["categories"].append({"id": 70000, "name": "tea"}), "from 0 to 65535"),
        (lambda d: d["categories"].pop(), "a.jpg has a mask of category 2"),
    ):
        (folder / "wrong.json").write_text(changed(TRUTH, change))
        done = ovs("ovs-eval", "--metric", "miou", "--gt", "wrong.json", "maps", cwd=folder)
        assert done.returncode == 65, done.stderr
        one_line(done, "wrong.json", words)
    for number in (-1, -5, 65536, 1 << 40):
        (folder / "wrong.json").write_text(changed(PREDICTED, lambda d, n=number: d["annotations"][0].update(category_id=n)))
        for match in ("ids", "hungarian"):
            done = ovs("ovs-eval", "--metric", "miou", "--match", match, "--gt", "gt", "wrong.json", cwd=folder)
            assert done.returncode == 65, done.stderr
            one_line(done, "a.jpg", f"category {number}")


def test_names_that_a_terminal_would_act_on(folder: Path, ovs: Run) -> None:
    document = coco(TRUTH)
    document["categories"][2]["name"] = "\x1b[31mred\u202e\nline"
    (folder / "gt.json").write_text(json.dumps(document))
    done = ovs("ovs-eval", "--metric", "miou", "--match", "hungarian", "--gt", "gt.json", "masks.json", cwd=folder)
    assert done.returncode == 0
    assert r"\x1b[31mred\u202e\nline" in done.stdout.decode()
    (folder / "space.json").write_text(json.dumps(space(NAMES, background=0)))
    done = ovs("ovs-eval", "--metric", "miou", "--gt", "gt.json", "--names", "space.json", "maps", cwd=folder)
    assert done.returncode == 0
    one_line(done, r"\x1b[31mred\u202e\nline", "count as background")


def test_ids_that_the_label_space_ignores_are_void_in_a_layout_too(folder: Path, ovs: Run) -> None:
    (folder / "space.json").write_text(json.dumps(space({0: "ground", 1: "caf\u00e9"}, ignore=[2])))
    (folder / "ade").mkdir()
    Picture.fromarray(TRUTH + 1).save(folder / "ade" / "a.png")
    done = ovs(
        "ovs-eval",
        "--metric",
        "miou",
        "--layout",
        "ade",
        "--pred-layout",
        "plain",
        "--names",
        "space.json",
        "--gt",
        "ade",
        "--json",
        "maps",
        cwd=folder,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["metrics"]["mIoU"] == pytest.approx((3 / 4 + 2 / 3) / 2)


def test_predictions_without_a_label(folder: Path, ovs: Run) -> None:
    (folder / "none").mkdir()
    Picture.fromarray(np.full_like(TRUTH, 255)).save(folder / "none" / "a.png")
    done = ovs("ovs-eval", "--metric", "miou", "--gt", "gt", "none", cwd=folder)
    assert done.returncode == 0
    one_line(done, "none: no pixel that counts has a label")


def test_what_is_read_is_not_written_over(folder: Path, ovs: Run) -> None:
    begin = ("ovs-eval", "--metric", "miou", "--gt", "gt.json", "masks.json")
    for arguments, words in (
        (("-o", "./gt.json"), "-o ./gt.json"),
        (("-o", folder / "masks.json"), "masks.json"),
        (("--per-image", "masks.json"), "--per-image masks.json"),
        (("-o", "a", "--per-image", "./a"), "different files"),
        (("--bg", "joint"), "--match hungarian"),
    ):
        done = ovs(*begin, *arguments, cwd=folder)
        assert done.returncode == 2, done.stderr
        one_line(done, words)
    assert json.loads((folder / "gt.json").read_text()) == coco(TRUTH)


def test_seeds_with_intervals(folder: Path, ovs: Run) -> None:
    done = ovs("ovs-eval", "--metric", "miou", "--seeds", "--bootstrap", 5, "--gt", "gt", "maps", "maps", cwd=folder)
    assert done.returncode == 0
    row = next(line for line in done.stdout.decode().splitlines() if "mIoU, the" in line)
    assert row.count("[") == 2
