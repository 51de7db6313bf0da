"""The metrics of ``ovs-eval`` by name; a metric's own file is imported when it is asked for, never before."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ovskit.core.eval.metric import Metric
from ovskit.core.runtime.errors import UsageError


@dataclass(frozen=True, slots=True)
class Entry:
    """A metric's ``name``, what it is in a few words, and ``where`` its class is: MODULE:CLASS."""

    name: str
    summary: str
    where: str


METRICS = (
    Entry("ar", "average recall (and AP)", "ovskit.core.eval.ar:AverageRecall"),
    Entry("ap", "average precision", "ovskit.core.eval.ap:AveragePrecision"),
    Entry("hierarchy", "ancestor pairs, and what the forests look like", "ovskit.core.eval.hierarchy:Hierarchy"),
    Entry("miou", "IoU of classes", "ovskit.core.eval.miou:MeanIou"),
)
"""In the order of --help; the first one is the default."""


def metric_class(name: str) -> Any:
    """The class of the metric called ``name``. Raises UsageError if there is none."""
    for entry in METRICS:
        if entry.name == name:
            module, _, own = entry.where.partition(":")
            return getattr(importlib.import_module(module), own)
    raise UsageError(f"--metric {name}: choose one of {', '.join(entry.name for entry in METRICS)}")


def make_metric(name: str, **options: Any) -> Metric:
    """The metric called ``name`` with ``options`` of its own, such as ``make_metric("ap", by_category=True)``.

    Raises UsageError for a name that is not one, and for options that make no sense together.
    """
    found = metric_class(name)
    metric: Metric = found(found.Options(**options))
    return metric


def chosen_metric(name: str, given: Mapping[str, Any]) -> Metric:
    """The metric called ``name`` with those of the options of all metrics that it has; None and False are options that were not given.

    Raises UsageError for one that it refuses (``Metric.refused``) or that belongs ``elsewhere``, and as ``make_metric``. Others that it
    does not have do nothing.
    """
    given = {option: value for option, value in given.items() if value is not None and value is not False}
    found = metric_class(name)
    for option, why in found.refused.items():
        if option in given:
            raise UsageError(why)
    own = {field.name for field in fields(found.Options)}
    foreign = [option for option in given if option not in own]
    for other in (metric_class(entry.name) for entry in METRICS if foreign):
        for option in foreign:
            if option in other.elsewhere:
                raise UsageError(other.elsewhere[option])
    return make_metric(name, **{option: value for option, value in given.items() if option in own})
