"""From a model's name, or from a feature stream's header, to what is computed with: a frozen backbone, its text tower, a pyramid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch

from ovskit.core.models.backbones.dense import DenseTower
from ovskit.core.models.backbones.interface import FACETS, Backbone, BackboneSpec, Facet, Interpolation, PositionsChoice, TextTower
from ovskit.core.models.families import find_family, names_with_dense, names_with_grouping, names_with_words
from ovskit.core.models.family import BackboneRequest, PyramidRequest
from ovskit.core.models.pyramids.pyramid import Pyramid
from ovskit.core.runtime.errors import InputError, UsageError


def load_backbone(
    name: str,
    *,
    facet: Facet = "key",
    layer: int = -1,
    weights: Path | None = None,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    positions: PositionsChoice = "official",
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
    return _load(BackboneRequest(name, name, weights, device, dtype, facet, layer, positions, interpolation))


def reload_backbone(
    spec: BackboneSpec, *, weights: Path | None = None, device: torch.device, dtype: torch.dtype = torch.float32
) -> Backbone:
    """The extractor that a feature stream was made with, photographs resized and positions resampled as they were for it.

    Raises InputError if it comes out as another one: weights with another hash, or a library that now describes the
    model differently; and whatever ``load_backbone`` raises.
    """
    positions: PositionsChoice = "official" if spec.positions == "scale" else "size"
    backbone = _load(BackboneRequest(spec.name, spec.model, weights, device, dtype, spec.facet, spec.layer, positions, spec.interpolation))
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


def _load(request: BackboneRequest) -> Backbone:
    """``request.model`` may be a name as typed."""
    family, model = find_family(request.model)
    if request.facet not in FACETS:
        raise UsageError(f"--facet {request.facet}: choose {', '.join(FACETS)}")
    if not request.dtype.is_floating_point:
        raise UsageError(f"--dtype {request.dtype}: choose a floating-point type")
    if request.positions not in get_args(PositionsChoice):
        raise UsageError(f"--positions {request.positions}: choose {', '.join(get_args(PositionsChoice))}")
    if request.interpolation is not None and request.interpolation not in get_args(Interpolation):
        raise UsageError(f"--resample {request.interpolation}: choose {', '.join(get_args(Interpolation))}")
    return family.load(replace(request, model=model))


def load_text(spec: BackboneSpec, *, weights: Path | None = None, device: torch.device) -> TextTower:
    """The text tower beside the image tower that ``spec`` describes, from ``weights`` or else the published ones.

    Raises UsageError for a model that knows no words (``families.has_words``); InputError where the weights have no text tower, or not
    this one; WeightsUnavailableError where they, or what the tokenizer needs, are neither cached nor to be downloaded.
    """
    family, _ = find_family(spec.model)
    if family.text is None:
        raise UsageError(f"{spec.name} knows no words: name {names_with_words()}")
    return family.text(spec, weights, device)


def load_dense(name: str, *, weights: Path | None = None, device: torch.device, dtype: torch.dtype = torch.float32) -> DenseTower:
    """The image tower of that name, opened so that its patches can be named; ``load_text(tower.spec, …)`` opens its text tower.

    ``weights`` and ``dtype`` as for ``load_backbone``. Raises UsageError for a model without such a tower, naming those that have one, and
    what ``load_backbone`` raises for weights.
    """
    family, model = find_family(name)
    if family.dense is None:
        raise UsageError(f"{name} has no image tower whose patches can be named: name {names_with_dense()}")
    if not dtype.is_floating_point:
        raise UsageError(f"--dtype {dtype}: choose a floating-point type")
    return family.dense(BackboneRequest(name, model, weights, device, dtype, "token", -1, "official", None))


def build_pyramid(
    name: str,
    *,
    weights: Path | None,
    pretrained: bool,
    freeze: bool,
    checkpointing: bool = False,
    config: Mapping[str, Any] | None = None,
    grouping: bool = False,
) -> Pyramid:
    """The trainable backbone of that name, on the CPU in float32, in training mode.

    The trunk's weights are those of the file ``weights``; or the published ones, or those that come with ovskit, if
    ``pretrained``; or else random, for a checkpoint to be loaded over them. The weights of an adapter are always random.
    ``freeze`` leaves the trunk as it is: no gradients for its parameters, evaluation mode. ``checkpointing`` computes the
    inside of blocks again in the backward pass instead of keeping it. ``config`` is what ``Pyramid.config`` said of the backbone whose
    checkpoint is to be loaded; it matters only for random weights. ``grouping`` asks for a pyramid that can say what belongs together
    (``Pyramid.grouped``), which not every family can (``families.has_grouping``).

    Raises UsageError for a name that is unknown, or a model that gives no such maps or no grouping, and what ``load_backbone`` raises for
    weights that are missing, damaged or another model's.
    """
    family, model = find_family(name)
    if grouping and not family.has_grouping:
        raise UsageError(
            f"{name} does not say what belongs together, which queries from places begin with; take {names_with_grouping()}, or kinds=0"
        )
    if family.pyramid is None:
        raise UsageError(
            f"{name} cannot be trained for masks; give builtin, a short name of a ViT, or timm:NAME (CLIP's towers are there as well)"
        )
    return family.pyramid(PyramidRequest(name, model, weights, pretrained, freeze, checkpointing, config, grouping)).train()
