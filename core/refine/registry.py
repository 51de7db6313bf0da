"""The refiners by name, with their options; nothing is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ovskit.core.refine.refiner import Refiner
from ovskit.core.runtime.errors import UsageError

METHODS = ("snap", "guided", "convcrf", "crf", "cascadepsp")


def options_of(name: str) -> type:
    """The dataclass of a method's options. Raises UsageError for a name that there is not."""
    if name == "snap":
        from ovskit.core.refine.snap import SnapOptions

        return SnapOptions
    if name == "guided":
        from ovskit.core.refine.guided import GuidedOptions

        return GuidedOptions
    if name == "convcrf":
        from ovskit.core.refine.convcrf import ConvCrfOptions

        return ConvCrfOptions
    if name == "crf":
        from ovskit.core.refine.crf import CrfOptions

        return CrfOptions
    if name == "cascadepsp":
        from ovskit.core.refine.cascadepsp import CascadeOptions

        return CascadeOptions
    raise UsageError(f"there is no refiner {name!r}: choose from {', '.join(METHODS)}, or none")


def load_refiner(name: str, settings: Mapping[str, Any], *, device: str = "auto", weights: Path | None = None) -> Refiner:
    """The refiner ``name`` with the options ``settings``.

    ``device`` and ``weights`` are for those that have a use for them. Raises UsageError for an unknown name, an option out of
    range, or a package that is not installed; what else loading weights may raise.
    """
    options = options_of(name)
    if name == "snap":
        from ovskit.core.refine.snap import snap_refiner

        return snap_refiner(options(**settings))
    if name == "guided":
        from ovskit.core.refine.guided import guided_refiner

        return guided_refiner(options(**settings))
    if name == "crf":
        from ovskit.core.refine.crf import crf_refiner

        return crf_refiner(options(**settings))
    if name == "convcrf":
        from ovskit.core.refine.convcrf import convcrf_refiner
        from ovskit.core.runtime.device import choose_device

        return convcrf_refiner(options(**settings), choose_device(device))
    from ovskit.core.refine.cascadepsp import cascadepsp_refiner

    return cascadepsp_refiner(options(**{"device": device, "weights": weights, **settings}))
