"""The recipes of ``ovs-train``: a module each, which declares its settings and says what happens in one step."""

from __future__ import annotations

from ovskit.core.runtime.methods import Registry
from ovskit.core.train.job import TrainMethod

TRAIN = Registry("train", __name__, ("backbone", "dino", "segment", "correct", "pairs"), kind=TrainMethod)
