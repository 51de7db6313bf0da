"""The order of the tests, what they need of the process that runs them, and which of them have a card to run on."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

import ovskit.cli.command  # noqa: F401  # what commands ask of their libraries holds for the tests too, before torch is imported

try:
    import hypothesis
except ImportError:  # a machine with a card may have none: its tests do without
    pass
else:
    # No test asserts a time: a kernel's first call compiles or loads it, and the machine may have other work.
    hypothesis.settings.register_profile("ovskit", deadline=None)
    hypothesis.settings.load_profile("ovskit")

NO_CARD = "no CUDA device (--pretend-card runs it without)"
_PRETEND = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--pretend-card``."""
    parser.addoption("--pretend-card", action="store_true", help="run tests marked gpu on a card that is none, see tests/pretend_card.py")


def pytest_configure(config: pytest.Config) -> None:
    """A shell without job control starts what runs in the background with Ctrl-C ignored, which commands under test would inherit."""
    config.stash[_PRETEND] = bool(config.getoption("--pretend-card")) or os.environ.get("OVSKIT_PRETEND_CARD", "") not in ("", "0")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Those marked ``first`` are started first. Those marked ``gpu`` need a card, or the pretend one unless they say why not."""
    items.sort(key=lambda item: item.get_closest_marker("first") is None)
    marked = [(item, mark) for item in items if (mark := item.get_closest_marker("gpu")) is not None]
    if not marked:
        return
    if config.stash[_PRETEND]:
        for item, mark in marked:
            if "real" in mark.kwargs:
                item.add_marker(pytest.mark.skip(reason=f"not on the pretend card: {mark.kwargs['real']}"))
        return
    import torch

    if not torch.cuda.is_available():
        for item, _ in marked:
            item.add_marker(pytest.mark.skip(reason=NO_CARD))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Tests marked ``gpu`` have the pretend card around them, if it is wanted."""
    if item.config.stash[_PRETEND] and item.get_closest_marker("gpu") is not None:
        from tests.pretend_card import pretending

        with pretending():
            return (yield)
    return (yield)


@pytest.fixture
def exact() -> Iterator[None]:
    """Single precision in full, without TF32, and convolutions that repeat themselves."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def waiting() -> Callable[[], AbstractContextManager[list[str]]]:
    """``with waiting() as found:`` lists what makes the CPU wait for the card: a number read, a copy from memory that is not pinned."""
    import torch

    @contextmanager
    def watched() -> Iterator[list[str]]:
        found: list[str] = []
        counted = getattr(torch.zeros(1, device="cuda"), "waits", None)  # of the pretend card
        if counted is not None:
            counted.clear()
            yield found
            found += counted.elements()
            return
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield found
            finally:
                torch.cuda.set_sync_debug_mode("default")
        found += [str(one.message) for one in caught if "called a synchronizing" in str(one.message)]

    return watched


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """``measured(cosine=0.999)`` keeps numbers with the test's result, where bench/gpu/correct.py finds them."""

    def keep(**values: Any) -> None:
        for name, value in values.items():
            record_property(name, value if isinstance(value, int | str) else float(value))

    return keep
