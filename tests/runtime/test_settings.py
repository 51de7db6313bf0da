"""Options as fields of a class: what a declaration says, checks and reads, and how the class behaves."""

import pickle
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.runtime.declared import decides, fault, text_of, value_of, wanted
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.settings import Options, assignments, fields_of, option, settings_from
from ovskit.core.runtime.values import thresholds


class Toy(Options):
    radius: int = option(8, "Radius.", low=1, high=64, flag=True, short="-r")
    rate: float = option(0.5, "Rate.", above=0)
    side: int = option(64, "Side.", low=32, multiple=32)
    name: str | None = option(None, "Name.", flag="--called")
    shape: Literal["round", "square"] = option("round", "Shape.")
    near: Literal[4, 8] = option(4, "Neighbours.")
    soft: bool = option(True, "Soft.", flag=True, off="--no-soft")
    sizes: tuple[int, ...] = option((1, 2), "Sizes.")
    levels: tuple[float, ...] = option((0.6, 0.5), "Levels.", parse=thresholds, shown="0.6..0.5")
    file: Path | None = option(None, "File.", decides=False)
    own: int = 3  # which a person cannot set

    def check(self) -> None:
        if self.radius > self.side:
            raise UsageError("radius goes beyond the side")


FIELDS = {declared.name: declared for declared in fields_of(Toy)}


def test_what_a_declaration_says() -> None:
    assert "own" not in FIELDS
    assert (FIELDS["radius"].flag, FIELDS["radius"].flags) == ("--radius", ("--radius", "-r"))
    assert FIELDS["rate"].flag is None
    assert (FIELDS["name"].flag, FIELDS["name"].word, FIELDS["name"].kind) == ("--called", "called", str)
    assert FIELDS["near"].choices == (4, 8)
    assert {name: declared.default_text for name, declared in FIELDS.items() if declared.default_text} == {
        "radius": "8", "rate": "0.5", "side": "64", "shape": "round", "near": "4", "sizes": "1,2", "levels": "0.6..0.5",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("radius", "a whole number from 1 to 64"),
        ("rate", "a number above 0"),
        ("side", "a multiple of 32 from 32 up"),
        ("soft", "true or false"),
        ("sizes", "numbers with commas between them"),
    ],
)
def test_what_is_wanted(name: str, said: str) -> None:
    assert wanted(FIELDS[name]) == said


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"radius": 0}, "radius 0: give a whole number from 1 to 64"),
        ({"radius": 65}, "radius 65: give"),
        ({"rate": 0.0}, "rate 0: give a number above 0"),
        ({"rate": float("nan")}, "rate nan: give"),
        ({"rate": float("inf")}, "rate inf: give"),
        ({"side": 48}, "side 48: give a multiple of 32 from 32 up"),
        ({"shape": "flat"}, "shape flat: choose round or square"),
        ({"near": 6}, "near 6: choose 4 or 8"),
        ({"radius": 64, "side": 32}, "radius goes beyond the side"),
    ],
)
def test_values_out_of_range_are_refused_whoever_gives_them(wrong: dict, said: str) -> None:
    with pytest.raises(UsageError, match="^" + said.replace("(", r"\(")):
        Toy(**wrong)
    with pytest.raises(UsageError):
        replace(Toy(), **wrong)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("radius", "12", 12), ("rate", "1e-3", 1e-3), ("name", "x", "x"), ("shape", "square", "square"), ("near", "8", 8),
        ("soft", "no", False), ("soft", "1", True), ("sizes", "3,4,5", (3, 4, 5)), ("levels", "0.3..0.1", (0.3, 0.2, 0.1)),
        ("file", "a/b", Path("a/b")),
    ],
)  # fmt: skip
def test_texts_are_read(name: str, text: str, value: object) -> None:
    assert value_of(FIELDS[name], text) == value


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("radius", "1.5", "give a whole number"), ("rate", "x", "give a number"), ("rate", "nan", "give a number"),
        ("shape", "flat", "choose round or square"), ("near", "6", "choose 4 or 8"), ("soft", "maybe", "give true or false"),
        ("sizes", "1,x", "give numbers with commas"), ("levels", "0.1..0.6", "thresholds must descend"),
    ],
)  # fmt: skip
def test_texts_that_cannot_be_read(name: str, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        value_of(FIELDS[name], text)


@given(st.integers() | st.floats(allow_nan=False) | st.booleans() | st.lists(st.integers(), min_size=1))
def test_a_value_and_its_text(value: object) -> None:
    kind = {int: "radius", float: "rate", bool: "soft", list: "sizes"}[type(value)]
    read = value_of(FIELDS[kind], text_of(value))
    assert read == (tuple(value) if isinstance(value, list) else value)


@given(st.integers(-100, 200))
def test_a_fault_is_a_value_that_the_dataclass_refuses(radius: int) -> None:
    refused = fault(FIELDS["radius"], radius) is not None
    assert refused != (1 <= radius <= 64)


def test_what_decides() -> None:
    assert decides(FIELDS["radius"], {})
    assert not decides(FIELDS["file"], {})
    assert not decides(None, {})
    sometimes = FIELDS["radius"]._replace(decides=lambda given: "eval" in given)
    assert (decides(sometimes, {}), decides(sometimes, {"eval": "x"})) == (False, True)


def test_assignments() -> None:
    assert list(assignments(["a=1", "m.b = x=y "], of_method=False)) == [("a=1", None, "a", "1"), ("m.b = x=y ", "m", "b", "x=y")]
    with pytest.raises(UsageError, match="--set a: write NAME=VALUE"):
        list(assignments(["a"], of_method=False))
    with pytest.raises(UsageError, match="--set a=1: write METHOD.NAME=VALUE"):
        list(assignments(["a=1"], of_method=True))


def test_settings_from_texts() -> None:
    found = settings_from(Toy, ["radius=3", "rate=0.5", "sizes=8,9", "soft=yes", "shape=square", "radius=4"])
    assert found == {"radius": 4, "rate": 0.5, "sizes": (8, 9), "soft": True, "shape": "square"}
    for text, said in (
        ("stairs=3", "--set stairs=3: choose from radius, rate"),
        ("radius", "--set radius: write NAME=VALUE"),
        ("radius=3.5", "--set radius=3.5: give a whole number$"),
        ("radius=99", "--set radius=99: give a whole number from 1 to 64"),
        ("soft=perhaps", "--set soft=perhaps: give true or false"),
    ):
        with pytest.raises(UsageError, match=said):
            settings_from(Toy, [text])


class More(Toy):
    radius: int = option(16, "Radius.", low=1, high=64, flag=True)
    depth: int = option(3, "Depth.", low=0)


def test_options_behave_as_a_frozen_dataclass() -> None:
    toy = Toy(4, soft=False)
    assert (toy.radius, toy.rate, toy.soft) == (4, 0.5, False)
    assert toy == Toy(radius=4, soft=False)
    assert hash(toy) == hash(Toy(radius=4, soft=False))
    assert toy not in (Toy(radius=5, soft=False), "toy", More(radius=4, soft=False))
    assert repr(Toy(name="a")).startswith("Toy(radius=8, rate=0.5, side=64, name='a', ")
    assert pickle.loads(pickle.dumps(toy)) == toy
    with pytest.raises(FrozenInstanceError, match="radius"):
        toy.radius = 5  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del toy.radius  # type: ignore[misc]
    with pytest.raises(UsageError, match="radius 65: give a whole number from 1 to 64"):
        replace(toy, radius=65)


def test_options_of_a_base_come_first() -> None:
    assert [one.name for one in fields(More)] == [*(one.name for one in fields(Toy)), "depth"]
    assert (More().radius, More().depth, Toy().radius) == (16, 3, 8)


@pytest.mark.parametrize(("values", "named"), [((), {"width": 1}), ((4,), {"radius": 4}), ((1,) * 12, {})])
def test_options_that_are_not_there(values: tuple[int, ...], named: dict[str, int]) -> None:
    with pytest.raises(TypeError, match="Toy takes radius, rate, "):
        Toy(*values, **named)  # type: ignore[arg-type]


def test_fields_that_are_not_options() -> None:
    class Mixed(Options):
        needed: int
        seen: list[int] = field(default_factory=list, compare=False, repr=False)

    with pytest.raises(TypeError, match="Mixed needs needed"):
        Mixed()  # type: ignore[call-arg]
    one, other = Mixed(1), Mixed(1, [2])
    assert (one, one.seen) == (other, [])
    assert "seen" not in repr(other)


@pytest.mark.parametrize("slots", [False, True])
def test_a_class_that_dataclass_decorates_as_well(slots: bool) -> None:
    @dataclass(frozen=True, slots=slots)
    class Own(Options):
        radius: int = option(8, "Radius.", low=1)

    class More(Own):
        depth: int = option(3, "Depth.")

    assert (Own().radius, Own(3)) == (8, Own(radius=3))
    assert [(one.name, one.default) for one in fields_of(More)] == [("radius", 8), ("depth", 3)]
    with pytest.raises(UsageError, match="radius 0"):
        Own(0)
