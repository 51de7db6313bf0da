"""The network's weights file: safetensors with the configuration in its header, in halves, and checked before use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ovskit.core.models.builtin.global_vector import FIELDS, GlobalVector
from ovskit.core.models.builtin.network import GroupingNetwork, NetworkConfig
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.output import open_output

FORMAT = "ovskit.grouping/1"
# One entry for everything: safetensors writes several in no fixed order, and the same weights should be the same bytes.
_ENTRY = "ovskit"
_VECTOR = "vector."


class NetworkFile(NamedTuple):
    """What a weights file holds: the network, the axes of the global vector if there are any, and the file's sha256."""

    network: GroupingNetwork
    vector: GlobalVector | None
    sha256: str


def save_network(path: Path, network: GroupingNetwork, about: Mapping[str, Any], vector: GlobalVector | None = None) -> None:
    """Write the weights, and the axes of the global vector, to ``path``, whole or not at all.

    Weights are float16 [choice: half the bytes, no measurable loss], except what normalisation layers count, which may be
    too large or small for it. ``about`` (JSON values) says where they come from and is kept with them. Raises InputError if a
    weight does not fit a float16, OutputError if the file cannot be written.
    """
    tensors = {}
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        kept = tensor.detach().cpu().contiguous()
        tensors[name] = kept.float() if "running_" in name else kept.half()
        if not torch.isfinite(tensors[name]).all():
            raise InputError(f"{path}: {name} is not finite in half precision; the training has gone wrong")
    if vector is not None:
        tensors |= {_VECTOR + name: tensor.detach().cpu().float().contiguous() for name, tensor in vector.tensors().items()}
    header = {"format": FORMAT, "config": network.config.to_json(), "about": dict(about)}
    with open_output(str(path)) as out:
        out.write(save(tensors, {_ENTRY: json.dumps(header)}))


def load_network(path: Path) -> NetworkFile:
    """What a weights file holds, in float32 on the CPU, the network in evaluation mode.

    Raises MissingInputError if there is no such file, InputError if it is damaged or holds anything but this network, all of it.
    """
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        with safe_open(path, framework="pt", device="cpu") as file:
            header = _header(file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise MissingInputError(f"{path}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a complete safetensors file ({error}); fetch it again") from None
    if header.get("format") != FORMAT:
        raise InputError(f"{path}: not weights of the built-in network ({_instead(header)})")
    try:
        network = GroupingNetwork(NetworkConfig.from_json(header["config"]))
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: the network's configuration in its header is damaged") from None
    own = {name.removeprefix(_VECTOR): tensors.pop(name) for name in sorted(tensors) if name.startswith(_VECTOR)}
    _fill(network, tensors, path)
    return NetworkFile(network.eval(), _vector(own, network.config, path) if own else None, sha256)


def _vector(tensors: Mapping[str, torch.Tensor], config: NetworkConfig, path: Path) -> GlobalVector:
    try:
        found = GlobalVector.of(tensors)
    except KeyError as error:
        raise InputError(f"{path}: the axes of the global vector lack {error.args[0]}") from None
    except ValueError as error:
        raise InputError(f"{path}: the axes of the global vector are damaged ({error})") from None
    if found.learned.mean.shape[0] != FIELDS * FIELDS * config.embedding or len(tensors) != len(found.tensors()):
        raise InputError(f"{path}: the axes of the global vector are not those of this network")
    for name, tensor in found.tensors().items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{path}: {_VECTOR}{name} holds values that are not finite")
    return found


def _instead(header: Mapping[str, Any]) -> str:
    """What a file of another format is, and what to do with it."""
    kind = header.get("format")
    if str(kind).startswith("ovskit.checkpoint/"):
        return "it is a run's checkpoint; the run's finished model is model.safetensors beside it"
    if str(kind).startswith("ovskit.vit/"):
        return f"it is a vision transformer: give --model timm:{header.get('arch')} as well"
    return f"format {kind!r}, expected {FORMAT!r}"


def _fill(network: GroupingNetwork, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    wanted = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    for name in sorted(wanted.keys() ^ tensors.keys()):
        raise InputError(f"{path}: {'lacks' if name in wanted else 'has an unknown'} tensor {name}")
    for name, tensor in wanted.items():
        if tensors[name].shape != tensor.shape:
            raise InputError(f"{path}: {name} is {tuple(tensors[name].shape)}, the network's is {tuple(tensor.shape)}")
        if not torch.isfinite(tensors[name]).all():
            raise InputError(f"{path}: {name} holds values that are not finite")
        tensor.copy_(tensors[name])


def read_about(path: Path) -> dict[str, Any]:
    """What ``save_network`` was told of the weights' origin. Raises InputError if the file is damaged."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return dict(_header(file.metadata())["about"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not weights of the built-in network ({error})") from None


def _header(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """What ``save_network`` wrote; empty for a file that is none of its."""
    try:
        found = json.loads((metadata or {}).get(_ENTRY, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
