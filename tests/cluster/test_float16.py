import threading

import numpy as np
import pytest

from ovskit.core.cluster.float16 import widened


def test_every_float16_is_exact_and_infinities_become_nan() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(16, 64, 64)
    found = widened(every).copy()
    expected = every.astype(np.float32)
    expected[np.isinf(expected)] = np.nan
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.array_equal(np.signbit(found)[~np.isnan(expected)], np.signbit(expected)[~np.isnan(expected)])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_input_is_untouched_and_may_be_strided(dtype: type) -> None:
    patch = np.random.default_rng(0).normal(size=(7, 5, 3)).astype(dtype).transpose(1, 0, 2)
    before = patch.copy()
    found = widened(patch)
    assert found.flags.c_contiguous
    assert np.array_equal(found, before.astype(np.float32))
    found[:] = 0
    assert np.array_equal(patch, before)


def test_each_thread_has_a_buffer_of_its_own() -> None:
    ours = widened(np.ones((4, 4, 4), np.float16))
    thread = threading.Thread(target=lambda: widened(np.zeros((4, 4, 4), np.float16)))
    thread.start()
    thread.join()
    assert (ours == 1).all()
