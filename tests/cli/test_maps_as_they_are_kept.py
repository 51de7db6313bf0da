"""Label maps as data sets really keep them: masks of black and white, lists of images, numbers that begin at 1."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from ovskit.core.masks import rle

from .conftest import Run, one_line, paint

SIZE = (30, 40)


def save(path: Path, values: np.ndarray, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(values.astype(np.uint8)).convert(mode).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


def disc(k: int, soft: bool = False) -> np.ndarray:
    """A mask of black and white, its edge soft if wanted."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    far = np.hypot(y - 15, x - 12 - 4 * k) - 8
    return np.clip(127.5 - 80 * far, 0, 255).round() if soft else np.where(far < 0, 255, 0)


def score(ovs: Run, *arguments: Any) -> dict[str, Any]:
    done = ovs("ovs-eval", "--metric", "miou", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    return json.loads(done.stdout)


def refused(ovs: Run, code: int, words: list[str], *arguments: Any) -> None:
    done = ovs(*arguments)
    assert (done.returncode, done.stdout) == (code, b""), done.stderr
    one_line(done, *words)


@pytest.mark.parametrize(
    ("soft", "kind", "mode"), [(False, "png", "L"), (True, "png", "L"), (True, "jpg", "L"), (False, "png", "RGB"), (False, "png", "1")]
)
def test_masks_of_black_and_white(ovs: Run, tmp_path: Path, soft: bool, kind: str, mode: str) -> None:
    for k in range(3):
        save(tmp_path / "gt" / f"{k}.{kind}", disc(k, soft), mode)
        save(tmp_path / "right" / f"{k}.png", disc(k, soft))
        save(tmp_path / "none" / f"{k}.png", np.zeros(SIZE))
        save(tmp_path / "ids" / f"{k}.png", disc(k, soft) >= 128)
    truth = ("--layout", "binary", "--gt", tmp_path / "gt")
    # An edge that a JPEG moved by a pixel here and there is not the point.
    assert score(ovs, *truth, tmp_path / "right")["metrics"]["mIoU"] > (0.9 if kind == "jpg" else 0.9999)
    share = np.mean([(disc(k, soft) >= 128).mean() for k in range(3)])
    assert score(ovs, *truth, tmp_path / "none")["metrics"]["mIoU"] == pytest.approx((1 - share) / 2, rel=0.02)
    assert score(ovs, *truth, "--pred-layout", "plain", tmp_path / "ids")["metrics"]["mIoU"] > 0.9
    # Masks of entities, too: what no mask holds is the background.
    found = []
    for k in range(3):
        counts = rle.encode((disc(k, soft) >= 128).astype(np.uint8)).counts.decode()
        found.append({"image_id": f"{k}", "category_id": 1, "segmentation": {"size": list(SIZE), "counts": counts}, "score": 1.0})
    (tmp_path / "results.json").write_text(json.dumps(found))
    assert score(ovs, *truth, tmp_path / "results.json")["metrics"]["mIoU"] > 0.9
    # Without the layout nothing is scored; what to choose is said.
    if mode == "L" and kind == "png":
        refused(ovs, 65, ["gt: ", "255", "--layout binary"], "ovs-eval", "--metric", "miou", "--gt", tmp_path / "gt", tmp_path / "none")
    refused(
        ovs,
        65,
        ["every pixel is darker than 128", "0 and 1"],
        "ovs-eval",
        "--metric",
        "miou",
        "--layout",
        "binary",
        "--gt",
        tmp_path / "ids",
        tmp_path / "none",
    )


@pytest.mark.parametrize("names", [[], ["--names", "ground,thing"], ["--names", "names.txt"], ["--names", "space.json"]])
def test_a_truth_of_black_and_white_is_not_scored_by_custom(ovs: Run, tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "names.txt").write_text("ground\nthing\n")
    classes = [{"id": 0, "name": "ground"}, {"id": 1, "name": "thing"}]
    (tmp_path / "space.json").write_text(json.dumps({"format": "ovskit.labels/1", "classes": classes}))
    for k in range(2):
        save(tmp_path / "gt" / f"{k}.png", disc(k))
        save(tmp_path / "pred" / f"{k}.png", np.zeros(SIZE))
        paint(k, SIZE[::-1]).save(tmp_path / f"{k}.jpg")
    for tool in (("ovs-eval", "--metric", "miou", "--gt", "gt", "pred"), ("ovs-show", "gt", "--root", ".", "-o", "page.html")):
        done = ovs(*tool, *names, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (65, b""), done.stderr
        one_line(done, "gt: 255 is 1", "--layout binary", "--void 255")
    assert not (tmp_path / "page.html").exists()
    done = ovs("ovs-show", "gt", "--layout", "binary", "--root", ".", "-o", "page.html", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")


def test_void_that_is_meant(ovs: Run, tmp_path: Path) -> None:
    truth = np.zeros(SIZE)
    truth[:, 20:] = 1
    truth[:10] = 255
    save(tmp_path / "gt" / "a.png", truth)
    save(tmp_path / "pred" / "a.png", np.where(truth == 255, 1, truth))
    begin = ("ovs-eval", "--metric", "miou", "--gt", tmp_path / "gt", tmp_path / "pred")
    refused(ovs, 65, ["255 is 33.3% of all pixels", "--void 255", "--void none"], *begin)
    assert score(ovs, *begin[3:], "--void", "255")["metrics"]["mIoU"] == 1
    assert score(ovs, *begin[3:], "--void", "255", "--names", "a,b")["metrics"]["mIoU"] == 1
    assert score(ovs, *begin[3:], "--void", "none")["metrics"]["mIoU"] < 0.7
    refused(ovs, 2, ["--void", "--layout voc"], *begin, "--void", "255", "--layout", "voc")
    refused(ovs, 2, ["--void x"], *begin, "--void", "x")
    refused(ovs, 2, ["--void 1", "b"], *begin, "--void", "1", "--names", "a,b")
    # A thin border is what everybody takes for void.
    save(tmp_path / "gt" / "a.png", np.where(np.arange(40)[None] == 20, 255, truth % 255))
    assert score(ovs, *begin[3:])["metrics"]["mIoU"] > 0.4
    # Of one class every prediction is right.
    save(tmp_path / "gt" / "a.png", np.zeros(SIZE))
    refused(ovs, 65, ["of one class, 0"], *begin)


def test_predictions_of_black_and_white(ovs: Run, tmp_path: Path) -> None:
    for k in range(2):
        save(tmp_path / "gt" / f"{k}.png", disc(k) > 0)
        save(tmp_path / "pred" / f"{k}.png", disc(k))
    begin = ("--gt", tmp_path / "gt", tmp_path / "pred")
    refused(ovs, 65, ["pred: 255", "--pred-layout binary"], "ovs-eval", "--metric", "miou", *begin)
    assert score(ovs, *begin, "--pred-layout", "binary")["metrics"]["mIoU"] == 1


LAYOUTS = {
    "voc": ("SegmentationClass/{}.png", range(21)),
    "context-59": ("SegmentationClassContext/{}.png", range(60)),
    "context-60": ("SegmentationClassContext/{}.png", range(60)),
    "coco-object": ("annotations/val2017/{}_instanceTrainIds.png", range(81)),
    "coco-stuff": ("annotations/val2017/{}_labelTrainIds.png", range(171)),
    "ade": ("annotations/validation/{}.png", range(151)),
    "cityscapes": ("gtFine/val/x/{}_gtFine_labelTrainIds.png", range(19)),
    "imagenet-s": ("validation-segmentation/x/{}.png", range(51)),
    "camvid": ("testannot/{}.png", range(12)),
    "binary": ("{}.png", (0, 255)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_truth_against_itself_is_right(ovs: Run, tmp_path: Path, layout: str) -> None:
    pattern, ids = LAYOUTS[layout]
    for k in range(2):
        values = np.random.default_rng(k).choice(ids, SIZE)
        path = tmp_path / pattern.format(f"img_{k}")
        save(path, values)
        if layout == "imagenet-s":
            Picture.fromarray(np.stack([values, values * 0, values * 0], axis=-1).astype(np.uint8)).save(path)
    for predictions in (tmp_path, (tmp_path / pattern).parent):
        found = score(ovs, "--layout", layout, "--gt", tmp_path, predictions)
        assert found["metrics"]["mIoU"] == found["metrics"]["mIoU_strict"] == 1
        assert found["unmatched"] == {"predictions": 0, "ground_truth": 0}


def test_predictions_in_other_numbers(ovs: Run, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1, 151, SIZE)
    save(tmp_path / "gt" / "a.png", values)
    save(tmp_path / "shifted" / "a.png", values - 1)
    begin = ("--layout", "ade", "--gt", tmp_path / "gt")
    assert score(ovs, *begin, tmp_path / "shifted", "--pred-layout", "plain")["metrics"]["mIoU"] == 1
    assert score(ovs, *begin, tmp_path / "shifted")["metrics"]["mIoU"] < 0.1
    refused(ovs, 2, ["--pred-layout adee", "ade"], "ovs-eval", "--metric", "miou", *begin, tmp_path / "shifted", "--pred-layout", "adee")
    (tmp_path / "none.json").write_text("[]")
    refused(ovs, 2, ["--pred-layout"], "ovs-eval", "--metric", "miou", *begin, tmp_path / "none.json", "--pred-layout", "plain")


def test_a_list_of_images_whose_maps_are_missing(ovs: Run, tmp_path: Path) -> None:
    for k in range(4):
        save(tmp_path / "SegmentationClass" / f"img_{k}.png", np.random.default_rng(k).integers(0, 21, SIZE))
        (tmp_path / "JPEGImages").mkdir(exist_ok=True)
        paint(k, SIZE[::-1]).save(tmp_path / "JPEGImages" / f"img_{k}.jpg")
    listed = tmp_path / "ImageSets" / "Segmentation" / "val.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text("img_0\nimg_2\n")
    begin = ("--layout", "voc", "--gt", tmp_path, tmp_path / "SegmentationClass")
    done = ovs("ovs-eval", "--metric", "miou", "--json", *begin)
    assert done.returncode == 0
    assert json.loads(done.stdout)["images"] == 2
    listed.write_text("img_0\nimg_2\nimg_8\nimg_9\n")
    refused(
        ovs,
        66,
        ["val.txt lists 4 images, of which 2 images have no label map: img_8, img_9", "--images listed"],
        "ovs-eval",
        "--metric",
        "miou",
        *begin,
    )
    done = ovs("ovs-eval", "--metric", "miou", "--json", *begin, "--images", "listed")
    assert done.returncode == 0
    assert json.loads(done.stdout)["images"] == 2
    assert b"img_8, img_9" in done.stderr
    done = ovs("ovs-show", tmp_path, "--layout", "voc", "--root", tmp_path, "-o", tmp_path / "page.html")
    assert done.returncode == 0
    assert b"img_8, img_9" in done.stderr
