"""``--method kmeans``: clusters of patches, of each image (S-Seg's pseudo-masks), of a few images, or of all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ovskit.core.cluster.job import Clustered, ClusterJob, left_of
from ovskit.core.cluster.methods.centroids import check_files, check_fitting, load, save
from ovskit.core.cluster.options import POINTS, FittingOptions
from ovskit.core.runtime.declared import Effect
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.methods import GivenBy, Method
from ovskit.core.runtime.settings import option

if TYPE_CHECKING:
    from ovskit.core.cluster.rereadable import RereadableFeatures
    from ovskit.core.cluster.streams import FeatureInputs


class KMeansMaskOptions(FittingOptions):
    """Every value of the method; S-Seg gives ``clusters``, the others are choices."""

    clusters: int = option(8, "Number of clusters.", flag=True, short="-k", low=1, metavar="K", source="S-Seg", environment="by command")
    scope: Literal["image", "batch", "dataset"] = option(
        "image",
        "Cluster the patches of each image, of --batch images at a time, or of all images; then a cluster is a category.",
        flag=True,
    )
    batch: int = option(
        64, "Number of images that --scope batch clusters together.", flag=True, low=1, environment="by command",
        effect=Effect(
            lambda g: g["method"] != "kmeans" or g["scope"] == "batch",
            "is the number of images that --scope batch clusters together: add it, or leave the number out",
        ),
    )  # fmt: skip
    components: bool = option(False, "Write one mask for each connected piece of a cluster.", flag=True)
    min_patches: int = option(1, "Smallest mask, in patches.", low=0)
    connectivity: Literal[4, 8] = option(8, "Neighbours of a patch for --components: 4 at its sides, or 8 with those at its corners.")


def run(job: ClusterJob, options: KMeansMaskOptions) -> Clustered:
    """Clusters as masks. Raises UsageError for options that do not go together."""
    from ovskit.core.cluster.kmeans_masks import ShapeOptions, cluster_by, cluster_each, cluster_together, fit_dataset
    from ovskit.core.cluster.rereadable import rereadable
    from ovskit.core.cluster.streams import FeatureInputs
    from ovskit.core.runtime.device import choose_device

    check_files(job, options)
    device = choose_device(job.device)
    # An image's own clusters are fitted on all its patches.
    clustering = options.clustering(options.clusters, 0 if options.scope == "image" else POINTS)
    shape = ShapeOptions(options.components, options.min_patches, options.connectivity, options.soft)
    if (options.save is not None or options.source is not None) and options.scope != "dataset":
        raise UsageError(f"--save and --from keep centroids of all images: they need --scope dataset, not {options.scope}")
    failures, workers = job.failures, job.workers
    streams: FeatureInputs | RereadableFeatures
    if options.scope != "dataset":
        streams = job.stack.enter_context(FeatureInputs(job.sources))
        if options.scope == "image":
            return Clustered(
                streams.header, lambda done: cluster_each(left_of(streams.records(), done), clustering, shape, failures, workers, device)
            )
        batches = cluster_together(streams.records(), options.batch, clustering, shape, failures, workers, device)
        return Clustered(streams.header, lambda done: (masks for masks in batches if masks.image.id not in done))
    if options.source is not None:
        _check_given(job, options)
        streams = job.stack.enter_context(FeatureInputs(job.sources))
        centroids = load(options.source, streams.header.model, "kmeans")["dataset"]
        if job.given.get("clusters") is GivenBy.FLAG and len(centroids.rows) != options.clusters:
            raise UsageError(f"-k {options.clusters}: {options.source} has {len(centroids.rows)} clusters; leave -k out")
    else:
        streams = job.stack.enter_context(rereadable(job.sources))
        centroids = fit_dataset(job.watch(streams.records(), "sampling"), clustering, device)
        save(job, options.save, {"dataset": centroids}, streams.header, "kmeans")
    names = tuple({"id": k + 1, "name": f"cluster {k + 1}"} for k in range(len(centroids.rows)))
    return Clustered(
        streams.header, lambda done: cluster_by(left_of(streams.records(), done), centroids, shape, failures, workers, device), names
    )


def _check_given(job: ClusterJob, options: KMeansMaskOptions) -> None:
    check_fitting(job, options, {"min_patches", "connectivity"})
    if job.given.get("seed") is GivenBy.FLAG:
        raise UsageError("--seed has no effect with --from: the centroids are there already")


METHOD = Method("kmeans", "Cluster patches by k-means, as S-Seg does for its pseudo-masks.", KMeansMaskOptions, run)
