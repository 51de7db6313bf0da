"""ovs-train pairs and the model that it makes, as users run them: on a CPU, with tiny networks."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from pycocotools import mask as coco_mask

from ovskit.core.formats.streams.row_files import RowFiles
from ovskit.core.train.engine.checkpoint import read_checkpoint
from tests.train.small_pairs import write_shards

from .conftest import Run, one_line

TINY = (
    "--arch test_convnext --side 32 --batch 4 --dim 8 --steps 3 --warmup 1 --device cpu --log-every 1 -q -j 1 --set text_layers=1 "
    "--set text_width=16 --set text_heads=2 --set context=12"
).split()
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("pairs") / "shards")


@pytest.fixture(scope="module")
def towers(process: Run, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("towers") / "run"
    done = process("ovs-train", "pairs", shards, "-o", folder, *TINY, env=ONE_THREAD)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    return folder


def test_a_run_leaves_its_files(towers: Path) -> None:
    assert sorted(path.name for path in towers.iterdir()) == ["checkpoint.safetensors", "log.jsonl", "model.safetensors"]
    lines = [json.loads(line) for line in (towers / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[0]["losses"].keys() == {"loss", "scale", "accuracy", "negatives"}
    (entry,) = read_checkpoint(towers / "checkpoint.safetensors").pg
    assert entry["command"].startswith("ovs-train pairs ")
    assert "--arch test_convnext" in entry["command"]


def test_stopped_and_resumed_it_is_the_same(ovs: Run, shards: Path, towers: Path, tmp_path: Path) -> None:
    for steps in (2, 3):
        words = [*TINY, "--schedule", "constant", "--steps", steps]
        done = ovs("ovs-train", "pairs", shards, "-o", tmp_path / "parts", "--resume", *words, env=ONE_THREAD)
        assert done.returncode == 0, done.stderr.decode()
    done = ovs("ovs-train", "pairs", shards, "-o", tmp_path / "whole", *TINY, "--schedule", "constant", env=ONE_THREAD)
    assert done.returncode == 0, done.stderr.decode()
    one, two = (read_checkpoint(tmp_path / name / "checkpoint.safetensors").tensors for name in ("whole", "parts"))
    assert {name: tensor.numpy().tobytes() for name, tensor in one.items()} == {
        name: tensor.numpy().tobytes() for name, tensor in two.items()
    }


def test_images_captions_concepts_and_names(ovs: Run, shards: Path, towers: Path, tmp_path: Path) -> None:
    model = ("--model", f"run:{towers}", "--device", "cpu")
    done = ovs("ovs-extract", *model, "--pool", "cls", *sorted(shards.glob("*.tar")), "-q", "-o", tmp_path / "rows.npz")
    assert done.returncode == 0, done.stderr.decode()
    with RowFiles([str(tmp_path / "rows.npz")]) as files:
        assert files.take(np.arange(len(files))).shape == (18, 8)
    (tmp_path / "terms.txt").write_text("thing\nred\ngreen\nblue\n")
    words = ("--pairs", shards, "--vocabulary", tmp_path / "terms.txt", "--device", "cpu", "-q", "-o", tmp_path / "curated.jsonl")
    done = ovs("ovs-curate", tmp_path / "rows.npz", *words)
    assert done.returncode == 0, done.stderr.decode()
    assert b'"red"' in (tmp_path / "curated.jsonl").read_bytes()
    done = ovs("ovs-extract", *model, "--size", "64", *sorted(shards.glob("*.tar")), "-q", "-o", tmp_path / "features.npz")
    assert done.returncode == 0, done.stderr.decode()


def test_names_for_masks(ovs: Run, shards: Path, towers: Path, tmp_path: Path) -> None:
    with tarfile.open(shards / "00000.tar") as tar:
        tar.extract("000000.jpg", tmp_path, filter="data")
    width, height = Pillow.open(tmp_path / "000000.jpg").size
    inside = np.zeros((height, width), np.uint8, order="F")
    inside[5:30, 5:30] = 1
    outline = coco_mask.encode(inside)
    mask = {
        "id": 1, "image_id": 1, "category_id": 1, "segmentation": {"size": [height, width], "counts": outline["counts"].decode()},
        "bbox": [5.0, 5.0, 25.0, 25.0], "area": 625, "iscrowd": 0, "score": 0.5,
    }  # fmt: skip
    images = [{"id": 1, "file_name": "000000.jpg", "width": width, "height": height}]
    (tmp_path / "masks.json").write_text(json.dumps({"images": images, "annotations": [mask], "categories": []}))
    words = ("--names", "red,green,blue", "--root", tmp_path, "--device", "cpu", tmp_path / "masks.json", "-o", tmp_path / "named.json")
    done = ovs("ovs-label", "--model", f"run:{towers}", *words)
    assert done.returncode == 0, done.stderr.decode()
    (found,) = json.loads((tmp_path / "named.json").read_text())["annotations"]
    assert found["category_id"] in (0, 1, 2)
    assert 0 < found["label_score"] <= 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--set", "words=nouns,verbs"), 2, ("textblob", "ovskit[captions]")),
        (("--arch", "swin_tiny_patch4_window7_224"), 2, ("not supported",)),
        (("--batch", "1"), 2, ("--batch 1",)),
        (("--weights", "nowhere.safetensors"), 66, ("nowhere.safetensors",)),
        (("--eval", "gt.json"), 2, ("--eval",)),
    ],
)
def test_misused(ovs: Run, shards: Path, tmp_path: Path, words: tuple[str, ...], code: int, said: tuple[str, ...]) -> None:
    done = ovs("ovs-train", "pairs", shards, "-o", tmp_path / "run", *TINY, *words)
    assert done.returncode == code
    one_line(done, *said)


def test_without_pairs(ovs: Run, tmp_path: Path) -> None:
    done = ovs("ovs-train", "pairs", "-o", tmp_path / "run", *TINY)
    assert done.returncode == 2
    one_line(done, "name tar shards")
    done = ovs("ovs-train", "pairs", tmp_path / "nothing", "-o", tmp_path / "run", *TINY)
    assert done.returncode == 66


def test_images_that_are_skipped_are_counted(ovs: Run, tmp_path: Path) -> None:
    bad = write_shards(tmp_path / "bad", damaged=(2,))
    done = ovs("ovs-train", "pairs", bad, "-o", tmp_path / "run", *TINY, "--steps", 6)
    assert done.returncode == 65
    one_line(done, "000002.jpg")
    done = ovs("ovs-train", "pairs", bad, "-o", tmp_path / "run2", *TINY, "--steps", 6, "--on-error", "skip")
    assert done.returncode == 3, done.stderr.decode()
    assert "skipped 1 image that could not be used, named above; 17 done" in done.stderr.decode()


def test_folders_that_are_not_towers(ovs: Run, towers: Path, tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    Pillow.new("RGB", (40, 40)).save(image)

    def extract(folder: Path) -> object:
        return ovs("ovs-extract", "--model", f"run:{folder}", "--device", "cpu", image, "-o", tmp_path / "f.npz")

    bad = tmp_path / "bad"
    bad.mkdir()
    for content, code, said in (
        (None, 66, "holds no model.safetensors"),
        ((towers / "model.safetensors").read_bytes()[:-9], 65, "not a complete safetensors file"),
        ((towers / "checkpoint.safetensors").read_bytes(), 65, "give the folder of the run's finished model"),
    ):
        if content is not None:
            (bad / "model.safetensors").write_bytes(content)
        done = extract(bad)
        assert done.returncode == code  # type: ignore[attr-defined]
        one_line(done, said)  # type: ignore[arg-type]
