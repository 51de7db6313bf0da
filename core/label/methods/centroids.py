"""``--from CENTROIDS.npz``: the clusters that an earlier run of ``--clusters`` saved, in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ovskit.core.label.job import LabelJob, Labelled, Records
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.methods import Method
from ovskit.core.runtime.settings import REQUIRED, Options, option

if TYPE_CHECKING:
    from ovskit.core.records import MaskSet


class CentroidsOptions(Options):
    """The centroids to use."""

    centroids: str = option(
        REQUIRED, "Use the clusters that --save wrote; one pass is enough.", flag="--from", metavar="CENTROIDS.npz", environment="never"
    )


def run(job: LabelJob, options: CentroidsOptions) -> Labelled:
    """Every mask with the number of the nearest centroid. Raises UsageError and InputError where the centroids are not of these crops or
    not of this model, and what reading masks and the model raises."""
    from ovskit.core.formats.paths import show_path
    from ovskit.core.formats.streams.centroids import load_centroids
    from ovskit.core.formats.streams.mask_inputs import MaskInputs
    from ovskit.core.label import clusters as by
    from ovskit.core.runtime.output import same_file

    path, asked = options.centroids, job.encoder.options
    if same_file(job.output, path):
        raise UsageError(f"-o {job.output} is the file of --from: masks would take its place; name another file")
    if path == "-" and "-" in job.inputs.masks:
        raise UsageError("stdin (-) can be read once only: name a file for --from, or for the masks")
    what = show_path(path)
    said, found = load_centroids(path)
    crop, _ = by.crop_of(said, what), by.spec_of(said, what)
    if list(found) != [by.NAME]:
        raise InputError(f"{what}: the file has no centroids of masks")
    by.check_same_crops(crop, size=asked.size, context=asked.context, masked=asked.mask_crop, what=what)
    masks = job.stack.enter_context(MaskInputs(job.inputs.masks, job.failures))
    header = masks.header
    job.root_of(header)  # before weights are looked for
    if job.inputs.features is not None:
        by.check_same_encoder(said, job.inputs.features.model, what)
    backbone = job.encoder.open(said.get("model"))
    by.check_same_encoder(said, backbone.spec.to_json(), what)
    centroids = found[by.NAME]

    def start() -> Records:
        def labelled(done: frozenset[int]) -> Iterator[MaskSet]:
            for each in job.encode(masks.sets(), backbone, crop, header, done):
                yield by.with_clusters(each.masks, each.vectors, centroids)

        return labelled

    return Labelled(by.clustered_header(job.header(header, backbone), len(centroids.rows)), start)


METHOD = Method("centroids", "the clusters that an earlier run saved.", CentroidsOptions, run)
