"""``ovs-eval --metric miou`` as users run it: label maps and masks, layouts, clusters, seeds."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
from ovskit.core.masks import rle
from ovskit.core.records import Image, Mask, MaskSet
from tests.reference import semantic as reference

from .conftest import Run, one_line

CLASSES = list(range(11))


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A ground truth of CamVid's ids, 11 void, and a prediction that is right for two blocks in three."""
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, 12, (4, 5)), np.ones((6, 6), int))
    wrong = np.kron(rng.integers(0, 11, (4, 5)), np.ones((6, 6), int))
    keep = np.kron(rng.random((4, 5)) < 0.67, np.ones((6, 6), int)).astype(bool)
    return truth, np.where(keep & (truth < 11), truth, wrong)


@pytest.fixture(scope="module")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("camvid")
    for name in ("testannot", "predicted"):
        (folder / name).mkdir()
    names = [{"id": k, "name": str(k)} for k in range(20)]
    with (folder / "masks.json").open("wb") as file:
        writer = MasksWriter(file, MasksHeader(categories=names))
        number = 0
        for k in range(4):
            truth, predicted = scene(k)
            Picture.fromarray(truth.astype(np.uint8)).save(folder / "testannot" / f"{k}.png")
            Picture.fromarray(predicted.astype(np.uint8)).save(folder / "predicted" / f"{k}.png")
            masks = []
            for category in np.unique(predicted).tolist():
                number += 1
                where = predicted == category
                masks.append(Mask(number, k + 1, rle.encode(where), int(where.sum()), (0, 0, 0, 0), category + 3))
            writer.write(MaskSet(Image(k + 1, f"test/{k}.png", 30, 24), tuple(masks)))
        writer.finish()
    return folder


def expected() -> dict[str, float]:
    counts: dict[tuple[int, int], int] = {}
    for k in range(4):
        truth, predicted = scene(k)
        for pair, n in reference.confusion(np.where(truth == 11, -1, truth), predicted).items():
            counts[pair] = counts.get(pair, 0) + n
    return reference.scores(counts, CLASSES)


def test_folders_of_maps(camvid: Path, ovs: Run) -> None:
    done = ovs("ovs-eval", "--metric", "miou", "--layout", "camvid", "--gt", camvid, camvid / "predicted", "--json", "--bootstrap", 50)
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert found["metrics"] == pytest.approx(expected())
    assert [one["name"] for one in found["classes"]][:2] == ["Sky", "Building"]
    low, high = found["intervals"]["mIoU"]
    assert low < found["metrics"]["mIoU"] < high
    assert found["settings"]["label_space"]["name"] == "camvid-11"
    assert not found["settings"]["fitted_on_scored_images"]
    again = ovs(
        "ovs-eval", "--metric", "miou", "--layout", "camvid", "--gt", camvid, camvid / "predicted", "--json", "--bootstrap", 50, "-j", 3
    )
    assert again.stdout == done.stdout


def test_clusters_through_a_pipe(camvid: Path, shell: Run) -> None:
    line = f"cat {camvid}/masks.json | ovs-eval --metric miou --match hungarian --layout camvid --gt {camvid} --json"
    done = shell(line)
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert found["metrics"] == pytest.approx(expected())  # clusters are the classes, renamed
    assert {one["id"]: one["cluster"] for one in found["classes"]} == {k: k + 3 for k in CLASSES}
    assert found["settings"]["fitted_on_scored_images"]


def test_a_table_for_people(camvid: Path, ovs: Run) -> None:
    done = ovs("ovs-eval", "--metric", "miou", "--match", "hungarian", "--layout", "camvid", "--gt", camvid, camvid / "masks.json")
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode()
    for words in ("mIoU, the ground truth's classes", "mIoU, predicted classes count too", "Bicyclist", "camvid-11 version 1", "a ceiling"):
        assert words in text, text


def test_seeds(camvid: Path, ovs: Run, tmp_path: Path) -> None:
    worse = tmp_path / "worse"
    worse.mkdir()
    for k in range(4):
        Picture.fromarray(np.zeros((24, 30), np.uint8)).save(worse / f"{k}.png")
    begin = ("ovs-eval", "--metric", "miou", "--layout", "camvid", "--gt", camvid, "--seeds")
    done = ovs(*begin, camvid / "predicted", worse, "--json")
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    values = [one["metrics"]["mIoU"] for one in found["files"]]
    assert found["seeds"]["mIoU"] == pytest.approx({"mean": np.mean(values), "std": np.std(values, ddof=1)})
    assert "mean ± std of 2" in ovs(*begin, camvid / "predicted", worse).stdout.decode()
    done = ovs(*begin, worse)
    assert done.returncode == 2
    one_line(done, "two files or more")


def test_what_does_not_fit(camvid: Path, ovs: Run, tmp_path: Path) -> None:
    begin = ("ovs-eval", "--metric", "miou", "--gt", camvid / "testannot")
    for arguments, code, words in (
        (("--layout", "kitti", camvid / "predicted"), 2, ["kitti", "cityscapes"]),
        (("--names", "camvid-12", camvid / "predicted"), 2, ["camvid-11"]),
        (("--layout", "camvid", camvid / "masks.json"), 65, ["two label spaces are mixed", "ovs-label"]),
        (("--names", "sky,road,", camvid / "predicted"), 65, ["outside the label space", "0-1"]),
        (("--by-category", camvid / "predicted"), 2, ["--by-category"]),
        ((tmp_path,), 65, ["no label maps"]),
        ((tmp_path / "gone",), 66, ["gone"]),
    ):
        done = ovs(*begin, *arguments)
        assert done.returncode == code, (arguments, done.stderr.decode())
        one_line(done, *words)
    done = ovs("ovs-eval", "--layout", "camvid", "--gt", camvid / "testannot", camvid / "masks.json")
    assert done.returncode == 2
    one_line(done, "--metric miou")
    small = tmp_path / "small"
    small.mkdir()
    Picture.fromarray(np.zeros((3, 3), np.uint8)).save(small / "0.png")
    done = ovs(*begin, "--layout", "camvid", small)
    assert done.returncode == 65
    one_line(done, "3×3", "30×24")


def test_masks_as_ground_truth(camvid: Path, ovs: Run, tmp_path: Path) -> None:
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 4, "height": 2}],
        "categories": [{"id": 7, "name": "Sky"}, {"id": 9, "name": "boat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]], "area": 4, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 9, "segmentation": [[2, 0, 4, 0, 4, 2, 2, 2]], "area": 4, "iscrowd": 0},
        ],
    }
    (tmp_path / "gt.json").write_text(json.dumps(document))
    (tmp_path / "maps").mkdir()
    Picture.fromarray(np.array([[1, 1, 0, 0], [0, 1, 0, 0]], np.uint8)).save(tmp_path / "maps" / "a.png")
    (tmp_path / "space.json").write_text(
        json.dumps(
            {
                "format": "ovskit.labels/1",
                "name": "s",
                "version": 1,
                "background": 0,
                "classes": [{"id": 0, "name": "background"}, {"id": 1, "name": "Sky"}],
            }
        )
    )
    done = ovs(
        "ovs-eval", "--metric", "miou", "--gt", tmp_path / "gt.json", "--names", tmp_path / "space.json", tmp_path / "maps", "--json"
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"boat" in done.stderr  # counts as background
    assert b"background" in done.stderr
    assert json.loads(done.stdout)["metrics"]["mIoU"] == pytest.approx((4 / 5 + 3 / 4) / 2)
