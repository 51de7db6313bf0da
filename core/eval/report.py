"""Scores as rows of a table and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ovskit.core.eval.evaluation import Difference, Evaluation
from ovskit.core.eval.metric import Row, Table
from ovskit.core.eval.request import Bootstrap, EvalRequest

Interval = tuple[float, float] | None

COUNTS = "masks an image"
"""The row of the table that is not one of the metric's."""


@dataclass(frozen=True, slots=True)
class FileScores:
    """One file of predictions: its ``path``, scores, and the difference to the first file (None for the first itself)."""

    path: str
    evaluation: Evaluation
    metrics: Mapping[str, float | None]
    intervals: Mapping[str, Interval] | None
    differences: Mapping[str, Difference] | None
    pg: Sequence[Mapping[str, Any]] = ()


def score_files(files: Sequence[tuple[str, Evaluation, Sequence[Mapping[str, Any]]]], bootstrap: Bootstrap) -> list[FileScores]:
    """Scores, intervals and differences of (path, evaluation, provenance) each.

    Raises InputError if two files are not scored on the same images.
    """
    n, seed, confidence = bootstrap.resamples, bootstrap.seed, bootstrap.confidence
    first = files[0][1]
    scored = []
    for k, (path, evaluation, pg) in enumerate(files):
        intervals = evaluation.intervals(n, seed, confidence) if n else None
        differences = evaluation.difference(first, n, seed, confidence) if k else None
        scored.append(FileScores(path, evaluation, evaluation.metrics(), intervals, differences, pg))
    return scored


def to_json(scored: Sequence[FileScores], request: EvalRequest) -> dict[str, Any]:
    """The report as plain values: fractions in [0, 1], numbers as they are, None where undefined.

    One file's keys stand at the top, those of several in ``files``, with ``differences`` to the first, and with ``seeds`` their mean
    and deviation.
    """
    first, bootstrap = scored[0].evaluation, request.bootstrap
    settings = {
        "ground_truth": request.truth,
        "metric": first.metric.name,
        **first.metric.settings(first.truth),
        "scored_images": request.compared.images,
        "bootstrap": bootstrap.resamples,
        "seed": bootstrap.seed,
        "confidence": bootstrap.confidence,
    }
    if len(scored) == 1:
        return {**_file(scored[0]), "settings": settings}
    differences = []
    for item in scored[1:]:
        assert item.differences is not None
        entry: dict[str, Any] = {"path": item.path, "minus": scored[0].path}
        entry["metrics"] = {row.name: row.plain(item.differences[row.name].value) for row in first.rows}
        if bootstrap.resamples:
            entry["intervals"] = {name: _pair(found.interval) for name, found in item.differences.items()}
        differences.append(entry)
    found: dict[str, Any] = {"files": [_file(item) for item in scored], "differences": differences, "settings": settings}
    if request.compared.seeds:
        both = of_seeds(scored)
        found["seeds"] = {name: None if pair is None else {"mean": pair[0], "std": pair[1]} for name, pair in both.items()}
    return found


def _file(item: FileScores) -> dict[str, Any]:
    evaluation = item.evaluation
    found: dict[str, Any] = {
        "path": item.path,
        "metrics": {row.name: row.plain(item.metrics[row.name]) for row in evaluation.rows},
        "images": len(evaluation.images),
        "unmatched": {"predictions": evaluation.counts.strangers, "ground_truth": evaluation.counts.unlisted},
        "matched_by_id": evaluation.counts.by_id,
    }
    if evaluation.metric.masks:
        found["masks"] = {"ground_truth": evaluation.truth_masks, "predictions": evaluation.predicted_masks}
    found |= evaluation.scores.to_json()
    if item.intervals is not None:
        found["intervals"] = {name: _pair(interval) for name, interval in item.intervals.items()}
    if item.pg:
        found["pg"] = [dict(entry) for entry in item.pg]
    return found


def per_image_json(evaluation: Evaluation, path: str) -> list[dict[str, Any]]:
    """One object an image, in order of id."""
    return [
        {"path": path, **line, "metrics": {row.name: row.plain(line["metrics"][row.name]) for row in evaluation.rows}}
        for line in evaluation.per_image()
    ]


def tables(scored: Sequence[FileScores], request: EvalRequest) -> list[Table]:
    """The metric's numbers, of ``seeds`` with their mean, and whatever tables it has besides."""
    metric = scored[0].evaluation.metric
    others = metric.tables([(item.evaluation.what, item.evaluation.scores) for item in scored])
    return [seed_table(scored) if request.compared.seeds else table(scored), *others]


def table(scored: Sequence[FileScores]) -> Table:
    """Column titles and rows of text: a row for each metric, a column for each file and each difference.

    Fractions are in percent. An undefined number is a dash.
    """
    columns = ["metric", scored[0].evaluation.what]
    for item in scored[1:]:
        columns += [item.evaluation.what, "difference"]
    rows = []
    for one in scored[0].evaluation.rows:
        row = [one.title or one.name]
        for item in scored:
            row.append(_cell(one, item.metrics[one.name], None if item.intervals is None else item.intervals[one.name]))
            if item.differences is not None:
                found = item.differences[one.name]
                row.append(_cell(one, found.value, found.interval, sign="+"))
        rows.append(row)
    if not scored[0].evaluation.metric.masks:
        return columns, rows
    counts = [COUNTS]
    for item in scored:
        counts.append(f"{item.evaluation.predicted_masks / len(item.evaluation.images):.1f}")
        counts += [""] * (item.differences is not None)
    return columns, [*rows, counts]


def of_seeds(scored: Sequence[FileScores]) -> dict[str, tuple[float, float] | None]:
    """Every metric's mean and standard deviation (of a sample) over files that differ in the seed alone; None where one is undefined."""
    found: dict[str, tuple[float, float] | None] = {}
    for name in scored[0].metrics:
        values = [value for item in scored if (value := item.metrics[name]) is not None]
        found[name] = (statistics.fmean(values), statistics.stdev(values)) if len(values) == len(scored) > 1 else None
    return found


def seed_table(scored: Sequence[FileScores]) -> Table:
    """Columns and rows of text: mean and standard deviation over the files, and each file."""
    columns = ["metric", f"mean ± std of {len(scored)}", *(item.evaluation.what for item in scored)]
    rows, both = [], of_seeds(scored)
    for one in scored[0].evaluation.rows:
        found = both[one.name]
        text = "–" if found is None else f"{one.text(found[0])} ± {one.text(found[1])}"
        cells = [_cell(one, item.metrics[one.name], None if item.intervals is None else item.intervals[one.name]) for item in scored]
        rows.append([one.title or one.name, text, *cells])
    return columns, rows


def caption(scored: Sequence[FileScores], bootstrap: Bootstrap) -> str:
    """What was scored, in one line."""
    evaluation = scored[0].evaluation
    contents = evaluation.metric.contents(evaluation.scores, evaluation.truth_masks)
    text = f"{len(evaluation.images):,} images with {contents}; fractions in percent"
    text += "".join(f"; {remark}" for remark in evaluation.metric.remarks(evaluation.truth, evaluation.scores))
    if bootstrap.resamples:
        text += f"; [{100 * bootstrap.confidence:g} % interval of {bootstrap.resamples:,} resamples of the images]"
    return text


def _cell(row: Row, value: float | None, interval: Interval, sign: str = "") -> str:
    text = row.text(value, sign)
    return text if interval is None else f"{text} [{row.text(interval[0], sign)}, {row.text(interval[1], sign)}]"


def _pair(interval: Interval) -> list[float] | None:
    return None if interval is None else list(interval)
