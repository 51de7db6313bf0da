"""``ovs-train pairs``: an image tower and a text tower from image-text pairs, by contrast (CLIP; Radford et al., ICML 2021).

What happens in one step is ``PairsRecipe``. A random crop of each photograph goes through the image tower, one of its captions, drawn anew
every time, through the text tower; of the pairs of a batch, or of the whole step, each image is to find its caption and each caption its
image (``contrast``). What is exported are both towers, which ``--model run:DIR`` opens everywhere.

Choices: the image tower pools what it has normed (``towers.image_tower``), so that what it says of an image is the mean of what it says of
its places; it is convolutional by default, since with few images a transformer's positions say little of what is there. Crops show at
least 40 % of the photograph (CLIP's code: 90 %, for 400 M pairs); half of them are mirrored, but for captions that speak of left or right.
The text tower is as wide and deep as GroupViT's, its context is short. Rates are CLIP's for a ViT-B.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.logs import get_logger
from ovskit.core.runtime.settings import Options, option, with_defaults
from ovskit.core.train.engine.options import TrainOptions
from ovskit.core.train.job import Prepared, TrainJob, TrainMethod

if TYPE_CHECKING:
    import torch

    from ovskit.core.models.towers.config import TowersConfig
    from ovskit.core.models.towers.network import Towers
    from ovskit.core.train.recipes.contrast import Vectors
    from ovskit.core.train.views.pair_samples import PairBatch, PairSamples, PairViewOptions

log = get_logger("train")

GROUPVIT = "GroupViT"


class FirstWeights(Options):
    """Weights to begin with."""

    SECTION: ClassVar[str] = "Input"

    weights: Path | None = option(
        None, "Weights of the image tower to begin with: a checkpoint of the timm model that it is; otherwise random ones.",
        flag=True, metavar="FILE", decides=False,
    )  # fmt: skip


class PairsSettings(Options):
    """Everything that decides what is learned, beside the pairs, the seed and the optimizer."""

    arch: str = option(
        "convnext_tiny", "The image tower: a convolutional network or a plain ViT of timm, by its name without a tag.", flag=True,
        metavar="NAME",
    )  # fmt: skip
    batch: int = option(256, "Batch size of each process, in pairs.", flag=True, low=2, metavar="N", environment="by command")
    side: int = option(224, "Side of the crops in pixels.", flag=True, low=16, high=4096, metavar="PX")
    dim: int = option(256, "Dimensions of the common space.", flag=True, low=1, high=16384, metavar="N", source=GROUPVIT)
    stride: Literal[0, 8, 16, 32] = option(
        0, "Pixels to a position of a convolutional tower, made finer by dilation, so that regions can be named; 0: the network's own."
    )
    negatives: Literal["own", "all"] = option(
        "own", "What a pair is compared with: its own batch, or all batches of the step, of all processes and of --accumulate; that costs"
        " one forward pass more.", flag=True,
    )  # fmt: skip
    words: Literal["all", "nouns,verbs"] = option(
        "all", "Words of a caption that are learned; nouns,verbs needs textblob.",
    )  # fmt: skip
    drop_path: float = option(0.0, "Stochastic depth of the image tower.", low=0, below=1)

    # Crops, see PairViewOptions.
    smallest_crop: float = option(0.4, "Smallest share of the area that a crop shows.", above=0, high=1)
    flip: float = option(0.5, "Chance that a crop is mirrored.", low=0, high=1)
    mirror_sides: bool = option(False, "Mirror images whose caption speaks of left or right as well.")

    # The text tower, see TowersConfig.
    context: int = option(32, "Tokens that a caption is cut to.", low=3, high=4096)
    text_width: int = option(256, "Channels of the text tower.", low=1, high=16384, source=GROUPVIT)
    text_heads: int = option(4, "Attention heads of the text tower.", low=1, high=1024, source=GROUPVIT)
    text_layers: int = option(12, "Layers of the text tower.", low=1, high=256, source=GROUPVIT)

    def check(self) -> None:
        """Raises UsageError for values that do not go together."""
        if self.text_width % self.text_heads:
            raise UsageError(f"text_width {self.text_width}: give a multiple of text_heads, which is {self.text_heads}")

    def config(self) -> TowersConfig:
        """How the towers are built."""
        from ovskit.core.models.towers.config import TowersConfig

        return TowersConfig(
            self.arch,
            self.side,
            self.dim,
            self.context,
            text_width=self.text_width,
            text_heads=self.text_heads,
            text_layers=self.text_layers,
            stride=self.stride,
        )

    def views(self) -> PairViewOptions:
        """How pairs are seen."""
        from ovskit.core.train.views.pair_samples import PairViewOptions

        return PairViewOptions(self.side, self.smallest_crop, self.flip, self.mirror_sides)


class PairsRecipe:
    """See the module; a ``Recipe``.

    ``samples`` makes batches of what ``data``, a digest, stands for, of ``total`` pairs. ``begun_with`` says, in JSON, where the first
    weights of ``towers`` come from.
    """

    name = "pairs"

    def __init__(
        self,
        samples: PairSamples,
        towers: Towers,
        settings: PairsSettings,
        *,
        seed: int = 0,
        data: str = "",
        total: int = 0,
        begun_with: Mapping[str, Any] | None = None,
    ) -> None:
        from torch import nn

        from ovskit.core.train.recipes.contrast import Scale

        self._samples, self._towers, self._settings, self._seed = samples, towers, settings, seed
        self._data, self._total, self._begun_with = data, total, dict(begun_with or {})
        self._scale = Scale()
        self.modules = nn.ModuleDict({"image": towers.image, "text": towers.text, "scale": self._scale})
        self._updates = 0
        self._everyone: Vectors | None = None

    def batch(self, step: int, rank: int, world: int) -> PairBatch:
        """See ``PairSamples.batch``."""
        return self._samples.batch(step, rank, world, self._settings.batch)

    def prepare_step(self, batches: Iterable[PairBatch], step: int) -> None:
        """With ``negatives=all``: the vectors of all batches of the step, of all processes. Nothing where ``losses`` finds them by itself,
        since a process has one batch a step."""
        import torch

        from ovskit.core.train.recipes.contrast import Vectors, of_all_processes, processes, statistics_kept

        self._everyone = None
        if self._settings.negatives == "own":
            return
        found: list[Vectors] = []
        with statistics_kept(self.modules):
            for batch in batches:  # each is seeded when it is taken
                if batch.world == processes():
                    return
                found.append(self._vectors(batch))
        self._everyone = of_all_processes(Vectors(*(torch.cat(parts) for parts in zip(*found, strict=True))))

    def losses(self, batch: PairBatch, step: int) -> dict[str, torch.Tensor]:
        """``loss``; the scale, the share of images and texts that find their other half, and among how many others."""
        import torch

        from ovskit.core.train.recipes.contrast import contrast, in_whole_step, of_all_processes

        vectors = self._vectors(batch)
        if self._settings.negatives == "all" and batch.world > 1:
            everyone = of_all_processes(vectors) if self._everyone is None else self._everyone
            vectors = in_whole_step(vectors, everyone, batch.rank, batch.world)
        scale = self._scale()
        found = contrast(vectors, scale)
        negatives = torch.tensor(float(len(vectors.images) - 1), device=scale.device)
        return {"loss": found.loss, "scale": scale.detach(), "accuracy": found.accuracy, "negatives": negatives}

    def _vectors(self, batch: PairBatch) -> Vectors:
        from torch.nn.functional import normalize

        from ovskit.core.train.recipes.contrast import Vectors

        images, texts = self._towers.image(batch.images), self._towers.text(batch.tokens)
        return Vectors(normalize(images.float(), dim=1), normalize(texts.float(), dim=1), batch.tokens)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Two groups: decay for matrices, kernels and embeddings; none for biases, normalisation and the scale."""
        own = [parameter for parameter in self.modules.parameters() if parameter.requires_grad]
        return [
            {"params": [parameter for parameter in own if parameter.dim() > 1]},
            {"params": [parameter for parameter in own if parameter.dim() <= 1], "weight_decay": 0.0},
        ]

    def after_step(self, step: int) -> None:
        """The scale stays where it still learns."""
        self._scale.limit()
        self._everyone = None
        self._updates += 1

    def state(self) -> dict[str, torch.Tensor]:
        """The updates made."""
        import torch

        return {"updates": torch.tensor(self._updates)}

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up what ``state`` gave."""
        self._updates = int(tensors["updates"])

    def metadata(self) -> dict[str, Any]:
        """The settings, the seed, and what pairs and first weights are."""
        return {"settings": asdict(self._settings), "seed": self._seed, "pairs": self._data, "begun_with": self._begun_with}

    def evaluate(self) -> dict[str, float]:
        """Nothing: whether it learns, the accuracy in the batch says."""
        return {}

    def export(self, folder: Path) -> None:
        """``model.safetensors``: both towers, see ``save_towers``."""
        from ovskit.core.models.towers.checkpoint import save_towers

        about = {"recipe": self.name, **self.metadata(), "count": self._total, "updates": self._updates}
        save_towers(folder, self._towers, float(self._scale().item()), about)


# How it begins


def make_towers(settings: PairsSettings, weights: Path | None, seed: int) -> tuple[Towers, dict[str, Any]]:
    """Towers with first weights that depend on the seed, the image tower's from ``weights`` if given; and, in JSON, where those are from.

    Raises UsageError for an architecture that does not do, MissingInputError and InputError for the file.
    """
    import torch

    from ovskit.core.models.towers.network import Towers
    from ovskit.core.models.weights.source import WeightsSource, sha256_of

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        towers = Towers(settings.config(), drop_path=settings.drop_path)
    if weights is None:
        return towers, {}
    path = WeightsSource(settings.arch, weights).path(None)
    towers.image.begin_with(path)
    return towers, {"weights": sha256_of(path)}


def run(job: TrainJob, settings: PairsSettings) -> Prepared:
    """The pairs, indexed by one process, and two towers."""
    from ovskit.core.models.towers.network import tokenizer_of
    from ovskit.core.train.data.pair_draws import PairDraws
    from ovskit.core.train.views.pair_samples import PairSamples

    assert job.pairs is not None
    words = str
    if settings.words != "all":
        from ovskit.core.concepts.tagging import nouns_and_verbs

        words = nouns_and_verbs()  # type: ignore[assignment]
    towers, begun_with = make_towers(settings, job.files.weights, job.options.seed)
    with job.devices.first_goes_first():
        draws = PairDraws(job.pairs, seed=job.options.seed, failures=job.failures)
    samples = PairSamples(draws, settings.views(), tokenizer_of(settings.config()), job.failures, words)
    recipe = PairsRecipe(samples, towers, settings, seed=job.options.seed, data=draws.key, total=draws.total, begun_with=begun_with)
    return Prepared(recipe, draws.total)


METHOD = TrainMethod(
    "pairs",
    "Train an image tower and a text tower by contrast (CLIP), from images and their captions.",
    PairsSettings,
    run,
    learns_from="pairs",
    files=FirstWeights,
    run_options=with_defaults(
        TrainOptions, fixed=("optimizer",), steps=10000, learning_rate=5e-4, warmup=500, weight_decay=0.2, clip_norm=1.0, betas=(0.9, 0.98),
        epsilon=1e-6,
    ),
    about="""Train an image tower and a text tower by contrast (CLIP), from images and their captions.

    RUN then has checkpoint.safetensors, log.jsonl and, at the end, model.safetensors: both towers, for --model run:RUN of ovs-extract,
    ovs-label --names and ovs-curate. The log's accuracy is the share of images and captions that find each other among the negatives;
    equal captions count as one. With --negatives all these are all pairs of a step, and processes and --accumulate give the same as
    one large batch but for batch normalisation, which sees each batch by itself. Images are decoded as they are needed.
    Ctrl-C and SIGTERM leave a checkpoint after the step under way. On a CPU a run that was stopped and resumed ends with the same bytes as
    one that was not.
    """,
    examples=(
        ("from tar shards of images and captions", "ovs-train pairs 'shards/*.tar' -o towers"),
        ("the vectors of images that it makes", "ovs-extract --model run:towers --pool cls imgs/ -o rows.npz"),
        ("names for masks by what it has learned", "ovs-label --names cat,dog,sky --model run:towers --root imgs masks.json"),
        ("a large step on a small card", "ovs-train pairs shards/ -o towers --batch 256 --accumulate 16 --negatives all"),
        ("on a CPU", "ovs-train pairs shards/ -o towers --arch resnet18 --side 96 --batch 64 --set text_layers=4 --steps 2000"),
    ),
)  # fmt: skip
