"""``ovs-eval`` as users run it: what it prints, what it refuses, and that nothing half-written stays."""

import json
import os
import pty
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from ovskit.core.masks import rle

from .conftest import Run, command, one_line

AR = ("AR@1", "AR@10", "AR@1000", "AR_S", "AR_M", "AR_L", "AP")
SIDE = 64


def annotation(number: int, image: int, top: int, left: int, size: int, **keys: Any) -> dict[str, Any]:
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    pixels[top : top + size, left : left + size] = 1
    counts = rle.encode(pixels).counts.decode()
    own = {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "segmentation": {"size": [SIDE, SIDE], "counts": counts}}
    return {**own, "area": int(pixels.sum()), **keys}


def document(annotations: list[dict[str, Any]], images: int = 4, **keys: Any) -> dict[str, Any]:
    listed = [{"id": k, "file_name": f"{k}.jpg", "width": SIDE, "height": SIDE} for k in range(1, images + 1)]
    return {"images": listed, "annotations": annotations, "categories": [{"id": 1, "name": "entity"}], **keys}


def truth_document(**keys: Any) -> dict[str, Any]:
    """Four images: two wholes with a part each, then two images with one square."""
    annotations = []
    for image in (1, 2):
        annotations.append(annotation(10 * image, image, 0, 0, 40, **keys))
        annotations.append(annotation(10 * image + 1, image, 4, 4, 20, parent_id=10 * image, **keys))
    return document([*annotations, annotation(30, 3, 10, 10, 50, **keys), annotation(40, 4, 30, 30, 30, **keys)])


def predicted_document() -> dict[str, Any]:
    """Image 1 right, image 2 a whole and a part that is off, image 3 off by some, image 4 nothing; and a stray mask."""
    return document(
        [
            annotation(1, 1, 0, 0, 40, score=0.9),
            annotation(2, 1, 4, 4, 20, score=0.8, parent_id=1),
            annotation(3, 2, 0, 0, 40, score=0.7),
            annotation(4, 2, 40, 40, 20, score=0.6, parent_id=3),
            annotation(5, 3, 12, 12, 48, score=0.5),
            annotation(6, 3, 0, 0, 8, score=0.4),
        ]
    )


@pytest.fixture
def gt(tmp_path: Path) -> Path:
    return written(tmp_path / "gt.json", truth_document())


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    return written(tmp_path / "masks.json", predicted_document())


def written(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_json_says_what_can_be_counted_by_hand(ovs: Run, gt: Path, predictions: Path) -> None:
    done = ovs("ovs-eval", "--gt", gt, "--json", predictions)
    assert (done.returncode, done.stderr) == (0, b"")
    found = json.loads(done.stdout)
    # Three of six masks are found at every threshold, image 3's square at IoU (48 / 50)² = 0.9216: at nine of ten.
    assert found["metrics"]["AR@1000"] == pytest.approx((3 + 0.9) / 6)
    assert found["metrics"]["AR@1"] == pytest.approx((2 + 0.9) / 6)
    assert tuple(found["metrics"]) == AR
    assert found["images"] == 4
    assert found["masks"] == {"ground_truth": 6, "predictions": 6}
    assert found["unmatched"] == {"predictions": 0, "ground_truth": 0}
    assert found["metrics"]["AR_L"] is None
    assert "intervals" not in found
    assert found["pg"][-1]["tool"] == "ovs-eval"
    assert "pg" not in json.loads(ovs("ovs-eval", "--gt", gt, "--json", "--no-pg", predictions).stdout)


def test_a_pipe_of_our_own_masks(shell: Run, masks: Path, tmp_path: Path) -> None:
    """The masks scored against themselves are perfect, from a pipe and in any order of images."""
    found = shell(f"cat {masks} | ovs-eval --gt {masks} --json", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["metrics"]["AR@1000"] == 1
    assert [entry["tool"] for entry in json.loads(found.stdout)["pg"]] == ["ovs-extract", "ovs-cluster", "ovs-eval"]


def test_the_order_of_images_and_workers_change_no_byte(ovs: Run, process: Run, gt: Path, tmp_path: Path) -> None:
    value = predicted_document()
    value["images"].reverse()
    value["annotations"].reverse()
    options = ("--gt", gt, "--bootstrap", "50", "--json", "--no-pg", "--per-image", tmp_path / "lines")
    outputs = []
    for data in (predicted_document(), value):
        for run, workers in ((ovs, "1"), (process, "3")):
            done = run("ovs-eval", *options, "-j", workers, stdin=json.dumps(data).encode())
            assert done.returncode == 0, done.stderr
            outputs.append((done.stdout, (tmp_path / "lines").read_bytes()))
    assert len(set(outputs)) == 1


def test_the_table(ovs: Run, gt: Path, predictions: Path, tmp_path: Path) -> None:
    done = ovs("ovs-eval", "--gt", gt, "--max", "1,5", predictions)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    assert "\x1b" not in text
    assert re.search(r"AR@1 .* 48\.33 ", text)
    assert re.search(r"AR@5 .* 65\.00 ", text)
    assert re.search(r"AR_L .* – ", text)
    assert "4 images with 6 masks in the ground truth" in text
    assert "AR@1000" not in text
    to_file = ovs("ovs-eval", "--gt", gt, "--max", "5,1", predictions, "-o", tmp_path / "table", env={"COLUMNS": "20", "FORCE_COLOR": "1"})
    assert to_file.returncode == 0
    assert (tmp_path / "table").read_bytes() == done.stdout


def test_a_terminal_changes_colours_only(gt: Path, predictions: Path, ovs: Run, environment: dict[str, str]) -> None:
    plain = ovs("ovs-eval", "--gt", gt, predictions).stdout.decode()
    host, terminal = pty.openpty()
    arguments = [command("ovs-eval"), "--gt", str(gt), str(predictions)]
    env = {**environment, "TERM": "xterm-256color", "COLUMNS": "200", "LINES": "50"}
    done = subprocess.run(arguments, stdout=terminal, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=env, timeout=300, check=False)
    os.close(terminal)
    shown = b""
    while True:
        try:
            shown += (chunk := os.read(host, 1 << 16))
        except OSError:  # what Linux says when the other side is closed
            break
        if not chunk:
            break
    os.close(host)
    assert done.returncode == 0, done.stderr
    assert b"\x1b[" in shown
    assert re.sub(r"\x1b\[[\d;]*m", "", shown.decode()).replace("\r\n", "\n") == plain


def test_two_files_and_their_difference(ovs: Run, gt: Path, predictions: Path, tmp_path: Path) -> None:
    value = predicted_document()
    value["annotations"] = value["annotations"][:2]
    fewer = written(tmp_path / "fewer.json", value)
    done = ovs("ovs-eval", "--gt", gt, "--bootstrap", "100", "--json", predictions, fewer)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [f["path"] for f in found["files"]] == [str(predictions), str(fewer)]
    (difference,) = found["differences"]
    assert difference["path"] == str(fewer)
    assert difference["minus"] == str(predictions)
    assert difference["metrics"]["AR@1000"] == pytest.approx(2 / 6 - 3.9 / 6)
    low, high = difference["intervals"]["AR@1000"]
    assert low < difference["metrics"]["AR@1000"] < high <= 0
    narrow = json.loads(ovs("ovs-eval", "--gt", gt, "--bootstrap", "100", "--confidence", "0.5", "--json", predictions).stdout)
    wide = found["files"][0]["intervals"]["AR@1000"]
    assert wide[0] < narrow["intervals"]["AR@1000"][0] <= narrow["intervals"]["AR@1000"][1] < wide[1]
    text = ovs("ovs-eval", "--gt", gt, "--bootstrap", "100", predictions, fewer).stdout.decode()
    assert re.search(r"AR@1000 .* 65\.00 \[.*33\.33 \[.* -31\.67 \[", text)
    assert "95 % interval of 100 resamples" in text


def test_average_precision_and_categories(ovs: Run, gt: Path, predictions: Path, tmp_path: Path) -> None:
    found = json.loads(ovs("ovs-eval", "--gt", gt, "--metric", "ap", "--json", predictions).stdout)
    assert tuple(found["metrics"]) == ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L")
    # At 0.5: hits at ranks 1, 2, 3, 5 of 6 masks: recall 1/6 … 3/6 at precision 1 (51 points), 4/6 at 4/5 (16 points).
    assert found["metrics"]["AP50"] == pytest.approx((51 + 16 * 0.8) / 101)
    other = predicted_document()
    for entry in other["annotations"]:
        entry["category_id"] = 7
    path = written(tmp_path / "other.json", other)
    alike = json.loads(ovs("ovs-eval", "--gt", gt, "--metric", "ap", "--json", path).stdout)
    assert alike["metrics"] == found["metrics"]
    done = ovs("ovs-eval", "--gt", gt, "--metric", "ap", "--by-category", "--json", path)
    assert json.loads(done.stdout)["metrics"]["AP"] == 0
    one_line(done, "--by-category")


def test_hierarchy(ovs: Run, gt: Path, predictions: Path, tmp_path: Path) -> None:
    done = ovs("ovs-eval", "--gt", gt, "--metric", "hierarchy", "--bootstrap", "20", "--json", predictions)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)["metrics"]
    assert (metrics["precision"], metrics["recall"], metrics["recall_all"]) == (1, 1, 0.5)
    assert (metrics["predicted_pairs"], metrics["all_true_pairs"], metrics["max_depth"]) == (1, 2, 2)
    assert isinstance(metrics["all_true_pairs"], int)
    assert metrics["trees"] == 1
    text = ovs("ovs-eval", "--gt", gt, "--metric", "hierarchy", predictions).stdout.decode()
    assert re.search(r"recall, masks not found count .* 50\.00 ", text)
    assert re.search(r"pairs in all .* 2 ", text)
    flat = truth_document()
    for entry in flat["annotations"]:
        entry.pop("parent_id", None)
    done = ovs("ovs-eval", "--gt", written(tmp_path / "flat.json", flat), "--metric", "hierarchy", predictions)
    assert done.returncode == 65
    one_line(done, "flat.json", "no parent_id")
    cyclic = predicted_document()
    cyclic["annotations"][0]["parent_id"] = 2
    done = ovs("ovs-eval", "--gt", gt, "--metric", "hierarchy", stdin=json.dumps(cyclic).encode())
    assert done.returncode == 65
    one_line(done, "stdin", "its own ancestor")


def test_annotators(ovs: Run, predictions: Path, tmp_path: Path) -> None:
    value = truth_document(annotator=0)
    value["annotations"] += [annotation(50 + k, k, 5, 5, 40, annotator=1) for k in (1, 2)]
    path = written(tmp_path / "several.json", value)
    done = ovs("ovs-eval", "--gt", path, "--per-annotator", "--json", predictions)
    assert (done.returncode, done.stderr) == (0, b"")
    # The second annotator's squares overlap the predicted wholes by 35² / (2 · 40² - 35²) = 0.62: found at 0.5, 0.55 and 0.6.
    assert json.loads(done.stdout)["metrics"]["AR@1000"] == pytest.approx((4 * 3.9 / 6 + 2 * 0.3) / 6)
    one_line(ovs("ovs-eval", "--gt", path, predictions), "2 annotators", "--per-annotator")
    done = ovs("ovs-eval", "--gt", written(tmp_path / "one.json", truth_document()), "--per-annotator", predictions)
    assert done.returncode == 65
    one_line(done, "annotator")


def test_every_image_by_itself(ovs: Run, gt: Path, predictions: Path, tmp_path: Path) -> None:
    out = tmp_path / "images.jsonl"
    assert ovs("ovs-eval", "--gt", gt, "--per-image", out, predictions).returncode == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["file_name"] for line in lines] == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert [line["metrics"]["AR@1000"] for line in lines] == [1, 0.5, 0.9, 0]
    assert [(line["id"], line["ground_truth"], line["predictions"]) for line in lines] == [(1, 2, 2), (2, 2, 2), (3, 1, 2), (4, 1, 0)]


def test_images_that_do_not_match(ovs: Run, gt: Path, tmp_path: Path) -> None:
    value = predicted_document()
    value["images"][2] |= {"file_name": "elsewhere/other.jpg", "id": 77}
    value["images"].pop()
    for entry in value["annotations"][4:]:
        entry["image_id"] = 77
    done = ovs("ovs-eval", "--gt", gt, "--json", stdin=json.dumps(value).encode())
    assert done.returncode == 0
    one_line(done, "stdin", "1 of the 3 images predicted", "elsewhere/other.jpg", "2 of the ground truth's 4 images", "without masks")
    found = json.loads(done.stdout)
    assert found["unmatched"] == {"predictions": 1, "ground_truth": 2}
    assert (found["images"], found["masks"]) == (4, {"ground_truth": 6, "predictions": 4})
    listed = ovs("ovs-eval", "--gt", gt, "--json", "--images", "listed", stdin=json.dumps(value).encode())
    assert json.loads(listed.stdout)["images"] == 2
    one_line(listed, "are left out")
    assert ovs("ovs-eval", "--gt", gt, "-q", stdin=json.dumps(value).encode()).stderr == b""
    results = json.dumps(predicted_document()["annotations"])
    done = ovs("ovs-eval", "--gt", gt, "--json", stdin=results.encode())
    assert json.loads(done.stdout)["matched_by_id"] == 3
    one_line(done, "1 of the ground truth's 4 images")
    for image in value["images"]:
        image["file_name"], image["id"] = f"x{image['file_name']}", image["id"] + 200
    for entry in value["annotations"]:
        entry["image_id"] += 200
    done = ovs("ovs-eval", "--gt", gt, stdin=json.dumps(value).encode())
    assert done.returncode == 65
    one_line(done, "none of its 3 images", "gt.json", "x1.jpg")


def test_panoptic_ground_truth(ovs: Run, tmp_path: Path) -> None:
    labels = np.zeros((SIDE, SIDE, 3), np.uint8)
    labels[:40, :40, 0] = 5
    (tmp_path / "png").mkdir()
    Pillow.fromarray(labels).save(tmp_path / "png" / "1.png")
    value = document([], images=1)
    value["annotations"] = [{"image_id": 1, "file_name": "1.png", "segments_info": [{"id": 5, "category_id": 1, "iscrowd": 0}]}]
    gt = written(tmp_path / "panoptic.json", value)
    masks = json.dumps(document([annotation(1, 1, 0, 0, 40, score=1.0)], images=1)).encode()
    done = ovs("ovs-eval", "--gt", gt, "--segments", tmp_path / "png", "--json", stdin=masks)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["AR@1"] == 1
    done = ovs("ovs-eval", "--gt", gt, stdin=masks)
    assert done.returncode == 66
    one_line(done, "--segments")


def test_a_folder_of_sa1b(ovs: Run, tmp_path: Path) -> None:
    folder = tmp_path / "sa1b"
    folder.mkdir()
    for k in (1, 2):
        entry = annotation(k, k, 0, 0, 40)
        image = {"image_id": k, "file_name": f"sa_{k}.jpg", "width": SIDE, "height": SIDE}
        written(folder / f"sa_{k}.json", {"image": image, "annotations": [entry]})
    value = document([annotation(1, 1, 0, 0, 40, score=1.0)], images=1)
    value["images"][0]["file_name"] = "sa_1.jpg"
    done = ovs("ovs-eval", "--gt", folder, "--json", stdin=json.dumps(value).encode())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["AR@1000"] == 0.5


def damaged(value: dict[str, Any], *path: str | int, to: Any = None, cut: int | None = None) -> str:
    """The document as text with the entry at ``path`` replaced (or gone, if ``to`` is None), cut short."""
    at: Any = value
    for key in path[:-1]:
        at = at[key]
    if path and to is None:
        del at[path[-1]]
    elif path:
        at[path[-1]] = to
    return json.dumps(value)[:cut]


NO_IMAGES = json.dumps({"images": [], "annotations": []})
STRANGER = {"id": 9, "file_name": "deep/1.jpg", "width": SIDE, "height": SIDE}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (NO_IMAGES, "no images"),
        (damaged(truth_document(), "images"), "images"),
        (damaged(truth_document(), "annotations", 1, "id", to=10), "two annotations have id 10"),
        (damaged(truth_document(), "annotations", 1, "parent_id", to=999), "parent_id 999"),
        (damaged(truth_document(), "annotations", 0, "segmentation", "size", to=[32, 128]), "128×32"),
        (damaged(truth_document(), cut=-200), "not valid JSON"),
    ],
)
def test_bad_ground_truth(ovs: Run, predictions: Path, tmp_path: Path, text: str, word: str) -> None:
    done = ovs("ovs-eval", "--gt", written(tmp_path / "bad.json", text), predictions)
    assert done.returncode == 65
    one_line(done, "bad.json", word)
    assert done.stdout == b""


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (damaged(document([]), "images", 0, "width", to=128), "1.jpg"),
        (damaged(predicted_document(), "images", 3, to=STRANGER), "deep/1.jpg"),
        (damaged(predicted_document(), "annotations", 1, "id", to=1), "two annotations have id 1"),
        (damaged(predicted_document(), "annotations", 2, "score"), "1 of 6 masks have no score"),
        (damaged(predicted_document(), "annotations", 1, "score", to=float("nan")), "not valid JSON"),
        (damaged(predicted_document(), "annotations", 1, "parent_id", to=999), "parent_id 999"),
        (NO_IMAGES, "lists no image"),
        ("", "stdin is empty"),
    ],
)
def test_bad_predictions(ovs: Run, gt: Path, tmp_path: Path, text: str, word: str) -> None:
    before = sorted(tmp_path.iterdir())
    outputs = ("-o", tmp_path / "out", "--per-image", tmp_path / "lines")
    done = ovs("ovs-eval", "--gt", gt, *outputs, stdin=text.encode())
    assert done.returncode == 65
    one_line(done, word)
    assert sorted(tmp_path.iterdir()) == before


def test_a_broken_stream(ovs: Run, masks: Path) -> None:
    data = masks.read_bytes()
    for cut in (len(data) // 2, len(data) - 4):
        done = ovs("ovs-eval", "--gt", masks, stdin=data[:cut])
        assert done.returncode == 65
        one_line(done, "stdin")
        assert done.stdout == b""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--gt", "-", "-"], 2, ["stdin", "once"]),
        (["--gt", "GT", "-", "-"], 2, ["stdin", "once"]),
        (["MASKS"], 2, ["--gt"]),
        (["--gt", "GT", "--max", "0", "MASKS"], 2, ["--max 0"]),
        (["--gt", "GT", "--max", "5,5", "MASKS"], 2, ["--max 5,5"]),
        (["--gt", "GT", "--max", "many", "MASKS"], 2, ["1,10,1000"]),
        (["--gt", "GT", "--metric", "iou", "MASKS"], 2, ["hierarchy"]),
        (["--gt", "GT", "--confidence", "95", "MASKS"], 2, ["--confidence", "0.95"]),
        (["--gt", "GT", "--bootstrap", "-1", "MASKS"], 2, ["--bootstrap"]),
        (["--gt", "GT", "--metric", "hierarchy", "--by-category", "MASKS"], 2, ["--by-category"]),
        (["--gt", "GT", "-o", "same", "--per-image", "same", "MASKS"], 2, ["same"]),
        (["--gt", "absent.json", "MASKS"], 66, ["absent.json"]),
        (["--gt", "GT", "absent.json"], 66, ["absent.json"]),
        (["--gt", "GT", "-o", "absent/out", "MASKS"], 74, ["absent"]),
        (["--gt", "GT", "--per-image", "absent/out", "MASKS"], 74, ["absent"]),
    ],
)
def test_options(ovs: Run, gt: Path, predictions: Path, tmp_path: Path, arguments: list[str], code: int, words: list[str]) -> None:
    names = {"GT": str(gt), "MASKS": str(predictions)}
    done = ovs("ovs-eval", *(names.get(a, a) for a in arguments), stdin=b"[]", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    one_line(done, *words)
    assert done.stdout == b""


def test_files_of_different_images_have_no_difference(ovs: Run, gt: Path, predictions: Path, tmp_path: Path) -> None:
    value = predicted_document()
    value["images"].pop()
    fewer = written(tmp_path / "fewer.json", value)
    done = ovs("ovs-eval", "--gt", gt, "--images", "listed", "-q", predictions, fewer)
    assert done.returncode == 65
    assert b"--images all" in done.stderr
    assert ovs("ovs-eval", "--gt", gt, predictions, fewer).returncode == 0
