"""What the tests of training a segmenter learn from: a few generated scenes, and the settings of a network small enough for them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ovskit.core.formats.photographs.sources import Source, list_sources
from ovskit.core.runtime.failures import Failures
from ovskit.core.train.data.mask_index import MaskIndex, open_mask_index
from ovskit.core.train.recipes.segment import SegmentSettings
from tests.scenes import Faults, write_scenes

SETTINGS = SegmentSettings(size="tiny", queries=8, points=64, backbone="timm:test_vit", side=64, batch=2, paste=0.3)


class Data(NamedTuple):
    """Photographs, and the index of the masks to learn."""

    index: MaskIndex
    photographs: tuple[Source, ...]


def scenes_to_learn(folder: Path, count: int) -> Data:
    """``count`` scenes of 64 × 64 pixels, whose pseudo-labels have no faults, written below ``folder``."""
    write_scenes(folder, range(count), side=64, faults=Faults())
    photographs = list_sources([str(folder / "images")]).items
    index = open_mask_index(photographs, folder / "pseudo.json", SETTINGS.index_options(), folder / "index", failures=Failures(skip=False))
    return Data(index, photographs)
