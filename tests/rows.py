"""Pooled feature streams of generated rows, as ovs-extract --pool writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ovskit.core.formats.streams.features import FeatureHeader, FeatureWriter
from ovskit.core.records import EmbeddingBlock, Image
from ovskit.core.runtime.shard import Shard

MODEL = {"model": "m", "weights_sha256": "0" * 64, "dim": 8}
BLOCK = 5


def write_rows(
    path: Path,
    names: Sequence[str],
    rows: np.ndarray,
    *,
    root: str = "imgs",
    model: dict[str, object] = MODEL,
    pool: str | None = "cls",
    shard: Shard | None = None,
) -> Path:
    """Write the rows (n, c) of the images ``names`` in blocks of five."""
    with path.open("wb") as file:
        pg = ({"id": "ovs-extract", "previous": None},)
        writer = FeatureWriter(file, FeatureHeader(model, (16, 16), str(rows.dtype), root, pool, pg, shard=shard))
        for start in range(0, len(names), BLOCK):
            images = tuple(Image(start + k + 1, name, 16, 16) for k, name in enumerate(names[start : start + BLOCK]))
            writer.write(EmbeddingBlock(images, rows[start : start + BLOCK]))
        writer.finish()
    return path
