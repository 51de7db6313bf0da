"""The metrics of ``ovs-eval`` by name."""

from __future__ import annotations

from typing import Any

from ovskit.core.eval.metric import Metric
from ovskit.core.runtime.methods import Registry

EVAL = Registry("eval", "ovskit.core.eval", ("ar", "ap", "hierarchy", "miou", "accuracy"), flag="--metric")


def make_metric(name: str, **options: Any) -> Metric:
    """The metric called ``name`` with ``options`` of its own, such as ``make_metric("ap", by_category=True)``.

    Raises UsageError for a name that is not one, and for options that make no sense together.
    """
    method = EVAL.get(name)
    metric: Metric = method.run(method.options(**options))
    return metric
