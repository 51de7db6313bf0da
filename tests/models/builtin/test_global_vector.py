"""The vector for a whole image: its parts against plain definitions, its axes against what they promise, and its file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import convolve1d

from ovskit.core.models.builtin.global_vector import SIDE, WIDTH, GlobalVector, describe, fit_axes, oriented_gradients
from ovskit.core.models.builtin.network import GroupingNetwork, NetworkConfig
from ovskit.core.models.builtin.weights import load_network, save_network
from ovskit.core.runtime.errors import InputError

CPU = torch.device("cpu")
SMALL = NetworkConfig((8, 12), (1, 1), 0, 8, 6, 2, 5)


def by_definition(image: np.ndarray) -> np.ndarray:
    """Oriented gradients of (3, 128, 128), with arctangents and loops over fields and orientations."""
    luma = np.tensordot([0.299, 0.587, 0.114], image, 1)
    smooth, difference = np.array([1, 4, 6, 4, 1]) / 16, np.array([-1, -2, 0, 2, 1]) / 8

    def filtered(across: np.ndarray, down: np.ndarray) -> np.ndarray:
        return convolve1d(convolve1d(luma, across[::-1], axis=1, mode="nearest"), down[::-1], axis=0, mode="nearest")

    gx, gy = filtered(difference, smooth), filtered(smooth, difference)
    position = np.arctan2(gy, gx) / np.pi * 8 % 8
    out = np.zeros((8, 4, 4))
    for k in range(8):
        away = np.abs(position - k)
        near = np.clip(1 - np.minimum(away, 8 - away), 0, None)
        for y in range(4):
            for x in range(4):
                field = slice(32 * y, 32 * y + 32), slice(32 * x, 32 * x + 32)
                out[k, y, x] = np.sqrt((np.hypot(gx, gy) * near)[field].mean())
    return out.ravel() / np.linalg.norm(out)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_gradients_are_those_of_the_definition(seed: int) -> None:
    image = np.random.default_rng(seed).uniform(0, 255, (3, SIDE, SIDE)).astype(np.float32)
    np.testing.assert_allclose(oriented_gradients(torch.from_numpy(image)[None])[0].numpy(), by_definition(image), atol=2e-3)


@pytest.mark.parametrize("orientation", range(8))
def test_stripes_have_the_orientation_of_their_gradient(orientation: int) -> None:
    angle = math.pi * orientation / 8
    y, x = np.mgrid[:SIDE, :SIDE]
    stripes = 128 + 100 * np.sin((x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / 16)
    found = oriented_gradients(torch.from_numpy(stripes).float().expand(1, 3, -1, -1))[0].view(8, 16)
    assert (found.argmax(0) == orientation).all()
    opposite = oriented_gradients(torch.from_numpy(255 - stripes).float().expand(1, 3, -1, -1))[0].view(8, 16)
    torch.testing.assert_close(found, opposite, atol=0.02, rtol=0)


def test_no_gradient_is_zero() -> None:
    assert not oriented_gradients(torch.full((2, 3, SIDE, SIDE), 91.0)).any()


@given(st.integers(0, 2**32 - 1), st.integers(3, 90), st.integers(1, 80))
def test_axes_halve_the_spread_of_variances(seed: int, count: int, numbers: int) -> None:
    rng = np.random.default_rng(seed)
    rows = torch.from_numpy(rng.normal(size=(count, numbers)) * rng.uniform(0.1, 5, numbers) + rng.normal(size=numbers))
    axes = fit_axes(rows)
    assert axes.axes.shape == (numbers, WIDTH)
    out = axes.project(rows).double().numpy()
    assert (out**2).sum(1).mean() == pytest.approx(1, rel=0.02)
    values = np.sort(np.linalg.eigvalsh(np.cov(rows.T.numpy(), bias=True).reshape(numbers, numbers)))[::-1][:WIDTH]
    expected = np.sqrt(np.where(values > 1e-9 * values[0], values, 0))
    np.testing.assert_allclose(out.var(0)[: len(expected)], expected / expected.sum(), atol=2e-2)


def test_rows_do_not_depend_on_each_other() -> None:
    rows = torch.randn(40, 128)
    axes = fit_axes(torch.randn(300, 128))
    together = axes.project(rows)
    assert all(torch.equal(axes.project(row[None])[0], together[k]) for k, row in enumerate(rows))


def made() -> tuple[GroupingNetwork, GlobalVector]:
    torch.manual_seed(0)
    network = GroupingNetwork(SMALL).eval()
    with torch.no_grad():
        found = describe(network, torch.randint(0, 256, (30, 3, 40, 60)), CPU)
    return network, GlobalVector(*(fit_axes(rows) for rows in found))


def test_size_does_not_matter_but_layout_does() -> None:
    network, vector = made()
    y, x = np.mgrid[:64, :64]
    image = np.stack([x * 4, 255 * (x > 40) * (y > 20), y * 3]).astype(np.float32)
    small = torch.from_numpy(image)[None]
    large = small.repeat_interleave(4, 2).repeat_interleave(4, 3)
    with torch.no_grad():
        here, there, mirrored = (torch.nn.functional.normalize(vector(network, i)[0], dim=0) for i in (small, large, small.flip(3)))
    assert here.shape == (2 * WIDTH,)
    assert here @ there > 0.95
    assert here @ mirrored < 0.8


def test_axes_are_part_of_the_weights(tmp_path: Path) -> None:
    network, vector = made()
    path = tmp_path / "w.safetensors"
    save_network(path, network, {}, vector)
    loaded = load_network(path)
    assert loaded.vector is not None
    for name, tensor in vector.tensors().items():
        assert torch.equal(loaded.vector.tensors()[name], tensor)
    assert loaded.vector.width == vector.width


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {k: v for k, v in t.items() if k != "gradients.axes"}, "lack gradients.axes"),
        (lambda t: {**t, "gradients.axes": t["gradients.axes"][:-1]}, "damaged"),
        (lambda t: {**t, "learned.mean": t["learned.mean"][:16], "learned.axes": t["learned.axes"][:16]}, "not those of this network"),
        (lambda t: {**t, "learned.mean": t["learned.mean"] * math.nan}, "not finite"),
        (lambda t: {**t, "other": t["learned.mean"].clone()}, "not those of this network"),
    ],
)
def test_axes_that_do_not_fit_are_refused(change, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    network, vector = made()

    class Changed(GlobalVector):
        def tensors(self) -> dict[str, torch.Tensor]:
            found: dict[str, torch.Tensor] = change(vector.tensors())
            return found

    save_network(tmp_path / "w.safetensors", network, {}, Changed(vector.learned, vector.gradients))
    with pytest.raises(InputError, match=message):
        load_network(tmp_path / "w.safetensors")
