"""What a run says of itself: options that decide the result are named, all others change no byte of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from ovskit.cli.settings import flag_of, options_of, word_of
from ovskit.core.runtime.declared import decides
from tests.scenes import Faults, write_scenes

from .conftest import Run
from .test_help import COMMANDS, app_of
from .test_segmenter import FURTHER
from .test_segmenter import TINY as TINY_SEGMENTER
from .test_train import TINY, TINY_DINO

# Another value of each neutral option, which is given on top of what a run needs anyway. DIR and FILE are replaced.
ANOTHER = {
    "batch_size": "1", "cache": "DIR/cache", "checkpoint_every": "1", "config": "DIR/empty.toml", "device": "cpu", "log_every": "2",
    "max_pixels": "1000000", "minutes": "1000", "on_error": "skip", "per_image": "DIR/images.jsonl", "quiet": None, "resume": None,
    "save": "DIR/centroids.npz", "shard": "0/1", "skip_existing": None, "tree": None, "verbose": None, "workers": "3",
}  # fmt: skip
# Not tried here: they say where things are, or something of their own.
NOT_TRIED = {
    "output": "given in any case",
    "root": "is in the header, and part of names",
    "maps": "writes maps beside the masks; test_predict_names compares them",
    "index_file": "keeps an index, whose recall is in the header",
    "weights": "their hash is in the provenance",
    "no_pg": "leaves all of it out",
    "null": "is of a list on stdin; tried by itself",
    "tensorboard": "needs TensorBoard, which ovskit does not bring",
}
CLICKS = {leaf.name: leaf.click for tool in COMMANDS for leaf in app_of(tool).leaves()}
# Options that change no byte of the result, by their declaration; whether it is true is what these tests try.
NEUTRAL = {
    word_of(option)
    for click in CLICKS.values()
    for option in options_of(click)
    if option.declared is not None and option.expose_value and option.declared.now is None and not decides(option.declared, {})
} | {"config"}
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def test_every_neutral_option_is_tried() -> None:
    assert ANOTHER.keys() | NOT_TRIED.keys() == NEUTRAL


def test_an_option_is_neutral_in_every_command_or_in_none() -> None:
    deciding = {
        word_of(option)
        for click in CLICKS.values()
        for option in options_of(click)
        if option.declared is not None and decides(option.declared, {"eval": "x"})
    }
    assert deciding & NEUTRAL == {"checkpoint_every"}  # which decides when --eval looks, where nothing else does


def others(name: str, given: tuple[Any, ...], folder: Path, *, without: str = "") -> list[str]:
    """All neutral options of a command but those ``given`` or ``without``, with other values than their defaults."""
    folder.mkdir()
    (folder / "empty.toml").write_text("")
    words: list[str] = []
    for option in options_of(CLICKS[name]):
        word = word_of(option)
        if word not in NEUTRAL or word in NOT_TRIED or word in without.split() or {*option.opts} & {*map(str, given)}:
            continue
        value = ANOTHER[word]
        words += [flag_of(option), *([] if value is None else [value.replace("DIR", str(folder))])]
    return words


def check(ovs: Run, tmp_path: Path, name: str, *given: Any, files: tuple[str, ...] = (), without: str = "") -> None:
    """The command writes the same bytes with and without its neutral options, to a file or to ``files`` of a folder."""
    tool, *sub = name.split()
    found = []
    for k in range(2):
        out = tmp_path / f"out-{k}"
        more = others(name, given, tmp_path / "more", without=without) if k else []
        done = ovs(tool, *sub, *given, *more, "-o", out, env=ONE_THREAD)
        assert done.returncode == 0, done.stderr.decode()
        found.append([content(out / file) for file in files] if files else content(out))
    assert found[0] == found[1]


def content(path: Path) -> Any:
    """A file's bytes; of a checkpoint all but how long it took."""
    if path.name != "checkpoint.safetensors":
        return path.read_bytes()
    with safe_open(path, framework="pt") as file:
        about = {key: json.loads(text) if text.startswith("{") else text for key, text in (file.metadata() or {}).items()}
        for value in about.values():
            if isinstance(value, dict):
                value.pop("seconds", None)
        return about, {key: file.get_tensor(key).numpy().tobytes() for key in file.keys()}  # noqa: SIM118


def test_extract(ovs: Run, images: Path, tmp_path: Path) -> None:
    check(ovs, tmp_path, "ovs-extract", images, "--size", 64)
    paths = sorted(images.iterdir())
    lines, nuls = (end.join(str(path).encode() for path in paths) for end in (b"\n", b"\0"))
    assert ovs("ovs-extract", "-0", "--size", 64, stdin=nuls).stdout == ovs("ovs-extract", "--size", 64, stdin=lines).stdout


def test_cluster(ovs: Run, features: Path, tmp_path: Path) -> None:
    check(ovs, tmp_path, "ovs-cluster", features, "--no-local", without="save")
    (tmp_path / "kmeans").mkdir()
    check(ovs, tmp_path / "kmeans", "ovs-cluster", features, *"--method kmeans -k 4 --scope dataset".split())


def test_refine_and_hier(ovs: Run, masks: Path, tmp_path: Path) -> None:
    check(ovs, tmp_path, "ovs-refine", masks, "--method", "guided", "--set", "guided.radius=3")
    (tmp_path / "hier").mkdir()
    check(ovs, tmp_path / "hier", "ovs-hier", masks, without="resume skip_existing")
    plain = ovs("ovs-hier", stdin=masks.read_bytes())
    assert ovs("ovs-hier", "-", stdin=masks.read_bytes()).stdout == plain.stdout
    assert ovs("ovs-hier", stdin=masks.read_bytes(), env={"OVS_TREE": "true"}).stdout == plain.stdout  # which names one run


def test_label_and_eval(ovs: Run, masks: Path, tmp_path: Path) -> None:
    check(ovs, tmp_path, "ovs-label", masks, "--clusters", 3, "--size", 32)
    (tmp_path / "eval").mkdir()
    check(ovs, tmp_path / "eval", "ovs-eval", masks, "--gt", masks, "--json")


def test_what_is_off_is_not_named(ovs: Run, images: Path) -> None:
    begin = ("ovs-extract", images, "--size", 64)
    assert ovs(*begin, env={"OVS_CLS": "false"}).stdout == ovs(*begin).stdout


@pytest.mark.parametrize(
    ("name", "given"),
    [("backbone", [word for word in TINY if word not in ("--log-every", "1", "-q", "-j")]), ("dino", TINY_DINO)],
)
def test_training_from_photographs(ovs: Run, images: Path, tmp_path: Path, name: str, given: list[str]) -> None:
    files = ("model.safetensors", "checkpoint.safetensors")
    check(ovs, tmp_path, f"ovs-train {name}", images, *given, "--steps", 2, files=files)


def test_training_from_masks_and_prediction(ovs: Run, tmp_path: Path) -> None:
    write_scenes(tmp_path, range(3), side=64, faults=Faults())
    begin = (tmp_path / "pseudo.json", "--images", tmp_path / "images", "--steps", 2)
    files = ("model.safetensors", "training.json", "config.json", "checkpoint.safetensors")
    check(ovs, tmp_path, "ovs-train segment", *begin, *TINY_SEGMENTER, files=files)
    run = tmp_path / "out-0"
    for name in ("correct", "predict"):
        (tmp_path / name).mkdir()
    check(ovs, tmp_path / "correct", "ovs-train correct", *begin, "--from", run, *FURTHER, files=files)
    check(ovs, tmp_path / "predict", "ovs-predict", "--checkpoint", run, tmp_path / "images")
