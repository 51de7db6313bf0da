"""Neighbours by a card are the CPU's: no tolerance, since float64 on the CPU decides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ovskit.core.curate.kernels import unit
from ovskit.core.curate.neighbours import ExactSearch, find_neighbours
from ovskit.core.formats.streams.row_files import RowFiles
from tests.rows import write_rows

pytestmark = pytest.mark.gpu


def test_neighbours_are_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = (
        rng.normal(size=(300, 64))[rng.integers(0, 300, 5000)] + rng.choice([0, 1e-3, 0.5], (5000, 1)) * rng.normal(size=(5000, 64))
    ).astype(np.float16)
    names = [f"{k:04d}" for k in range(5000)]
    with RowFiles([str(write_rows(tmp_path / "a.npz", names, rows))]) as files:
        queries, own = unit(rows.astype(np.float32)), np.arange(5000)
        here, there = (
            find_neighbours(queries, own, files, 8, ExactSearch(files, device), lambda positions: [names[k].encode() for k in positions])
            for device in (None, torch.device("cuda"))
        )
    np.testing.assert_array_equal(here.positions, there.positions)
    np.testing.assert_array_equal(here.similarity, there.similarity)
