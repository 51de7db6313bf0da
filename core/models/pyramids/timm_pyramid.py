"""A pyramid around a network of timm: an adapter around a plain vision transformer, or else the maps that the network has by itself."""

from __future__ import annotations

from ovskit.core.models.backbones.timm_vit import look_up
from ovskit.core.models.pyramids.convolutional import build_convolutional_pyramid
from ovskit.core.models.pyramids.pyramid import Pyramid
from ovskit.core.models.pyramids.vit_adapter import build_vit_adapter
from ovskit.core.models.weights.source import WeightsSource


def build_timm_pyramid(name: str, model: str, source: WeightsSource | None, *, freeze: bool, checkpointing: bool) -> Pyramid:
    """The pyramid for ``model`` (``timm:NAME``), called ``name`` in messages, with random weights where there is no ``source``.

    Raises UsageError for an unknown model or one that gives no such maps, what ``WeightsSource.path`` raises, and InputError for
    weights that are not this model's.
    """
    full_name, hub = look_up(name, model)
    found = build_vit_adapter(name, full_name, source, hub, freeze=freeze, checkpointing=checkpointing)
    if found is not None:
        return found
    return build_convolutional_pyramid(name, full_name, source, hub, freeze=freeze, checkpointing=checkpointing)
