"""Queries that begin at places: against the formula in plain loops, and transformers' own decoder."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from stand_in import TINY, StandIn, scene
from torch import Tensor

from ovskit.core.models.registry import build_pyramid
from ovskit.core.models.segmenter.checkpoint import load_segmenter, save_segmenter
from ovskit.core.models.segmenter.losses import LossOptions, segmenter_losses
from ovskit.core.models.segmenter.network import Segmenter
from ovskit.core.models.segmenter.places import PlaceQueries, Seeds, grid_of, ground_of, middles
from ovskit.core.runtime.errors import UsageError

KINDS = 3
PLACES = replace(TINY, queries=18, kinds=KINDS)


class Grouping(StandIn):
    """A pyramid that says what belongs together: what is of one colour."""

    def grouped(self, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        small = F.avg_pool2d(images.float(), 4) / 255
        return self(images), F.normalize(torch.cat([small, torch.full_like(small[:, :1], 0.1)], dim=1), dim=1)


def made(seed: int = 0, config: Any = PLACES) -> Segmenter:
    torch.manual_seed(seed)
    return Segmenter(config, Grouping())


def images(count: int = 2, height: int = 64, width: int = 96) -> Tensor:
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@given(places=st.integers(1, 2000), height=st.integers(1, 300), width=st.integers(1, 300))
def test_a_grid_has_about_as_many_places(places: int, height: int, width: int) -> None:
    rows, columns = grid_of(places, height, width)
    assert min(rows, columns) >= 1
    assert abs(rows * columns - places) <= max(rows, columns, places / 2)  # never more than half of a row away, or one place of one
    if height == width:
        assert abs(rows - columns) <= 1


def test_middles_are_those_of_cells() -> None:
    x, y = middles(2, 4, torch.device("cpu"))[0].unbind(-1)
    assert x.tolist() == [[-0.75, -0.25, 0.25, 0.75]] * 2
    assert y.tolist() == [[-0.5] * 4, [0.5] * 4]
    # As grid_sample sees cells: at its middle a cell has its own value.
    values = torch.arange(8.0).view(1, 1, 2, 4)
    assert torch.equal(F.grid_sample(values, middles(2, 4, torch.device("cpu")), align_corners=False), values)


def test_the_prior_is_its_formula() -> None:
    torch.manual_seed(0)
    queries = PlaceQueries([4], 8, KINDS).double()
    torch.nn.init.normal_(queries.change.weight, std=0.2)
    torch.nn.init.normal_(queries.change.bias, std=0.2)
    batch, height, width, q = 2, 3, 5, 6
    grouping = F.normalize(torch.randn(batch, 4, height, width), dim=1)
    seeds = Seeds(
        content=torch.zeros(0), positions=torch.zeros(0), places=2 * torch.rand(q, 2) - 1,
        grouping=F.normalize(torch.randn(batch, q, 4), dim=2), kinds=torch.arange(q) % KINDS,
    )  # fmt: skip
    states = torch.randn(batch, q, 8)
    plain = PlaceQueries([4], 8, KINDS)
    plain.load_state_dict(queries.state_dict())
    found = plain.prior(seeds, states, ground_of(grouping)).detach().numpy()
    change = queries.change(states.double()).detach().numpy()
    for b in range(batch):
        for n in range(q):
            sharp, near = 10 * np.exp(change[b, n, 0]), 0.1 * np.exp(change[b, n, 2])
            least = (0.8, 0.5, 0.2)[n % KINDS] + change[b, n, 1]
            for row in range(height):
                for column in range(width):
                    x = np.array([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1])
                    cosine = float(grouping[b, :, row, column].double() @ seeds.grouping[b, n].double())
                    away = x - seeds.places[n].double().numpy() - change[b, n, 3:]
                    assert found[b, n, row, column] == pytest.approx(sharp * (cosine - least) - near * (away**2).sum(), abs=1e-4)


def test_before_anything_is_learned_masks_are_regions() -> None:
    """A query's mask is what has the colour of its place; the kinds of a place are nested."""
    network = made().eval()
    network.decoders.queries.decoder.mask_predictor.mask_embedder.apply(_silent)
    picture, target = scene((0, 0, 64, 32))  # its left half
    with torch.no_grad():
        masks = network(picture[None], 16 * KINDS).masks[0][0] > 0
    rows, columns = 4, 4
    assert masks.shape == (rows * columns * KINDS, 16, 16)
    left = target.masks[0, ::4, ::4]
    x = middles(rows, columns, torch.device("cpu"))[..., 0].flatten().repeat_interleave(KINDS)
    for k, mask in enumerate(masks):
        if k % KINDS == 0:  # the narrowest
            assert torch.equal(mask, left if x[k] < 0 else ~left)
        else:
            assert bool((mask | ~masks[k - 1]).all())


def _silent(module: torch.nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        torch.nn.init.zeros_(parameter)


def test_without_its_prior_it_is_transformers_decoder() -> None:
    network = made().eval()
    decoders = network.decoders
    assert decoders.places is not None
    pixels = images()
    maps, _ = network.pyramid.grouped(pixels)  # type: ignore[operator]
    nowhere = torch.zeros(2, 4, 16, 24)
    with torch.no_grad():
        decoders.places.least.zero_()
        decoders.places.change.bias[2] = -100.0  # of nearness, whose exponential it is
        states, _, masks = decoders(list(maps), nowhere, 18)
        features = decoders.pixels(list(maps), return_dict=True)
        levels, module = list(features.multi_scale_features), decoders.queries
        positions = [module.position_embedder(each.shape, each.device, each.dtype, None) for each in levels]
        seeds = decoders.places([*levels, features.mask_features], nowhere, positions[-1], 18)
        theirs = module.decoder(
            inputs_embeds=seeds.content,
            multi_stage_positional_embeddings=[each.flatten(2).permute(2, 0, 1) for each in positions],
            pixel_embeddings=features.mask_features,
            encoder_hidden_states=[
                (module.input_projections[k](levels[k]).flatten(2) + module.level_embed.weight[k][None, :, None]).permute(2, 0, 1)
                for k in range(3)
            ],
            query_position_embeddings=seeds.positions,
            feature_size_list=[each.shape[-2:] for each in levels],
            return_dict=True,
        )
    for ours, other in zip(masks, theirs.masks_queries_logits, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(states, theirs.intermediate_hidden_states[-1].transpose(0, 1), rtol=1e-5, atol=1e-5)


def test_an_image_does_not_depend_on_its_batch() -> None:
    network, pixels = made().eval(), images(3)
    with torch.no_grad():
        together, alone = network(pixels), network(pixels[1:2])
    torch.testing.assert_close(together.masks[-1][1:2], alone.masks[-1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together.ancestors[1:2], alone.ancestors, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [3, 18, 200])
def test_any_number_of_queries(count: int) -> None:
    rows, columns = grid_of(count // KINDS, 16, 24)
    found = made().eval()(images(), count)
    assert found.masks[-1].shape == (2, KINDS * rows * columns, 16, 24)
    assert found.ancestors.shape[1:] == (KINDS * rows * columns,) * 2


def test_every_parameter_learns() -> None:
    """Distributed training waits for all of them."""
    network = made().train()
    found = network(images())
    target = scene((0, 0, 32, 32), (40, 40, 60, 60), size=64)[1]
    segmenter_losses(found, [target, target], LossOptions.of(PLACES))["loss"].backward()
    missing = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not missing


def test_recomputing_changes_no_gradient() -> None:
    found = []
    network = made().train()
    for on in (False, True):
        network.recompute(on)
        network.zero_grad()
        network(images()).masks[-1].square().sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert torch.equal(*found)


def test_a_small_mask_survives_bfloat16() -> None:
    """The prior is float32 whatever the rest is: terms of both signs that are large against their sum."""
    network = made().eval()
    places = network.decoders.places
    assert places is not None
    with torch.no_grad():
        places.change.bias[2] = np.log(5000.0)  # γ = 500: a mask of a twentieth of the image's side
        plain = network(images())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            short = network(images())
    assert short.masks[0].dtype == torch.float32
    torch.testing.assert_close(short.masks[0], plain.masks[0], rtol=0.02, atol=0.2)


def test_saved_and_loaded(tmp_path: Any) -> None:
    network = made()
    save_segmenter(tmp_path, network, {})
    twin = load_segmenter(tmp_path, lambda config: Grouping()).segmenter
    assert twin.config == network.config
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(network).eval()(images()).masks[-1], twin(images()).masks[-1])


def test_the_built_in_network_groups() -> None:
    pyramid = build_pyramid("builtin", weights=None, pretrained=True, freeze=False, grouping=True).eval()
    with torch.no_grad():
        maps, grouping = pyramid.grouped(images())
    assert tuple(each.shape[1] for each in maps) == pyramid.channels
    assert grouping.shape[-2:] == (16, 24)
    torch.testing.assert_close(grouping.norm(dim=1), torch.ones(2, 16, 24))
    from ovskit.core.models.builtin.network import normalise
    from ovskit.core.models.builtin.pyramid import shipped_network

    with torch.no_grad():
        wanted = F.normalize(shipped_network().eval()(normalise(images())).embedding, dim=1)
    torch.testing.assert_close(grouping, wanted, rtol=1e-4, atol=1e-4)
    named = {id(parameter) for group in pyramid.depth_groups() for parameter in group}
    assert named == {id(parameter) for parameter in pyramid.parameters()}


def test_other_backbones_do_not_group() -> None:
    with pytest.raises(UsageError, match="kinds=0"):
        build_pyramid("timm:resnet18", weights=None, pretrained=False, freeze=False, grouping=True)
