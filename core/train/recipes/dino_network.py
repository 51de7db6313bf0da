"""DINO's networks: a plain vision transformer of timm with a head, and the file that its weights are kept in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save
from timm.data import resolve_model_data_config
from torch import nn

from ovskit.core.models.backbones.names import suggest
from ovskit.core.models.backbones.timm_vit import TimmTrunk
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.output import open_output
from ovskit.core.train.recipes.dino_loss import Head

FORMAT = "ovskit.vit/1"
# One entry for everything: safetensors writes several in no fixed order, and the same weights should be the same bytes.
_ENTRY = "ovskit"


class Branch(nn.Module):
    """The backbone with its head: crops (b, 3, S, S) uint8 to logits (b, prototypes) float32 of the CLS token, see ``Head``."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: Any, *, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = Head(self.backbone.num_features, hidden=hidden, bottleneck=bottleneck, prototypes=prototypes)
        data = resolve_model_data_config(self.backbone)
        for name in ("mean", "std"):
            self.register_buffer(name, 255 * torch.tensor(data[name]).view(1, 3, 1, 1), persistent=False)

    def forward(self, crops: torch.Tensor, *, frozen: bool = False) -> torch.Tensor:
        """The logits; ``frozen`` as for the head."""
        tokens = self.backbone.forward_features((crops.float() - self.mean) / self.std)
        return self.head(tokens[:, 0], frozen=frozen)


def plain_vit(arch: str, *, drop_path: float, crops: Mapping[str, int]) -> Any:
    """The network with first weights of its own, at its own image size.

    Raises UsageError for an architecture that does not do, or ``crops``, sides in pixels by name, that are not multiples of its patch.
    """
    if "." in arch:
        raise UsageError(f"arch {arch}: give {arch.partition('.')[0]}, without the tag of trained weights")
    if not timm.is_model(arch):
        raise UsageError(f"arch: unknown model {arch!r}{suggest(arch, timm.list_models())}; timm {timm.__version__} has no such model")
    what = f"arch {arch}"
    try:
        network = timm.create_model(arch, pretrained=False, num_classes=0, dynamic_img_size=True, drop_path_rate=drop_path)
    except TypeError:  # an architecture that has no such option has no grid of patches to resize either
        raise UsageError(f"{what} is not supported: give one of timm's plain ViTs, as ovs-extract --model timm:NAME takes") from None
    trunk = TimmTrunk(network, what)
    if not trunk.has_cls:
        raise UsageError(f"{what} has no CLS token, which DINO learns by")
    for name, side in crops.items():
        if side % trunk.stride:
            raise UsageError(f"{name} {side}: give a multiple of {trunk.stride}, the patch of {arch}")
    # What some put behind the CLS token has no part in it, so nothing to learn.
    for name in ("fc_norm", "attn_pool"):
        part = getattr(network, name, None)
        if part is not None:
            part.requires_grad_(False)
    return network


def save_vit(path: Path, network: nn.Module, arch: str, about: Mapping[str, Any]) -> None:
    """Write a timm network's weights to ``path``, by timm's names, whole or not at all; ``ovs-extract --model timm:ARCH`` reads them.

    Parameters are float16 [choice: half the bytes] unless one of them does not fit that, then all stay float32; buffers stay
    as they are. The header's one entry is JSON: format, ``arch``, and ``about`` (JSON values), which says where they come
    from. Raises InputError for a weight that is not finite, OutputError if the file cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{path}: {name} is not finite; the training has gone wrong")
    learned = {name for name, _ in network.named_parameters()}
    halves = {name: tensor.half() if name in learned else tensor for name, tensor in tensors.items()}
    if all(torch.isfinite(tensor).all() for tensor in halves.values()):
        tensors = halves
    header = {"format": FORMAT, "arch": arch, "about": dict(about)}
    with open_output(str(path)) as out:
        out.write(save(tensors, {_ENTRY: json.dumps(header)}))
