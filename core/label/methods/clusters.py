"""``--clusters K``: clusters of all masks, by their vectors (LightCluster's class assignment); see ``label.clusters``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ovskit.core.label.job import LabelJob, Labelled, Records, log
from ovskit.core.runtime.declared import Effect
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.methods import Method
from ovskit.core.runtime.settings import REQUIRED, Options, option

if TYPE_CHECKING:
    from ovskit.core.records import MaskSet

_FITS = Effect(lambda g: g["clusters"] is not None, "has no effect without --clusters, which alone runs k-means: leave it out")


class ClustersOptions(Options):
    """How masks are clustered; the values are choices."""

    clusters: int = option(
        REQUIRED, "Make K clusters of all masks; categories are 1 to K.", flag=True, low=1, metavar="K", environment="by command"
    )
    save: str | None = option(
        None, "Also write the centroids, for --from.", flag=True, metavar="CENTROIDS.npz", decides=False, environment="never",
        effect=Effect(lambda g: g["clusters"] is not None, "has no effect without --clusters: give both"),
    )  # fmt: skip
    restarts: int = option(10, "Runs of k-means; the best is kept.", flag=True, low=1, metavar="N", effect=_FITS)
    iterations: int = option(50, "Steps of each run of k-means.", flag=True, low=1, metavar="N", effect=_FITS)
    seed: int = option(0, "Random seed of k-means.", flag=True, low=0, metavar="N", effect=_FITS)

    def beside(self) -> Sequence[str]:
        """See ``Options``."""
        return () if self.save is None else (self.save,)


def run(job: LabelJob, options: ClustersOptions) -> Labelled:
    """Two passes: all vectors, then every mask with the number of its cluster. Raises UsageError where a file would be written over
    another, and what reading masks and the model raises."""
    from ovskit.core.formats.streams.centroids import save_centroids
    from ovskit.core.label import clusters as by
    from ovskit.core.label.rereadable import RereadableMasks
    from ovskit.core.label.vector_store import VectorStore
    from ovskit.core.models.kmeans import KMeansOptions, fit

    _check_save(job, options)
    masks = job.stack.enter_context(RereadableMasks(job.inputs.masks, job.failures))
    store = job.stack.enter_context(VectorStore())
    header, features = masks.header, job.inputs.features
    job.root_of(header)  # before weights are looked for
    backbone = job.encoder.open(None if features is None else features.model)
    crop = job.encoder.options.crop_for(backbone.spec)
    count = options.clusters

    def start() -> Records:
        if masks.spooled:
            log.warning("--clusters reads masks twice; those of a pipe are copied to a temporary file")
        collected = by.Collected(store)
        for _ in job.watch(collected.collect(job.encode(masks.first(), backbone, crop, header)), "encoding masks"):
            pass
        rows = collected.rows(count)
        kmeans = KMeansOptions(count, "cosine", options.iterations, options.restarts, options.seed)
        centroids = fit(rows, kmeans, device=backbone.device)
        if options.save is not None:
            about = {**by.about(backbone.spec, crop), "pg": job.provenance(header, backbone.spec)}
            save_centroids(options.save, {by.NAME: centroids}, about)

        def labelled(done: frozenset[int]) -> Iterator[MaskSet]:
            for each in collected.again(masks.second(), done):
                yield by.with_clusters(each.masks, each.vectors, centroids)

        return labelled

    return Labelled(by.clustered_header(job.header(header, backbone), count), start)


def _check_save(job: LabelJob, options: ClustersOptions) -> None:
    from ovskit.core.runtime.output import check_output, same_file

    save = options.save
    if save is None:
        return
    if save == "-" or any(same_file(save, path) for path in (job.output, *job.inputs.paths)):
        raise UsageError("--save needs a file of its own, not the masks' or one that is read")
    check_output(save, binary=True)


METHOD = Method("clusters", "a category for each cluster of masks that look alike.", ClustersOptions, run)
