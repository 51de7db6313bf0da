"""The options of the methods of ``ovs-cluster`` whose algorithms are rooms of several files: read by those and by the methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ovskit.core.runtime import values
from ovskit.core.runtime.declared import Effect
from ovskit.core.runtime.settings import Options, option
from ovskit.core.runtime.shared_options import WEIGHTS

if TYPE_CHECKING:
    from ovskit.core.models.kmeans import KMeansOptions

PAPER = "SOHES section 3.1"
OF_CROPS = Effect(lambda g: g["local"] is not False, "has no effect with --no-local: it is about crops of small regions")


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
        shown="the model's own counts, which builtin has; else 0.6..0.1",
    )  # fmt: skip
    counts: tuple[int, ...] | None = option(
        None, "Record partitions at these region counts instead; crops go by --thresholds.",
        flag=True, metavar="N,N,…", parse=values.counts,
    )  # fmt: skip
    nms: float = option(
        0.9, "Drop the smaller of two regions that overlap by more than this IoU; 1 keeps all.", flag=True, low=0, high=1, metavar="IOU"
    )
    min_patches: int = option(4, "Smallest region, in patches.", flag=True, low=1)
    connectivity: Literal[4, 8] = option(
        4, "Neighbours of a patch: 4 at its sides, or 8 with those at its corners.", flag=True, source=PAPER
    )
    local: bool | None = option(
        None, "Local step: cluster small regions again, in zoomed crops of the images.",
        flag=True, off="--no-local", shown="as the model recommends: builtin no, others yes", source=PAPER,
    )  # fmt: skip
    score: Literal["persistence", "cosine"] = option(
        "persistence", "Score: persistence, high for large regions of many partitions; cosine, the mean similarity of a region's patches.",
        flag=True, environment="by command",
    )  # fmt: skip
    small: float = option(
        1 / 1024, "Regions below this share of the image get a crop in the local step.",
        flag=True, metavar="SHARE", parse=values.share, shown="1/1024", source=PAPER, effect=OF_CROPS, rare=True,
    )  # fmt: skip
    local_size: int = option(256, "Resize crops to N×N pixels.", flag=True, low=8, high=4096, source=PAPER, effect=OF_CROPS, rare=True)
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
        0.5, "Regions share a crop if their crops overlap by this IoU.", flag=True, low=0, high=1, metavar="IOU", effect=OF_CROPS, rare=True
    )
    soft: bool = option(
        True, "Keep in each mask how sure its edges are, for ovs-refine --method crf and convcrf.", flag=True, off="--no-soft", shown="soft"
    )
    weights: Path | None = option(None, **WEIGHTS, effect=OF_CROPS, rare=True)


POINTS = 65_536  # patches of all images that centroids are fitted on [choice]


class FittingOptions(Options):
    """How centroids are fitted, kept and taken."""

    soft: bool = option(
        True, "Keep in each mask how sure its edges are, for ovs-refine --method crf and convcrf.", flag=True, off="--no-soft", shown="soft"
    )
    save: Path | None = option(
        None, "Write the centroids, for --from (lightcluster; kmeans with --scope dataset).", flag=True, metavar="FILE.npz", decides=False,
        environment="never",
    )  # fmt: skip
    source: Path | None = option(
        None, "Take the centroids that --save wrote, instead of fitting some.", flag="--from", metavar="FILE.npz", environment="never"
    )
    seed: int = option(0, "Random seed of k-means.", flag=True, low=0)
    metric: Literal["cosine", "euclidean"] = option("cosine", "Distance of k-means.")
    iterations: int = option(20, "Most iterations of a run of k-means.", low=1)
    restarts: int = option(1, "Number of runs of k-means; the best one is taken.", low=1)
    max_points: int | None = option(
        None,
        "Number of patches, a sample of all images', that centroids are fitted on; 0 takes all.",
        low=0,
        shown=f"{POINTS}; 0 with --scope image",
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


class LightOptions(FittingOptions):
    """Every value that the paper leaves open [choices]; docs/reference/choices.md says what each does."""

    emit: Level = option("final", "Foreground to write: what all levels agree on, or that of one level.", flag=True)
    superclasses: int = option(4, "Number of superclasses, which are clusters of the images' CLS vectors.", low=1)
    side: Side = option(
        "border",
        "Which cluster of an image is its foreground: that with fewer patches on its border, that with the smaller share of its patches "
        "there, or the smaller one; if they are equal, the smaller one.",
    )
    sign: Sign = option(
        "overlap",
        "Which cluster of a data set or a superclass is its foreground: that which shares more patches with its images' own, that of which "
        "this is a larger share, or that of more images.",
    )
    vote: Literal["and", "two"] = option("and", "A pixel is foreground where data set and superclass agree, or two of the three levels.")
    overlap: float = option(0.5, "A connected piece stays if this share of it is the image's own foreground.", low=0, high=1)
    min_patches: int = option(4, "Smallest piece, in patches.", low=0)
    connectivity: Literal[4, 8] = option(8, "Neighbours of a patch: 4 at its sides, or 8 with those at its corners.")
    fallback: Literal["category", "image", "none"] = option(
        "category", "Mask of an image where nothing is left: the superclass's, else the image's own; the image's own; or none."
    )
