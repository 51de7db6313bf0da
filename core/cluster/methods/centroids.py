"""What the methods that cluster vectors share: centroids kept in a file for other images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovskit.core.cluster.job import ClusterJob
from ovskit.core.cluster.options import FittingOptions
from ovskit.core.runtime.declared import text_of
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.methods import GivenBy

if TYPE_CHECKING:
    from ovskit.core.formats.streams.features import FeatureHeader
    from ovskit.core.models.kmeans import Centroids


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
        if said is GivenBy.SET and name not in heard | flags:
            value = text_of(getattr(options, name))
            raise UsageError(f"--set {name}={value} has no effect with --from: the centroids are there already")


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
    from ovskit.core.formats.streams.centroids import check_feature_model, load_centroids

    about, named = load_centroids(str(path))
    check_feature_model(about, model, str(path))
    if about.get("method") != method:
        raise InputError(f"{path}: centroids of --method {about.get('method')}, not of {method}")
    return dict(named)
