"""ovs-train as users run it: stopped, resumed, misused."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from ovskit.core.eval.truth_sample import TruthSample
from ovskit.core.formats.streams.masks import open_masks
from ovskit.core.train.engine.checkpoint import read_checkpoint

from .conftest import Run, command, one_line

# The smallest network and images that the recipe takes.
TINY = (
    "--batch 2 --device cpu --warmup 2 --schedule constant --log-every 1 -q -j 1 --set widths=8,8,8,8 --set blocks=1,1,1,1 --set pyramid=8 "
    "--set embedding=8 --set crop=64 --set shorter_side=96 --set scales=250,1000 --set anchors=4 --set negatives=16 --set queue=16"
).split()
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs here keep the prepared images."""
    return tmp_path_factory.mktemp("cache") / "cache"


def model(folder: Path) -> dict[str, bytes]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name).numpy().tobytes() for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def whole(process: Run, images: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five steps in one go."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = process("ovs-train", "backbone", images, "-o", folder, "--cache", cache, "--steps", 5, *TINY, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr.decode()
    assert (done.stdout, done.stderr) == (b"", b"")
    return folder


def test_a_run_leaves_its_files(whole: Path, cache: Path) -> None:
    assert sorted(path.name for path in whole.iterdir()) == ["checkpoint.safetensors", "log.jsonl", "model.safetensors"]
    assert cache.is_dir()
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["learning_rate"] for line in lines] == [0.001, 0.002, 0.002, 0.002, 0.002]
    (entry,) = read_checkpoint(whole / "checkpoint.safetensors").pg
    assert entry["tool"] == "ovs-train"
    assert entry["command"].startswith("ovs-train backbone ")
    assert "--set crop=64" in entry["command"]


def test_three_steps_and_two_more(ovs: Run, images: Path, cache: Path, whole: Path, tmp_path: Path) -> None:
    begin = ("ovs-train", "backbone", images, "-o", tmp_path / "run", "--cache", cache, "--resume", *TINY)
    for steps in (3, 5):
        done = ovs(*begin, "--steps", steps, env=ONE_THREAD)
        assert done.returncode == 0, done.stderr.decode()
    assert model(tmp_path / "run") == model(whole)
    one, two = (read_checkpoint(folder / "checkpoint.safetensors").tensors for folder in (whole, tmp_path / "run"))
    assert {name: tensor.numpy().tobytes() for name, tensor in one.items()} == {
        name: tensor.numpy().tobytes() for name, tensor in two.items()
    }


def test_pieces_end_with_three(ovs: Run, images: Path, cache: Path, whole: Path, tmp_path: Path) -> None:
    begin = ("ovs-train", "backbone", images, "-o", tmp_path / "run", "--cache", cache, "--steps", 5, *TINY)
    done = ovs(*begin, "--minutes", "0.00001", env=ONE_THREAD)
    assert done.returncode == 3
    assert "step 1 of 5" in one_line(done, "--resume")
    assert ovs(*begin, "--resume", env=ONE_THREAD).returncode == 0
    assert model(tmp_path / "run") == model(whole)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_checkpoint(
    environment: dict[str, str], ovs: Run, images: Path, cache: Path, tmp_path: Path, number: int, status: int
) -> None:
    folder = tmp_path / "run"
    words = ["backbone", str(images), "-o", str(folder), "--cache", str(cache), "--steps", "100000", *TINY]
    process = subprocess.Popen([command("ovs-train"), *words], stderr=subprocess.PIPE, env={**environment, **ONE_THREAD})
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if (folder / "log.jsonl").exists() and (folder / "log.jsonl").read_text().count("\n") >= 3:
                break
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == status, errors.decode()
    assert b"Traceback" not in errors
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    (line,) = errors.decode().splitlines()
    assert f"ted; stopped at step {last['step']} of 100000 with a checkpoint; the same command with --resume goes on" in line
    assert read_checkpoint(folder / "checkpoint.safetensors").step == last["step"] >= 3
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.safetensors", "log.jsonl"]


def test_lines_of_losses_where_no_terminal_is(ovs: Run, images: Path, cache: Path, tmp_path: Path) -> None:
    words = [word for word in TINY if word != "-q"]
    done = ovs("ovs-train", "backbone", images, "-o", tmp_path / "run", "--cache", cache, "--steps", 2, *words)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.decode().splitlines()
    assert [line[: line.index(", ")].rsplit(" ", 1)[0] for line in lines] == ["ovs-train: step 1/2: loss", "ovs-train: step 2/2: loss"]
    assert "\x1b" not in done.stderr.decode()


def test_a_run_is_not_overwritten(ovs: Run, images: Path, whole: Path) -> None:
    before = (whole / "checkpoint.safetensors").read_bytes()
    done = ovs("ovs-train", "backbone", images, "-o", whole, "--steps", 9)
    assert done.returncode == 2
    one_line(done, str(whole), "--resume", "another folder")
    assert (whole / "checkpoint.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--seed", "4"], ["seed (0, now 4)"]),
        (["--lr", "0.01", "--set", "within=0.25"], ["settings.within (0.5, now 0.25)", "learning_rate (0.002, now 0.01)"]),
        (["--accumulate", "2"], ["batches_per_step (1, now 2)"]),
    ],
)
def test_other_settings_are_refused(ovs: Run, images: Path, cache: Path, whole: Path, changes: list[str], words: list[str]) -> None:
    done = ovs("ovs-train", "backbone", images, "-o", whole, "--cache", cache, "--steps", 9, "--resume", *TINY, *changes)
    assert done.returncode == 65
    one_line(done, "checkpoint.safetensors", "other settings", *words)


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"cut"])
def test_a_broken_checkpoint(ovs: Run, images: Path, cache: Path, whole: Path, tmp_path: Path, content: bytes) -> None:
    if content == b"cut":
        content = (whole / "checkpoint.safetensors").read_bytes()[:-7]
    (tmp_path / "checkpoint.safetensors").write_bytes(content)
    done = ovs("ovs-train", "backbone", images, "-o", tmp_path, "--cache", cache, "--steps", 5, "--resume", *TINY)
    assert done.returncode == 65
    one_line(done, "checkpoint.safetensors")
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == content


def test_a_model_is_no_checkpoint(ovs: Run, images: Path, cache: Path, tmp_path: Path, whole: Path) -> None:
    save_file(read_checkpoint(whole / "checkpoint.safetensors").tensors, tmp_path / "checkpoint.safetensors")
    done = ovs("ovs-train", "backbone", images, "-o", tmp_path, "--cache", cache, "--steps", 5, "--resume", *TINY)
    assert done.returncode == 65
    one_line(done, "not a checkpoint of ovs-train")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, ["Missing command", "ovs-train --help"]),
        (["spine"], 2, ["spine", "ovs-train --help"]),
        (["backbone", "--stepps", "3"], 2, ["--steps", "ovs-train backbone --help"]),
        (["backbone", "IMAGES"], 2, ["-o RUN"]),
        (["backbone", "IMAGES", "-o", "-"], 2, ["-o RUN"]),
        (["backbone", "absent", "-o", "RUN"], 66, ["absent"]),
        (["backbone", "IMAGES", "-o", "RUN", "--steps", "0"], 2, ["--steps"]),
        (["backbone", "IMAGES", "-o", "RUN", "--set", "crop"], 2, ["NAME=VALUE"]),
        (["backbone", "IMAGES", "-o", "RUN", "--set", "crops=3"], 2, ["crop", "temperature"]),
        (["backbone", "IMAGES", "-o", "RUN", "--set", "crop=big"], 2, ["whole number"]),
        (["backbone", "IMAGES", "-o", "RUN", "--lr", "nan"], 2, ["--lr", "above 0"]),
        (["backbone", "IMAGES", "-o", "RUN", "--lr", "0"], 2, ["--lr", "above 0"]),
        (["backbone", "IMAGES", "-o", "RUN", "--minutes", "0"], 2, ["--minutes", "above 0"]),
        (["backbone", "IMAGES", "-o", "RUN", "--clip", "inf"], 2, ["--clip", "from 0 up"]),
        (["backbone", "IMAGES", "-o", "RUN", "--device", "cuda:99"], 2, ["CUDA"]),
        (["backbone", "IMAGES", "-o", "RUN", "--device", "cpu", "--precision", "fp16"], 2, ["bf16"]),
        (["backbone", "IMAGES", "-o", "FILE"], 2, ["is a file"]),
    ],
)
def test_misuse(ovs: Run, images: Path, tmp_path: Path, arguments: list[str], status: int, words: list[str]) -> None:
    (tmp_path / "file").write_bytes(b"")
    places = {"IMAGES": str(images), "RUN": str(tmp_path / "run"), "FILE": str(tmp_path / "file")}
    done = ovs("ovs-train", *(places.get(word, word) for word in arguments))
    assert done.returncode == status, done.stderr
    one_line(done, *words)
    assert not (tmp_path / "run").exists()


# Settings


def test_precedence_of_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subcommand's options come from flag, environment and its tables, in this order."""
    from ovskit.cli.train import app

    config = tmp_path / "c.toml"
    group = app.click_command()

    def steps(text: str, *flags: str) -> int:
        config.write_text(text)
        parent = group.make_context("ovs-train", ["backbone"])
        words = ["--config", str(config), *flags]
        found: int = group.commands["backbone"].make_context("backbone", words, parent=parent).params["steps"]
        return found

    assert steps("steps = 1") == 1
    assert steps("steps = 1\n[train]\nsteps = 2\n[cluster]\nsteps = 7") == 2
    assert steps("steps = 1\n[train]\nsteps = 2\n[train.backbone]\nsteps = 3") == 3
    monkeypatch.setenv("OVS_BACKBONE_STEPS", "7")  # the command's name is train
    assert steps("[train.backbone]\nsteps = 3") == 3
    monkeypatch.setenv("OVS_STEPS", "4")
    assert steps("[train.backbone]\nsteps = 3") == 4
    monkeypatch.setenv("OVS_TRAIN_STEPS", "5")
    assert steps("[train.backbone]\nsteps = 3") == 5
    monkeypatch.setenv("OVS_TRAIN_BACKBONE_STEPS", "6")
    assert steps("[train.backbone]\nsteps = 3") == 6
    assert steps("[train.backbone]\nsteps = 3", "--steps", "7") == 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[train]\nstepps = 3", ["[train]", "stepps", "ovs-train"]),
        ("[train.backbone]\nstepps = 3", ["[train.backbone]", "stepps", "ovs-train backbone"]),
        ("[train]\nbackbone = 3", ["[train.backbone]", "table"]),
        ("train = 3", ["[train]", "table"]),
    ],
)
def test_a_config_that_does_not_fit(ovs: Run, images: Path, tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "c.toml").write_text(text)
    done = ovs("ovs-train", "backbone", images, "-o", tmp_path / "run", "--config", tmp_path / "c.toml")
    assert done.returncode == 2
    one_line(done, *words)


def test_evaluation_is_logged_and_changes_nothing(ovs: Run, images: Path, masks: Path, cache: Path, whole: Path, tmp_path: Path) -> None:
    begin = ("ovs-train", "backbone", images, "-o", tmp_path / "run", "--cache", cache, "--steps", 5, *TINY)
    done = ovs(*begin, "--eval", masks, "--eval-root", images, "--eval-every", 3, "--eval-limit", 1, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr.decode()
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    scores = [line for line in lines if "AR@1000" in str(line)]
    assert [line["step"] for line in scores] == [3, 5]
    assert "AR@10" in str(scores[0])
    assert model(tmp_path / "run") == model(whole)


def test_evaluation_needs_its_photographs(ovs: Run, images: Path, masks: Path, tmp_path: Path) -> None:
    begin = ("ovs-train", "backbone", images, "-o", tmp_path / "run", *TINY)
    done = ovs(*begin, "--eval-every", 3)
    assert done.returncode == 2
    one_line(done, "--eval GT.json")
    done = ovs(*begin, "--eval", masks, "--eval-root", tmp_path, env=ONE_THREAD)
    assert done.returncode == 66
    one_line(done, "scene-0.png")
    done = ovs(*begin, "--eval", tmp_path / "none.json")
    assert done.returncode == 66
    one_line(done, "none.json")
    value = json.loads(masks.read_bytes())
    crowds = tmp_path / "crowds.json"
    crowds.write_text(json.dumps({**value, "annotations": [{**one, "iscrowd": 1} for one in value["annotations"]]}))
    done = ovs(*begin, "--eval", crowds, "--eval-root", images, env=ONE_THREAD)
    assert done.returncode == 65
    one_line(done, "crowds.json", "nothing to find")
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_evaluation_on_lvis_is_without_ap(images: Path, masks: Path, tmp_path: Path) -> None:
    """Of what nobody was asked to annotate, AP without categories counts right masks as wrong."""
    value = json.loads(masks.read_bytes())
    path = tmp_path / "lvis.json"
    for listed, names in (
        (value["images"], ["AR@10", "AR@1000", "AP"]),
        ([{**one, "neg_category_ids": []} for one in value["images"]], ["AR@10", "AR@1000"]),
    ):
        path.write_text(json.dumps({**value, "images": listed}))
        with open(masks, "rb") as stream:
            scores = TruthSample(str(path), str(images), 5).score(open_masks(stream, "masks")[1])
        assert list(scores) == names


# dino

TINY_DINO = (
    "--batch 2 --device cpu --warmup 2 --log-every 1 -q -j 1 --set arch=test_vit --set global_crop=32 --set local_crop=16 "
    "--set local_crops=2 --set shorter_side=64 --set hidden=16 --set bottleneck=8 --set prototypes=16 --set freeze_last=1"
).split()


def test_dino_makes_weights_that_features_come_from(process: Run, ovs: Run, images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = process("ovs-train", "dino", images, "-o", folder, "--steps", 4, *TINY_DINO, env=ONE_THREAD)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert sorted(path.name for path in folder.iterdir()) == ["cache", "checkpoint.safetensors", "log.jsonl", "model.safetensors"]
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert set(lines[0]["losses"]) == {"loss", "entropy", "divergence"}
    weights = ("--model", "timm:test_vit", "--weights", folder / "model.safetensors")
    done = ovs("ovs-extract", *weights, "--facet", "key", "--cls", "--size", 64, images, "-o", tmp_path / "features.npz", env=ONE_THREAD)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("arch=test_vitt", ["arch", "did you mean test_vit?"]),
        ("global_crop=40", ["global_crop 40", "multiple of 16"]),
    ],
)
def test_dino_misused(ovs: Run, images: Path, tmp_path: Path, setting: str, words: list[str]) -> None:
    done = ovs("ovs-train", "dino", images, "-o", tmp_path / "run", *TINY_DINO, "--set", setting, env=ONE_THREAD)
    assert done.returncode == 2
    one_line(done, *words)
    assert not (tmp_path / "run").exists()
