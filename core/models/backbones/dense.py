"""What an image tower beside a text tower is to whoever names its patches: a network opened at the seams of its blocks.

The methods that name patches without training (``predict.dense``) take a vision transformer's last block apart, or mix what it is given in
another way. A convolutional tower has no blocks to take apart; its last map is given as tokens, to be mixed and named like others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from ovskit.core.models.backbones.interface import BackboneSpec
from ovskit.core.records import UInt8

if TYPE_CHECKING:  # as in ``interface``
    import torch


class Attended(NamedTuple):
    """Queries, keys and values of a block's attention: each (b, heads, n, c / heads)."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor


class DenseTower(Protocol):
    """An image tower whose patches can be brought into the space of words.

    ``spec.stride`` is the side of a patch in pixels; ``depth`` the number of blocks, 0 for a tower that has none; ``heads`` those of each;
    ``prefix`` the tokens that come before the patches' (CLS, registers). Everything is computed on ``device``, in the type that the tower
    was loaded in, without gradients.
    """

    spec: BackboneSpec
    device: torch.device
    depth: int
    heads: int
    prefix: int

    def prepare(self, image: UInt8, height: int, width: int) -> torch.Tensor:
        """See ``Backbone.prepare``."""
        ...

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """The tokens (b, prefix + h·w, c) that enter the first block, of uint8 images (b, 3, H, W) as ``prepare`` makes them, rows first;
        the last map of a tower without blocks."""
        ...

    def block(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """The whole block ``index``, from 0: (b, n, c) to (b, n, c)."""
        ...

    def attended(self, index: int, x: torch.Tensor) -> Attended:
        """Queries, keys and values of block ``index``, given the tokens (b, n, c) that enter it: projections of their norm."""
        ...

    def joined(self, index: int, mixed: torch.Tensor) -> torch.Tensor:
        """What block ``index`` adds to its tokens for mixed values (b, heads, n, c / heads): its output projection, (b, n, c)."""
        ...

    def feed_forward(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """What the second half of block ``index`` adds to tokens (b, n, c)."""
        ...

    def head(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (b, n, c) in the space of words (b, n, d), not of length 1: the final norm and the projection, token by token."""
        ...
