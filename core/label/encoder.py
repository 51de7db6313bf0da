"""The model that encodes masks: a frozen model that makes one vector of a crop, and how masks are cropped for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.settings import Options, option
from ovskit.core.runtime.values import count_or_auto

if TYPE_CHECKING:
    from ovskit.core.label.crops import CropOptions
    from ovskit.core.models.backbones.interface import Backbone, BackboneSpec

_DEFAULT = "builtin"
_CONTEXT = 0.1  # on each side [choice]


class EncoderOptions(Options):
    """None leaves a value to the feature stream, the centroids or the model."""

    SECTION: ClassVar[str] = "Model"

    model: str | None = option(
        None, "Model that encodes the masks: builtin, dino-vitb8, clip:ARCH/TAG …; see ovs-extract --list-models.", flag=True,
        metavar="NAME", shown="the features' or the centroids', else builtin",
    )  # fmt: skip
    size: int | None = option(
        None, "Resize crops to N×N pixels.", flag=True, low=8, high=4096, metavar="N", shown="the model's own", environment="by command"
    )
    context: float | None = option(
        None, "Widen a mask's box on each side by this share of it.", flag=True, low=0.0, high=10.0, metavar="SHARE", shown=f"{_CONTEXT}",
        environment="by command",
    )  # fmt: skip
    mask_crop: bool | None = option(
        None, "Paint over the pixels of the box that are outside the mask.", flag=True, off="--no-mask-crop", shown="no-mask-crop"
    )
    batch_size: int | None = option(
        None, "Batch size, in crops; auto halves a batch that does not fit.", flag=True, metavar="N|auto", parse=count_or_auto, low=1,
        shown="auto", decides=False,
    )  # fmt: skip

    def crop_for(self, spec: BackboneSpec) -> CropOptions:
        """How masks are cropped for a model."""
        from ovskit.core.label.crops import crop_options

        context = _CONTEXT if self.context is None else self.context
        return crop_options(spec, size=self.size, context=context, masked=bool(self.mask_crop))


@dataclass(frozen=True, slots=True)
class Encoder:
    """The chosen model: its options, its weights' file and the device."""

    options: EncoderOptions
    weights: Path | None = None
    device: str = "auto"

    def open(self, made_with: Mapping[str, Any] | None) -> Backbone:
        """The model that is named, else the one that features or centroids were ``made_with`` (a specification as JSON), else the built-in
        one.

        Raises UsageError for one that has no vector of a whole image, and what ``load_backbone`` raises.
        """
        from ovskit.core.models.backbones.interface import BackboneSpec
        from ovskit.core.models.registry import load_backbone, reload_backbone
        from ovskit.core.runtime.device import choose_device

        device = choose_device(self.device)
        if self.options.model is None and made_with is not None:
            spec = BackboneSpec.from_json(made_with)
            _check_global(spec)
            return reload_backbone(spec, weights=self.weights, device=device)
        backbone = load_backbone(self.options.model or _DEFAULT, weights=self.weights, device=device)
        _check_global(backbone.spec)
        return backbone


def _check_global(spec: BackboneSpec) -> None:
    if not spec.has_cls:
        raise UsageError(f"{spec.name} has no vector of a whole image (CLS): name a model that has one with --model, such as {_DEFAULT}")
