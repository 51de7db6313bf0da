"""The methods of ``ovs-predict``: a module each, whose ``PredictMethod`` tells which checkpoints it opens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ovskit.core.predict.job import PredictMethod
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.methods import Registry

PREDICT = Registry("predict", __name__, ("segmenter",), kind=PredictMethod)


def method_of(given: Mapping[str, Any]) -> str:
    """The name of the method that opens the given ``checkpoint``; where no method does, the first, which reports what is wrong with it.

    Raises UsageError if no checkpoint is given.
    """
    if given.get("checkpoint") is None:
        raise UsageError("no segmenter: name the folder of a run with --checkpoint RUN")
    checkpoint = Path(given["checkpoint"])
    own = (method.name for method in PREDICT if isinstance(method, PredictMethod) and method.opens(checkpoint))
    return next(own, PREDICT.names[0])
