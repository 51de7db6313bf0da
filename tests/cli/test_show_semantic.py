"""``ovs-show`` of semantic maps: colours by category, folders of label maps as predictions and as ground truth, what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from pycocotools import mask as coco_mask

from ovskit.core.formats.labels.spaces import built_in
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
from ovskit.core.records import Image, Mask, MaskSet, Rle
from ovskit.core.show.colours import category_colours

from .conftest import Run, one_line
from .test_show import HEIGHT, WIDTH, picture, sections

SPACE = built_in("camvid-11")
NAMED = [{"id": one.id, "name": one.name} for one in SPACE.classes]
COLOURS = category_colours()


def labels_of(k: int) -> np.ndarray:
    """A map of scene k, with void (11) at its left."""
    labels = np.full((HEIGHT, WIDTH), k, np.uint8)
    labels[40:, :] = 8
    labels[:, :7] = 11
    return labels


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """Ground truth of scenes 0 to 2 in CamVid's layout."""
    folder = tmp_path / "truth" / "testannot"
    folder.mkdir(parents=True)
    for k in range(3):
        Pillow.fromarray(labels_of(k)).save(folder / f"scene-{k}.png")
    return tmp_path / "truth"


def boxes(k: int) -> list[tuple[int, float, tuple[int, int, int, int]]]:
    """Category, score, and left, top, right, bottom: a car of high score over a part of the building."""
    return [(k, 0.4, (0, 0, WIDTH, 50)), (8, 0.9, (20, 30, 100, HEIGHT)), (1, 0.5, (30, 35, 60, 60))]


def write(path: Path, *, root: Path, header: dict[str, Any]) -> Path:
    with open(path, "wb") as out:
        writer = MasksWriter(out, MasksHeader(root=str(root), **header))
        for k in (2, 0, 1):
            masks = []
            for number, (category, score, (left, top, right, bottom)) in enumerate(boxes(k), 1):
                dense = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
                dense[top:bottom, left:right] = 1
                coded = coco_mask.encode(dense)
                rle, box = Rle(HEIGHT, WIDTH, coded["counts"]), tuple(coco_mask.toBbox(coded).tolist())
                masks.append(Mask(number, k + 1, rle, int(dense.sum()), box, category_id=category, score=score))
            writer.write(MaskSet(Image(k + 1, f"scene-{k}.png", WIDTH, HEIGHT), tuple(masks)))
        writer.finish()
    return path


@pytest.fixture
def named(tmp_path: Path, images: Path) -> Path:
    """Overlapping masks with names, as ovs-label writes them."""
    labels = {"name": SPACE.name, "version": SPACE.version, "hash": SPACE.hash}
    return write(tmp_path / "named.json", root=images, header={"categories": NAMED, "labels": labels})


def painted(k: int) -> np.ndarray:
    """The masks of scene k, those of higher score later; -1 where none is."""
    labels = np.full((HEIGHT, WIDTH), -1)
    for category, _, (left, top, right, bottom) in sorted(boxes(k), key=lambda box: box[1]):
        labels[top:bottom, left:right] = category
    return labels


def summary_of(page: bytes) -> dict[str, Any]:
    [text] = re.findall(r'<script type="application/json" id="page">(.*?)</script>', page.decode())
    found: dict[str, Any] = json.loads(text)
    return found


def test_overlays_show_the_map_that_is_scored(ovs: Run, named: Path, images: Path, tmp_path: Path) -> None:
    done = ovs("ovs-show", named, "-o", f"{tmp_path}/out/", "--opacity", "1", "--no-legend")
    assert (done.returncode, done.stderr) == (0, b"")
    ovs("ovs-show", named, "-o", f"{tmp_path}/with/", "--opacity", "1")
    for k in range(3):
        photograph, drawn = (
            picture((folder / f"scene-{k}.png{end}").read_bytes()) for folder, end in ((images, ""), (tmp_path / "out", ".png"))
        )
        assert drawn.shape == (HEIGHT, WIDTH, 3)
        labels = painted(k)
        # Beside borders there are lines.
        around = np.lib.stride_tricks.sliding_window_view(np.pad(labels, 2, constant_values=-2), (5, 5)).reshape(*labels.shape, 25)
        still = (around == labels[..., None]).all(axis=-1)
        expected = np.where(labels[..., None] < 0, photograph, COLOURS[labels])
        assert still.mean() > 0.8
        assert np.array_equal(drawn[still], expected[still])
        whole = picture((tmp_path / "with" / f"scene-{k}.png.png").read_bytes())
        assert np.array_equal(whole[:HEIGHT], drawn)
        seen = [number for number in np.unique(labels) if number >= 0]
        assert all((whole[HEIGHT:] == COLOURS[number]).all(axis=-1).any() for number in seen)


def test_the_file_says_whether_it_is_about_categories(ovs: Run, named: Path, images: Path, tmp_path: Path) -> None:
    clusters = [{"id": k, "name": f"cluster {k}"} for k in range(11)]
    by_tool = write(tmp_path / "c.json", root=images, header={"categories": clusters, "pg": ({"tool": "ovs-cluster"},)})
    foreign = write(tmp_path / "f.json", root=images, header={"categories": NAMED})
    for path, arguments, by_category in (
        (named, [], True),
        (by_tool, [], True),
        (foreign, [], False),
        (foreign, ["--colour", "category"], True),
        (named, ["--colour", "mask"], False),
    ):
        done = ovs("ovs-show", path, *arguments)
        assert (done.returncode, done.stderr) == (0, b"")
        assert ("categories" in summary_of(done.stdout)) is by_category
        for _, data in sections(done.stdout):
            assert ("legend" in data["panels"][0]) is by_category
    # Without its own colours a file of categories is drawn as any other.
    for path in (named, foreign):
        assert ovs("ovs-show", path, "--colour", "mask", "-o", f"{tmp_path}/{path.stem}/").returncode == 0
    for k in range(3):
        assert (tmp_path / "named" / f"scene-{k}.png.png").read_bytes() == (tmp_path / "f" / f"scene-{k}.png.png").read_bytes()


def test_a_ground_truth_of_label_maps_is_a_column_in_the_same_colours(ovs: Run, named: Path, maps: Path, tmp_path: Path) -> None:
    done = ovs("ovs-show", named, "--gt", maps, "--layout", "camvid", "-o", tmp_path / "page.html")
    assert (done.returncode, done.stderr) == (0, b"")
    page = (tmp_path / "page.html").read_bytes()
    summary = summary_of(page)
    assert [panel["title"] for panel in summary["panels"]] == ["named.json", "Ground truth"]
    assert (summary["masks"], "truth" in summary) == (9, False)
    right = {}
    for name, data in sections(page):
        k = int(name[6])
        truth = labels_of(k)
        first, second = data["panels"]
        shown = {one["category"]: one for one in second["masks"]}
        assert shown.keys() == {SPACE.classes[number].name for number in np.unique(truth) if number != 11}
        for category, one in shown.items():
            number = next(c.id for c in SPACE.classes if c.name == category)
            coded = coco_mask.encode(np.asfortranarray((truth == number).astype(np.uint8)))
            assert (one["rle"].encode(), one["rgb"]) == (coded["counts"], bytes(COLOURS[number]).hex())
        assert {one["category"]: one["rgb"] for one in first["masks"]}["Car"] == shown["Car"]["rgb"]
        right[name] = first["right"]
        assert right[name] == pytest.approx((painted(k) == truth)[truth != 11].mean())
    scored = ovs("ovs-eval", "--metric", "miou", "--gt", maps, "--layout", "camvid", "--json", "--per-image", tmp_path / "i.jsonl", named)
    assert scored.returncode == 0
    lines = [json.loads(line) for line in (tmp_path / "i.jsonl").read_text().splitlines()]
    found = {line["file_name"]: line["metrics"]["pixel_accuracy"] for line in lines}
    assert found == {name: pytest.approx(share) for name, share in right.items()}


def test_images_that_only_one_side_has_are_said(ovs: Run, named: Path, maps: Path) -> None:
    (maps / "testannot" / "scene-0.png").rename(maps / "testannot" / "other.png")
    done = ovs("ovs-show", named, "--gt", maps, "--layout", "camvid")
    assert done.returncode == 0
    said = done.stderr.decode().splitlines()
    assert len(said) == 2
    assert "no ground truth for 1 of 3 images" in said[0]
    assert "1 images of" in said[1]
    assert done.stdout.count(b"No such image in Ground truth") == 1


def test_a_folder_of_label_maps_is_a_prediction(ovs: Run, named: Path, maps: Path, images: Path, tmp_path: Path) -> None:
    folder = maps / "testannot"
    alone = ovs("ovs-show", folder, "--names", "camvid-11", "--root", images)
    assert (alone.returncode, alone.stderr) == (0, b"")
    assert [name for name, _ in sections(alone.stdout)] == [f"scene-{k}.png" for k in range(3)]
    assert b"<title>Masks of " in alone.stdout
    by_layout = ovs("ovs-show", maps, "--layout", "camvid", "--root", images)
    assert [data for _, data in sections(by_layout.stdout)] == [data for _, data in sections(alone.stdout)]
    # Beside a masks file, which says where the photographs are; against a ground truth, with which it is the same.
    for first in (named, folder):
        second = folder if first is named else named
        done = ovs("ovs-show", first, second, "--gt", maps, "--layout", "camvid")
        assert (done.returncode, done.stderr) == (0, b"")
        shares = summary_of(done.stdout)["right"]
        assert shares[(first, second).index(folder)] == 1
        assert 0 < shares[(first, second).index(named)] < 1
        assert all(None not in data["panels"] for _, data in sections(done.stdout))
        assert sections(done.stdout)[0][0] == ("scene-2.png" if first is named else "scene-0.png")
    piped = ovs("ovs-show", folder, "-", "--names", "camvid-11", stdin=named.read_bytes())
    assert [name for name, _ in sections(piped.stdout)] == ["scene-2.png", "scene-0.png", "scene-1.png"]
    overlays = ovs("ovs-show", folder, "--names", "camvid-11", "--root", images, "-o", f"{tmp_path}/o/", "--no-legend")
    assert overlays.returncode == 0
    assert picture((tmp_path / "o" / "scene-1.png.png").read_bytes()).shape == (HEIGHT, WIDTH, 3)
    sheet = ovs("ovs-show", folder, "--gt", maps, "--layout", "camvid", "--root", images, "--sheet", "-", "--max-side", "64")
    assert (sheet.returncode, sheet.stderr) == (0, b"")
    assert picture(sheet.stdout).shape[1] == 2 * 16 + 3 * 64 + 2 * 8


def test_maps_without_names_have_classes_by_number(ovs: Run, maps: Path, images: Path) -> None:
    done = ovs("ovs-show", maps / "testannot", "--root", images, "--gt", maps / "testannot")
    assert (done.returncode, done.stderr) == (0, b"")
    names = {one["category"] for _, data in sections(done.stdout) for panel in data["panels"] for one in panel["masks"]}
    assert names == {"class 0", "class 1", "class 2", "class 8", "class 11"}
    assert summary_of(done.stdout)["right"] == [1.0, None]


def test_clusters_are_not_compared_with_classes(ovs: Run, maps: Path, images: Path, tmp_path: Path) -> None:
    clusters = [{"id": k, "name": f"cluster {k}"} for k in range(11)]
    path = write(tmp_path / "c.json", root=images, header={"categories": clusters, "pg": ({"tool": "ovs-cluster"},)})
    done = ovs("ovs-show", path, "--gt", maps, "--layout", "camvid")
    assert done.returncode == 0
    assert "right" not in summary_of(done.stdout)
    assert b"3 masks of 3 classes" not in done.stdout
    assert b">3 classes<" in done.stdout


def test_instances_beside_named_masks_are_coloured_by_category(ovs: Run, named: Path, images: Path, tmp_path: Path) -> None:
    truth = write(tmp_path / "gt.json", root=images, header={"categories": [{**one, "name": one["name"].lower()} for one in NAMED]})
    for arguments, by_category in (([], True), (["--colour", "mask"], False)):
        done = ovs("ovs-show", named, "--gt", truth, *arguments)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"3 of 3 found at IoU 0.5" in done.stdout
        for _, data in sections(done.stdout):
            assert ("legend" in data["truths"][0]) is by_category
    assert ovs("ovs-show", named, "--gt", truth, "--sheet", "-", "--max-side", "64").returncode == 0


def test_the_numbers_of_a_results_list_are_those_of_the_ground_truth(ovs: Run, named: Path, images: Path, tmp_path: Path) -> None:
    """It names no categories, so number 1 is the ground truth's 1, and not the "entity" that masks without a class are."""
    lines = [line.rstrip(",") for line in named.read_text().splitlines() if line.startswith('{"id"') and "segmentation" in line]
    results = tmp_path / "results.json"
    results.write_text(f"[{','.join(lines)}]")
    done = ovs("ovs-show", results, "--gt", named, "--colour", "category", "--root", images)
    assert done.returncode == 0, done.stderr
    wanted = {NAMED[category]["name"] for k in range(3) for category, _, _ in boxes(k)}
    assert {name for name, _, _ in summary_of(done.stdout)["categories"]} == wanted


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{named}", "--gt", "{maps}", "--layout", "camvid", "--names", "camvid-12"], 2, ["camvid-12", "did you mean camvid-11"]),
        (["{named}", "--layout", "camvid"], 2, ["--layout", "folder of label maps"]),
        (["{named}", "--gt", "{named}", "--layout", "camvid"], 2, ["--layout", "folder"]),
        (["{named}", "--gt", "{none}", "--layout", "camvid"], 66, ["none"]),
        (["{none}", "--names", "camvid-11", "--root", "{images}"], 66, ["none"]),
        (["{maps}", "--layout", "camvid"], 2, ["--root"]),
        (["{empty}", "--root", "{images}"], 65, ["empty", "no label maps", "--layout"]),
        (["{named}", "--gt", "{maps}/testannot", "--names", "a,b,c"], 65, ["scene-2", "ids 8, 11 are outside", "names"]),
        (["{maps}/testannot", "--names", "a,b,c", "--root", "{images}"], 65, ["scene-0", "outside"]),
        (["{named}", "--gt", "{maps}", "--layout", "camvid", "--view", "matched", "--sheet", "-"], 2, ["nothing to match"]),
        (["{named}", "--gt", "{maps}", "--layout", "camvid", "-o", "{empty}/o/"], 2, ["one mask file"]),
        (["{named}", "--colour", "blue"], 2, ["--colour", "category"]),
    ],
)
def test_what_is_refused(
    ovs: Run, named: Path, maps: Path, images: Path, tmp_path: Path, arguments: list[str], code: int, words: list[str]
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"named": named, "maps": maps, "images": images, "empty": tmp_path / "empty", "none": tmp_path / "none"}
    done = ovs("ovs-show", *(argument.format(**places) for argument in arguments))
    assert done.returncode == code, done.stderr
    one_line(done, *words)
    assert b"</html>" not in done.stdout  # no page that could pass for a whole one


def test_a_map_that_cannot_be_used_is_skipped_where_it_may_be(ovs: Run, named: Path, maps: Path, images: Path) -> None:
    Pillow.fromarray(np.zeros((4, 5), np.uint8)).save(maps / "testannot" / "scene-1.png")
    for arguments in ([named, "--gt", maps], [maps, "--root", images], [named, maps / "testannot", "--gt", maps]):
        done = ovs("ovs-show", *arguments, "--layout", "camvid")
        assert done.returncode == 65
        one_line(done, "scene-1", "120×96", "5×4")
        done = ovs("ovs-show", *arguments, "--layout", "camvid", "--on-error", "skip")
        assert done.returncode == 3
        assert sorted(name for name, _ in sections(done.stdout)) == ["scene-0.png", "scene-2.png"]
    (maps / "testannot" / "scene-1.png").rename(maps / "testannot" / "nowhere.png")
    done = ovs("ovs-show", maps, "--layout", "camvid", "--root", images)
    assert done.returncode == 66
    one_line(done, "nowhere", "no photograph")
