"""The image tower of a run for methods that name its patches without training, see ``backbones.dense``.

A ViT is given block by block. What ``head`` makes of the output of the last block is in the space of words: of the CLS token, or as the
mean over the patches of a ViT without one, it is the image's own vector.

A convolutional tower has no blocks: ``embed`` gives its last map as tokens, ``head`` norms and projects each. The image's own vector is
the mean of the normed tokens, projected; projecting is linear, so the mean of ``head`` over all positions is the image's vector exactly
(but for rounding), and the mean over the positions of a region is what the tower would say of an image with these positions alone. Not
equal to it: the vector of a crop of the region, whose positions see nothing beyond it; anything of which the mean is taken before
``head``, since the norm is not linear; and a mean of vectors that were brought to length 1 before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from timm.models.vision_transformer import Attention, Block

from ovskit.core.models.backbones.dense import Attended, DenseTower
from ovskit.core.models.backbones.interface import BackboneSpec, check_images
from ovskit.core.models.backbones.resize import resize_rgb
from ovskit.core.models.backbones.vit import compute_dtype
from ovskit.core.models.towers.extractor import RunTrunk, check_size, last_tokens, moved_trunk, open_run, spec_of
from ovskit.core.models.towers.image_tower import ImageTower
from ovskit.core.records import UInt8
from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    from ovskit.core.models.family import BackboneRequest


class DenseRunTower:
    """See ``DenseTower`` and the module; ``trunk`` is the tower's ViT, None for a convolutional one.

    Raises UsageError for a ViT whose blocks cannot be taken apart.
    """

    def __init__(self, spec: BackboneSpec, tower: ImageTower, trunk: RunTrunk | None, device: torch.device) -> None:
        self.spec, self.device = spec, device
        self._tower, self._trunk = tower, trunk
        self._blocks: list[Any] = [] if trunk is None else _taken_apart(trunk, spec.name)
        self.depth = len(self._blocks)
        self.heads = int(self._blocks[0].attn.num_heads) if self._blocks else 1
        self.prefix = 0 if trunk is None else trunk.prefix

    def prepare(self, image: UInt8, height: int, width: int) -> torch.Tensor:
        """See ``Backbone.prepare``. Raises UsageError if a side is not a multiple of the stride."""
        check_size(self.spec, height, width)
        return resize_rgb(image, height, width, self.spec.interpolation)

    @torch.inference_mode()
    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """See ``DenseTower.embed``."""
        check_images(images, self.spec.name)
        height, width = images.shape[2:]
        check_size(self.spec, height, width)
        images = images.to(self.device)
        if self._trunk is None:
            return last_tokens(self._tower, images, (height // self.spec.stride, width // self.spec.stride))
        return self._trunk.embed(self._tower.normalised(images)).x

    @torch.inference_mode()
    def block(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """See ``DenseTower.block``."""
        return self._at(index)(x)

    @torch.inference_mode()
    def attended(self, index: int, x: torch.Tensor) -> Attended:
        """See ``DenseTower.attended``; queries and keys with their own norm, where the block has one."""
        block = self._at(index)
        attn = block.attn
        joint = attn.qkv(block.norm1(x)).unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return Attended(attn.q_norm(joint[0]), attn.k_norm(joint[1]), joint[2])

    @torch.inference_mode()
    def joined(self, index: int, mixed: torch.Tensor) -> torch.Tensor:
        """See ``DenseTower.joined``; with the block's norm of what is mixed, and its layer scale."""
        block = self._at(index)
        return block.ls1(block.attn.proj(block.attn.norm(mixed.transpose(1, 2).flatten(2))))

    @torch.inference_mode()
    def feed_forward(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """See ``DenseTower.feed_forward``."""
        block = self._at(index)
        return block.ls2(block.mlp(block.norm2(x)))

    @torch.inference_mode()
    def head(self, x: torch.Tensor) -> torch.Tensor:
        """See ``DenseTower.head``."""
        normed = self._tower.final(x) if self._trunk is None else self._trunk.norm(x)
        return self._tower.projection(normed)

    def _at(self, index: int) -> Any:
        if not 0 <= index < self.depth:
            raise UsageError(f"block {index}: {self.spec.name} has {self.depth or 'no'} blocks")
        return self._blocks[index]


def open_dense(request: BackboneRequest) -> DenseTower:
    """The image tower of the run that ``request.model`` (``run:DIR``) names, opened at its seams; facet and layer are not looked at.

    Raises UsageError for ``--weights`` and for a ViT whose blocks cannot be taken apart, and what ``load_towers`` raises.
    """
    loaded = open_run(request.name, request.model, request.weights)
    tower, dtype = loaded.towers.image, compute_dtype(request.dtype, request.device)
    tower.eval().requires_grad_(False)
    if tower.trunk is None:
        trunk = None
        tower.to(request.device, dtype)
    else:
        trunk = moved_trunk(tower, request.device, dtype)
    spec = spec_of(request, loaded, facet="token", layer=-1, dim=tower.width)
    return DenseRunTower(spec, tower, trunk, request.device)


def _taken_apart(trunk: RunTrunk, name: str) -> list[Any]:
    """The blocks of a ViT of which the halves are known. Raises UsageError for others: with rotary positions, parallel parts, gates."""
    blocks: list[Any] = list(trunk.network.blocks)
    if trunk._rotary or not all(type(block) is Block and type(block.attn) is Attention for block in blocks):
        raise UsageError(
            f"{name}: the blocks of its image tower ({trunk.network.__class__.__name__}) cannot be taken apart for dense naming"
        )
    if any(getattr(block.attn, "gate", None) is not None for block in blocks):
        raise UsageError(f"{name}: the attention of its image tower is gated, which dense naming cannot take apart")
    return blocks
