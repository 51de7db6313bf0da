"""What every trainable backbone has in common, whatever is inside."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from ovskit.core.models.builtin.network import GroupingNetwork, NetworkConfig, normalise
from ovskit.core.models.builtin.pyramid import GroupingPyramid
from ovskit.core.models.builtin.weights import save_network
from ovskit.core.models.pyramids.pyramid import STRIDES, Pyramid
from ovskit.core.models.registry import build_pyramid
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError, WeightsUnavailableError

TINY = NetworkConfig(widths=(8, 12, 16, 20), blocks=(1, 1, 2, 1), attention=1, pyramid=8, embedding=4, levels=1, projection=4)
TIMM = ["timm:test_vit", "timm:test_resnet", "timm:test_convnext"]
KINDS = ["builtin", *TIMM]


def made(name: str, *, freeze: bool = False, checkpointing: bool = False, seed: int = 0) -> Pyramid:
    """A small one of the kind, with random weights and nothing at zero."""
    torch.manual_seed(seed)
    config = TINY.to_json() if name == "builtin" else None
    pyramid = build_pyramid(name, weights=None, pretrained=False, freeze=freeze, checkpointing=checkpointing, config=config)
    with torch.no_grad():
        for parameter in pyramid.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return pyramid


def images(height: int = 64, width: int = 32, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height + width)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def saved(name: str, folder: Path) -> tuple[torch.nn.Module, Path]:
    """A timm network with random weights and without a head, as timm runs it, and its weights file."""
    torch.manual_seed(5)
    network, path = timm.create_model(name, num_classes=0).eval(), folder / f"{name}.safetensors"
    save_file(network.state_dict(), path)
    return network, path


def loss_of(pyramid: Pyramid, batch: torch.Tensor) -> torch.Tensor:
    """Something that every value of every map has a share in."""
    generator = torch.Generator().manual_seed(0)
    maps = pyramid(batch)
    return torch.stack([(each.float() * torch.randn(each.shape[1:], generator=generator)).sum() for each in maps]).sum()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("height", "width", "count"), [(32, 32, 2), (96, 64, 1)])
def test_shapes(name: str, height: int, width: int, count: int) -> None:
    pyramid = made(name)
    if count == 1:
        pyramid.eval()
    maps = pyramid(images(height, width, count))
    assert [tuple(each.shape) for each in maps] == [
        (count, channels, height // stride, width // stride) for channels, stride in zip(pyramid.channels, STRIDES, strict=True)
    ]
    assert all(torch.isfinite(each).all() for each in maps)
    assert pyramid.name == name


def test_maps_whose_channels_come_last_are_turned() -> None:
    pyramid = made("timm:swin_tiny_patch4_window7_224")
    assert pyramid.channels == (96, 192, 384, 768)
    with torch.no_grad():
        maps = pyramid(images(32, 96, 1))
    assert [tuple(each.shape[1:]) for each in maps] == [(96, 8, 24), (192, 4, 12), (384, 2, 6), (768, 1, 3)]


@pytest.mark.parametrize("name", KINDS)
def test_bytes_and_floats_are_the_same(name: str) -> None:
    pyramid = made(name).eval()
    for first, second in zip(pyramid(images()), pyramid(images().float()), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    "change", [lambda x: x / 255, lambda x: (x / 255 - 0.45) / 0.22, lambda x: x.float() * 257, lambda x: x.to(torch.int32)]
)
def test_images_that_are_normalised_already_are_refused(change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    pyramid = made("builtin").eval()
    with pytest.raises(UsageError, match="builtin takes images .*0 to 255, and normalises them itself; these are"):
        pyramid(change(images()))
    assert torch.isfinite(pyramid(torch.zeros(1, 3, 64, 64))[0]).all()  # a black one is none of them


def test_maps_are_those_of_the_network_itself(tmp_path: Path) -> None:
    network, path = saved("test_resnet", tmp_path)
    mean, std = (torch.tensor(network.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    pyramid = build_pyramid("timm:test_resnet", weights=path, pretrained=False, freeze=True)
    with torch.no_grad():
        expected = network.forward_features((images() / 255 - mean) / std)  # type: ignore[operator]
        torch.testing.assert_close(pyramid(images())[3], expected)

    grouping = GroupingNetwork(TINY).eval()
    save_network(tmp_path / "model.safetensors", grouping, {})
    own = build_pyramid("builtin", weights=tmp_path / "model.safetensors", pretrained=False, freeze=True)
    with torch.no_grad():
        torch.testing.assert_close(own(images())[3].mean((2, 3)), grouping(normalise(images())).pooled, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", KINDS)
def test_depth_groups_are_all_that_is_trained_each_once(name: str) -> None:
    pyramid = made(name)
    own = [id(parameter) for parameter in pyramid.parameters() if parameter.requires_grad]
    grouped = [id(parameter) for group in pyramid.depth_groups() for parameter in group]
    assert sorted(grouped) == sorted(own)
    assert all(pyramid.depth_groups())
    assert len(pyramid.depth_groups()) >= 5
    # The first parameters of timm's and our own networks are those next to the image.
    assert id(next(iter(pyramid.trunk.parameters()))) in {id(parameter) for parameter in pyramid.depth_groups()[0]}


@pytest.mark.parametrize("name", KINDS)
def test_a_frozen_trunk_stays_as_it_is(name: str) -> None:
    pyramid = made(name, freeze=True).train()
    assert not any(module.training for module in pyramid.trunk.modules())
    assert not any(parameter.requires_grad for parameter in pyramid.trunk.parameters())
    before = copy.deepcopy(pyramid.trunk.state_dict())
    learns = [parameter for group in pyramid.depth_groups() for parameter in group]
    assert bool(learns) == (name == "timm:test_vit")
    if learns:
        optimiser = torch.optim.AdamW(pyramid.parameters(), lr=0.1, weight_decay=0.1)
        loss_of(pyramid, images()).backward()
        optimiser.step()
        assert all(parameter.grad is not None for parameter in learns)
    else:
        assert not any(each.requires_grad for each in pyramid(images()))
    for key, tensor in pyramid.trunk.state_dict().items():
        assert torch.equal(tensor, before[key]), key


@pytest.mark.parametrize("name", KINDS)
def test_checkpointing_changes_nothing(name: str) -> None:
    plain, saving = made(name), made(name, checkpointing=True)
    for pyramid in (plain, saving):
        loss_of(pyramid, images()).backward()
    for first, second in zip(plain(images()), saving(images()), strict=True):
        torch.testing.assert_close(first, second)
    for (key, first), second in zip(plain.named_parameters(), saving.parameters(), strict=True):
        if first.requires_grad:
            assert first.grad is not None, key
            torch.testing.assert_close(first.grad, second.grad, msg=key)
    if name == "builtin":  # statistics are counted once (timm's own checkpointing counts twice)
        for key, tensor in plain.state_dict().items():
            torch.testing.assert_close(saving.state_dict()[key], tensor, msg=key)


@pytest.mark.parametrize("name", KINDS)
def test_a_copy_is_independent_and_takes_a_state_dict(name: str) -> None:
    pyramid = made(name)
    loss_of(pyramid, images(96, 64)).backward()  # whatever a forward pass leaves behind is copied, too
    teacher = copy.deepcopy(pyramid).eval()
    pyramid.eval()
    expected = [each.detach() for each in teacher(images())]
    with torch.no_grad():
        for parameter in pyramid.parameters():
            parameter.mul_(1.5)
        assert all(torch.equal(first, second) for first, second in zip(teacher(images()), expected, strict=True))
        fresh = made(name, seed=1).eval()
        fresh.load_state_dict(teacher.state_dict())
        assert all(torch.equal(first, second) for first, second in zip(fresh(images()), expected, strict=True))


@pytest.mark.parametrize("name", KINDS)
def test_bfloat16_is_close(name: str) -> None:
    pyramid = made(name).eval()
    with torch.no_grad():
        exact = pyramid(images())
        with torch.autocast("cpu", torch.bfloat16):
            found = pyramid(images())
    for first, second in zip(found, exact, strict=True):
        assert (first.float() - second).norm() < 0.05 * second.norm()


def test_sizes_that_are_no_multiples_are_refused() -> None:
    with pytest.raises(ValueError, match="size 64×40: timm:test_vit needs multiples of 32"):
        made("timm:test_vit")(images(64, 40))


def test_weights_are_those_of_the_file(tmp_path: Path) -> None:
    for name in TIMM:
        _, path = saved(name.removeprefix("timm:"), tmp_path)
        pyramid = build_pyramid(name, weights=path, pretrained=False, freeze=False)
        found, known = pyramid.trunk.state_dict(), load_file(path)
        assert found
        for key, tensor in found.items():
            assert torch.equal(tensor, known[key.removeprefix("model.")]), key

    # As torchvision's old files are: with a classifier, without counters.
    old = {key: tensor for key, tensor in timm.create_model("test_resnet").state_dict().items() if "num_batches" not in key}
    save_file(old, tmp_path / "old.safetensors")
    pyramid = build_pyramid("timm:test_resnet", weights=tmp_path / "old.safetensors", pretrained=False, freeze=False)
    assert torch.equal(pyramid.trunk.state_dict()["model.layer4.0.conv1.weight"], old["layer4.0.conv1.weight"])


def test_the_weights_that_come_with_ovskit() -> None:
    pyramid = build_pyramid("builtin", weights=None, pretrained=True, freeze=False)
    assert pyramid.channels == (32, 64, 128, 192)
    assert pyramid.training
    again = build_pyramid("builtin", weights=None, pretrained=False, freeze=False)
    assert again.config() == pyramid.config()
    again.load_state_dict(pyramid.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(images())[3], pyramid.eval()(images())[3])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bultin", r"unknown model 'bultin' \(did you mean builtin\?\); valid: builtin"),
        ("timm:resnet5", r"unknown model 'timm:resnet5' \(did you mean resnet50\?\)"),
        ("timm:resnet50.nobody", "with the tags"),
        ("handmade", "handmade cannot be trained for masks"),
        ("clip:ViT-B-16/openai", "cannot be trained for masks"),
        ("timm:mixer_s16_224", "gives no maps at strides 4, 8, 16 and 32 .its maps have the strides 16, 16"),
        ("timm:test_vit_relpos", "gives no maps at strides 4, 8, 16 and 32"),
        ("timm:test_maxvit", "it takes no image of 64×96"),
    ],
)
def test_names_that_do_not_do(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_pyramid(name, weights=None, pretrained=False, freeze=False)


def test_weights_that_do_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, resnet = saved("test_resnet", tmp_path)

    def build(name: str, weights: Path | None, pretrained: bool = False) -> Any:
        return build_pyramid(name, weights=weights, pretrained=pretrained, freeze=False)

    for name in (*KINDS[:2], "timm:test_convnext", "timm:swin_tiny_patch4_window7_224"):
        with pytest.raises(InputError, match="not weights of"):
            build(name, resnet)
        with pytest.raises(MissingInputError, match="no such file"):
            build(name, tmp_path / "nothing")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsUnavailableError):
        build("timm:test_resnet", None, pretrained=True)


def test_a_network_without_four_stages_is_refused() -> None:
    with pytest.raises(UsageError, match="has 3 stages"):
        GroupingPyramid("builtin", GroupingNetwork(NetworkConfig(widths=(8, 8, 8), blocks=(1, 1, 1))), freeze=False)
