"""What names patches without training, against the papers' equations in float64, and what holds for all of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ovskit.core.models.registry import load_backbone
from ovskit.core.predict.dense.blocks import TowerNamer
from ovskit.core.predict.dense.clear import Clear
from ovskit.core.predict.dense.corr import Corr, earlier_blocks
from ovskit.core.predict.dense.naclip import Naclip
from ovskit.core.predict.dense.patch_regions import patch_regions
from ovskit.core.predict.dense.plain import Plain
from ovskit.core.predict.dense.proxies import fitted, patch_rows, query_and_key_rows
from ovskit.core.predict.dense.proxy import Proxy
from ovskit.core.predict.dense.sclip import Sclip
from ovskit.core.runtime.errors import UsageError
from tests.predict.dense_towers import MEAN, STD, Colours, Convolutional, noise, proxy, proxy_network, tower, visual
from tests.reference import dense_clip as reference

NETWORK, PROXY = visual(), proxy_network()
EXACT = copy.deepcopy(NETWORK).double().requires_grad_(False)
SIZES = [(64, 64), (48, 80)]
ALONE: dict[str, Callable[..., TowerNamer]] = {"plain": Plain, "clear": Clear, "sclip": Sclip, "naclip": Naclip}
Make = Callable[[], TowerNamer]
ALL: dict[str, Make] = {
    **{name: lambda method=method: method(tower(NETWORK)) for name, method in ALONE.items()},  # type: ignore[misc]
    "proxy": lambda: Proxy(tower(NETWORK), proxy(PROXY)),
    "corr": lambda: Corr(tower(NETWORK), proxy(PROXY)),
}


def normalised(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (images.double() / 255 - mean) / std


def quarters(height: int, width: int, count: int = 1) -> torch.Tensor:
    """Regions of pixels: three blocks and a corner that is in none."""
    y, x = torch.meshgrid(torch.arange(height) * 2 // height, torch.arange(width) * 2 // width, indexing="ij")
    regions = (2 * y + x).to(torch.int32)
    regions[regions == 3] = -1
    return regions.expand(count, -1, -1).contiguous()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ALONE)
def test_the_tower_alone(name: str, size: tuple[int, int]) -> None:
    images = noise(1, *size)
    expected = getattr(reference, name)(EXACT, normalised(images))
    torch.testing.assert_close(ALL[name]().vectors(images)[0].double(), expected, rtol=0, atol=2e-5)


def test_the_width_of_the_gaussian_window_is_heeded() -> None:
    images = noise(1, 64, 64)
    expected = reference.naclip(EXACT, normalised(images), sigma=0.7)
    torch.testing.assert_close(Naclip(tower(NETWORK), sigma=0.7).vectors(images)[0].double(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("patch", [8, 16])
def test_proxy(patch: int, size: tuple[int, int]) -> None:
    images, other = noise(1, *size), proxy(proxy_network(patch))
    rows = patch_rows(other, images)[0].double()
    method = Proxy(tower(NETWORK), other, beta=1.1, gamma=2.5)
    expected = reference.proxy(EXACT, normalised(images), rows, beta=1.1, gamma=2.5)
    torch.testing.assert_close(method.vectors(images)[0].double(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("patch", "eps", "alpha", "beta"), [(8, 0.2, 1.0, 0.5), (16, 0.01, 0.6, 0.9), (8, 0.03, 0.0, 0.5)])
def test_corr(patch: int, eps: float, alpha: float, beta: float, size: tuple[int, int]) -> None:
    images, regions, other = noise(1, *size), quarters(*size), proxy(proxy_network(patch))
    rows = query_and_key_rows(other, images)[0].double()
    labels = patch_regions(regions[0].numpy(), rows.shape[0], rows.shape[1]).ravel().tolist()
    assert -1 in labels
    method = Corr(tower(NETWORK), other, eps=eps, alpha=alpha, beta=beta)
    expected = reference.corr(EXACT, normalised(images), rows, labels, range(2, 4), alpha, beta, eps)
    torch.testing.assert_close(method.vectors(images, regions)[0].double(), expected, rtol=0, atol=2e-5)


def test_regions_are_merged_or_not_in_the_test_above() -> None:
    rows = query_and_key_rows(proxy(PROXY), noise(1, 64, 64))[0].double().flatten(0, 1)
    labels = patch_regions(quarters(64, 64)[0].numpy(), 8, 8).ravel().tolist()
    assert len({len(set(reference.merged(rows, labels, eps))) for eps in (1e-4, 2.0)}) == 2


def test_one_region_without_branches_is_attention_over_all_patches() -> None:
    images, other = noise(1, 64, 48), proxy(PROXY)
    whole = torch.zeros(1, 64, 48, dtype=torch.int32)
    rows = query_and_key_rows(other, images)[0].double()
    weights = reference.softmax(4 * rows.flatten(0, 1) @ rows.flatten(0, 1).T)
    x = reference.entering(EXACT, normalised(images), 5)
    mixed = weights @ reference.values(EXACT, x, (4, 3), (8, 6))
    block = EXACT.transformer.resblocks[-1]
    expected = reference.named(EXACT, EXACT.ln_post(reference.joined(block, [mixed])), (8, 6))
    found = Corr(tower(NETWORK), other, alpha=0, beta=0).vectors(images, whole)[0].double()
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_regions_change_what_corr_sees_and_no_regions_is_every_patch_in_none() -> None:
    images, method = noise(1, 64, 64), ALL["corr"]()
    nowhere = torch.full((1, 64, 64), -1, dtype=torch.int32)
    assert torch.equal(method.vectors(images), method.vectors(images, nowhere))
    assert not torch.allclose(method.vectors(images), method.vectors(images, quarters(64, 64)), atol=1e-3)


@pytest.mark.parametrize(
    ("depth", "expected"), [(12, range(5, 10)), (24, range(10, 22)), (32, range(2, 30)), (6, range(2, 4)), (3, range(1))]
)
def test_blocks_of_the_spatial_branch(depth: int, expected: range) -> None:
    assert earlier_blocks(depth) == expected


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("name", ["plain", "clear", "sclip", "naclip", "proxy", "corr"])
def test_towers_of_one_and_two_blocks(name: str, depth: int) -> None:
    shallow = tower(visual(depth))
    method = ALONE[name](shallow) if name in ALONE else {"proxy": Proxy, "corr": Corr}[name](shallow, proxy(PROXY))
    assert torch.isfinite(method.vectors(noise(1, 64, 64), quarters(64, 64))).all()


@pytest.mark.parametrize("name", ALL)
def test_a_window_does_not_depend_on_others_and_vectors_have_length_one(name: str) -> None:
    images, regions, method = noise(3, 48, 64), quarters(48, 64, 3), ALL[name]()
    together = method.vectors(images, regions)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(together.shape[:3]))
    for k in (2, 0, 1):
        assert torch.equal(method.vectors(images[k : k + 1], regions[k : k + 1])[0], together[k])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_flat_window_gives_finite_vectors(name: str, value: int) -> None:
    flat = torch.full((1, 3, 64, 64), value, dtype=torch.uint8)
    for regions in (quarters(64, 64), torch.full((1, 64, 64), -1, dtype=torch.int32)):
        found = ALL[name]().vectors(flat, regions)
        assert torch.isfinite(found).all()
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(found.shape[:3]))


@pytest.mark.parametrize("make", [Proxy, Corr])
def test_a_proxy_of_one_colour_gives_finite_vectors_of_each_patch_alone(make: Any) -> None:
    """All rows of the proxy are the same, or zero: the trap of F.1."""
    for value in (0, 200):
        flat = torch.full((1, 3, 64, 64), value, dtype=torch.uint8)
        assert torch.isfinite(make(tower(NETWORK), Colours()).vectors(flat, quarters(64, 64))).all()


@pytest.mark.parametrize("make", [Proxy, Corr])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_vectors_come_on_the_finer_grid(make: Any, stride: int) -> None:
    found = make(tower(NETWORK), Colours(stride)).vectors(noise(1, 64, 96), quarters(64, 96))
    side = min(16, stride)
    assert found.shape == (1, 64 // side, 96 // side, 12)


@pytest.mark.parametrize("make", [Proxy, Corr])
def test_the_proxy_sees_whole_patches_of_its_own(make: Any) -> None:
    """48 pixels are nearest to 42 of patches of 14, 80 to 84."""
    found = make(tower(NETWORK), proxy(proxy_network(14))).vectors(noise(1, 48, 80), quarters(48, 80))
    assert found.shape == (1, 3, 6, 12)  # 18 patches of 14 pixels, where the tower has 15 of 16
    assert fitted(noise(1, 48, 80), 14).shape == (1, 3, 42, 84)


def test_windows_that_fit_are_left_alone_and_flat_ones_stay_flat() -> None:
    images = noise(2, 64, 48)
    assert fitted(images, 16) is images
    assert fitted(images[:, :, :6, :6], 16).shape == (2, 3, 16, 16)
    flat = torch.full((1, 3, 48, 48), 77, dtype=torch.uint8)
    assert torch.equal(fitted(flat, 14), torch.full((1, 3, 42, 42), 77, dtype=torch.uint8))


@pytest.mark.parametrize("make", [Proxy, Corr])
def test_the_built_in_network_serves_as_proxy(make: Any) -> None:
    builtin = load_backbone("builtin", device=torch.device("cpu"))
    images = noise(1, 64, 64)
    assert torch.equal(patch_rows(builtin, images), query_and_key_rows(builtin, images))
    assert torch.isfinite(make(tower(NETWORK), builtin).vectors(images, quarters(64, 64))).all()


def test_queries_and_keys_are_those_of_extract() -> None:
    images = noise(2, 64, 48)
    apart = [proxy(PROXY, facet).extract(images).patch for facet in ("query", "key")]  # type: ignore[arg-type]
    joint = proxy(PROXY).projections(images, ("query", "key"))
    for one, other in zip(apart, joint, strict=True):
        assert torch.equal(one, other)
    expected = (apart[0] + apart[1]).double()
    expected /= expected.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(query_and_key_rows(proxy(PROXY), images).double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["clear", "sclip", "naclip"])
def test_a_convolutional_tower_has_no_attention_to_change(name: str) -> None:
    with pytest.raises(UsageError, match=f"--method {name}: the image tower of clip:convolutional is convolutional"):
        ALONE[name](Convolutional())


def test_a_convolutional_tower_by_plain_proxy_and_corr() -> None:
    images, network = noise(1, 64, 64), Convolutional()
    tokens = network.embed(images)[0].double()
    expected = {
        "plain": tokens,
        "proxy": reference.proxy_weights(patch_rows(Colours(), images)[0].double().flatten(0, 1), 1.2, 3.0) @ tokens,
        "corr": reference.correlation_weights(patch_rows(Colours(), images)[0].double().flatten(0, 1), [0] * 16, 4.0) @ tokens,
    }
    whole = torch.zeros(1, 64, 64, dtype=torch.int32)
    for method in (Plain(network), Proxy(network, Colours()), Corr(network, Colours())):
        vectors = expected[type(method).__name__.lower()] @ network.projection.double()
        vectors = (vectors / vectors.norm(dim=1, keepdim=True)).unflatten(0, (4, 4))
        torch.testing.assert_close(method.vectors(images, whole)[0].double(), vectors, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("images", "message"), [(torch.zeros(1, 3, 64, 64), "uint8"), (noise(1, 64, 64)[:, :, :60], "multiples of its 16")]
)
@pytest.mark.parametrize("name", ALL)
def test_windows_that_are_not_bytes_of_whole_patches_are_refused(name: str, images: torch.Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ALL[name]().vectors(images)


def test_photographs_are_prepared_as_the_tower_does() -> None:
    photograph = np.random.default_rng(0).integers(0, 256, (30, 50, 3)).astype(np.uint8)
    assert torch.equal(Plain(tower(NETWORK)).prepare(photograph, 48, 64), tower(NETWORK).prepare(photograph, 48, 64))
