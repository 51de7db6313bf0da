"""``--method lightcluster``: the foreground of a set of images, by two clusters of patches at three levels (arXiv 2311.18628)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ovskit.core.cluster.job import Clustered, ClusterJob, left_of
from ovskit.core.cluster.methods.centroids import POINTS, FittingOptions, check_files, check_fitting, load, save
from ovskit.core.runtime.methods import Method
from ovskit.core.runtime.settings import option

Level = Literal["final", "image", "category", "dataset"]
Side = Literal["border", "share", "smaller"]
Sign = Literal["overlap", "share", "images"]


@dataclass(frozen=True, slots=True)
class LightOptions(FittingOptions):
    """Every value that the paper leaves open [choices]; docs/choices.md says what each does."""

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
        streams = job.stack.enter_context(FeatureInputs(job.paths))
        levels = Levels.of_named(load(options.source, streams.header.model, "lightcluster"), str(options.source))
        return Clustered(
            streams.header,
            lambda done: light_masks(
                margins_of(left_of(streams.records(), done), levels, options, clustering, failures, workers), level, options, workers
            ),
        )
    inputs = job.stack.enter_context(rereadable(job.paths))
    levels = fit_light(inputs.records(), options, clustering, job.watch, device)
    voted = Margined(inputs.records(), levels, options, clustering, failures, workers, job.watch)
    save(job, options.save, voted.levels.named(), inputs.header, "lightcluster")
    return Clustered(
        inputs.header, lambda done: light_masks((pair for pair in voted.margins() if pair[0].id not in done), level, options, workers)
    )


METHOD = Method("lightcluster", "foreground, by two clusters at three levels.", LightOptions, run, needs="CLS vectors: ovs-extract --cls")
