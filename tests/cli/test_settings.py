"""Options from the environment and from a TOML file: every option of every command by the name of its flag."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from ovskit.cli.settings import (
    COMMANDS,
    declared_of,
    flag_of,
    is_setting,
    options_of,
    parse_error,
    variables_of,
    word_of,
)

from .conftest import Run, one_line
from .test_help import COMMANDS as TOOLS
from .test_help import LEAVES, app_of

# Flags that several commands declare or describe differently and that mean the same: one value is right for all.
ALIKE = {
    "shard": "part of the images, or of their rows",
    "batch_size": "of images or crops, and decides nothing",
    "cache": "a folder for what is prepared, by names that tell it apart",
    "device": "where to compute",
    "layout": "how a folder of label maps is kept",
    "max": "masks of an image at most; a list is ovs-eval's: OVS_EVAL_MAX",
    "model": "the frozen network",
    "min_prob": "below which the best name is not taken",
    "nms": "the IoU above which the worse of two masks goes",
    "precision": "of computing; fp16 is ovs-train's: OVS_TRAIN_PRECISION",
    "seed": "of whatever is drawn",
    "weights": "a file of weights instead of those that are found by the model's name",
    "void": "ids of label maps that are not classes",
}


CLICKS = {leaf.name: leaf.click for tool in TOOLS for leaf in app_of(tool).leaves()}
TRAIN = app_of("ovs-train").click_command()


def paths() -> Iterator[tuple[str, tuple[str, ...], Any]]:
    """Every command and subcommand: as it is typed, by its names, and what its parser sees."""
    for name, click in CLICKS.items():
        yield name, tuple(name.removeprefix("ovs-").split()), click


OPTIONS = {(name, word_of(option)): option for name, _, click in paths() for option in options_of(click) if is_setting(option)}


def environment(option: Any) -> str:
    """Whether the environment sets an option: always, by command, never."""
    declared = declared_of(option)
    return "never" if declared is None else declared.environment


def another_value(option: Any) -> tuple[str, Any]:
    """A value that is not the default, as text and as the parser gives it."""
    declared = declared_of(option)
    assert declared is not None
    if declared.choices:
        choice = next(choice for choice in reversed(declared.choices) if choice != declared.default)
        return str(choice), choice if isinstance(choice, str) else str(choice)
    if declared.kind is bool:
        return ("false", False) if option.default else ("true", True)
    if declared.parse is None and declared.kind in (int, float):
        low, high = declared.low or 0, declared.high or 1000
        values = (declared.kind(value) for value in (low + (high - low) / 2, low + (high - low) / 4))
        value = next(value for value in values if value != declared.default)
        return str(value), value
    return ("a=1", ["a=1"]) if option.multiple else ("text", Path("text") if declared.kind is Path else "text")


def is_plain(option: Any) -> bool:
    """Whether TOML has the values of an option without quotes."""
    declared = declared_of(option)
    return declared is not None and declared.parse is None and not declared.choices and declared.kind in (bool, int, float)


def parsed(name: str, words: list[str]) -> Any:
    tool, *sub = name.split()
    parent = TRAIN.make_context(tool, sub) if sub else None
    return CLICKS[name].make_context(name, list(words), parent=parent)  # which takes them off the list


REQUIRED = {"ovs-eval": ["--gt", "truth"]}


@pytest.mark.parametrize("name", LEAVES)
def test_every_option_hears_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = name.removeprefix("ovs-").split()
    for (command, word), option in OPTIONS.items():
        if command != name:
            continue
        text, value = another_value(option)
        flags = [(word, text, value), (option.name, text, value)]
        if option.secondary_opts:
            flags.append((option.secondary_opts[0].removeprefix("--").replace("-", "_"), text, not value))
        for heard, given, wanted in flags:
            prefixes = ["_".join(["OVS", *path[:k]]) for k in range(len(path) + 1)]
            for k, prefix in enumerate(prefixes):
                with monkeypatch.context() as patch:
                    variable = f"{prefix}_{heard}".upper()
                    patch.setenv(variable, given)
                    found = parsed(name, REQUIRED.get(name, [])).params[option.name]
                    alone = k == 0 and (environment(option) == "by command" or heard == option.name != word)
                    if environment(option) == "never" or alone:
                        assert found != wanted or word == "gt", variable
                    else:
                        assert found == wanted, variable


@pytest.mark.parametrize("name", LEAVES)
def test_every_option_hears_the_file(name: str, tmp_path: Path) -> None:
    path = name.removeprefix("ovs-").split()
    file = tmp_path / "c.toml"
    for (command, word), option in OPTIONS.items():
        if command != name:
            continue
        others = [] if word == "gt" else REQUIRED.get(name, [])
        text, value = another_value(option)
        flags = [(key, text, value) for key in (flag_of(option).removeprefix("--"), word, option.name)]
        if option.secondary_opts:
            flags.append((option.secondary_opts[0].removeprefix("--"), text, not value))
        for key, given, wanted in flags:
            raw = given if is_plain(option) else f'"{given}"'
            for k in range(len(path) + 1):
                table = f"[{'.'.join(path[:k])}]\n" if k else ""
                file.write_text(f"{table}{key} = {raw}\n")
                context = parsed(name, ["--config", str(file), *others])
                assert context.params[option.name] == wanted, file.read_text()
            file.write_text(f"[{'.'.join(path)}]\n{key} = [{raw}]\n")
            assert parsed(name, ["--config", str(file), *others]).params[option.name] == wanted


def declared() -> dict[str, set[Any]]:
    """In how many ways the options of one word are declared."""
    found = defaultdict(set)
    for (_, word), option in OPTIONS.items():
        one = declared_of(option)
        assert one is not None
        found[word].add((str(one.kind), one.choices, one.metavar, one.many, one.low, one.high, one.help))
    return found


def words_that(heard: str) -> set[str]:
    return {word for (_, word), option in OPTIONS.items() if environment(option) == heard}


def test_what_means_different_things_is_by_command() -> None:
    assert not words_that("always") & words_that("by command")  # a word is heard in one way, whichever command has it
    assert not words_that("always") & words_that("never")
    differ = {word for word, forms in declared().items() if len(forms) > 1} - words_that("never")
    assert differ <= words_that("by command") | ALIKE.keys()
    assert not words_that("by command") & ALIKE.keys()
    manual = (Path(__file__).parents[2] / "man" / "common.inc").read_text("utf-8").replace("\\", "")
    for word in words_that("by command"):
        assert re.search(rf"^\.BR? --{word}\b", manual, re.M), word


def test_no_variable_means_two_options() -> None:
    heard = defaultdict(set)
    for _, path, click in paths():
        for option in options_of(click):
            for variable in variables_of(option, path):
                heard[variable].add(word_of(option))
    assert {variable: words for variable, words in heard.items() if len(words) > 1} == {}
    words = declared().keys()
    for _, _, click in paths():
        for option in options_of(click):  # an older name that is another's flag, or that of one with several meanings
            if option.name != word_of(option) and option.name in words:
                assert f"OVS_{option.name}".upper() not in variables_of(option, path)


def test_the_commands_are_all() -> None:
    assert tuple(f"ovs-{name}" for name in COMMANDS) == TOOLS


def test_what_names_one_run_is_not_heard() -> None:
    named = "output root config images version list_models resume gt segments sheet per_image tree init save from".split()
    assert words_that("never") >= {*named} & declared().keys()
    for _, path, click in paths():
        for option in options_of(click):
            assert bool(variables_of(option, path)) != (environment(option) == "never")
            assert is_setting(option) or not variables_of(option, path)


# Through the commands


def test_a_method_is_of_one_stage(ovs: Run, features: Path, masks: Path) -> None:
    plain = ovs("ovs-cluster", features, "--no-local")
    done = ovs("ovs-cluster", features, "--no-local", env={"OVS_METHOD": "guided", "OVS_REFINE_METHOD": "none"})
    assert (done.returncode, done.stdout) == (0, plain.stdout)
    one_line(done, "OVS_METHOD has no effect", "write OVS_CLUSTER_METHOD")
    done = ovs("ovs-refine", masks, env={"OVS_METHOD": "kmeans", "OVS_REFINE_METHOD": "none"})
    assert (done.returncode, done.stderr) == (0, b"")  # there is nothing to be said: the particular name goes before
    assert done.stdout == ovs("ovs-refine", masks, "--method", "none").stdout
    done = ovs("ovs-refine", masks, "--method", "none", env={"OVS_METHOD": "kmeans"})
    assert (done.returncode, done.stderr) == (0, b"")


def test_settings_of_a_method_from_a_file(ovs: Run, features: Path, masks: Path, tmp_path: Path) -> None:
    words = ("ovs-cluster", features, "--method", "kmeans", "-k", 3)
    wanted = ovs(*words, "--set", "iterations=2", "--set", "restarts=3").stdout
    assert wanted != ovs(*words).stdout
    file = tmp_path / "c.toml"
    for text in (
        '[cluster]\nset = ["iterations=2", "restarts=3"]',
        "[cluster]\nset = {iterations = 2, restarts = 3}",
        "[cluster.set]\niterations = 2\nrestarts = 3",
        "[set]\niterations = 2\nrestarts = 3",
        '[cluster]\nsetting = ["iterations=2", "restarts=3"]',
    ):
        file.write_text(text)
        done = ovs(*words, "--config", file)
        assert done.returncode == 0, done.stderr
        assert done.stdout == wanted, text
    assert ovs(*words, env={"OVS_CLUSTER_SET": "iterations=2 restarts=3"}).stdout == wanted
    file.write_text("[refine]\nmethod = ['guided']\nmin-iou = 0.4\nno-fill-holes = true\n[refine.set.guided]\nradius = 3\n")
    done = ovs("ovs-refine", masks, "--config", file)
    assert done.returncode == 0, done.stderr
    flags = ("--method", "guided", "--set", "guided.radius=3", "--min-iou", 0.4, "--no-fill-holes")
    assert done.stdout == ovs("ovs-refine", masks, *flags).stdout


@pytest.mark.parametrize(
    ("tool", "text", "env", "words"),
    [
        ("ovs-cluster", "", {"OVS_CLUSTER_METHOD": "best"}, ["--method best: choose from sohes", "--method is from OVS_CLUSTER_METHOD"]),
        ("ovs-cluster", "[cluster]\nnms = 3", {}, ["--nms 3 (from [cluster] in FILE)", "a number from 0 to 1"]),
        ("ovs-cluster", "min-patches = 'x'", {}, ["--min-patches x (from FILE)", "a whole number from 1 up"]),
        ("ovs-cluster", "", {"OVS_THRESHOLDS": "high"}, ["--thresholds high: write", "--thresholds is from OVS_THRESHOLDS"]),
        ("ovs-cluster", "[cluster]\nset = {k = 1}\nmethod = 'kmeans'", {}, ["--set k=1", "--set is from [cluster] in FILE"]),
        ("ovs-cluster", "[cluster]\nfrom = 'none.npz'\nmethod = 'lightcluster'", {}, ["none.npz", "--from is from [cluster] in FILE"]),
        ("ovs-refine", "", {"OVS_REFINE_METHOD": "foo"}, ["--method foo: choose from snap", "--method is from OVS_REFINE_METHOD"]),
        ("ovs-refine", "[refine.set.guided]\nradius = 'x'", {}, ["--set guided.radius=x", "--set is from [refine] in FILE"]),
        ("ovs-refine", "[refine]\njoint = 'perhaps'", {}, ["--joint perhaps (from [refine] in FILE): give true or false"]),
        ("ovs-train backbone", "[train]\nlr = -1", {}, ["--lr -1: give a number above 0", "--lr is from [train] in FILE"]),
        ("ovs-train backbone", "", {"OVS_TRAIN_BACKBONE_STEPS": "0"}, ["--steps 0 (from OVS_TRAIN_BACKBONE_STEPS)", "from 1 up"]),
        ("ovs-train backbone -o r", "[train.set]\ncrop = 40", {}, ["--set crop=40: give a multiple", "--set is from [train] in FILE"]),
        ("ovs-eval --gt x", "", {"OVS_EVAL_MAX": "x"}, ["--max x", "--max is from OVS_EVAL_MAX"]),
        ("ovs-cluster", "nmss = 1", {}, ["'nmss' is not an option of any command", "nms?"]),
        ("ovs-cluster", "[clustr]\nnms = 1", {}, ["[clustr] is not a command", "cluster?"]),
        ("ovs-cluster", "[cluster]\nmax = 1", {}, ["[cluster] has 'max'", "not an option of ovs-cluster"]),
        ("ovs-cluster", "train = 3", {}, ["[train] must be a table"]),
        ("ovs-cluster", "[cluster]\nconfig = 'x'", {}, ["[cluster] has 'config'"]),
        ("ovs-cluster", "[cluster]\nset = 1\nsetting = 2", {}, ["--set twice"]),
        ("ovs-cluster", "[cluster.nms]\nx = 1", {}, ["[cluster] nms: give a value, not a table"]),
        ("ovs-train segment", "[train.segment.images]\nx = 1", {}, ["give a list, not a table"]),
    ],
)  # fmt: skip
def test_what_is_wrong_and_where_it_comes_from(
    ovs: Run, features: Path, tmp_path: Path, tool: str, text: str, env: dict[str, str], words: list[str]
) -> None:
    (tmp_path / "c.toml").write_text(text)
    name, *more = tool.split()
    done = ovs(name, *more, features, *(["--config", "c.toml"] if text else []), env=env, cwd=tmp_path)
    assert done.returncode == (66 if "none.npz" in words else 2), done.stderr
    said = one_line(done, *(word.replace("FILE", "c.toml") for word in words))
    assert "Value error" not in said
    assert "Input should" not in said


@pytest.mark.parametrize("name", LEAVES)
def test_what_cannot_be_read_is_said_in_our_words(name: str) -> None:
    for option in options_of(CLICKS[name]):
        if option.is_flag or option.count or not is_setting(option):
            continue
        for bad in ("", "nan", "x", "-1", "1e400"):
            words = [f"{flag_of(option)}={bad}", *([] if word_of(option) == "gt" else REQUIRED.get(name, []))]
            try:
                parsed(name, words)
            except typer.BadParameter as error:
                said = parse_error(error)
                assert said.startswith(f"{flag_of(option)}"), said
                assert re.search(r": (choose|give) ", said), said
                assert "nput should" not in said
                assert "alue error" not in said


def test_what_a_terminal_would_act_on_is_escaped(ovs: Run) -> None:
    done = ovs("ovs-cluster", "--nms", "\x1b[31m")
    assert done.returncode == 2
    one_line(done, "--nms \\x1b[31m: give a number from 0 to 1")


def test_a_file_for_several_commands(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        "max = 10\neval = 'gt.json'\nworkers = 2\n[train]\nbackbone = 'timm:x'\n[train.dino]\nsteps = 3\n"
        "[predict]\nmax = 20\n[cluster]\nk = 4\nj = 3\n"
    )
    config = ["--config", str(file)]
    assert parsed("ovs-predict", config).params["most"] == 20
    assert parsed("ovs-eval", [*config, "--gt", "x"]).params["maxima"] == "10"
    assert parsed("ovs-train segment", config).params["backbone"] == "timm:x"
    assert parsed("ovs-train segment", config).params["truth"] == "gt.json"
    assert parsed("ovs-train dino", config).params["steps"] == 3
    cluster = parsed("ovs-cluster", config).params
    assert (cluster["clusters"], cluster["workers"]) == (4, 3)
