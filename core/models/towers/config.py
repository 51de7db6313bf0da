"""How two towers are built: all that a checkpoint's weights need to be read again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

STRIDES = (0, 8, 16, 32)
FEWEST_TOKENS = 3
"""Begin, end, and one between them."""
_LARGEST = {"side": 4096, "dim": 16_384, "context": 4096, "text_width": 16_384, "text_heads": 1024, "text_layers": 256}


@dataclass(frozen=True, slots=True)
class TowersConfig:
    """``arch``: the image tower by its name in timm, without a tag. ``side``: of the images that it is trained on, in pixels. ``dim``: of
    the common space. ``context``: the tokens that a caption is cut to, with those of begin and end. The others are of the text tower, a
    transformer of CLIP's kind; but for ``stride``: the side in pixels of what a position of a convolutional tower stands for, where
    dilation makes it finer than the network's own; 0 for its own.

    Raises ValueError for sizes that do not fit each other or are beyond all reason.
    """

    arch: str
    side: int = 224
    dim: int = 256
    context: int = 32
    text_width: int = 256
    text_heads: int = 4
    text_layers: int = 12
    stride: int = 0

    def __post_init__(self) -> None:
        if not self.arch:
            raise ValueError("an image tower needs a name")
        for name, most in _LARGEST.items():
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}, must be from 1 to {most}")
        if self.stride not in STRIDES:
            raise ValueError(f"stride is {self.stride}, must be one of {', '.join(map(str, STRIDES))}")
        if self.context < FEWEST_TOKENS:
            raise ValueError(f"context is {self.context}, must be at least {FEWEST_TOKENS}")
        if self.text_width % self.text_heads:
            raise ValueError(f"text_width is {self.text_width}, must be a multiple of the {self.text_heads} heads")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values by field."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> TowersConfig:
        """The inverse of ``to_json``. Raises ValueError where a value is missing, of another type, out of range or unknown."""
        if not isinstance(data, dict):
            raise ValueError("it is not an object")
        names = [field.name for field in fields(cls)]
        for name in sorted(data.keys() ^ set(names)):
            raise ValueError(f"{name} is {'missing' if name in names else 'unknown'}")
        for name in names:
            kind = str if name == "arch" else int
            if type(data[name]) is not kind:
                raise ValueError(f"{name} is {data[name]!r}, must be of type {kind.__name__}")
        return cls(**data)
