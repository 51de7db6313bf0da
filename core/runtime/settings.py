"""An option is declared once, as a field of a class of ``Options``; flags, checks, manual and provenance are read off that.

::

    class ToyOptions(Options):
        radius: int = option(8, "Radius of the filter, in pixels.", low=1, flag=True, source="Toy et al., section 3")

One rule, in all commands, says how a person gives a method's option: every one by ``--set NAME=X`` (``METHOD.NAME=X`` where several
methods are applied), and those that are declared with ``flag`` by a flag as well, which goes before. Options of the command itself, which
no method has, are flags all of them.

``from __future__ import annotations`` may be in force where options are declared, but their types must be there at run time. A module
that declares options imports nothing heavy at its top: ``--help`` reads them.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NoReturn, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

from ovskit.core.runtime.declared import Declared, Effect, Given, fault, text_of, value_of
from ovskit.core.runtime.errors import UsageError

T = TypeVar("T")

_KEY = "ovskit.option"


def option(
    default: T,
    help: str,
    *,
    flag: bool | str = False,
    short: str | None = None,
    off: str | None = None,
    metavar: str | None = None,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    multiple: int | None = None,
    parse: Callable[[str], Any] | None = None,
    shown: str | None = None,
    source: str | None = None,
    decides: bool | Callable[[Given], bool] = True,
    environment: Literal["always", "by command", "never"] = "always",
    effect: Effect | None = None,
    counted: bool = False,
    now: Callable[..., Any] | None = None,
    argument: bool = False,
    rare: bool = False,
) -> T:
    """A field of an options dataclass.

    ``default``: its value where none is given; ``REQUIRED`` if one must be given. ``help``: a sentence that begins with what it is or does.
    ``flag``: True for the field's name with dashes, or the flag itself; ``short``: one letter more, as ``-k``; ``off``: the flag that says
    the opposite. ``metavar``: what stands for the value in help. ``low`` and ``high`` bound a number, ``above`` and ``below`` are
    bounds that it may not touch, ``multiple`` what it must be a multiple of; it may be infinite only if ``high`` is. The choices of a
    ``Literal`` are those of the option. ``parse`` makes the value of the text that a person writes (raises ValueError with what to write
    instead), where the type alone does not say how. ``shown``: what help shows as the default, if not its text; empty to show none.
    ``source``: the paper and section that gives the default; None where it is our choice. ``decides``: whether another value can give
    another result, or a function that tells from all values; only what does is in provenance. ``environment``: whether ``OVS_NAME`` sets
    it ``always``; or ``by command``, ``OVS_COMMAND_NAME`` alone, since the name means different things in different commands; or
    ``never``, as it names one run's files or asks for information. ``effect``: when it has one. ``counted``: its value is how often it is
    given. ``now``: called with the value as soon as it is read, before all others. ``argument``: it has no flag but a place on the command
    line. ``rare``: the short help only names it.
    """
    declared = {
        "help": help, "flag": flag, "short": short, "off": off, "metavar": metavar, "low": low, "high": high, "above": above,
        "below": below, "multiple": multiple, "parse": parse, "shown": shown, "source": source, "decides": decides,
        "environment": environment, "effect": effect, "counted": counted, "now": now, "argument": argument, "rare": rare,
    }  # fmt: skip
    if default is REQUIRED:
        return dataclasses.field(metadata={_KEY: declared})
    return dataclasses.field(default=default, metadata={_KEY: declared})


def redeclared(options: Any, name: str, default: T, *, source: str | None = None) -> T:
    """A field of ``options`` with another default, for a subclass: all else that it declares stays, except ``source``."""
    declared = {**options._declarations[name], "shown": None, "source": source}
    return dataclasses.field(default=default, metadata={_KEY: declared})


class _Required:
    """The default of an option that must be given."""


REQUIRED: Any = _Required()


@dataclass_transform(frozen_default=True)
class Options:
    """What a class of ``option`` fields derives from: a frozen dataclass that refuses values out of range wherever it is made.

    Raises UsageError. What depends on several fields is for ``check`` of the subclass.

    Instances are made, shown and compared by the functions below. ``dataclass`` would compile its own for every class, and a command
    declares some twenty before it does anything: a fifth of its start-up time.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]
    _declarations: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__dataclass_fields__" in vars(cls):
            return  # the copy with slots of a class that ``dataclass`` decorates as well
        frozen = any(vars(base)["__dataclass_params__"].frozen for base in cls.__mro__[1:] if "__dataclass_params__" in vars(base))
        dataclass(init=False, repr=False, eq=False, match_args=False, frozen=frozen)(cls)
        # Not left to the fields, whose metadata are lost where ``dataclass`` decorates the class as well.
        own = {name: cls.__dataclass_fields__[name].metadata.get(_KEY) for name in vars(cls).get("__annotations__", {})}
        found: dict[str, Mapping[str, Any] | None] = {}
        for base in cls.__mro__[-1:0:-1]:  # as dataclass goes through them
            found |= {name: getattr(base, "_declarations", {}).get(name) for name in vars(base).get("__annotations__", {})}
        cls._declarations = {name: said for name, said in (found | own).items() if said is not None}

    def __init__(self, *values: Any, **named: Any) -> None:
        fields = dataclasses.fields(self)
        given = dict(zip([field.name for field in fields], values, strict=False))
        wrong = [*(given.keys() & named.keys()), *(named.keys() - {field.name for field in fields})]
        if wrong or len(values) > len(fields):
            raise TypeError(f"{type(self).__name__} takes {', '.join(field.name for field in fields)}, each once; {', '.join(wrong)}")
        given |= named
        for field in fields:
            if field.name in given:
                value = given[field.name]
            elif field.default_factory is not dataclasses.MISSING:
                value = field.default_factory()
            else:
                value = field.default
            if value is dataclasses.MISSING:
                raise TypeError(f"{type(self).__name__} needs {field.name}")
            object.__setattr__(self, field.name, value)
        self.__post_init__()

    def __post_init__(self) -> None:
        for declared in fields_of(type(self)):
            said = fault(declared, getattr(self, declared.name))
            if said:
                raise UsageError(f"{declared.name} {text_of(getattr(self, declared.name))}: {said}")
        self.check()

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise dataclasses.FrozenInstanceError(f"{type(self).__name__} is frozen; dataclasses.replace makes one with another {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise dataclasses.FrozenInstanceError(f"{type(self).__name__} is frozen")

    def __repr__(self) -> str:
        shown = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
        return f"{type(self).__qualname__}({shown})"

    def __eq__(self, other: object) -> bool:
        return self._compared() == other._compared() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._compared())

    def _compared(self) -> tuple[Any, ...]:
        return tuple(getattr(self, field.name) for field in dataclasses.fields(self) if field.compare)

    def check(self) -> None:
        """Raises UsageError for values that do not go together."""

    def beside(self) -> Sequence[str]:
        """Files that are written beside the output."""
        return ()


def fields_of(options: type) -> tuple[Declared, ...]:
    """What the fields of ``options`` declare, in their order; those made without ``option`` cannot be set by a person and are left out."""
    if options not in _FIELDS:
        _FIELDS[options] = _fields_of(options)
    return _FIELDS[options]


_FIELDS: dict[type, tuple[Declared, ...]] = {}

AnyOptions = TypeVar("AnyOptions", bound=Options)


def _fields_of(options: Any) -> tuple[Declared, ...]:
    hints = get_type_hints(options)
    known = options._declarations
    return tuple(_declared(field, known[field.name], hints[field.name]) for field in dataclasses.fields(options) if field.name in known)


def _declared(field: dataclasses.Field[Any], declaration: Mapping[str, Any], hint: Any) -> Declared:
    said = dict(declaration)
    flag, short = said.pop("flag"), said.pop("short")
    long = (f"--{field.name.replace('_', '-')}" if flag is True else flag) or None
    kind = _without_none(hint)
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    flags = tuple(name for name in (long, short) if name)
    return Declared(name=field.name, default=field.default, kind=kind, flags=flags, choices=choices, **said)


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        return next(part for part in get_args(hint) if part is not type(None))
    return hint


def with_defaults(options: type[AnyOptions], *, fixed: Collection[str] = (), **defaults: Any) -> type[AnyOptions]:
    """``options`` with other ``defaults``, the fields in the same order; a person cannot set those that are ``fixed``.

    Raises TypeError for what is not a field.
    """
    known = {field.name: field for field in dataclasses.fields(options)}
    strange = {*defaults, *fixed} - known.keys()
    if strange:
        raise TypeError(f"{options.__name__} has no {', '.join(sorted(strange))}")
    own: dict[str, Any] = {}
    for name in known:
        if name in defaults or name in fixed:
            default = defaults.get(name, known[name].default)
            is_plain = name in fixed or name not in options._declarations
            own[name] = dataclasses.field(default=default) if is_plain else redeclared(options, name, default)
    body = {
        **own,
        "__annotations__": {name: known[name].type for name in own},
        "__module__": options.__module__,
        "__doc__": options.__doc__,
    }
    return type(options.__name__, (options,), body)


def part_of(kind: type[AnyOptions], options: Any) -> AnyOptions:
    """The part of ``options``, a dataclass that inherits from several, that comes from ``kind``, as an instance of ``kind``."""
    return kind(**{field.name: getattr(options, field.name) for field in dataclasses.fields(kind)})


def assignments(texts: Sequence[str], *, of_method: bool) -> Iterator[tuple[str, str | None, str, str]]:
    """``--set`` as it was given: the text, the method that it names (None where it names none), the option's name and its value.

    ``of_method``: a method must be named, since several are applied. Raises UsageError for what has not this form.
    """
    for text in texts:
        left, equals, value = text.partition("=")
        method, dot, name = left.strip().rpartition(".")
        if not equals or (of_method and not dot):
            form = "METHOD.NAME=VALUE, as in guided.radius=8" if of_method else "NAME=VALUE"
            raise UsageError(f"--set {text}: write {form}")
        yield text, method.strip() if dot else None, name.strip(), value.strip()


def settings_of(options: type) -> dict[str, Declared]:
    """What ``--set`` may set of the options of a method, by name."""
    return {declared.name: declared for declared in fields_of(options)}


def setting(options: type, text: str, name: str, value: str, *, have: str = "choose from") -> Any:
    """The value of one ``--set``, given as ``text``.

    Raises UsageError for a name that ``options`` do not have (``have`` and the names), and for a value that does not fit.
    """
    known = settings_of(options)
    if name not in known:
        raise UsageError(f"--set {text}: {have} {', '.join(known)}")
    try:
        found = value_of(known[name], value)
    except ValueError as error:
        raise UsageError(f"--set {text}: {error}") from None
    said = fault(known[name], found)
    if said:
        raise UsageError(f"--set {text}: {said}")
    return found


def settings_from(options: type, texts: Sequence[str]) -> dict[str, Any]:
    """Values of ``options`` from ``NAME=VALUE``; of one given twice, the last. Raises UsageError for what does not fit."""
    return {name: setting(options, text, name, value) for text, _, name, value in assignments(texts, of_method=False)}
