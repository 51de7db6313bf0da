"""``ovs-train dino``: a vision transformer from photographs alone, by self-distillation (Caron et al., ICCV 2021).

A student sees two large and some small crops of every photograph (``crops``), a teacher the large ones. The student learns
to say of each crop what the teacher says of another (``dino_loss``); the teacher's weights are a moving average of the
student's. What is exported is the teacher's backbone, as the weights of the timm model that it is.

Where we depart from the paper [choices]: the schedules of teacher temperature and of the frozen last layer count updates, not
epochs; weight decay is constant (0.04, where the paper's rises to 0.4 in a cosine), and prototypes, whose lengths do not
matter, are left out of it; the learning rate is given as it is, not per 256 photographs; and there are 4096 prototypes, for
pools of thousands of photographs, where the paper has 65536 for a million. Position embeddings are resampled for small crops as
timm does it and as ``ovs-extract --model timm:ARCH`` will, by size and antialiased; DINO's code has another way, ``vit.Positions``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save
from timm.data import resolve_model_data_config
from torch import nn

from ovskit.core.formats.photographs.sources import Source
from ovskit.core.models.backbones.names import suggest
from ovskit.core.models.backbones.timm_vit import TimmTrunk
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.logs import get_logger
from ovskit.core.runtime.output import open_output
from ovskit.core.train.data.pool_cache import PoolCache, SegmentOptions, Watch, open_pool
from ovskit.core.train.data.shuffle import place_at
from ovskit.core.train.recipes.dino_loss import Head, multi_crop_loss, teacher_momentum, teacher_temperature, updated_centre
from ovskit.core.train.views.multi_crop import CropOptions, Crops, draw_crops

log = get_logger("train")

FORMAT = "ovskit.vit/1"
# One entry for everything: safetensors writes several in no fixed order, and the same weights should be the same bytes.
_ENTRY = "ovskit"


@dataclass(frozen=True, slots=True)
class DinoSettings:
    """Everything that decides what is learned, beside the photographs, the seed and the optimiser. The paper's, unless said."""

    # A plain vision transformer of timm, by its name without a tag [choice: a tiny one]; ``drop_path`` is the student's.
    arch: str = "vit_tiny_patch16_224"
    drop_path: float = 0.1

    # Photographs, see SegmentOptions [choice], ``batch`` of them at a time, and their crops, see CropOptions.
    shorter_side: int = 256
    batch: int = 64
    global_crop: int = 224
    local_crop: int = 96
    local_crops: int = 8
    smallest_global: float = 0.4
    smallest_local: float = 0.05

    # Head, see Head; its prototypes stay as drawn for ``freeze_last`` updates [choice: the paper has one epoch, and 65536 prototypes].
    hidden: int = 2048
    bottleneck: int = 256
    prototypes: int = 4096
    freeze_last: int = 100

    # Temperatures; the teacher's rises over ``warm_teacher`` updates [choice: the paper has 30 epochs].
    student_temperature: float = 0.1
    first_teacher_temperature: float = 0.04
    teacher_temperature: float = 0.07
    warm_teacher: int = 3000

    # Moving averages: the teacher's at the start of the run, from where it rises to 1, and the centre's.
    momentum: float = 0.996
    centre_momentum: float = 0.9

    def __post_init__(self) -> None:
        """Raises UsageError for values that make no sense."""
        least = {
            "batch": 1, "shorter_side": 32, "global_crop": 8, "local_crop": 8, "local_crops": 0, "hidden": 1, "bottleneck": 2,
            "prototypes": 2, "freeze_last": 0, "warm_teacher": 0,
        }  # fmt: skip
        for name, value in least.items():
            if getattr(self, name) < value:
                raise UsageError(f"{name} {getattr(self, name)}: give at least {value}")
        if not 0 < self.smallest_local <= self.smallest_global <= 1:
            raise UsageError(
                f"smallest_local {self.smallest_local:g} and smallest_global {self.smallest_global:g}: give shares of the area, the first"
                " above 0 and at most the second, which is at most 1"
            )
        for name in ("student_temperature", "first_teacher_temperature", "teacher_temperature"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"{name} {getattr(self, name)}: give a positive number")
        for name in ("drop_path", "centre_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)}: give a number from 0 to below 1")
        if not 0 <= self.momentum <= 1:
            raise UsageError(f"momentum {self.momentum}: give a number from 0 to 1")

    def crops(self) -> CropOptions:
        """How it looks at the photographs."""
        return CropOptions(self.global_crop, self.local_crop, self.local_crops, self.smallest_global, self.smallest_local)


def precompute(
    sources: Sequence[Source],
    settings: DinoSettings,
    folder: Path,
    *,
    workers: int,
    failures: Failures,
    watch: Watch = lambda items: items,
) -> PoolCache:
    """The photographs, decoded and shrunk, from ``folder`` or made now; see ``pool_cache.open_pool``.

    Raises UsageError for settings that no network fits, before any work is done.
    """
    _backbone(settings, drop_path=0.0)
    return open_pool(sources, SegmentOptions(settings.shorter_side, ()), folder, workers=workers, failures=failures, watch=watch)


class Branch(nn.Module):
    """The backbone with its head: crops (b, 3, S, S) uint8 to logits (b, prototypes) float32 of the CLS token, see ``Head``."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, settings: DinoSettings, *, drop_path: float) -> None:
        super().__init__()
        self.backbone = _backbone(settings, drop_path=drop_path)
        self.head = Head(self.backbone.num_features, hidden=settings.hidden, bottleneck=settings.bottleneck, prototypes=settings.prototypes)
        data = resolve_model_data_config(self.backbone)
        for name in ("mean", "std"):
            self.register_buffer(name, 255 * torch.tensor(data[name]).view(1, 3, 1, 1), persistent=False)

    def forward(self, crops: torch.Tensor, *, frozen: bool = False) -> torch.Tensor:
        """The logits; ``frozen`` as for the head."""
        tokens = self.backbone.forward_features((crops.float() - self.mean) / self.std)
        return self.head(tokens[:, 0], frozen=frozen)


class DinoRecipe:
    """See the module; a ``Recipe``.

    ``steps`` is the length of the run, over which the teacher's momentum rises to 1. Raises UsageError for an architecture
    that does not do, or crops that are not multiples of its patch.
    """

    name = "dino"

    def __init__(self, cache: PoolCache, settings: DinoSettings, *, steps: int, seed: int = 0) -> None:
        self._cache, self._settings, self._steps, self._seed = cache, settings, steps, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._student = Branch(settings, drop_path=settings.drop_path)
            self._teacher = Branch(settings, drop_path=0.0)
        self._teacher.load_state_dict(self._student.state_dict())
        self._teacher.requires_grad_(False)
        # The teacher is not optimised, but goes where the student goes and is saved with it.
        self.modules = nn.ModuleDict({"student": self._student, "teacher": self._teacher})
        self._centre = torch.zeros(settings.prototypes)
        self._updates = 0
        self._seen: list[torch.Tensor] = []

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Two groups: decay for matrices, kernels and tokens; none for biases, normalisation and prototypes."""
        own = [p for p in self._student.parameters() if p.requires_grad]
        bare = {id(p) for p in own if p.dim() <= 1} | {id(self._student.head.prototypes)}
        return [
            {"params": [p for p in own if id(p) not in bare]},
            {"params": [p for p in own if id(p) in bare], "weight_decay": 0.0},
        ]

    def batch(self, step: int, rank: int, world: int) -> Crops:
        """Crops of photographs, these in a new random order every time round, each once."""
        size = self._settings.batch
        first = (step * world + rank) * size
        places = [place_at(k, len(self._cache), self._seed) for k in range(first, first + size)]
        return draw_crops(self._cache, places, np.random.default_rng((self._seed, step, rank)), self._settings.crops())

    def losses(self, batch: Crops, step: int) -> dict[str, torch.Tensor]:
        """See ``dino_loss.Losses``."""
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

    def after_step(self, step: int) -> None:
        """The centre takes in the step's logits, the teacher the student's new weights."""
        self._centre = updated_centre(self._centre, _mean_of_all(torch.stack(self._seen).mean(0)), self._settings.centre_momentum)
        self._seen.clear()
        self._updates += 1
        share = 1 - teacher_momentum(step, self._steps, self._settings.momentum)
        with torch.no_grad():
            torch._foreach_lerp_(list(self._teacher.parameters()), list(self._student.parameters()), share)

    def state(self) -> dict[str, torch.Tensor]:
        """The centre, the updates made, and the length of run that they were made for."""
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
        about = {"recipe": self.name, **self.metadata(), "photographs": len(self._cache), "updates": self._updates}
        save_vit(folder / "model.safetensors", self._teacher.backbone, self._settings.arch, about)


def save_vit(path: Path, network: nn.Module, arch: str, about: Mapping[str, Any]) -> None:
    """Write a timm network's weights to ``path``, by timm's names, whole or not at all; ``ovs-extract --model timm:ARCH`` reads them.

    Parameters are float16 [choice: half the bytes] unless one of them does not fit that, then all stay float32; buffers stay
    as they are. The header's one entry is JSON: format, ``arch``, and ``about`` (JSON values), which says where they come
    from. Raises InputError for a weight that is not finite, OutputError if the file cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{path}: {name} is not finite; the training has gone wrong")
    learned = {name for name, _ in network.named_parameters()}
    halves = {name: tensor.half() if name in learned else tensor for name, tensor in tensors.items()}
    if all(torch.isfinite(tensor).all() for tensor in halves.values()):
        tensors = halves
    header = {"format": FORMAT, "arch": arch, "about": dict(about)}
    with open_output(str(path)) as out:
        out.write(save(tensors, {_ENTRY: json.dumps(header)}))


def _backbone(settings: DinoSettings, *, drop_path: float) -> Any:
    """The network with first weights of its own, at its own image size. Raises UsageError, see ``DinoRecipe``."""
    arch = settings.arch
    if "." in arch:
        raise UsageError(f"arch {arch}: give {arch.partition('.')[0]}, without the tag of trained weights")
    if not timm.is_model(arch):
        raise UsageError(f"arch: unknown model {arch!r}{suggest(arch, timm.list_models())}; timm {timm.__version__} has no such model")
    what = f"arch {arch}"
    try:
        network = timm.create_model(arch, pretrained=False, num_classes=0, dynamic_img_size=True, drop_path_rate=drop_path)
    except TypeError:  # an architecture that has no such option has no grid of patches to resize either
        raise UsageError(f"{what} is not supported: give one of timm's plain ViTs, as ovs-extract --model timm:NAME takes") from None
    trunk = TimmTrunk(network, what)
    if not trunk.has_cls:
        raise UsageError(f"{what} has no CLS token, which DINO learns by")
    for name in ("global_crop", "local_crop"):
        if getattr(settings, name) % trunk.stride:
            raise UsageError(f"{name} {getattr(settings, name)}: give a multiple of {trunk.stride}, the patch of {arch}")
    # What some put behind the CLS token has no part in it, so nothing to learn.
    for name in ("fc_norm", "attn_pool"):
        part = getattr(network, name, None)
        if part is not None:
            part.requires_grad_(False)
    return network


def _mean_of_all(vector: torch.Tensor) -> torch.Tensor:
    """The mean over all processes."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return vector
    total = vector.clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()
