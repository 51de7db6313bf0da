from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovskit.cli.values import parse_counts, parse_fraction, parse_grid, parse_numbers, parse_thresholds
from ovskit.core.runtime.errors import UsageError


def test_forms_of_thresholds() -> None:
    assert parse_thresholds("0.6..0.1") == (0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
    assert parse_thresholds("0.6..0.1:0.05")[::2] == (0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
    assert parse_thresholds("0.6,0.4,0.2") == (0.6, 0.4, 0.2)
    assert parse_thresholds("0.5") == (0.5,)
    assert parse_thresholds(".3..-0.1:.2") == (0.3, 0.1, -0.1)
    assert parse_thresholds("0.35..0.1") == (0.35, 0.25, 0.15)


@given(st.text(max_size=12) | st.text("0123456789.,:-eE ", max_size=12))
def test_thresholds_descend_or_are_refused(text: str) -> None:
    try:
        values = parse_thresholds(text)
    except UsageError:
        return
    assert all(-1 <= v <= 1 for v in values)
    assert all(a > b for a, b in pairwise(values))


@given(st.text(max_size=10) | st.text("0123456789,", max_size=10))
def test_counts_descend_or_are_refused(text: str) -> None:
    try:
        values = parse_counts(text)
    except UsageError:
        return
    assert all(v >= 1 for v in values)
    assert sorted(set(values), reverse=True) == list(values)


@given(st.text(max_size=10) | st.text("0123456789./", max_size=10))
def test_fractions(text: str) -> None:
    try:
        value = parse_fraction(text, "--small")
    except UsageError:
        return
    assert 0 <= value <= 1


def test_forms_of_fractions() -> None:
    assert parse_fraction("1/1024", "--small") == 1 / 1024
    assert parse_fraction("0.001", "--small") == 0.001
    assert parse_fraction("0", "--small") == 0


def test_grids() -> None:
    assert parse_grid("28x28") == (28, 28)
    assert parse_grid(" 30×40") == (30, 40)
    assert parse_grid("1X7") == (1, 7)
    for text in ("", "28", "28x", "x28", "0x28", "28x0", "28x28x3", "-1x3", "1.5x2", "9999999x1", "٣x٣"):
        with pytest.raises(UsageError, match="--grid"):
            parse_grid(text)


def test_numbers() -> None:
    assert parse_numbers("1", "--scales") == (1.0,)
    assert parse_numbers("0.5,2", "--scales") == (0.5, 2.0)
    for text in ("", "1,", "0", "-1", "inf", "nan", "a"):
        with pytest.raises(UsageError, match="--scales"):
            parse_numbers(text, "--scales")
