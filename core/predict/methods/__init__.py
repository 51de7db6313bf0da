"""The methods of ``ovs-predict``: a module each. A segmenter's checkpoint tells which method opens it; patches are named by the others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ovskit.core.predict.job import PredictMethod
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.methods import Registry

PREDICT = Registry("predict", __name__, ("segmenter", "plain", "clear", "sclip", "naclip", "proxy", "corr", "classify"), kind=PredictMethod)


def method_of(given: Mapping[str, Any]) -> str:
    """The name of the method that the given options are of.

    A ``method`` that is named, or the one that opens the given ``checkpoint``; where none does, the first, which reports what is wrong with
    it. Without a checkpoint patches are named: as ``proxy`` where there is one, as ``corr`` where there are masks, else by ``naclip``, the
    best of those that need nothing else (LANGUAGE F), with CLIP, and ``plain`` with other towers [choice]. Raises UsageError where neither
    a checkpoint nor a model is given.
    """
    checkpoint, model = given.get("checkpoint"), given.get("model")
    if given.get("method") is not None and given.get("classify"):
        raise UsageError("--method says how patches are named, and --classify names whole images: leave one of them out")
    if given.get("method") is not None:
        return str(given["method"])
    if given.get("classify"):
        return "classify"
    if checkpoint is not None:
        own = (method.name for method in PREDICT if isinstance(method, PredictMethod) and method.opens(Path(checkpoint)))
        return next(own, PREDICT.names[0])
    if model is None:
        raise UsageError(
            "no model: name the folder of a segmenter's run with --checkpoint RUN, or with --model and --names a model that knows words, "
            "and the words"
        )
    if given.get("proxy") is not None:
        return "proxy"
    if given.get("masks") is not None:
        return "corr"
    return "naclip" if str(model).startswith("clip:") else "plain"
