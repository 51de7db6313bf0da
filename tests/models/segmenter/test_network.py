"""The segmenter's parts, its start and its predictions."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from stand_in import TINY, StandIn, made

from ovskit.core.models.segmenter.ancestor import AncestorHead
from ovskit.core.models.segmenter.network import Predictions


def test_ancestor_head_is_the_papers_equation() -> None:
    torch.manual_seed(0)
    head, queries = AncestorHead(8), torch.randn(2, 5, 8)
    first, second = (matrix.detach().double().numpy() for matrix in (head.ancestor, head.descendant))
    found = head(queries).detach().sigmoid().numpy()
    for image in range(2):
        rows = queries[image].double().numpy()
        for i in range(5):
            for j in range(5):
                wanted = 1 / (1 + np.exp(-np.dot(rows[i] @ first, rows[j] @ second) / np.sqrt(8)))
                assert found[image, i, j] == pytest.approx(wanted, rel=1e-5)


def test_predictions_of_every_layer() -> None:
    found = made()(torch.zeros(2, 3, 64, 96, dtype=torch.uint8))
    assert len(found.classes) == len(found.masks) == TINY.decoder_layers
    assert all(classes.shape == (2, 6, 2) for classes in found.classes)
    assert all(masks.shape == (2, 6, 16, 24) for masks in found.masks)
    assert found.ancestors.shape == (2, 6, 6)


@pytest.mark.parametrize("size", [(64, 40), (33, 64), (0, 32)])
def test_sizes_that_do_not_fit(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        made()(torch.zeros(1, 3, *size))


def test_the_start_is_transformers_own() -> None:
    """transformers skips some modules of classes that are not its own; see ``_Decoders``."""
    network = made().decoders
    attention = network.pixels.encoder.layers[0].self_attn
    # Two heads look left and right, at one to four steps on each level: no point is drawn, and none is at 0.
    offsets = attention.sampling_offsets.bias.view(TINY.heads, 3, 4, 2)
    assert torch.equal(offsets[:, 0, :, 0].round(), torch.tensor([[1.0, 2, 3, 4], [-1, -2, -3, -4]]))
    assert not attention.sampling_offsets.weight.any()
    assert network.pixels.level_embed.std().item() == pytest.approx(1, abs=0.3)
    assert network.queries.decoder.layers[0].fc1.weight.abs().max() > 0.2  # Xavier's; a plain layer has 0.02


def test_the_same_seed_gives_the_same_network() -> None:
    first, second = made(seed=3).state_dict(), made(seed=3).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_head_parameters_are_those_outside_the_pyramid() -> None:
    network = made()
    head, pyramid = {id(p) for p in network.head_parameters()}, {id(p) for p in network.pyramid.parameters()}
    assert not head & pyramid
    assert head | pyramid == {id(p) for p in network.parameters()}


def test_bfloat16_is_near_float32() -> None:
    network, images = made().eval(), torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        plain = network(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            short = network(images)
    assert short.masks[0].dtype == torch.bfloat16
    torch.testing.assert_close(short.masks[0].float(), plain.masks[0], rtol=0.1, atol=0.02)


def test_recomputing_changes_no_gradient() -> None:
    network, images = made().train(), torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    found = []
    for on in (False, True, False):
        network.recompute(on)
        network.zero_grad()
        predictions = network(images)
        (predictions.masks[-1].square().sum() + predictions.ancestors.sum()).backward()
        found.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
        assert network.decoders.is_activation_checkpointing is on
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_copy_learns_on_its_own() -> None:
    """The teacher of self-correction is a copy; transformers keeps layers in plain lists as well, which must follow."""
    network, images = made().eval(), torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    twin = copy.deepcopy(network)
    with torch.no_grad():
        before = network(images).masks[-1]
        for parameter in twin.parameters():
            parameter.zero_()
        assert torch.equal(network(images).masks[-1], before)
        assert not twin(images).masks[-1].any()


def test_scores() -> None:
    classes, masks = torch.zeros(1, 3, 2), torch.full((1, 3, 2, 2), -1.0)
    classes[0, 0, 0] = 3
    masks[0, 0, 0] = torch.tensor([2.0, 1.0])
    masks[0, 1] = 4
    found = Predictions([classes], [masks], torch.zeros(1, 3, 3)).scores()[0].double()
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    wanted = [sigmoid(3) * (sigmoid(2) + sigmoid(1)) / 2, 0.5 * sigmoid(4), 0]
    assert found.tolist() == pytest.approx(wanted, rel=1e-6)


def test_channels_are_the_pyramids() -> None:
    network = made()
    assert [projection[0].in_channels for projection in network.decoders.pixels.input_projections] == list(StandIn.channels[:0:-1])
