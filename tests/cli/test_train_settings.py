"""What the recipes of ovs-train declare, and the sample files of examples/train/."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from ovskit.cli.train import groups_of
from ovskit.core.models.segmenter.config import KINDS, PLACE_QUERIES, SIZES
from ovskit.core.models.segmenter.network import MULTIPLE
from ovskit.core.runtime.declared import Declared, value_of
from ovskit.core.runtime.settings import fields_of
from ovskit.core.train.engine.devices import PRECISIONS
from ovskit.core.train.engine.options import BETAS, TrainOptions
from ovskit.core.train.engine.schedule import SCHEDULES
from ovskit.core.train.job import TrainMethod
from ovskit.core.train.recipes import TRAIN
from ovskit.core.train.recipes.segment import SegmentSettings

from .test_help import app_of

RECIPES = [method for method in TRAIN if isinstance(method, TrainMethod)]
EXAMPLES = Path(__file__).parents[2] / "examples" / "train"


def declared_of(options: type) -> dict[str, Declared]:
    return {one.name: one for one in fields_of(options)}


@pytest.mark.parametrize("method", RECIPES, ids=lambda method: method.name)
def test_every_setting_says_what_it_is(method: TrainMethod) -> None:
    """The manual is made of this."""
    assert {*declared_of(method.options)} == {*method.options.__dataclass_fields__}
    for one in [*fields_of(method.options), *(one for group in groups_of(method).values() for one in fields_of(group))]:
        assert one.help.endswith("."), one.name
        assert one.default_text is not None or one.default in (None, False, ()), one.name


def test_choices_are_those_that_there_are() -> None:
    run, settings = declared_of(TrainOptions), declared_of(SegmentSettings)
    assert set(run["optimizer"].choices) == set(BETAS)
    assert run["schedule"].choices == SCHEDULES
    assert run["precision"].choices == PRECISIONS
    assert set(settings["size"].choices) == set(SIZES)
    assert f"or {PLACE_QUERIES} where queries begin at places" in settings["queries"].help
    assert f"-1: {KINDS} where" in settings["kinds"].help
    assert (settings["side"].low, settings["side"].multiple) == (MULTIPLE, MULTIPLE)


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_a_sample_file_says_every_default(path: Path) -> None:
    """As the command reads it: with ``--config``."""
    method = next(method for method in RECIPES if method.name == path.stem)
    group = app_of("ovs-train").click_command()
    parent = group.make_context("ovs-train", [method.name])
    params = group.commands[method.name].make_context(method.name, ["--config", str(path)], parent=parent).params
    settings = declared_of(method.options)
    given = dict(text.split("=", 1) for text in params["setting"])
    for name, text in given.items():
        assert value_of(settings[name], text) == settings[name].default, name
    flags = {one.name: one for kind in (method.options, *groups_of(method).values()) for one in fields_of(kind) if one.flags}
    for name, one in flags.items():
        assert params[name] in (one.default, None) or one.many, name
    # Everything is there, if only in a comment, where it has no default or takes the place of another run's.
    lines = path.read_text().splitlines()
    keys = {line.removeprefix("# ").partition(" = ")[0]: k for k, line in enumerate(lines) if " = " in line}
    left_out = {one.word for one in flags.values() if one.environment == "never"}
    fixed = {"size", "queries", "points", "kinds", "backbone", "freeze"} if method.name == "correct" else set()
    assert {*keys} == {*(one.word for one in flags.values()), *settings} - left_out - fixed
    assert all(lines[k - 1].startswith("# ") and lines[k - 1].endswith(".") for k in keys.values())
    said = tomllib.loads(path.read_text())["train"][method.name]
    assert {*said["set"]} == {*given}
    if method.name != "correct":
        assert {*said["set"]} == {name for name, one in settings.items() if not one.flags}
