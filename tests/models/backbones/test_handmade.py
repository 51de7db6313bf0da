"""The built-in descriptor: Lab against scikit-image, whitening against NumPy, and the same bytes however it is run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.color import rgb2lab
from skimage.data import astronaut

from ovskit.core.cluster.merge import merge_sequence, partition
from ovskit.core.models.backbones.handmade import HandmadeBackbone, load_handmade
from ovskit.core.models.backbones.interface import BackboneSpec
from ovskit.core.models.backbones.whitening import half_whiten, moments, principal_components, quantise, standardise
from ovskit.core.runtime.errors import UsageError
from tests.models.conftest import threads

CPU = torch.device("cpu")
SIDES = st.integers(1, 6).map(lambda patches: 8 * patches)


@pytest.fixture(scope="module")
def backbone() -> HandmadeBackbone:
    return load_handmade("builtin", device=CPU)


def photograph(height: int, width: int) -> torch.Tensor:
    resized = Image.fromarray(astronaut()).resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(resized).transpose(2, 0, 1).copy())


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def channels(seed: int, batch: int, count: int, size: int) -> torch.Tensor:
    """Correlated, quantised channels (batch, count, size)."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(batch, count, count)) @ rng.normal(size=(batch, count, size)) + rng.normal(size=(batch, count, 1))
    return quantise(torch.from_numpy(mixed).float())


def cosines(features: torch.Tensor) -> np.ndarray:
    rows = features.double().reshape(-1, features.shape[-1]).numpy()
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return rows @ rows.T


@settings(deadline=None, max_examples=25)
@given(height=SIDES, width=SIDES, batch=st.integers(1, 3), seed=st.integers(0, 99))
def test_any_size_gives_finite_centred_features(height: int, width: int, batch: int, seed: int) -> None:
    backbone = load_handmade("handmade", device=CPU)
    features = backbone.extract(noise(seed, batch, 3, height, width))
    assert features.cls is None
    assert features.patch.dtype == torch.float32
    assert features.patch.shape == (batch, height // 8, width // 8, backbone.spec.dim)
    assert features.patch.isfinite().all()
    assert features.patch.abs().max() < 1000  # far within float16
    assert features.patch.mean(dim=(1, 2)).abs().max() < 1e-3


@settings(deadline=None, max_examples=15)
@given(height=SIDES, width=SIDES, colour=st.tuples(*[st.integers(0, 255)] * 3))
def test_constant_images_have_zero_features(height: int, width: int, colour: tuple[int, int, int]) -> None:
    image = torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, height, width)
    assert not load_handmade("handmade", device=CPU).extract(image).patch.any()


@settings(deadline=None, max_examples=15)
@given(height=SIDES, width=SIDES, seed=st.integers(0, 99))
def test_a_row_depends_on_its_image_alone(height: int, width: int, seed: int) -> None:
    backbone = load_handmade("handmade", device=CPU)
    batch = torch.cat([noise(seed, 4, 3, height, width), photograph(height, width)[None]])
    together = backbone.extract(batch).patch
    for k in range(len(batch)):
        assert torch.equal(backbone.extract(batch[k : k + 1]).patch[0], together[k])


@pytest.mark.parametrize("shape", [(4, 256, 256), (1, 512, 768)])
def test_threads_and_batches_do_not_change_a_byte(backbone: HandmadeBackbone, shape: tuple[int, int, int]) -> None:
    count, height, width = shape
    batch = torch.cat([photograph(height, width)[None], noise(0, count, 3, height, width)])
    with threads(1):
        alone = torch.cat([backbone.extract(image[None]).patch for image in batch])
    with threads(2):
        shared = backbone.extract(batch).patch
    assert torch.equal(alone, shared)


def test_images_beyond_one_piece_are_taken_in_turn(backbone: HandmadeBackbone) -> None:
    batch = noise(1, 3, 3, 832, 832)  # two do not fit into a piece
    assert torch.equal(backbone.extract(batch).patch[2], backbone.extract(batch[2:]).patch[0])


def test_memory_layout_does_not_matter(backbone: HandmadeBackbone) -> None:
    batch = photograph(64, 96)[None]
    assert torch.equal(backbone.extract(batch.to(memory_format=torch.channels_last)).patch, backbone.extract(batch).patch)


def test_lab_is_that_of_scikit_image(backbone: HandmadeBackbone) -> None:
    blocks = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    blocks[0, 0], blocks[0, 1], blocks[0, 2] = 0, 255, 3
    doubled = torch.from_numpy(blocks.repeat(2, axis=0).repeat(2, axis=1).transpose(2, 0, 1).copy())[None]
    ours = backbone._tables.lab(doubled)[0].permute(1, 2, 0).numpy() * 100
    # A step of the cube root's table is up to 116 · 7.8 / 2¹⁴ = 0.06 of L, some three times that of a and b.
    assert np.abs(ours - rgb2lab(blocks)).max() < 0.3


def test_inner_products_approximate_a_gaussian_kernel(backbone: HandmadeBackbone) -> None:
    rng = np.random.default_rng(4)
    points = quantise(torch.from_numpy(rng.normal(size=(200, 9)) * 0.5).float())
    colour = points[:, :3].T.reshape(1, 3, 1, 200).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3).reshape(1, 3, 800)
    features = backbone._tables.fourier(colour, points[:, 3:].T[None].contiguous(), (1, 200))[0, :, 0].double().numpy()
    distances = ((points[:, None] - points[None]) ** 2).sum(-1).double().numpy()
    error = features.T @ features / 32 - np.exp(-distances / 2)
    assert np.sqrt((error**2).mean()) < 3 / np.sqrt(2 * 32)  # Monte Carlo with 32 frequencies: at most 1/√(2·32) each, if independent


def test_merging_finds_regions_of_one_colour(backbone: HandmadeBackbone) -> None:
    colours = np.array([[200, 30, 30], [30, 160, 40], [30, 40, 200], [220, 210, 40]])
    region = 2 * (np.arange(32) // 16)[:, None] + np.arange(32) // 16
    clean = colours[region.repeat(8, axis=0).repeat(8, axis=1)]
    image = np.clip(clean + np.random.default_rng(5).normal(scale=4, size=clean.shape), 0, 255).astype(np.uint8)
    patch = backbone.extract(torch.from_numpy(image.transpose(2, 0, 1).copy())[None]).patch[0].numpy()
    sequence = merge_sequence(np.array(patch, order="C"), stop_similarity=None, stop_count=4)
    found = partition(sequence, len(sequence.first))
    purest = sum(np.unique(region[found == label], return_counts=True)[1].max() for label in np.unique(found))
    assert purest / region.size > 0.97


def test_cosine_spans_its_range(backbone: HandmadeBackbone) -> None:
    similarity = cosines(backbone.extract(photograph(256, 256)[None]).patch)
    assert abs(np.median(similarity)) < 0.2
    assert similarity.min() < -0.3


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 999), batch=st.integers(1, 3), count=st.integers(1, 12), size=st.integers(1, 80))
def test_moments_are_numpys_and_exact_in_any_order(seed: int, batch: int, count: int, size: int) -> None:
    x = channels(seed, batch, count, size)
    mean, covariance = moments(x)
    for k in range(batch):
        rows = x[k].double().numpy()
        assert np.allclose(mean[k], rows.mean(axis=1), atol=1e-12)
        assert np.allclose(covariance[k], np.atleast_2d(np.cov(rows, bias=True)), atol=1e-9)
    shuffled = moments(x[:, :, torch.from_numpy(np.random.default_rng(seed).permutation(size))])
    assert torch.equal(mean, shuffled[0])
    assert torch.equal(covariance, shuffled[1])


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 999), count=st.integers(2, 12))
def test_half_whitening_takes_the_square_root_of_standard_deviations(seed: int, count: int) -> None:
    x = channels(seed, 1, count, 500)
    rows = x[0].double().numpy()
    before = np.linalg.eigvalsh(np.cov(rows, bias=True))
    after = np.linalg.eigvalsh(np.cov(half_whiten(x)[0].double().numpy(), bias=True))
    scaled = before / before.mean()
    assert np.allclose(after, before * (scaled + 1e-2) ** -0.5, rtol=1e-2, atol=1e-3)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 999), count=st.integers(2, 12), data=st.data())
def test_principal_components_are_those_of_an_svd(seed: int, count: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, count))
    x = channels(seed, 1, count, 300)
    rows = x[0].double().numpy()
    singular = np.linalg.svd(rows - rows.mean(axis=1, keepdims=True), compute_uv=False)
    found = principal_components(x, kept)[0].double().numpy()
    assert found.shape == (kept, 300)
    # Strongest last; each component's length is its singular value, and they are uncorrelated.
    gram = found @ found.T
    assert np.allclose(np.sqrt(np.diag(gram)), singular[:kept][::-1], rtol=1e-2, atol=0.05)
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-3 * gram.max() + 0.05


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 999), scale=st.floats(0.2, 4), size=st.integers(20, 400))
def test_standardise(seed: int, scale: float, size: int) -> None:
    x = channels(seed, 2, 3, size) * 0.1 * scale
    y = standardise(x, 1e-3).double()
    assert torch.allclose(y.mean(dim=2), torch.zeros(2, 3, dtype=torch.float64), atol=2e-3)
    spread = quantise(x).double().std(dim=2, correction=0)
    assert torch.allclose(y.std(dim=2, correction=0), spread / torch.sqrt(spread**2 + 1e-3**2), atol=5e-3)


def test_standardise_leaves_a_flat_channel_flat() -> None:
    flat = torch.full((1, 1, 100), 0.5)
    flat[0, 0, 0] += 2.0**-12
    assert standardise(flat, 0.01).abs().max() < 0.05


def test_the_specification_survives_a_stream_header(backbone: HandmadeBackbone) -> None:
    spec = backbone.spec
    assert BackboneSpec.from_json(spec.to_json()) == spec
    assert (spec.name, spec.model, spec.stride, spec.has_cls, spec.weights_sha256) == ("builtin", "handmade-v1", 8, False, None)


def test_prepare_resizes_to_what_extract_takes(backbone: HandmadeBackbone) -> None:
    prepared = backbone.prepare(astronaut(), 64, 128)
    assert prepared.dtype == torch.uint8
    assert torch.equal(prepared, photograph(64, 128))
    assert backbone.extract(prepared[None]).patch.shape == (1, 8, 16, backbone.spec.dim)


def test_no_patches_wanted_costs_nothing(backbone: HandmadeBackbone) -> None:
    assert backbone.extract(noise(0, 2, 3, 16, 16), patch=False).patch.shape == (2, 0, 0, backbone.spec.dim)
    assert backbone.extract(noise(0, 0, 3, 16, 24)).patch.shape == (0, 2, 3, backbone.spec.dim)


def test_a_cls_token_is_refused_in_one_line(backbone: HandmadeBackbone) -> None:
    with pytest.raises(UsageError, match="builtin has no CLS token") as caught:
        backbone.extract(noise(0, 1, 3, 16, 16), cls=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(12, 16), (16, 7), (0, 8)])
def test_sizes_off_the_grid_are_refused(backbone: HandmadeBackbone, size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="multiples of its 8-pixel patch"):
        backbone.prepare(astronaut(), *size)
    with pytest.raises(UsageError, match="multiples of its 8-pixel patch"):
        backbone.extract(torch.zeros(1, 3, *size, dtype=torch.uint8))
