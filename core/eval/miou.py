"""Semantic segmentation: IoU of classes; the measure is in ``eval.semantic``, what is opened in ``eval.semantic_inputs``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from ovskit.core.eval.metric import Metric, Predictions, Row, Table, open_mask_predictions
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.methods import Method
from ovskit.core.runtime.settings import Options, option
from ovskit.core.runtime.values import void_ids

if TYPE_CHECKING:
    from ovskit.core.eval.semantic import SemanticScores
    from ovskit.core.eval.semantic_inputs import SemanticTruth
    from ovskit.core.formats.streams.masks import MasksHeader
    from ovskit.core.runtime.failures import Failures

_OF_CLUSTERS = "--bg has no effect where predicted ids are classes: add --match hungarian, or leave it out"
# What each way of matching is in ``SemanticOptions``, and in JSON.
_MATCHING: Mapping[str, Literal["ids", "counts", "iou"]] = {"ids": "ids", "hungarian": "counts", "hungarian-iou": "iou"}


class MiouOptions(Options):
    """What label maps mean, and how predicted ids get classes.

    ``layout`` is how the ground truth's folder of label maps is kept (``formats.labels.layouts``), ``names`` the label space (None: the
    layout's), ``void`` the ids of the ground truth's maps that no score counts, where no layout says them. ``pred_layout`` is how predicted
    maps are numbered: as those of a layout, or "plain", as the label space (None: as ``layout``).

    ``match``: predicted ids are classes ("ids"), or clusters to be matched with classes by common pixels ("hungarian") or by IoU
    ("hungarian-iou"). ``bg``: with clusters, unlabelled pixels are the background ("fixed"), or a cluster like any other ("joint").
    Raises UsageError for a ``bg`` without effect.
    """

    layout: str | None = option(None, "How the ground truth's folder of label maps is kept: voc, ade, …", flag=True, metavar="NAME")
    names: str | None = option(
        None, "Label space: voc-21, a file, or names with commas.",
        flag=True, metavar="SPACE", shown="the layout's", environment="by command",
    )  # fmt: skip
    void: tuple[int, ...] | None = option(
        None, "Ids of the ground truth's maps that no score counts, where no layout says them.",
        flag=True, metavar="ID,…|none", parse=void_ids, shown="the layout's or the label space's, else 255",
    )  # fmt: skip
    pred_layout: str | None = option(
        None, "Layout whose ids predicted label maps have; plain: the label space's.",
        flag=True, metavar="NAME|plain", shown="--layout",
    )  # fmt: skip
    match: Literal["ids", "hungarian", "hungarian-iou"] = option(
        "ids", "Take predicted ids as classes, or as clusters to be matched with classes by common pixels or by IoU.", flag=True
    )
    bg: Literal["fixed", "joint"] = option(
        "fixed", "With --match hungarian: unlabelled pixels are the background, or a cluster like any other.", flag=True
    )

    def check(self) -> None:
        """See ``Options``."""
        if self.bg == "joint" and self.match == "ids":
            raise UsageError(_OF_CLUSTERS)


class MeanIou(Metric):
    """``--metric miou``."""

    name = "miou"
    masks = False

    def __init__(self, options: MiouOptions | None = None) -> None:
        self._options = options or MiouOptions()

    @property
    def options(self) -> MiouOptions:
        return self._options

    @property
    def has_clusters(self) -> bool:
        """Whether predicted ids are clusters."""
        return self.options.match != "ids"

    def check(self, predictions: Sequence[str]) -> None:
        """Raises UsageError for a layout of predicted maps where no prediction is a folder of maps."""
        if self.options.pred_layout is not None and not any(map(os.path.isdir, predictions)):
            raise UsageError("--pred-layout has no effect: none of the predictions is a folder of label maps")

    def open_truth(self, path: str, *, segments: str | None, partial: bool, failures: Failures | None) -> SemanticTruth:
        """A folder of label maps, or masks, painted; see ``open_semantic_truth``."""
        from ovskit.core.eval.semantic_inputs import open_semantic_truth

        layout, names, void = self.options.layout, self.options.names, self.options.void
        return open_semantic_truth(path, layout=layout, names=names, segments=segments, void=void, partial=partial, failures=failures)

    def truth_warnings(self, truth: SemanticTruth) -> Sequence[str]:
        return truth.warnings

    @contextmanager
    def open_predictions(self, path: str, what: str, truth: SemanticTruth, failures: Failures | None) -> Iterator[Predictions]:
        """A folder of label maps, or masks, to be painted."""
        from ovskit.core.eval.evaluation import UNKNOWN_FILE
        from ovskit.core.eval.semantic_inputs import predicted_maps

        if not os.path.isdir(path):
            with open_mask_predictions(path, what, failures) as found:
                yield Predictions(found.header, found.images, truth.check)
            return
        maps = predicted_maps(path, truth, self.options.pred_layout or self.options.layout, clusters=self.has_clusters)

        def check() -> None:
            maps.check()
            truth.check()

        yield Predictions(UNKNOWN_FILE, maps.maps, check)

    def scores(self, truth: SemanticTruth, header: MasksHeader, what: str) -> SemanticScores:
        """Raises InputError for predictions of other classes than the ground truth's."""
        from ovskit.core.eval.semantic import SemanticScores
        from ovskit.core.eval.semantic_inputs import check_same_space

        if not self.has_clusters:
            check_same_space(header, truth, what)
        return SemanticScores(truth.options(_MATCHING[self.options.match], joint=self.options.bg == "joint"))

    def settings(self, truth: SemanticTruth) -> dict[str, Any]:
        space = truth.space
        return {
            "match": _MATCHING[self.options.match],
            "background": self.options.bg,
            "fitted_on_scored_images": self.has_clusters,
            "label_space": None if space is None else {"name": space.name, "version": space.version, "hash": space.hash},
        }

    def contents(self, scores: SemanticScores, masks: int) -> str:
        return f"{sum(one.truth for one in scores.by_class()):,} pixels that count"

    def remarks(self, truth: SemanticTruth, scores: SemanticScores) -> Sequence[str]:
        space, found = truth.space, []
        if space is not None:
            found.append(f"label space {space.name} version {space.version}, {space.short_hash}")
        if self.has_clusters:
            how = "common pixels" if self.options.match == "hungarian" else "IoU"
            found.append(f"clusters got their classes on these very images, by {how}: a ceiling")
        return found

    def tables(self, files: Sequence[tuple[str, SemanticScores]]) -> Sequence[Table]:
        return [class_table(files, matched=self.has_clusters)]


def class_table(files: Sequence[tuple[str, SemanticScores]], *, matched: bool) -> Table:
    """A row for each class: its share of the pixels, its IoU in each file and, where clusters were ``matched``, its cluster.

    Classes without pixels in any file are left out.
    """
    from ovskit.core.formats.paths import show_path

    columns, iou = ["class", "id", "% of pixels"], Row("IoU")
    for what, _ in files:
        columns += [f"IoU of {what}" if len(files) > 1 else "IoU", *(["cluster"] if matched else [])]
    by_class = [scores.by_class() for _, scores in files]
    total = max(1, sum(one.truth for one in by_class[0]))
    rows = []
    for same in zip(*by_class, strict=True):
        if all(one.iou is None for one in same):
            continue
        row = [show_path(same[0].name), str(same[0].id), f"{100 * same[0].truth / total:.2f}"]
        for one in same:
            row.append(iou.text(one.iou))
            if matched:
                row.append("–" if one.cluster is None else "no label" if one.cluster < 0 else str(one.cluster))
        rows.append(row)
    return columns, rows


METHOD = Method("miou", "IoU of classes.", MiouOptions, MeanIou)
