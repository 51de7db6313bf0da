"""The methods of ``ovs-cluster`` that cluster vectors: k-means and LightCluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ovskit.cli.command import log
from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    from ovskit.core.cluster.lightcluster import Level
    from ovskit.core.cluster.repeated import RepeatedInputs
    from ovskit.core.cluster.streams import FeatureInputs, RootedFeatures
    from ovskit.core.formats.streams.features import FeatureHeader
    from ovskit.core.formats.streams.numpy_features import NumpyFeatures
    from ovskit.core.models.kmeans import Centroids
    from ovskit.core.records import MaskSet
    from ovskit.core.runtime.failures import Failures

# Flags that say something to --method sohes alone.
_OF_SOHES = "thresholds counts nms min_patches connectivity local score small local_size min_local context min_crop share weights".split()
_OF_CROPS = frozenset("small local_size min_local context min_crop share weights".split())
_OF_OTHERS = "clusters scope batch components emit save source seed setting".split()


@dataclass(frozen=True, slots=True)
class Found:
    """What a method makes: masks of the images that are not ``done`` yet, in order, and the categories that they have."""

    header: FeatureHeader
    masks: Callable[[frozenset[int]], Iterator[MaskSet]]
    categories: tuple[dict[str, Any], ...] | None = None


def check_flags(ctx: typer.Context, method: str) -> None:
    """Raises UsageError for a flag that says nothing to ``method``."""
    strangers = _OF_OTHERS if method == "sohes" else _OF_SOHES
    if method == "lightcluster":
        strangers = [*strangers, "clusters", "scope", "batch", "components"]
    if method == "kmeans":
        strangers = [*strangers, "emit"]
    for parameter in ctx.command.params:
        if parameter.name in strangers and _by_hand(ctx, parameter.name):
            name = "/".join([max(parameter.opts, key=len), *parameter.secondary_opts])
            raise UsageError(f"{name} says nothing to --method {method}; see ovs-cluster --help")


def check_local(ctx: typer.Context, local: bool) -> None:
    """What is only about crops says nothing without them, which -v tells: the model may have decided so.

    Raises UsageError where --counts stand in the place of --thresholds, which go before them in the environment or on the
    command line.
    """
    if local:
        return
    strength = {"COMMANDLINE": 3, "ENVIRONMENT": 2, "DEFAULT_MAP": 1}
    rank = {name: strength.get(getattr(ctx.get_parameter_source(name), "name", ""), 0) for name in ("thresholds", "counts")}
    if ctx.params["counts"] is not None and ctx.params["thresholds"] is not None and rank["thresholds"] >= rank["counts"]:
        raise UsageError("--counts stand in the place of --thresholds, which without --local say nothing: leave one of them out")
    for parameter in ctx.command.params:
        if parameter.name in _OF_CROPS and _by_hand(ctx, parameter.name):
            log.info("%s says nothing here: it is about crops of small regions, which need --local", max(parameter.opts, key=len))


def check_files(inputs: Sequence[str], output: str, *, save: Path | None, source: Path | None) -> None:
    """Raises UsageError where a file is to be written over another, or stdin to be read twice."""
    from ovskit.core.runtime.output import check_output, same_file

    if inputs.count("-") + (str(source) == "-") > 1:
        raise UsageError("stdin (-) can be read once only; name it once")
    if save is not None:
        if source is not None:
            raise UsageError("--from takes centroids as they are, so there are none to --save: leave one of them out")
        if str(save) == "-" or any(same_file(str(save), path) for path in (output, *inputs)):
            raise UsageError("--save needs a file of its own, other than the masks' and what is read")
        check_output(str(save), binary=True)
    if source is not None and same_file(output, str(source)):
        raise UsageError(f"-o {output} is the file of --from: masks would take its place; name another file")


def find_kmeans(
    ctx: typer.Context, stack: ExitStack, paths: Sequence[str | NumpyFeatures], failures: Failures, workers: int, watch: Callable[..., Any]
) -> Found:
    """Clusters of each image, of lots of images, or of all of them. Raises UsageError for options that do not go together."""
    from ovskit.core.cluster.kmeans_masks import ShapeOptions, cluster_by, cluster_each, cluster_together, fit_dataset
    from ovskit.core.cluster.repeated import repeatable
    from ovskit.core.cluster.streams import FeatureInputs
    from ovskit.core.runtime.device import choose_device

    given = ctx.params
    device = choose_device(given["device"])
    scope, save, source = str(given["scope"]), given["save"], given["source"]
    points = 0 if scope == "image" else _POINTS  # an image's own clusters are fitted on all its patches
    clustering, shape = _settings(
        given, ShapeOptions, k=given["clusters"], points=points, components=given["components"] or None, soft=given["soft"]
    )
    if (save is not None or source is not None) and scope != "dataset":
        raise UsageError(f"--save and --from keep centroids of all images: they need --scope dataset, not {scope}")
    if source is not None:
        _check_heard(given, {field.name for field in fields(ShapeOptions)})
        if _by_hand(ctx, "seed"):
            raise UsageError("--seed says nothing with --from: the centroids are there already")
    streams: FeatureInputs | RepeatedInputs
    if scope != "dataset" or source is not None:
        streams = stack.enter_context(FeatureInputs(paths))
        if scope == "image":
            return Found(
                streams.header, lambda done: cluster_each(_left(streams.records(), done), clustering, shape, failures, workers, device)
            )
        if scope == "batch":
            lots = cluster_together(streams.records(), given["batch"], clustering, shape, failures, workers, device)
            return Found(streams.header, lambda done: (masks for masks in lots if masks.image.id not in done))
        centroids = _load(source, streams.header.model, "kmeans")["dataset"]
        if _by_hand(ctx, "clusters") and len(centroids.rows) != given["clusters"]:
            raise UsageError(f"-k {given['clusters']}: {source} has {len(centroids.rows)} clusters; leave -k out")
    else:
        streams = stack.enter_context(repeatable(paths))
        centroids = fit_dataset(watch(streams.records(), "sampling"), clustering, device)
        _save(ctx, save, {"dataset": centroids}, streams.header, "kmeans")
    names = tuple({"id": k + 1, "name": f"cluster {k + 1}"} for k in range(len(centroids.rows)))
    return Found(
        streams.header, lambda done: cluster_by(_left(streams.records(), done), centroids, shape, failures, workers, device), names
    )


def find_light(
    ctx: typer.Context, stack: ExitStack, paths: Sequence[str | NumpyFeatures], failures: Failures, workers: int, watch: Callable[..., Any]
) -> Found:
    """LightCluster's foreground. Raises UsageError for options that do not go together."""
    from ovskit.core.cluster.light_levels import Levels
    from ovskit.core.cluster.light_stream import Margined, fit_light, light_masks, margins_of
    from ovskit.core.cluster.lightcluster import LightOptions
    from ovskit.core.cluster.repeated import repeatable
    from ovskit.core.cluster.streams import FeatureInputs
    from ovskit.core.runtime.device import choose_device

    given = ctx.params
    device = choose_device(given["device"])
    clustering, options = _settings(given, LightOptions, k=2, points=_POINTS, soft=given["soft"])
    level: Level = str(given["emit"])  # type: ignore[assignment]
    if given["source"] is not None:
        # Seed, restarts and the like still speak of each image's own two clusters.
        own = {field.name for field in (*fields(LightOptions), *fields(type(clustering)))}
        _check_heard(given, own - {"superclasses", "sign", "max_points"})
        streams = stack.enter_context(FeatureInputs(paths))
        levels = Levels.of_named(_load(given["source"], streams.header.model, "lightcluster"), str(given["source"]))
        return Found(
            streams.header,
            lambda done: light_masks(
                margins_of(_left(streams.records(), done), levels, options, clustering, failures, workers), level, options, workers
            ),
        )
    inputs = stack.enter_context(repeatable(paths))
    levels = fit_light(inputs.records(), options, clustering, watch, device)
    voted = Margined(inputs.records(), levels, options, clustering, failures, workers, watch)
    _save(ctx, given["save"], voted.levels.named(), inputs.header, "lightcluster")
    return Found(
        inputs.header,
        lambda done: light_masks((pair for pair in voted.margins() if pair[0].id not in done), level, options, workers),
    )


def _check_heard(given: dict[str, Any], heard: set[str]) -> None:
    """Raises UsageError for a ``--set`` of another name than ``heard``, where centroids come from a file."""
    for text in given["setting"] or []:
        if text.partition("=")[0].strip() not in heard:
            raise UsageError(f"--set {text} says nothing with --from: the centroids are there already")


def _by_hand(ctx: typer.Context, name: str) -> bool:
    """Whether a flag is on the command line: what the environment or a settings file says is meant for whichever method it fits."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _settings(given: dict[str, Any], kind: Any, *, k: int, points: int, **flags: Any) -> tuple[Any, Any]:
    """Options of the clustering, on at most ``points`` patches, and of what is made of it: flags, and what ``--set`` says of either."""
    from ovskit.cli.method_settings import parse_fields, settings_of
    from ovskit.core.models.kmeans import KMeansOptions

    found = parse_fields(given["setting"] or [], kind, KMeansOptions, without=("k", "seed", "soft"))
    own = settings_of(KMeansOptions)
    clustering = {name: value for name, value in found.items() if name in own}
    others = {name: value for name, value in found.items() if name not in own}
    return (
        KMeansOptions(**{"k": k, "seed": given["seed"], "max_points": points, **clustering}),
        kind(**{**others, **{name: value for name, value in flags.items() if value is not None}}),
    )


_POINTS = 65_536  # patches of all images that centroids are fitted on [choice]


def _left(records: Iterable[RootedFeatures], done: frozenset[int]) -> Iterator[RootedFeatures]:
    return (record for record in records if record.features.image.id not in done)


def _save(ctx: typer.Context, path: Path | None, named: dict[str, Centroids], header: FeatureHeader, method: str) -> None:
    from ovskit.cli.command import provenance
    from ovskit.core.formats.streams.centroids import save_centroids
    from ovskit.core.runtime.output import open_output

    if path is None:
        return
    about = {"method": method, "model": header.model, "pg": provenance(ctx, header.pg)}
    with open_output(str(path)) as out:
        save_centroids(out, named, about)


def _load(path: Path, model: Any, method: str) -> dict[str, Centroids]:
    from ovskit.core.formats.streams.centroids import check_same_model, load_centroids
    from ovskit.core.runtime.errors import InputError

    about, named = load_centroids(str(path))
    check_same_model(about, model, str(path))
    if about.get("method") != method:
        raise InputError(f"{path}: centroids of --method {about.get('method')}, not of {method}")
    return dict(named)
