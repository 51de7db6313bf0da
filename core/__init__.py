"""ovskit from Python: the streams, the steps of the pipeline, and ``segment`` for one image. docs/guide/python.md has examples.

Nothing is imported before it is used, so ``import ovskit.core`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ovskit.core.python.segment import segment
    from ovskit.core.python.steps import cluster_features, evaluate_masks, extract_features, grow_forest, label_masks, refine_masks
    from ovskit.core.python.streams import Features, Masks, read_curated, read_features, read_masks, write_features, write_masks

__all__ = [
    "Features", "Masks", "cluster_features", "evaluate_masks", "extract_features", "grow_forest", "label_masks", "read_curated",
    "read_features", "read_masks", "refine_masks", "segment", "write_features", "write_masks",
]  # fmt: skip

_WHERE = {
    "segment": ("segment",),
    "steps": ("cluster_features", "evaluate_masks", "extract_features", "grow_forest", "label_masks", "refine_masks"),
    "streams": ("Features", "Masks", "read_curated", "read_features", "read_masks", "write_features", "write_masks"),
}


def __getattr__(name: str) -> Any:
    for module, names in _WHERE.items():
        if name in names:
            return getattr(importlib.import_module(f"ovskit.core.python.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
