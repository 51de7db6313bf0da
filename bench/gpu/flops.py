"""How many floating-point operations the keys of a plain ViT take, in closed form, and the least time they can take.

Counted as in torch.utils.flop_counter: a multiplication and an addition are two; matrix products and convolutions only. What is left out
(norms, softmax, GELU, position embeddings) is bound by memory, not by arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VitShape:
    """A plain ViT: ``depth`` blocks of ``width`` channels, patches of ``patch`` pixels a side, and ``prefix`` tokens before theirs."""

    depth: int
    width: int
    patch: int
    prefix: int = 1
    mlp: int = 4  # hidden channels of the MLP, in widths

    def tokens(self, side: int) -> int:
        """Tokens of an image of ``side`` × ``side`` pixels, those of ``prefix`` among them."""
        return (side // self.patch) ** 2 + self.prefix


@dataclass(frozen=True)
class Flops:
    """Operations of an image: in linear layers (patch embedding among them), and in the two products of attention."""

    linear: float
    attention: float

    @property
    def total(self) -> float:
        return self.linear + self.attention


def keys_flops(shape: VitShape, side: int) -> Flops:
    """Operations for the last block's keys of an image of ``side`` × ``side`` pixels.

    All blocks but the last are whole: 24·c² a token in qkv, projection and MLP (of 4 c), 4·n²·c in attention. Of the last one there is
    the projection to keys alone, of the patches: 2·c² each. Patches are embedded by 6·p²·c each.
    """
    tokens, width = shape.tokens(side), shape.width
    patches = tokens - shape.prefix
    blocks = shape.depth - 1
    linear = blocks * tokens * (8 + 4 * shape.mlp) * width**2 + 2 * patches * width**2 + 6 * patches * shape.patch**2 * width
    return Flops(float(linear), float(blocks * 4 * tokens**2 * width))


def floor_seconds(flops: Flops, linear_rate: float, attention_rate: float | None = None) -> float:
    """The least seconds for ``flops`` at rates in operations a second; attention at ``linear_rate`` where it has none of its own."""
    return flops.linear / linear_rate + flops.attention / (attention_rate or linear_rate)
