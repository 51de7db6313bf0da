"""The text tower of an open_clip model: words as vectors in the space of its images.

The image tower is ``image_tower``'s; only this half is built and loaded here, from the same file.
"""

from __future__ import annotations

from pathlib import Path

import open_clip
import torch
from open_clip.model import _build_text_tower

from ovskit.core.models.backbones.interface import BackboneSpec
from ovskit.core.models.backbones.names import CLIP
from ovskit.core.models.backbones.prompts import PromptTower
from ovskit.core.models.clip.image_tower import clip_hub_file, look_up_clip
from ovskit.core.models.weights.source import WeightsSource, sha256_of
from ovskit.core.models.weights.state_dict import NoInit, State, fit, read_state_dict
from ovskit.core.runtime.errors import InputError, WeightsUnavailableError

_SCALE = "logit_scale"
_OWN_LAYOUT = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection", "cls_emb")
# What transformers saved once, and computes now.
_COMPUTED = ("transformer.embeddings.position_ids",)


def load_clip_text(spec: BackboneSpec, *, weights: Path | None = None, device: torch.device) -> PromptTower:
    """The text tower beside the image tower that ``spec`` describes (``clip:ARCH/TAG``).

    Raises InputError where the weights have no text tower, or not this one; WeightsUnavailableError where they, or what the
    tokenizer needs, are not available.
    """
    source = WeightsSource(spec.name, weights)
    arch, tag, config = look_up_clip(spec.name, spec.model.removeprefix(CLIP), need_tag=not source.given)
    preprocess = open_clip.get_pretrained_cfg(arch, tag) if tag else {}
    quick_gelu = bool(preprocess.get("quick_gelu", config.get("quick_gelu", False)))
    path = source.path(clip_hub_file(preprocess))
    try:
        tokenizer = open_clip.get_tokenizer(arch)
        with NoInit():
            tower = _build_text_tower(config["embed_dim"], {**config["text_cfg"], "hf_model_pretrained": False}, quick_gelu)
    except (OSError, ImportError) as error:  # the tokenizers and text towers of others, which come from the hub
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise WeightsUnavailableError(f"no tokenizer for {spec.name}: {reason}") from None
    state = read_state_dict(path)
    if _SCALE not in state:
        raise InputError(f"{path}: has no {_SCALE}, so it is not a whole CLIP; --names needs the text tower too")
    fit(tower, _text_state(state), path, f"{spec.name}'s text tower", ignore=_COMPUTED)
    tower.eval().requires_grad_(False).to(device, torch.float32)
    return PromptTower(tower, tokenizer, float(state[_SCALE].double().exp().max()), sha256_of(path), device)


def _text_state(state: State) -> State:
    """The text tower's part of a CLIP checkpoint, which keeps it under ``text.`` or at its top."""
    inner = {key.removeprefix("text."): value for key, value in state.items() if key.startswith("text.")}
    return inner or {key: value for key, value in state.items() if key.split(".")[0] in _OWN_LAYOUT}
