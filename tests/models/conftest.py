"""Small models with random weights, saved the way a user would have them on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

TINY_CLIP = "ovskit-tiny"
TINY_TEXT = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}

torch.set_num_threads(1)  # these networks are too small to share out, and waiting for another thread takes longer


@contextmanager
def threads(count: int) -> Iterator[None]:
    """That many threads of torch, for as long as the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def randomise(network: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Every weight and bias off its initial value, since zeros and ones hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
    return network.eval()


def save(network: torch.nn.Module, path: Path) -> Path:
    save_file({name: tensor.clone() for name, tensor in network.state_dict().items()}, path)
    return path


@pytest.fixture(scope="session")
def timm_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[torch.nn.Module, Path]]:
    """A timm network with random weights, as timm itself runs it, and its weights file."""
    folder = tmp_path_factory.mktemp("timm")
    made: dict[str, tuple[torch.nn.Module, Path]] = {}

    def make(name: str) -> tuple[torch.nn.Module, Path]:
        if name not in made:
            network = randomise(timm.create_model(name, num_classes=0, dynamic_img_size=True), seed=len(made))
            made[name] = network, save(network, folder / f"{name}.safetensors")
        return made[name]

    return make


@pytest.fixture(scope="session")
def clip_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[torch.nn.Module, Path]]:
    """A whole small CLIP, text tower included, as open_clip itself runs it, and its weights file.

    ``ovskit-tiny`` has open_clip's own image tower, ``ovskit-tiny-quickgelu`` the same with the other activation, and
    ``ovskit-tiny-timm`` one from timm.
    """
    import open_clip  # where it is missing, the other tests run

    folder = tmp_path_factory.mktemp("clip")
    own = {"image_size": 64, "layers": 3, "width": 64, "head_width": 16, "patch_size": 16}
    from_timm = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "timm_proj": "linear", "image_size": 224}
    configs = {
        TINY_CLIP: {"embed_dim": 24, "vision_cfg": own, "text_cfg": TINY_TEXT},
        f"{TINY_CLIP}-quickgelu": {"embed_dim": 24, "vision_cfg": own, "text_cfg": TINY_TEXT, "quick_gelu": True},
        f"{TINY_CLIP}-timm": {"embed_dim": 24, "vision_cfg": from_timm, "text_cfg": TINY_TEXT},
    }
    for name, config in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    made: dict[str, tuple[torch.nn.Module, Path]] = {}

    def make(name: str) -> tuple[torch.nn.Module, Path]:
        if name not in made:
            network = randomise(open_clip.create_model(name), seed=99)
            made[name] = network, save(network, folder / f"{name}.safetensors")
        return made[name]

    return make
