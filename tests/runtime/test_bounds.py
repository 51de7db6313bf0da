"""Numbers out of the range that an option declares."""

import math

import pytest

from ovskit.core.runtime.declared import wanted
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.settings import Options, fields_of, option, redeclared


class Bounds(Options):
    between: float = option(0.5, "Between two bounds.", above=0, below=1, source="a paper")
    begins: float = option(0.5, "Up to a bound that it may not touch.", low=0, below=1)
    infinite: float = option(1, "May be infinite.", above=0, high=math.inf)
    finite: float = option(1, "May not be infinite.", low=0)


class Others(Bounds):
    between: float = redeclared(Bounds, "between", 0.9)
    more: int = option(1, "One more.")


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.1, math.inf, math.nan])
@pytest.mark.parametrize("options", [Bounds, Others])
def test_between(options: type[Bounds], value: float) -> None:
    with pytest.raises(UsageError, match="between .*: give a number above 0 and below 1"):
        options(between=value)


def test_what_a_bound_keeps_out() -> None:
    assert Bounds(begins=0).begins == 0
    with pytest.raises(UsageError, match="begins 1: give a number from 0 and below 1"):
        Bounds(begins=1)


def test_only_what_may_be_infinite_is() -> None:
    assert Bounds(infinite=math.inf).infinite == math.inf
    for value in (-math.inf, math.nan, 0):
        with pytest.raises(UsageError, match="give a number above 0, or inf"):
            Bounds(infinite=value)
    with pytest.raises(UsageError, match="finite inf: give a number from 0 up"):
        Bounds(finite=math.inf)


def test_another_default() -> None:
    assert (Bounds().between, Others().between) == (0.5, 0.9)
    own, again = fields_of(Bounds)[0], fields_of(Others)[0]
    assert (again.name, again.help, wanted(again)) == (own.name, own.help, wanted(own))
    assert (own.source, again.source) == ("a paper", None)
    assert [one.name for one in fields_of(Others)] == ["between", "begins", "infinite", "finite", "more"]
