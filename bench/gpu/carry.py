"""A trained segmenter in one file of half the bytes, and back."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ovskit.core.models.segmenter.checkpoint import save_segmenter
from ovskit.core.models.segmenter.config import SegmenterConfig
from ovskit.core.models.segmenter.network import Segmenter
from ovskit.core.models.segmenter.open import build_backbone, open_segmenter

_COUNTS = ("running_mean", "running_var")  # too large or small for a half, some of them


def halved(run: Path, to: Path) -> float:
    """Write the segmenter of a finished run with float16 weights; MiB. Raises ValueError for a weight that no float16 holds."""
    loaded = open_segmenter(run)
    tensors = {}
    for name, tensor in loaded.segmenter.state_dict().items():
        kept = tensor if name.endswith(_COUNTS) or not tensor.is_floating_point() else tensor.half()
        if not torch.isfinite(kept).all():
            raise ValueError(f"{name} does not fit a float16")
        tensors[name] = kept.contiguous()
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
    segmenter.load_state_dict({name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()})
    save_segmenter(folder, segmenter, json.loads(header["training"]))
    return folder
