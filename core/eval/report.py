"""Scores as rows of a table and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ovskit.core.eval.evaluation import Difference, Evaluation
from ovskit.core.formats.labels.spaces import LabelSpace
from ovskit.core.formats.paths import show_path

Interval = tuple[float, float] | None

COUNTS = "masks an image"
"""The row of the table that is no metric."""

# Metrics that are whole numbers, and those that are numbers of something; all others are fractions.
_WHOLE = frozenset(("predicted_pairs", "true_pairs", "found_pairs", "all_true_pairs", "max_depth", "max_size"))
_NUMBERS = frozenset(("trees", "mean_depth", "mean_size"))
_LABELS = {
    "precision": "precision of ancestor pairs",
    "recall": "recall of ancestor pairs",
    "f1": "F1 of ancestor pairs",
    "recall_all": "recall, masks not found count",
    "predicted_pairs": "pairs predicted",
    "true_pairs": "pairs to find",
    "found_pairs": "pairs found",
    "all_true_pairs": "pairs in all",
    "with_parent": "masks with a parent",
    "trees": "trees an image",
    "mean_depth": "mean levels of a tree",
    "max_depth": "most levels of a tree",
    "mean_size": "mean masks of a tree",
    "max_size": "most masks of a tree",
    "mIoU": "mIoU, the ground truth's classes",
    "mIoU_strict": "mIoU, predicted classes count too",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy of classes",
    "fwIoU": "IoU weighted by frequency",
}


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are made: ``n`` resamples (0: none), ``seed``, and the share ``confidence`` within an interval."""

    n: int = 0
    seed: int = 0
    confidence: float = 0.95


@dataclass(frozen=True, slots=True)
class Scored:
    """One file of predictions: its ``path``, scores, and the difference to the first file (None for the first itself)."""

    path: str
    evaluation: Evaluation
    metrics: Mapping[str, float | None]
    intervals: Mapping[str, Interval] | None
    differences: Mapping[str, Difference] | None
    pg: Sequence[Mapping[str, Any]] = ()


def score_files(files: Sequence[tuple[str, Evaluation, Sequence[Mapping[str, Any]]]], bootstrap: Bootstrap) -> list[Scored]:
    """Scores, intervals and differences of (path, evaluation, provenance) each.

    Raises InputError if two files are not scored on the same images.
    """
    n, seed, confidence = bootstrap.n, bootstrap.seed, bootstrap.confidence
    first = files[0][1]
    scored = []
    for k, (path, evaluation, pg) in enumerate(files):
        intervals = evaluation.intervals(n, seed, confidence) if n else None
        differences = evaluation.difference(first, n, seed, confidence) if k else None
        scored.append(Scored(path, evaluation, evaluation.metrics(), intervals, differences, pg))
    return scored


def to_json(
    scored: Sequence[Scored], truth: str, bootstrap: Bootstrap, *, space: LabelSpace | None = None, seeds: bool = False
) -> dict[str, Any]:
    """The report as plain values: fractions in [0, 1], numbers as they are, None where undefined.

    One file's keys stand at the top, those of several in ``files``, with ``differences`` to the first, and with ``seeds`` their mean
    and deviation. ``space`` is that of semantic scores.
    """
    options = scored[0].evaluation.options
    semantic = options.semantic
    of_metric: dict[str, Any] = {
        "max": sorted(options.maxima),
        "by_category": options.by_category,
        "per_annotator": options.per_annotator,
    }
    detection = scored[0].evaluation.detection
    if detection is not None and detection.federated:
        of_metric["federated"] = True
    if options.metric == "miou":
        of_metric = {"match": semantic.match, "background": "joint" if semantic.joint else "fixed"}
        of_metric |= {"fitted_on_scored_images": semantic.match != "ids"}
        of_metric |= {"label_space": None if space is None else {"name": space.name, "version": space.version, "hash": space.hash}}
    settings = {
        "ground_truth": truth,
        "metric": options.metric,
        **of_metric,
        "scored_images": options.images,
        "bootstrap": bootstrap.n,
        "seed": bootstrap.seed,
        "confidence": bootstrap.confidence,
    }
    if len(scored) == 1:
        return {**_file(scored[0]), "settings": settings}
    differences = []
    for item in scored[1:]:
        assert item.differences is not None
        entry: dict[str, Any] = {"path": item.path, "minus": scored[0].path}
        entry["metrics"] = {name: _number(name, found.value) for name, found in item.differences.items()}
        if bootstrap.n:
            entry["intervals"] = {name: _pair(found.interval) for name, found in item.differences.items()}
        differences.append(entry)
    found: dict[str, Any] = {"files": [_file(item) for item in scored], "differences": differences, "settings": settings}
    if seeds:
        both = of_seeds(scored)
        found["seeds"] = {name: None if pair is None else {"mean": pair[0], "std": pair[1]} for name, pair in both.items()}
    return found


def _file(item: Scored) -> dict[str, Any]:
    evaluation = item.evaluation
    found: dict[str, Any] = {
        "path": item.path,
        "metrics": {name: _number(name, value) for name, value in item.metrics.items()},
        "images": len(evaluation.images),
        "unmatched": {"predictions": evaluation.counts.strangers, "ground_truth": evaluation.counts.unlisted},
        "matched_by_id": evaluation.counts.by_id,
    }
    if evaluation.semantic is None:
        found["masks"] = {"ground_truth": evaluation.truth_masks, "predictions": evaluation.predicted_masks}
    else:
        found["classes"] = [{**asdict(one), "iou": one.iou} for one in evaluation.semantic.by_class()]
        found["clusters_left_over"] = [{"id": k, "pixels": n} for k, n in evaluation.semantic.leftovers().items()]
    if item.intervals is not None:
        found["intervals"] = {name: _pair(interval) for name, interval in item.intervals.items()}
    if item.pg:
        found["pg"] = [dict(entry) for entry in item.pg]
    return found


def per_image_json(evaluation: Evaluation, path: str) -> list[dict[str, Any]]:
    """One object an image, in order of id."""
    return [
        {"path": path, **line, "metrics": {name: _number(name, value) for name, value in line["metrics"].items()}}
        for line in evaluation.per_image()
    ]


def table(scored: Sequence[Scored]) -> tuple[list[str], list[list[str]]]:
    """Column titles and rows of text: a row for each metric, a column for each file and each difference.

    Fractions are in percent. An undefined number is a dash.
    """
    columns = ["metric", scored[0].evaluation.what]
    for item in scored[1:]:
        columns += [item.evaluation.what, "difference"]
    rows = []
    for name in scored[0].metrics:
        row = [_LABELS.get(name, name)]
        for item in scored:
            row.append(_cell(name, item.metrics[name], None if item.intervals is None else item.intervals[name]))
            if item.differences is not None:
                found = item.differences[name]
                row.append(_cell(name, found.value, found.interval, sign="+"))
        rows.append(row)
    if scored[0].evaluation.semantic is not None:
        return columns, rows
    counts = [COUNTS]
    for item in scored:
        counts.append(f"{item.evaluation.predicted_masks / len(item.evaluation.images):.1f}")
        counts += [""] * (item.differences is not None)
    return columns, [*rows, counts]


def class_table(scored: Sequence[Scored]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of text of semantic scores: a row for each class, its share of the pixels, and its IoU in each file.

    Where clusters were matched, which one; classes that no file has anything of are left out.
    """
    files = [item.evaluation.semantic.by_class() for item in scored if item.evaluation.semantic is not None]
    matched = scored[0].evaluation.options.semantic.match != "ids"
    columns = ["class", "id", "% of pixels"]
    for item in scored:
        columns += [f"IoU of {item.evaluation.what}" if len(scored) > 1 else "IoU", *(["cluster"] if matched else [])]
    total = max(1, sum(one.truth for one in files[0]))
    rows = []
    for same in zip(*files, strict=True):
        if all(one.iou is None for one in same):
            continue
        row = [show_path(same[0].name), str(same[0].id), f"{100 * same[0].truth / total:.2f}"]
        for one in same:
            row.append(_show("", one.iou, ""))
            if matched:
                row.append("–" if one.cluster is None else "no label" if one.cluster < 0 else str(one.cluster))
        rows.append(row)
    return columns, rows


def of_seeds(scored: Sequence[Scored]) -> dict[str, tuple[float, float] | None]:
    """Every metric's mean and standard deviation (of a sample) over files that differ in the seed alone; None where one is undefined."""
    found: dict[str, tuple[float, float] | None] = {}
    for name in scored[0].metrics:
        values = [value for item in scored if (value := item.metrics[name]) is not None]
        found[name] = (statistics.fmean(values), statistics.stdev(values)) if len(values) == len(scored) > 1 else None
    return found


def seed_table(scored: Sequence[Scored]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of text: mean and standard deviation over the files, and each file."""
    columns = ["metric", f"mean ± std of {len(scored)}", *(item.evaluation.what for item in scored)]
    rows = []
    for name, found in of_seeds(scored).items():
        both = "–" if found is None else f"{_show(name, found[0], '')} ± {_show(name, found[1], '')}"
        cells = [_cell(name, item.metrics[name], None if item.intervals is None else item.intervals[name]) for item in scored]
        rows.append([_LABELS.get(name, name), both, *cells])
    return columns, rows


def caption(scored: Sequence[Scored], bootstrap: Bootstrap, space: LabelSpace | None = None) -> str:
    """What was scored, in one line."""
    evaluation = scored[0].evaluation
    text = f"{len(evaluation.images):,} images with {evaluation.truth_masks:,} masks in the ground truth; fractions in percent"
    if evaluation.semantic is not None:
        classes = evaluation.semantic.by_class()
        text = f"{len(evaluation.images):,} images with {sum(c.truth for c in classes):,} pixels that count; fractions in percent"
        if space is not None:
            text += f"; label space {space.name} version {space.version}, {space.short_hash}"
        if evaluation.options.semantic.match != "ids":
            how = {"counts": "common pixels", "iou": "IoU"}[evaluation.options.semantic.match]
            text += f"; clusters got their classes on these very images, by {how}: a ceiling"
    if evaluation.detection is not None and evaluation.detection.federated:
        text += "; LVIS' rule for categories that an image was not searched for"
    if bootstrap.n:
        text += f"; [{100 * bootstrap.confidence:g} % interval of {bootstrap.n:,} resamples of the images]"
    return text


def _cell(name: str, value: float | None, interval: Interval, sign: str = "") -> str:
    text = _show(name, value, sign)
    return text if interval is None else f"{text} [{_show(name, interval[0], sign)}, {_show(name, interval[1], sign)}]"


def _show(name: str, value: float | None, sign: str) -> str:
    if value is None:
        return "–"
    if name in _WHOLE:
        return f"{value:{sign}z,.0f}"
    return f"{value if name in _NUMBERS else 100 * value:{sign}z.2f}"


def _number(name: str, value: float | None) -> float | int | None:
    return int(value) if value is not None and name in _WHOLE else value


def _pair(interval: Interval) -> list[float] | None:
    return None if interval is None else list(interval)
