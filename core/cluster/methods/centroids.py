"""What the methods that cluster vectors share: how k-means is run, and centroids kept in a file for other images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ovskit.core.cluster.job import ClusterJob
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.methods import Said
from ovskit.core.runtime.settings import Options, option

if TYPE_CHECKING:
    from ovskit.core.formats.streams.features import FeatureHeader
    from ovskit.core.models.kmeans import Centroids, KMeansOptions

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


def check_files(job: ClusterJob, options: FittingOptions) -> None:
    """Raises UsageError where a file is to be written over another, or stdin to be read twice."""
    from ovskit.core.runtime.output import check_output, same_file

    if [*job.paths, str(options.source)].count("-") > 1:
        raise UsageError("stdin (-) can be read once only; name it once")
    if options.save is not None:
        if options.source is not None:
            raise UsageError("--from takes centroids as they are, so there are none to --save: leave one of them out")
        if str(options.save) == "-" or any(same_file(str(options.save), path) for path in (job.output, *job.paths)):
            raise UsageError("--save needs a file of its own, other than the masks' and what is read")
        check_output(str(options.save), binary=True)
    if options.source is not None and same_file(job.output, str(options.source)):
        raise UsageError(f"-o {job.output} is the file of --from: masks would take its place; name another file")


def check_fitting(job: ClusterJob, options: FittingOptions, heard: set[str]) -> None:
    """Raises UsageError for an option of the fitting, another than those ``heard``, that was given beside a file of centroids."""
    flags = {"source", "soft", "save", "clusters", "scope", "batch", "components", "emit", "seed"}
    for name, said in job.given.items():
        if said is Said.BY_SETTING and name not in heard | flags:
            raise UsageError(f"--set {name} has no effect with --from: the centroids are there already")


def save(job: ClusterJob, path: Path | None, named: dict[str, Centroids], header: FeatureHeader, method: str) -> None:
    """Keep centroids in a file, if one is named."""
    from ovskit.core.formats.streams.centroids import save_centroids
    from ovskit.core.runtime.output import open_output

    if path is None:
        return
    about = {"method": method, "model": header.model, "pg": job.provenance(header)}
    with open_output(str(path)) as out:
        save_centroids(out, named, about)


def load(path: Path, model: Any, method: str) -> dict[str, Centroids]:
    """The centroids of a file. Raises InputError if they are another model's or another method's."""
    from ovskit.core.formats.streams.centroids import check_same_model, load_centroids

    about, named = load_centroids(str(path))
    check_same_model(about, model, str(path))
    if about.get("method") != method:
        raise InputError(f"{path}: centroids of --method {about.get('method')}, not of {method}")
    return dict(named)
