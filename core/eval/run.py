"""An evaluation from paths to scores, file by file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ovskit.core.eval.evaluation import Evaluation, evaluate
from ovskit.core.eval.request import EvalRequest
from ovskit.core.formats.paths import show_path
from ovskit.core.runtime.failures import Failures


@dataclass(frozen=True, slots=True)
class ScoredFile:
    """The scores of the predictions at ``path``; ``pg`` is the provenance that their file states."""

    path: str
    evaluation: Evaluation
    pg: Sequence[Mapping[str, Any]]


def run_evaluation(
    request: EvalRequest,
    *,
    workers: int | None = None,
    watch: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    warn: Callable[[str], None] = lambda line: None,
    failures: Failures | None = None,
) -> Iterator[ScoredFile]:
    """Open the ground truth, then score one file of predictions after the other, each when it is asked for.

    ``warn`` is called with every line that a person should know; ``watch``, ``workers`` and ``failures`` as for ``evaluate``. Raises
    UsageError, InputError and MissingInputError for what cannot be opened or compared.
    """
    partial = request.compared.images == "listed"
    truth = request.metric.open_truth(request.truth, segments=request.compared.segments, partial=partial, failures=failures)
    for line in request.metric.truth_warnings(truth):
        warn(line)

    def score(path: str) -> ScoredFile:
        what = "stdin" if path == "-" else show_path(path)
        with request.metric.open_predictions(path, what, truth, failures) as found:
            evaluation = evaluate(
                found.images,
                truth,
                request.metric,
                images=request.compared.images,
                what=what,
                header=found.header,
                workers=workers,
                watch=watch,
                failures=failures,
            )
            found.check()
        for line in evaluation.warnings:
            warn(line)
        return ScoredFile(path, evaluation, found.header.pg)

    return map(score, request.predictions)
