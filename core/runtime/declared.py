"""What a declared option is, which values it can have, and how they are written.

``settings`` is where options are declared, and where what a person sets is read; this is what both of them, and help, need of one option.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

Given = Mapping[str, Any]
"""Values of a command's options, by the names of their flags, and of its arguments."""


class Effect(NamedTuple):
    """When an option has an effect: ``where`` tells from all values given; if it has none, the message is its flag and ``why``, formatted
    with these values."""

    where: Callable[[Given], bool]
    why: str


class Declared(NamedTuple):
    """The declaration of an option by its field, see ``option``; ``kind`` is its type without None."""

    name: str
    default: Any
    kind: Any
    help: str
    flags: tuple[str, ...]
    off: str | None
    metavar: str | None
    low: float | None
    high: float | None
    above: float | None
    below: float | None
    multiple: int | None
    choices: tuple[Any, ...]
    parse: Callable[[str], Any] | None
    shown: str | None
    source: str | None
    decides: bool | Callable[[Given], bool]
    environment: Literal["always", "by command", "never"]
    effect: Effect | None
    counted: bool
    now: Callable[..., Any] | None
    argument: bool
    rare: bool

    @property
    def flag(self) -> str | None:
        """The flag as it is typed, the longest of its names; None for an option without a flag."""
        return max(self.flags, key=len, default=None)

    @property
    def word(self) -> str:
        """The name in environment variables, files and other options: the flag's name with underscores, or the field's own."""
        return self.name if self.flag is None else self.flag.lstrip("-").replace("-", "_")

    @property
    def many(self) -> bool:
        """Whether it may be given several times."""
        return bool(self.kind == tuple[str, ...] and self.parse is None)

    @property
    def default_text(self) -> str | None:
        """What the default is, as a person would type it or as it is declared to be shown; None where help shows no default."""
        if self.shown is not None:
            return self.shown or None
        if self.default is None or self.default is dataclasses.MISSING or self.default == () or isinstance(self.default, bool):
            return None
        return text_of(self.default)


def fault(declared: Declared, value: Any) -> str | None:
    """What to give instead of a value that is not valid; None for a valid one."""
    if value is None:
        return None
    if declared.choices:
        return None if value in declared.choices else f"choose {either(declared.choices)}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    low, high, above, below, multiple = declared.low, declared.high, declared.above, declared.below, declared.multiple
    fits = (
        (math.isfinite(value) or value == high)
        and (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
        and (below is None or value < below)
        and (multiple is None or value % multiple == 0)
    )
    return None if fits else f"give {wanted(declared)}"


def wanted(declared: Declared) -> str:
    """What values an option takes, to be said after *give*: ``a whole number from 1 up``."""
    if declared.kind is bool:
        return "true or false"
    if declared.kind not in (int, float):
        return "numbers with commas between them" if get_origin(declared.kind) is tuple else "a text"
    said = f"a multiple of {declared.multiple}" if declared.multiple else {int: "a whole number", float: "a number"}[declared.kind]
    if declared.above is not None:
        said += f" above {text_of(declared.above)}"
    if declared.low is not None:
        said += f" from {text_of(declared.low)}"
    if declared.below is not None:
        return said + f"{' and' * (declared.above is not None or declared.low is not None)} below {text_of(declared.below)}"
    if declared.high == math.inf:
        return said + " up" * (declared.low is not None) + ", or inf"
    if declared.high is not None:
        until = " to" if declared.low is not None else " and up to" if declared.above is not None else " up to"
        said += f"{until} {text_of(declared.high)}"
    return said + " up" * (declared.low is not None and declared.high is None)


def decides(declared: Declared | None, given: Given) -> bool:
    """Whether an option decides the result, where ``given`` are those that are set: the same result must give the same bytes."""
    if declared is None or not callable(declared.decides):
        return declared is not None and bool(declared.decides)
    return declared.decides(given)


def value_of(declared: Declared, text: str) -> Any:
    """The value that ``text`` stands for. Raises ValueError, whose message says what to write instead."""
    if declared.parse is not None:
        return declared.parse(text)
    if declared.choices:
        by_text = {str(choice): choice for choice in declared.choices}
        if text not in by_text:
            raise ValueError(f"choose {either(declared.choices)}")
        return by_text[text]
    if declared.kind is bool:
        if text.strip().lower() not in _BOOLS:
            raise ValueError("give true or false")
        return _BOOLS[text.strip().lower()]
    if declared.kind in (str, Path):
        return declared.kind(text)
    try:
        if get_origin(declared.kind) is tuple:
            item = get_args(declared.kind)[0]
            return tuple(_number(part, item) for part in text.split(","))
        return _number(text, declared.kind)
    except ValueError:
        plain = declared._replace(low=None, high=None, above=None, below=None, multiple=None)
        raise ValueError(f"give {wanted(plain)}") from None


_BOOLS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def _number(text: str, kind: Any) -> Any:
    value = kind(text)
    if isinstance(value, float) and math.isnan(value):
        raise ValueError
    return value


def text_of(value: Any) -> str:
    """A value as a person would type it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, tuple | list):
        return ",".join(map(text_of, value))
    return str(value)


def either(choices: Sequence[Any]) -> str:
    """Choices as a person reads them: ``a, b or c``."""
    *most, last = map(str, choices)
    return f"{', '.join(most)} or {last}" if most else last
