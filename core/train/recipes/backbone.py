"""``ovs-train backbone``: the built-in network from photographs alone, by segment contrast.

Photographs are cut into segments once (``pool_cache``), or the masks of a file are their segments, those of an earlier network
for instance. What happens in one step is ``BackboneRecipe``, from top to bottom: it draws two views of some photographs
(``segment_views``) and minimises (``segment_contrast``)

    (1 − w) · batch contrast + w · image contrast of places and segments + boundary weight · boundaries + image weight · views

with AdamW; what is kept is the moving average of the weights. The recipe is ours [choice]; docs/notes/builtin.md has what was tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.settings import Options, option, with_defaults
from ovskit.core.train.engine.options import TrainOptions
from ovskit.core.train.job import Prepared, TrainJob, TrainMethod

if TYPE_CHECKING:
    import torch

    from ovskit.core.formats.photographs.sources import Source
    from ovskit.core.models.backbones.interface import Backbone
    from ovskit.core.models.builtin.global_vector import GlobalVector
    from ovskit.core.models.builtin.network import GroupingNetwork, NetworkConfig
    from ovskit.core.runtime.failures import Failures
    from ovskit.core.train.data.pool_cache import PoolCache, SegmentOptions
    from ovskit.core.train.views.segment_views import SegmentViewOptions, SegmentViews

_VECTOR_PHOTOGRAPHS = 4096
_AT_ONCE = 64

Evaluate = Callable[["GroupingNetwork"], dict[str, float]]


class BackboneSettings(Options):
    """Everything that decides what is learned, beside the photographs, the seed and the optimizer. All choices."""

    # Network, see NetworkConfig.
    widths: tuple[int, ...] = option((32, 64, 128, 192), "Channels of the network's stages.")
    blocks: tuple[int, ...] = option((1, 2, 2, 2), "Blocks of the network's stages, as many values as widths.")
    attention: int = option(2, "Layers of attention over the coarsest stage.", low=0)
    pyramid: int = option(64, "Channels of the pyramid that joins the stages.", low=1)
    embedding: int = option(64, "Channels of the features.", low=1)

    # Segments, see SegmentOptions; ``shares`` where they are a masks file's.
    shorter_side: int = option(176, "Shorter side that larger photographs are shrunk to, in pixels.", low=32)
    scales: tuple[float, ...] = option((250.0, 600.0, 1500.0, 4000.0), "Scales of Felzenszwalb's segments, one granularity each.")
    smallest_segment: int = option(24, "Smallest segment, in pixels.", low=1)
    shares: tuple[float, ...] = option(
        (0.004, 0.009, 0.02, 0.05),
        "Granularities of the masks of --segments: the smallest mask of each place that has at least this share of the photograph.",
    )

    # Views, see SegmentViewOptions.
    batch: int = option(32, "Batch size of each process, in pairs of views.", flag=True, low=2, metavar="N", environment="by command")
    crop: int = option(128, "Side of a view, in pixels.", low=32, multiple=32)
    smallest_view: float = option(0.45, "Smallest side of what a view shows, in shorter sides of the photograph.", above=0)
    largest_view: float = option(1.2, "Largest side of what a view shows, in shorter sides of the photograph.", above=0)
    colour: float = option(0.6, "Strength of the colour jitter.", low=0)
    blur: float = option(0.3, "Probability that a view is blurred.", low=0)

    # Contrast, see segment_contrast.
    temperature: float = option(0.1, "Temperature of the contrastive loss of places and segments.", above=0)
    anchors: int = option(48, "Number of places of a view that are contrasted.", low=1)
    negatives: int = option(1500, "Number of segments of other images that each place is contrasted with.", low=1)
    granularities: int = option(2, "Number of granularities that a step draws from those of the segments.", low=1)
    within: float = option(0.5, "Weight of the contrast within an image; the contrast within the batch has the rest.", low=0)

    # Boundaries and whole images.
    boundary: float = option(0.5, "Weight of the boundary loss.", low=0)
    image: float = option(0.2, "Weight of the contrastive loss of whole images.", low=0)
    image_temperature: float = option(0.1, "Temperature of the contrastive loss of whole images.", above=0)
    queue: int = option(4096, "Number of vectors of earlier images that whole images are contrasted with.", low=1)

    decay: float = option(0.998, "Momentum of the moving average of the weights, which becomes the finished model.", low=0, high=1)

    def check(self) -> None:
        """Raises UsageError for values that do not go together."""
        for name, levels in (("scales", self.scales), ("shares", self.shares)):
            if self.granularities > len(levels):
                raise UsageError(f"granularities {self.granularities}: there are {len(levels)} {name} to draw from")
        if self.smallest_view > self.largest_view:
            raise UsageError(f"smallest_view {self.smallest_view}: give a number above 0 and at most largest_view, {self.largest_view}")
        if len(self.widths) != len(self.blocks):
            raise UsageError(f"widths and blocks: {len(self.widths)} and {len(self.blocks)} values, give as many of both")

    def network(self, levels: int) -> NetworkConfig:
        """The network that these settings train, on segments of so many granularities."""
        from ovskit.core.models.builtin.network import NetworkConfig

        return NetworkConfig(self.widths, self.blocks, self.attention, self.pyramid, self.embedding, levels)

    def segments(self) -> SegmentOptions:
        """The options of the segments that the network learns from."""
        from ovskit.core.train.data.pool_cache import SegmentOptions

        return SegmentOptions(self.shorter_side, self.scales, self.smallest_segment)

    def views(self) -> SegmentViewOptions:
        """The options of the views of photographs."""
        from ovskit.core.train.views.segment_views import SegmentViewOptions

        return SegmentViewOptions(self.crop, self.smallest_view, self.largest_view, colour=self.colour, blur=self.blur)


class BackboneRecipe:
    """See the module; a ``Recipe``.

    ``init`` is a weights file of the same network to start from; ``evaluate`` scores a network on photographs that it does
    not train on, by whatever name.
    """

    name = "backbone"

    def __init__(
        self, cache: PoolCache, settings: BackboneSettings, *, seed: int = 0, init: Path | None = None, evaluate: Evaluate | None = None
    ) -> None:
        import torch
        import torch.nn.functional as F
        from torch import nn

        from ovskit.core.models.builtin.weights import load_network
        from ovskit.core.train.engine.averaging import MovingAverage

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

    def batch(self, step: int, rank: int, world: int) -> SegmentViews:
        """Pairs of views; photographs in a new random order every time round, each once."""
        import numpy as np

        from ovskit.core.train.data.shuffle import place_at
        from ovskit.core.train.views.segment_views import draw_segment_views

        rng = np.random.default_rng((self._seed, step, rank))
        size = self._settings.batch
        first = (step * world + rank) * size
        places = [place_at(first + k, len(self._cache), self._seed) for k in range(size)]
        return draw_segment_views(self._cache, places, rng, self._settings.views())

    def losses(self, batch: SegmentViews, step: int) -> dict[str, torch.Tensor]:
        """See the module; in nats."""
        import torch
        import torch.nn.functional as F

        from ovskit.core.train.recipes.segment_contrast import boundary_loss, image_contrast, segment_contrast

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

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Two groups: decay for matrices and kernels, none for biases and normalisation."""
        parameters = list(self._network.parameters())
        return [
            {"params": [p for p in parameters if p.dim() > 1]},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]

    def after_step(self, step: int) -> None:
        """The average takes in the new weights, the queue the step's vectors."""
        import torch

        self._average.update()
        vectors = _gathered(torch.cat(self._seen))[-len(self._queue) :]
        self._seen.clear()
        places = (torch.arange(len(vectors), device=vectors.device) + self._next) % len(self._queue)
        self._queue[places] = vectors
        self._next = (self._next + len(vectors)) % len(self._queue)

    def state(self) -> dict[str, torch.Tensor]:
        """The moving average and the queue."""
        import torch

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
        from ovskit.core.models.builtin.weights import save_network

        about = {"recipe": self.name, **self.metadata(), "photographs": len(self._cache), "updates": self._average.updates}
        with self._average.applied():
            save_network(folder / "model.safetensors", self._network, about, self._fit_vector())

    def _fit_vector(self) -> GlobalVector:
        """The axes of the global vector, from as many photographs as are enough for them, drawn by the seed."""
        import numpy as np
        import torch

        from ovskit.core.models.builtin.global_vector import GlobalVector, describe, fit_axes, glance
        from ovskit.core.train.data.shuffle import shuffled

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
    import copy

    from ovskit.core.models.builtin.extractor import BuiltinBackbone

    return lambda network: BuiltinBackbone("builtin", copy.deepcopy(network), "", device)


def _start(config: NetworkConfig, seed: int, init: Path | None) -> GroupingNetwork:
    import torch

    from ovskit.core.models.builtin.network import GroupingNetwork
    from ovskit.core.models.builtin.weights import load_network

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
    import torch

    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return vectors
    parts = [torch.empty_like(vectors) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, vectors.contiguous())
    return torch.cat(parts)


# How it begins


class BackboneFiles(Options):
    """What it begins with, and what it learns from beside photographs."""

    SECTION: ClassVar[str] = "Input"

    init: Path | None = option(
        None, "Begin with these weights, a run's model.safetensors, instead of random ones.", flag=True, metavar="FILE", environment="never"
    )
    segments: Path | None = option(
        None, "Learn from the masks of this file: a network's own, or any others of the same IMAGES.",
        flag=True, metavar="MASKS.json", shown="Felzenszwalb's", environment="never",
    )  # fmt: skip


def precompute(
    sources: Sequence[Source],
    settings: BackboneSettings,
    folder: Path,
    *,
    workers: int,
    failures: Failures,
    masks: Path | None = None,
    watch: Callable[[Iterable[Any]], Iterable[Any]] = lambda items: items,
) -> PoolCache:
    """The photographs and their segments, or those of a masks file, from ``folder`` or made now; see ``pool_cache.open_pool``."""
    from ovskit.core.train.data.pool_cache import MaskOptions, open_pool

    chosen = None if masks is None else MaskOptions(masks, settings.shares)
    return open_pool(sources, settings.segments(), folder, workers=workers, failures=failures, masks=chosen, watch=watch)


def run(job: TrainJob, settings: BackboneSettings) -> Prepared:
    """The photographs with their segments, made by one process, and a network."""
    files: BackboneFiles = job.files
    with job.devices.first_goes_first():
        pool = precompute(
            job.photographs, settings, job.cache or job.folder / "cache",
            workers=job.options.threads(), failures=job.failures, masks=files.segments, watch=job.each_photograph,
        )  # fmt: skip
    return Prepared(BackboneRecipe(pool, settings, seed=job.options.seed, init=files.init, evaluate=job.score), len(pool))


METHOD = TrainMethod(
    "backbone",
    "Train the built-in network by segment contrast, from photographs without labels.",
    BackboneSettings,
    run,
    files=BackboneFiles,
    # A choice: a shorter memory of squared gradients than AdamW's usual one, since runs are short.
    run_options=with_defaults(
        TrainOptions, fixed=("optimizer",), steps=3600, learning_rate=2e-3, warmup=100, weight_decay=0.05, clip_norm=1.0,
        betas=(0.9, 0.98), final_share=0.01, channels_last=True,
    ),
    scored_as="backbone",
    about="""Train the built-in network by segment contrast, from photographs without labels.

    The photographs are cut into segments once, into a cache. RUN then has checkpoint.safetensors, log.jsonl and, at the end,
    model.safetensors. Ctrl-C and SIGTERM leave a checkpoint after the step under way. On a CPU a run that was stopped and
    resumed ends with the same bytes as one that was not.
    """,
    examples=(
        ("from a folder of photographs, without any labels", "ovs-train backbone imgs/ -o run"),
        (
            "in pieces of ten minutes; 3 is the status of a piece",
            "while ovs-train backbone imgs/ -o run --minutes 10 --resume; [ $? -eq 3 ]; do :; done",
        ),
        (
            "on four GPUs, four batches of each to an optimizer step",
            "torchrun --no-python --nproc-per-node 4 ovs-train backbone imgs/ -o run --accumulate 4",
        ),
        ("a quick look at a setting", "ovs-train backbone imgs/ -o try --steps 2000 --set temperature=0.2 --cache cache"),
        ("with the average recall on photographs with masks, as it learns", "ovs-train backbone imgs/ -o run --eval dev/instances.json"),
        ("further, with other photographs", "ovs-train backbone more/ -o run2 --init run/model.safetensors --lr 2e-4"),
        (
            "the segments that its network finds …",
            "ovs-extract --weights run/model.safetensors --size 512 imgs/ | ovs-cluster --counts 200,100,50,25,12,6 -o own.json",
        ),
        ("… and a second round that learns from them", "ovs-train backbone imgs/ -o run2 --segments own.json"),
    ),
)  # fmt: skip
