"""What the recipes share that train a segmenter from masks: what they are given, what they keep, and the best so far.

A choice, since SOHES §3.2 does not say: no weight decay for biases, normalisation and embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ovskit.core.formats.photographs.sources import Source
from ovskit.core.models.segmenter.checkpoint import save_segmenter
from ovskit.core.models.segmenter.losses import Target
from ovskit.core.models.segmenter.network import Segmenter
from ovskit.core.runtime.failures import Failures
from ovskit.core.train.data.target_index import TargetIndex
from ovskit.core.train.recipes.segment_settings import SegmentSettings
from ovskit.core.train.views.samples import Batch, draw_batch

Evaluate = Callable[[Segmenter], dict[str, float]]

BEST = "best"
"""The folder, in that of the run, of the segmenter with the best score so far."""

_SCORE = "AR@1000"


class MaskRecipe:
    """A ``Recipe`` but for ``name`` and ``losses``.

    ``photographs`` are those that the index was made of. ``segmenter`` learns, is evaluated and exported. ``begun_with`` says, in
    JSON, where its first weights come from, ``pg`` how the masks were made. ``evaluate`` scores it by whatever names; the best by
    AR@1000 is kept in ``folder``/best. With ``failures`` that skip, photographs that cannot be used are passed over.
    """

    name: str

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
        failures: Failures | None = None,
    ) -> None:
        self._index, self._photographs, self._segmenter, self._settings = index, photographs, segmenter, settings
        self._folder, self._seed, self._evaluate, self._failures = folder, seed, evaluate, failures
        self._begun_with, self._pg = dict(begun_with or {}), [dict(entry) for entry in pg]
        self._samples, self._losses = settings.samples(), settings.losses()
        self.modules = nn.ModuleDict({"segmenter": segmenter})
        self._updates = 0
        self._best = float("-inf")
        self._scores: dict[str, float] = {}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Two groups for the decoders and two for each block of the backbone: with weight decay and without."""
        return parameter_groups(self._segmenter, self._settings.backbone_rate, self._settings.layer_decay)

    def batch(self, step: int, rank: int, world: int) -> Any:
        """Views of photographs with their masks, each once every time round: a ``Batch``."""
        return draw_batch(
            self._index, self._photographs, self._samples,
            seed=self._seed, step=step, rank=rank, world=world, size=self._settings.batch, failures=self._failures,
        )  # fmt: skip

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
        """The settings, the seed, and what masks and first weights are."""
        return {"settings": asdict(self._settings), "seed": self._seed, "targets": self._index.key, "begun_with": self._begun_with}

    def evaluate(self) -> dict[str, float]:
        """Scores by the function given, if one was; the best segmenter goes to its folder."""
        if self._evaluate is None:
            return {}
        self._scores = self._evaluate(self._segmenter)
        if self._scores.get(_SCORE, float("-inf")) > self._best:
            self.export(self._folder / BEST)
            self._best = self._scores[_SCORE]
        return self._scores

    def export(self, folder: Path) -> None:
        """The segmenter's folder, see ``save_segmenter``."""
        about = {"recipe": self.name, **self.metadata(), "images": len(self._index), "masks": self._index.masks}
        about |= {"size": self._settings.side, "updates": self._updates, "scores": self._scores, "pg": self._pg}
        save_segmenter(folder, self._segmenter, about)


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
