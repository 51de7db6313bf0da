"""Frozen backbones from open_clip: the image tower of a CLIP whose tower is a ViT, open_clip's own or timm's.

``cls`` is the projected image embedding, the vector that is compared with text [choice]; its width is that of the
joint space, not that of the patches. Activation (QuickGELU or GELU) and preprocessing are those that the tag was
trained with. Only the image tower is built and loaded. Position embeddings are resampled as open_clip does: bicubic,
antialiased.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import open_clip
import torch
from open_clip.model import _build_vision_tower  # the public way builds the text tower too, and may want the network for it
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer

from ovskit.core.models.backbones.interface import BackboneSpec, Facet, Interpolation, Projection
from ovskit.core.models.backbones.names import CLIP, suggest
from ovskit.core.models.backbones.timm_vit import TimmTrunk, known_interpolation, move
from ovskit.core.models.backbones.vit import (
    Linear,
    Positions,
    Tokens,
    VitBackbone,
    compute_dtype,
    feature_width,
    resolve_layer,
    rows_of,
)
from ovskit.core.models.weights.source import HubFile, WeightsSource, sha256_of
from ovskit.core.models.weights.state_dict import NoInit, State, fit, read_checkpoint
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.logs import get_logger

log = get_logger("weights")

_VISUAL = "visual."


class ClipTrunk:
    """A ``Trunk`` around open_clip's own vision transformer."""

    has_cls = True
    prefix = 1

    def __init__(self, network: VisionTransformer) -> None:
        self.network: Any = network
        self.depth = len(network.transformer.resblocks)
        self.stride = int(network.patch_size[0])
        self._positions: Positions | None = None

    def embed(self, images: torch.Tensor) -> Tokens:
        """See ``Trunk.embed``."""
        x = self.network.conv1(images)
        grid = (x.shape[2], x.shape[3])
        cls = self.network.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        x = torch.cat([cls, x.flatten(2).transpose(1, 2)], dim=1)
        if self._positions is None:  # not before the network is on its device, in its type: a view does not go along
            self._positions = Positions(self.network.positional_embedding.unsqueeze(0), tuple(self.network.grid_size), 1, antialias=True)
        return Tokens(self.network.ln_pre(x + self._positions.at(grid)))

    def block(self, index: int, x: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
        """See ``Trunk.block``."""
        # torch's fast path for MultiheadAttention writes out the whole attention matrix: 0.7 GB where 0.17 do.
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            return self.network.transformer.resblocks[index](x)
        finally:
            torch.backends.mha.set_fastpath_enabled(before)

    def attention_input(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """See ``Trunk.attention_input``."""
        return self.network.transformer.resblocks[index].ln_1(x)

    def projection(self, index: int, facet: Projection) -> Linear:
        """See ``Trunk.projection``."""
        attention = self.network.transformer.resblocks[index].attn
        return rows_of(attention.in_proj_weight, attention.in_proj_bias, facet)

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        """See ``Trunk.norm``. In CoCa the norm belongs to what attention pooling gives, and the tokens stay as they are."""
        return x if self.network.attn_pool is not None else self.network.ln_post(x)

    def embedding(self, x: torch.Tensor) -> torch.Tensor:
        """The image embedding in the joint space, not normalised."""
        pooled, _ = self.network._pool(x)
        return pooled if self.network.proj is None else pooled @ self.network.proj


class ClipTimmTrunk(TimmTrunk):
    """A ``Trunk`` around a timm ViT inside open_clip (SigLIP, EVA-CLIP, PE …)."""

    def __init__(self, tower: TimmModel, name: str) -> None:
        super().__init__(tower.trunk, name)
        self._tower = tower
        self.has_cls = True

    def embedding(self, x: torch.Tensor) -> torch.Tensor:
        """The image embedding in the joint space, not normalised."""
        return self._tower.head(self.network.forward_head(self.network.norm(x)))


def load_clip(
    name: str,
    model: str,
    *,
    facet: Facet,
    layer: int,
    source: WeightsSource,
    device: torch.device,
    dtype: torch.dtype,
    interpolation: Interpolation | None = None,
) -> VitBackbone:
    """The backbone for ``model``; arguments and errors are those of ``open_tower``."""
    opened = open_tower(name, model, facet=facet, layer=layer, source=source, device=device, dtype=dtype, interpolation=interpolation)
    return VitBackbone(opened.spec, opened.trunk, device, opened.dtype)


class OpenedTower(NamedTuple):
    """An image tower on its device, in the type ``dtype`` that it computes in, and what describes it."""

    spec: BackboneSpec
    trunk: ClipTrunk | ClipTimmTrunk
    dtype: torch.dtype


def open_tower(
    name: str,
    model: str,
    *,
    facet: Facet,
    layer: int,
    source: WeightsSource,
    device: torch.device,
    dtype: torch.dtype,
    interpolation: Interpolation | None = None,
) -> OpenedTower:
    """The image tower of ``model`` (``clip:ARCH/TAG``; the tag may be missing if a weights file is given).

    ``interpolation`` is by which photographs are resized, the tag's own if None.

    Raises UsageError for an unknown architecture or tag, one whose image tower is not a plain ViT, or a layer it does
    not have; InputError for weights that are not this model's; and what ``WeightsSource.path`` raises.
    """
    arch, tag, config = look_up_clip(name, model.removeprefix(CLIP), need_tag=not source.given)
    preprocess = open_clip.get_pretrained_cfg(arch, tag) if tag else {}
    quick_gelu = bool(preprocess.get("quick_gelu", config.get("quick_gelu", False)))
    vision = {**config["vision_cfg"], "timm_model_pretrained": False}
    with NoInit():
        tower = _build_vision_tower(config["embed_dim"], vision, quick_gelu)
    trunk = _open(tower, name)
    at = resolve_layer(layer, trunk.depth, name)
    path = source.path(clip_hub_file(preprocess))
    sha256 = sha256_of(path)
    checkpoint = read_checkpoint(path)
    fit(tower, _tower_state(checkpoint.state), path, name)
    if checkpoint.origin == "openai" and not quick_gelu:
        log.warning("%s: is OpenAI's, trained with QuickGELU, but %s computes GELU: give --model %s%s/openai", path, name, CLIP, arch)
    dtype = compute_dtype(dtype, device)
    for part in (trunk.network, tower.head) if isinstance(tower, TimmModel) else (tower,):
        move(part.eval().requires_grad_(False), device, dtype)
    spec = BackboneSpec(
        name=name,
        model=f"{CLIP}{arch}/{tag}" if tag else f"{CLIP}{arch}",
        facet=facet,
        layer=layer,
        stride=trunk.stride,
        dim=feature_width(trunk, facet, at),
        has_cls=True,
        mean=tuple(preprocess.get("mean", open_clip.OPENAI_DATASET_MEAN)),
        std=tuple(preprocess.get("std", open_clip.OPENAI_DATASET_STD)),
        interpolation=interpolation or known_interpolation(preprocess.get("interpolation", "bicubic")),
        weights_sha256=sha256,
    )
    return OpenedTower(spec, trunk, dtype)


def look_up_clip(name: str, rest: str, *, need_tag: bool) -> tuple[str, str | None, dict[str, Any]]:
    """Architecture, tag and configuration of ``rest``, ARCH or ARCH/TAG, by open_clip. Raises UsageError, naming the model ``name``."""
    arch, _, tag = rest.partition("/")
    config = open_clip.get_model_config(arch)
    if config is None:
        raise UsageError(
            f"unknown model {name!r}{suggest(arch, open_clip.list_models())}; open_clip {open_clip.__version__} has no architecture {arch}"
        )
    tags = open_clip.list_pretrained_tags_by_model(arch)
    if tag and not open_clip.get_pretrained_cfg(arch, tag):
        raise UsageError(
            f"unknown model {name!r}; open_clip {open_clip.__version__} has {arch} with the tags {', '.join(tags) or '(none)'}"
        )
    if need_tag and not tag:
        choices = f"one of {', '.join(tags)}" if tags else "none is published, so give a file with --weights"
        raise UsageError(f"{name} needs a tag, as in clip:ARCH/TAG: {choices}")
    return arch, tag or None, config


def trained_size(model: str) -> int | None:
    """The shorter side in pixels of the images that ``model`` (``clip:ARCH/TAG``) was trained at; None if open_clip does not say."""
    config = open_clip.get_model_config(model.removeprefix(CLIP).partition("/")[0]) or {}
    size = config.get("vision_cfg", {}).get("image_size")
    return None if size is None else int(size if isinstance(size, int) else min(size))


def _open(tower: torch.nn.Module, name: str) -> ClipTrunk | ClipTimmTrunk:
    if isinstance(tower, TimmModel):
        return ClipTimmTrunk(tower, name)
    if isinstance(tower, VisionTransformer) and len(set(tower.patch_size)) == 1:
        return ClipTrunk(tower)
    raise UsageError(f"{name} is not supported: its image tower is not a ViT ({type(tower).__name__})")


def clip_hub_file(preprocess: Mapping[str, Any]) -> HubFile | None:
    """``hf_hub`` of a tag is ``owner/name/`` or ``owner/name/file``."""
    repo, _, filename = str(preprocess.get("hf_hub", "")).rpartition("/")
    return HubFile.of(repo, filename or "open_clip_pytorch_model.bin") if repo else None


def _tower_state(state: State) -> State:
    """The image tower's part of a CLIP checkpoint; a file of the tower alone is taken as it is."""
    inner = {key.removeprefix(_VISUAL): value for key, value in state.items() if key.startswith(_VISUAL)}
    return inner or state
