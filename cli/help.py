"""``--help`` in sections, the most used first; ``--help METHOD`` has one method's options, ``--help all`` and the man page everything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_origin

from typer.core import TyperCommand

from ovskit.cli.expand import Expanded, Part
from ovskit.cli.plain_text import plain
from ovskit.core.runtime.declared import Declared, wanted
from ovskit.core.runtime.methods import Method
from ovskit.core.runtime.settings import fields_of

_ABOUT = "ovskit.help"  # in a context's ``meta``: the method whose options are asked for, or all
ALL = "all"
COMMON = "Common"  # the section of the options that every command has

# Stands for a hyphen while help is laid out, so that no line ends within a flag or the name of a command.
_HYPHEN = "\u2011"

Rows = list[tuple[str, str]]


class OvsCommand(TyperCommand):
    """A command whose parameters know their declarations; ``expanded`` is set where it is made."""

    expanded: Expanded

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As any command's, but that a method's name, or all, may follow ``--help``."""
        for k, word in enumerate(args[:-1]):
            if word in ("--help", "-h") and (args[k + 1] == ALL or args[k + 1] in methods_of(self.expanded.parts)):
                ctx.meta[_ABOUT] = args[k + 1]
                args = [*args[: k + 1], *args[k + 2 :]]
                break
        return super().parse_args(ctx, args)

    def get_help(self, ctx: Any) -> str:
        """Plain text in what stdout can show."""
        return plain(super().get_help(ctx).replace(_HYPHEN, "-"))

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """What the command does or, where a method is asked about, what this does."""
        method = methods_of(self.expanded.parts).get(ctx.meta.get(_ABOUT, ""))
        if method is None:
            super().format_help_text(ctx, formatter)
            return
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(f"{method.name}: {sentence(method)}")

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The examples, where nothing in particular is asked about."""
        if ctx.meta.get(_ABOUT) in (None, ALL):
            super().format_epilog(ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options by section."""
        parts, about = self.expanded.parts, ctx.meta.get(_ABOUT)
        if not parts:
            super().format_options(ctx, formatter)
            return
        if about in (None, ALL):
            with formatter.section("Arguments"):
                formatter.write_dl(_whole([(metavar(one), one.help) for one in self.expanded.declared.values() if one.argument]))
        for title, options in sections(parts, about):
            shown = [one for one in options if about is not None or not one.rare]
            rare = in_short([one for one in options if one not in shown])
            rows = [row for one in shown for row in rows_of(one, parts)]
            if title == COMMON:
                rows += [] if about is None else parser_rows(ctx)
                rare += "" if about is not None else "".join(f", {max(one.opts, key=len)}" for one in _of_parser(ctx))
            rows += [("and", rare)] if rare else []
            with formatter.section(title):
                formatter.write_dl(_whole(rows))
        if about is None:
            tool = ctx.command_path
            others = list(_other_methods(parts))
            if others:
                with formatter.section("Other methods"):
                    formatter.write_dl(_whole(others))
            how = f"{tool} --help METHOD shows the options of a method, --help all" if others else f"{tool} --help all shows"
            formatter.write_paragraph()
            formatter.write_text(f"{how} every option.")


def sections(parts: Sequence[Part], about: str | None) -> list[tuple[str, list[Declared]]]:
    """Titles and options of the sections: those of the default method, of the one method that is asked ``about``, or of all.

    Options that only ``--set`` gives are there where a method, or all, is asked about.
    """
    found: dict[str, list[Declared]] = {}
    for part in parts:
        for title, method, options in part.sections():
            if about is None and method is not None and not _is_default(part, method):
                continue
            if about not in (None, ALL, method):
                continue
            if method is not None and about is not None:
                options = fields_of(methods_of(parts)[method].options)
                if part.choice is not None and part.choice.several:  # --set METHOD.NAME=X
                    options = tuple(one if one.flags else one._replace(name=f"{method}.{one.name}") for one in options)
            shown = sorted((one for one in options if not one.argument), key=lambda one: not one.flags)
            if shown:
                found.setdefault(title, []).extend(shown)
    return list(found.items())


def rows_of(declared: Declared, parts: Sequence[Part]) -> Rows:
    """An option's ``record``, and below that which chooses among methods what each of them is."""
    rows = [record(declared)]
    for part in parts:
        if part.choice is not None and declared.flags == (part.choice.flag,):
            rows += [(f"  {method.name}", sentence(method)) for method in part.choice.methods()]
    return rows


def sentence(method: Method) -> str:
    """What a method is and needs."""
    needs = f" Needs {method.needs}." if method.needs else ""
    return f"{method.summary}{needs}{' Supervised: trained on labels.' if method.supervised else ''}"


def record(declared: Declared) -> tuple[str, str]:
    """An option as it is typed, and what help says of it."""
    if not declared.flags:
        return f"--set {declared.name}={metavar(declared)}", _with_default(declared)
    names = ", ".join(sorted(declared.flags, key=len))
    left = " / ".join(filter(None, [names, declared.off]))
    takes = "" if declared.kind is bool or declared.counted else metavar(declared)
    return f"{left} {takes}".rstrip(), _with_default(declared)


def parser_rows(ctx: Any) -> Rows:
    """The options that the parser itself adds to a command, those of completion and help, as it describes them."""
    return [parameter.get_help_record(ctx) for parameter in _of_parser(ctx)]


def metavar(declared: Declared) -> str:
    """What stands for an option's value."""
    if declared.metavar:
        return declared.metavar
    if declared.choices:
        return "|".join(map(str, declared.choices))
    if declared.kind is bool:
        return "true|false"
    if get_origin(declared.kind) is tuple and declared.parse is None:
        return "X,X,…"
    return {int: "N", float: "X", Path: "FILE"}.get(declared.kind, "TEXT")


def in_short(options: Sequence[Declared]) -> str:
    """The flags of some options in one line."""
    return ", ".join(max(one.flags, key=len) + (f"/{one.off}" if one.off else "") for one in options if one.flags)


def methods_of(parts: Sequence[Part]) -> dict[str, Any]:
    """The methods that a command has to choose from, by name."""
    return {method.name: method for part in parts if part.choice is not None for method in part.choice.methods()}


def _whole(rows: Rows) -> Rows:
    return [(name, said.replace("-", _HYPHEN)) for name, said in rows]


def _of_parser(ctx: Any) -> list[Any]:
    """The parameters of a command that nobody declared."""
    return [parameter for parameter in ctx.command.get_params(ctx) if getattr(parameter, "declared", None) is None]


def _is_default(part: Part, method: str) -> bool:
    return part.choice is not None and method in part.choice.default.split(",")


def _other_methods(parts: Sequence[Part]) -> Iterator[tuple[str, str]]:
    """The methods that are not the default, and their flags; those with the same flags together."""
    found: dict[str, list[str]] = {}
    for part in parts:
        for _, method, options in part.sections():
            if method is not None and not _is_default(part, method):
                said = in_short(options) or ("(--set alone)" if fields_of(methods_of(parts)[method].options) else "(no options)")
                found.setdefault(said, []).append(method)
    for said, methods in found.items():
        yield ", ".join(methods), said


def _with_default(declared: Declared) -> str:
    said = []
    if declared.default_text is not None:
        said.append(f"default {declared.default_text}")
    bounds = (declared.low, declared.high, declared.above, declared.below, declared.multiple)
    if any(bound is not None for bound in bounds) and declared.parse is None:
        said.append(wanted(declared).removeprefix("a whole number ").removeprefix("a number "))
    if declared.source is not None:
        said.append(declared.source)
    return f"{declared.help} [{'; '.join(said)}]" if said else declared.help
