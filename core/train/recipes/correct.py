"""``ovs-train correct``: a segmenter that learns from its own average (SOHES §3.3, self-correction).

What happens in one step is ``CorrectRecipe``, from top to bottom. A teacher, the moving average of the student, looks at weak views of
photographs; what it is sure enough of becomes the targets of strong views of the same photographs, carried through the geometry between
the two (``teacher``). The student minimises, with equal weight, the segmenter's losses on these and on views with their initial masks, as
in ``segment``, whose update groups it has:

    L = L_seg(strong(I₁), Y_initial) + L_seg(strong(I₂), Y_teacher)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.settings import Options, option, part_of, with_defaults
from ovskit.core.train.engine.options import TrainOptions
from ovskit.core.train.job import Prepared, TrainJob, TrainMethod
from ovskit.core.train.recipes.mask_recipe import prepare
from ovskit.core.train.recipes.segment import BACKBONE, FREEZE, SegmentRecipe, SegmentSettings, settings_from, targets_of

if TYPE_CHECKING:
    import torch

    from ovskit.core.models.segmenter.network import Predictions
    from ovskit.core.train.views.samples import Batch, Pairs

PAPER = "SOHES section 3.3"

_ANOTHER_ORDER = 0x5EED  # the photographs that the teacher labels come in an order of their own


# Without slots, as CorrectOptions is made of two such classes.
class CorrectSettings(Options):
    """What the teacher does, beside the settings of ``segment``."""

    momentum: float = option(0.9995, "Momentum of the teacher, the moving average of the student's weights.", low=0, high=1, source=PAPER)
    threshold: Literal["dynamic", "fixed"] = option(
        "dynamic", "Score from which the teacher's masks become targets: by their size, or one for all.",
        flag=True, source=PAPER, environment="by command",
    )  # fmt: skip
    threshold_large: float = option(0.7, "Threshold for large masks; for all masks with --threshold fixed.", low=0, high=1, source=PAPER)
    threshold_small: float = option(0.3, "Threshold for small masks.", low=0, high=1, source=PAPER)
    gamma: float = option(200.0, "How soon the threshold rises with a mask's share of the image.", low=0, source=PAPER)
    nms: float = option(
        0.85, "IoU above which the teacher's masks become one, with their scores pooled, where queries begin at places.",
        low=0, high=1,
    )  # fmt: skip
    teacher: float = option(1.0, "Weight of the loss on the teacher's masks.", low=0, source=PAPER)

    def of_share(self, share: torch.Tensor) -> torch.Tensor:
        """The score that a mask of this share of the image must be above: θ(a) = (1 − (1 − a)^γ)(θ_large − θ_small) + θ_small (Eq. 3)."""
        large, small = self.threshold_large, self.threshold_small
        if self.threshold == "fixed":
            small = large
        return (1 - (1 - share) ** self.gamma) * (large - small) + small


class CorrectOptions(SegmentSettings, CorrectSettings):
    """All settings. Those of ``segment`` are taken over from the run to begin with, unless somebody gives them; its size and backbone stay
    as they are, so they have no flags here."""

    backbone: str = option("builtin", **BACKBONE)
    freeze: bool = option(False, **FREEZE, shown="false")


class Both(NamedTuple):
    """A step's two batches: views with their initial masks, and weak and strong views without."""

    initial: Batch
    pairs: Pairs


class CorrectRecipe(SegmentRecipe):
    """See the module; a ``Recipe``.

    ``segmenter`` is what ``segment`` made, trained with ``settings``; all photographs are shown to the teacher. What is exported,
    and evaluated, is the student [choice: the paper does not say], with the teacher in the checkpoint.
    """

    name = "correct"

    def __init__(self, *given: Any, correct: CorrectSettings, **others: Any) -> None:
        from torch import nn

        from ovskit.core.models.segmenter.network import STRIDE
        from ovskit.core.train.views.colour_augment import ColourOptions
        from ovskit.core.train.views.samples import SampleOptions

        super().__init__(*given, **others)
        self.correct = correct
        self.teacher = copy.deepcopy(self.segmenter).requires_grad_(False)
        self.modules = nn.ModuleDict({"student": self.segmenter, "teacher": self.teacher})
        # As strong as the paper's, and nothing pasted: the teacher could not know of it.
        self.unlabelled = SampleOptions(self.settings.side, STRIDE, self.sample_options.scales, paste=None, colours=ColourOptions())

    def batch(self, step: int, rank: int, world: int) -> Both:
        """Both halves, of ``batch`` photographs each: views with masks as in ``segment``; weak and strong views of other photographs."""
        import numpy as np

        from ovskit.core.train.views.samples import batch_places, draw_pairs

        size = self.settings.batch
        initial = super().batch(step, rank, world)
        order = self.seed + _ANOTHER_ORDER
        places = batch_places(len(self.photographs), seed=order, step=step, rank=rank, world=world, size=size)
        rng = np.random.default_rng((self.seed, step, rank, size))  # the samples of the initial half have numbers below ``size``
        return Both(initial, draw_pairs(self.photographs, places, rng, self.unlabelled, self.failures))

    def losses(self, batch: Both, step: int) -> dict[str, torch.Tensor]:
        """The initial half's under the names of ``segmenter_losses``, the teacher's in one, and the number of its masks an image."""
        import torch

        from ovskit.core.models.segmenter.losses import segmenter_losses
        from ovskit.core.train.recipes.teacher import teacher_labels

        nms = self.correct.nms if self.segmenter.config.kinds > 0 else None
        self.teacher.eval()
        with torch.no_grad():
            seen = self.teacher(batch.pairs.weak)
            labels = teacher_labels(seen, batch.pairs.weak_views, batch.pairs.strong_views, self.correct.of_share, nms)
        count = len(batch.initial.images)
        said = self.segmenter(torch.cat([batch.initial.images, batch.pairs.strong]))
        initial = segmenter_losses(_part(said, slice(None, count)), targets_of(batch.initial), self.loss_options)
        taught = segmenter_losses(_part(said, slice(count, None)), labels.targets, self.loss_options)
        found = {**initial, "loss": initial["loss"] + self.correct.teacher * taught["loss"], "initial": initial["loss"].detach()}
        found["teacher"] = taught["loss"].detach()
        for name, number in zip(("small", "medium", "large"), labels.sizes / len(labels.targets), strict=True):
            found[f"teacher {name}"] = number
        return found

    def after_step(self, step: int) -> None:
        """The teacher takes in the student's new weights; statistics of normalisation are the student's own."""
        import torch

        super().after_step(step)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.teacher.parameters()), list(self.segmenter.parameters()), 1 - self.correct.momentum)
            for mine, theirs in zip(self.teacher.buffers(), self.segmenter.buffers(), strict=True):
                mine.copy_(theirs)

    def metadata(self) -> dict[str, Any]:
        """All settings, the seed, and what masks and first weights are."""
        return super().metadata() | {"correct": asdict(self.correct)}


def _part(said: Predictions, which: slice) -> Predictions:
    """Some images of a batch."""
    return type(said)([one[which] for one in said.classes], [one[which] for one in said.masks], said.ancestors[which])


# How it begins


class CorrectFiles(Options):
    """What the recipe begins with."""

    SECTION: ClassVar[str] = "Input"

    source: Path | None = option(
        None, "The finished run of ovs-train segment (or correct) to begin with.", flag="--from", metavar="RUN", environment="never"
    )

    def check(self) -> None:
        """Raises UsageError if there is none."""
        if self.source is None:
            raise UsageError("no segmenter to begin with: name the folder of a run with --from RUN")


def run(job: TrainJob, options: CorrectOptions) -> Prepared:
    """The segmenter of a finished run and its teacher. Raises UsageError for settings that would make another one of it."""
    from ovskit.core.models.segmenter.open import open_segmenter

    source: Path = job.files.source
    loaded = open_segmenter(source)
    own = set(SegmentSettings.__dataclass_fields__)
    changes: Mapping[str, Any] = {name: getattr(options, name) for name in job.given if name in own}
    settings = settings_from(loaded.training, changes, str(source))
    if not settings.fit(loaded.segmenter):
        raise UsageError(f"--from {source}: its size and backbone stay as they are; leave out the --set that changes them")
    make = partial(CorrectRecipe, correct=part_of(CorrectSettings, options))
    return prepare(job, make, loaded.segmenter.train(), settings, {"segmenter": loaded.sha256}, every=True)


METHOD = TrainMethod(
    "correct",
    "Train a segmenter further, with a moving average of itself as a teacher (SOHES' self-correction).",
    CorrectOptions,
    run,
    learns_from="masks",
    files=CorrectFiles,
    run_options=with_defaults(TrainOptions, steps=5000, optimizer="adan", learning_rate=1e-4, warmup=100, weight_decay=0.02, clip_norm=1.0),
    scored_as="segmenter",
    about="""Train a segmenter further, with a moving average of itself as a second teacher beside the initial masks.

    The teacher labels weak views of all images; masks of high enough scores become targets of strong views. The log tells how
    many small, medium and large masks it finds in an image. The settings are those of the run to begin with, unless --set says otherwise.
    """,
    examples=(
        ("after ovs-train segment, with its masks and images", "ovs-train correct pseudo.json --images imgs --from run -o run2"),
        (
            "without the threshold that goes by size, to compare",
            "ovs-train correct pseudo.json --images imgs --from run -o run3 --threshold fixed",
        ),
        ("with more images than have masks", "ovs-train correct pseudo.json --images imgs --images more --from run -o run2"),
        ("the masks that it has learned to find", "ovs-predict --checkpoint run2 imgs/ > forest.json"),
    ),
)
