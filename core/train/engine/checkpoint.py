"""The checkpoint of a run: one safetensors file, replaced whole, that a run goes on from to the very same weights.

Its tensors are ``model/NAME`` (the state dict of the recipe's modules), ``optimizer/NAME/SLOT`` (by the name of the
parameter) and ``recipe/NAME``. Its metadata has one entry, ``ovskit``: JSON with format, recipe, step and settings. There
is no state of random generators in it: those are seeded anew at every step (see ``recipe``).
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ovskit.core import __version__
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError
from ovskit.core.runtime.output import open_output
from ovskit.core.train.engine.optimizers import slots

FORMAT = "ovskit.checkpoint/1"
FILE_NAME = "checkpoint.safetensors"
_MODEL = "model.safetensors"  # what every recipe exports at the end

_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a run stands.

    ``step`` updates are made, in ``seconds`` of training; ``recipe`` is the recipe's name, ``settings`` its metadata and
    ``run`` what of the run's options decides the result; ``scaler`` is the state of fp16's loss scaling (else empty), ``pg``
    the provenance. ``tensors`` are by full name.
    """

    recipe: str
    step: int
    seconds: float
    settings: Mapping[str, Any]
    run: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    scaler: Mapping[str, Any] = field(default_factory=dict)
    pg: Sequence[Mapping[str, Any]] = ()


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Put the checkpoint in the place of what is at ``path``, which stays as it is if that fails.

    Written tensor by tensor, so that the memory of a second copy is not needed. Raises OutputError, as for a full disk,
    and ValueError for a dtype that safetensors has not.
    """
    # The format wants no gaps; the widest first, so that every tensor lies at a multiple of its width.
    names = sorted(checkpoint.tensors, key=lambda name: (-checkpoint.tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": {"ovskit": json.dumps(_describe(checkpoint))}}
    end = 0
    for name in names:
        tensor = checkpoint.tensors[name]
        if tensor.dtype not in _DTYPES:
            raise ValueError(f"{name}: {tensor.dtype} cannot be stored")
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode("ascii")
    text += b" " * (-len(text) % 8)
    with open_output(str(path)) as out:
        out.write(struct.pack("<Q", len(text)))
        out.write(text)
        for name in names:
            values = checkpoint.tensors[name].detach().to("cpu").contiguous()
            out.write(values.reshape(-1).view(torch.uint8).numpy().data)


def _describe(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "recipe": checkpoint.recipe,
        "step": checkpoint.step,
        "seconds": round(checkpoint.seconds, 3),
        "settings": dict(checkpoint.settings),
        "run": dict(checkpoint.run),
        "scaler": dict(checkpoint.scaler),
        "versions": {"ovskit": __version__, "torch": torch.__version__},
        "pg": [dict(entry) for entry in checkpoint.pg],
    }


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at ``path``, its tensors on the CPU.

    Raises MissingInputError if it cannot be opened, InputError if it is truncated, damaged, or a safetensors file of another kind.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb"):
            pass
        with safe_open(path, framework="pt", device="cpu") as file:
            text = (file.metadata() or {}).get("ovskit")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{path}: not a complete checkpoint ({' '.join(str(error).split())[:160]}); use another copy of it") from None
    except OSError as error:
        raise MissingInputError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        value = json.loads(text or "")
        if value["format"] != FORMAT:
            raise InputError(f"{path}: its format is {value['format']!r}, this ovskit reads {FORMAT!r}")
        if not (isinstance(value["settings"], dict) and isinstance(value["run"], dict) and isinstance(value["scaler"], dict)):
            raise TypeError
        return Checkpoint(
            recipe=str(value["recipe"]),
            step=int(value["step"]),
            seconds=float(value["seconds"]),
            settings=value["settings"],
            run=value["run"],
            tensors=tensors,
            scaler=value["scaler"],
            pg=[dict(entry) for entry in value["pg"]],
        )
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: a safetensors file, but not a checkpoint of ovs-train") from None


def collect_tensors(modules: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors of a run by the names they have in a checkpoint; not copied."""
    tensors = {f"model/{name}": tensor for name, tensor in modules.state_dict().items()}
    for name, parameter in modules.named_parameters():
        for slot, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{slot}"] = torch.as_tensor(value)
    return {**tensors, **{f"recipe/{name}": tensor for name, tensor in state.items()}}


def check_settings(path: Path, checkpoint: Checkpoint, *, recipe: str, settings: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Raise InputError, with the names that differ, unless the checkpoint is of this recipe with these settings."""
    if checkpoint.recipe != recipe:
        raise InputError(f"{path}: is of ovs-train {checkpoint.recipe}, not {recipe}; use another folder")
    found = (*_differences("", checkpoint.settings, _plain(settings)), *_differences("", checkpoint.run, _plain(run)))
    differing = list(dict.fromkeys(found))  # a recipe may keep the seed, too
    if differing:
        more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise InputError(
            f"{path}: was made with other settings: {', '.join(differing[:4])}{more}; give the same ones, or use another folder"
        )


def _plain(value: Mapping[str, Any]) -> Any:
    """As it comes back from JSON: tuples are lists."""
    return json.loads(json.dumps(dict(value)))


def _differences(name: str, before: Any, now: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*before, *(key for key in now if key not in before)]
        return [
            line
            for key in keys
            for line in _differences(f"{name}.{key}" if name else str(key), before.get(key, "absent"), now.get(key, "absent"))
        ]
    return [] if before == now else [f"{name} ({_short(before)}, now {_short(now)})"]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "…"


def restore(
    path: Path, checkpoint: Checkpoint, modules: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Load modules and optimiser from the checkpoint, where they are and as they lie; return the tensors for the recipe.

    ``state`` is what the recipe has now, for comparison. Every name, shape and dtype is checked before anything is
    changed. Raises InputError that names the first that does not fit.
    """
    expected = {f"model/{name}": tensor for name, tensor in modules.state_dict().items()}
    expected |= {f"recipe/{name}": tensor for name, tensor in state.items()}
    parameters = dict(modules.named_parameters())
    kept = slots(optimizer)
    for name, parameter in parameters.items():
        # A parameter that had no gradient so far has no state; of any other the state is complete.
        if any(f"optimizer/{name}/{slot}" in checkpoint.tensors for slot in kept):
            for slot in kept:
                like = torch.empty(()) if slot == "step" else torch.empty_like(parameter, device="meta")
                expected[f"optimizer/{name}/{slot}"] = like
    found = checkpoint.tensors
    _check_fit(path, found, expected)
    modules.load_state_dict({name.removeprefix("model/"): tensor for name, tensor in found.items() if name.startswith("model/")})
    for name, parameter in parameters.items():
        optimizer.state.pop(parameter, None)
        if f"optimizer/{name}/step" in found:
            optimizer.state[parameter] = {slot: _place(found[f"optimizer/{name}/{slot}"], parameter, slot) for slot in kept}
    return {name.removeprefix("recipe/"): tensor for name, tensor in found.items() if name.startswith("recipe/")}


def _check_fit(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for name in sorted({*found, *expected}):
        if name not in found:
            problem = "is missing"
        elif name not in expected:
            problem = "is in it, but not in this network"
        elif found[name].shape != expected[name].shape:
            problem = f"has shape {tuple(found[name].shape)}, this network's has {tuple(expected[name].shape)}"
        elif found[name].dtype != expected[name].dtype:
            problem = f"is {found[name].dtype}, this network's is {expected[name].dtype}".replace("torch.", "")
        else:
            continue
        raise InputError(f"{path}: does not fit: {name} {problem}; use another folder, or the settings it was made with")


def _place(value: Tensor, parameter: Tensor, slot: str) -> Tensor:
    """Where the fused optimiser wants it: all beside the parameter, and moments in the same order in memory."""
    if slot == "step":
        return value.to(parameter.device)
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def check_folder(folder: Path, *, resume: bool) -> None:
    """Raise UsageError for a run's folder that is a file, holds a checkpoint without ``resume``, or a model without a checkpoint.

    So no run is lost by mistake.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: give a folder for the run")
    if os.path.lexists(folder / FILE_NAME):
        if not resume:
            raise UsageError(f"{folder} holds a checkpoint of an earlier run: add --resume to go on from it, or give another folder")
    elif os.path.lexists(folder / _MODEL):
        what = "the model of an earlier run and no checkpoint to go on from"
        raise UsageError(f"{folder} holds {what}: give another folder, or move {_MODEL} away to begin anew")


def find_checkpoint(folder: Path, *, resume: bool) -> Checkpoint | None:
    """What the run in ``folder`` goes on from; None to begin. Raises as ``check_folder`` and ``read_checkpoint`` do."""
    check_folder(folder, resume=resume)
    path = folder / FILE_NAME
    return read_checkpoint(path) if os.path.lexists(path) else None
