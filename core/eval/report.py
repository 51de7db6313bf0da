"""Scores as rows of a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ovskit.core.eval.evaluation import Difference, Evaluation

Interval = tuple[float, float] | None

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


def to_json(scored: Sequence[Scored], truth: str, bootstrap: Bootstrap) -> dict[str, Any]:
    """The report as plain values: fractions in [0, 1], numbers as they are, None where undefined.

    One file's keys stand at the top, those of several in ``files``, with ``differences`` to the first.
    """
    options = scored[0].evaluation.options
    settings = {
        "ground_truth": truth,
        "metric": options.metric,
        "max": sorted(options.maxima),
        "by_category": options.by_category,
        "per_annotator": options.per_annotator,
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
    return {"files": [_file(item) for item in scored], "differences": differences, "settings": settings}


def _file(item: Scored) -> dict[str, Any]:
    evaluation = item.evaluation
    found: dict[str, Any] = {
        "path": item.path,
        "metrics": {name: _number(name, value) for name, value in item.metrics.items()},
        "images": len(evaluation.images),
        "unmatched": {"predictions": evaluation.counts.strangers, "ground_truth": evaluation.counts.unlisted},
        "matched_by_id": evaluation.counts.by_id,
        "masks": {"ground_truth": evaluation.truth_masks, "predictions": evaluation.predicted_masks},
    }
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
    counts = ["masks an image"]
    for item in scored:
        counts.append(f"{item.evaluation.predicted_masks / len(item.evaluation.images):.1f}")
        counts += [""] * (item.differences is not None)
    return columns, [*rows, counts]


def caption(scored: Sequence[Scored], bootstrap: Bootstrap) -> str:
    """What was scored, in one line."""
    evaluation = scored[0].evaluation
    text = f"{len(evaluation.images):,} images with {evaluation.truth_masks:,} masks in the ground truth; fractions in percent"
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
