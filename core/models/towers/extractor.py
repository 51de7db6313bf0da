"""The image tower of a run as a frozen extractor of features, and its text tower as one of words: the family ``run:DIR``.

``cls`` is the image's vector in the common space, not of length 1; its width is that of the space, not of the patches. Patch features of a
ViT are its facets; those of a convolutional tower are its last map, normed, whatever facet is asked for by default.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ovskit.core.models.backbones.interface import BackboneSpec, Features, Interpolation, check_images
from ovskit.core.models.backbones.prompts import PromptTower
from ovskit.core.models.backbones.resize import resize_rgb
from ovskit.core.models.backbones.timm_vit import TimmTrunk, move
from ovskit.core.models.backbones.vit import VitBackbone, compute_dtype, feature_width, resolve_layer
from ovskit.core.models.towers.checkpoint import LoadedTowers, load_towers
from ovskit.core.models.towers.header import folder_of
from ovskit.core.models.towers.image_tower import MEAN, STD, ImageTower, as_tokens
from ovskit.core.models.towers.network import tokenizer_of
from ovskit.core.records import UInt8
from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    from ovskit.core.models.family import BackboneRequest

INTERPOLATION: Interpolation = "bicubic"
"""By which photographs are resized in training."""


class RunTrunk(TimmTrunk):
    """A ``Trunk`` around the ViT of an image tower. ``cls`` is always there, if not as a token."""

    def __init__(self, tower: ImageTower) -> None:
        super().__init__(tower.network, tower.arch)
        self._tower = tower
        self.has_cls = True

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        """See ``Trunk.norm``."""
        return self._tower.final(self.network.norm(x))

    def embedding(self, x: torch.Tensor) -> torch.Tensor:
        """The image's vector in the common space, not normalised."""
        return self._tower.projection(self._tower.pooled(self.norm(x)))


class MapBackbone:
    """A ``Backbone`` around a convolutional image tower; features as of ``VitBackbone``, ``patch`` being the last map, normed."""

    def __init__(self, spec: BackboneSpec, tower: ImageTower, device: torch.device, dtype: torch.dtype) -> None:
        self.spec, self.device, self._tower, self._dtype = spec, device, tower, dtype

    def prepare(self, image: UInt8, height: int, width: int) -> torch.Tensor:
        """See ``Backbone.prepare``. Raises UsageError if a side is not a multiple of the stride."""
        check_size(self.spec, height, width)
        return resize_rgb(image, height, width, self.spec.interpolation)

    def extract(self, batch: torch.Tensor, *, cls: bool = False, patch: bool = True) -> Features:
        """See ``Backbone.extract``."""
        check_images(batch, self.spec.name)
        check_size(self.spec, batch.shape[2], batch.shape[3])
        pieces = batch.split(1) if self.device.type == "cpu" else (batch,)
        with torch.inference_mode():
            found = [self._forward(piece, cls, patch) for piece in pieces]
        return Features(
            torch.cat([each.patch for each in found]), torch.cat([each.cls for each in found if each.cls is not None]) if cls else None
        )

    def _forward(self, images: torch.Tensor, cls: bool, patch: bool) -> Features:
        if not (patch or cls):
            return Features(torch.empty(len(images), 0, 0, self.spec.dim, dtype=self._dtype, device=self.device), None)
        grid = (images.shape[2] // self.spec.stride, images.shape[3] // self.spec.stride)
        tokens = last_tokens(self._tower, images.to(self.device), grid)
        normed = self._tower.final(tokens)
        vector = self._tower.projection(self._tower.pooled(normed)) if cls else None
        return Features(normed.reshape(len(images), *grid, -1) if patch else normed.new_empty(len(images), 0, 0, self.spec.dim), vector)


def last_tokens(tower: ImageTower, images: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The last map of a convolutional tower as tokens (b, h·w, c), of uint8 images on its device. Raises UsageError where the network has a
    map of another size than ``grid``."""
    features = tower.network.forward_features(tower.normalised(images))
    if tuple(features.shape[2:]) != grid:
        raise UsageError(f"{tower.arch} gives a map of {tuple(features.shape[2:])} where {grid} was expected; give another size")
    return as_tokens(features)


def check_size(spec: BackboneSpec, height: int, width: int) -> None:
    """Raises UsageError for sides that are not multiples of the stride."""
    stride = spec.stride
    if height < stride or width < stride or height % stride or width % stride:
        raise UsageError(f"size {height}×{width}: {spec.name} needs multiples of its stride of {stride} pixels")


def load_run(request: BackboneRequest) -> VitBackbone | MapBackbone:
    """The image tower of the run that ``request.model`` (``run:DIR``) names.

    Raises UsageError for ``--weights``, for a facet or a layer that the tower does not have, and what ``load_towers`` raises.
    """
    loaded = open_run(request.name, request.model, request.weights)
    tower, dtype = loaded.towers.image, compute_dtype(request.dtype, request.device)
    if tower.trunk is None:
        if request.facet in ("query", "value"):
            raise UsageError(f"--facet {request.facet}: {request.name} is convolutional and has no facets; give token")
        tower.eval().requires_grad_(False).to(request.device, dtype)
        spec = spec_of(request, loaded, facet="token", layer=-1, dim=tower.width)
        return MapBackbone(spec, tower, request.device, dtype)
    at = resolve_layer(request.layer, tower.trunk.depth, request.name)
    spec = spec_of(request, loaded, facet=request.facet, layer=at, dim=feature_width(tower.trunk, request.facet, at))
    tower.eval().requires_grad_(False)
    trunk = moved_trunk(tower, request.device, dtype)
    return VitBackbone(spec, trunk, request.device, dtype)


def moved_trunk(tower: ImageTower, device: torch.device, dtype: torch.dtype) -> RunTrunk:
    """The tower's ViT opened on its device, in its type."""
    move(tower.network, device, dtype)
    tower.projection.to(device, dtype)
    return RunTrunk(tower)


def spec_of(request: BackboneRequest, loaded: LoadedTowers, *, facet: Any, layer: int, dim: int) -> BackboneSpec:
    """The description of a run's image tower."""
    return BackboneSpec(
        name=request.name,
        model=request.model,
        facet=facet,
        layer=layer,
        stride=loaded.towers.image.stride,
        dim=dim,
        has_cls=True,
        mean=MEAN,
        std=STD,
        interpolation=request.interpolation or INTERPOLATION,
        weights_sha256=loaded.sha256,
    )


def load_run_text(spec: BackboneSpec, *, weights: Path | None, device: torch.device) -> PromptTower:
    """The text tower beside the image tower that ``spec`` (``run:DIR``) describes. Raises as ``load_run`` does."""
    loaded = open_run(spec.name, spec.model, weights)
    text = loaded.towers.text.eval().requires_grad_(False).to(device, torch.float32)
    return PromptTower(text, tokenizer_of(loaded.towers.config), loaded.scale, loaded.sha256, device)


def open_run(name: str, model: str, weights: Path | None) -> LoadedTowers:
    """The towers of ``run:DIR``. Raises UsageError for weights that are given beside."""
    if weights is not None:
        raise UsageError(f"--weights: {name} is a run with weights of its own; name another run with --model run:DIR")
    return load_towers(folder_of(model))
