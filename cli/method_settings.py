"""``--set NAME=VALUE``: the options of a recipe, read off its dataclass."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ovskit.core.runtime.errors import UsageError

# What has a flag of its own.
_FLAGS = frozenset({"device", "weights"})


def parse_fields(texts: Sequence[str], *options: type, without: Container[str] = ()) -> dict[str, Any]:
    """Fields of the dataclasses ``options``, which share no name, from ``NAME=VALUE``; of one given twice, the last.
    Those ``without`` cannot be set: they have flags.

    Raises UsageError for what does not fit.
    """
    kinds = {name: kind for one in options for name, kind in settings_of(one).items() if name not in without}
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals:
            raise UsageError(f"--set {text}: write NAME=VALUE, as in {next(iter(kinds))}=…")
        if name not in kinds:
            raise UsageError(f"--set {text}: choose from {', '.join(kinds)}")
        found[name] = _value(value.strip(), kinds[name], text)
    return found


def settings_of(options: type) -> dict[str, Any]:
    """Names and types of what ``--set`` may set of a dataclass of options."""
    hints = get_type_hints(options)
    return {field.name: hints[field.name] for field in dataclasses.fields(options) if field.name not in _FLAGS}


def _value(value: str, kind: Any, text: str) -> Any:
    if isinstance(kind, types.UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is Literal:
        allowed = {str(one): one for one in get_args(kind)}
        if value not in allowed:
            *most, last = allowed
            raise UsageError(f"--set {text}: choose {', '.join(most)} or {last}")
        return allowed[value]
    try:
        if get_origin(kind) is tuple:
            return tuple(_number(part, get_args(kind)[0]) for part in value.split(","))
        if kind is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[value.lower()]
        if kind in (str, Path):
            return kind(value)
        return _number(value, kind)
    except (KeyError, ValueError):
        words = {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "numbers with commas between them")
        raise UsageError(f"--set {text}: give {words}") from None


def _number(text: str, kind: Any) -> Any:
    value = kind(text)
    if isinstance(value, float) and math.isnan(value):
        raise ValueError
    return value
