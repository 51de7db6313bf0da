"""``ovs-train segment``: a Mask2Former with an ancestor head, from masks that nobody drew (SOHES §3.2, self-instruction).

What happens in one step is ``SegmentRecipe``, from top to bottom: photographs are chosen, a view of each is drawn with its masks, the
segmenter's losses are taken, and its parameters are updated, the backbone's more slowly than the decoders'. What SOHES leaves open, and
is a choice here: everything but the losses' weights; a learning rate that falls from block to block towards the backbone's input; no
weight decay for biases, normalisation and embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ovskit.core.runtime.declared import Effect
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.settings import Options, option, with_defaults
from ovskit.core.runtime.shared_options import WEIGHTS
from ovskit.core.train.engine.options import TrainOptions
from ovskit.core.train.job import Prepared, TrainJob, TrainMethod
from ovskit.core.train.recipes.mask_recipe import MaskRecipe, prepare

if TYPE_CHECKING:
    import torch

    from ovskit.core.models.segmenter.config import SegmenterConfig
    from ovskit.core.models.segmenter.losses import LossOptions
    from ovskit.core.models.segmenter.network import Segmenter
    from ovskit.core.train.data.mask_index import IndexOptions
    from ovskit.core.train.views.samples import Batch, SampleOptions

BACKBONE: Any = {"help": "Backbone: builtin, dino-vitb8, dinov2-vitb14 or timm:NAME.", "metavar": "NAME"}
FREEZE: Any = {"help": "Freeze the backbone's own weights; only its adapter learns."}


# Without slots, as CorrectOptions is made of two such classes.
class SegmentSettings(Options):
    """What decides what a segmenter learns from masks, beside masks, photographs, the seed and the optimizer.

    Bounds are far beyond what anybody needs: a slip of the keyboard should not fill the memory, nor compute for days.
    """

    # The network, see SegmenterConfig.
    size: Literal["tiny", "small", "base"] = option("small", "Size of the decoders; SOHES uses base.")
    queries: int = option(
        0,
        "Number of queries, the most masks of an image; 0: as many as size has, or 324 where queries begin at places.",
        low=0,
        high=10_000,
    )
    points: int = option(0, "Number of points at which a mask's loss is taken; 0: as many as size has.", low=0, high=1_000_000)
    kinds: int = option(
        -1,
        "Number of queries that begin at each place of a grid, as regions around it from narrow to wide; 0: queries are learned one by "
        "one, as in Mask2Former and SOHES; -1: 4 where the backbone says what belongs together, as builtin does, 0 elsewhere.",
        low=-1,
        high=100,
    )
    backbone: str = option("builtin", **BACKBONE, flag=True)
    freeze: bool = option(False, **FREEZE, flag=True)
    checkpointing: bool = option(False, "Compute activations again for the gradients: less memory, more time.", shown="false")

    # Which masks, see IndexOptions, and how they are looked at, see SampleOptions.
    min_area: float = option(0.0, "Smallest mask to learn from: in pixels from 1 up, as a share of the image below 1.", low=0)
    max_masks: int = option(
        100, "Most masks of an image to learn from: those of the highest scores, else the largest; 0: all.", low=0, high=100_000
    )
    batch: int = option(8, "Batch size of each process.", flag=True, low=1, high=4096, metavar="N", environment="by command")
    side: int = option(512, "Side of a view, in pixels.", low=32, high=8192, multiple=32)
    smallest_scale: float = option(0.1, "Smallest scale of the large-scale jitter.", above=0)
    largest_scale: float = option(2.0, "Largest scale of the large-scale jitter.", above=0)
    paste: float = option(0.5, "Probability that masks of another photograph are pasted onto a view.", low=0, high=1)
    smallest_paste: float = option(0.3, "Smallest scale of what is pasted.", above=0)
    largest_paste: float = option(1.0, "Largest scale of what is pasted.", above=0)
    colours: bool = option(True, "Strong colour jitter.", shown="true")

    # Losses, see LossOptions.
    ancestors: float = option(1.0, "Weight of the ancestor head's loss.", low=0)
    balance: Literal["none", "weight"] = option(
        "none", "Weight of pairs of which one mask is the ancestor: that of any pair, or together as much as all other pairs."
    )

    # Learning rates.
    backbone_rate: float = option(0.1, "Learning rate of the backbone's last block, as a share of the decoders'.", low=0)
    layer_decay: float = option(0.9, "Learning rate of each earlier block, as a share of that of the block after it.", above=0, high=1)

    def check(self) -> None:
        """Raises UsageError for values that do not go together."""
        for low, high in (("smallest_scale", "largest_scale"), ("smallest_paste", "largest_paste")):
            if getattr(self, low) > getattr(self, high):
                raise UsageError(f"{low} {getattr(self, low):g}: give a number above 0 and at most {high}, {getattr(self, high):g}")

    def config(self) -> SegmenterConfig:
        """The segmenter that these settings train. Raises UsageError for an unknown backbone, or fewer queries than kinds."""
        from ovskit.core.models.families import has_grouping
        from ovskit.core.models.segmenter.config import KINDS, PLACE_QUERIES, SIZES

        chosen = SIZES[self.size]
        kinds = self.kinds if self.kinds >= 0 else KINDS * has_grouping(self.backbone)
        queries = self.queries or (PLACE_QUERIES if kinds else chosen.queries)
        if kinds > queries:
            raise UsageError(f"queries {queries}: give at least as many as there are kinds, {kinds}")
        return replace(
            chosen, backbone=self.backbone, freeze=self.freeze, queries=queries, points=self.points or chosen.points, kinds=kinds
        )

    def fit(self, segmenter: Segmenter) -> bool:
        """Whether the segmenter is one that these settings train."""
        return replace(segmenter.config, backbone_config={}) == replace(self.config(), backbone_config={})

    def index_options(self) -> IndexOptions:
        """The options of the index: which masks the segmenter learns from."""
        from ovskit.core.train.data.mask_index import IndexOptions

        return IndexOptions(self.min_area, self.max_masks)

    def samples(self) -> SampleOptions:
        """The options of the samples: large-scale jitter, copy-paste, colours."""
        from ovskit.core.models.segmenter.network import STRIDE
        from ovskit.core.train.views.colour_augment import ColourOptions
        from ovskit.core.train.views.copy_paste import PasteOptions
        from ovskit.core.train.views.samples import SampleOptions

        paste = PasteOptions(self.paste, (self.smallest_paste, self.largest_paste)) if self.paste else None
        colours = ColourOptions(erase=0.0) if self.colours else None
        return SampleOptions(self.side, STRIDE, (self.smallest_scale, self.largest_scale), paste=paste, colours=colours)

    def losses(self) -> LossOptions:
        """The options of the losses."""
        from ovskit.core.models.segmenter.losses import LossOptions

        return LossOptions.of(self.config(), ancestors=self.ancestors, ancestor_balance=self.balance)


class SegmentRecipe(MaskRecipe):
    """See the module; a ``Recipe``. The segmenter is evaluated and kept as ``MaskRecipe`` says."""

    name = "segment"

    def batch(self, step: int, rank: int, world: int) -> Any:
        """A view of each of ``batch`` photographs, a ``samples.Batch``; photographs in a new random order every time round, each once.

        ``samples.draw_sample``: the photograph is scaled, cut and mirrored (large-scale jitter), its masks go along, masks of another
        photograph may be pasted onto it, and colours change.
        """
        from ovskit.core.train.views.samples import draw_batch

        return draw_batch(
            self.index, self.photographs, self.sample_options,
            seed=self.seed, step=step, rank=rank, world=world, size=self.settings.batch, failures=self.failures,
        )  # fmt: skip

    def losses(self, batch: Any, step: int) -> dict[str, torch.Tensor]:
        """Each mask is matched with the query that it costs least; ``segmenter_losses``: class, mask, dice, ancestors."""
        from ovskit.core.models.segmenter.losses import segmenter_losses

        return segmenter_losses(self.segmenter(batch.images), targets_of(batch), self.loss_options)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Two groups for the decoders and two for each block of the backbone, with weight decay and without.

        ``lr_scale`` is 1 for the decoders, ``backbone_rate`` · ``layer_decay``^k for the k-th block of the backbone from its end. Biases,
        normalisation and embeddings have no weight decay.
        """
        from torch import nn

        rate, decay, segmenter = self.settings.backbone_rate, self.settings.layer_decay, self.segmenter
        embeddings = {id(p) for module in segmenter.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
        blocks = segmenter.pyramid.depth_groups()  # type: ignore[operator]
        scaled = [(1.0, [p for p in segmenter.head_parameters() if p.requires_grad])]
        scaled += [(rate * decay**k, block) for k, block in enumerate(reversed(blocks))]
        groups = []
        for scale, parameters in scaled:
            bare = {id(p) for p in parameters if p.dim() <= 1 or id(p) in embeddings}
            groups.append({"params": [p for p in parameters if id(p) not in bare], "lr_scale": scale})
            groups.append({"params": [p for p in parameters if id(p) in bare], "lr_scale": scale, "weight_decay": 0.0})
        return [group for group in groups if group["params"]]

    def after_step(self, step: int) -> None:
        """Counts the steps."""
        self.updates = step + 1


def targets_of(batch: Batch) -> Any:
    """A batch's masks as the losses take them, a list of ``Target``."""
    from ovskit.core.models.segmenter.losses import Target

    return [Target(masks, ancestors) for masks, ancestors in zip(batch.masks, batch.ancestors, strict=True)]


# How it begins


class SegmentFiles(Options):
    """What the segmenter begins with."""

    SECTION: ClassVar[str] = "Input"

    weights: Path | None = option(None, **WEIGHTS)
    scratch: bool = option(
        False, "Begin with a random backbone instead of its published weights.", flag=True,
        effect=Effect(lambda g: g["weights"] is None, "begins with random weights, and --weights brings some: choose one"),
    )  # fmt: skip
    init: Path | None = option(
        None, "Begin with the segmenter of this finished run, its backbone too.", flag=True, metavar="RUN", environment="never"
    )

    def check(self) -> None:
        """Raises UsageError for two ways to begin."""
        if self.init is not None and (self.weights is not None or self.scratch):
            raise UsageError("--init brings a whole segmenter, its backbone too: leave out --weights and --scratch")


def new_segmenter(settings: SegmentSettings, *, weights: Path | None, pretrained: bool, seed: int) -> Segmenter:
    """The segmenter to begin with; raises what ``build_pyramid`` and ``SegmentSettings.config`` raise."""
    import torch

    from ovskit.core.models.registry import build_pyramid
    from ovskit.core.models.segmenter.network import Segmenter

    config = settings.config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pyramid = build_pyramid(
            settings.backbone,
            weights=weights,
            pretrained=pretrained,
            freeze=settings.freeze,
            checkpointing=settings.checkpointing,
            grouping=config.kinds > 0,
        )
        segmenter = Segmenter(replace(config, backbone_config=pyramid.config()), pyramid)
    segmenter.recompute(settings.checkpointing)
    return segmenter


def settings_from(training: Mapping[str, Any], changes: Mapping[str, Any], what: str) -> SegmentSettings:
    """The settings that a finished run was trained with, but for ``changes``. Raises InputError, naming it ``what``, if it has none."""
    try:
        found = {name: tuple(value) if isinstance(value, list) else value for name, value in dict(training["settings"]).items()}
        return SegmentSettings(**{"kinds": 0, **found, **changes})  # runs from before there were places do not say
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{what}: does not say what settings it was trained with; it is not a run of ovs-train segment or correct"
        ) from None


def run(job: TrainJob, settings: SegmentSettings) -> Prepared:
    """A segmenter, and the index of the masks that it learns from."""
    from ovskit.core.models.segmenter.open import open_segmenter
    from ovskit.core.models.weights.source import sha256_of

    files: SegmentFiles = job.files
    begun: dict[str, Any]
    if files.init is None:
        segmenter = new_segmenter(settings, weights=files.weights, pretrained=not files.scratch, seed=job.options.seed)
        begun = {"weights": None if files.weights is None else sha256_of(files.weights), "pretrained": not files.scratch}
    else:
        loaded = open_segmenter(files.init)
        if not settings.fit(loaded.segmenter):
            raise UsageError(f"--init {files.init}: a segmenter of another size or backbone; give the settings that it was trained with")
        segmenter, begun = loaded.segmenter.train(), {"segmenter": loaded.sha256}
    return prepare(job, SegmentRecipe, segmenter, settings, begun)


METHOD = TrainMethod(
    "segment",
    "Train a segmenter from masks, which may be pseudo-labels: Mask2Former with SOHES' ancestor head.",
    SegmentSettings,
    run,
    learns_from="masks",
    files=SegmentFiles,
    run_options=with_defaults(
        TrainOptions, steps=40000, optimizer="adan", learning_rate=2e-4, warmup=500, weight_decay=0.02, clip_norm=1.0
    ),
    scored_as="segmenter",
    about="""Train a segmenter from masks, which may be pseudo-labels: Mask2Former with SOHES' ancestor head.

    The masks' parents teach the ancestor head; where a file has none, coverage, as in ovs-hier, says which mask is part of which. RUN then
    has checkpoint.safetensors, log.jsonl and, at the end, the segmenter: model.safetensors, config.json, training.json; and in
    RUN/best the one that --eval scored highest. The paper's learning rate is 8e-4 for 128 images a step.
    """,
    examples=(
        ("pseudo-labels …", "ovs-extract imgs/ | ovs-cluster | ovs-refine | ovs-hier > pseudo.json"),
        ("… to learn from", "ovs-train segment pseudo.json --images imgs -o run"),
        ("the masks that it has learned to find", "ovs-predict --checkpoint run imgs/ > forest.json"),
        (
            "SOHES' own size, on eight GPUs",
            "torchrun --no-python --nproc-per-node 8 ovs-train segment pseudo.json --images imgs -o run --batch 16 --lr 8e-4 "
            "--backbone dino-vitb8 --set size=base --set side=1024",
        ),
        (
            "a small trial on a CPU",
            "ovs-train segment pseudo.json --images imgs -o try --set size=tiny --set side=256 --batch 4 --steps 500",
        ),
        (
            "with the average recall on photographs with ground truth",
            "ovs-train segment pseudo.json --images imgs -o run --eval dev/instances.json",
        ),
    ),
)
