"""What the recipes share that train a segmenter from masks: what they are given, what is kept of them, and the best so far.

What happens in a step is theirs to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovskit.core.train.job import Prepared, TrainJob

if TYPE_CHECKING:
    import torch

    from ovskit.core.formats.photographs.sources import Source
    from ovskit.core.models.segmenter.network import Segmenter
    from ovskit.core.runtime.failures import Failures
    from ovskit.core.train.data.mask_index import MaskIndex
    from ovskit.core.train.engine.recipe import Recipe

BEST = "best"
"""The folder, in that of the run, of the segmenter with the best score so far."""

_SCORE = "AR@1000"


class MaskRecipe:
    """A ``Recipe`` but for its name and what happens in a step.

    ``photographs`` are those that the index was made of. ``segmenter`` learns, is evaluated and exported. ``settings`` are a dataclass with
    ``side``, ``samples()`` and ``losses()`` as ``segment.SegmentSettings`` has them. ``begun_with`` says, in
    JSON, where its first weights come from, ``pg`` how the masks were made. ``evaluate`` scores it by whatever names; the best by
    AR@1000 is kept in ``folder``/best. With ``failures`` that skip, photographs that cannot be used are passed over.
    """

    name: str

    def __init__(
        self,
        index: MaskIndex,
        photographs: Sequence[Source],
        segmenter: Segmenter,
        settings: Any,
        folder: Path,
        *,
        seed: int = 0,
        begun_with: Mapping[str, Any] | None = None,
        pg: Sequence[Mapping[str, Any]] = (),
        evaluate: Callable[[Segmenter], dict[str, float]] | None = None,
        failures: Failures | None = None,
    ) -> None:
        from torch import nn

        self.index, self.photographs, self.segmenter, self.settings = index, photographs, segmenter, settings
        self.folder, self.seed, self.failures = folder, seed, failures
        self.sample_options, self.loss_options = settings.samples(), settings.losses()
        self.modules = nn.ModuleDict({"segmenter": segmenter})
        self.updates = 0
        self._evaluate = evaluate
        self._begun_with, self._pg = dict(begun_with or {}), [dict(entry) for entry in pg]
        self._best = float("-inf")
        self._scores: dict[str, float] = {}

    def state(self) -> dict[str, torch.Tensor]:
        """The updates made and the best score so far."""
        import torch

        return {"updates": torch.tensor(self.updates), "best": torch.tensor(self._best, dtype=torch.float64)}

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up what ``state`` gave."""
        self.updates = int(tensors["updates"])
        self._best = float(tensors["best"])

    def metadata(self) -> dict[str, Any]:
        """The settings, the seed, and what masks and first weights are."""
        return {"settings": asdict(self.settings), "seed": self.seed, "targets": self.index.key, "begun_with": self._begun_with}

    def evaluate(self) -> dict[str, float]:
        """Scores by the function given, if one was; the best segmenter goes to its folder."""
        if self._evaluate is None:
            return {}
        self._scores = self._evaluate(self.segmenter)
        if self._scores.get(_SCORE, float("-inf")) > self._best:
            self.export(self.folder / BEST)
            self._best = self._scores[_SCORE]
        return self._scores

    def export(self, folder: Path) -> None:
        """The segmenter's folder, see ``save_segmenter``."""
        from ovskit.core.models.segmenter.checkpoint import save_segmenter

        about = {"recipe": self.name, **self.metadata(), "images": len(self.index), "masks": self.index.masks}
        about |= {"size": self.settings.side, "updates": self.updates, "scores": self._scores, "pg": self._pg}
        save_segmenter(folder, self.segmenter, about)


def prepare(
    job: TrainJob,
    make: Callable[..., Recipe],
    segmenter: Segmenter,
    settings: Any,
    begun_with: Mapping[str, Any],
    *,
    every: bool = False,
) -> Prepared:
    """What ``make``, a ``MaskRecipe``, makes of all that it is given, with the index of the job's masks, made by one process.

    ``every``: it looks at photographs without masks too. Raises what ``open_mask_index`` raises.
    """
    from ovskit.core.train.data.mask_index import open_mask_index

    assert job.masks is not None
    with job.devices.first_goes_first():
        index = open_mask_index(
            job.photographs, job.masks, settings.index_options(), job.cache or job.folder / "targets",
            failures=job.failures, watch=lambda items: job.watch(items, "indexing"),
        )  # fmt: skip
    turned = {} if all(photograph.exif != "ignore" for photograph in job.photographs) else {"exif": "ignore"}
    recipe = make(
        index=index,
        photographs=job.photographs,
        segmenter=segmenter,
        settings=settings,
        folder=job.folder,
        seed=job.options.seed,
        begun_with={**begun_with, **turned},
        pg=job.pg,
        evaluate=None if job.score is None else partial(job.score, size=settings.side),
        failures=job.failures,
    )
    return Prepared(recipe, len(job.photographs) if every else len(index))
