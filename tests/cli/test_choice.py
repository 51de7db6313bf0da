"""A command whose methods are chosen by the options that are given, instead of by a flag."""

from collections.abc import Mapping
from typing import Annotated, Any

import pytest
import typer

from ovskit.cli.command import OvsApp
from ovskit.cli.expand import Choice
from ovskit.core.runtime.declared import Effect
from ovskit.core.runtime.methods import ChosenMethod, GivenBy, Method, Registry
from ovskit.core.runtime.settings import REQUIRED, Options, option


class ByCount(Options):
    """Needs a count."""

    count: int = option(REQUIRED, "How many.", flag=True, low=1, metavar="N")
    seed: int = option(0, "Random seed.", flag=True, effect=Effect(lambda g: g["count"] is not None, "is for --count alone"))


class ByName(Options):
    """Needs a name."""

    name: str = option(REQUIRED, "Which.", flag=True, metavar="NAME")
    loud: bool = option(False, "Shout.", flag=True)
    pitch: float = option(1.0, "How high.", low=0)


TOYS = Registry("toys", "", ())
TOYS._all = True
for one in (Method("count", "counts.", ByCount, print), Method("name", "names.", ByName, print)):
    TOYS._loaded[one.name] = one


def asked(given: Mapping[str, Any]) -> str:
    return "name" if "name" in given else "count"


found: list[ChosenMethod] = []
app = OvsApp("ovs-toys", examples=[])


@app.ovs_command()
def toys(ctx: typer.Context, chosen: Annotated[ChosenMethod, Choice(TOYS, "count,name", by=asked)]) -> None:
    """Play."""
    found.append(chosen)


def run(*words: str) -> int:
    code = app.click_command().main(list(words), prog_name="ovs-toys", standalone_mode=False)
    return int(code or 0)


def test_the_option_that_is_given_chooses() -> None:
    assert run("--count", "3") == 0
    assert (found[-1].name, found[-1].options) == ("count", ByCount(3))
    assert found[-1].given == {"count": GivenBy.FLAG}
    assert run("--name", "a", "--loud", "--set", "pitch=2") == 0
    assert (found[-1].name, found[-1].options) == ("name", ByName("a", True, 2.0))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "count needs --count N"),
        (("--count", "3", "--loud"), "--loud has no effect with count"),
        (("--name", "a", "--seed", "3"), "--seed is for --count alone"),
    ],
)
def test_what_has_no_effect_is_refused(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 2
    assert said in capsys.readouterr().err


def test_what_the_environment_says_is_for_the_method_that_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVS_TOYS_SEED", "4")
    assert run("--name", "a") == 0
    assert run("--count", "3") == 0
    assert found[-1].options == ByCount(3, 4)


def test_no_flag_chooses_among_them() -> None:
    assert not any("--method" in parameter.opts for parameter in app.click_command().params)
