"""``ovs-train dino``: a vision transformer from photographs alone, by self-distillation (Caron et al., ICCV 2021).

What happens in one step is ``DinoRecipe``, from top to bottom. A student sees two large and some small crops of every photograph
(``multi_crop``), a teacher the large ones. The student learns to say of each crop what the teacher says of another (``dino_loss``); the
teacher's weights are a moving average of the student's. What is exported is the teacher's backbone, as the weights of the timm model that
it is.

Where we depart from the paper [choices]: the schedules of teacher temperature and of the frozen last layer count updates, not
epochs; weight decay is constant (0.04, where the paper's rises to 0.4 in a cosine), and prototypes, whose lengths do not
matter, are left out of it; the learning rate is given as it is, not per 256 photographs; and there are 4096 prototypes, for
pools of thousands of photographs, where the paper has 65536 for a million. Position embeddings are resampled for small crops as
timm does it and as ``ovs-extract --model timm:ARCH`` will, by size and antialiased; DINO's code has another way, ``vit.Positions``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.logs import get_logger
from ovskit.core.runtime.settings import Options, option, with_defaults
from ovskit.core.train.engine.options import TrainOptions
from ovskit.core.train.job import Prepared, TrainJob, TrainMethod

if TYPE_CHECKING:
    import torch

    from ovskit.core.formats.photographs.sources import Source
    from ovskit.core.runtime.failures import Failures
    from ovskit.core.train.data.pool_cache import PoolCache
    from ovskit.core.train.recipes.dino_network import Branch
    from ovskit.core.train.views.multi_crop import CropOptions, Crops

log = get_logger("train")

PAPER = "DINO"


class DinoSettings(Options):
    """Everything that decides what is learned, beside the photographs, the seed and the optimizer."""

    arch: str = option(
        "vit_tiny_patch16_224", "The network: a plain vision transformer of timm with a CLS token, by its name without a tag."
    )
    drop_path: float = option(0.1, "Stochastic depth of the student.", low=0, source=PAPER)

    # Photographs, see SegmentOptions, and their crops, see CropOptions.
    shorter_side: int = option(256, "Shorter side that larger photographs are shrunk to, in pixels.", low=32)
    batch: int = option(64, "Batch size of each process, in photographs.", flag=True, low=1, metavar="N", environment="by command")
    global_crop: int = option(224, "Side of the two large crops, in pixels; a multiple of the patch.", low=8, source=PAPER)
    local_crop: int = option(96, "Side of the small crops, in pixels; a multiple of the patch.", low=8, source=PAPER)
    local_crops: int = option(8, "Number of small crops.", low=0, source=PAPER)
    smallest_global: float = option(0.4, "Smallest share of the area that a large crop shows.", above=0, high=1, source=PAPER)
    smallest_local: float = option(0.05, "Smallest share of the area that a small crop shows.", above=0, high=1, source=PAPER)

    # Head, see Head.
    hidden: int = option(2048, "Channels of the head's hidden layers.", low=1, source=PAPER)
    bottleneck: int = option(256, "Channels of the head's bottleneck.", low=2, source=PAPER)
    prototypes: int = option(4096, "Number of prototypes; 65536 in the paper, for a million photographs.", low=2)
    freeze_last: int = option(100, "Steps for which the prototypes stay frozen; one epoch in the paper.", low=0)

    student_temperature: float = option(0.1, "Temperature of the student.", above=0, source=PAPER)
    first_teacher_temperature: float = option(0.04, "Temperature of the teacher at the first step.", above=0, source=PAPER)
    teacher_temperature: float = option(0.07, "Temperature of the teacher after warm_teacher steps.", above=0, source=PAPER)
    warm_teacher: int = option(3000, "Steps over which the teacher's temperature rises; 30 epochs in the paper.", low=0)

    momentum: float = option(
        0.996, "Momentum of the teacher, the moving average of the student's weights, at first; it rises to 1 over the run.",
        low=0, high=1, source=PAPER,
    )  # fmt: skip
    centre_momentum: float = option(0.9, "Momentum of the centre of the teacher's logits.", low=0, source=PAPER)

    def check(self) -> None:
        """Raises UsageError for values that do not go together."""
        if self.smallest_local > self.smallest_global:
            raise UsageError(
                f"smallest_local {self.smallest_local:g} and smallest_global {self.smallest_global:g}: give shares of the area, the first"
                " above 0 and at most the second, which is at most 1"
            )
        for name in ("drop_path", "centre_momentum"):
            if not getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)}: give a number from 0 to below 1")

    def crops(self) -> CropOptions:
        """The options of the crops of photographs."""
        from ovskit.core.train.views.multi_crop import CropOptions

        return CropOptions(self.global_crop, self.local_crop, self.local_crops, self.smallest_global, self.smallest_local)

    def backbone(self, drop_path: float) -> Any:
        """The vision transformer, see ``plain_vit``."""
        from ovskit.core.train.recipes.dino_network import plain_vit

        crops = {"global_crop": self.global_crop, "local_crop": self.local_crop}
        return plain_vit(self.arch, drop_path=drop_path, crops=crops)

    def branch(self, drop_path: float) -> Branch:
        """The vision transformer with its head."""
        from ovskit.core.train.recipes.dino_network import Branch

        backbone = self.backbone(drop_path)
        return Branch(backbone, hidden=self.hidden, bottleneck=self.bottleneck, prototypes=self.prototypes)


class DinoRecipe:
    """See the module; a ``Recipe``.

    ``steps`` is the length of the run, over which the teacher's momentum rises to 1. Raises UsageError for an architecture
    that does not do, or crops that are not multiples of its patch.
    """

    name = "dino"

    def __init__(self, cache: PoolCache, settings: DinoSettings, *, steps: int, seed: int = 0) -> None:
        import torch
        from torch import nn

        self._cache, self._settings, self._steps, self._seed = cache, settings, steps, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._student = settings.branch(settings.drop_path)
            self._teacher = settings.branch(0.0)
        self._teacher.load_state_dict(self._student.state_dict())
        self._teacher.requires_grad_(False)
        # The teacher is not optimised, but goes where the student goes and is saved with it.
        self.modules = nn.ModuleDict({"student": self._student, "teacher": self._teacher})
        self._centre = torch.zeros(settings.prototypes)
        self._updates = 0
        self._seen: list[torch.Tensor] = []

    def batch(self, step: int, rank: int, world: int) -> Crops:
        """Crops of photographs, these in a new random order every time round, each once."""
        import numpy as np

        from ovskit.core.train.data.shuffle import place_at
        from ovskit.core.train.views.multi_crop import draw_crops

        size = self._settings.batch
        first = (step * world + rank) * size
        places = [place_at(k, len(self._cache), self._seed) for k in range(first, first + size)]
        return draw_crops(self._cache, places, np.random.default_rng((self._seed, step, rank)), self._settings.crops())

    def losses(self, batch: Crops, step: int) -> dict[str, torch.Tensor]:
        """See ``dino_loss.Losses``."""
        import torch

        from ovskit.core.train.recipes.dino_loss import multi_crop_loss, teacher_temperature

        s = self._settings
        large, small = batch.large.transpose(0, 1), batch.small.transpose(0, 1)  # views first
        count, frozen = large.shape[1], step < s.freeze_last
        with torch.no_grad():
            taught = self._teacher(large.flatten(0, 1)).unflatten(0, (2, count))
        said = self._student(large.flatten(0, 1), frozen=frozen).unflatten(0, (2, count))
        if len(small):
            said = torch.cat([said, self._student(small.flatten(0, 1), frozen=frozen).unflatten(0, (len(small), count))])
        self._centre = self._centre.to(taught.device)
        with torch.autocast(taught.device.type, enabled=False):
            found = multi_crop_loss(
                said,
                taught,
                self._centre,
                student_temperature=s.student_temperature,
                teacher_temperature=teacher_temperature(step, s.first_teacher_temperature, s.teacher_temperature, s.warm_teacher),
            )
        self._seen.append(taught.mean((0, 1)))
        return found._asdict()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Two groups: decay for matrices, kernels and tokens; none for biases, normalisation and prototypes."""
        own = [p for p in self._student.parameters() if p.requires_grad]
        bare = {id(p) for p in own if p.dim() <= 1} | {id(self._student.head.prototypes)}
        return [
            {"params": [p for p in own if id(p) not in bare]},
            {"params": [p for p in own if id(p) in bare], "weight_decay": 0.0},
        ]

    def after_step(self, step: int) -> None:
        """The centre takes in the step's logits, the teacher the student's new weights."""
        import torch

        from ovskit.core.train.recipes.dino_loss import teacher_momentum, updated_centre

        self._centre = updated_centre(self._centre, _mean_of_all(torch.stack(self._seen).mean(0)), self._settings.centre_momentum)
        self._seen.clear()
        self._updates += 1
        share = 1 - teacher_momentum(step, self._steps, self._settings.momentum)
        with torch.no_grad():
            torch._foreach_lerp_(list(self._teacher.parameters()), list(self._student.parameters()), share)

    def state(self) -> dict[str, torch.Tensor]:
        """The centre, the updates made, and the length of run that they were made for."""
        import torch

        return {"centre": self._centre, "updates": torch.tensor(self._updates), "steps": torch.tensor(self._steps)}

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up what ``state`` gave; warns if the run is of another length now."""
        self._centre = tensors["centre"].clone()
        self._updates = int(tensors["updates"])
        before = int(tensors["steps"])
        if before != self._steps:
            log.warning("--steps was %d and is %d: the teacher's momentum goes on as in a run of %d", before, self._steps, self._steps)

    def metadata(self) -> dict[str, Any]:
        """The settings, the seed and what the photographs are."""
        return {"settings": asdict(self._settings), "seed": self._seed, "pool": self._cache.key}

    def evaluate(self) -> dict[str, float]:
        """Nothing: whether it learns, the losses say, see ``dino_loss.Losses``."""
        return {}

    def export(self, folder: Path) -> None:
        """``model.safetensors``: the teacher's backbone, see ``save_vit``."""
        from ovskit.core.train.recipes.dino_network import save_vit

        about = {"recipe": self.name, **self.metadata(), "photographs": len(self._cache), "updates": self._updates}
        save_vit(folder / "model.safetensors", self._teacher.backbone, self._settings.arch, about)


def _mean_of_all(vector: torch.Tensor) -> torch.Tensor:
    """The mean over all processes."""
    import torch

    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return vector
    total = vector.clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


# How it begins


def precompute(
    sources: Sequence[Source],
    settings: DinoSettings,
    folder: Path,
    *,
    workers: int,
    failures: Failures,
    watch: Callable[[Iterable[Any]], Iterable[Any]] = lambda items: items,
) -> PoolCache:
    """The photographs, decoded and shrunk, from ``folder`` or made now; see ``pool_cache.open_pool``.

    Raises UsageError for settings that no network fits, before any work is done.
    """
    from ovskit.core.train.data.pool_cache import SegmentOptions, open_pool

    settings.backbone(0.0)
    return open_pool(sources, SegmentOptions(settings.shorter_side, ()), folder, workers=workers, failures=failures, watch=watch)


def run(job: TrainJob, settings: DinoSettings) -> Prepared:
    """The photographs, made ready by one process, and two networks."""
    with job.devices.first_goes_first():
        pool = precompute(
            job.photographs, settings, job.cache or job.folder / "cache",
            workers=job.options.threads(), failures=job.failures, watch=job.each_photograph,
        )  # fmt: skip
    return Prepared(DinoRecipe(pool, settings, steps=job.options.steps, seed=job.options.seed), len(pool))


METHOD = TrainMethod(
    "dino",
    "Train a vision transformer by self-distillation (DINO), from photographs without labels.",
    DinoSettings,
    run,
    # From 5e-4 to 1e-6, as in the paper.
    run_options=with_defaults(
        TrainOptions, fixed=("optimizer",), steps=10000, learning_rate=5e-4, warmup=1000, weight_decay=0.04, clip_norm=3.0,
        final_share=0.002,
    ),
    about="""Train a vision transformer by self-distillation (DINO), from photographs without labels.

    RUN then has checkpoint.safetensors, log.jsonl and, at the end, model.safetensors: the teacher, as weights of the timm
    model that is trained, for ovs-extract --model timm:NAME --weights. The log's divergence is that of student and
    teacher; if it stays at zero, the two have collapsed. The paper's learning rate is 5e-4 for 256 photographs a step.
    Ctrl-C and SIGTERM leave a checkpoint after the step under way. On a CPU a run that was stopped and resumed ends with the
    same bytes as one that was not.
    """,
    examples=(
        ("from a folder of photographs, without any labels", "ovs-train dino imgs/ -o run"),
        (
            "features of the model that it makes",
            "ovs-extract --model timm:vit_tiny_patch16_224 --weights run/model.safetensors --cls imgs/",
        ),
        (
            "on a CPU, with smaller views",
            "ovs-train dino imgs/ -o run --batch 32 --set global_crop=128 --set local_crop=64 --set local_crops=4",
        ),
        (
            "a larger network, on a GPU",
            "ovs-train dino imgs/ -o run --set arch=vit_small_patch16_224 --set prototypes=16384 --steps 100000",
        ),
    ),
)  # fmt: skip
