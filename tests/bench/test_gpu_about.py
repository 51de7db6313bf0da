"""bench/gpu/about.py: which packages are missing or too old."""

from __future__ import annotations

import pytest
from gpu.about import COSTS, installed, wanting


@pytest.mark.parametrize(
    ("requirement", "there", "fault"),
    [
        ("transformers>=5.23,<6", "5.17.0", "5.17.0 is there, 5.23 or newer is asked for"),
        ("transformers>=5.23,<6", "5.100.1", None),
        ("torch>=2.11,<3", "2.11.0+cu126", None),
        ("torch>=2.11,<3", "2.9.1", "2.9.1 is there, 2.11 or newer is asked for"),
        ("isal>=1.7,<2; platform_machine in 'x86_64'", None, "missing"),
        ("numpy>=2.0,<3", "2.1.0rc1", None),
        ("pytest", "1.0", None),
        ("pytest", None, "missing"),
    ],
)
def test_versions(requirement: str, there: str | None, fault: str | None) -> None:
    found = wanting([requirement], lambda name: there)
    assert list(found.values()) == ([] if fault is None else [fault])
    assert set(found) <= {"transformers", "torch", "isal", "numpy", "pytest"}


def test_what_is_installed_here() -> None:
    assert installed("no-such-package-of-anybodys") is None
    assert wanting(["torch>=2.11", "pytest"], installed) == {}
    assert all(installed(name) for name in COSTS)
