"""Options with other defaults, and options made of several."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.settings import Options, fields_of, option, part_of, with_defaults


class Plain(Options):
    first: int = option(1, "The first.", flag=True, low=1)
    second: float | None = option(None, "The second.", flag=True)
    third: str = option("c", "The third.", flag=True)
    fourth: tuple[float, ...] | None = None

    def check(self) -> None:
        if self.third == "bad":
            raise UsageError("bad")


def test_defaults_change_and_nothing_else() -> None:
    other = with_defaults(Plain, third="d", first=7, fourth=(0.5,))
    assert asdict(other()) == {"first": 7, "second": None, "third": "d", "fourth": (0.5,)}
    assert asdict(Plain()) == {"first": 1, "second": None, "third": "c", "fourth": None}
    assert isinstance(other(), Plain)
    assert [(one.name, one.default) for one in fields_of(other)] == [("first", 7), ("second", None), ("third", "d")]
    before, after = (fields_of(kind)[0]._replace(default=0) for kind in (Plain, other))
    assert before == after
    assert other(3, 0.5) == replace(other(), first=3, second=0.5)


def test_checks_stay() -> None:
    other = with_defaults(Plain, first=7)
    for wrong in ({"first": 0}, {"third": "bad"}):
        with pytest.raises(UsageError):
            other(**wrong)


def test_what_is_fixed_cannot_be_set_by_a_person() -> None:
    other = with_defaults(Plain, fixed=("first", "third"), first=7)
    assert [one.name for one in fields_of(other)] == ["second"]
    assert (other().first, other().third) == (7, "c")


def test_an_unknown_name() -> None:
    with pytest.raises(TypeError, match="Plain has no fifth, sixth"):
        with_defaults(Plain, sixth=1, fixed=("fifth",))


def test_a_part_of_options_made_of_two() -> None:
    class One(Options):
        a: int = option(1, "A.")

    class Two(Options):
        b: int = option(2, "B.")

    class Both(Two, One):
        pass

    assert part_of(One, Both(a=5, b=6)) == One(5)
    assert part_of(Two, Both(a=5, b=6)) == Two(6)
