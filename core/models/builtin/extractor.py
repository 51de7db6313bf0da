"""``builtin-v1``: what the network learned beside the hand-made descriptor, smoothed within what both hold together.

An image of S × S pixels gets a grid of S/8 × S/8 patches, 64 channels each:

1. the 32 strongest principal components of ``handmade-v1``,
2. the 32 strongest of the network's embedding of the image at half the size, whose stride of 4 gives the same grid,
   counted at 0.7 of the hand-made part,
3. half-power whitening of the 64 (``whitening.half_whiten``),
4. a diffusion (``diffusion``) that stops where these features differ and where the network sees a boundary, and
   half-power whitening again.

``cls`` is the vector of ``global_vector``, where the weights come with its axes. All of it is a choice; docs/notes/builtin.md has
what was measured. Everything runs image by image on a CPU, so that no sum depends on a batch and memory does not grow with
it, and whatever follows the network is made of exact sums and tables: the same image gives the same bytes in any batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
import torch.nn.functional as F

from ovskit.core.models.backbones.handmade import HandmadeBackbone
from ovskit.core.models.backbones.interface import BackboneSpec, Features, Interpolation, check_images
from ovskit.core.models.backbones.names import BUILTIN
from ovskit.core.models.backbones.resize import resize_rgb
from ovskit.core.models.backbones.whitening import half_whiten, principal_components, quantise
from ovskit.core.models.builtin.diffusion import conductance, diffuse, neighbour_distances, probability
from ovskit.core.models.builtin.global_vector import GlobalVector
from ovskit.core.models.builtin.network import Grouping, GroupingNetwork, fold_batch_norms, normalise
from ovskit.core.models.builtin.weights import load_network
from ovskit.core.records import UInt8
from ovskit.core.runtime.errors import InputError, UsageError

WEIGHTS = "builtin-v1.safetensors"
SHA256 = "6647fe77eae500637744ed8e78b613aaeb554b969eb355f7519cc027fa5fde99"

_PATCH = 8
_VARIANCE = 32.0  # of the features that distances are taken of, summed over channels
_COARSE = slice(1, None)  # the finest segments' boundaries are texture
# Where its partitions are best recorded: 24 numbers of regions from 900 down to 2, each about 0.77 of the one before.
COUNTS = (900, 692, 533, 410, 315, 242, 186, 143, 110, 85, 65, 50, 39, 30, 23, 18, 14, 11, 8, 6, 5, 4, 3, 2)
_SHORTEST = 64  # pixels: what is smaller is enlarged for the network


@dataclass(frozen=True, slots=True)
class Composition:
    """How the parts become one descriptor; the defaults are ``builtin-v1``, ``bench/builtin.py`` measures others.

    ``handmade`` and ``embedded`` principal components are kept of the hand-made channels and of each embedding;
    ``learned`` is the standard deviation of each embedding, where the hand-made part has 1. The network sees the image
    at 1/``scales`` of its size, one embedding each. ``steps`` of diffusion have the conductance exp(−``contrast`` ·
    distance − ``boundary`` · probability of a boundary). Without ``whiten`` steps 3 and 4 leave out the whitening.
    """

    handmade: int = 32
    embedded: int = 32
    learned: float = 0.7
    scales: tuple[int, ...] = (2,)
    steps: int = 40
    contrast: float = 8.0
    boundary: float = 4.0
    whiten: bool = True


class BuiltinBackbone:
    """The extractor as a ``Backbone``: (b, H/8, W/8, 64) float32, and ``cls`` (b, 128) float32 if ``vector`` has its axes.

    It has no facets and no layers; the specification records ``key`` and −1.
    """

    def __init__(
        self,
        name: str,
        network: GroupingNetwork,
        sha256: str,
        device: torch.device,
        composition: Composition | None = None,
        vector: GlobalVector | None = None,
        interpolation: Interpolation | None = None,
    ) -> None:
        self._composition = composition = composition or Composition()
        self._handmade = HandmadeBackbone(name, device)
        self.spec = BackboneSpec(
            name=name,
            model=BUILTIN,
            facet="key",
            layer=-1,
            stride=_PATCH,
            dim=composition.handmade + composition.embedded * len(composition.scales),
            has_cls=vector is not None,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            interpolation=interpolation or "bilinear",
            weights_sha256=sha256,
            counts=COUNTS,
            local=False,
        )
        self.device = device
        self._network = fold_batch_norms(network).to(device).to(memory_format=torch.channels_last)
        self._place = torch.device("cpu") if device.type == "mps" else device  # exact sums need float64
        self._vector = None if vector is None else vector.to(self._place)

    def prepare(self, image: UInt8, height: int, width: int) -> torch.Tensor:
        """See ``Backbone.prepare``. Raises UsageError if a side is not a positive multiple of 8."""
        _check_size(height, width)
        return resize_rgb(image, height, width, self.spec.interpolation)

    def extract(self, batch: torch.Tensor, *, cls: bool = False, patch: bool = True) -> Features:
        """See ``Backbone.extract``. An image of one colour has zero features, but may have a ``cls`` that is not."""
        if cls and self._vector is None:
            raise UsageError(
                f"{self.spec.name}: these weights come without the axes of a global vector; leave --cls out, or train them again"
            )
        check_images(batch, self.spec.name)
        height, width = batch.shape[2:]
        _check_size(height, width)
        with torch.inference_mode():
            # One at a time on a CPU, see the module; a batch of none has its shapes all the same.
            pieces = batch.split(1) if self.device.type == "cpu" and len(batch) else (batch,)
            found = [self._extract(piece.to(self.device), cls, patch) for piece in pieces]
        vectors = [each.cls for each in found if each.cls is not None]
        return Features(torch.cat([each.patch for each in found]), torch.cat(vectors) if cls else None)

    def _extract(self, images: torch.Tensor, cls: bool, patch: bool) -> Features:
        count, _, height, width = images.shape
        grid = (height // _PATCH, width // _PATCH) if patch else (0, 0)
        nothing = torch.empty(count, *grid, self.spec.dim, device=self.device)
        vectors = None
        if cls and self._vector is not None:
            with _one_thread(images.device):
                vectors = self._vector(self._network, images) if count else torch.empty(0, self._vector.width)
            vectors = vectors.to(self.device)
        if not patch or not count:
            return Features(nothing, vectors)
        seen = [_moved(self._grouping_at(images, scale), self._place) for scale in self._composition.scales]
        handmade = self._handmade.extract(images).patch.permute(0, 3, 1, 2).to(self._place)
        return Features(_compose(handmade, seen, grid, self._composition).to(self.device), vectors)

    def _grouping_at(self, images: torch.Tensor, scale: int) -> Grouping:
        """What the network says of the images at 1/scale of their size."""
        size = [max(_SHORTEST, side // scale) for side in images.shape[2:]]
        small = F.interpolate(images.float(), size, mode="bilinear", antialias=True, align_corners=False)
        with _one_thread(small.device):
            out: Grouping = self._network(normalise(small).contiguous(memory_format=torch.channels_last))
        return out


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """On a CPU, with one thread of torch's: on some, several share out the sums of a convolution over a small map, in another order.

    The network takes a sixth of the time that features take, so little is lost.
    """
    before = torch.get_num_threads()
    if device.type != "cpu" or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load_builtin(
    name: str,
    *,
    weights: Path | None = None,
    device: torch.device,
    composition: Composition | None = None,
    interpolation: Interpolation | None = None,
) -> BuiltinBackbone:
    """The extractor under the name that the user typed, with the weights that come with ovskit or those of a file.

    Raises InputError if the weights are damaged: those that come with ovskit are compared with the hash they had.
    """
    if weights is not None:
        network, vector, sha256 = load_network(weights)
        return BuiltinBackbone(name, network, sha256, device, composition, vector, interpolation)
    with resources.as_file(resources.files(__package__) / WEIGHTS) as path:
        network, vector, sha256 = load_network(path)
    if sha256 != SHA256:
        raise InputError(
            f"{WEIGHTS}: the weights that came with ovskit have changed (sha256 {sha256[:12]}…, expected {SHA256[:12]}…); install it again"
        )
    return BuiltinBackbone(name, network, sha256, device, composition, vector, interpolation)


def _compose(handmade: torch.Tensor, seen: list[Grouping], grid: tuple[int, int], how: Composition) -> torch.Tensor:
    """Steps 1 to 4 of the module: (b, h, w, 64) float32 from the hand-made channels (b, 60, h, w)."""
    parts = [_components(handmade, how.handmade, 1.0)] if how.handmade else []
    # Where there is nothing to see, what the network makes of the image's borders is not evidence.
    anything = (handmade != 0).flatten(1).any(dim=1)[:, None, None, None]
    parts += [_resized(_components(grouping.embedding, how.embedded, how.learned), grid) * anything for grouping in seen]
    finish = _whitened if how.whiten else _centred
    features = finish(torch.cat(parts, dim=1))
    right, below = (_boundaries([getattr(grouping, side) for grouping in seen], grid) for side in ("right", "below"))
    across, down = neighbour_distances(features)
    smooth = diffuse(
        features,
        conductance(how.contrast * across + how.boundary * right[..., :, :-1]),
        conductance(how.contrast * down + how.boundary * below[..., :-1, :]),
        how.steps,
    )
    return finish(smooth).permute(0, 2, 3, 1).contiguous()


def _components(x: torch.Tensor, count: int, deviation: float) -> torch.Tensor:
    """The strongest components of (b, c, h, w), scaled so that their variances sum to ``deviation``² · ``_VARIANCE``; quantised."""
    batch, channels, height, width = x.shape
    scaled = _scaled(x.flatten(2), _VARIANCE)
    found = principal_components(scaled, min(count, channels))
    out = _scaled(found, deviation * deviation * _VARIANCE).view(batch, -1, height, width)
    return F.pad(out, (0, 0, 0, 0, 0, count - out.shape[1]))


def _scaled(x: torch.Tensor, variance: float) -> torch.Tensor:
    """(b, c, n) centred, with variances that sum to ``variance`` over channels; quantised. Constant channels become 0."""
    y = quantise(x.float()).double()
    y = y - y.sum(dim=2, keepdim=True) / y.shape[2]
    y = quantise(y)
    total = (y * y).sum(dim=2).sum(dim=1) / y.shape[2]
    factor = torch.where(total > 1e-6, (variance / total.clamp_min(1e-6)).sqrt(), 0.0)
    return quantise((y * factor[:, None, None]).float().clamp(-64, 64))


def _resized(x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    if x.shape[2:] == grid:
        return x
    return quantise(F.interpolate(x, size=grid, mode="bilinear", align_corners=False))


def _whitened(x: torch.Tensor) -> torch.Tensor:
    """(b, c, h, w) half-whitened per image, variances that sum to ``_VARIANCE``; quantised."""
    return _scaled(half_whiten(_scaled(x.flatten(2), _VARIANCE)), _VARIANCE).view(x.shape)


def _centred(x: torch.Tensor) -> torch.Tensor:
    """(b, c, h, w) centred per image, variances that sum to ``_VARIANCE``; quantised."""
    return _scaled(x.flatten(2), _VARIANCE).view(x.shape)


def _boundaries(logits: list[torch.Tensor], grid: tuple[int, int]) -> torch.Tensor:
    """The mean probability of a boundary over scales and all but the finest granularity: (b, 1, h, w)."""
    found = []
    for logit in logits:
        levels = logit[:, _COARSE] if logit.shape[1] > 1 else logit
        found.append(_resized(probability(quantise(levels.float())).double().mean(dim=1, keepdim=True), grid))
    return quantise(sum(found[1:], found[0]) / len(found))


def _moved(grouping: Grouping, place: torch.device) -> Grouping:
    return Grouping(grouping.embedding.to(place), grouping.right.to(place), grouping.below.to(place), grouping.pooled)


def _check_size(height: int, width: int) -> None:
    if height < _PATCH or width < _PATCH or height % _PATCH or width % _PATCH:
        raise UsageError(f"size {height}×{width}: builtin needs multiples of its {_PATCH}-pixel patch")
