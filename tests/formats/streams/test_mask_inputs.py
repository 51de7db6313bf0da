"""Masks files read as one."""

from pathlib import Path
from typing import Any

import pytest

from ovskit.core.formats.streams.mask_inputs import MaskInputs
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
from ovskit.core.records import Image, MaskSet
from ovskit.core.runtime.errors import InputError


def write(path: Path, number: int, labels: dict[str, Any] | None) -> str:
    with path.open("wb") as file:
        writer = MasksWriter(file, MasksHeader(categories=[{"id": 0, "name": "cat"}], labels=labels))
        writer.write(MaskSet(Image(number, f"{number}.jpg", 4, 3), ()))
        writer.finish()
    return str(path)


def test_label_spaces_are_not_mixed(tmp_path: Path) -> None:
    one = {"name": "pets", "version": 1, "hash": "a" * 64}
    first = write(tmp_path / "a.json", 1, one)
    with MaskInputs([first, write(tmp_path / "b.json", 2, {**one, "version": 2, "name": "renamed"})]) as both:
        assert both.header.labels == one
        assert [masks.image.id for masks in both.sets()] == [1, 2]
    for other, words in (({**one, "hash": "b" * 64}, "bbbbbbbbbbbb"), (None, "no label space"), ({"name": "\x1b[31m\n"}, r"\\x1b\[31m\\n")):
        with pytest.raises(InputError, match=f"c.json.*{words}.*a.json.*pets .aaaaaaaaaaaa.*not mixed") as caught:
            MaskInputs([first, write(tmp_path / "c.json", 2, other)])
        assert "\n" not in str(caught.value)
