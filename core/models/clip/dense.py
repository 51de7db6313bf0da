"""Image towers of open_clip whose patches can be named: its own plain ViTs, opened at the seams of their blocks.

A tower is plain if the vector that is compared with words is its class token's, by the final norm and one projection: then the same two
bring every other token into the space of words. Pooling by attention (SigLIP, CoCa) or over all patches (CLIPA), blocks with other norms,
timm's networks and convolutional ones have no such step for one token, and are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import open_clip
import torch
import torch.nn.functional as F

from ovskit.core.models.backbones.dense import Attended
from ovskit.core.models.backbones.interface import BackboneSpec, Interpolation, check_images
from ovskit.core.models.backbones.names import CLIP
from ovskit.core.models.backbones.resize import resize_rgb
from ovskit.core.models.backbones.vit import check_size, normalised
from ovskit.core.models.clip.image_tower import ClipTrunk, look_up_clip, open_tower
from ovskit.core.models.weights.source import WeightsSource
from ovskit.core.records import UInt8
from ovskit.core.runtime.errors import UsageError

# Options of open_clip's blocks that make them others than CLIP's.
_OTHER_BLOCKS = ("block_type", "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
_SIZE_AND_PATCH = re.compile(r"ViT-\w+-\d+")


class DenseClipTower:
    """A ``DenseTower`` around open_clip's own vision transformer, on ``device``."""

    def __init__(self, spec: BackboneSpec, trunk: ClipTrunk, device: torch.device, dtype: torch.dtype) -> None:
        self.spec = spec
        self.device = device
        self.depth = trunk.depth
        self.prefix = trunk.prefix
        self._trunk, self._dtype = trunk, dtype
        self._blocks: Any = trunk.network.transformer.resblocks
        self.heads = int(self._blocks[0].attn.num_heads)
        self._mean = torch.tensor(spec.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(spec.std, device=device).view(1, 3, 1, 1)

    def prepare(self, image: UInt8, height: int, width: int) -> torch.Tensor:
        """See ``Backbone.prepare``. Raises UsageError if a side is not a multiple of the patch."""
        check_size(height, width, self.spec)
        return resize_rgb(image, height, width, self.spec.interpolation)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """See ``DenseTower.embed``. Raises UsageError for images that are not (b, 3, H, W) uint8 of whole patches."""
        check_images(images, self.spec.name)
        check_size(images.shape[2], images.shape[3], self.spec)
        with torch.inference_mode():
            return self._trunk.embed(normalised(images, self._mean, self._std, self._dtype)).x

    def block(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """See ``DenseTower.block``."""
        with torch.inference_mode():
            return self._trunk.block(index, x, None)

    def attended(self, index: int, x: torch.Tensor) -> Attended:
        """See ``DenseTower.attended``."""
        attention = self._blocks[index].attn
        with torch.inference_mode():
            joint = F.linear(self._blocks[index].ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
            query, key, value = joint.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            return Attended(query, key, value)

    def joined(self, index: int, mixed: torch.Tensor) -> torch.Tensor:
        """See ``DenseTower.joined``; with the block's scale, where it has one."""
        block = self._blocks[index]
        with torch.inference_mode():
            return block.ls_1(block.attn.out_proj(mixed.transpose(1, 2).flatten(2)))

    def feed_forward(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """See ``DenseTower.feed_forward``."""
        block = self._blocks[index]
        with torch.inference_mode():
            return block.ls_2(block.mlp(block.ln_2(x)))

    def head(self, x: torch.Tensor) -> torch.Tensor:
        """See ``DenseTower.head``."""
        with torch.inference_mode():
            return self._trunk.norm(x) @ self._trunk.network.proj


def load_clip_dense(
    name: str,
    model: str,
    *,
    source: WeightsSource,
    device: torch.device,
    dtype: torch.dtype,
    interpolation: Interpolation | None = None,
) -> DenseClipTower:
    """The tower of ``model`` (``clip:ARCH/TAG``) for naming patches; ``spec.dim`` is the width of the space of words.

    Raises UsageError for an architecture whose patches cannot be named, listing some that can, and what ``open_tower`` raises.
    """
    arch, _, config = look_up_clip(name, model.removeprefix(CLIP), need_tag=not source.given)
    if not is_plain(config):
        raise UsageError(
            f"{name}: the patches of {arch} cannot be compared with words, since its image vector is not the class token of a plain ViT; "
            f"of open_clip's architectures take {', '.join(plain_architectures())}, or one with these in its name"
        )
    opened = open_tower(name, model, facet="token", layer=-1, source=source, device=device, dtype=dtype, interpolation=interpolation)
    assert isinstance(opened.trunk, ClipTrunk)
    spec = replace(opened.spec, dim=int(opened.trunk.network.proj.shape[1]))
    return DenseClipTower(spec, opened.trunk, device, opened.dtype)


def is_plain(config: Mapping[str, Any]) -> bool:
    """Whether a configuration of open_clip describes a plain ViT, see the module. Builds no network."""
    vision = config["vision_cfg"]
    return (
        not vision.get("timm_model_name")
        and isinstance(vision.get("layers", 12), int)
        and not vision.get("attentional_pool", False)
        and vision.get("pool_type", "tok") == "tok"
        and not any(vision.get(option) for option in _OTHER_BLOCKS)
    )


def plain_architectures() -> list[str]:
    """Architectures of open_clip with a plain ViT, by size and patch (``ViT-B-16``), without the variants of resolution and activation."""
    names = [name for name in open_clip.list_models() if _SIZE_AND_PATCH.fullmatch(name)]
    return [name for name in names if is_plain(open_clip.get_model_config(name) or {"vision_cfg": {"pool_type": "none"}})]
