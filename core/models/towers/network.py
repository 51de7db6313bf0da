"""Two towers in one space: images and captions to vectors that are compared by their cosines."""

from __future__ import annotations

from typing import Any

from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import TextTransformer
from torch import nn

from ovskit.core.models.towers.config import TowersConfig
from ovskit.core.models.towers.image_tower import ImageTower


class Towers(nn.Module):
    """``image``: see ``ImageTower``. ``text``: open_clip's transformer, causal, read at the last token; tokens (b, context) int64 to
    vectors (b, dim), not of length 1.

    Raises UsageError as ``ImageTower`` does.
    """

    def __init__(self, config: TowersConfig, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.image = ImageTower(config.arch, side=config.side, dim=config.dim, drop_path=drop_path, stride=config.stride)
        self.text: Any = text_transformer(config)


def text_transformer(config: TowersConfig) -> Any:
    """The text tower with first weights of its own."""
    tokenizer = tokenizer_of(config)
    return TextTransformer(
        context_length=config.context,
        vocab_size=tokenizer.vocab_size,
        width=config.text_width,
        heads=config.text_heads,
        layers=config.text_layers,
        output_dim=config.dim,
        pool_type="eos",
        eos_id=tokenizer.eot_token_id,
    )


def tokenizer_of(config: TowersConfig) -> Any:
    """Captions (a list) to tokens (n, context) int64: begin, text, end, zeros; what is longer is cut, and ends as well.

    CLIP's byte-pair encoding of lower-case text; its vocabulary comes with open_clip.
    """
    return SimpleTokenizer(context_length=config.context)
