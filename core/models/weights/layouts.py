"""How checkpoints are laid out: what training scripts wrap weights in, and what others call the parameters of a vision transformer.

Nothing here knows a network; ``state_dict`` reads files, ``backbones.timm_vit`` fits what comes out into timm's networks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch

State = dict[str, torch.Tensor]
Origin = Literal["dino", "openai", "ovskit"]

# How training scripts nest what they save: {"epoch": …, "state_dict": {…}}, {"teacher": {…}, "student": {…}}.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "teacher", "student", "state_dict_ema", "model_ema")
# What wrappers of the network itself, distributed or compiled, put before every name.
_PREFIXES = ("module.", "_orig_mod.")
# The heads that DINO, iBOT and DINOv2 are trained with. No classifier has such names.
_DINO_HEADS = ("head.mlp.", "head.last_layer.", "dino_head.", "ibot_head.")
# Buffers of OpenAI's CLIP archives.
_OPENAI = {"input_resolution", "context_length", "vocab_size"}

_PATCHES = "embeddings.patch_embeddings.projection.weight"
_PATCHES_3 = "embeddings.patch_embeddings.weight"  # of DINOv3
_BLOCK = re.compile(r"(?:encoder\.|model\.)?layers?\.(\d+)\.(.+?)(\.weight|\.bias|)")
_CHUNKED = re.compile(r"blocks\.\d+\.(\d+)\.")
# transformers' names, older ones as in its files and newer ones as in its modules, and the authors'.
_OUTSIDE_BLOCKS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.distillation_token": "dist_token",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.mask_token": "mask_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "embeddings.patch_embeddings.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_IN_BLOCKS = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.attention.query": "attn.q",
    "attention.attention.key": "attn.k",
    "attention.attention.value": "attn.v",
    "attention.output.dense": "attn.proj",
    "attention.q_proj": "attn.q",
    "attention.k_proj": "attn.k",
    "attention.v_proj": "attn.v",
    "attention.o_proj": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.weights_in": "mlp.w12",
    "mlp.weights_out": "mlp.w3",
    "mlp.gate_proj": "mlp.w1",
    "mlp.up_proj": "mlp.w2",
    "mlp.down_proj": "mlp.w3",
}


def unwrap(content: Any, *, teacher: bool = False) -> tuple[State, list[str], str | None, bool]:
    """The innermost mapping from names to tensors in what a training script saved.

    Returns it; the wrappers that held weights where they were first several, or a student without its teacher; the one taken
    there; and whether anything says that DINO's code, or iBOT's or DINOv2's after it, wrote the file. If there are several,
    the first of ``_WRAPPERS`` is taken, but the teacher where there is a student beside it, where it is laid out as DINO's, or where
    ``teacher`` asks for it: it is what DINO's authors evaluate.
    """
    several: list[str] = []
    taken, is_dino = None, False
    while isinstance(content, Mapping):
        found = [key for key in _WRAPPERS if _holds_tensors(content.get(key))]
        is_dino = is_dino or "dino_loss" in content or _has_dino_head(content)
        if not found:
            return {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}, several, taken, is_dino
        key = found[0]
        if "teacher" in found and (teacher or "student" in found or _has_dino_head(content["teacher"])):
            key = "teacher"
        if not several and (len(found) > 1 or key == "student"):
            several, taken = found, key
        content = content[key]
    return {}, several, taken, is_dino


def _holds_tensors(content: Any) -> bool:
    """Whether there is a tensor in a mapping, or in one of the wrappers in it."""
    depth = 0
    waiting = [content]
    while waiting and depth < 1000:  # wrappers in wrappers, without end in a hostile file
        depth += 1
        each = waiting.pop()
        if not isinstance(each, Mapping):
            continue
        if any(isinstance(value, torch.Tensor) for value in each.values()):
            return True
        waiting += [each[key] for key in _WRAPPERS if key in each]
    return False


def _has_dino_head(content: Any) -> bool:
    return isinstance(content, Mapping) and any(_bare(str(name)).startswith(_DINO_HEADS) for name in content)


def _bare(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def strip_prefixes(state: State) -> State:
    """Names without what wrappers of the network put before them; where there is a ``backbone.``, only what is below it."""
    while any(state and all(name.startswith(prefix) for name in state) for prefix in _PREFIXES):
        state = {name.partition(".")[2]: value for name, value in state.items()}
    inner = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    return inner or state


def is_openai_clip(names: Iterable[str]) -> bool:
    """Whether a TorchScript archive is one of those that OpenAI published CLIP in."""
    return set(names) >= _OPENAI


def to_authors_names(state: State) -> State:
    """The parameters of a ViT by the names in DINO's, DINOv2's and DINOv3's own files, of which timm's are nearly all the same.

    From transformers' ViT, DeiT, DINOv2, with and without registers, and DINOv3, alone or inside another model; and from DINOv2's
    training, which keeps blocks in chunks. Everything else comes back as it is, as does what has no other name.
    """
    for patches in (_PATCHES, _PATCHES_3):
        found = next((name for name in state if name.endswith(patches)), None)
        if found is not None:
            inner = _from_transformers(state, found.removesuffix(patches))
            return _as_dinov2(inner) if patches == _PATCHES else _as_dinov3(inner)
    blocks = [name for name in state if name.startswith("blocks.")]
    if blocks and all(_CHUNKED.match(name) for name in blocks):
        return {_CHUNKED.sub(r"blocks.\1.", name): value for name, value in state.items()}
    return state


def _from_transformers(state: State, prefix: str) -> State:
    out: State = {}
    for whole, tensor in state.items():
        name = whole.removeprefix(prefix)
        if whole.startswith("classifier."):
            out[whole.replace("classifier", "head")] = tensor
        elif not whole.startswith(prefix) or name.startswith("pooler."):
            continue  # what classification and pretraining have around the network, and a pooler that DINO's networks lack
        elif name in _OUTSIDE_BLOCKS:
            out[_OUTSIDE_BLOCKS[name]] = tensor
        else:
            block = _BLOCK.fullmatch(name)
            rest = None if block is None else _IN_BLOCKS.get(block[2], block[2])
            out[name if block is None else f"blocks.{block[1]}.{rest}{block[3]}"] = tensor
    return out


def _as_dinov2(out: State) -> State:
    _join(out, "attn.qkv", ("attn.q", "attn.k", "attn.v"))
    _join(out, "mlp.w12", ("mlp.w1", "mlp.w2"))
    if "register_tokens" in out or any(".mlp.w12." in name for name in out):
        # Unless it was saved by DINOv2's own code there may be none; it is what timm knows DINOv2's names by.
        out.setdefault("mask_token", torch.zeros(1, 1))
    return out


def _as_dinov3(out: State) -> State:
    for name in [name for name in out if name.endswith(".attn.q.bias")]:  # keys have none, or one of zeros
        out.setdefault(name.replace(".q.", ".k."), torch.zeros_like(out[name]))
    _join(out, "attn.qkv", ("attn.q", "attn.k", "attn.v"))
    if not any(".mlp.w1." in name for name in out):  # no gate
        out = {name.replace(".mlp.w2.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2."): tensor for name, tensor in out.items()}
    return {name.replace("register_tokens", "storage_tokens"): tensor for name, tensor in out.items()}


def _join(state: State, joined: str, parts: tuple[str, ...]) -> None:
    """Make one matrix, or one bias, of those that lie one below the other in the authors' files, where all are there."""
    for first in [name for name in state if f".{parts[0]}." in name]:
        names = [first.replace(f".{parts[0]}.", f".{part}.") for part in parts]
        if all(name in state for name in names):
            state[first.replace(f".{parts[0]}.", f".{joined}.")] = torch.cat([state.pop(name) for name in names])
