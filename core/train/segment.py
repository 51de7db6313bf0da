"""``ovs-train segment``: a Mask2Former with an ancestor head, from masks that nobody drew (SOHES §3.2, self-instruction).

Every step draws views of photographs with their masks (``samples``: large-scale jitter, copy-paste) and minimises the
segmenter's losses (``models.segmenter.losses``). What the paper leaves open and is a choice here: everything in the settings but the
losses' weights; a learning rate that falls from block to block towards the backbone's input; no weight decay for biases,
normalisation and embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from ovskit.core.formats.sources import Source
from ovskit.core.models.pyramid import build_pyramid
from ovskit.core.models.segmenter.checkpoint import save_segmenter
from ovskit.core.models.segmenter.config import SIZES, SegmenterConfig
from ovskit.core.models.segmenter.losses import LossOptions, Target, segmenter_losses
from ovskit.core.models.segmenter.network import MULTIPLE, STRIDE, Segmenter
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.train.colour_augment import ColourOptions
from ovskit.core.train.copy_paste import PasteOptions
from ovskit.core.train.samples import Batch, SampleOptions, draw_batch
from ovskit.core.train.target_index import TargetIndex, TargetOptions

Evaluate = Callable[[Segmenter], dict[str, float]]

BEST = "best"
"""The folder, in that of the run, of the segmenter with the best score so far."""

_SCORE = "AR@1000"


@dataclass(frozen=True, slots=True)
class SegmentSettings:
    """Everything that decides what is learned, beside masks, photographs, the seed and the optimiser."""

    # Network: a name of SIZES, its queries and points (0: the size's own), and the backbone.
    size: str = "small"
    queries: int = 0
    points: int = 0
    backbone: str = "builtin"
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
        for name, least in (("batch", 1), ("queries", 0), ("points", 0), ("max_masks", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} {getattr(self, name)}: give at least {least}")
        if self.side < MULTIPLE or self.side % MULTIPLE:
            raise UsageError(f"side {self.side}: give a multiple of {MULTIPLE}")
        for low, high in (("smallest_scale", "largest_scale"), ("smallest_paste", "largest_paste")):
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
        """The segmenter that these settings train."""
        chosen = SIZES[self.size]
        return replace(
            chosen, backbone=self.backbone, freeze=self.freeze, queries=self.queries or chosen.queries, points=self.points or chosen.points
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
        return SegmentSettings(**{**found, **changes})
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{what}: does not say what settings it was trained with; it is no run of ovs-train segment or correct") from None


def new_segmenter(settings: SegmentSettings, *, weights: Path | None, pretrained: bool, seed: int) -> Segmenter:
    """The segmenter to begin with; raises what ``build_pyramid`` raises."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pyramid = build_pyramid(
            settings.backbone, weights=weights, pretrained=pretrained, freeze=settings.freeze, checkpointing=settings.checkpointing
        )
        segmenter = Segmenter(replace(settings.config(), backbone_config=pyramid.config()), pyramid)
    segmenter.recompute(settings.checkpointing)
    return segmenter


class SegmentRecipe:
    """See the module; a ``Recipe``.

    ``photographs`` are those that the index was made of. ``begun_with`` says, in JSON, where the segmenter's first weights come
    from. ``evaluate`` scores a segmenter by whatever names; the best by AR@1000 is kept in ``folder``/best.
    """

    name = "segment"

    def __init__(
        self,
        index: TargetIndex,
        photographs: Sequence[Source],
        segmenter: Segmenter,
        settings: SegmentSettings,
        folder: Path,
        *,
        seed: int = 0,
        begun_with: Mapping[str, Any] | None = None,
        pg: Sequence[Mapping[str, Any]] = (),
        evaluate: Evaluate | None = None,
    ) -> None:
        self._index, self._photographs, self._segmenter, self._settings = index, photographs, segmenter, settings
        self._folder, self._seed, self._evaluate = folder, seed, evaluate
        self._begun_with, self._pg = dict(begun_with or {}), [dict(entry) for entry in pg]
        self._samples, self._losses = settings.samples(), settings.losses()
        self.modules = nn.ModuleDict({"segmenter": segmenter})
        self._updates = 0
        self._best = float("-inf")
        self._scores: dict[str, float] = {}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Two groups for the decoders and two for each block of the backbone: with weight decay and without."""
        return parameter_groups(self._segmenter, self._settings.backbone_rate, self._settings.layer_decay)

    def batch(self, step: int, rank: int, world: int) -> Batch:
        """Views of photographs with their masks, each once every time round."""
        return draw_batch(
            self._index,
            self._photographs,
            self._samples,
            seed=self._seed,
            step=step,
            rank=rank,
            world=world,
            size=self._settings.batch,
        )

    def losses(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """See ``segmenter_losses``."""
        return segmenter_losses(self._segmenter(batch.images), targets_of(batch), self._losses)

    def after_step(self, step: int) -> None:
        """Counts."""
        self._updates = step + 1

    def state(self) -> dict[str, torch.Tensor]:
        """The updates made and the best score so far."""
        return {"updates": torch.tensor(self._updates), "best": torch.tensor(self._best, dtype=torch.float64)}

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up what ``state`` gave."""
        self._updates = int(tensors["updates"])
        self._best = float(tensors["best"])

    def metadata(self) -> dict[str, Any]:
        """The settings, the seed, and what masks, photographs and first weights are."""
        return {"settings": asdict(self._settings), "seed": self._seed, "targets": self._index.key, "begun_with": self._begun_with}

    def evaluate(self) -> dict[str, float]:
        """Scores by the function given, if one was; the best segmenter goes to its folder."""
        if self._evaluate is None:
            return {}
        self._scores = self._evaluate(self._segmenter)
        if self._scores.get(_SCORE, float("-inf")) > self._best:
            save_segmenter(self._folder / BEST, self._segmenter, self._account())
            self._best = self._scores[_SCORE]
        return self._scores

    def export(self, folder: Path) -> None:
        """The segmenter's folder, see ``save_segmenter``."""
        save_segmenter(folder, self._segmenter, self._account())

    def _account(self) -> dict[str, Any]:
        """What is kept of the training beside the weights."""
        about = {"recipe": self.name, **self.metadata(), "images": len(self._index), "masks": self._index.masks}
        return about | {"size": self._settings.side, "updates": self._updates, "scores": self._scores, "pg": self._pg}


def targets_of(batch: Batch) -> list[Target]:
    """A batch's masks as the losses take them."""
    return [Target(masks, ancestors) for masks, ancestors in zip(batch.masks, batch.ancestors, strict=True)]


def parameter_groups(segmenter: Segmenter, backbone_rate: float, layer_decay: float) -> list[dict[str, Any]]:
    """Groups for an optimiser, each with ``lr_scale``: 1 for the decoders, ``backbone_rate`` · ``layer_decay``^k for the k-th block
    of the backbone from its end. Biases, normalisation and embeddings are in groups of their own, without weight decay."""
    embeddings = {id(p) for module in segmenter.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    blocks = segmenter.pyramid.depth_groups()  # type: ignore[operator]
    scaled = [(1.0, [p for p in segmenter.head_parameters() if p.requires_grad])]
    scaled += [(backbone_rate * layer_decay**k, block) for k, block in enumerate(reversed(blocks))]
    groups = []
    for scale, parameters in scaled:
        bare = {id(p) for p in parameters if p.dim() <= 1 or id(p) in embeddings}
        groups.append({"params": [p for p in parameters if id(p) not in bare], "lr_scale": scale})
        groups.append({"params": [p for p in parameters if id(p) in bare], "lr_scale": scale, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]
