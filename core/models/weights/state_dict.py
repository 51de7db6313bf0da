"""What is in a weights file, and whether it is this model's.

A model is only ever handed out with every one of its parameters loaded: ``fit`` is strict, and what it refuses is an
error, not a warning.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ovskit.core.models.weights.layouts import Origin, State, is_openai_clip, strip_prefixes, unwrap
from ovskit.core.models.weights.torchscript import read_torchscript
from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.logs import get_logger

log = get_logger("weights")

__all__ = ["Checkpoint", "NoInit", "State", "fit", "read_checkpoint", "read_state_dict", "shape_text"]

_NAMED = 3  # this many mismatches are named in a message


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tensors of a checkpoint, and who wrote it as far as the file says: DINO's code or one that follows it, OpenAI, or ovskit."""

    state: State
    origin: Origin | None


def read_state_dict(path: Path) -> State:
    """The tensors of a checkpoint by name; see ``read_checkpoint``."""
    return read_checkpoint(path).state


def read_checkpoint(path: Path, *, teacher: bool = False) -> Checkpoint:
    """The tensors of a checkpoint by name, on the CPU: safetensors, a torch file of plain tensors, or a TorchScript archive.

    Which of them is told by the file itself. Wrappers (``state_dict``, ``model``, ``teacher``, ``student``) are opened; of several,
    a line says which one is taken (``layouts.unwrap``; ``teacher`` says that the model asked for is one of those that are used as
    teachers). The prefix ``module.`` is taken off, and where there is a ``backbone.`` only what is below it is kept.

    Torch files are read with ``weights_only=True``: beside tensors and plain values they may hold ``argparse.Namespace``, DINO's
    settings, which is nothing but a bag of values; one that would run anything is refused. Only objects and tensors of archives
    are read (``torchscript``). Raises InputError, which names the file.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    origin: Origin | None = None
    if head[8:9] == b"{" and not head.startswith(b"PK"):
        content, ours = _read_safetensors(path)
        origin = "ovskit" if ours else None
    else:
        content = _read_torch(path)
    found, several, taken, is_dino = unwrap(content, teacher=teacher)
    if taken is not None:
        others = " and ".join(several) if len(several) > 1 else f"a {taken} without its teacher"
        log.warning("%s: holds %s; the %s is taken", path, others, taken)
    state = strip_prefixes(found)
    if not state:
        raise InputError(f"{path}: holds no tensors; expected a model's state dict, as safetensors or a torch file")
    if origin is None:
        origin = "dino" if is_dino else "openai" if is_openai_clip(state) else None
    return Checkpoint(state, origin)


def _read_safetensors(path: Path) -> tuple[dict[str, Any], bool]:
    """The tensors, and whether ovskit wrote the file."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        with safe_open(path, "pt") as file:
            ours = "ovskit" in (file.metadata() or {})
        return dict(load_file(path, device="cpu")), ours
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a complete safetensors file ({_first_line(error)}); fetch it again") from None


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():  # torch warns of what is refused below, or of pickle dialects it reads well
            warnings.simplefilter("ignore")
            # Opened here: given a name, torch would go by its suffix.
            with torch.serialization.safe_globals([argparse.Namespace]), path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if re.search(r"unsupported (global|class|operand|function)|GLOBAL|allowlist", str(error), re.IGNORECASE):
            raise InputError(
                f"{path}: holds more than tensors (a pickle that runs code when opened, or no checkpoint at all), refused; "
                "save the state dict alone, best as safetensors"
            ) from None
        raise InputError(f"{path}: neither safetensors nor a torch checkpoint, or damaged") from None
    except RuntimeError as error:
        if "TorchScript" in str(error):
            return read_torchscript(path)
        raise InputError(f"{path}: not a complete torch checkpoint ({_first_line(error)}); fetch it again") from None
    except Exception as error:  # a damaged pickle can raise nearly anything: EOFError, KeyError, UnicodeDecodeError, …
        raise InputError(f"{path}: neither safetensors nor a torch checkpoint, or damaged ({type(error).__name__})") from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def fit(model: torch.nn.Module, state: Mapping[str, torch.Tensor], path: Path, name: str, *, ignore: Iterable[str] = ()) -> None:
    """Load a state dict whose names and shapes are exactly the model's.

    Entries of ``state`` that are equal to an element of ``ignore``, or lie below it (``head`` covers ``head.weight``),
    are left out unless the model has them. Raises InputError with the first few entries that are missing, of another
    shape, or not the model's.
    """
    own = model.state_dict()
    ignored = tuple(ignore)
    given = {
        key: value for key, value in state.items() if key in own or not any(key == part or key.startswith(f"{part}.") for part in ignored)
    }
    problems = [f"{key} is missing" for key in own if key not in given]
    problems += [
        f"{key} is {shape_text(given[key])}, not {shape_text(own[key])}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    problems += [f"{key} is not in the model" for key in given if key not in own]
    if problems:
        more = f" and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise InputError(f"{path}: not weights of {name}: {', '.join(problems[:_NAMED])}{more}")
    model.load_state_dict(given, strict=True)


def shape_text(tensor: torch.Tensor) -> str:
    """A tensor's shape for a message: ``2×3``."""
    return "×".join(str(side) for side in tensor.shape) or "a scalar"


class NoInit(TorchFunctionMode):
    """Within this context, parameters are not drawn at random: ``fit`` is going to overwrite every one of them.

    Drawing them takes 2 of the 2.5 s that a ViT-B otherwise needs to come up.
    """

    _DRAWS = frozenset({"normal_", "uniform_", "trunc_normal_", "erfinv_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_"})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Returns the tensor as it is instead of filling it; calls everything else."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in self._DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
