"""Groups of options as the flags of a command: what a command's function takes, and what its parser sees.

A command's function takes groups, each a class of ``core.runtime.settings.option`` fields, and what is chosen of a room's
methods::

    def cluster(
        ctx: typer.Context, source: FeaturesIn, chosen: Annotated[ChosenMethod, Choice(CLUSTER, "sohes", "…")], out: StreamOut, …
    ) -> None: …

Their fields become the parameters of one function that Typer is given, in the groups' order; what is read is put together again here.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import typer

from ovskit.core.runtime.declared import Declared, fault, text_of, value_of
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.logs import get_logger
from ovskit.core.runtime.methods import ChosenMethod, GivenBy, Method, Registry
from ovskit.core.runtime.settings import assignments, fields_of, setting

log = get_logger("cli")


class Choice(NamedTuple):
    """How a command chooses among the methods of a room, with ``default``; ``several`` with commas, or ``none`` of them.
    Where ``by`` is given there is no flag: it names the method from the options that are given, by their names, as they were typed.

    ``help`` is what the flag's help says; the methods and their summaries are listed below it. ``fixed``: there is nothing to choose, the
    method is ``default``.
    """

    registry: Registry
    default: str
    help: str = ""
    several: bool = False
    settings: bool = True
    """Whether ``--set`` gives options of the method."""
    by: Callable[[Mapping[str, Any]], str] | None = None
    fixed: bool = False

    @property
    def flag(self) -> str:
        """The registry's flag."""
        return self.registry.flag

    @property
    def word(self) -> str:
        """The flag as a word."""
        return self.flag.removeprefix("--")

    def methods(self) -> Iterable[Method]:
        """The methods that may be chosen."""
        return [self.registry.get(self.default)] if self.fixed else self.registry

    def chooses(self) -> list[Declared]:
        """The flag that says which method, if there is one."""
        if self.fixed or self.by is not None:
            return []
        metavar, said = "NAME,…" if self.several else "NAME", self.help or f"{self.word.capitalize()}, one of:"
        heard = "by command" if self.word == "method" else "always"  # several commands have a --method, each another's
        return [_flag(self.word, self.flag, said, str, default=self.default, metavar=metavar, environment=heard)]

    def sets(self) -> list[Declared]:
        """``--set``, if it gives options of the method."""
        own = []
        if self.settings:
            form = "METHOD.NAME=X" if self.several else "NAME=X"
            how = "Set an option of the method by its name; --help METHOD lists them all; may be given several times."
            if self.fixed:
                how = f"Change a setting; --help {self.default} lists them all; may be given several times."
            own.append(_flag("setting", "--set", how, tuple[str, ...], default=(), metavar=form, environment="by command"))
        return own


def _flag(name: str, flag: str, help: str, kind: Any, **said: Any) -> Declared:
    rest: dict[str, Any] = dict.fromkeys(Declared._fields)
    rest |= {"choices": (), "decides": True, "counted": False, "argument": False, "rare": False, "environment": "always"}
    return Declared(**{**rest, "name": name, "flags": (flag,), "help": help, "kind": kind, **said})


class Part(NamedTuple):
    """One parameter of a command's function: a group, or a choice of methods."""

    name: str
    group: type | None = None
    choice: Choice | None = None

    def sections(self) -> Iterator[tuple[str, str | None, tuple[Declared, ...]]]:
        """Title, method (None: of all) and options, as help shows them."""
        if self.group is not None:
            yield getattr(self.group, "SECTION", "Options"), None, fields_of(self.group)
            return
        assert self.choice is not None
        choice, title = self.choice, "Settings" if self.choice.fixed else "Method"
        yield title, None, tuple(choice.chooses())
        for method in choice.methods():
            own = title if choice.fixed else f"{title} {method.name}"
            yield own, method.name, tuple(one for one in fields_of(method.options) if one.flags)
        yield title, None, tuple(choice.sets())


class Expanded(NamedTuple):
    """A command's function for Typer, and what its parameters are: ``parts`` in order, ``declared`` by parameter."""

    function: Callable[..., None]
    parts: tuple[Part, ...]
    declared: Mapping[str, Declared]


def expand(function: Callable[..., None], order: Sequence[str] = ()) -> Expanded:
    """``function`` with its groups spread into one parameter for each option, those in ``order`` first.

    Raises TypeError for options that two groups, or two methods, declare differently under one name.
    """
    hints = get_type_hints(function, include_extras=True)
    parts = tuple(_part(name, hints[name]) for name in inspect.signature(function).parameters if name != "ctx")
    sections = [(part, *section) for part in parts for section in part.sections()]
    declared: dict[str, Declared] = {}
    # Those of other packages last: beside one that does not fit ours must go on working.
    for part, title, method, options in sorted(sections, key=lambda section: _is_others(section[0], section[2])):
        strange = _unlike(declared, options)
        if strange is None:
            declared = _with(declared, options, optional=method is not None)
        elif part.choice is not None and method is not None and _is_others(part, method):
            part.choice.registry.refuse(method, f"its option {strange} is another one here; its package must give it another name")
        else:
            raise TypeError(f"{function.__name__}: {title} declares {strange} otherwise than before")
    places = {name: place for place, name in enumerate(order)}
    declared = dict(sorted(declared.items(), key=lambda item: places.get(item[0], len(places))))

    def run(ctx: typer.Context, **values: Any) -> None:
        given = {name: value for name, value in values.items() if _is_given(ctx, name)}
        built = {part.name: _built(part, ctx, given) for part in parts}
        check_effects(ctx, declared, built)
        for part in parts:
            for reason in () if part.choice is None else part.choice.registry.broken.values():
                log.warning("%s", reason)
        function(ctx, **built)

    run.__doc__, run.__name__ = function.__doc__, function.__name__
    parameters = [_parameter(one) for one in declared.values()]
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    run.__signature__ = inspect.Signature([context, *parameters])  # type: ignore[attr-defined]
    run.__annotations__ = {"ctx": typer.Context, **{parameter.name: parameter.annotation for parameter in parameters}}
    return Expanded(run, parts, declared)


def _is_others(part: Part, method: str | None) -> bool:
    return method is not None and part.choice is not None and method not in part.choice.registry.names


def _unlike(declared: Mapping[str, Declared], options: Sequence[Declared]) -> str | None:
    """The first of ``options`` that has the name or a flag of another one among ``declared``; None if there is none of the kind."""
    flags = {flag: known.name for known in declared.values() for flag in (*known.flags, *filter(None, [known.off]))}
    for one in options:
        known = declared.get(one.name)
        if known is not None and (known.flags, known.kind, known.off) != (one.flags, one.kind, one.off):
            return one.flag or one.name
        for flag in (*one.flags, *filter(None, [one.off])):
            if flags.get(flag, one.name) != one.name:
                return flag
    return None


def _with(declared: Mapping[str, Declared], options: Sequence[Declared], *, optional: bool) -> dict[str, Declared]:
    """``declared`` and those of ``options`` that are not in it; ``optional``: none must be given, since only a chosen method needs them."""
    found = dict(declared)
    for one in options:
        given_up = optional and one.default is dataclasses.MISSING
        found.setdefault(one.name, one._replace(default=None) if given_up else one)
    return found


def _part(name: str, hint: Any) -> Part:
    if get_origin(hint) is Annotated:
        choice = next(extra for extra in get_args(hint)[1:] if isinstance(extra, Choice))
        return Part(name, choice=choice)
    return Part(name, group=hint)


def _parameter(declared: Declared) -> inspect.Parameter:
    """The parameter for an option. It has no default of its own: what is not given is left to the dataclass."""
    as_text = declared.parse is not None or not all(isinstance(choice, str) for choice in declared.choices)
    kind: Any = str if as_text else list[str] if declared.many else declared.kind
    default: Any = None
    if declared.default is dataclasses.MISSING:
        default = inspect.Parameter.empty
    elif declared.counted:
        default = 0
    elif declared.kind is bool and declared.off is None:
        default = False
    else:
        kind = kind | None
    info = typer.Argument(metavar=declared.metavar, help=declared.help, show_default=False) if declared.argument else _option(declared)
    return inspect.Parameter(declared.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])


def _option(declared: Declared) -> Any:
    flags = sorted(declared.flags, key=len, reverse=True)
    if declared.off is not None:
        flags[0] = f"{flags[0]}/{declared.off}"
    is_number = declared.parse is None and declared.kind in (int, float)
    return typer.Option(
        *flags,
        metavar=declared.metavar,
        help=declared.help,
        show_default=False,
        count=declared.counted,
        is_eager=declared.now is not None,
        callback=declared.now,
        min=declared.low if is_number else None,
        max=declared.high if is_number else None,
    )


def _source(ctx: typer.Context, name: str) -> str:
    source = ctx.get_parameter_source(name)
    return "DEFAULT" if source is None else str(source.name)


def _is_given(ctx: typer.Context, name: str) -> bool:
    return _source(ctx, name) != "DEFAULT"


def _built(part: Part, ctx: typer.Context, given: Mapping[str, Any]) -> Any:
    if part.group is not None:
        fields = fields_of(part.group)
        return part.group(**{one.name: _value(one, given[one.name]) for one in fields if one.name in given})
    assert part.choice is not None
    choice = part.choice
    names = choice.by(given) if choice.by is not None else str(given.get(choice.word, choice.default))
    words = [] if choice.several and names == "none" else [word.strip() for word in names.split(",")] if choice.several else [names]
    try:
        methods = [choice.registry.get(word) for word in words]
    except UsageError as error:
        raise UsageError(f"{error}, or none" if choice.several else str(error)) from None
    _check_strangers(ctx, choice, methods, names)
    found = _from_set(methods, given.get("setting") or [], choice)
    chosen = tuple(_chosen(method, ctx, given, found[method.name]) for method in methods)
    return chosen if choice.several else chosen[0]


def _chosen(method: Method, ctx: typer.Context, given: Mapping[str, Any], assigned: Mapping[str, Any]) -> ChosenMethod:
    flags = {one.name: one for one in fields_of(method.options) if one.flags and one.name in given}
    values = {**assigned, **{name: _value(one, given[name]) for name, one in flags.items()}}
    for one in fields_of(method.options):
        if one.default is dataclasses.MISSING and one.name not in values:
            raise UsageError(f"{method.name} needs {one.flag or f'--set {one.name}='} {one.metavar or 'VALUE'}")
    said = {**dict.fromkeys(assigned, GivenBy.SET), **{name: _SOURCES[_source(ctx, name)] for name in flags}}
    return ChosenMethod(method, method.options(**values), said)


_SOURCES = {"DEFAULT_MAP": GivenBy.FILE, "ENVIRONMENT": GivenBy.ENVIRONMENT, "COMMANDLINE": GivenBy.FLAG}


def _value(declared: Declared, raw: Any) -> Any:
    """What Typer read as the option's value. Raises UsageError for one that the option cannot have."""
    if declared.many:
        return tuple(raw)
    if isinstance(raw, str):
        try:
            raw, text = value_of(declared, raw), raw
        except ValueError as error:
            raise UsageError(f"{declared.flag} {raw}: {error}") from None
    else:
        text = text_of(raw)
    said = fault(declared, raw)
    if said:
        raise UsageError(f"{declared.flag} {text}: {said}")
    return raw


def _from_set(methods: Sequence[Method], texts: Sequence[str], choice: Choice) -> dict[str, dict[str, Any]]:
    """Values of ``--set`` by method. Raises UsageError for what does not fit."""
    found: dict[str, dict[str, Any]] = {method.name: {} for method in methods}
    by_name = {method.name: method for method in methods}
    for text, named, name, value in assignments(texts, of_method=choice.several):
        if named is not None and named not in by_name:
            have = f"{choice.flag} has {', '.join(by_name)}" if by_name else f"{choice.flag} none has no settings"
            raise UsageError(f"--set {text}: {have}")
        method = by_name[named] if named is not None else methods[0]
        have = f"{method.name} has" if choice.several else "choose from"
        found[method.name][name] = setting(method.options, text, name, value, have=have)
    return found


def _check_strangers(ctx: typer.Context, choice: Choice, methods: Sequence[Method], names: str) -> None:
    """Raises UsageError for a flag on the command line that only other methods have.

    What the environment or a settings file says is meant for whichever method it fits.
    """
    own = {one.name for method in methods for one in fields_of(method.options)}
    for method in choice.methods():
        for one in fields_of(method.options):
            if choice.by is not None and one.effect is not None:
                continue  # it says itself beside which options it has one
            if one.flags and one.name not in own and _source(ctx, one.name) == "COMMANDLINE":
                typed = "/".join(filter(None, [one.flag, one.off]))
                beside = names if choice.by is not None else f"{choice.flag} {names}"
                others = [other.name for other in choice.methods() if any(its.name == one.name for its in fields_of(other.options))]
                owners = f"{'' if choice.by is not None else choice.flag + ' '}{' and '.join(others)}"
                raise UsageError(f"{typed} has no effect with {beside}: it is an option of {owners}; see {ctx.command_path} --help")


def check_effects(ctx: typer.Context, declared: Mapping[str, Declared], built: Mapping[str, Any]) -> None:
    """Raises UsageError for a flag on the command line that would have no effect beside the others."""
    values = all_values(declared, ctx, built)
    for name, one in declared.items():
        if one.effect is not None and _source(ctx, name) == "COMMANDLINE" and not one.effect.where(values):
            raise UsageError(f"{one.flag} {one.effect.why.format(**values)}")


def all_values(declared: Mapping[str, Declared], ctx: typer.Context, built: Mapping[str, Any]) -> dict[str, Any]:
    """Every option's value by its flag's word, defaults too: the chosen methods' where a method has it."""
    values: dict[str, Any] = {one.word: one.default if ctx.params.get(name) is None else ctx.params[name] for name, one in declared.items()}
    for group in (one for part in built.values() for one in (part if isinstance(part, tuple) else [part])):
        options = group.options if isinstance(group, ChosenMethod) else group
        values |= {one.word: getattr(options, one.name) for one in fields_of(type(options))}
    return values
