"""Two trained towers in a run's folder: ``model.safetensors``, whose header says how they are built.

The metadata have one entry, JSON: ``format``, ``config``, ``scale`` (what cosines are multiplied with) and ``training``, an account.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ovskit.core.formats.paths import show_path
from ovskit.core.models.towers.config import TowersConfig
from ovskit.core.models.towers.header import ENTRY, FORMAT, MODEL, checked_config, header_of, model_path
from ovskit.core.models.towers.network import Towers
from ovskit.core.models.weights.state_dict import NoInit, shape_text
from ovskit.core.runtime.errors import InputError, OutputError, UsageError
from ovskit.core.runtime.output import open_output


class LoadedTowers(NamedTuple):
    """A folder's towers, in evaluation mode on the CPU in float32, the scale of their cosines, the account of their training, and the
    sha256 of ``model.safetensors``."""

    towers: Towers
    scale: float
    training: dict[str, Any]
    sha256: str


def save_towers(folder: Path, towers: Towers, scale: float, training: Mapping[str, Any]) -> str:
    """Write ``model.safetensors`` into ``folder``, which is made if need be, whole or not at all; its sha256.

    Weights are float32; what counts is left as it is. The same weights and ``training`` (JSON values) give the same bytes. Raises
    InputError for weights that are not finite, OutputError if the file cannot be written.
    """
    path = folder / MODEL
    tensors = {}
    for name, tensor in towers.state_dict().items():
        kept = tensor.detach().cpu()
        tensors[name] = (kept.float() if kept.is_floating_point() else kept).contiguous()
        if not torch.isfinite(tensors[name]).all():
            raise InputError(f"{show_path(str(path))}: {name} is not finite; the training has gone wrong")
    header = {"format": FORMAT, "config": towers.config.to_json(), "scale": scale, "training": dict(training)}
    content = save(tensors, {ENTRY: json.dumps(header, allow_nan=False)})
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {show_path(str(folder))}: {error.strerror}; give another one") from None
    with open_output(str(path)) as out:
        out.write(content)
    return hashlib.sha256(content).hexdigest()


def load_towers(folder: Path) -> LoadedTowers:
    """What ``save_towers`` wrote. Every tensor's name, shape, type and values are checked; nothing is unpickled.

    Raises MissingInputError if there is no such folder or no finished model in it; InputError for a file that is damaged, is of another
    format, or does not fit what its header describes.
    """
    path = model_path(folder)
    shown = show_path(str(path))
    try:
        content = path.read_bytes()  # at once, so that weights, header and sha256 are of one file
    except OSError as error:
        raise InputError(f"{shown}: cannot be read: {error.strerror}") from None
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{shown}: not a complete safetensors file ({reason}); use another copy of it") from None
    header = header_of(content)
    config = checked_config(header, shown)
    scale = header.get("scale")
    if type(scale) is not float or not math.isfinite(scale) or scale <= 0:
        raise InputError(f"{shown}: its header is damaged (scale {scale!r})")
    towers = _built(config, tensors, shown)
    training = header.get("training")
    return LoadedTowers(towers.eval(), scale, training if isinstance(training, dict) else {}, hashlib.sha256(content).hexdigest())


def _built(config: TowersConfig, tensors: Mapping[str, Tensor], shown: str) -> Towers:
    # All of it is in the weights, so what is larger than they are is damaged, and would take all memory to be found so.
    values = sum(tensor.numel() for tensor in tensors.values())
    if config.dim * config.text_width > values or config.text_width**2 * config.text_layers > values:
        raise InputError(f"{shown}: the configuration in its header is damaged (its sizes are beyond those of the weights)")
    try:
        with NoInit():
            towers = Towers(config)
    except (UsageError, RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{shown}: its image tower {config.arch[:80]!r} cannot be made here ({reason})") from None
    wanted = towers.state_dict()
    for name in sorted(wanted.keys() ^ tensors.keys()):
        raise InputError(f"{shown}: {'lacks' if name in wanted else 'has an unknown'} tensor {name}")
    for name, tensor in wanted.items():
        given = tensors[name]
        if given.shape != tensor.shape:
            raise InputError(f"{shown}: {name} is {shape_text(given)}, the network's is {shape_text(tensor)}")
        if given.dtype != (torch.float32 if tensor.is_floating_point() else tensor.dtype):
            raise InputError(f"{shown}: {name} holds {given.dtype} values")
        if not torch.isfinite(given).all():
            raise InputError(f"{shown}: {name} holds values that are not finite")
    towers.load_state_dict(dict(tensors))
    return towers
