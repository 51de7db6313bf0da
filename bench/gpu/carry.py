"""A trained segmenter, or two towers, in one file of half the bytes, and back: ``python -m gpu.carry halve|restore FROM TO`` for towers."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ovskit.core.models.segmenter.checkpoint import save_segmenter
from ovskit.core.models.segmenter.config import SegmenterConfig
from ovskit.core.models.segmenter.network import Segmenter
from ovskit.core.models.segmenter.open import build_backbone, open_segmenter
from ovskit.core.models.towers.checkpoint import load_towers, save_towers
from ovskit.core.models.towers.config import TowersConfig
from ovskit.core.models.towers.network import Towers

_COUNTS = ("running_mean", "running_var")  # too large or small for a half, some of them


def halved(run: Path, to: Path) -> float:
    """Write the segmenter of a finished run with float16 weights; MiB. Raises ValueError for a weight that no float16 holds."""
    loaded = open_segmenter(run)
    tensors = _halves(loaded.segmenter.state_dict())
    header = {"config": json.dumps(loaded.segmenter.config.to_json()), "training": json.dumps(loaded.training)}
    save_file(tensors, to, header)
    return round(to.stat().st_size / 2**20, 1)


def restored(file: Path, folder: Path) -> Path:
    """A folder that ``ovs-train segment --init`` and ``ovs-predict --checkpoint`` take, from what ``halved`` wrote."""
    with safe_open(file, framework="pt", device="cpu") as opened:
        header = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    config = SegmenterConfig.from_json(json.loads(header["config"]))
    segmenter = Segmenter(config, build_backbone(config))
    segmenter.load_state_dict(_wholes(tensors))
    save_segmenter(folder, segmenter, json.loads(header["training"]))
    return folder


def halved_towers(run: Path, to: Path) -> float:
    """As ``halved``, of a run of ``ovs-train pairs``."""
    loaded = load_towers(run)
    header = {"config": json.dumps(loaded.towers.config.to_json()), "training": json.dumps(loaded.training), "scale": str(loaded.scale)}
    save_file(_halves(loaded.towers.state_dict()), to, header)
    return round(to.stat().st_size / 2**20, 1)


def restored_towers(file: Path, folder: Path) -> Path:
    """A folder for ``--model run:FOLDER``, from what ``halved_towers`` wrote."""
    with safe_open(file, framework="pt", device="cpu") as opened:
        header = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    towers = Towers(TowersConfig.from_json(json.loads(header["config"])))
    towers.load_state_dict(_wholes(tensors))
    save_towers(folder, towers, float(header["scale"]), json.loads(header["training"]))
    return folder


def _halves(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Raises ValueError for a weight that no float16 holds."""
    tensors = {}
    for name, tensor in state.items():
        kept = tensor if name.endswith(_COUNTS) or not tensor.is_floating_point() else tensor.half()
        if not torch.isfinite(kept).all():
            raise ValueError(f"{name} does not fit a float16")
        tensors[name] = kept.contiguous()
    return tensors


def _wholes(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


if __name__ == "__main__":
    what, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    print(halved_towers(source, target) if what == "halve" else restored_towers(source, target))
