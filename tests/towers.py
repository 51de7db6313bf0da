"""Small runs of two towers with random weights, for tests of what names pixels and images by words."""

from __future__ import annotations

from pathlib import Path

import torch

from ovskit.core.models.towers.checkpoint import save_towers
from ovskit.core.models.towers.config import TowersConfig
from ovskit.core.models.towers.network import Towers


def tiny_run(folder: Path, arch: str, seed: int = 0) -> Path:
    """The folder of a finished run of ``ovs-train pairs``: ``arch`` ``test_vit`` or ``test_convnext``, 24 dimensions in common."""
    torch.manual_seed(seed)
    towers = Towers(TowersConfig(arch, side=64, dim=24, text_width=16, text_heads=2, text_layers=1)).eval()
    with torch.no_grad():
        for tensor in towers.state_dict().values():
            if tensor.is_floating_point():
                # First weights alone see every patch alike.
                tensor.add_(0.1 * torch.randn(tensor.shape))
    save_towers(folder, towers, 20.0, {"steps": 0})
    return folder
