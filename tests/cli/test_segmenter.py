"""ovs-train segment, ovs-train correct and ovs-predict as users run them, from masks to masks."""

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image as Pillow
from safetensors.torch import load_file

from tests.scenes import Faults, write_scenes

from .conftest import Run, command, one_line

TINY = (
    "--batch 2 --device cpu --warmup 1 --log-every 1 -q -j 1 --scratch --set size=tiny --set queries=8 --set points=64 --set side=64 "
    "--set backbone=timm:test_vit"
).split()
FURTHER = "--batch 2 --device cpu --warmup 1 --log-every 1 -q -j 1".split()
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, range(5), side=64, faults=Faults())
    return folder


@pytest.fixture(scope="module")
def run(process: Run, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segment") / "run"
    done = process(
        "ovs-train", "segment", scenes / "pseudo.json", "--images", scenes / "images", "-o", folder, "--steps", 3, *TINY, env=ONE_THREAD
    )
    assert done.returncode == 0, done.stderr.decode()
    assert (done.stdout, done.stderr) == (b"", b"")
    return folder


def test_a_run_leaves_a_segmenter(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names == {"checkpoint.safetensors", "config.json", "log.jsonl", "model.safetensors", "targets", "training.json"}
    training = json.loads((run / "training.json").read_text())["training"]
    assert training["updates"] == 3
    assert training["pg"][0]["command"].startswith("ovs-train segment ")
    losses = json.loads((run / "log.jsonl").read_text().splitlines()[-1])["losses"]
    assert {"loss", "class", "mask", "dice", "ancestor", "ancestor positives", "ancestor negatives"} == set(losses)


@pytest.fixture(scope="module")
def from_places(process: Run, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the built-in network, whose queries begin at places."""
    folder = tmp_path_factory.mktemp("places") / "run"
    settings = [word for word in TINY if "backbone" not in word][:-1]
    done = process("ovs-train", "segment", scenes / "pseudo.json", "--images", scenes / "images", "-o", folder, "--steps", 2, *settings)
    assert done.returncode == 0, done.stderr.decode()
    return folder


def test_queries_from_places_are_as_many_as_one_asks_for(from_places: Path, scenes: Path, ovs: Run) -> None:
    predict = ("ovs-predict", "--checkpoint", from_places, "--device", "cpu", "-q", scenes / "images")
    counts = []
    for more in ((), ("--queries", 8), ("--queries", 100)):
        done = ovs(*predict, "--nms", 1, "--score", "own", *more)
        assert done.returncode == 0, done.stderr.decode()
        counts.append(len(json.loads(done.stdout)["annotations"]) / 5)  # images
    assert counts[0] == counts[1] <= 8 < 50 < counts[2] <= 100


def test_scores_of_queries_from_places_are_pooled(from_places: Path, scenes: Path, ovs: Run) -> None:
    predict = ("ovs-predict", "--checkpoint", from_places, "--device", "cpu", "-q", "--queries", 100, "--no-pg", scenes / "images")
    by_default, plainly, own = (ovs(*predict, *more).stdout for more in ((), ("--score", "pooled", "--nms", 0.85), ("--score", "own")))
    assert by_default == plainly != own
    masks = json.loads(by_default)["annotations"]
    assert len(masks) < len(json.loads(ovs(*predict, "--nms", 1).stdout)["annotations"])
    least = masks[0]["score"]
    few = json.loads(ovs(*predict, "--min-score", least - 1e-6).stdout)["annotations"]
    assert [mask["score"] for mask in few] == [mask["score"] for mask in masks if mask["score"] >= least]
    done = ovs(*predict, "--score", "pooled", "--nms", 1)
    assert done.returncode == 2
    assert b"--nms below 1" in done.stderr


def test_correction_of_queries_from_places(from_places: Path, scenes: Path, ovs: Run, tmp_path: Path) -> None:
    inputs = (scenes / "pseudo.json", "--images", scenes / "images", "-o", tmp_path / "run", "--from", from_places)
    done = ovs("ovs-train", "correct", *inputs, "--steps", 1, *FURTHER)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["kinds"] == 4
    done = ovs("ovs-train", "correct", *inputs, "--steps", 1, *FURTHER, "--set", "kinds=3", "--resume")
    assert done.returncode == 2
    assert b"its size and backbone stay as they are" in done.stderr


def test_queries_learned_one_by_one_are_no_more(run: Path, scenes: Path, ovs: Run) -> None:
    done = ovs("ovs-predict", "--checkpoint", run, "--queries", 100, "--device", "cpu", scenes / "images")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"is fixed to 8" in done.stderr


def test_a_backbone_that_does_not_say_what_belongs_together(scenes: Path, ovs: Run, tmp_path: Path) -> None:
    inputs = (scenes / "pseudo.json", "--images", scenes / "images", "-o", tmp_path / "run")
    done = ovs("ovs-train", "segment", *inputs, "--steps", 1, *TINY, "--set", "kinds=2")
    assert done.returncode == 2
    assert b"timm:test_vit does not say what belongs together" in done.stderr
    assert not (tmp_path / "run").exists()


def test_from_masks_to_a_score(run: Path, scenes: Path, shell: Run) -> None:
    line = f"ovs-predict --checkpoint {run} --device cpu {scenes}/images | ovs-eval --metric ar --json --gt {scenes}/truth.json"
    done = shell(line)
    assert done.returncode == 0, done.stderr.decode()
    assert 0 <= json.loads(done.stdout)["metrics"]["AR@1000"] <= 1


def test_init_takes_a_run(run: Path, scenes: Path, ovs: Run, tmp_path: Path) -> None:
    begin = ("ovs-train", "segment", scenes / "pseudo.json", "--images", scenes / "images", "-o", tmp_path / "run", "--steps", 1)
    options = [word for word in TINY if word != "--scratch"]
    assert ovs(*begin, *options, "--init", run, env=ONE_THREAD).returncode == 0
    assert "--init RUN" in ovs("ovs-train", "segment", "--help").stdout.decode()


def test_masks_are_a_coco_document_with_provenance(run: Path, scenes: Path, ovs: Run) -> None:
    done = ovs("ovs-predict", "--checkpoint", run, "--device", "cpu", scenes / "images", "-q")
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert [image["file_name"] for image in found["images"]] == [f"{k:05d}.png" for k in range(5)]
    assert found["info"]["ovskit"]["pg"][0]["tool"] == "ovs-predict"
    assert all(0 <= one["score"] <= 1 for one in found["annotations"])
    again = ovs("ovs-predict", "--checkpoint", run, "--device", "cpu", scenes / "images", "-q", "-j", 3, "--batch-size", 4)
    assert again.stdout == done.stdout


def test_parents_by_coverage_or_none(run: Path, scenes: Path, ovs: Run, tmp_path: Path) -> None:
    plain = ovs(
        "ovs-predict", "--checkpoint", run, "--device", "cpu", scenes / "images", "--hier", "none", "--no-pg", "-o", tmp_path / "m.json"
    )
    assert plain.returncode == 0
    assert not any("parent_id" in one for one in json.loads((tmp_path / "m.json").read_text())["annotations"])
    grown = ovs("ovs-predict", "--checkpoint", run, "--device", "cpu", scenes / "images", "--hier", "coverage", "--no-pg")
    by_hier = ovs("ovs-hier", tmp_path / "m.json", "--no-pg")
    assert [{**one} for one in json.loads(grown.stdout)["annotations"]] == json.loads(by_hier.stdout)["annotations"]


def test_options_of_prediction(run: Path, scenes: Path, ovs: Run) -> None:
    begin = ("ovs-predict", "--checkpoint", run, "--device", "cpu", scenes / "images" / "00000.png")
    one = json.loads(ovs(*begin, "--max", 1, "--min-score", 0.0001).stdout)
    assert len(one["annotations"]) <= 1
    several = ovs(*begin, "--scales", "1,2", "--size", 64)
    assert several.returncode == 0, several.stderr.decode()
    done = ovs(*begin, "--scales", "1,2", "--hier", "head")
    assert done.returncode == 2
    one_line(done, "--hier coverage")


def test_options_of_prediction_by_the_names_of_their_flags(run: Path, scenes: Path, ovs: Run, tmp_path: Path) -> None:
    """--max and --ancestor-threshold are not what the function calls them."""
    begin = ("ovs-predict", "--checkpoint", run, "--device", "cpu", scenes / "images" / "00000.png", "-q")
    wanted = ovs(*begin, "--max", 2, "--ancestor-threshold", 0.1)
    assert "--max 2 --ancestor-threshold 0.1" in json.loads(wanted.stdout)["info"]["ovskit"]["pg"][0]["command"]
    (tmp_path / "c.toml").write_text("[predict]\nmax = 2\nancestor-threshold = 0.1\n")
    for done in (
        ovs(*begin, "--config", tmp_path / "c.toml"),
        ovs(*begin, env={"OVS_MAX": "2", "OVS_ANCESTOR_THRESHOLD": "0.1"}),
        ovs(*begin, env={"OVS_PREDICT_MOST": "2", "OVS_PREDICT_THRESHOLD": "0.1"}),
    ):
        assert (done.returncode, done.stdout) == (0, wanted.stdout), done.stderr


def test_correction_goes_on_from_a_run(run: Path, scenes: Path, ovs: Run, tmp_path: Path) -> None:
    begin = ("ovs-train", "correct", scenes / "pseudo.json", "--images", scenes / "images")
    done = ovs(*begin, "--from", run, "-o", tmp_path / "run", "--steps", 2, "--threshold", "fixed", *FURTHER, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr.decode()
    training = json.loads((tmp_path / "run" / "training.json").read_text())["training"]
    assert training["correct"]["threshold"] == "fixed"
    assert training["settings"]["side"] == 64
    losses = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])["losses"]
    assert {"initial", "teacher", "teacher small", "teacher medium", "teacher large"} < set(losses)
    predicted = ovs("ovs-predict", "--checkpoint", tmp_path / "run", "--device", "cpu", scenes / "images" / "00000.png")
    assert predicted.returncode == 0, predicted.stderr.decode()
    done = ovs(*begin, "--from", run, "-o", tmp_path / "other", "--set", "queries=9", *FURTHER, env=ONE_THREAD)
    assert done.returncode == 2
    one_line(done, "stay as they are")


def test_evaluation_keeps_the_best(scenes: Path, ovs: Run, tmp_path: Path) -> None:
    done = ovs(
        "ovs-train", "segment", scenes / "pseudo.json", "--images", scenes / "images", "-o", tmp_path / "run", "--steps", 2, *TINY,
        "--eval", scenes / "truth.json", "--eval-root", scenes / "images", "--eval-every", 1, "--eval-limit", 2, env=ONE_THREAD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "run" / "best" / "model.safetensors").exists()
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert ["AR@1000" in str(line) for line in lines] == [False, True, False, True]


def test_inputs_that_are_not_named(scenes: Path, ovs: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for arguments, words in (
        (("segment",), "no masks"),
        (("segment", scenes / "pseudo.json"), "--images"),
        (("segment", scenes / "pseudo.json", "--images", scenes / "images"), "-o RUN"),
        (("correct", scenes / "pseudo.json", "--images", scenes / "images", "-o", tmp_path / "run"), "--from RUN"),
        (("segment", "-", "--images", scenes / "images", "-o", tmp_path / "run"), "are read twice"),
        (("segment", tmp_path / "pipe", "--images", scenes / "images", "-o", tmp_path / "run"), "are read twice"),
        (("correct", scenes / "pseudo.json", "--from", tmp_path, "-o", tmp_path / "run", "--set", "foo=1"), "teacher, size, queries"),
    ):
        done = ovs("ovs-train", *arguments)
        assert done.returncode == 2
        one_line(done, words)
    done = ovs("ovs-predict", scenes / "images")
    assert done.returncode == 2
    one_line(done, "--checkpoint RUN")


def test_masks_that_do_not_fit_their_images(scenes: Path, ovs: Run, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for k in range(3):
        (few / f"{k:05d}.png").write_bytes((scenes / "images" / f"{k:05d}.png").read_bytes())
    begin = ("ovs-train", "segment", scenes / "pseudo.json", "--images", few, "--steps", 2, *TINY)
    done = ovs(*begin, "-o", tmp_path / "run", env=ONE_THREAD)
    assert done.returncode == 66
    one_line(done, "0000", "pseudo.json")
    done = ovs(*begin, "-o", tmp_path / "run", "--on-error", "skip", env=ONE_THREAD)
    assert done.returncode == 3, done.stderr.decode()
    assert b"skipped 1 image that" in done.stderr
    assert b"; 3 done" in done.stderr
    whole = (few / "00000.png").read_bytes()
    (few / "00000.png").write_bytes(whole[:20])
    done = ovs(*begin, "-o", tmp_path / "one", "--on-error", "skip", env=ONE_THREAD)
    assert b"skipped 2 images" in done.stderr
    assert b"; 2 done" in done.stderr
    (few / "00000.png").write_bytes(whole)
    for path in few.iterdir():
        Pillow.open(path).resize((70, 64)).save(path)
    done = ovs(*begin, "-o", tmp_path / "other", "--on-error", "skip", env=ONE_THREAD)
    assert done.returncode == 65
    assert b"70" in done.stderr.splitlines()[-1]
    assert b"Traceback" not in done.stderr


def test_no_annotations_at_all(scenes: Path, ovs: Run, tmp_path: Path) -> None:
    document = json.loads((scenes / "pseudo.json").read_text())
    (tmp_path / "none.json").write_text(json.dumps({**document, "annotations": []}))
    done = ovs("ovs-train", "segment", tmp_path / "none.json", "--images", scenes / "images", "-o", tmp_path / "run", *TINY, env=ONE_THREAD)
    assert done.returncode == 65
    assert b"none.json" in done.stderr.splitlines()[-1]


def test_checkpoints_that_are_none(run: Path, scenes: Path, ovs: Run, tmp_path: Path) -> None:
    def predict(folder: Path) -> object:
        return ovs("ovs-predict", "--checkpoint", folder, "--device", "cpu", scenes / "images", "-o", tmp_path / "m.json")

    done = predict(tmp_path / "nowhere")
    assert done.returncode == 66
    one_line(done, "nowhere")
    broken = tmp_path / "broken"
    broken.mkdir()
    whole = (run / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(whole[:-100])
    done = predict(broken)
    assert done.returncode == 65
    one_line(done, "not a complete safetensors file")
    (broken / "model.safetensors").write_bytes((run / "checkpoint.safetensors").read_bytes())
    done = predict(broken)
    assert done.returncode == 65
    one_line(done, "checkpoint")
    assert not (tmp_path / "m.json").exists()


def test_two_processes_are_one_with_twice_the_batch(scenes: Path, environment: dict[str, str], ovs: Run, tmp_path: Path) -> None:
    """As torchrun starts them, over gloo."""
    tiny = [*TINY, "--lr", "1e-3", "--steps", "3"]
    begin = ["segment", str(scenes / "pseudo.json"), "--images", str(scenes / "images"), *tiny]
    done = ovs("ovs-train", *begin, "--accumulate", "2", "-o", tmp_path / "one", env=ONE_THREAD)
    assert done.returncode == 0, done.stderr.decode()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {**environment, **ONE_THREAD, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [command("ovs-train"), *begin, "-o", str(tmp_path / "two")],
            env={**shared, "RANK": str(k), "LOCAL_RANK": str(k)},
            stderr=subprocess.PIPE,
        )
        for k in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors.decode()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)
