"""A metric that the package does not know, from files to table, JSON and intervals; and the registry of those that it knows."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovskit.core.eval.metric import Metric, Row, Scores
from ovskit.core.eval.registry import EVAL, make_metric
from ovskit.core.eval.report import caption, per_image_json, score_files, tables, to_json
from ovskit.core.eval.request import Bootstrap, Compared, EvalRequest
from ovskit.core.eval.run import run_evaluation
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
from ovskit.core.records import MaskSet
from ovskit.core.runtime.errors import InputError, UsageError

from .scenes import scene


@dataclass(frozen=True)
class MeanMasksOptions:
    """Masks below ``smallest`` pixels do not count."""

    smallest: int = 0


class MeanMasksScores(Scores):
    rows = (Row("mean_masks", "masks found", "number"), Row("most_masks", kind="whole", resampled=False))

    def __init__(self, smallest: int) -> None:
        self._smallest = smallest
        self._counts: dict[int, int] = {}

    def work(self, truth: MaskSet, predictions: MaskSet) -> int:
        return sum(mask.area >= self._smallest for mask in predictions.masks)

    def add(self, position: int, result: int) -> None:
        self._counts[position] = result

    def check(self, truth: str, predictions: str) -> None:
        if not any(self._counts.values()):
            raise InputError(f"{predictions}: not one mask")

    def warnings(self, predictions: str) -> list[str]:
        return [f"{predictions}: counted"]

    def values(self, weights: np.ndarray) -> np.ndarray:
        counts = np.array([self._counts.get(k, 0) for k in range(len(weights))], float)
        return np.array([counts @ weights / weights.sum(axis=0), (counts[:, None] * (weights > 0)).max(axis=0)])

    def values_by_image(self, images: int) -> np.ndarray:
        counts = np.array([self._counts.get(k, np.nan) for k in range(images)])
        return np.array([counts, counts])


class MeanMasks(Metric):
    name = "mean-masks"
    Options = MeanMasksOptions

    def __init__(self, options: MeanMasksOptions) -> None:
        self._options = options

    @property
    def options(self) -> MeanMasksOptions:
        return self._options

    def check(self, predictions: Sequence[str]) -> None:
        if self._options.smallest < 0:
            raise UsageError("--smallest: 0 or more")

    def scores(self, truth: Any, header: MasksHeader, what: str) -> MeanMasksScores:
        return MeanMasksScores(self._options.smallest)

    def settings(self, truth: Any) -> dict[str, Any]:
        return {"smallest": self._options.smallest}

    def remarks(self, truth: Any, scores: Any) -> Sequence[str]:
        return [f"from {self._options.smallest} pixels on"]


def write(path: Path, sets: Sequence[MaskSet]) -> str:
    with path.open("wb") as file:
        writer = MasksWriter(file, MasksHeader())
        for masks in sets:
            writer.write(masks)
        writer.finish()
    return str(path)


def test_a_metric_of_ones_own(tmp_path: Path) -> None:
    data, smallest, n = scene(60, images=9), 1000, 40
    few = [MaskSet(s.image, s.masks[: len(s.masks) // 2]) for s in data.predictions]
    truth = write(tmp_path / "truth.json", data.truth)
    paths = [write(tmp_path / "many.json", data.predictions), write(tmp_path / "few.json", few)]
    counts = []
    for sets in (data.predictions, few):
        by_id = {s.image.id: sum(mask.area >= smallest for mask in s.masks) for s in sets}
        counts.append(np.array([by_id[k] for k in range(1, 10)]))
    assert counts[0].sum() > counts[1].sum() > 0

    request = EvalRequest(MeanMasks(MeanMasksOptions(smallest)), Compared(truth, tuple(paths)), Bootstrap(n, confidence=0.8, seed=3))
    said: list[str] = []
    reports = []
    for workers in (1, 3):
        done = [(file.path, file.evaluation, file.pg) for file in run_evaluation(request, workers=workers, warn=said.append)]
        reports.append((to_json(score_files(done, request.bootstrap), request), [per_image_json(e, p) for p, e, _ in done]))
    assert reports[0] == reports[1]
    assert said == [f"{path}: counted" for path in paths] * 2
    found, by_image = reports[0]

    random = np.random.default_rng(3)
    drawn = [random.integers(0, 9, 9) for _ in range(n)]
    means = [np.array([own[k].mean() for k in drawn]) for own in counts]
    for one, own, mean in zip(found["files"], counts, means, strict=True):
        assert one["metrics"] == {"mean_masks": pytest.approx(own.mean()), "most_masks": own.max()}
        assert type(one["metrics"]["most_masks"]) is int
        assert one["intervals"] == {"mean_masks": pytest.approx(np.percentile(mean, [10, 90]).tolist()), "most_masks": None}
        assert one["masks"]["ground_truth"] == sum(len(s.masks) for s in data.truth)
    (difference,) = found["differences"]
    assert difference["metrics"]["mean_masks"] == pytest.approx(counts[1].mean() - counts[0].mean())
    assert difference["intervals"]["mean_masks"] == pytest.approx(np.percentile(means[1] - means[0], [10, 90]).tolist())
    assert (found["settings"]["metric"], found["settings"]["smallest"]) == ("mean-masks", smallest)
    assert [[line["metrics"]["most_masks"] for line in lines] for lines in by_image] == [own.tolist() for own in counts]

    scored = score_files(done, request.bootstrap)
    ((columns, rows),) = tables(scored, request)
    assert columns == ["metric", paths[0], paths[1], "difference"]
    assert [row[0] for row in rows] == ["masks found", "most_masks", "masks an image"]
    assert rows[0][1].startswith(f"{counts[0].mean():.2f} [")
    assert rows[1][1:] == [str(counts[0].max()), str(counts[1].max()), f"{counts[1].max() - counts[0].max():+}"]
    assert "; from 1000 pixels on; [80 % interval of 40 resamples" in caption(scored, request.bootstrap)


def test_what_a_metric_refuses(tmp_path: Path) -> None:
    data = scene(61)
    truth = write(tmp_path / "truth.json", data.truth)
    none = write(tmp_path / "none.json", [MaskSet(s.image, ()) for s in data.predictions])
    with pytest.raises(UsageError, match="--smallest"):
        EvalRequest(MeanMasks(MeanMasksOptions(-1)), Compared(truth, (none,)))
    request = EvalRequest(MeanMasks(MeanMasksOptions()), Compared(truth, (none,)))
    with pytest.raises(InputError, match=r"none.json: not one mask"):
        list(run_evaluation(request))


def test_names() -> None:
    for method in EVAL:
        own = make_metric(method.name)
        assert (own.name, own.options) == (method.name, method.options())
    with pytest.raises(UsageError, match="--metric iou: choose from ar, ap, hierarchy, miou, accuracy"):
        make_metric("iou")
    with pytest.raises(UsageError, match="add --match hungarian"):
        make_metric("miou", bg="joint")


def test_what_a_metric_is_made_of_is_imported_when_it_scores() -> None:
    """So that a command can list metrics and their options in no time."""
    modules = [f"{EVAL.package}.{name}" for name in EVAL.names]
    code = f"import sys, importlib, ovskit.core.eval.registry as r; own = {modules}; assert not sys.modules.keys() & set(own);"
    code += " [importlib.import_module(m) for m in own]; print(sorted(sys.modules.keys() & {'numpy', 'numba', 'scipy', 'torch'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
