"""What a folder of two towers says of itself in the header of ``model.safetensors``, without torch and without reading weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ovskit.core.formats.paths import show_path
from ovskit.core.models.backbones.names import RUN
from ovskit.core.models.towers.config import TowersConfig
from ovskit.core.runtime.errors import InputError, MissingInputError

FORMAT = "ovskit.pairs/1"
MODEL = "model.safetensors"
# One entry for everything: safetensors writes several in no fixed order, and the same weights should be the same bytes.
ENTRY = "ovskit"
_CHECKPOINT = "checkpoint.safetensors"
_LONGEST = 100_000_000  # bytes of a header, as safetensors has it


def folder_of(model: str) -> Path:
    """The folder that ``run:DIR`` names."""
    return Path(model.removeprefix(RUN))


def model_path(folder: Path) -> Path:
    """The folder's model, which is there. Raises MissingInputError where it is not, InputError where it is not an ordinary file."""
    shown = show_path(str(folder))
    if folder.is_file():
        raise InputError(f"{shown}: is a file; give the folder of a run of ovs-train pairs")
    if not folder.is_dir():
        raise MissingInputError(f"{shown}: no such folder; give the folder of a run of ovs-train pairs")
    path = folder / MODEL
    if not path.exists():
        unfinished = (folder / _CHECKPOINT).is_file()
        advice = "its run is not finished: --resume goes on" if unfinished else "give the folder of a run of ovs-train pairs"
        raise MissingInputError(f"{shown}: holds no {MODEL}; {advice}")
    if not path.is_file():  # a device or a named pipe may have no end
        raise InputError(f"{show_path(str(path))}: is not an ordinary file; give the folder of a run of ovs-train pairs")
    return path


def read_config(folder: Path) -> TowersConfig:
    """How the folder's towers are built, from the header alone. Raises MissingInputError and InputError as ``load_towers`` does, but for
    what is wrong with weights."""
    path = model_path(folder)
    shown = show_path(str(path))
    try:
        with open(path, "rb") as file:
            head = file.read(8)
            length = int.from_bytes(head, "little")
            content = head + (file.read(length) if length <= _LONGEST else b"")
    except OSError as error:
        raise InputError(f"{shown}: cannot be read: {error.strerror}") from None
    return checked_config(header_of(content), shown)


def header_of(content: bytes) -> dict[str, Any]:
    """What ovskit wrote into the header of a safetensors file that begins with ``content``; empty for a file that is not ovskit's."""
    length = int.from_bytes(content[:8], "little")
    try:
        found = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][ENTRY])
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def checked_config(header: Mapping[str, Any], shown: str) -> TowersConfig:
    """The configuration in a header. Raises InputError, naming the file as ``shown``, for a header of another format or a damaged one."""
    if header.get("format") != FORMAT:
        raise InputError(f"{shown}: not a model of ovs-train pairs ({_instead(header)})")
    try:
        return TowersConfig.from_json(header.get("config"))
    except ValueError as error:
        raise InputError(f"{shown}: the configuration in its header is damaged ({error})") from None


def _instead(header: Mapping[str, Any]) -> str:
    """What a file of another format is, and what to do with it."""
    kind = str(header.get("format"))
    if kind.startswith("ovskit.segmenter/"):
        return "it is a segmenter; ovs-predict takes its folder, as --checkpoint"
    if kind.startswith(("ovskit.grouping/", "ovskit.vit/")):
        return "it is a backbone without words; ovs-extract takes it as --weights"
    if kind.startswith("ovskit.checkpoint/"):
        return "it is a run's checkpoint; give the folder of the run's finished model"
    return f"its format is {kind!r}, not {FORMAT!r}" if header else "it was not written by ovskit, or is damaged"
