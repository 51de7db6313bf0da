"""The order of the tests, and what they need of the process that runs them."""

from __future__ import annotations

import signal

import hypothesis
import pytest

import ovskit.cli.command  # noqa: F401  # what commands ask of their libraries holds for the tests too, before torch is imported

# No test asserts a time: a kernel's first call compiles or loads it, and the machine may have other work.
hypothesis.settings.register_profile("ovskit", deadline=None)
hypothesis.settings.load_profile("ovskit")


def pytest_configure() -> None:
    """A shell without job control starts what runs in the background with Ctrl-C ignored, which commands under test would inherit."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those marked ``first`` are started first."""
    items.sort(key=lambda item: item.get_closest_marker("first") is None)
