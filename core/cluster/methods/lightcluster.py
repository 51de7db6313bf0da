"""``--method lightcluster``: the foreground of a set of images, by two clusters of patches at three levels (arXiv 2311.18628)."""

from __future__ import annotations

from ovskit.core.cluster.job import Clustered, ClusterJob, left_of
from ovskit.core.cluster.methods.centroids import check_files, check_fitting, load, save
from ovskit.core.cluster.options import POINTS, LightOptions
from ovskit.core.runtime.methods import Method


def run(job: ClusterJob, options: LightOptions) -> Clustered:
    """The foreground as masks. Raises UsageError for options that do not go together."""
    from ovskit.core.cluster.light_levels import Levels
    from ovskit.core.cluster.light_stream import Margined, fit_light, light_masks, margins_of
    from ovskit.core.cluster.rereadable import rereadable
    from ovskit.core.cluster.streams import FeatureInputs
    from ovskit.core.runtime.device import choose_device

    check_files(job, options)
    device = choose_device(job.device)
    clustering = options.clustering(2, POINTS)
    failures, workers, level = job.failures, job.workers, options.emit
    if options.source is not None:
        # Seed, restarts and the like still speak of each image's own two clusters.
        check_fitting(
            job, options, {"side", "vote", "overlap", "min_patches", "connectivity", "fallback", "metric", "iterations", "restarts"}
        )
        streams = job.stack.enter_context(FeatureInputs(job.sources))
        levels = Levels.of_named(load(options.source, streams.header.model, "lightcluster"), str(options.source))
        return Clustered(
            streams.header,
            lambda done: light_masks(
                margins_of(left_of(streams.records(), done), levels, options, clustering, failures, workers), level, options, workers
            ),
        )
    inputs = job.stack.enter_context(rereadable(job.sources))
    levels = fit_light(inputs.records(), options, clustering, job.watch, device)
    voted = Margined(inputs.records(), levels, options, clustering, failures, workers, job.watch)
    save(job, options.save, voted.levels.named(), inputs.header, "lightcluster")
    return Clustered(
        inputs.header, lambda done: light_masks((pair for pair in voted.margins() if pair[0].id not in done), level, options, workers)
    )


METHOD = Method(
    "lightcluster",
    "Find the foreground of a set of images, by two clusters at three levels (LightCluster).",
    LightOptions,
    run,
    needs="CLS vectors: ovs-extract --cls",
)
