"""Windows and what they find put together, against torch's own interpolation of whole canvases in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.predict.dense import mosaic as mosaic_module
from ovskit.core.predict.dense.mosaic import Mosaic, interpolation
from ovskit.core.predict.dense.windows import Windows, windows_of
from ovskit.core.runtime.errors import InputError

SIDES = st.integers(1, 700)


def whole(windows: Windows, maps: list[torch.Tensor], height: int, width: int) -> torch.Tensor:
    """What mmseg does: every window enlarged, summed, divided by how many there are, resized."""
    channels = maps[0].shape[2]
    total = torch.zeros(channels, windows.height, windows.width, dtype=torch.float64)
    count = torch.zeros(1, windows.height, windows.width, dtype=torch.float64)
    for (top, left), one in zip(windows.corners, maps, strict=True):
        large = F.interpolate(one.double().permute(2, 0, 1)[None], (windows.rows, windows.columns), mode="bilinear", align_corners=False)[0]
        total[:, top : top + windows.rows, left : left + windows.columns] += large
        count[:, top : top + windows.rows, left : left + windows.columns] += 1
    assert (count > 0).all()
    return F.interpolate((total / count)[None], (height, width), mode="bilinear", align_corners=False)[0].permute(1, 2, 0)


@settings(deadline=None, max_examples=60)
@given(SIDES, SIDES, st.sampled_from([16, 48, 100]), st.sampled_from([None, 16, 32, 64]), st.integers(1, 64), st.sampled_from([4, 8, 14]))
def test_windows_cover_the_canvas(height: int, width: int, short: int, window: int | None, stride: int, patch: int) -> None:
    if max(height, width) / min(height, width) * short > 3000:
        return
    found = windows_of(height, width, short_side=short, window=window, stride=stride, patch=patch)
    for side, length, starts in ((found.height, found.rows, found.tops), (found.width, found.columns, found.lefts)):
        assert length % patch == 0
        assert length <= side
        assert starts[0] == 0
        assert starts[-1] + length == side
        assert all(0 < b - a <= stride for a, b in itertools.pairwise(starts))
        assert len(starts) == (1 if window is None else max(0, math.ceil((side - length) / stride)) + 1)
    scale = short / min(height, width)
    assert abs(found.height - height * scale) <= max(0.5, patch)
    assert abs(found.width - width * scale) <= max(0.5, patch)


def test_windows_of_the_published_protocol() -> None:
    # A photograph of 500 × 375 at 336, windows of 224 in steps of 112: mmseg's grid.
    found = windows_of(375, 500, short_side=336, window=224, stride=112, patch=16)
    assert found == Windows(336, 448, 224, 224, (0, 112), (0, 112, 224))
    found = windows_of(333, 500, short_side=336, window=336, stride=112, patch=16)
    assert found == Windows(336, 505, 336, 336, (0,), (0, 112, 169))


def test_an_image_smaller_than_a_window_is_one_window() -> None:
    found = windows_of(50, 90, short_side=50, window=224, stride=112, patch=16)
    assert found == Windows(48, 96, 48, 96, (0,), (0,))
    assert windows_of(1, 1, short_side=8, window=224, stride=112, patch=16) == Windows(16, 16, 16, 16, (0,), (0,))


def test_a_canvas_beyond_all_memory_is_refused() -> None:
    with pytest.raises(InputError, match="16384"):
        windows_of(2, 1000, short_side=336, window=224, stride=112, patch=16)


@pytest.mark.parametrize("band", [1, 700, 1 << 22])
@pytest.mark.parametrize(
    ("height", "width", "window", "stride"), [(37, 61, 32, 20), (61, 37, 32, 32), (40, 40, None, 9), (9, 200, 16, 5), (100, 30, 64, 64)]
)
def test_put_together_as_mmseg_does(
    height: int, width: int, window: int | None, stride: int, band: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mosaic_module, "_BAND", band)
    windows = windows_of(height, width, short_side=48, window=window, stride=stride, patch=4)
    random = torch.Generator().manual_seed(height)
    maps = [torch.randn(windows.rows // 4, windows.columns // 4, 3, generator=random) for _ in windows.corners]
    mosaic = Mosaic(windows, maps)
    torch.testing.assert_close(mosaic.at(height, width).double(), whole(windows, maps, height, width), atol=1e-5, rtol=1e-5)
    bands = list(mosaic.bands(height, width))
    assert [begin for begin, _, _ in bands] == [0, *(end for _, end, _ in bands)][:-1]
    assert bands[-1][1] == height
    rows, columns = mosaic.grid()
    torch.testing.assert_close(mosaic.at(rows, columns).double(), whole(windows, maps, rows, columns), atol=1e-5, rtol=1e-5)


@given(st.integers(1, 40), st.integers(1, 90))
def test_interpolation_is_torchs(cells: int, points: int) -> None:
    matrix = torch.from_numpy(interpolation(cells, points))
    expected = F.interpolate(torch.eye(cells, dtype=torch.float64)[None], points, mode="linear", align_corners=False)[0].T
    torch.testing.assert_close(matrix, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(matrix.sum(dim=1), torch.ones(points, dtype=torch.float64))
