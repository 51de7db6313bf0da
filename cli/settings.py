"""What options hear besides the command line: the environment, and the TOML file of ``--config``; both by the flags' names.

``--min-score`` of ``ovs-predict`` is ``OVS_PREDICT_MIN_SCORE`` or ``OVS_MIN_SCORE``, of which the first goes before, and
``min-score`` (or ``min_score``) in the file. A subcommand's options have one name more: ``OVS_TRAIN_BACKBONE_STEPS``,
``OVS_TRAIN_STEPS``, ``OVS_STEPS``. The second flag of a pair says the opposite: ``OVS_NO_LOCAL=1``. Where a field is called
otherwise than its flag, that name is heard too, with the command's name.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer

from ovskit.core.runtime.declared import Declared, either, wanted
from ovskit.core.runtime.errors import MissingInputError, UsageError

COMMANDS = tuple("extract cluster refine hier label curate train predict eval show".split())

_PLACES = "ovskit.places"  # in a context's ``meta``: where in a file the values come from, by parameter
_TRUE, _FALSE = "1 true t yes y on".split(), "0 false f no n off".split()
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


def declared_of(parameter: Any) -> Declared | None:
    """What an option was declared as; None for the parser's own, as --help."""
    declared: Declared | None = getattr(parameter, "declared", None)
    return declared


def _environment(parameter: Any) -> str:
    declared = declared_of(parameter)
    return "never" if declared is None else declared.environment


def flag_of(parameter: Any) -> str:
    """An option as it is typed: the longest of its names."""
    return str(max(parameter.opts, key=len))


def word_of(parameter: Any) -> str:
    """An option's flag as a word: ``min_score``."""
    return _word(flag_of(parameter))


def _word(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")


def _words(parameter: Any) -> dict[str, bool]:
    """Every name of an option, and whether it says the opposite; the flag's own first, one letter last."""
    flags = sorted(parameter.opts, key=len, reverse=True)
    words = dict.fromkeys([*map(_word, flags[:1]), str(parameter.name)], False)
    words |= {_word(flag): True for flag in parameter.secondary_opts}
    return words | dict.fromkeys(map(_word, flags[1:]), False)


def options_of(command: Any) -> list[Any]:
    """The parameters of a command that are options."""
    return [parameter for parameter in command.params if parameter.param_type_name == "option"]


def is_setting(parameter: Any) -> bool:
    """Whether an option can be set beforehand: not what is asked and answered at once, as --version and --show-completion are."""
    return parameter.expose_value and not parameter.is_eager


# The environment


def listen(command: Any, path: Sequence[str]) -> None:
    """Let the options of ``command``, typed as ``path`` (``("train", "backbone")``), hear the environment."""
    for parameter in options_of(command):
        parameter.allow_from_autoenv = False
        parameter.ovs_variables = variables_of(parameter, path)
        parameter.resolve_envvar_value = functools.partial(_heard, parameter)


def variables_of(parameter: Any, path: Sequence[str]) -> dict[str, bool]:
    """The variables that an option hears, the first that is set being the one, and whether they say its opposite."""
    heard = _environment(parameter)
    if heard == "never":
        return {}
    found = {}
    for k in range(len(path), -1, -1):
        for word, opposite in _words(parameter).items():
            another = word == parameter.name != word_of(parameter)  # which may be the flag of another command's option
            if len(word) > 1 and (k or (heard == "always" and not another)):
                found["_".join(["OVS", *path[:k], word]).upper()] = opposite
    return found


def _variable(parameter: Any) -> str | None:
    variables: dict[str, bool] = getattr(parameter, "ovs_variables", {})
    return next((name for name in variables if os.environ.get(name)), None)


def _heard(parameter: Any, context: Any) -> str | None:
    name = _variable(parameter)
    if name is None:
        return None
    value = os.environ[name]
    return _opposite(value) if parameter.ovs_variables[name] else value


def _opposite(value: str) -> str:
    word = value.strip().lower()
    return "false" if word in _TRUE else "true" if word in _FALSE else value


def unheard(context: Any) -> Iterator[str]:
    """A line for each variable that is set, not heard since its name means different things, and would have had an effect."""
    path = _path(context)
    for parameter in options_of(context.command):
        if _source(context, parameter) in ("COMMANDLINE", "ENVIRONMENT"):
            continue
        for word in _words(parameter):
            name = f"OVS_{word}".upper()
            if _environment(parameter) == "by command" and os.environ.get(name):
                said = "_".join(["OVS", *path, word_of(parameter)]).upper()
                yield f"{name} has no effect, as it would mean different things to different commands; write {said}"


def _path(context: Any) -> list[str]:
    contexts = [context] if context.parent is None else [context.parent, context]
    return [(each.command.name or "").removeprefix("ovs-") for each in contexts]


# The file


def load_config(ctx: typer.Context, value: Path | None) -> Path | None:
    """Callback of ``--config``: its values become the defaults below flags and environment.

    The TOML file may hold settings for every command at its top level, for one in a table of its name (``[cluster]``),
    and for one subcommand in a table within that (``[train.backbone]``). Options that may be repeated take a list, and those
    that are NAME=X also a table: ``set = ["k=8"]``, ``set = {k = 8}``. A setting that no command knows is an error, and so is one
    in a command's own table that it does not know; in the table of a group it is one if no subcommand knows it.
    """
    if value is None or ctx.resilient_parsing:
        return value
    import tomllib

    try:
        data = tomllib.loads(value.read_text("utf-8-sig"))
    except OSError as error:
        raise MissingInputError(f"cannot read --config {value}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {value} is not TOML: {error}") from None
    known = _settable(ctx.command)
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for place, name, table, inner, others in _levels(ctx, value, data, known):
        here: set[str] = set()
        for key, item in table.items():
            word = _word(key)
            if word in known and not (key in inner and isinstance(item, dict)):
                parameter, opposite = known[word]
                if parameter.name in here:
                    raise UsageError(f"--config {value}: {name or 'the file'} says {flag_of(parameter)} twice, once as {key!r}")
                here.add(parameter.name)
                values[parameter.name] = _setting(parameter, item, opposite, f"--config {value}: {name}{' ' * bool(name)}{key}")
                places[parameter.name] = place
            elif not (key in inner and isinstance(item, dict)) and word not in others:
                raise UsageError(f"--config {value}: {_no_such(key, item, name, ctx)}")
    ctx.default_map = values
    ctx.meta[_PLACES] = places
    return value


def _levels(ctx: Any, path: Path, data: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, Any, Any]]:
    """From general to particular: where it is, ``[table]``, its content, its tables for others, and what is known but to others."""
    tops = {key for key, item in data.items() if key in COMMANDS and (isinstance(item, dict) or _word(key) not in _all_words())}
    is_for_others = any(_word(key) not in known for key in data.keys() - tops)
    yield str(path), "", data, tops, _all_words() if is_for_others else ()
    contexts = [ctx] if ctx.parent is None else [ctx.parent, ctx]
    table: Any = data
    name = ""
    for key, context in zip(_path(ctx), contexts, strict=True):
        name = f"{name}.{key}" if name else key
        is_option = not isinstance(table.get(key), dict) and (_word(key) in known or (table is data and key not in tops))
        table = {} if is_option else table.get(key, {})
        if not isinstance(table, dict):
            raise UsageError(f"--config {path}: [{name}] must be a table")
        subcommands = getattr(context.command, "commands", {})
        others = {word for command in subcommands.values() for word in _settable(command)}
        yield f"[{name}] in {path}", f"[{name}]", table, subcommands, others


def _settable(command: Any) -> dict[str, tuple[Any, bool]]:
    """The options of a command that a file may set, by all their names, and which of these say the opposite."""
    return {word: (option, opposite) for option in options_of(command) if is_setting(option) for word, opposite in _words(option).items()}


@functools.cache
def _all_words() -> frozenset[str]:
    """The names of all options of all commands; only needed, and their modules only read, where a file has one for others."""
    leaves = [leaf for name in COMMANDS for leaf in importlib.import_module(f"ovskit.cli.{name}").app.leaves()]
    return frozenset(word for leaf in leaves for word in _settable(leaf.click))


def _no_such(key: str, item: Any, name: str, ctx: Any) -> str:
    if name:
        tool = ctx.command_path if ctx.parent is None or name.count(".") else ctx.parent.command_path
        return f"{name} has {key!r}, which is not an option of {tool}"
    if key in COMMANDS:
        return f"[{key}] must be a table"
    near = get_close_matches(_word(key.removeprefix("ovs-")), COMMANDS if isinstance(item, dict) else _all_words(), 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"[{key}] is not a command{hint}" if isinstance(item, dict) else f"{key!r} is not an option of any command{hint}"


def _setting(parameter: Any, item: Any, opposite: bool, where: str) -> Any:
    """A value of TOML as the option's parser takes it: a string, a bool, or a list of strings."""
    if parameter.multiple:
        if isinstance(item, dict):
            if "=" not in (parameter.metavar or ""):
                raise UsageError(f"{where}: give a list, not a table")
            return _assignments(item)
        return [_text(one) for one in (item if isinstance(item, list) else [item])]
    if isinstance(item, dict):
        raise UsageError(f"{where}: give a value, not a table")
    if opposite:
        return not item if isinstance(item, bool) else _opposite(_text(item))
    if isinstance(item, bool):
        return item if parameter.is_bool_flag else str(int(item)) if parameter.count else _text(item)
    return _text(item)


def _assignments(table: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``NAME=X`` of a table, ``METHOD.NAME=X`` of a table within."""
    found: list[str] = []
    for key, item in table.items():
        found += _assignments(item, f"{prefix}{key}.") if isinstance(item, dict) else [f"{prefix}{key}={_text(item)}"]
    return found


def _text(item: Any) -> str:
    if isinstance(item, list):
        return ",".join(map(_text, item))
    return str(item).lower() if isinstance(item, bool) else str(item)


# Where a value comes from


def _source(context: Any, parameter: Any) -> str | None:
    source = context.get_parameter_source(parameter.name)
    return None if source is None else str(source.name)


def origin(context: Any, parameter: Any) -> str | None:
    """Where an option's value comes from, if not from the command line: ``OVS_METHOD``, ``[cluster] in x.toml``."""
    source = _source(context, parameter)
    if source == "ENVIRONMENT":
        return _variable(parameter)
    if source == "DEFAULT_MAP":
        places: Mapping[str, str] = context.meta.get(_PLACES, {})
        return places.get(parameter.name)
    return None


def with_origins(message: str, context: Any) -> str:
    """``message``, and where the options that it speaks of have their values from, if not from the command line.

    It speaks of an option if it has its flag, or if it has no flag of any but the option's value.
    """
    flags = set(_FLAG.findall(message))
    elsewhere = {option: where for option in options_of(context.command) if (where := origin(context, option)) is not None}
    meant = [option for option in elsewhere if flags & {*option.opts, *option.secondary_opts}]
    if not flags:
        meant = [option for option in elsewhere if _mentions(message, context.params.get(option.name))]
    said = [f"{flag_of(option)} is from {elsewhere[option]}" for option in meant]
    return f"{message} ({'; '.join(said)})" if said else message


def _mentions(message: str, value: Any) -> bool:
    values = value if isinstance(value, list | tuple) else [value]
    texts = [str(one) for one in values if one is not None and not isinstance(one, bool)]
    # As settings speak of themselves: crop 40.
    texts += [f"{name.rpartition('.')[2]} {set_to}" for name, equals, set_to in (text.partition("=") for text in texts) if equals]
    return any(len(text) > 1 and re.search(rf"(?<!\w){re.escape(text)}(?!\w)", message) for text in texts)


def parse_error(error: Any) -> str:
    """What the parser says of a value that it cannot read, in our words."""
    parameter, context = getattr(error, "param", None), getattr(error, "ctx", None)
    if type(error) is not typer.BadParameter or parameter is None or parameter.param_type_name != "option":
        return str(error.format_message()).replace("Value error, ", "")
    cause: Any = error.__cause__
    what, wanted = flag_of(parameter), str(error.message)
    if hasattr(cause, "errors"):  # pydantic's
        what += " " + (str(cause.errors()[0].get("input")) or "''")
        wanted = _wanted(parameter) or wanted.removeprefix("Value error, ")
    where = None if context is None else origin(context, parameter)
    return f"{what}{'' if where is None else f' (from {where})'}: {wanted}"


def _wanted(parameter: Any) -> str:
    """What values an option takes."""
    declared = declared_of(parameter)
    if declared is None or not (declared.choices or declared.kind in (bool, int, float)):
        return ""
    return f"choose {either(declared.choices)}" if declared.choices else f"give {wanted(declared)}"
