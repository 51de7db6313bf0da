"""The families of models, and what each states of itself: the one place that knows them all.

Imports neither torch nor a model library, so that ``--help`` stays quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovskit.core.models.backbones.names import BUILTIN, HANDMADE, TIMM_NAMES, ModelName, suggest
from ovskit.core.models.family import BackboneRequest, Family, PyramidRequest
from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    import torch

    from ovskit.core.models.backbones.dense import DenseTower
    from ovskit.core.models.backbones.interface import Backbone, BackboneSpec, TextTower
    from ovskit.core.models.pyramids.pyramid import Pyramid

DEFAULT = "builtin"
"""The model where nobody names one."""


def _load_handmade(request: BackboneRequest) -> Backbone:
    if request.weights is not None:
        raise UsageError(f"--weights: {request.name} has no weights to replace; name a model that has with --model")
    from ovskit.core.models.backbones.handmade import load_handmade

    return load_handmade(request.name, device=request.device, interpolation=request.interpolation)


def _load_builtin(request: BackboneRequest) -> Backbone:
    from ovskit.core.models.builtin.extractor import load_builtin

    weights = _given(request.name, request.weights)
    return load_builtin(request.name, weights=weights, device=request.device, interpolation=request.interpolation)


def _builtin_pyramid(request: PyramidRequest) -> Pyramid:
    from ovskit.core.models.builtin.pyramid import build_grouping_pyramid

    return build_grouping_pyramid(
        request.name,
        _given(request.name, request.weights),
        request.pretrained,
        freeze=request.freeze,
        checkpointing=request.checkpointing,
        config=request.config,
        grouping=request.grouping,
    )


def _builtin_size(model: str) -> int:
    from ovskit.core.models.builtin.global_vector import SIDE

    return SIDE  # it looks at no more


def _given(name: str, weights: Path | None) -> Path | None:
    from ovskit.core.models.weights.source import WeightsSource

    return None if weights is None else WeightsSource(name, weights).path(None)


def _as_asked(request: BackboneRequest) -> dict[str, Any]:
    """What every loader of published weights is told, its source among it, which fails early where there is nothing to load."""
    from ovskit.core.models.weights.source import WeightsSource

    source = WeightsSource(request.name, request.weights)
    source.fail_early()
    return {
        "facet": request.facet,
        "layer": request.layer,
        "source": source,
        "device": request.device,
        "dtype": request.dtype,
        "interpolation": request.interpolation,
    }


def _load_clip(request: BackboneRequest) -> Backbone:
    asked = _as_asked(request)  # before torch's companions are imported
    from ovskit.core.models.clip.image_tower import load_clip

    return load_clip(request.name, request.model, **asked)


def _clip_text(spec: BackboneSpec, weights: Path | None, device: torch.device) -> TextTower:
    from ovskit.core.models.clip.text_tower import load_clip_text

    return load_clip_text(spec, weights=weights, device=device)


def _load_clip_dense(request: BackboneRequest) -> DenseTower:
    from ovskit.core.models.weights.source import WeightsSource

    source = WeightsSource(request.name, request.weights)  # which asks the hub while libraries are imported
    from ovskit.core.models.clip.dense import load_clip_dense

    return load_clip_dense(
        request.name, request.model, source=source, device=request.device, dtype=request.dtype, interpolation=request.interpolation
    )


def _clip_size(model: str) -> int | None:
    from ovskit.core.models.clip.image_tower import trained_size

    return trained_size(model)


def _load_run(request: BackboneRequest) -> Backbone:
    from ovskit.core.models.towers.header import folder_of, read_config

    read_config(folder_of(request.model))  # fails before torch's companions are imported
    from ovskit.core.models.towers.extractor import load_run

    return load_run(request)


def _run_text(spec: BackboneSpec, weights: Path | None, device: torch.device) -> TextTower:
    from ovskit.core.models.towers.extractor import load_run_text

    return load_run_text(spec, weights=weights, device=device)


def _load_run_dense(request: BackboneRequest) -> DenseTower:
    from ovskit.core.models.towers.header import folder_of, read_config

    read_config(folder_of(request.model))
    from ovskit.core.models.towers.dense import open_dense

    return open_dense(request)


def _run_size(model: str) -> int | None:
    from ovskit.core.models.towers.header import folder_of, read_config
    from ovskit.core.runtime.errors import InputError, MissingInputError

    try:
        return read_config(folder_of(model)).side
    except (InputError, MissingInputError):  # reported when it is opened
        return None


def _load_timm(request: BackboneRequest) -> Backbone:
    asked = _as_asked(request)
    from ovskit.core.models.backbones.timm_vit import load_timm

    return load_timm(request.name, request.model, positions=request.positions, **asked)


def _timm_pyramid(request: PyramidRequest) -> Pyramid:
    from ovskit.core.models.weights.source import WeightsSource

    wanted = request.pretrained or request.weights is not None
    source = WeightsSource(request.name, request.weights) if wanted else None
    if source is not None:
        source.fail_early()
    from ovskit.core.models.pyramids.timm_pyramid import build_timm_pyramid

    return build_timm_pyramid(request.name, request.model, source, freeze=request.freeze, checkpointing=request.checkpointing)


# In the order of the models table, where patterns come last.
FAMILIES: tuple[Family, ...] = (
    Family(
        names=(ModelName("builtin", BUILTIN, "the default, no download: a small network of our own beside handmade-v1; CLS, no facets"),),
        load=_load_builtin,
        pyramid=_builtin_pyramid,
        has_grouping=True,
        image_size=_builtin_size,
        has_facets=False,
    ),
    Family(
        names=(ModelName("handmade", HANDMADE, "colour, gradients and context on an 8-pixel grid, no learning; no facets, no CLS"),),
        load=_load_handmade,
        has_facets=False,
    ),
    Family(
        pattern=ModelName("clip:ARCH/TAG", "clip:ARCH/TAG", "image tower of any ViT of open_clip, for instance clip:ViT-B-16/openai"),
        example="clip:ViT-B-16/openai",
        load=_load_clip,
        text=_clip_text,
        image_size=_clip_size,
        dense=_load_clip_dense,
    ),
    Family(
        pattern=ModelName("run:DIR", "run:DIR", "two towers that ovs-train pairs has trained, by the folder of their run"),
        example="run:towers",
        load=_load_run,
        text=_run_text,
        image_size=_run_size,
        dense=_load_run_dense,
    ),
    Family(
        names=TIMM_NAMES,
        pattern=ModelName("timm:NAME", "timm:NAME", "any plain ViT of timm, for instance timm:vit_base_patch16_224.mae"),
        example="timm:vit_base_patch16_224.mae",
        load=_load_timm,
        pyramid=_timm_pyramid,
    ),
)


def model_names() -> list[ModelName]:
    """Every short name with its description, in the order of the models table; patterns come last."""
    return [entry for family in FAMILIES for entry in family.names] + [each.pattern for each in FAMILIES if each.pattern is not None]


def resolve_name(name: str) -> str:
    """What a name stands for: ``builtin-v1``, ``handmade-v1``, ``timm:NAME``, ``clip:ARCH/TAG`` or ``run:DIR``.

    Names with a library's prefix come back as they are; whether the library has such a model is for the library to say. Raises
    UsageError, with the closest match and the valid names, for a name of no family.
    """
    return find_family(name)[1]


def find_family(name: str) -> tuple[Family, str]:
    """The family of a model by its name, and what the name stands for. Raises UsageError as ``resolve_name`` does."""
    for family in FAMILIES:
        model = family.model_of(name)
        if model is not None:
            return family, model
    short = [entry.name for family in FAMILIES for entry in family.names]
    valid = ", ".join(entry.name for entry in model_names())
    raise UsageError(f"unknown model {name!r}{suggest(name, short)}; valid: {valid}")


def has_facets(name: str) -> bool:
    """Whether facets and layers of a model can be chosen; true as well for a name of no family, of which nothing is known."""
    return all(family.has_facets for family in FAMILIES if family.model_of(name) is not None)


def has_grouping(name: str) -> bool:
    """Whether ``registry.build_pyramid`` can build a model with ``grouping``. Raises UsageError for an unknown name."""
    return find_family(name)[0].has_grouping


def has_words(name: str) -> bool:
    """Whether a model knows words, so that ``registry.load_text`` opens its text tower; false for a name of no family."""
    return any(family.text is not None for family in FAMILIES if family.model_of(name) is not None)


def has_dense(name: str) -> bool:
    """Whether a model's family has image towers whose patches can be named (``registry.load_dense``); false for a name of no family.

    Whether this model is one of them is for ``load_dense`` to say.
    """
    return any(family.dense is not None for family in FAMILIES if family.model_of(name) is not None)


def names_with_dense() -> str:
    """The models whose patches can be named, for a message: ``clip:ARCH/TAG, such as clip:ViT-B-16/openai``."""
    return _names_of([family for family in FAMILIES if family.dense is not None])


def names_with_words() -> str:
    """The models that know words, for a message: ``clip:ARCH/TAG, such as clip:ViT-B-16/openai``."""
    return _names_of([family for family in FAMILIES if family.text is not None])


def names_with_grouping() -> str:
    """The models that can say what belongs together, for a message: ``builtin``."""
    return _names_of([family for family in FAMILIES if family.has_grouping])


def _names_of(families: list[Family]) -> str:
    found = []
    for family in families:
        found += [entry.name for entry in family.names]
        found += [] if family.pattern is None else [f"{family.pattern.name}, such as {family.example}"]
    return " or ".join(found)


def image_size(model: str) -> int | None:
    """The side in pixels of the images that a model's vector of a whole image is best taken of, None where nobody knows.

    ``model`` is a specification's, or a name as typed.
    """
    for family in FAMILIES:
        known = family.model_of(model)
        if known is not None:
            return None if family.image_size is None else family.image_size(known)
    return None
