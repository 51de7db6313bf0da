"""Who made a stream: one entry per tool, each naming the one before it, like samtools' @PG lines."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any


def command_line(tool: str, options: Mapping[str, Any], arguments: Sequence[str] = ()) -> str:
    """The command as a person would type it again: ``options`` that were set and decide the result, then its inputs.

    They are by the names of their flags; one that was given several times has a list.
    """
    words = [tool]
    for name, value in options.items():
        if value is None:
            continue
        flag = "--" + name.replace("_", "-")
        if isinstance(value, list | tuple):
            words += [word for item in value for word in (flag, str(item))]
        elif isinstance(value, bool):
            words.append(flag if value else "--no-" + flag[2:])
        else:
            words += [flag, str(value)]
    named = [] if list(arguments) == ["-"] else list(arguments)  # stdin is what is read where nothing is named
    dashes = any(word.startswith("-") and word != "-" for word in named)
    return shlex.join([*words, *["--"] * dashes, *named])


def append_entry(
    previous: Sequence[Mapping[str, Any]],
    *,
    tool: str,
    version: str,
    command: str,
    model: str | None = None,
    model_sha256: str | None = None,
    seed: int | None = None,
    supervised: bool = False,
) -> list[dict[str, Any]]:
    """``previous`` with one entry added: id, tool, version, command, model and its hash, seed, and ``previous`` (an id).

    ``supervised`` marks a model that was trained on labels; where it is false the key is left out.
    """
    used = {str(entry.get("id")) for entry in previous}
    name, k = tool, 1
    while name in used:
        k += 1
        name = f"{tool}.{k}"
    entry: dict[str, Any] = {"id": name, "tool": tool, "version": version, "command": command}
    if model is not None:
        entry["model"] = model
        entry["model_sha256"] = model_sha256
    if supervised:
        entry["supervised"] = True
    if seed is not None:
        entry["seed"] = seed
    entry["previous"] = previous[-1].get("id") if previous else None
    return [*(dict(e) for e in previous), entry]


def merge_entries(chains: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The entries of several streams as one list: equal ones once, ids made unique where different entries share one."""
    merged: list[dict[str, Any]] = []
    for chain in chains:
        renamed: dict[Any, str] = {}
        for entry in chain:
            new = {**entry, "previous": renamed.get(entry.get("previous"), entry.get("previous"))}
            if new in merged:
                continue
            used = {other.get("id") for other in merged}
            name, k = str(new.get("id")), 1
            while new["id"] in used:
                k += 1
                new["id"] = f"{name}.{k}"
            renamed[entry.get("id")] = new["id"]
            merged.append(new)
    return merged
