"""Inputs that are skipped: each named and counted once, whoever finds it."""

import threading
import time

import pytest

from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.failures import Failures, PartialError


class SlowError(InputError):
    """Whose text takes so long that threads get in each other's way."""

    def __str__(self) -> str:
        time.sleep(0.02)
        return super().__str__()


def test_threads_name_it_once(caplog: pytest.LogCaptureFixture) -> None:
    failures = Failures(skip=True)
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        failures.handle_again(SlowError("bad.png"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (failures.count, failures.named_once) == (1, 1)
    assert len(caplog.records) == 1
    failures.handle(InputError("other.png"))
    assert (failures.count, failures.named_once) == (2, 1)
    with pytest.raises(PartialError, match="skipped 2 images .*; 7 done"):
        failures.report(7)


def test_the_first_one_ends_a_strict_run() -> None:
    failures = Failures(skip=False)
    for handle in (failures.handle, failures.handle_again):
        with pytest.raises(InputError, match="bad"):
            handle(InputError("bad.png"))
    assert failures.count == 0
