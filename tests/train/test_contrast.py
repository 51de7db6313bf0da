"""The contrastive loss: fixtures worked out by hand, parity with open_clip, and a step that is split any way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.loss import ClipLoss
from torch import nn

from ovskit.core.train.recipes.contrast import FIRST, Scale, Vectors, contrast, equal_captions, in_whole_step, statistics_kept


def different(count: int) -> torch.Tensor:
    return torch.arange(count)[:, None]


def of_cosines(cosines: torch.Tensor) -> Vectors:
    """Vectors with these products: a loss looks at nothing else."""
    return Vectors(cosines, torch.eye(len(cosines)), different(len(cosines)))


def random_vectors(count: int, seed: int, width: int = 6) -> Vectors:
    rng = torch.Generator().manual_seed(seed)
    images, texts = (nn.functional.normalize(torch.randn(count, width, generator=rng), dim=1) for _ in range(2))
    return Vectors(images, texts, different(count))


def test_each_direction_by_hand() -> None:
    """S = [[.5, 0], [.25, .75]] at scale 2: image to texts .3132617, text to images .3377452."""
    loss = contrast(of_cosines(torch.tensor([[0.5, 0.0], [0.25, 0.75]])), torch.tensor(2.0)).loss
    assert loss.item() == pytest.approx((0.3132617 + 0.3377452) / 2, abs=1e-6)


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.5737222195), (0.07, 1.1912904355)])
def test_two_pairs_by_hand(temperature: float, expected: float) -> None:
    images, texts = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[0.8, 0.6], [0.0, 1.0]])
    assert contrast(Vectors(images, texts, different(2)), torch.tensor(1 / temperature)).loss.item() == pytest.approx(expected, abs=1e-6)


def test_identity_and_all_alike() -> None:
    assert contrast(of_cosines(torch.eye(2)), torch.tensor(1.0)).loss.item() == pytest.approx(0.3132617, abs=1e-6)
    assert contrast(of_cosines(torch.full((5, 5), 0.3)), torch.tensor(7.0)).loss.item() == pytest.approx(math.log(5), abs=1e-6)


@given(count=st.integers(2, 9), scale=st.floats(0.5, 100), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_as_open_clip(count: int, scale: float, seed: int) -> None:
    vectors = random_vectors(count, seed)
    expected = ClipLoss()(vectors.images, vectors.texts, torch.tensor(scale))
    torch.testing.assert_close(contrast(vectors, torch.tensor(scale)).loss, expected, rtol=1e-5, atol=1e-6)


def test_equal_captions_share_the_target() -> None:
    tokens = torch.tensor([[5, 1], [7, 2], [5, 1]])
    assert equal_captions(tokens).tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    vectors = random_vectors(3, 3)
    logits = (3.0 * vectors.images @ vectors.texts.T).double().numpy()
    target = np.array([[0.5, 0, 0.5], [0, 1, 0], [0.5, 0, 0.5]])

    def entropy(rows: np.ndarray) -> float:
        return float(-(target * (rows - np.log(np.exp(rows).sum(1, keepdims=True)))).sum(1).mean())

    expected = (entropy(logits) + entropy(logits.T)) / 2
    assert contrast(Vectors(vectors.images, vectors.texts, tokens), torch.tensor(3.0)).loss.item() == pytest.approx(expected, abs=1e-5)


def test_accuracy_takes_any_of_equal_captions() -> None:
    images = torch.eye(3)
    texts = torch.eye(3)[[2, 1, 0]]  # the first and the third say each other's
    scale = torch.tensor(1.0)
    assert contrast(Vectors(images, texts, different(3)), scale).accuracy.item() == pytest.approx(1 / 3)
    assert contrast(Vectors(images, texts, torch.tensor([[4], [5], [4]])), scale).accuracy.item() == 1


@given(rank=st.integers(0, 3), size=st.integers(1, 3), seed=st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_the_mean_of_the_batches_gradients_is_that_of_the_whole_step(rank: int, size: int, seed: int) -> None:
    world = 4
    whole = random_vectors(world * size, seed)
    images, texts = whole.images.clone().requires_grad_(), whole.texts.clone().requires_grad_()
    scale = torch.tensor(5.0, requires_grad=True)
    expected = contrast(Vectors(images, texts, whole.tokens), scale).loss
    expected.backward()
    scales = []
    for k in range(world):
        part = slice(k * size, (k + 1) * size)
        own = Vectors(whole.images[part].clone().requires_grad_(), whole.texts[part].clone().requires_grad_(), whole.tokens[part])
        its_scale = torch.tensor(5.0, requires_grad=True)
        loss = contrast(in_whole_step(own, whole, k, world), its_scale).loss
        loss.backward()
        assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
        scales.append(its_scale.grad)
        if k == rank:
            torch.testing.assert_close(own.images.grad / world, images.grad[part], rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(own.texts.grad / world, texts.grad[part], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(torch.stack(scales).mean(), scale.grad, rtol=1e-4, atol=1e-6)


def test_the_scale_is_limited_and_goes_on_learning() -> None:
    scale = Scale()
    assert scale().item() == pytest.approx(1 / 0.07, rel=1e-5)
    assert scale.logarithm.item() == pytest.approx(FIRST)
    with torch.no_grad():
        scale.logarithm.fill_(9.0)
    assert scale().item() == pytest.approx(100, rel=1e-5)
    scale.limit()
    scale().backward()
    assert scale.logarithm.grad.item() == pytest.approx(100, rel=1e-5)


def test_a_pass_without_gradients_leaves_the_running_statistics() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    images = torch.randn(4, 3, 2, 2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad(), statistics_kept(network):
        seen = network(images)
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    torch.testing.assert_close(network(images), seen)
    assert network[1].num_batches_tracked.item() == 1
