"""The steps of the pipeline as functions: what the commands do, with streams instead of pipes.

Options are those of the commands, by their names with underscores; an unknown one, or a value out of range, raises UsageError. What cannot
be used raises the error that a command would end with (``core.runtime.errors``): there is no ``--on-error skip`` here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ovskit.core.formats.streams.features import FeatureHeader
from ovskit.core.formats.streams.masks import MasksHeader
from ovskit.core.python.streams import Features, Masks, Paths, as_features, as_masks, as_paths, files_of
from ovskit.core.records import EmbeddingBlock, FeatureMap, MaskSet
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.methods import ChosenMethod, GivenBy, Method
from ovskit.core.runtime.settings import fields_of
from ovskit.core.runtime.workers import default_workers


def extract_features(
    images: Paths, model: str = "builtin", *, root: str | Path | None = None, weights: Path | None = None, device: str = "auto",
    workers: int | None = None, **options: Any,
) -> Features:  # fmt: skip
    """Features of images (files, folders, globs, tars), as ``ovs-extract``.

    ``options`` are those of the command: ``facet``, ``layer``, ``size`` ((height, width), or None to keep it), ``cls``, ``pool`` …
    """
    from ovskit.core.extract import pipeline
    from ovskit.core.extract.options import ExtractOptions
    from ovskit.core.formats.photographs.sources import list_sources

    failures = Failures(skip=False)
    chosen = _options(ExtractOptions, {"model": model, **options})
    sources = list_sources(as_paths(images), root=None if root is None else str(root), failures=failures)
    backbone = pipeline.open_backbone(chosen, weights=weights, device=device)
    spec = backbone.spec
    frame = None if chosen.size is None else pipeline.frame_size(chosen.size, spec.stride, *chosen.size)
    header = FeatureHeader(spec.to_json(), frame, chosen.dtype, sources.root, chosen.pool, [])

    def records() -> Iterator[FeatureMap | EmbeddingBlock]:
        return pipeline.extract_features(sources.items, backbone, chosen, failures, workers=workers or default_workers())

    return Features(header, records)


def cluster_features(
    features: Features | Paths, method: str = "sohes", *, root: str | Path | None = None, device: str = "auto",
    workers: int | None = None, **options: Any,
) -> Masks:  # fmt: skip
    """Regions of every image, as ``ovs-cluster --method``; ``root`` is the photographs' folder, if the features do not say it."""
    from ovskit.core.cluster.job import ClusterJob
    from ovskit.core.cluster.methods import CLUSTER

    chosen = _chosen(CLUSTER.get(method), options)
    given = as_features(features)
    stack = ExitStack()
    paths = files_of(given, stack)
    where = None if root is None else str(root)
    job = ClusterJob(paths, paths, stack, Failures(skip=False), workers or default_workers(), device, where, given=chosen.given)
    found = chosen.method.run(job, chosen.options)
    header = MasksHeader("regions by ovskit", root=where or given.header.root, exif=given.header.exif)
    if found.categories is not None:
        header = replace(header, categories=found.categories)

    def records() -> Iterator[MaskSet]:
        with stack:
            yield from found.masks(frozenset())

    return Masks(header, records)


def refine_masks(
    masks: Masks | Paths, methods: str | Sequence[str] = ("snap", "guided"), *, root: str | Path | None = None, device: str = "auto",
    workers: int | None = None, settings: Mapping[str, Mapping[str, Any]] | None = None, **options: Any,
) -> Masks:  # fmt: skip
    """Masks whose boundaries follow their images, as ``ovs-refine``.

    ``settings`` are those of the methods, by method: ``{"guided": {"radius": 8}}``. ``options`` are ``min_iou``, ``max_area``,
    ``min_component`` and ``fill_holes``.
    """
    from ovskit.core.formats.photographs.photographs import Photographs, settled_exif
    from ovskit.core.refine.job import RefineJob
    from ovskit.core.refine.methods import REFINE
    from ovskit.core.refine.options import RefineOptions
    from ovskit.core.refine.refinement import Refinement

    names = [methods] if isinstance(methods, str) else list(methods)
    own = dict(settings or {})
    if strangers := own.keys() - {*names}:
        raise UsageError(f"settings of {', '.join(sorted(strangers))}: the methods are {', '.join(names)}")
    given = as_masks(masks)
    refinement = Refinement(
        [_chosen(REFINE.get(name), own.get(name, {})) for name in names], _options(RefineOptions, options), RefineJob(device)
    )
    where = _root_of(given, root)
    photographs = Photographs(where, max_pixels=10**9, exif=settled_exif(None, given.header.exif, "the masks"))
    header = replace(given.header, description="masks refined by ovskit", root=where)
    return Masks(header, lambda: _each(given, refinement.of(photographs), workers))


def grow_forest(masks: Masks | Paths, *, workers: int | None = None, **options: Any) -> Masks:
    """Masks with parents and levels, as ``ovs-hier``: ``cover``, ``inclusive``, ``deepest``."""
    from ovskit.core.hier import coverage_forest
    from ovskit.core.hier.options import ForestOptions

    given, chosen = as_masks(masks), _options(ForestOptions, options)

    def grow(found: MaskSet) -> MaskSet:
        return coverage_forest.grow_forest(found, chosen.cover, inclusive=chosen.inclusive, deepest=chosen.deepest)

    return Masks(replace(given.header, description="forest by ovskit"), lambda: _each(given, grow, workers))


def label_masks(
    masks: Paths, method: str, *, root: str | Path | None = None, model: str | None = None, weights: Path | None = None,
    device: str = "auto", workers: int | None = None, **options: Any,
) -> Masks:  # fmt: skip
    """Masks in files with categories, as ``ovs-label``.

    ``label_masks("masks.json", "clusters", clusters=20)``; ``label_masks(…, "names", names="voc-20", model="clip:ViT-B-16/openai")``;
    ``label_masks(…, "centroids", source="c.npz")``.
    """
    from ovskit.core.label.encoder import Encoder, EncoderOptions
    from ovskit.core.label.inputs import sort_inputs
    from ovskit.core.label.job import LabelJob
    from ovskit.core.label.methods import LABEL

    chosen = _chosen(LABEL.get(method), options)
    stack = ExitStack()
    job = LabelJob(
        sort_inputs(as_paths(masks)), stack, Failures(skip=False), Encoder(EncoderOptions(model=model), weights, device),
        workers or default_workers(), None if root is None else str(root),
    )  # fmt: skip
    found = chosen.method.run(job, chosen.options)

    def records() -> Iterator[MaskSet]:
        with stack:
            yield from found.masks()(frozenset())

    return Masks(found.header, records)


def evaluate_masks(masks: Masks | Paths, truth: str | Path, metric: str = "ar", **options: Any) -> dict[str, float | None]:
    """Scores against the ground truth in a file, as ``ovs-eval``: by name, fractions in [0, 1]; None where one is not defined."""
    from ovskit.core.eval.evaluation import evaluate as score
    from ovskit.core.eval.registry import EVAL

    given, method = as_masks(masks), EVAL.get(metric)
    chosen = method.run(_options(method.options, options))
    failures = Failures(skip=False)
    against = chosen.open_truth(str(truth), segments=None, partial=False, failures=failures)
    found = score(iter(given), against, chosen, what="the masks", header=given.header, failures=failures)
    return dict(found.metrics())


def _each(masks: Iterable[MaskSet], work: Any, workers: int | None) -> Iterator[MaskSet]:
    from ovskit.core.formats.streams.transform import transform_masks

    return transform_masks(iter(masks), work, Failures(skip=False), workers=workers or default_workers(), done=frozenset())


def _root_of(masks: Masks, root: str | Path | None) -> str:
    where = masks.header.root if root is None else str(root)
    if where is None:
        raise UsageError("the masks do not say where their images are: give root")
    return where


def _chosen(method: Method, options: Mapping[str, Any]) -> ChosenMethod:
    return ChosenMethod(method, _options(method.options, options), dict.fromkeys(options, GivenBy.FLAG))


def _options(kind: Any, options: Mapping[str, Any]) -> Any:
    known = [declared.name for declared in fields_of(kind)]
    for name in options:
        if name not in known:
            raise UsageError(f"{name} is not an option here: choose from {', '.join(known)}")
    return kind(**options)
