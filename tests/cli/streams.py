"""What commands have written, as records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ovskit.core.formats.streams.features import FeatureReader
from ovskit.core.formats.streams.masks import open_masks
from ovskit.core.records import FeatureMap, MaskSet


def read_features(path: Path) -> list[FeatureMap]:
    with open(path, "rb") as stream:
        reader = FeatureReader(stream, str(path))
        found: list[Any] = []
        while reader.peek():
            found.append(reader.take())
        return found


def read_masks(path: Path) -> list[MaskSet]:
    with open(path, "rb") as stream:
        return list(open_masks(stream, str(path))[1])
