"""``ovs-show`` as users run it: files side by side, ground truth, contact sheets, views, and what it refuses."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from pycocotools import mask as coco_mask

from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter, open_masks
from ovskit.core.records import Image, Mask, MaskSet, Rle
from ovskit.core.show.overlay import overlay
from ovskit.core.show.views import view_of

from .conftest import Run, one_line

WIDTH, HEIGHT = 120, 96  # of the scenes of conftest


def boxes(name: str, number: int, *corners: tuple[int, int, int, int], parents: list[int | None] | None = None) -> MaskSet:
    """Masks of rectangles (left, top, right, bottom), with ids from 1."""
    found = []
    for k, (left, top, right, bottom) in enumerate(corners):
        dense = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
        dense[top:bottom, left:right] = 1
        rle = Rle(HEIGHT, WIDTH, coco_mask.encode(dense)["counts"])
        box = (float(left), float(top), float(right - left), float(bottom - top))
        parent = parents[k] if parents else None
        found.append(Mask(k + 1, number, rle, int(dense.sum()), box, parent_id=parent))
    return MaskSet(Image(number, name, WIDTH, HEIGHT), tuple(found))


def write(path: Path, *sets: MaskSet, root: Path | None = None) -> Path:
    with open(path, "wb") as out:
        writer = MasksWriter(out, MasksHeader(root=None if root is None else str(root)))
        for masks in sets:
            writer.write(masks)
        writer.finish()
    return path


@pytest.fixture
def one(tmp_path: Path, images: Path) -> Path:
    """Masks of the first three scenes, last first; each a whole with two parts."""
    corners = [(0, 0, 100, 90), (10, 10, 40, 80), (50, 10, 90, 80)]
    return write(tmp_path / "a.json", *(boxes(f"scene-{k}.png", k + 1, *corners, parents=[None, 1, 1]) for k in (2, 1, 0)), root=images)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Masks of scenes 1, 2 and 3, in another order and without a root."""
    return write(tmp_path / "b.json", *(boxes(f"scene-{k}.png", k, (0, 0, 60, 96)) for k in (1, 2, 3)))


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Ground truth of scenes 0 and 1: one mask as in ``one``, one that nothing is like, and a scene of which there is nothing."""
    sets = [boxes(f"train/scene-{k}.png", 70 + k, (10, 10, 40, 78), (0, 0, 5, 5)) for k in (0, 1)]
    return write(tmp_path / "gt.json", *sets, boxes("other.png", 90, (0, 0, 9, 9)))


def sections(page: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The name of each image, and what the script is given of it."""
    text = page.decode()
    parts = re.findall(r'<span class="name">(.*?)</span>.*?<script type="application/json">(.*?)</script>', text, re.DOTALL)
    return [(html.unescape(name), json.loads(data)) for name, data in parts]


def masks_shown(page: bytes) -> dict[str, list[int | None]]:
    return {name: [None if panel is None else len(panel["masks"]) for panel in data["panels"]] for name, data in sections(page)}


def test_two_files_side_by_side_in_any_order(ovs: Run, one: Path, two: Path) -> None:
    done = ovs("ovs-show", one, two)
    assert (done.returncode, done.stderr) == (0, b"")
    found = masks_shown(done.stdout)
    assert list(found.items()) == [
        ("scene-2.png", [3, 1]),
        ("scene-1.png", [3, 1]),
        ("scene-0.png", [3, None]),
        ("scene-3.png", [None, 1]),
    ]
    assert b"<title>Masks of a.json and b.json</title>" in done.stdout
    assert done.stdout.count(b"No such image in b.json") == 1
    turned = ovs("ovs-show", two, one)
    assert list(masks_shown(turned.stdout)) == ["scene-1.png", "scene-2.png", "scene-3.png", "scene-0.png"]
    assert ovs("ovs-show", one, two, "-j", "1").stdout == ovs("ovs-show", one, two, "-j", "5").stdout == done.stdout


def test_a_pipe_leads_wherever_it_stands(ovs: Run, shell: Run, one: Path, two: Path) -> None:
    done = ovs("ovs-show", two, "-", stdin=one.read_bytes())
    assert (done.returncode, done.stderr) == (0, b"")
    assert list(masks_shown(done.stdout).items())[:2] == [("scene-2.png", [1, 3]), ("scene-1.png", [1, 3])]
    assert b"Masks of b.json and stdin" in done.stdout
    twice = shell(f"ovs-show {one} <(cat {two})")  # a pipe that does not lead is held
    assert (twice.returncode, twice.stderr) == (0, b"")
    assert masks_shown(twice.stdout) == masks_shown(ovs("ovs-show", one, two).stdout)


def test_files_of_one_name_are_told_apart_by_their_folders(ovs: Run, tmp_path: Path, one: Path) -> None:
    (tmp_path / "x").mkdir()
    other = tmp_path / "x" / "a.json"
    other.write_bytes(one.read_bytes())
    done = ovs("ovs-show", one, other)
    assert f"Masks of {one} and {other}".encode() in done.stdout


def test_ground_truth_is_matched_with_all_masks(ovs: Run, one: Path, two: Path, truth: Path, tmp_path: Path) -> None:
    done = ovs("ovs-show", one, two, "--gt", truth, "-o", tmp_path / "page.html")
    assert done.returncode == 0
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 2
    assert f"{truth} has no ground truth for 2 of 4 images" in lines[0]
    assert f"1 images of {truth} have no masks" in lines[1]
    page = (tmp_path / "page.html").read_bytes()
    found = dict(sections(page))
    assert [len(found[f"scene-{k}.png"]["truths"]) for k in range(4)] == [1, 1, 0, 0]
    # 68 of 70 rows of the second mask; the first file's order by area is whole, right, left.
    assert found["scene-1.png"]["truths"][0]["found"] == [[[0, 2, round(68 / 70, 4), 1], [1, 0, round(25 / 9000, 4), 0]], found_in_half()]
    summary = json.loads(re.findall(r'<script type="application/json" id="page">(.*?)</script>', page.decode())[0])
    assert (summary["truth"]["found"], summary["truth"]["total"]) == ([2, 0], 4)
    assert page.count(b'<span class="said">1 of 2 found at IoU 0.5<') == 2
    strict = ovs("ovs-show", one, "--gt", truth, "--match-iou", "0.99", "--limit", "3")
    assert b"0 of 2 found at IoU 0.99" in strict.stdout


def found_in_half() -> list[list[float]]:
    half = 60 * 96
    return [[0, 0, round(30 * 68 / half, 4), 0], [1, 0, round(25 / half, 4), 0]]


def test_a_panoptic_ground_truth_with_its_pictures(ovs: Run, one: Path, tmp_path: Path) -> None:
    labels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    labels[:, :60, 0], labels[:, 60:, 0] = 3, 4
    (tmp_path / "png").mkdir()
    Pillow.fromarray(labels).save(tmp_path / "png" / "scene-0.png")
    document = {
        "images": [{"id": 1, "file_name": "scene-0.png", "width": WIDTH, "height": HEIGHT}],
        "annotations": [
            {"image_id": 1, "file_name": "scene-0.png", "segments_info": [{"id": 3, "category_id": 1}, {"id": 4, "category_id": 2}]}
        ],
        "categories": [{"id": 1, "name": "left"}, {"id": 2, "name": "right"}],
    }
    path = tmp_path / "panoptic.json"
    path.write_text(json.dumps(document))
    done = ovs("ovs-show", one, "--gt", path, "--segments", tmp_path / "png")
    assert done.returncode == 0, done.stderr
    [shown] = dict(sections(done.stdout))["scene-0.png"]["truths"]
    assert [mask["category"] for mask in shown["masks"]] == ["left", "right"]
    done = ovs("ovs-show", one, "--gt", path)
    assert done.returncode == 66
    one_line(done, "--segments")


def picture(data: bytes) -> np.ndarray:
    return np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB"))


def test_a_sheet_has_a_row_for_each_image_and_a_column_for_each_file(ovs: Run, one: Path, two: Path, truth: Path, tmp_path: Path) -> None:
    done = ovs("ovs-show", one, two, "--gt", truth, "--sheet", tmp_path / "s.png", "--max-side", "64")
    assert done.returncode == 0
    sheet = picture((tmp_path / "s.png").read_bytes())
    row = 18 + round(64 * HEIGHT / WIDTH) + 16
    assert sheet.shape == (16 + 18 + 8 + 4 * row + 8, 2 * 16 + 4 * 64 + 3 * 8, 3)
    few = ovs("ovs-show", one, "--sheet", "-", "--limit", "2", "--view", "depth:0,depth:1,level:2")
    assert (few.returncode, few.stderr) == (0, b"")
    assert picture(few.stdout).shape[1] == 2 * 16 + 4 * 320 + 3 * 8


def test_a_sheet_says_what_did_not_fit(ovs: Run, one: Path) -> None:
    done = ovs("ovs-show", one, "--sheet", "-", "--max-side", "6000", "--limit", "3")
    assert done.returncode == 2  # 2 pictures of 6000 pixels, as high as they are wide
    one_line(done, "smaller or fewer")
    done = ovs("ovs-show", one, "--sheet", "-", "--max-side", "3000")
    assert done.returncode == 0
    one_line(done, "2 images are on the sheet; those from scene-0.png on did not fit")


@pytest.mark.parametrize(
    ("view", "choose"),
    [
        ("level:0", lambda masks: view_of(masks, "depth", 0)),
        ("depth:1", lambda masks: view_of(masks, "depth", 1)),
    ],
)
def test_overlays_of_a_level(ovs: Run, one: Path, images: Path, tmp_path: Path, view: str, choose: Callable[[MaskSet], MaskSet]) -> None:
    done = ovs("ovs-show", one, "-o", f"{tmp_path}/out/", "--view", view)
    assert (done.returncode, done.stderr) == (0, b"")
    with open(one, "rb") as stream:
        for masks in open_masks(stream, "a")[1]:
            pixels = picture((images / masks.image.file_name).read_bytes())
            drawn = picture((tmp_path / "out" / f"{masks.image.file_name}.png").read_bytes())
            assert np.array_equal(drawn, overlay(pixels, choose(masks)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{one}", "--view", "shape:1", "-o", "{out}/"], ["shape:1", "depth:1"]),
        (["{one}", "--view", "depth:nan", "-o", "{out}/"], ["depth:nan"]),
        (["{one}", "--view", "matched", "-o", "{out}/"], ["--gt"]),
        (["{one}", "--view", "0.4,0.2", "-o", "{out}/"], ["--sheet"]),
        (["{one}", "{two}", "-o", "{out}/"], ["one mask file"]),
        (["{one}", "--gt", "{truth}", "-o", "{out}/"], ["one mask file"]),
        (["{one}", "--sheet", "{out}/"], ["SHEET.png"]),
        (["{one}", "--sheet", "{out}"], ["SHEET.png"]),
        (["{one}", "--sheet", "{out}/s.jpg"], ["SHEET.png"]),
        (["{one}", "--sheet", "{out}/s.png", "-o", "{out}/p.html"], ["two outputs"]),
        (["{one}", "--segments", "{out}"], ["--gt"]),
        (["-", "-"], ["stdin"]),
        (["{two}"], ["--root"]),
    ],
)
def test_what_makes_no_sense(ovs: Run, one: Path, two: Path, truth: Path, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    done = ovs("ovs-show", *(a.format(one=one, two=two, truth=truth, out=out) for a in arguments), stdin=one.read_bytes())
    assert done.returncode == 2
    one_line(done, *words)
    assert list(out.iterdir()) == []
    assert done.stdout == b""


def test_what_is_missing_or_broken(ovs: Run, one: Path, two: Path, truth: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    for arguments in ([one, "none.json"], [one, "--gt", "none.json"], ["none.json", two]):
        done = ovs("ovs-show", *arguments, "-o", out)
        assert done.returncode == 66
        one_line(done, "none.json")
    cut = tmp_path / "cut.json"
    cut.write_bytes(two.read_bytes()[:-30])
    for arguments in ([one, cut], [cut, one], [one, "--gt", cut]):
        done = ovs("ovs-show", *arguments, "-o", out, "--root", images)
        assert done.returncode == 65
        one_line(done, "cut.json")
    nowhere = ovs("ovs-show", one, "--sheet", tmp_path / "none" / "s.png")
    assert nowhere.returncode == 74
    one_line(nowhere, "no folder")
    assert not out.exists()


def test_masks_of_another_size(ovs: Run, one: Path, tmp_path: Path) -> None:
    small = Image(1, "scene-1.png", 4, 4)
    rle = Rle(4, 4, coco_mask.encode(np.ones((4, 4), np.uint8, order="F"))["counts"])
    other = write(tmp_path / "small.json", MaskSet(small, (Mask(1, 1, rle, 16, (0.0, 0.0, 4.0, 4.0)),)))
    for arguments in ([one, other], [one, "--gt", other]):
        done = ovs("ovs-show", *arguments, "-o", tmp_path / "page.html")
        assert done.returncode == 65
        one_line(done, "scene-1.png", "120×96", "4×4")
        done = ovs("ovs-show", *arguments, "--on-error", "skip")
        assert done.returncode == 3
        assert list(masks_shown(done.stdout)) == ["scene-2.png", "scene-0.png"]


def test_the_first_annotator_counts_and_every_one_is_there(ovs: Run, one: Path, tmp_path: Path) -> None:
    document = json.loads(write(tmp_path / "gt.json", boxes("scene-0.png", 1, (10, 10, 40, 80), (0, 0, 5, 5), (0, 0, 99, 90))).read_bytes())
    for annotation, annotator in zip(document["annotations"], (1, 0, 1), strict=True):
        annotation["annotator"] = annotator
    path = tmp_path / "several.json"
    path.write_text(json.dumps(document))
    done = ovs("ovs-show", one, "--gt", path)
    assert done.returncode == 0
    truths = dict(sections(done.stdout))["scene-0.png"]["truths"]
    assert [(truth["annotator"], len(truth["masks"])) for truth in truths] == [("0", 1), ("1", 2)]
    assert b"0 of 1 found at IoU 0.5" in done.stdout
