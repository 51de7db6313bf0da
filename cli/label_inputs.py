"""What ``ovs-label`` looks at, and with what: masks and perhaps a feature stream among its arguments, the images' folder, the model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovskit.cli import options as opt
from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    from ovskit.core.formats.streams.features import FeatureHeader
    from ovskit.core.formats.streams.masks import MasksHeader
    from ovskit.core.label.crops import CropOptions
    from ovskit.core.label.mask_vectors import LookOptions
    from ovskit.core.models.backbones.interface import Backbone


@dataclass(frozen=True, slots=True)
class Wish:
    """What to look with, as far as the user said; None is for what somebody else may decide."""

    model: str | None
    weights: Path | None
    size: int | None
    context: float | None
    masked: bool | None
    device: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things are read and written, and how fast."""

    output: str
    resume: bool
    skip_existing: bool
    on_error: opt.OnError
    root: str | None
    batch: int | None
    workers: int | None
    max_pixels: int
    features: FeatureHeader | None
    exif: str | None

    def where(self, header: MasksHeader) -> str:
        """The images' root. Raises UsageError if nobody knows it, InputError if the masks do not name their images."""
        from ovskit.core.formats.photographs.photographs import check_named

        check_named(header.named, "the masks")
        found = self.root or header.root or (None if self.features is None else self.features.root)
        if found is None:
            raise UsageError("the masks do not say where their images are: add --root DIR")
        return found

    def look(self, crop: CropOptions, header: MasksHeader) -> LookOptions:
        """How to look at the masks."""
        from ovskit.core.formats.photographs.photographs import settled_exif
        from ovskit.core.label.mask_vectors import LookOptions
        from ovskit.core.runtime.workers import default_workers

        exif = settled_exif(self.exif, header.exif, "the masks stream")
        return LookOptions(crop, self.where(header), self.batch, self.workers or default_workers(), self.max_pixels, exif)


def split_inputs(paths: Sequence[str]) -> tuple[list[str], FeatureHeader | None]:
    """The masks files, and the header of the feature stream among them, which is told by its first bytes."""
    masks: list[str] = []
    found: list[str] = []
    for path in paths:
        (found if _is_zip(path) else masks).append(path)
    if not found:
        return masks or ["-"], None

    from ovskit.core.formats.paths import show_path
    from ovskit.core.formats.streams.features import open_features
    from ovskit.core.runtime.output import open_input

    if len(found) > 1:
        raise UsageError(f"{', '.join(map(show_path, found))}: one feature stream is enough to say which model to look with")
    with open_input(found[0]) as stream:
        return masks or ["-"], open_features(stream, show_path(found[0]))[0]


def _is_zip(path: str) -> bool:
    # Only of an ordinary file the first bytes can be read without taking them away.
    try:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            return file.read(4) == b"PK\3\4"
    except OSError:
        return False  # to be said by whoever reads it


def backbone_of(wish: Wish, features: FeatureHeader | None, said: Any = None) -> Backbone:
    """What looks at the masks: --model, or what ``said`` (a specification as JSON) or the features were made with."""
    from ovskit.core.models.backbones.interface import BackboneSpec
    from ovskit.core.models.families import DEFAULT
    from ovskit.core.models.registry import load_backbone, reload_backbone
    from ovskit.core.runtime.device import choose_device

    target = choose_device(wish.device)
    given = said if said is not None else None if features is None else features.model
    if wish.model is None and given is not None:
        spec = BackboneSpec.from_json(given)
        _check_global(spec.name, spec.has_cls)
        return reload_backbone(spec, weights=wish.weights, device=target)
    backbone = load_backbone(wish.model or DEFAULT, weights=wish.weights, device=target)
    _check_global(backbone.spec.name, backbone.spec.has_cls)
    return backbone


def _check_global(name: str, has_cls: bool) -> None:
    from ovskit.core.models.families import DEFAULT

    if not has_cls:
        raise UsageError(f"{name} has no vector of a whole image (CLS): name a model that has with --model, such as {DEFAULT}")


def crop_of(wish: Wish, backbone: Backbone) -> CropOptions:
    """How masks are cut out for ``backbone``."""
    from ovskit.core.label.crops import crop_options

    return crop_options(backbone.spec, size=wish.size, context=0.1 if wish.context is None else wish.context, masked=bool(wish.masked))
