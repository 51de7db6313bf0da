"""The scripts of examples/ that train and curate: run as one would, on a few small pictures."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from ovskit.core.formats.photographs.decoding import decode_image
from ovskit.core.formats.photographs.sources import list_sources
from tests.towers import tiny_run

from .conftest import Run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TINY = (
    "--batch 2 --steps 2 -q -j 1 --device cpu --set widths=8,8 --set blocks=1,1 --set attention=0 --set pyramid=8 --set embedding=8 "
    "--set crop=32 --set shorter_side=64 --set scales=250,1000 --set anchors=4 --set negatives=16 --set queue=16"
)


def repack(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, EXAMPLES / "repack_pool.py", *map(str, arguments)], capture_output=True, check=False)


def test_a_pool_is_repacked_into_shards_that_hold_the_same_photographs(images: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        done = repack(images, tmp_path / name, "--shorter-side", 40, "--megabytes", 0.006)
        assert done.returncode == 0, done.stderr.decode()
    shards = sorted((tmp_path / "one").iterdir())
    assert len(shards) > 1
    assert [path.read_bytes() for path in shards] == [path.read_bytes() for path in sorted((tmp_path / "two").iterdir())]
    packed = list_sources([str(path) for path in shards], root=None).items
    originals = list_sources([str(images)], root=None).items
    assert len(packed) == len(originals)
    was = []
    for path in shards:
        with tarfile.open(path) as tar:
            was += [json.loads(line)["was"] for line in tar.extractfile("names.jsonl").read().splitlines()]  # type: ignore[union-attr]
    assert was == [source.file_name for source in originals]
    for small, large in zip(packed, originals, strict=True):
        pixels, before = decode_image(small.read(), "small"), decode_image(large.read(), "large")
        assert min(pixels.shape[:2]) == min(40, *before.shape[:2])
        shrunk = np.asarray(Image.fromarray(before).resize((pixels.shape[1], pixels.shape[0]), Image.Resampling.LANCZOS))
        assert np.abs(pixels.astype(int) - shrunk).mean() < 12


def test_repacking_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    done = repack(tmp_path / "none", tmp_path / "out")
    assert done.returncode == 1
    assert b"no such file or folder" in done.stderr
    assert b"Traceback" not in done.stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    assert b"is not empty" in repack(tmp_path, tmp_path / "full").stderr


def test_training_in_pieces_ends_with_weights(images: Path, tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "MINUTES": "0.00001", "TRAIN_OPTIONS": TINY, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([EXAMPLES / "train-builtin.sh", images, tmp_path / "run"], env=env, capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert b"stopped at step" in done.stderr  # there were several pieces


def test_sohes_from_photographs_to_a_segmenter(images: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """Stopped within its second phase and started again, it keeps the first, goes on with the second and does the others."""
    quick = "--batch 2 --warmup 1 -q -j 1 --device cpu"
    segment = f"{quick} --steps 2 --scratch --set size=tiny --set queries=8 --set points=64 --set side=64 --set backbone=timm:test_vit"
    given = {**environment, "OVS_EXTRACT_SIZE": "64", "OVS_PREDICT_SIZE": "64", "CORRECT": f"{quick} --steps 1", "OMP_NUM_THREADS": "1"}
    out = tmp_path / "out"

    def run(options: str) -> subprocess.CompletedProcess[bytes]:
        # Nine commands, of which some compile their kernels at first.
        return subprocess.run([EXAMPLES / "sohes.sh", images, out], capture_output=True, env={**given, "SEGMENT": options}, timeout=900)

    done = run(f"{segment} --minutes 0.00001")
    assert done.returncode == 3, done.stderr.decode()
    assert {path.name for path in out.iterdir()} == {"pseudo.json", "segment"}
    explored = (out / "pseudo.json").stat()
    done = run(segment)
    assert done.returncode == 0, done.stderr.decode()
    assert (out / "pseudo.json").stat().st_ino == explored.st_ino
    assert [json.loads(line)["step"] for line in (out / "segment" / "log.jsonl").read_text().splitlines()] == [1, 2]
    assert len(json.loads((out / "forest.json").read_text())["images"]) == len(list(images.iterdir()))
    assert json.loads((out / "correct" / "training.json").read_text())["training"]["updates"] == 1
    assert (out / "page.html").exists()


def test_lightcluster_from_photographs_to_classes(images: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """From photographs to a score against label maps, which here are halves of the photographs."""
    maps = tmp_path / "maps"
    maps.mkdir()
    for path in images.iterdir():
        width, height = Image.open(path).size
        halves = np.arange(width)[None].repeat(height, 0) * 2 // width
        Image.fromarray(halves.astype(np.uint8)).save(maps / f"{path.stem}.png")
    out = tmp_path / "out"
    # The size is that of features; crops that are labelled have their own.
    given = {**environment, "OMP_NUM_THREADS": "1"}
    arguments = [EXAMPLES / "lightcluster.sh", images, out, "2", maps]
    done = subprocess.run(arguments, capture_output=True, env=given, timeout=600, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert "a ceiling" in done.stdout.decode()
    assert {one["category_id"] for one in json.loads((out / "classes.json").read_text())["annotations"]} <= {1, 2}
    assert (out / "page.html").exists()
    kept = (out / "pieces.json").stat().st_ino
    (out / "classes.json").unlink()
    done = subprocess.run(arguments, capture_output=True, env=given, timeout=600, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert (out / "pieces.json").stat().st_ino == kept


def test_curation_on_a_cluster_gives_what_one_run_gives(images: Path, environment: dict[str, str], process: Run, tmp_path: Path) -> None:
    shards, out = tmp_path / "shards", tmp_path / "out"
    shards.mkdir()
    for k in range(2):
        with tarfile.open(shards / f"{k:05d}.tar", "w") as tar:
            for number, image in enumerate(sorted(images.iterdir())):
                for name, data in (
                    (f"{number}.png", image.read_bytes()),
                    (f"{number}.txt", ("a dog", "a cat on grass")[(number + k) % 2].encode()),
                ):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    np.savez(tmp_path / "words.npz", names=np.array(["dog", "cat", "grass"]), rows=np.random.default_rng(0).normal(size=(3, 128)))
    words = f"--concept-rows {tmp_path}/words.npz --vocabulary dog,cat,grass --near-duplicates inf"

    def run(phase: str, task: int = 0, count: int = 1) -> None:
        slurm = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": str(count), "SLURM_ARRAY_TASK_MAX": str(count - 1)}
        env = {**environment, "MODEL": "builtin", "CURATE": words, "INDEX": "IVF2,SQ8", **slurm, "SLURM_ARRAY_TASK_MIN": "0"}
        done = subprocess.run(["bash", EXAMPLES / "slurm" / "curate.sbatch", phase, shards, out], env=env, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()

    for task in range(2):
        run("rows", task, 2)
    run("index")
    for task in range(3):
        run("curate", task, 3)
    run("join")
    rows = sorted(out.glob("rows-*.npz"))
    more = ("--index", "IVF2,SQ8", "--index-file", out / "rows.index", *words.split())
    done = process("ovs-curate", *rows, "--pairs", shards, *more)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (out / "curated.jsonl").read_bytes()
    assert done.stdout.endswith(b'{"end":10}\n')


def test_from_photographs_to_a_page_of_names(images: Path, environment: dict[str, str], tmp_path: Path) -> None:
    environment = environment | {"MODEL": f"run:{tiny_run(tmp_path / 'towers', 'test_vit')}", "PROXY": "handmade"}
    script = ["bash", EXAMPLES / "open-vocabulary.sh", images, "cat,dog,sky", tmp_path / "out"]
    done = subprocess.run(script, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out" / "maps").glob("*.png"))) == 5
    named = json.loads((tmp_path / "out" / "named.json").read_bytes())
    assert {one["name"] for one in named["categories"]} == {"cat", "dog", "sky"}
    page = (tmp_path / "out" / "page.html").read_text()
    assert "sky" in page
