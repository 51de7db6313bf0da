"""What a frozen feature extractor is to the rest of ovskit.

``ovs-extract`` runs one over whole images; the local step of ``ovs-cluster`` runs the same one over crops, found
again from the description that the feature stream carries. Families (``families``) implement ``Backbone``; nobody
outside ``core/models`` knows which one it talks to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

from ovskit.core.records import Float, UInt8
from ovskit.core.runtime.errors import InputError, UsageError

if TYPE_CHECKING:  # a stream's header is read without torch
    import torch

Facet = Literal["key", "query", "value", "token"]
FACETS: tuple[Facet, ...] = ("key", "query", "value", "token")
Projection = Literal["query", "key", "value"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
# How position embeddings come to another grid of patches, see ``vit.Positions``; and the choice that a person has.
Sampling = Literal["size", "scale"]
PositionsChoice = Literal["official", "size"]


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """Everything needed to build the same extractor again, and to refuse a different one.

    ``name`` is what the user typed; ``model`` what it stands for (``handmade-v1``, ``timm:vit_base_patch8_224.dino``);
    ``layer`` counts transformer blocks from 0, negative from the end; ``stride`` is the patch size in pixels; ``dim``
    the width of a patch feature; ``mean`` and ``std`` are the model's own preprocessing, and so is ``interpolation``, by which
    photographs are resized, unless a person says otherwise; ``positions`` is how its position embeddings are resampled.
    ``weights_sha256`` is None for a model without weights. ``counts``, if not None, descend: the numbers of regions at which
    partitions of its features are best recorded, for models whose similarities are not DINO's. ``local`` says whether the
    local step, which clusters small regions again, is worth its time by default.
    """

    name: str
    model: str
    facet: Facet
    layer: int
    stride: int
    dim: int
    has_cls: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation
    weights_sha256: str | None = None
    counts: tuple[int, ...] | None = None
    local: bool = True
    positions: Sampling = "size"

    def to_json(self) -> dict[str, Any]:
        """The specification as plain JSON values, for a stream's header."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BackboneSpec:
        """The inverse of ``to_json``. Raises InputError if a field is missing or of the wrong kind.

        Streams from before there were ``positions`` to choose do not name any; they were made by ``size``.
        """
        try:
            mean, std = (tuple(float(v) for v in data[key]) for key in ("mean", "std"))
            if len(mean) != 3 or len(std) != 3 or data["facet"] not in FACETS:
                raise ValueError
            interpolation, positions = data["interpolation"], data.get("positions", "size")
            if interpolation not in get_args(Interpolation) or positions not in get_args(Sampling):
                raise ValueError
            sha, counts = data["weights_sha256"], data.get("counts")
            return cls(
                name=str(data["name"]),
                model=str(data["model"]),
                facet=data["facet"],
                layer=int(data["layer"]),
                stride=int(data["stride"]),
                dim=int(data["dim"]),
                has_cls=bool(data["has_cls"]),
                mean=(mean[0], mean[1], mean[2]),
                std=(std[0], std[1], std[2]),
                interpolation=interpolation,
                weights_sha256=None if sha is None else str(sha),
                counts=None if counts is None else tuple(int(v) for v in counts),
                local=bool(data.get("local", True)),
                positions=positions,
            )
        except (KeyError, TypeError, ValueError):
            raise InputError("the feature stream's model description is incomplete; extract the features again") from None


@dataclass(frozen=True, slots=True)
class Features:
    """What one forward pass gives: ``patch`` (b, h, w, c) and, where the model has one and it was asked for, ``cls`` (b, c)."""

    patch: torch.Tensor
    cls: torch.Tensor | None


class Backbone(Protocol):
    """A frozen network (or descriptor) from images to patch features."""

    spec: BackboneSpec
    device: torch.device

    def prepare(self, image: UInt8, height: int, width: int) -> torch.Tensor:
        """Resize an RGB image (H, W, 3) uint8 to (3, height, width) uint8 on the CPU; thread-safe, runs in decode workers.

        ``height`` and ``width`` are multiples of ``spec.stride``.
        """
        ...

    def extract(self, batch: torch.Tensor, *, cls: bool = False, patch: bool = True) -> Features:
        """Features of a (b, 3, H, W) uint8 batch: normalisation, forward pass, facet; computed on ``device``.

        Row k of the result depends on image k alone. With ``patch=False`` the patch tensor may be empty (b, 0, 0, c) where that
        saves work. Raises UsageError if ``cls`` is asked of a model that has none, or for images that are not as ``prepare``
        makes them, see ``check_images``.
        """
        ...


@runtime_checkable
class Projecting(Protocol):
    """A backbone with attention, of which several projections can be had at once."""

    def projections(self, batch: torch.Tensor, facets: Sequence[Projection]) -> tuple[torch.Tensor, ...]:
        """The facets of block ``spec.layer`` by one forward pass of a (b, 3, H, W) uint8 batch: each (b, h, w, d), as ``extract`` gives it.

        Row k depends on image k alone. Raises UsageError as ``Backbone.extract`` does.
        """
        ...


class TextTower(Protocol):
    """What makes vectors of words, in the space of the ``cls`` of the image tower beside it.

    ``scale`` is what the model multiplies cosines with before a softmax; ``weights_sha256`` is of the file with its weights.
    """

    scale: float
    weights_sha256: str | None

    def embed(self, prompts: Sequence[str]) -> Float:
        """(n, c) float32, of length 1; what exceeds the model's context is cut off."""
        ...


def check_images(images: torch.Tensor, name: str) -> None:
    """Raises UsageError, naming the model ``name``, if images are not (b, 3, H, W) uint8.

    Models normalise by themselves: floating-point images from 0 to 1, or normalised before, would be normalised once more
    and give features of something else, silently.
    """
    kind, shape = str(images.dtype).removeprefix("torch."), tuple(images.shape)
    if kind != "uint8":
        raise UsageError(f"{name} takes images as uint8, 0 to 255, and normalises them itself; these are {kind}")
    if len(shape) != 4 or shape[1] != 3:
        raise UsageError(f"{name} takes images of shape (b, 3, H, W), RGB; these have {'×'.join(map(str, shape)) or 'no axes'}")
