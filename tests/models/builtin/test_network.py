"""The built-in network's layers and its weights file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ovskit.core.models.builtin.network import GroupingNetwork, NetworkConfig, fold_batch_norms, normalise
from ovskit.core.models.builtin.weights import FORMAT, load_network, read_about, save_network
from ovskit.core.runtime.errors import InputError, MissingInputError

TINY = NetworkConfig(widths=(8, 12, 16), blocks=(1, 2, 1), attention=1, pyramid=10, embedding=6, levels=3, projection=5)


def made(config: NetworkConfig = TINY, seed: int = 0) -> GroupingNetwork:
    """Random weights, and statistics of normalisation that are not those at the start."""
    torch.manual_seed(seed)
    network = GroupingNetwork(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    found = network(torch.randn(6, 3, 40, 56))
    network.projected(found.pooled)
    return network.eval()


@pytest.mark.parametrize("size", [(64, 96), (4, 4), (37, 50), (1, 7)])
def test_shapes(size: tuple[int, int]) -> None:
    network = made()
    found = network(torch.randn(2, 3, *size))
    grid = (-(-size[0] // 4), -(-size[1] // 4))
    assert found.embedding.shape == (2, 6, *grid)
    assert found.right.shape == found.below.shape == (2, 3, *grid)
    assert found.pooled.shape == (2, 16)
    assert network.projected(found.pooled).shape == (2, 5)


def test_widths_need_as_many_blocks() -> None:
    with pytest.raises(ValueError, match="2 widths need as many blocks"):
        GroupingNetwork(NetworkConfig(widths=(8, 8), blocks=(1,)))


def test_folded_normalisation_changes_nothing_but_the_arithmetic() -> None:
    images = torch.randn(2, 3, 48, 64)
    with torch.no_grad():
        before = made()(images)
        folded = fold_batch_norms(made())
        after = folded(images)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    for name in ("embedding", "right", "below", "pooled"):
        torch.testing.assert_close(getattr(before, name), getattr(after, name), rtol=1e-4, atol=1e-5)


def test_attention_reaches_across_the_image_and_convolutions_do_not() -> None:
    def moved(attention: int) -> bool:
        network = made(NetworkConfig(widths=(8,), blocks=(1,), attention=attention, pyramid=8, embedding=4, levels=1))
        images = torch.randn(1, 3, 128, 128)
        changed = images.clone()
        changed[..., :8, :8] += 3
        with torch.no_grad():
            difference = (network(images).embedding - network(changed).embedding).abs().amax(dim=1)[0]
        return bool(difference[-1, -1] > 1e-6)

    assert moved(1)
    assert not moved(0)


def test_images_are_normalised_like_imagenet() -> None:
    images = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = [(0 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    torch.testing.assert_close(normalise(images).flatten(), torch.tensor(expected))


def test_the_configuration_survives_json() -> None:
    assert NetworkConfig.from_json(json.loads(json.dumps(TINY.to_json()))) == TINY


def test_weights_come_back_in_halves(tmp_path: Path) -> None:
    network = made()
    save_network(tmp_path / "w.safetensors", network, {"recipe": "test"})
    loaded, vector, sha256 = load_network(tmp_path / "w.safetensors")
    assert vector is None
    assert loaded.config == TINY
    assert not loaded.training
    assert len(sha256) == 64
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            expected = tensor if "running_" in name else tensor.half().float()
            assert torch.equal(loaded.state_dict()[name], expected), name
    assert read_about(tmp_path / "w.safetensors") == {"recipe": "test"}


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    for k in range(4):
        save_network(tmp_path / f"{k}", made(), {"a": 1, "b": 2})
    assert len({(tmp_path / f"{k}").read_bytes() for k in range(4)}) == 1


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(MissingInputError, match="no such file"):
        load_network(path)
    network = made()
    save_network(path, network, {})
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(InputError, match="not a complete safetensors file"):
        load_network(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="not weights of the built-in network"):
        load_network(path)
    with pytest.raises(InputError, match="not weights of the built-in network"):
        read_about(path)
    for kind, hint in (("ovskit.checkpoint/1", "model.safetensors beside it"), ("ovskit.vit/1", "give --model timm:tiny")):
        save_file({"x": torch.zeros(1)}, path, {"ovskit": json.dumps({"format": kind, "arch": "tiny"})})
        with pytest.raises(InputError, match=hint):
            load_network(path)

    def rewritten(config: dict[str, object], tensors: dict[str, torch.Tensor]) -> None:
        header = {"format": FORMAT, "config": config, "about": {}}
        save_file(tensors, path, {"ovskit": json.dumps(header)})

    tensors = {name: t.clone() for name, t in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    rewritten({**TINY.to_json(), "widths": "many"}, tensors)
    with pytest.raises(InputError, match="configuration in its header is damaged"):
        load_network(path)
    rewritten(TINY.to_json(), {**tensors, "extra": torch.zeros(1)})
    with pytest.raises(InputError, match="unknown tensor extra"):
        load_network(path)
    rewritten(TINY.to_json(), {name: t for name, t in tensors.items() if name != "embed.bias"})
    with pytest.raises(InputError, match="lacks tensor embed.bias"):
        load_network(path)
    rewritten(TINY.to_json(), {**tensors, "embed.bias": torch.zeros(7)})
    with pytest.raises(InputError, match=r"embed.bias is \(7,\), the network's is \(6,\)"):
        load_network(path)
    rewritten(TINY.to_json(), {**tensors, "embed.bias": torch.full((6,), torch.nan)})
    with pytest.raises(InputError, match="not finite"):
        load_network(path)


def test_weights_too_large_for_halves_are_refused(tmp_path: Path) -> None:
    network = made()
    with torch.no_grad():
        network.embed.weight[0] = 1e6
    with pytest.raises(InputError, match=r"embed.weight is not finite in half precision"):
        save_network(tmp_path / "w.safetensors", network, {})
    assert not (tmp_path / "w.safetensors").exists()
