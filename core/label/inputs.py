"""The inputs of ``ovs-label``: masks, and perhaps a feature stream, whose model then encodes them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    from ovskit.core.formats.streams.features import FeatureHeader


@dataclass(frozen=True, slots=True)
class LabelInputs:
    """All ``paths``; the paths of ``masks`` among them, ``-`` if there are none; the header of the feature stream, None without one."""

    paths: tuple[str, ...]
    masks: tuple[str, ...]
    features: FeatureHeader | None = None


def sort_inputs(paths: Sequence[str]) -> LabelInputs:
    """The ``paths`` sorted into masks and a feature stream, by their first bytes. Raises UsageError for several feature streams."""
    masks: list[str] = []
    found: list[str] = []
    for path in paths:
        (found if _is_zip(path) else masks).append(path)
    if not found:
        return LabelInputs(tuple(paths), tuple(masks or ["-"]))

    from ovskit.core.formats.paths import show_path
    from ovskit.core.formats.streams.features import open_features
    from ovskit.core.runtime.output import open_input

    if len(found) > 1:
        raise UsageError(f"{', '.join(map(show_path, found))}: give only one feature stream, which names the model to encode masks with")
    with open_input(found[0]) as stream:
        return LabelInputs(tuple(paths), tuple(masks or ["-"]), open_features(stream, show_path(found[0]))[0])


def _is_zip(path: str) -> bool:
    # Only of an ordinary file the first bytes can be read without taking them away.
    try:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            return file.read(4) == b"PK\3\4"
    except OSError:
        return False  # reported when it is read
