"""``ovs-train backbone``: the built-in network from photographs alone, by segment contrast.

Photographs are cut into segments once (``pool_cache``), or the masks of a file are their segments, those of an earlier network
for instance. Every step draws two views of some photographs (``segment_views``) and minimises (``segment_contrast``)

    (1 − w) · batch contrast + w · image contrast of places and segments + boundary weight · boundaries + image weight · views

with AdamW; what is kept is the moving average of the weights. The recipe is ours [choice]; docs/notes/builtin.md has what was tried.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ovskit.core.formats.photographs.sources import Source
from ovskit.core.models.backbones.interface import Backbone
from ovskit.core.models.builtin.extractor import BuiltinBackbone
from ovskit.core.models.builtin.global_vector import GlobalVector, describe, fit_axes, glance
from ovskit.core.models.builtin.network import GroupingNetwork, NetworkConfig
from ovskit.core.models.builtin.weights import load_network, save_network
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.failures import Failures
from ovskit.core.train.data.pool_cache import MaskOptions, PoolCache, SegmentOptions, Watch, open_pool
from ovskit.core.train.data.shuffle import place_at, shuffled
from ovskit.core.train.engine.averaging import MovingAverage
from ovskit.core.train.recipes.segment_contrast import boundary_loss, image_contrast, segment_contrast
from ovskit.core.train.views.segment_views import ViewOptions, Views, draw_views

_VECTOR_PHOTOGRAPHS = 4096
_AT_ONCE = 64

Evaluate = Callable[[GroupingNetwork], dict[str, float]]


@dataclass(frozen=True, slots=True)
class BackboneSettings:
    """Everything that decides what is learned, beside the photographs, the seed and the optimiser. All choices."""

    # Network, see NetworkConfig.
    widths: tuple[int, ...] = (32, 64, 128, 192)
    blocks: tuple[int, ...] = (1, 2, 2, 2)
    attention: int = 2
    pyramid: int = 64
    embedding: int = 64

    # Segments, see SegmentOptions.
    shorter_side: int = 176
    scales: tuple[float, ...] = (250.0, 600.0, 1500.0, 4000.0)
    smallest_segment: int = 24
    shares: tuple[float, ...] = (0.004, 0.009, 0.02, 0.05)  # of the area, where the segments are a masks file's

    # Views, see ViewOptions; ``batch`` pairs at a time.
    batch: int = 32
    crop: int = 128
    smallest_view: float = 0.45
    largest_view: float = 1.2
    colour: float = 0.6
    blur: float = 0.3

    # Contrast, see segment_contrast; at ``granularities`` of the segments' scales a step, drawn anew each time.
    temperature: float = 0.1
    anchors: int = 48
    negatives: int = 1500
    granularities: int = 2
    within: float = 0.5

    # Boundaries and whole images; the queue holds vectors of earlier images.
    boundary: float = 0.5
    image: float = 0.2
    image_temperature: float = 0.1
    queue: int = 4096

    # Moving average of the weights.
    decay: float = 0.998

    def __post_init__(self) -> None:
        """Raises UsageError for values that make no sense."""
        least = {"batch": 2, "crop": 32, "anchors": 1, "negatives": 1, "granularities": 1, "queue": 1, "pyramid": 1, "embedding": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise UsageError(f"{name} {getattr(self, name)}: give at least {value}")
        if self.crop % 32:
            raise UsageError(f"crop {self.crop}: give a multiple of 32")
        for name, levels in (("scales", self.scales), ("shares", self.shares)):
            if not 1 <= self.granularities <= len(levels):
                raise UsageError(f"granularities {self.granularities}: there are {len(levels)} {name} to draw from")
        if not 0 < self.smallest_view <= self.largest_view:
            raise UsageError(f"smallest_view {self.smallest_view}: give a number above 0 and at most largest_view, {self.largest_view}")
        for name in ("temperature", "image_temperature"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} {getattr(self, name)}: give a positive number")
        for name in ("within", "boundary", "image", "blur", "colour"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} {getattr(self, name)}: give at least 0")
        if len(self.widths) != len(self.blocks):
            raise UsageError(f"widths and blocks: {len(self.widths)} and {len(self.blocks)} values, give as many of both")

    def network(self, levels: int) -> NetworkConfig:
        """The network that these settings train, on segments of so many granularities."""
        return NetworkConfig(self.widths, self.blocks, self.attention, self.pyramid, self.embedding, levels)

    def segments(self) -> SegmentOptions:
        """The segments that it learns from."""
        return SegmentOptions(self.shorter_side, self.scales, self.smallest_segment)

    def views(self) -> ViewOptions:
        """How it looks at the photographs."""
        return ViewOptions(self.crop, self.smallest_view, self.largest_view, colour=self.colour, blur=self.blur)


def precompute(
    sources: Sequence[Source],
    settings: BackboneSettings,
    folder: Path,
    *,
    workers: int,
    failures: Failures,
    masks: Path | None = None,
    watch: Watch = lambda items: items,
) -> PoolCache:
    """The photographs and their segments, or those of a masks file, from ``folder`` or made now; see ``pool_cache.open_pool``."""
    chosen = None if masks is None else MaskOptions(masks, settings.shares)
    return open_pool(sources, settings.segments(), folder, workers=workers, failures=failures, masks=chosen, watch=watch)


class BackboneRecipe:
    """See the module; a ``Recipe``.

    ``init`` is a weights file of the same network to start from; ``evaluate`` scores a network on photographs that it does
    not train on, by whatever name.
    """

    name = "backbone"

    def __init__(
        self, cache: PoolCache, settings: BackboneSettings, *, seed: int = 0, init: Path | None = None, evaluate: Evaluate | None = None
    ) -> None:
        self._cache, self._settings, self._seed, self._evaluate = cache, settings, seed, evaluate
        config = settings.network(cache.levels)
        self._network = _start(config, seed, init)
        self._started_from = None if init is None else load_network(init).sha256
        self.modules = nn.ModuleDict({"network": self._network})
        self._average = MovingAverage(self._network, settings.decay)
        generator = torch.Generator().manual_seed(seed)
        self._queue = F.normalize(torch.randn(settings.queue, config.projection, generator=generator), dim=1)
        self._next = 0
        self._seen: list[torch.Tensor] = []

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Two groups: decay for matrices and kernels, none for biases and normalisation."""
        parameters = list(self._network.parameters())
        return [
            {"params": [p for p in parameters if p.dim() > 1]},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]

    def batch(self, step: int, rank: int, world: int) -> Views:
        """Pairs of views; photographs in a new random order every time round, each once."""
        rng = np.random.default_rng((self._seed, step, rank))
        size = self._settings.batch
        first = (step * world + rank) * size
        places = [place_at(first + k, len(self._cache), self._seed) for k in range(size)]
        return draw_views(self._cache, places, rng, self._settings.views())

    def losses(self, batch: Views, step: int) -> dict[str, torch.Tensor]:
        """See the module; in nats."""
        s = self._settings
        # Torch's generators are seeded by the loop, from the seed, the step and the rank.
        drawn = torch.randperm(batch.labels.shape[1])[: s.granularities].tolist()
        picks = torch.Generator().manual_seed(int(torch.randint(2**62, ()).item()))
        found = self._network(batch.images)
        projected = F.normalize(self._network.projected(found.pooled).float(), dim=1)
        embedding = F.normalize(found.embedding.float(), dim=1)
        self._seen.append(projected.detach())
        losses = {name: embedding.new_zeros(()) for name in ("batch", "within")}
        with torch.autocast(embedding.device.type, enabled=False):
            for level in drawn:
                contrast = segment_contrast(
                    embedding,
                    batch.labels[:, level],
                    anchors=s.anchors,
                    negatives=s.negatives,
                    temperature=s.temperature,
                    generator=picks,
                )
                losses["batch"] = losses["batch"] + contrast.batch / len(drawn)
                losses["within"] = losses["within"] + contrast.image / len(drawn)
            losses["boundary"] = boundary_loss(found.right, found.below, batch.labels)
            self._queue = self._queue.to(projected.device)  # and there it stays: moved at every step it would make the CPU wait
            losses["image"] = image_contrast(projected, self._queue, temperature=s.image_temperature)
        losses["loss"] = (
            (1 - s.within) * losses["batch"] + s.within * losses["within"] + s.boundary * losses["boundary"] + s.image * losses["image"]
        )
        return losses

    def after_step(self, step: int) -> None:
        """The average takes in the new weights, the queue the step's vectors."""
        self._average.update()
        vectors = _gathered(torch.cat(self._seen))[-len(self._queue) :]
        self._seen.clear()
        places = (torch.arange(len(vectors), device=vectors.device) + self._next) % len(self._queue)
        self._queue[places] = vectors
        self._next = (self._next + len(vectors)) % len(self._queue)

    def state(self) -> dict[str, torch.Tensor]:
        """The moving average and the queue."""
        return {
            "queue": self._queue,
            "next": torch.tensor(self._next),
            **{f"average/{name}": tensor for name, tensor in self._average.state().items()},
        }

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up what ``state`` gave."""
        self._queue = tensors["queue"].clone()
        self._next = int(tensors["next"])
        prefix = "average/"
        self._average.load_state({name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)})

    def metadata(self) -> dict[str, Any]:
        """The settings, the seed and what the photographs and first weights are."""
        return {"settings": asdict(self._settings), "seed": self._seed, "pool": self._cache.key, "init": self._started_from}

    def evaluate(self) -> dict[str, float]:
        """Scores of the averaged network by the function given, if one was."""
        if self._evaluate is None:
            return {}
        with self._average.applied():
            return self._evaluate(self._network)

    def export(self, folder: Path) -> None:
        """``model.safetensors``: the averaged weights and the axes of the global vector, see ``save_network``."""
        about = {"recipe": self.name, **self.metadata(), "photographs": len(self._cache), "updates": self._average.updates}
        with self._average.applied():
            save_network(folder / "model.safetensors", self._network, about, self._fit_vector())

    def _fit_vector(self) -> GlobalVector:
        """The axes of the global vector, from as many photographs as are enough for them, drawn by the seed."""
        device = next(self._network.parameters()).device
        place = torch.device("cpu") if device.type == "mps" else device  # float64
        chosen = shuffled(self._seed, 0, len(self._cache))[:_VECTOR_PHOTOGRAPHS].tolist()
        found = []
        with torch.no_grad():
            for first in range(0, len(chosen), _AT_ONCE):
                images = [torch.from_numpy(np.array(self._cache[k][0])).permute(2, 0, 1)[None] for k in chosen[first : first + _AT_ONCE]]
                found.append(describe(self._network, torch.cat([glance(image.to(device)) for image in images]), place))
        return GlobalVector(*(fit_axes(torch.cat(rows)) for rows in zip(*found, strict=True)))


def extractor_of(device: torch.device) -> Callable[[GroupingNetwork], Backbone]:
    """What makes a network under training the extractor that ``ovs-extract`` runs: a copy of it on ``device``, without global vectors."""
    return lambda network: BuiltinBackbone("builtin", copy.deepcopy(network), "", device)


def _start(config: NetworkConfig, seed: int, init: Path | None) -> GroupingNetwork:
    if init is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return GroupingNetwork(config)
    network = load_network(init).network
    if network.config != config:
        raise UsageError(f"--init {init}: a network of other widths, blocks or levels; give the settings that it was trained with")
    return network.train()


def _gathered(vectors: torch.Tensor) -> torch.Tensor:
    """The vectors of all processes, in the order of their ranks."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return vectors
    parts = [torch.empty_like(vectors) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, vectors.contiguous())
    return torch.cat(parts)
