"""What a family of models states of itself, so that nobody outside ``core/models`` needs to know one by its name.

Imports neither torch nor a model library, so that ``--help`` stays quick: what opens a model imports what it needs when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovskit.core.models.backbones.names import ModelName

if TYPE_CHECKING:
    import torch

    from ovskit.core.models.backbones.dense import DenseTower
    from ovskit.core.models.backbones.interface import Backbone, BackboneSpec, Facet, Interpolation, PositionsChoice, TextTower
    from ovskit.core.models.pyramids.pyramid import Pyramid


@dataclass(frozen=True, slots=True)
class BackboneRequest:
    """A frozen extractor that is asked for: ``name`` as typed, ``model`` what it stands for; see ``registry.load_backbone``."""

    name: str
    model: str
    weights: Path | None
    device: torch.device
    dtype: torch.dtype
    facet: Facet
    layer: int
    positions: PositionsChoice
    interpolation: Interpolation | None


@dataclass(frozen=True, slots=True)
class PyramidRequest:
    """A trainable backbone that is asked for: ``name`` as typed, ``model`` what it stands for; see ``registry.build_pyramid``."""

    name: str
    model: str
    weights: Path | None
    pretrained: bool
    freeze: bool
    checkpointing: bool
    config: Mapping[str, Any] | None
    grouping: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models that are opened in one way.

    ``names`` are models with a short name. A family of a whole library has a ``pattern`` too, ``clip:ARCH/TAG``: all names with its
    prefix, up to the colon, are the family's, and whether there is such a model is for ``load`` to say; ``example`` is one of them.

    ``load`` opens a frozen extractor. ``pyramid`` builds a trainable backbone; None for a family that has none, and ``has_grouping``
    says whether it can also say what belongs together (``Pyramid.grouped``). ``text`` opens the text tower beside the image tower of a
    specification, from the same weights (a file, or the published ones if None) and on the same device; None for models that know no
    words. ``image_size`` gives, for a model, the side in pixels of the images that its vector of a whole image is best taken of, None
    where the family does not know. ``dense`` opens an image tower for naming its patches; None for a family that has no such towers, while
    one that has may still have models without. ``has_facets`` says whether facets and layers can be chosen.
    """

    load: Callable[[BackboneRequest], Backbone]
    names: tuple[ModelName, ...] = ()
    pattern: ModelName | None = None
    example: str = ""
    pyramid: Callable[[PyramidRequest], Pyramid] | None = None
    has_grouping: bool = False
    text: Callable[[BackboneSpec, Path | None, torch.device], TextTower] | None = None
    image_size: Callable[[str], int | None] | None = None
    dense: Callable[[BackboneRequest], DenseTower] | None = None
    has_facets: bool = True

    def model_of(self, name: str) -> str | None:
        """What a name stands for, or None if it is not one of this family's; what it stands for is a name as well."""
        for entry in self.names:
            if name in (entry.name, entry.model):
                return entry.model
        if self.pattern is None or name.endswith(":"):
            return None
        return name if name.startswith(self.pattern.name.partition(":")[0] + ":") else None
