"""How a segmenter is built: the sizes of Mask2Former's parts, the points it is trained on, and its backbone's name."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

_ADDED = {"kinds": 0}  # settings that older checkpoints do not have, and what they were then
_GROUPS = 32  # of the pixel decoder's group normalisation


@dataclass(frozen=True, slots=True)
class SegmenterConfig:
    """All that a checkpoint's weights need to be read again.

    ``backbone`` names the pyramid ("builtin", "timm:vit_small_patch16_224", …), ``backbone_config`` is what its ``config()`` says
    (JSON values that, beside the name, decide its architecture), and ``freeze`` says that its pretrained part does not
    learn: all three are for whoever builds the pyramid, the segmenter itself does not look at them.

    ``hidden`` is the width of both decoders, ``queries`` the most masks that an image can have, ``heads`` those of every
    attention. With ``kinds`` above 0 queries begin at places of the image, so many at each (``places.py``), and ``queries`` is about
    how many there are in all; with 0 they are learned one by one, as Mask2Former's.

    ``pixel_layers`` counts the pixel decoder's layers of deformable attention, ``decoder_layers`` the predictions that are made: one
    from the queries alone and one after each of the ``decoder_layers`` − 1 layers of masked attention (as transformers counts
    them). The feedforward widths are those of the two kinds of layers, ``mask_features`` the width of the vectors whose products
    are the mask logits.

    ``points``, ``oversampling`` and ``importance`` belong to training alone (PointRend's sampling, Mask2Former §3.3): a mask's
    loss is taken at ``points`` places, a share ``importance`` of them the least certain of ``oversampling`` × ``points``
    random ones.

    Raises ValueError for sizes that do not fit each other.
    """

    backbone: str = "builtin"
    backbone_config: dict[str, Any] = field(default_factory=dict)
    freeze: bool = False
    hidden: int = 256
    queries: int = 300
    kinds: int = 0
    heads: int = 8
    pixel_layers: int = 6
    decoder_layers: int = 10
    pixel_feedforward: int = 1024
    decoder_feedforward: int = 2048
    mask_features: int = 256
    points: int = 12544
    oversampling: float = 3.0
    importance: float = 0.75

    def __post_init__(self) -> None:
        if not self.backbone:
            raise ValueError("a segmenter needs a backbone's name")
        counts = ("hidden", "queries", "heads", "pixel_layers", "pixel_feedforward", "decoder_feedforward", "mask_features", "points")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.kinds < 0:
            raise ValueError(f"kinds is {self.kinds}, must be at least 0")
        if self.kinds > self.queries:
            raise ValueError(f"{self.queries} queries cannot be of {self.kinds} kinds")
        if self.decoder_layers < 2:
            raise ValueError(f"decoder_layers is {self.decoder_layers}, must be at least 2: the queries' own prediction and a layer's")
        if self.hidden % _GROUPS or self.hidden % self.heads:
            raise ValueError(f"hidden is {self.hidden}, must be a multiple of {_GROUPS} and of the {self.heads} heads")
        if not 1 <= self.oversampling < float("inf"):
            raise ValueError(f"oversampling is {self.oversampling}, must be a number from 1")
        if not 0 <= self.importance <= 1:
            raise ValueError(f"importance is {self.importance}, must lie in 0 … 1")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values by field."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SegmenterConfig:
        """The inverse of ``to_json``.

        Raises KeyError where a value is missing, ValueError where one is of another type, out of range or unknown: a size
        that was half understood would build another network.
        """
        if not isinstance(data, dict):
            raise ValueError(f"a configuration is an object, not {type(data).__name__}")
        kinds = {name: type(value) for name, value in cls().to_json().items()}
        for name in data:
            if name not in kinds:
                raise ValueError(f"there is no setting {name!r}")
        values: dict[str, Any] = {}
        for name, kind in kinds.items():
            value = data.get(name, _ADDED[name]) if name in _ADDED else data[name]
            if kind is float and type(value) is int:  # other writers of JSON shorten 3.0
                value = float(value)
            if type(value) is not kind:
                raise ValueError(f"{name} is {value!r}, must be of type {kind.__name__}")
            values[name] = value
        return cls(**values)


KINDS, PLACE_QUERIES = 4, 324
"""How many queries begin at a place, and how many there are in all, where they begin at places [choice: a grid of 9 × 9]."""

SIZES: dict[str, SegmenterConfig] = {
    # [choice] for tests and for a first look on a CPU
    "tiny": SegmenterConfig(
        hidden=64,
        queries=20,
        heads=4,
        pixel_layers=1,
        decoder_layers=3,
        pixel_feedforward=128,
        decoder_feedforward=128,
        mask_features=64,
        points=256,
    ),
    # [choice] a quarter of the arithmetic of "base" in the decoders
    "small": SegmenterConfig(
        hidden=128,
        queries=100,
        heads=8,
        pixel_layers=3,
        decoder_layers=7,
        pixel_feedforward=512,
        decoder_feedforward=1024,
        mask_features=128,
        points=6272,
    ),
    # Mask2Former's sizes (Cheng et al., CVPR 2022), which SOHES takes over; 300 queries are a choice
    "base": SegmenterConfig(),
}
"""Configurations by name; the backbone is set with ``dataclasses.replace``."""
