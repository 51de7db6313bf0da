"""Two towers of any architecture as the family ``run:DIR``: vectors of images, features of places, words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from ovskit.core.models.families import has_words, image_size, resolve_name
from ovskit.core.models.registry import load_backbone, load_text, reload_backbone
from ovskit.core.models.towers.config import TowersConfig
from ovskit.core.models.towers.image_tower import ImageTower
from ovskit.core.models.towers.network import Towers, text_transformer, tokenizer_of
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError

from .conftest import ARCHES, SIZES

CPU = torch.device("cpu")
Saved = Callable[..., tuple[Path, Towers]]


def photographs(side: int, count: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("arch", "side"), ARCHES.items())
def test_cls_is_what_the_tower_was_trained_to_say(saved: Saved, arch: str, side: int) -> None:
    folder, towers = saved(arch, side)
    backbone = load_backbone(f"run:{folder}", device=CPU)
    images = photographs(side)
    found = backbone.extract(images, cls=True)
    with torch.inference_mode():
        expected = towers.image(images)
    torch.testing.assert_close(found.cls, expected, rtol=1e-4, atol=1e-5)
    assert found.cls.std() > 1e-3
    grid = side // backbone.spec.stride
    assert tuple(found.patch.shape) == (3, grid, grid, backbone.spec.dim)
    assert backbone.spec.has_cls
    assert image_size(f"run:{folder}") == side
    larger = backbone.extract(backbone.prepare(np.zeros((50, 70, 3), np.uint8), 2 * side, 3 * side)[None], cls=True)
    assert tuple(larger.patch.shape[1:3]) == (2 * grid, 3 * grid)
    again = reload_backbone(backbone.spec, device=CPU)
    assert torch.equal(again.extract(images, cls=True).cls, found.cls)


@pytest.mark.parametrize(("arch", "side"), ARCHES.items())
def test_every_parameter_that_learns_has_a_gradient(arch: str, side: int) -> None:
    tower = ImageTower(arch, side=side, dim=4)
    tower(photographs(side)).square().sum().backward()
    assert not [name for name, parameter in tower.named_parameters() if parameter.requires_grad and parameter.grad is None]


def test_facets_of_a_transformer_and_of_a_convolutional_tower(saved: Saved) -> None:
    folder, _ = saved("test_vit")
    kinds = {facet: load_backbone(f"run:{folder}", facet=facet, layer=1, device=CPU) for facet in ("key", "query", "value", "token")}
    images = photographs(32, 1)
    maps = [backbone.extract(images).patch for backbone in kinds.values()]
    assert all(not torch.equal(one, other) for k, one in enumerate(maps) for other in maps[:k])
    folder, towers = saved("test_convnext")
    name = f"run:{folder}"
    default = load_backbone(name, device=CPU)
    assert default.spec.facet == "token"
    with torch.inference_mode():
        features = towers.image.network.forward_features(towers.image.normalised(images))
        expected = towers.image.norm(features.permute(0, 2, 3, 1))
    torch.testing.assert_close(default.extract(images).patch, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="--facet query: .* is convolutional"):
        load_backbone(name, facet="query", device=CPU)
    with pytest.raises(UsageError, match="multiples of its stride"):
        default.prepare(np.zeros((40, 40, 3), np.uint8), 33, 32)


def test_words_are_in_the_space_of_images(saved: Saved) -> None:
    folder, towers = saved("test_convnext")
    spec = load_backbone(f"run:{folder}", device=CPU).spec
    text = load_text(spec, device=CPU)
    prompts = ["a dog", "a cat on a mat and many more words than can be read", ""]
    rows = text.embed(prompts)
    assert rows.shape == (3, SIZES["dim"])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(towers.text(tokenizer_of(towers.config)(prompts)), dim=1).numpy()
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert text.scale == 20.0
    assert text.weights_sha256 == spec.weights_sha256
    assert has_words(f"run:{folder}")


def test_padding_changes_nothing_and_what_is_cut_still_ends() -> None:
    short, long = (TowersConfig("x", 8, dim=4, context=context, text_width=8, text_heads=2, text_layers=2) for context in (6, 12))
    tower = text_transformer(long).eval()
    tokens = tokenizer_of(long)(["a dog", "one two three four five six seven eight nine ten eleven twelve"])
    assert tokens[0].tolist()[:4] == [49406, 320, 1929, 49407]
    assert tokens[1, -1] == 49407
    shorter = text_transformer(short).eval()
    state = tower.state_dict()
    state["positional_embedding"] = state["positional_embedding"][:6]
    shorter.load_state_dict({name: tensor for name, tensor in state.items() if name in shorter.state_dict()}, strict=False)
    with torch.inference_mode():
        torch.testing.assert_close(tower(tokens[:1]), shorter(tokens[:1, :6]), rtol=1e-4, atol=1e-6)


def test_a_run_that_changed_is_not_the_one_that_made_features(saved: Saved) -> None:
    folder, _ = saved("test_convnext")
    spec = load_backbone(f"run:{folder}", device=CPU).spec
    from ovskit.core.models.towers.checkpoint import save_towers

    from .conftest import make

    save_towers(folder, make("test_convnext", seed=1), 20.0, {})
    with pytest.raises(InputError, match="the features were made by"):
        reload_backbone(spec, device=CPU)


def test_what_is_refused(saved: Saved, tmp_path: Path) -> None:
    assert resolve_name("run:somewhere") == "run:somewhere"
    assert image_size("run:nowhere") is None
    with pytest.raises(MissingInputError, match="no such folder"):
        load_backbone("run:nowhere", device=CPU)
    folder, _ = saved("test_convnext")
    with pytest.raises(UsageError, match="--weights: .* is a run with weights of its own"):
        load_backbone(f"run:{folder}", weights=tmp_path, device=CPU)


@pytest.mark.parametrize("arch", ["test_vit", "test_vit3", "test_convnext", "test_resnet"])
def test_first_weights_of_the_architecture(arch: str, tmp_path: Path) -> None:
    """At timm's own image size, with its head: the head is left out, positions are brought to the tower's size."""
    whole = timm.create_model(arch, pretrained=False, num_classes=7)
    save_file({name: tensor.contiguous() for name, tensor in whole.state_dict().items()}, tmp_path / "weights.safetensors")
    tower = ImageTower(arch, side=32, dim=4)
    tower.begin_with(tmp_path / "weights.safetensors")
    own = tower.network.state_dict()
    same = [name for name, tensor in whole.state_dict().items() if name in own and torch.equal(own[name], tensor)]
    assert len(same) >= len(own) - 1
    assert all(name == "pos_embed" for name in own.keys() - set(same))
    other = ImageTower("test_efficientnet", side=32, dim=4)
    with pytest.raises(InputError, match="not weights of test_efficientnet"):
        other.begin_with(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(("arch", "stride"), [("test_resnet", 8), ("test_resnet", 16), ("test_convnext", 16)])
def test_dilation_makes_the_last_map_finer(arch: str, stride: int) -> None:
    tower = ImageTower(arch, side=64, dim=4, stride=stride)
    assert tower.stride == stride
    assert tower.network.forward_features(torch.zeros(1, 3, 64, 96)).shape[2:] == (64 // stride, 96 // stride)
    # The same weights fit: dilation has none of its own.
    tower.network.load_state_dict(ImageTower(arch, side=64, dim=4).network.state_dict())


def test_what_cannot_be_made_finer_is_refused() -> None:
    with pytest.raises(UsageError, match="stride 8"):
        ImageTower("test_vit", side=64, dim=4, stride=8)
