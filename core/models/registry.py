"""From a model's name, or from a feature stream's header, to a frozen backbone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from ovskit.core.models.backbones.interface import FACETS, Backbone, BackboneSpec, Facet, Interpolation, PositionsWish
from ovskit.core.models.backbones.names import BUILTIN, CLIP, HANDMADE, ModelName, model_names, resolve_name
from ovskit.core.models.weights.source import WeightsSource
from ovskit.core.runtime.errors import InputError, UsageError

__all__ = ["ModelName", "load_backbone", "model_names", "reload_backbone"]


def load_backbone(
    name: str,
    *,
    facet: Facet = "key",
    layer: int = -1,
    weights: Path | None = None,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    positions: PositionsWish = "official",
    interpolation: Interpolation | None = None,
) -> Backbone:
    """The frozen feature extractor of that name.

    ``weights`` is a checkpoint to use instead of the published one. ``dtype`` is the type to compute in; on a CPU
    float16 is computed in float32. The built-in and the hand-made descriptor have neither facets nor layers, compute in
    float32 and ignore all three. ``positions`` says how position embeddings come to another grid than the trained one: as in
    the code of the model's authors, or by ``size``, which differs for DINO and DINOv2 without registers (``vit.Positions``).
    ``interpolation`` is by which photographs are resized; None is the model's own.

    Raises UsageError for an unknown or unsuitable name, facet or layer; MissingInputError if ``weights`` is not there;
    InputError if it is damaged, holds code, or belongs to another model; WeightsUnavailableError if there is no
    ``weights`` and the published ones are neither cached nor to be downloaded.
    """
    return _load(name, resolve_name(name), weights, device, _How(facet, layer, dtype, positions, interpolation))


def reload_backbone(
    spec: BackboneSpec, *, weights: Path | None = None, device: torch.device, dtype: torch.dtype = torch.float32
) -> Backbone:
    """The extractor that a feature stream was made with, photographs resized and positions resampled as they were for it.

    Raises InputError if it comes out as another one: weights with another hash, or a library that now describes the
    model differently; and whatever ``load_backbone`` raises.
    """
    wish: PositionsWish = "official" if spec.positions == "scale" else "size"
    how = _How(spec.facet, spec.layer, dtype, wish, spec.interpolation)
    backbone = _load(spec.name, resolve_name(spec.model), weights, device, how)
    now, then = backbone.spec.weights_sha256, spec.weights_sha256
    if now != then:
        source = f"--weights {weights}" if weights is not None else "the published weights"
        raise InputError(
            f"the features were made by {spec.name} with weights {_short(then)}, but {source} are {_short(now)}; "
            "give the same file with --weights, or extract the features again"
        )
    if backbone.spec != spec:
        fields = (field for field in spec.to_json() if getattr(spec, field) != getattr(backbone.spec, field))
        raise InputError(f"{spec.name} is no longer what made the features ({', '.join(fields)} differ); extract the features again")
    return backbone


def _short(sha256: str | None) -> str:
    return "(none)" if sha256 is None else f"sha256 {sha256[:12]}…"


@dataclass(frozen=True, slots=True)
class _How:
    facet: Facet
    layer: int
    dtype: torch.dtype
    positions: PositionsWish
    interpolation: Interpolation | None


def _load(name: str, model: str, weights: Path | None, device: torch.device, how: _How) -> Backbone:
    facet, layer, dtype, interpolation = how.facet, how.layer, how.dtype, how.interpolation
    if facet not in FACETS:
        raise UsageError(f"--facet {facet}: choose {', '.join(FACETS)}")
    if not dtype.is_floating_point:
        raise UsageError(f"--dtype {dtype}: choose a floating-point type")
    if how.positions not in get_args(PositionsWish):
        raise UsageError(f"--positions {how.positions}: choose {', '.join(get_args(PositionsWish))}")
    if interpolation is not None and interpolation not in get_args(Interpolation):
        raise UsageError(f"--resample {interpolation}: choose {', '.join(get_args(Interpolation))}")
    if model == HANDMADE:
        if weights is not None:
            raise UsageError(f"--weights: {name} has no weights to replace; name a model that has with --model")
        from ovskit.core.models.backbones.handmade import load_handmade

        return load_handmade(name, device=device, interpolation=interpolation)
    if model == BUILTIN:
        from ovskit.core.models.builtin.extractor import load_builtin

        given = None if weights is None else WeightsSource(name, weights).path(None)
        return load_builtin(name, weights=given, device=device, interpolation=interpolation)
    source = WeightsSource(name, weights)
    source.fail_early()
    if model.startswith(CLIP):
        from ovskit.core.models.clip.image_tower import load_clip

        return load_clip(name, model, facet=facet, layer=layer, source=source, device=device, dtype=dtype, interpolation=interpolation)
    from ovskit.core.models.backbones.timm_vit import load_timm

    return load_timm(
        name,
        model,
        facet=facet,
        layer=layer,
        source=source,
        device=device,
        dtype=dtype,
        positions=how.positions,
        interpolation=interpolation,
    )
