"""Which image is which, through the real commands: ids of one tool mean nothing to another, names do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovskit.core.masks import rle

from .conftest import Run, one_line, paint

SIDE = 64
SQUARES = [(4, 4, 40), (20, 10, 30), (30, 30, 30), (8, 0, 24), (0, 16, 48), (40, 40, 20)]


def square(number: int, k: int) -> dict[str, Any]:
    """The mask of frame ``k``, all of them different, in image ``number``."""
    top, left, size = SQUARES[k]
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    pixels[top : top + size, left : left + size] = 1
    segmentation = {"size": [SIDE, SIDE], "counts": rle.encode(pixels).counts.decode()}
    return {"image_id": number, "category_id": 1, "segmentation": segmentation, "score": 0.9}


def document(frames: dict[int, tuple[Any, str]], **keys: Any) -> bytes:
    """The frames (k: id and name) with the mask of each, as an annotation tool writes them."""
    images = [{"id": number, "file_name": name, "width": SIDE, "height": SIDE, **keys} for number, name in frames.values()]
    annotations = [{**square(number, k), "id": n} for n, (k, (number, _)) in enumerate(frames.items(), 1)]
    return json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}).encode()


def score(ovs: Run, tmp_path: Path, truth: bytes, predictions: bytes, *options: str) -> dict[str, Any]:
    (tmp_path / "gt.json").write_bytes(truth)
    done = ovs("ovs-eval", "--gt", tmp_path / "gt.json", "--json", *options, stdin=predictions)
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "said": done.stderr.decode()}


# Six frames of one camera, numbered from 1 as ovs-extract does.
OURS = document({k: (k + 1, f"frame-{k}.jpg") for k in range(6)})


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(lambda k: k, id="from 0"),
        pytest.param(lambda k: 6 - k, id="in another order"),
        pytest.param(lambda k: 2 - k, id="negative ones too"),
        pytest.param(lambda k: 10**13 + k, id="above 10^12"),
        pytest.param(lambda k: f"frame-{k}", id="texts"),
    ],
)
def test_names_decide_however_images_are_numbered(ovs: Run, tmp_path: Path, number: Any) -> None:
    truth = document({k: (number(k), f"frame-{k}.jpg") for k in range(6)})
    found = score(ovs, tmp_path, truth, OURS)
    assert found["metrics"]["AR@1"] == 1
    assert (found["matched_by_id"], found["said"]) == (0, "")


@pytest.mark.parametrize("first", [0, 1, 3])
def test_six_frames_against_a_truth_of_two_of_them(ovs: Run, tmp_path: Path, first: int) -> None:
    truth = document({k: (first + n, f"frame-{k}.jpg") for n, k in enumerate((2, 4))})
    found = score(ovs, tmp_path, truth, OURS)
    assert found["metrics"]["AR@1"] == 1
    assert found["unmatched"] == {"predictions": 4, "ground_truth": 0}
    assert "4 of the 6 images predicted are not in the ground truth (frame-0.jpg, frame-1.jpg, frame-3.jpg, frame-5.jpg)" in found["said"]


@pytest.mark.parametrize(
    "name",
    [
        "set\\frame {k}é.jpg",
        "set%2Fframe%20{k}%C3%A9.jpg",
        "set/frame {k}e\u0301.jpg",
        "./set//frame {k}é.jpg",
        "frame {k}é.jpg",
        "frame {k}é.PNG",
    ],
)
def test_a_name_in_all_the_ways_that_tools_write_it(ovs: Run, tmp_path: Path, name: str) -> None:
    ours = document({k: (k + 1, f"set/frame {k}é.jpg") for k in range(3)})
    truth = document({k: (k, name.replace("{k}", str(k))) for k in range(3)})
    for one, other in ((truth, ours), (ours, truth)):
        found = score(ovs, tmp_path, one, other)
        assert (found["metrics"]["AR@1"], found["said"]) == (1, "")


def test_sets_without_a_common_image_are_refused(ovs: Run, tmp_path: Path) -> None:
    (tmp_path / "gt.json").write_bytes(document({k: (k + 1, f"other-{k}.jpg") for k in range(6)}))
    done = ovs("ovs-eval", "--gt", tmp_path / "gt.json", stdin=OURS)
    assert (done.returncode, done.stdout) == (65, b"")
    one_line(done, "none of its 6 images is in", "frame-0.jpg", "other-0.jpg")


def test_what_fits_two_images_fits_none(ovs: Run, tmp_path: Path) -> None:
    truth = document({0: (0, "a/x.jpg"), 1: (1, "b/x.jpg"), 2: (2, "y.png"), 3: (3, "y.tif"), 4: (4, "img.v1.jpg"), 5: (5, "good.jpg")})
    ours = document({0: (1, "x.jpg"), 2: (2, "y.jpg"), 4: (3, "img.v2.jpg"), 5: (4, "good.jpg")})
    found = score(ovs, tmp_path, truth, ours)
    assert found["unmatched"] == {"predictions": 3, "ground_truth": 5}
    assert "x.jpg, which fits 2 images, y.jpg, which fits 2 images, img.v2.jpg)" in found["said"]
    done = ovs("ovs-eval", "--gt", tmp_path / "gt.json", stdin=document({0: (1, "x.jpg")}))
    assert done.returncode == 65
    one_line(done, "none of its 1 image can be identified in", "x.jpg fits 2 of its images")


def test_two_predictions_for_one_image_are_refused(ovs: Run, tmp_path: Path) -> None:
    (tmp_path / "gt.json").write_bytes(document({0: (7, "x.jpg")}))
    done = ovs("ovs-eval", "--gt", tmp_path / "gt.json", stdin=document({0: (1, "x.jpg"), 1: (2, "x.png")}))
    assert done.returncode == 65
    one_line(done, "x.jpg and x.png are both x.jpg")


@pytest.mark.parametrize("lines", [False, True])
def test_a_results_list_goes_by_ids_as_in_pycocotools(ovs: Run, tmp_path: Path, lines: bool) -> None:
    # Files that are called as other images' ids: names of a results list are not names.
    truth = document({k: (k, str(k + 1)) for k in range(3)})
    results = [square(k, k) for k in range(4)]  # one more than the truth has, and that is called "3"
    text = "\n".join(map(json.dumps, results)) if lines else json.dumps(results)
    found = score(ovs, tmp_path, truth, text.encode())
    assert (found["metrics"]["AR@1"], found["matched_by_id"]) == (1, 3)
    assert found["unmatched"] == {"predictions": 1, "ground_truth": 0}
    # What a later stage makes of it has no names either.
    done = ovs("ovs-hier", stdin=text.encode())
    assert done.returncode == 0, done.stderr
    assert score(ovs, tmp_path, truth, done.stdout)["metrics"]["AR@1"] == 1
    done = ovs("ovs-eval", "--gt", tmp_path / "gt.json", stdin=json.dumps([square(90 + k, k) for k in range(3)]).encode())
    assert done.returncode == 65
    one_line(done, "stdin knows images by their ids alone, such as 90", "such as 0")


def test_results_that_name_their_images_go_by_the_names(ovs: Run, tmp_path: Path) -> None:
    truth = document({k: (k, f"frame-{k}.jpg") for k in range(3)})
    for results in (
        [{**square(k + 1, k), "file_name": f"frame-{k}.jpg"} for k in range(3)],
        [{**square(0, k), "image_id": f"frame-{k}"} for k in range(3)],  # as Ultralytics writes them
    ):
        assert score(ovs, tmp_path, truth, json.dumps(results).encode())["metrics"]["AR@1"] == 1


def test_a_truth_without_names_goes_by_ids(ovs: Run, tmp_path: Path) -> None:
    truth = json.loads(document({k: (k + 1, "") for k in range(3)}))
    for image in truth["images"]:
        del image["file_name"]
    ours = document({k: (k + 1, f"frame-{k}.jpg") for k in range(3)})
    found = score(ovs, tmp_path, json.dumps(truth).encode(), ours)
    assert (found["metrics"]["AR@1"], found["matched_by_id"]) == (1, 3)


def test_the_truth_drawn_beside_a_photograph_is_its_own(ovs: Run, tmp_path: Path) -> None:
    for k in range(3):
        paint(k, (SIDE, SIDE)).save(tmp_path / f"frame-{k}.jpg")
    (tmp_path / "gt.json").write_bytes(document({k: (k, f"frame-{k}.jpg") for k in (1, 2)}))
    (tmp_path / "ours.json").write_bytes(document({k: (k + 1, f"frame-{k}.jpg") for k in range(3)}))
    page = tmp_path / "page.html"
    done = ovs("ovs-show", tmp_path / "ours.json", "--root", tmp_path, "--gt", tmp_path / "gt.json", "-o", page)
    assert done.returncode == 0, done.stderr
    one_line(done, "no ground truth for 1 of 3 images")
    text = page.read_text()
    (tmp_path / "swapped.json").write_bytes(document({k: (2 - k, f"frame-{k}.jpg") for k in (1, 2)}))
    other = ovs("ovs-show", tmp_path / "ours.json", "--root", tmp_path, "--gt", tmp_path / "swapped.json", "-o", page)
    assert other.returncode == 0, other.stderr
    assert page.read_text().replace("swapped.json", "gt.json") == text
