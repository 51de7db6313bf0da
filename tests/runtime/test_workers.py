import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.runtime.workers import default_workers, ordered_map, prefetch


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 5))
def test_order_does_not_depend_on_who_is_quick(delays: list[int], workers: int) -> None:
    def work(pair: tuple[int, int]) -> int:
        time.sleep(pair[1] / 2000)
        return pair[0] * 10

    assert list(ordered_map(work, enumerate(delays), workers)) == [k * 10 for k in range(len(delays))]


@pytest.mark.parametrize("workers", [1, 4])
def test_few_items_are_under_way(workers: int) -> None:
    started = 0
    finished = 0
    ahead = 0

    def source() -> Iterator[int]:
        nonlocal started, ahead
        for k in range(60):
            started += 1
            ahead = max(ahead, started - finished)
            yield k

    for _ in ordered_map(lambda k: k, source(), workers):
        time.sleep(0.002)
        finished += 1
    assert finished == 60
    assert ahead <= workers + 3


def test_an_error_stands_where_its_result_would() -> None:
    def work(k: int) -> int:
        if k == 3:
            raise ValueError("three")
        return k

    results = ordered_map(work, range(10), 4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_an_error_of_the_source_comes_after_what_it_gave() -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("gone")

    results = ordered_map(lambda k: -k, source(), 2)
    assert next(results) == -1
    assert next(results) == -2
    with pytest.raises(OSError, match="gone"):
        next(results)


def test_a_consumer_that_leaves_stops_the_feeding_thread() -> None:
    given_out = []

    def endless() -> Iterator[int]:
        k = 0
        while True:
            given_out.append(k)
            yield k
            k += 1

    results = prefetch(endless(), depth=2)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 5
    while any(t.name == "ovskit-prefetch" for t in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(t.name == "ovskit-prefetch" for t in threading.enumerate())
    assert len(given_out) < 10


def test_workers_default_to_the_cores_we_may_use() -> None:
    assert default_workers() >= 1
