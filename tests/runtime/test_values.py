from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.runtime.values import count_or_auto, counts, grid, numbers, share, thresholds


def test_forms_of_thresholds() -> None:
    assert thresholds("0.6..0.1") == (0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
    assert thresholds("0.6..0.1:0.05")[::2] == (0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
    assert thresholds("0.6,0.4,0.2") == (0.6, 0.4, 0.2)
    assert thresholds("0.5") == (0.5,)
    assert thresholds(".3..-0.1:.2") == (0.3, 0.1, -0.1)
    assert thresholds("0.35..0.1") == (0.35, 0.25, 0.15)


@given(st.text(max_size=12) | st.text("0123456789.,:-eE ", max_size=12))
def test_thresholds_descend_or_are_refused(text: str) -> None:
    try:
        values = thresholds(text)
    except ValueError:
        return
    assert all(-1 <= v <= 1 for v in values)
    assert all(a > b for a, b in pairwise(values))


@given(st.text(max_size=10) | st.text("0123456789,", max_size=10))
def test_counts_descend_or_are_refused(text: str) -> None:
    try:
        values = counts(text)
    except ValueError:
        return
    assert all(v >= 1 for v in values)
    assert sorted(set(values), reverse=True) == list(values)


@given(st.text(max_size=10) | st.text("0123456789./", max_size=10))
def test_fractions(text: str) -> None:
    try:
        value = share(text)
    except ValueError:
        return
    assert 0 <= value <= 1


def test_forms_of_fractions() -> None:
    assert share("1/1024") == 1 / 1024
    assert share("0.001") == 0.001
    assert share("0") == 0


def test_numbers() -> None:
    assert numbers("1") == (1.0,)
    assert numbers("0.5,2") == (0.5, 2.0)
    for text in ("", "1,", "0", "-1", "inf", "nan", "a"):
        with pytest.raises(ValueError, match="write positive numbers"):
            numbers(text)


def test_count_or_auto() -> None:
    assert count_or_auto("auto") is None
    assert count_or_auto("8") == 8
    for text in ("", "0", "-1", "1.5", "Auto"):
        with pytest.raises(ValueError, match="give a positive number, or auto"):
            count_or_auto(text)


def test_grids() -> None:
    assert grid("28x30") == grid("28×30") == grid(" 28X30 ") == (28, 30)
    for text in ("28", "0x3", "28x", "x28", "-1x2", "2x2x2", "123456x1"):
        with pytest.raises(ValueError, match="write rows x columns"):
            grid(text)
