"""Backbones from timm: plain ViTs (``VisionTransformer``) and ViTs with rotary positions (``Eva``: EVA-02, DINOv3, …).

``load_timm`` gives them frozen, as feature extractors; ``open_vit`` and ``fill`` are its parts, for what trains them.

Sizes other than the trained one: rotary positions are computed for the grid at hand; absolute ones are resampled by
bicubic interpolation, each as in its authors' own code:

- DINO and DINOv2 without registers: by scale, with their offset of 0.1 patches (``vit.Positions``), without antialiasing;
  by size, still without antialiasing, if that is wished for.
- DINOv2 with registers: by size, antialiased. Its authors gave up the offset there.
- All others (AugReg, DeiT, MAE and what ``ovs-train dino`` trains): by size, antialiased, as timm trains and runs them.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, resolve_model_data_config
from timm.layers import PatchEmbed
from timm.models import get_pretrained_cfg
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva, EvaBlockPostNorm
from timm.models.vision_transformer import ResPostBlock, VisionTransformer

from ovskit.core.models.backbones.interface import BackboneSpec, Facet, Interpolation, PositionsChoice, Projection, Sampling
from ovskit.core.models.backbones.names import TIMM, short_name, suggest
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
from ovskit.core.models.weights.layouts import to_authors_names
from ovskit.core.models.weights.source import HubFile, WeightsSource, sha256_of
from ovskit.core.models.weights.state_dict import Checkpoint, NoInit, State, fit, read_checkpoint, shape_text
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.logs import get_logger

log = get_logger("weights")

# Parts of a checkpoint that only classification or pretraining uses.
_HEADS = ("head", "head_dist", "mask_token")


class TimmTrunk:
    """A ``Trunk`` around a timm network. Raises UsageError, naming ``model``, for an unsuitable architecture.

    ``changing`` is for a network whose weights may change or move after this: its position embeddings are resampled anew
    each time. One that is not must be on its device already. ``antialias`` and ``sampling`` are for ``vit.Positions``.
    """

    has_cls: bool

    def __init__(self, network: Any, model: str, *, antialias: bool = True, sampling: Sampling = "size", changing: bool = False) -> None:
        _check_architecture(network, model)
        self.network: Any = network
        self.depth = len(network.blocks)
        self.prefix = int(network.num_prefix_tokens)
        self.has_cls = network.cls_token is not None
        self.stride = int(network.patch_embed.patch_size[0])
        self._rotary = isinstance(network, Eva)
        self._prefix_tokens = [token for token in ("cls_token", "dist_token", "reg_token") if getattr(network, token, None) is not None]
        self._antialias, self.sampling = antialias, sampling
        self._positions = None if changing else self._position_table()

    def _position_table(self) -> Positions | None:
        network = self.network
        if network.pos_embed is None:
            return None
        rows = 0 if network.no_embed_class else self.prefix
        grid = tuple(network.patch_embed.grid_size)
        return Positions(network.pos_embed, grid, rows, antialias=self._antialias, sampling=self.sampling)

    def embed(self, images: torch.Tensor) -> Tokens:
        """See ``Trunk.embed``; the positions handed on are rotary ones, where the network has them."""
        network = self.network
        x = network.patch_embed.proj(images)
        grid = (x.shape[2], x.shape[3])
        x = network.patch_embed.norm(x.flatten(2).transpose(1, 2))
        prefix = [getattr(network, token).expand(len(x), -1, -1) for token in self._prefix_tokens]
        positions = self._positions or self._position_table()  # nothing kept: weights may change, or there is no table
        table = None if positions is None else positions.at(grid)
        if table is not None and network.no_embed_class:
            x = x + table
        x = torch.cat([*prefix, x], dim=1)
        if table is not None and not network.no_embed_class:
            x = x + table
        rotary = network.rope.get_embed(shape=grid) if self._rotary and network.rope is not None else None
        return Tokens(network.norm_pre(x), rotary)

    def block(self, index: int, x: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
        """See ``Trunk.block``."""
        block = self.network.blocks[index]
        if not self._rotary:
            return block(x)
        own = positions is not None and getattr(self.network, "rope_mixed", False)
        return block(x, rope=positions[index] if own and positions is not None else positions)

    def attention_input(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """See ``Trunk.attention_input``; blocks that norm after attention project the tokens as they are."""
        block = self.network.blocks[index]
        return x if isinstance(block, ResPostBlock | EvaBlockPostNorm) else block.norm1(x)

    def projection(self, index: int, facet: Projection) -> Linear:
        """See ``Trunk.projection``. Where queries share keys and values, those have fewer heads, so fewer channels."""
        attention = self.network.blocks[index].attn
        if attention.qkv is None:
            linear = getattr(attention, f"{facet[0]}_proj")
            return linear.weight, linear.bias
        weight, bias = rows_of(attention.qkv.weight, attention.qkv.bias, facet)
        separate = getattr(attention, f"{facet[0]}_bias", None)
        return weight, bias if separate is None else separate

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        """See ``Trunk.norm``. Networks that norm only what they have pooled give the tokens as they are."""
        return self.network.norm(x)

    def embedding(self, x: torch.Tensor) -> torch.Tensor:
        """The CLS token after the final norm."""
        return self.network.norm(x)[:, 0]


def _check_architecture(network: Any, model: str) -> None:
    plain = type(network) in (VisionTransformer, VisionTransformerDistilled, Eva) and type(network.patch_embed) is PatchEmbed
    if plain and len(set(network.patch_embed.patch_size)) == 1:
        attentions: list[Any] = [getattr(block, "attn", None) for block in network.blocks]
        if all(hasattr(each, "qkv") and (each.qkv is not None or hasattr(each, "k_proj")) for each in attentions):
            return
    raise _unsupported(model)


def _unsupported(model: str) -> UsageError:
    return UsageError(
        f"{model} is not supported: timm's plain ViTs (VisionTransformer, Eva) are, with square patches and a qkv projection per block"
    )


def load_timm(
    name: str,
    model: str,
    *,
    facet: Facet,
    layer: int,
    source: WeightsSource,
    device: torch.device,
    dtype: torch.dtype,
    positions: PositionsChoice = "official",
    interpolation: Interpolation | None = None,
) -> VitBackbone:
    """The backbone for ``model`` (``timm:NAME``, with or without a tag), called ``name`` in messages and in its spec.

    ``positions`` says whether position embeddings are resampled as the authors do or by size, see the module;
    ``interpolation`` is by which photographs are resized, the model's own if None.

    Raises UsageError for an unknown or unsuitable model or a layer it does not have, InputError for weights that are
    not this model's, and what ``WeightsSource.path`` raises.
    """
    full_name, hub = look_up(name, model)
    with NoInit():
        trunk = open_vit(name, full_name, positions=positions)
    network = trunk.network
    data = resolve_model_data_config(network)
    at = resolve_layer(layer, trunk.depth, name)
    path = source.path(hub)
    sha256 = sha256_of(path)
    fill(network, path, name)
    dtype = compute_dtype(dtype, device)
    move(network, device, dtype)
    spec = BackboneSpec(
        name=name,
        model=f"{TIMM}{full_name}",
        facet=facet,
        layer=layer,
        stride=trunk.stride,
        dim=feature_width(trunk, facet, at),
        has_cls=trunk.has_cls,
        mean=data["mean"],
        std=data["std"],
        interpolation=interpolation or known_interpolation(data["interpolation"]),
        weights_sha256=sha256,
        positions=trunk.sampling,
    )
    return VitBackbone(spec, trunk, device, dtype)


def open_vit(name: str, full_name: str, *, positions: PositionsChoice = "official", changing: bool = False) -> TimmTrunk:
    """A plain ViT of timm by its full name, on the CPU with first weights of its own, and no head; ``name`` is for messages.

    Raises UsageError for any other architecture. ``positions`` as for ``load_timm``, ``changing`` as for ``TimmTrunk``.
    """
    try:
        network = timm.create_model(full_name, pretrained=False, num_classes=0, dynamic_img_size=True)
    except TypeError:  # an architecture that has no such option has no grid of patches to resize either
        raise _unsupported(name) from None
    as_dino = resamples_as_dino(full_name)
    sampling: Sampling = "scale" if as_dino and positions == "official" else "size"
    return TimmTrunk(network, name, antialias=not as_dino, sampling=sampling, changing=changing)


def fill(network: Any, path: Path, name: str) -> None:
    """Load a checkpoint into a ViT of ``open_vit``, all of it. Raises InputError for a damaged file or another model's weights.

    Says so where the file fits, but seems to be of another training than ``name``, whose preprocessing is used.
    """
    checkpoint = read_checkpoint(path, teacher=_is_dinos(_config(network)))
    state = to_authors_names(checkpoint.state)
    fit(network, convert_state(network, state, path, name), path, name, ignore=_HEADS)
    doubt = _doubt(network, Checkpoint(state, checkpoint.origin), name)
    if doubt:
        log.warning("%s: %s", path, doubt)


def _config(network: Any) -> Mapping[str, Any]:
    """What timm knows of a network's training; nothing, for one that timm did not make."""
    found: Mapping[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    return found


def _is_dinos(cfg: Mapping[str, Any]) -> bool:
    """Whether a timm model is one of DINO, DINOv2 or DINOv3."""
    return cfg.get("tag") == "dino" or "dino" in str(cfg.get("architecture"))


def _doubt(network: Any, checkpoint: Checkpoint, name: str) -> str | None:
    """Why weights that fit may not be those of the training that ``name`` stands for, as far as a file can tell; or None.

    Means and standard deviations go by the training, and are not in a checkpoint. DINO's full files have its heads, those of
    classifiers a head. A file without one may be anything; it is in doubt where the user named an architecture only, of whose
    trainings timm's first is taken, and that one's preprocessing is not ImageNet's, which all others share [choice].
    """
    cfg, data = _config(network), resolve_model_data_config(network)
    way = f"mean {_numbers(data['mean'])} and std {_numbers(data['std'])}"
    if checkpoint.origin == "ovskit":  # trained with the preprocessing of its architecture, timm's first
        arch = str(cfg.get("architecture"))
        first = get_pretrained_cfg(arch, allow_unregistered=True)
        if first is None or (tuple(first.mean), tuple(first.std)) == (tuple(data["mean"]), tuple(data["std"])):
            return None
        return f"is of ovs-train, which normalises images otherwise than {name} with its {way}: give --model {TIMM}{arch}"
    has_classifier = "head.weight" in checkpoint.state
    if _is_dinos(cfg):
        if not has_classifier:
            return None
        return f"has a classifier, which {name} has not; images are normalised as for {name} all the same, by {way}"
    dino = short_name(f"{TIMM}{cfg.get('architecture')}.dino")
    if checkpoint.origin == "dino":
        remedy = f": give --model {dino}" if dino else ""
        return f"is laid out as DINO's, but {name} normalises images by {way} and has no positions of DINO{remedy}"
    untagged = name.startswith(TIMM) and "." not in name
    if untagged and not has_classifier and cfg.get("num_classes") and tuple(data["mean"]) != IMAGENET_DEFAULT_MEAN:
        one = f"for DINO's give --model {dino}, " if dino else ""
        full = f"{cfg.get('architecture')}.{cfg.get('tag')}"
        return f"has no classifier, so it may not be {full}, for which images are normalised by {way}: {one}else a tag, {TIMM}ARCH.TAG"
    return None


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def look_up(name: str, model: str) -> tuple[str, HubFile | None]:
    """Full name (architecture and tag) and place on the hub of ``model`` (``timm:NAME``), called ``name`` in messages.

    Raises UsageError for an unknown model or tag.
    """
    timm_name = model.removeprefix(TIMM)
    if not timm.is_model(timm_name):
        raise UsageError(
            f"unknown model {name!r}{suggest(timm_name.split('.')[0], timm.list_models())}; timm {timm.__version__} has no such model"
        )
    try:
        cfg = get_pretrained_cfg(timm_name)
    except RuntimeError:
        arch = timm_name.split(".")[0]
        tags = ", ".join(each.partition(".")[2] for each in timm.list_pretrained(f"{arch}.*"))
        raise UsageError(f"unknown model {name!r}; timm {timm.__version__} has {arch} with the tags {tags or '(none)'}") from None
    if cfg is None:
        return timm_name, None
    hub = HubFile.of(cfg.hf_hub_id, cfg.hf_hub_filename or "pytorch_model.bin") if cfg.hf_hub_id else None
    return f"{cfg.architecture}.{cfg.tag}" if cfg.tag else str(cfg.architecture), hub


def resamples_as_dino(full_name: str) -> bool:
    """Whether a model's authors resample its positions as DINO's do: by scale and without antialiasing."""
    return full_name.endswith(".dino") or ("_dinov2" in full_name and "_reg" not in full_name)


def known_interpolation(name: str) -> Interpolation:
    """The library's word for an interpolation; bicubic for one that only training uses (``random``) [choice]."""
    found: Interpolation = name if name in get_args(Interpolation) else "bicubic"  # type: ignore[assignment]
    return found


def convert_state(network: Any, state: State, path: Path, name: str) -> State:
    """A checkpoint's names as timm's: the authors' own files (DINOv2, DINOv3, CLIP …) are converted, timm's left alone.

    timm's conversion would also resize patch and position embeddings to the model's; a file that needs that belongs to
    another model, and is refused here with InputError. What cannot be converted comes back as it is, for ``fit`` to refuse.
    """
    if network.state_dict().keys() <= state.keys():
        return state
    kernel, expected = state.get("patch_embed.proj.weight"), network.patch_embed.proj.weight
    if kernel is not None and kernel.shape != expected.shape:
        raise InputError(f"{path}: not weights of {name}: patch_embed.proj.weight is {shape_text(kernel)}, not {shape_text(expected)}")
    table, patches = state.get("pos_embed"), network.patch_embed.num_patches
    if table is not None and (table.ndim != 3 or table.shape[1] - patches not in (0, 1, int(network.num_prefix_tokens))):
        raise InputError(f"{path}: not weights of {name}: pos_embed is {shape_text(table)}, for another image size than {patches} patches")
    return converted_by_timm(network, state)


def converted_by_timm(network: Any, state: State) -> State:
    """A checkpoint's names as timm's own conversion for this architecture gives them, or as they are where it has or makes none."""
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # timm prints while it converts DINOv3
            return dict(convert(dict(state), network))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return state


def move(network: Any, device: torch.device, dtype: torch.dtype) -> None:
    """Bring a network to its device and type, but for rotary frequencies, which need float32 to tell far patches apart."""
    rope = getattr(network, "rope", None)
    if rope is None:
        network.to(device, dtype)
        return
    network.rope = None
    network.to(device, dtype)
    network.rope = rope.to(device)
