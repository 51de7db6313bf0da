"""EXIF orientation through the real commands: masks drawn on stored pixels are scored as such, or it is said that they may not be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags
from PIL import Image as Pillow

from ovskit.core.formats.photographs.decoding import decode_photograph, image_size
from ovskit.core.masks import rle

from .conftest import Run, one_line

# A red thing on a plain ground, low on the left: turned by 180 degrees, it is elsewhere, and the picture has the same size.
STORED = np.zeros((64, 96), bool)
STORED[36:60, 8:40] = True


def photograph(path: Path, orientation: int, stored: np.ndarray = STORED) -> None:
    pixels = np.where(stored[..., None], np.uint8([220, 30, 30]), np.uint8([40, 90, 60])).astype(np.uint8)
    exif = Pillow.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Pillow.fromarray(pixels).save(path, exif=exif, **({"quality": 95} if path.suffix == ".jpg" else {}))


def truth(name: str, stored: np.ndarray = STORED) -> dict[str, Any]:
    """What an annotation tool writes that looks at the pixels as they are stored."""
    height, width = stored.shape
    segmentation = {"size": [height, width], "counts": rle.encode(stored.astype(np.uint8)).counts.decode()}
    annotation = {"id": 1, "image_id": 0, "category_id": 1, "segmentation": segmentation, "iscrowd": 0}
    image = {"id": 0, "file_name": name, "width": width, "height": height}
    return {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "thing"}]}


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_ignored_orientations_leave_the_stored_pixels(tmp_path: Path, kind: str, orientation: int) -> None:
    path = tmp_path / f"a.{kind}"
    photograph(path, orientation)
    data = path.read_bytes()
    stored = decode_photograph(data, "a", exif=False)
    red = stored.pixels[..., 0] > 130
    assert (red == STORED).mean() > 0.98
    assert stored.orientation == orientation
    assert image_size(data, "a", exif=False) == (96, 64)
    upright = decode_photograph(data, "a")
    flat, both = STORED[::-1], STORED[::-1, ::-1]
    turned = [STORED, STORED[:, ::-1], both, flat, STORED.T, flat.T, both.T, STORED[:, ::-1].T][orientation - 1]
    assert ((upright.pixels[..., 0] > 130) == turned).mean() > 0.98
    assert image_size(data, "a") == upright.pixels.shape[1::-1]


@pytest.fixture
def upside_down(tmp_path: Path) -> Path:
    """A folder with one picture of orientation 3, and the truth drawn on its stored pixels."""
    photograph(tmp_path / "a.jpg", 3)
    (tmp_path / "gt.json").write_text(json.dumps(truth("a.jpg")))
    return tmp_path


def recall(ovs: Run, folder: Path, masks: bytes) -> tuple[float, str]:
    done = ovs("ovs-eval", "--gt", folder / "gt.json", "--json", stdin=masks)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["metrics"]["AR@1000"], done.stderr.decode()


def masks_of(ovs: Run, *options: object, later: tuple[object, ...] = ()) -> bytes:
    features = ovs("ovs-extract", *options, "--size", "128")
    assert features.returncode == 0, features.stderr
    found = ovs("ovs-cluster", "--local", "--local-size", "64", *later, stdin=features.stdout)
    assert found.returncode == 0, found.stderr
    assert found.stderr == b""
    return found.stdout


def test_masks_drawn_on_stored_pixels(ovs: Run, upside_down: Path) -> None:
    applied = masks_of(ovs, upside_down / "a.jpg")
    value = json.loads(applied)
    assert all(entry["exif_orientation"] == 3 for entry in value["annotations"] + value["images"])
    score, said = recall(ovs, upside_down, applied)
    assert score < 0.2
    assert "1 image turned upright by EXIF orientation, such as a.jpg" in said
    assert "--exif ignore" in said
    ignored = masks_of(ovs, upside_down / "a.jpg", "--exif", "ignore")
    assert b"exif_orientation" not in ignored
    score, said = recall(ovs, upside_down, ignored)
    assert (score > 0.5, said) == (True, "")
    # The pipe agrees with itself: later stages open the photograph as the first one did, and refuse to do otherwise.
    refined = ovs("ovs-refine", stdin=ignored)
    assert refined.returncode == 0, refined.stderr
    assert b"EXIF" not in refined.stderr
    assert recall(ovs, upside_down, refined.stdout)[0] > 0.5
    for tool in ("ovs-refine", "ovs-show"):
        done = ovs(tool, "--exif", "apply", stdin=ignored)
        assert done.returncode == 2
        one_line(done, "was made with --exif ignore")
    done = ovs("ovs-cluster", "--exif", "apply", stdin=ovs("ovs-extract", upside_down / "a.jpg", "--exif", "ignore", "--size", "64").stdout)
    assert done.returncode == 2
    one_line(done, "was made with --exif ignore")
    # Two streams of ours that took the picture differently are not compared.
    (upside_down / "gt.json").write_bytes(ignored)
    done = ovs("ovs-eval", "--gt", upside_down / "gt.json", stdin=applied)
    assert done.returncode == 65
    one_line(done, "EXIF orientation 3", "not of the same pixels")


def test_a_square_that_lies_on_its_side(ovs: Run, tmp_path: Path) -> None:
    stored = np.pad(STORED, ((0, 32), (0, 0)))
    photograph(tmp_path / "a.jpg", 6, stored)
    (tmp_path / "gt.json").write_text(json.dumps(truth("a.jpg", stored)))
    score, said = recall(ovs, tmp_path, masks_of(ovs, tmp_path / "a.jpg"))
    assert score < 0.2
    assert "turned upright" in said
    assert recall(ovs, tmp_path, masks_of(ovs, tmp_path / "a.jpg", "--exif", "ignore"))[0] > 0.5


def test_images_of_a_coco_file_are_compared_with_what_it_says(ovs: Run, tmp_path: Path, upside_down: Path) -> None:
    done = ovs("ovs-extract", "--images", upside_down / "gt.json", "--size", "64")
    assert done.returncode == 0
    one_line(done, "a.jpg has EXIF orientation 3", "--exif ignore")
    for said in ("apply", "ignore"):
        done = ovs("ovs-extract", "--images", upside_down / "gt.json", "--size", "64", "--exif", said)
        assert (done.returncode, done.stderr) == (0, b"")
    photograph(tmp_path / "a.jpg", 6)
    done = ovs("ovs-extract", "--images", upside_down / "gt.json", "--size", "64")
    assert done.returncode == 65
    one_line(done, "a.jpg is 64×96, but the COCO file lists it as 96×64, as it is stored: its EXIF orientation is 6; add --exif ignore")
    assert ovs("ovs-extract", "--images", upside_down / "gt.json", "--size", "64", "--exif", "ignore").returncode == 0
    done = ovs("ovs-extract", "--images", upside_down / "gt.json", "--size", "64", "--on-error", "skip")
    assert done.returncode == 3
    photograph(tmp_path / "a.jpg", 1, STORED[:, :90])
    done = ovs("ovs-extract", "--images", upside_down / "gt.json", "--size", "64")
    assert done.returncode == 65
    one_line(done, "a.jpg is 90×64, but the COCO file lists it as 96×64; is it this picture?")


@pytest.mark.parametrize("tool", ["ovs-refine", "ovs-label", "ovs-show"])
def test_masks_of_other_tools_meet_a_turned_picture(ovs: Run, upside_down: Path, tool: str) -> None:
    extra = ["--clusters", "1"] if tool == "ovs-label" else []
    out = upside_down / "page.html"
    (upside_down / "imgs").mkdir()
    (upside_down / "a.jpg").rename(upside_down / "imgs" / "a.jpg")
    done = ovs(tool, upside_down / "gt.json", "--root", upside_down / "imgs", *extra, "-o", out)
    assert done.returncode == 0, done.stderr
    one_line(done, "a.jpg has EXIF orientation 3 and was turned upright", "--exif ignore")
    for said in ("apply", "ignore"):
        done = ovs(tool, upside_down / "gt.json", "--root", upside_down / "imgs", "--exif", said, *extra, "-o", out)
        assert (done.returncode, done.stderr) == (0, b"")


def test_the_truth_beside_a_turned_picture(ovs: Run, upside_down: Path) -> None:
    masks = upside_down / "masks.json"
    masks.write_bytes(masks_of(ovs, upside_down / "a.jpg"))
    done = ovs("ovs-show", masks, "--gt", upside_down / "gt.json", "-o", upside_down / "page.html")
    assert done.returncode == 0
    one_line(done, "a.jpg has EXIF orientation 3", "--exif ignore")


@pytest.mark.parametrize("tool", ["ovs-refine", "ovs-label", "ovs-show"])
def test_a_photograph_under_another_name(ovs: Run, tmp_path: Path, tool: str) -> None:
    more = ["--clusters", "1"] if tool == "ovs-label" else []
    (tmp_path / "imgs" / "deep").mkdir(parents=True)
    photograph(tmp_path / "imgs" / "deep" / "a b.png", 1)
    for name in ("deep\\a b.png", "train/deep/a%20b.png", "a b.jpg"):
        (tmp_path / "gt.json").write_text(json.dumps(truth(name)))
        done = ovs(tool, tmp_path / "gt.json", "--root", tmp_path / "imgs", *more, "-o", tmp_path / "out.html")
        assert (done.returncode, done.stderr) == (0, b"")
    (tmp_path / "gt.json").write_text(json.dumps(truth("c.png")))
    done = ovs(tool, tmp_path / "gt.json", "--root", tmp_path / "imgs", *more)
    assert done.returncode == 66
    one_line(done, "c.png")
