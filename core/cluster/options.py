"""The options of the methods of ``ovs-cluster`` whose algorithms are rooms of several files: read by those and by the methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ovskit.core.runtime import values
from ovskit.core.runtime.settings import Effect, Options, option

if TYPE_CHECKING:
    from ovskit.core.models.kmeans import KMeansOptions

PAPER = "SOHES section 3.1"
OF_CROPS = Effect(lambda g: g["local"] is not False, "is about crops of small regions, and --no-local looks at none")


@dataclass(frozen=True, slots=True)
class SohesOptions(Options):
    """Every value of the method; the paper's where it gives one, else a choice.

    ``counts`` is an extension of ours. ``score``, which the paper leaves open, is ``persistence``: the share of the recorded partitions
    that show the region times the square root of its share of the image [choice: AR at 10 masks was below 1 % by the other, about 10 %
    by this]; or ``cosine``, the mean cosine of its patches to its feature. ``soft``: masks say which grid they were cut from, for a CRF
    to start from it.
    """

    thresholds: tuple[float, ...] = option(
        (0.6, 0.5, 0.4, 0.3, 0.2, 0.1),
        "Record a partition as the best similarity falls below each: 0.6..0.1, 0.6..0.1:0.05 or 0.6,0.3.",
        flag=True, metavar="T", parse=values.thresholds, source=PAPER,
        shown="the model's own counts: builtin has some; else 0.6..0.1",
    )  # fmt: skip
    counts: tuple[int, ...] | None = option(
        None, "Record partitions at these region counts instead; crops go by --thresholds.",
        flag=True, metavar="N,N,…", parse=values.counts,
    )  # fmt: skip
    nms: float = option(0.9, "Of two regions above this IoU the smaller goes; 1 keeps all.", flag=True, low=0, high=1, metavar="IOU")
    min_patches: int = option(4, "Smallest region, in patches.", flag=True, low=1)
    connectivity: Literal[4, 8] = option(4, "Which patches are neighbours.", flag=True, source=PAPER)
    local: bool | None = option(
        None, "Look again at small regions in zoomed crops of the images.",
        flag=True, off="--no-local", shown="as the model recommends: builtin no, others yes", source=PAPER,
    )  # fmt: skip
    score: Literal["persistence", "cosine"] = option(
        "persistence", "persistence: regions that many partitions show, and large ones, first; or mean cosine.",
        flag=True, environment="by command",
    )  # fmt: skip
    small: float = option(
        1 / 1024, "Regions below this share of the image are small.",
        flag=True, metavar="SHARE", parse=values.share, shown="1/1024", source=PAPER, effect=OF_CROPS, rare=True,
    )  # fmt: skip
    local_size: int = option(256, "Crops are resized to N×N.", flag=True, low=8, high=4096, source=PAPER, effect=OF_CROPS, rare=True)
    min_local: float = option(
        4.0,
        "Smallest subregion of a crop, in patches of the whole image.",
        flag=True,
        low=0,
        high=1e6,
        metavar="N",
        effect=OF_CROPS,
        rare=True,
    )
    context: float = option(
        2.0,
        "Side of a crop, in longer sides of the region's box.",
        flag=True,
        low=1,
        high=100,
        environment="by command",
        effect=OF_CROPS,
        rare=True,
    )
    min_crop: int = option(64, "Smallest side of a crop, in resized pixels.", flag=True, low=1, effect=OF_CROPS, rare=True)
    share: float = option(
        0.5, "Regions share a crop if their crops overlap this much.", flag=True, low=0, high=1, metavar="IOU", effect=OF_CROPS, rare=True
    )
    soft: bool = option(
        True, "Masks keep what cutting them took away, for ovs-refine --method crf, convcrf.", flag=True, off="--no-soft", shown="soft"
    )
    weights: Path | None = option(
        None,
        "The model's weights: a safetensors file, a torch checkpoint or a TorchScript archive; nothing in it is run. "
        "Otherwise the local cache, then the model hub.",
        flag=True, metavar="FILE", decides=False, effect=OF_CROPS, rare=True,
    )  # fmt: skip


POINTS = 65_536  # patches of all images that centroids are fitted on [choice]


@dataclass(frozen=True, slots=True)
class FittingOptions(Options):
    """How centroids are fitted, kept and taken."""

    soft: bool = option(
        True, "Masks keep what cutting them took away, for ovs-refine --method crf, convcrf.", flag=True, off="--no-soft", shown="soft"
    )
    save: Path | None = option(
        None, "Keep the centroids (lightcluster; kmeans of --scope dataset).", flag=True, metavar="FILE.npz", decides=False,
        environment="never",
    )  # fmt: skip
    source: Path | None = option(
        None, "Take these centroids instead of fitting some: one pass is enough.", flag="--from", metavar="FILE.npz", environment="never"
    )
    seed: int = option(0, "Random seed of k-means.", flag=True, low=0)
    metric: Literal["cosine", "euclidean"] = option("cosine", "What k-means goes by.")
    iterations: int = option(20, "Steps of k-means.", low=1)
    restarts: int = option(1, "Runs of k-means, of which the best is taken.", low=1)
    max_points: int | None = option(
        None, "Patches of all images that centroids are fitted on, a sample; 0 takes all.", low=0, shown=f"{POINTS}; 0 with --scope image"
    )

    def beside(self) -> Sequence[str]:
        """See ``Options``."""
        return () if self.save is None else (str(self.save),)

    def clustering(self, k: int, points: int) -> KMeansOptions:
        """Options of k-means with ``k`` clusters, on at most ``points`` patches if nothing else is said."""
        from ovskit.core.models.kmeans import KMeansOptions

        most = points if self.max_points is None else self.max_points
        return KMeansOptions(k, self.metric, self.iterations, self.restarts, self.seed, most)


Level = Literal["final", "image", "category", "dataset"]
Side = Literal["border", "share", "smaller"]
Sign = Literal["overlap", "share", "images"]


@dataclass(frozen=True, slots=True)
class LightOptions(FittingOptions):
    """Every value that the paper leaves open [choices]; docs/reference/choices.md says what each does."""

    emit: Level = option("final", "What all levels agree on, or the foreground of one of them.", flag=True)
    superclasses: int = option(4, "Superclasses of the images, clusters of their CLS vectors.", low=1)
    side: Side = option(
        "border",
        "Which cluster of an image is its foreground: that with fewer patches on its border, that with the smaller share of its patches "
        "there, or the smaller one. Of two equal ones always the smaller.",
    )
    sign: Sign = option(
        "overlap",
        "Which cluster of a data set or a superclass is its foreground: that which shares more patches with its images' own, that of which "
        "this is a larger share, or that of more images.",
    )
    vote: Literal["and", "two"] = option("and", "A pixel is foreground where data set and superclass agree, or two of the three levels.")
    overlap: float = option(0.5, "A connected piece stays if this share of it is the image's own foreground.", low=0, high=1)
    min_patches: int = option(4, "Smallest piece, in patches.", low=0)
    connectivity: Literal[4, 8] = option(8, "Which patches are neighbours.")
    fallback: Literal["category", "image", "none"] = option(
        "category", "If nothing is left the superclass's mask stands, then the image's; or the image's at once; or none."
    )
