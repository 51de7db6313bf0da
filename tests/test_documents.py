"""What documents and results say of the machine that they were made on: nothing but its processor."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WRITTEN = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/results/*"), *ROOT.glob("core/**/*.md")])
FOLDERS = re.compile(r"(?<![\w.])/(?:tmp|home|root|work|mnt|var|Users|workspace)/\w\S*")


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_folder_of_a_machine_is_named(path: Path) -> None:
    assert FOLDERS.findall(path.read_text("utf-8")) == []


LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


@pytest.mark.parametrize("path", [path for path in WRITTEN if path.suffix == ".md"], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    lost = [link for link in LINK.findall(path.read_text("utf-8")) if not (path.parent / link).exists()]
    assert lost == []
