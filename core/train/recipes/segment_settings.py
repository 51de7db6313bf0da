"""The settings of ``ovs-train segment`` and ``correct``: everything that decides what a segmenter learns from masks.

What SOHES §3.2 leaves open, and is a choice here: everything but the losses' weights; a learning rate that falls from block to block
towards the backbone's input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from ovskit.core.models.families import DEFAULT, has_grouping
from ovskit.core.models.segmenter.config import KINDS, PLACE_QUERIES, SIZES, SegmenterConfig
from ovskit.core.models.segmenter.losses import LossOptions
from ovskit.core.models.segmenter.network import MULTIPLE, STRIDE, Segmenter
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.train.data.target_index import TargetOptions
from ovskit.core.train.views.colour_augment import ColourOptions
from ovskit.core.train.views.copy_paste import PasteOptions
from ovskit.core.train.views.samples import SampleOptions

# Far beyond what anybody needs: a slip of the keyboard should not fill the memory, nor compute for days.
_BOUNDS = {"batch": (1, 4096), "queries": (0, 10_000), "points": (0, 1_000_000), "kinds": (-1, 100), "max_masks": (0, 100_000)}
_LARGEST_SIDE = 8192


@dataclass(frozen=True, slots=True)
class SegmentSettings:
    """Everything that decides what is learned, beside masks, photographs, the seed and the optimiser."""

    # Network: a name of SIZES, its queries and points (0: the size's own), the kinds of queries that begin at a place (0: queries are
    # learned one by one; -1: by places if the backbone says what belongs together), and the backbone.
    size: str = "small"
    queries: int = 0
    points: int = 0
    kinds: int = -1
    backbone: str = DEFAULT
    freeze: bool = False
    checkpointing: bool = False

    # Targets, see TargetOptions, and samples, see SampleOptions; ``batch`` of them at a time.
    min_area: float = 0.0
    max_masks: int = 100
    batch: int = 8
    side: int = 512
    smallest_scale: float = 0.1
    largest_scale: float = 2.0
    paste: float = 0.5
    smallest_paste: float = 0.3
    largest_paste: float = 1.0
    colours: bool = True

    # Losses, see LossOptions.
    ancestors: float = 1.0
    balance: str = "none"

    # Learning rates of the backbone: its last block's, and of each block before, as a share of the one after it.
    backbone_rate: float = 0.1
    layer_decay: float = 0.9

    def __post_init__(self) -> None:
        """Raises UsageError for values that make no sense."""
        if self.size not in SIZES:
            raise UsageError(f"size {self.size}: choose {', '.join(SIZES)}")
        if self.balance not in ("none", "weight"):
            raise UsageError(f"balance {self.balance}: choose none or weight")
        for name, (least, most) in _BOUNDS.items():
            if not least <= getattr(self, name) <= most:
                raise UsageError(f"{name} {getattr(self, name)}: give a number from {least} to {most}")
        if self.side < MULTIPLE or self.side % MULTIPLE or self.side > _LARGEST_SIDE:
            raise UsageError(f"side {self.side}: give a multiple of {MULTIPLE} up to {_LARGEST_SIDE}")
        for low, high in (("smallest_scale", "largest_scale"), ("smallest_paste", "largest_paste")):
            if not 0 < getattr(self, high) < float("inf"):
                raise UsageError(f"{high} {getattr(self, high):g}: give a finite number above 0")
            if not 0 < getattr(self, low) <= getattr(self, high) < float("inf"):
                raise UsageError(f"{low} {getattr(self, low):g}: give a number above 0 and at most {high}, {getattr(self, high):g}")
        if not 0 <= self.paste <= 1:
            raise UsageError(f"paste {self.paste:g}: give a chance from 0 to 1")
        for name in ("min_area", "ancestors", "backbone_rate"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"{name} {getattr(self, name):g}: give at least 0")
        if not 0 < self.layer_decay <= 1:
            raise UsageError(f"layer_decay {self.layer_decay:g}: give a number above 0 and at most 1")

    def config(self) -> SegmenterConfig:
        """The segmenter that these settings train. Raises UsageError for an unknown backbone, or fewer queries than kinds."""
        chosen = SIZES[self.size]
        kinds = self.kinds if self.kinds >= 0 else KINDS * has_grouping(self.backbone)
        queries = self.queries or (PLACE_QUERIES if kinds else chosen.queries)
        if kinds > queries:
            raise UsageError(f"queries {queries}: give at least as many as there are kinds, {kinds}")
        return replace(
            chosen,
            backbone=self.backbone,
            freeze=self.freeze,
            queries=queries,
            points=self.points or chosen.points,
            kinds=kinds,
        )

    def fit(self, segmenter: Segmenter) -> bool:
        """Whether the segmenter is one that these settings train."""
        return replace(segmenter.config, backbone_config={}) == replace(self.config(), backbone_config={})

    def targets(self) -> TargetOptions:
        """Which masks it learns from."""
        return TargetOptions(self.min_area, self.max_masks)

    def samples(self) -> SampleOptions:
        """How it looks at the photographs."""
        paste = PasteOptions(self.paste, (self.smallest_paste, self.largest_paste)) if self.paste else None
        colours = ColourOptions(erase=0.0) if self.colours else None
        return SampleOptions(self.side, STRIDE, (self.smallest_scale, self.largest_scale), paste=paste, colours=colours)

    def losses(self) -> LossOptions:
        """What it minimises."""
        return LossOptions.of(self.config(), ancestors=self.ancestors, ancestor_balance=cast(Literal["none", "weight"], self.balance))


def settings_from(training: Mapping[str, Any], changes: Mapping[str, Any], what: str) -> SegmentSettings:
    """The settings that a finished run was trained with, but for ``changes``. Raises InputError, naming it ``what``, if it has none."""
    try:
        found = {name: tuple(value) if isinstance(value, list) else value for name, value in dict(training["settings"]).items()}
        return SegmentSettings(**{"kinds": 0, **found, **changes})  # runs from before there were places do not say
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{what}: does not say what settings it was trained with; it is not a run of ovs-train segment or correct"
        ) from None
