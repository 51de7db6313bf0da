"""A trained segmenter's folder: ``model.safetensors``, and beside it what is in its header, for people to read.

One file decides. ``model.safetensors`` holds the weights and, in its header, the configuration and the account of the
training; it is moved into place whole, and reading looks at nothing else, so that old and new never mix. ``config.json`` and
``training.json`` are copies of the header for people. They are written first, and carry the sha256 of the weights that they
belong to: after a crash between the files it is not that of ``model.safetensors``, and the copies are to be ignored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ovskit.core.models.segmenter.config import SegmenterConfig
from ovskit.core.models.segmenter.network import Segmenter
from ovskit.core.models.weights.state_dict import shape_text
from ovskit.core.runtime.errors import InputError, MissingInputError, OutputError, UsageError
from ovskit.core.runtime.output import open_output

FORMAT = "ovskit.segmenter/1"
MODEL, CONFIG, TRAINING = "model.safetensors", "config.json", "training.json"
# One entry for everything: safetensors writes several in no fixed order, and the same weights should be the same bytes.
_ENTRY = "ovskit"


class LoadedSegmenter(NamedTuple):
    """A folder's segmenter, in evaluation mode on the CPU, what ``save_segmenter`` was told of its training, and the
    sha256 of ``model.safetensors``."""

    segmenter: Segmenter
    training: dict[str, Any]
    sha256: str


def save_segmenter(folder: Path, segmenter: Segmenter, training: Mapping[str, Any]) -> str:
    """Write the three files into ``folder``, which is made if need be, each whole or not at all; the weights' sha256.

    ``training`` (JSON values: provenance, data, step, scores) is kept with the weights. Weights are float32; what counts is left as it
    is. The same weights and ``training`` give the same bytes. Raises InputError for weights that are not finite, before anything is
    written, ValueError for a ``training`` that is not JSON, OutputError if a file cannot be written.
    """
    tensors = {}
    for name, tensor in segmenter.state_dict().items():
        kept = tensor.detach().cpu()
        tensors[name] = (kept.float() if kept.is_floating_point() else kept).contiguous()
        if not torch.isfinite(tensors[name]).all():
            raise InputError(f"{folder / MODEL}: {name} is not finite; the training has gone wrong")
    header = {"format": FORMAT, "config": segmenter.config.to_json(), "training": dict(training)}
    content = save(tensors, {_ENTRY: json.dumps(header, allow_nan=False)})
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}; give another one") from None
    about = {"format": FORMAT, "sha256": sha256}
    _write(folder / CONFIG, _text(about | {"config": header["config"]}))
    _write(folder / TRAINING, _text(about | {"training": header["training"]}))
    _write(folder / MODEL, content)
    return sha256


def load_segmenter(folder: Path, build: Callable[[SegmenterConfig], nn.Module]) -> LoadedSegmenter:
    """What ``save_segmenter`` wrote; ``build`` makes the pyramid that the configuration names, whose weights are replaced.

    Every tensor's name, shape, type and values are checked before the first is taken over. Nothing is unpickled. Raises
    MissingInputError if there is no such folder or nothing in it, InputError for a file that is damaged, of another format, or
    does not fit the network that ``build`` and the configuration make, or names a backbone that ``build`` does not know.
    """
    path = folder / MODEL
    content = _read(path)
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a complete safetensors file ({error}); fetch it again") from None
    header = _header(content)
    if header.get("format") != FORMAT:
        raise InputError(f"{path}: not a segmenter's weights ({_instead(header)})")
    try:
        config = SegmenterConfig.from_json(header["config"])
        training = dict(header["training"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: the configuration in its header is damaged ({_reason(error)})") from None
    segmenter = _built(config, tensors, build, path)
    _fill(segmenter, tensors, path)
    return LoadedSegmenter(segmenter.eval(), training, hashlib.sha256(content).hexdigest())


def _read(path: Path) -> bytes:
    """The whole file at once, so that weights, header and sha256 are of one file even if it is replaced meanwhile."""
    try:
        if path.exists() and not path.is_file():  # a device or a named pipe may have no end
            raise InputError(f"{path}: is not an ordinary file; give the folder of a finished run")
        return path.read_bytes()
    except FileNotFoundError:
        folder = path.parent
        raise MissingInputError(f"{folder}: holds no {MODEL}" if folder.is_dir() else f"{folder}: no such folder") from None
    except NotADirectoryError:
        raise InputError(f"{path.parent}: is a file; give the folder that a segmenter's {MODEL} is in") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _header(content: bytes) -> dict[str, Any]:
    """What ``save_segmenter`` wrote into a file that safetensors has found whole; empty for one that is none of its."""
    length = int.from_bytes(content[:8], "little")
    try:
        found = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_ENTRY])
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _instead(header: Mapping[str, Any]) -> str:
    """What a file of another format is, and what to do with it."""
    kind = header.get("format")
    if str(kind).startswith("ovskit.checkpoint/"):
        return "it is a run's checkpoint; give the folder of the run's finished model"
    if str(kind).startswith(("ovskit.grouping/", "ovskit.vit/")):
        return "it is a backbone; ovs-extract takes it, and ovs-train segment begins with it, as --weights"
    return f"format {kind!r}, expected {FORMAT!r}"


def _built(config: SegmenterConfig, tensors: Mapping[str, Tensor], build: Callable[[SegmenterConfig], nn.Module], path: Path) -> Segmenter:
    """The network that the configuration describes, with random weights. Raises InputError where that is none."""
    # All of it is in the weights, so what is larger than they are is damaged, and would take all memory to be found so.
    values = sum(tensor.numel() for tensor in tensors.values())
    widest = max(config.hidden, config.queries, config.pixel_feedforward, config.decoder_feedforward, config.mask_features)
    if config.hidden * widest > values or max(config.pixel_layers, config.decoder_layers) > len(tensors):
        raise InputError(f"{path}: the configuration in its header is damaged (its sizes are beyond those of the weights)")
    try:
        pyramid = build(config)
    # What a backbone of this name and this configuration cannot be; RuntimeError is torch's for sizes below 0 or beyond memory.
    except (UsageError, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        reason = " ".join(_reason(error).split())[:160]
        raise InputError(f"{path}: its backbone {config.backbone[:80]!r} cannot be made here ({reason})") from None
    return Segmenter(config, pyramid)


def _reason(error: Exception) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)


def _fill(segmenter: Segmenter, tensors: Mapping[str, Tensor], path: Path) -> None:
    wanted = segmenter.state_dict()
    for name in sorted(wanted.keys() ^ tensors.keys()):
        raise InputError(f"{path}: {'lacks' if name in wanted else 'has an unknown'} tensor {name}")
    for name, tensor in wanted.items():
        given = tensors[name]
        if given.shape != tensor.shape:
            raise InputError(f"{path}: {name} is {shape_text(given)}, the network's is {shape_text(tensor)}")
        if given.dtype != (torch.float32 if tensor.is_floating_point() else tensor.dtype):
            raise InputError(f"{path}: {name} holds {given.dtype} values")
        if not torch.isfinite(given).all():
            raise InputError(f"{path}: {name} holds values that are not finite")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(tensors[name])


def _text(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    with open_output(str(path)) as out:
        out.write(content)
