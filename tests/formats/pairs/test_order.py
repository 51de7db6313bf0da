"""The order in which pairs are trained on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.formats.pairs.order import PairOrder
from ovskit.core.runtime.errors import MissingInputError

counts = st.lists(st.integers(0, 7), min_size=1, max_size=9).filter(any)


@given(counts, st.integers(0, 2**32), st.integers(1, 5), st.integers(0, 3))
def test_each_epoch_has_every_pair_once(counts: list[int], seed: int, open_units: int, epoch: int) -> None:
    order = PairOrder(counts, seed=seed, open_units=open_units)
    assert order.total == sum(counts)
    seen = [order.at(position) for position in range(epoch * order.total, (epoch + 1) * order.total)]
    assert sorted(seen) == [(unit, place) for unit, count in enumerate(counts) for place in range(count)]


@given(counts, st.integers(0, 99), st.integers(1, 5), st.data())
def test_what_is_where_depends_on_the_seed_and_the_position_alone(
    counts: list[int], seed: int, open_units: int, data: st.DataObject
) -> None:
    walked = PairOrder(counts, seed=seed, open_units=open_units)
    whole = [walked.at(position) for position in range(3 * walked.total)]
    jumps = data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=20))
    other = PairOrder(counts, seed=seed, open_units=open_units)
    assert [other.at(position) for position in jumps] == [whole[position] for position in jumps]


@given(counts, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_processes_share_the_sequence_without_gaps(counts: list[int], world: int, size: int, steps: int) -> None:
    order = PairOrder(counts, seed=1)
    drawn = [place for step in range(steps) for rank in range(world) for place in order.batch(step, rank, world, size)]
    assert drawn == [order.at(position) for position in range(steps * world * size)]


@given(counts, st.integers(1, 4))
def test_few_units_are_open_at_a_time(counts: list[int], open_units: int) -> None:
    order = PairOrder(counts, seed=3, open_units=open_units)
    seen = [unit for unit, _ in order.batch(0, 0, 1, order.total)]
    span = {unit: (seen.index(unit), len(seen) - seen[::-1].index(unit)) for unit in seen}
    for begin, _ in span.values():
        assert sum(first <= begin < last for first, last in span.values()) <= open_units


def test_epochs_and_seeds_differ_and_units_are_mixed() -> None:
    order = PairOrder([50] * 6, seed=0, open_units=3)
    first, second = ([order.at(k) for k in range(start, start + 300)] for start in (0, 300))
    assert first != second
    assert first != [PairOrder([50] * 6, seed=1, open_units=3).at(k) for k in range(300)]
    assert len({unit for unit, _ in first[:150]}) == 3
    assert len({unit for unit, _ in first[:10]}) > 1
    assert {unit for unit, _ in first[:150]} | {unit for unit, _ in first[150:]} == set(range(6))


def test_nothing_has_no_order() -> None:
    for counts in ([], [0, 0]):
        with pytest.raises(MissingInputError, match="no image-text pairs"):
            PairOrder(counts, seed=0)
