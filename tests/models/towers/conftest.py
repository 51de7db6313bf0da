from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ovskit.core.models.towers.checkpoint import save_towers
from ovskit.core.models.towers.config import TowersConfig
from ovskit.core.models.towers.network import Towers

SIZES = {"dim": 12, "context": 8, "text_width": 16, "text_heads": 2, "text_layers": 2}
ARCHES = {"test_vit": 32, "test_vit2": 32, "test_vit3": 32, "test_convnext": 32, "test_resnet": 32, "test_efficientnet": 32}
"""With CLS, registers, without CLS, layer scale, layer norms and batch normalisation."""


def make(arch: str, side: int = 32, seed: int = 0) -> Towers:
    """Random towers, none of whose parts does nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        towers = Towers(TowersConfig(arch, side, **SIZES))  # type: ignore[arg-type]
        for parameter in towers.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        for name, buffer in towers.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer += 0.3 * torch.rand_like(buffer)
    return towers.eval()


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., tuple[Path, Towers]]:
    """Random towers of an architecture, and the folder in which they are saved."""

    def save(arch: str, side: int = 32) -> tuple[Path, Towers]:
        towers, folder = make(arch, side), tmp_path / f"run-{arch}"
        save_towers(folder, towers, 20.0, {"recipe": "pairs"})
        return folder, towers

    return save
