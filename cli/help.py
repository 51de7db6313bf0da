"""``--help`` in sections, the most used first; ``--help METHOD`` has one method's options, and the man page all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand

from ovskit.cli.expand import Expanded, Part
from ovskit.cli.plain_text import plain
from ovskit.core.runtime.settings import Declared, wanted

_ABOUT = "ovskit.help"  # in a context's ``meta``: the method whose options are asked for


class OvsCommand(TyperCommand):
    """A command whose parameters know their declarations; ``expanded`` is set where it is made."""

    expanded: Expanded

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As any command's, but that a method's name may follow ``--help``."""
        for k, word in enumerate(args[:-1]):
            if word in ("--help", "-h") and args[k + 1] in _methods(self.expanded.parts):
                ctx.meta[_ABOUT] = args[k + 1]
                args = [*args[: k + 1], *args[k + 2 :]]
                break
        return super().parse_args(ctx, args)

    def get_help(self, ctx: Any) -> str:
        """Plain text in what stdout can show."""
        return plain(super().get_help(ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options by section."""
        parts, about = self.expanded.parts, ctx.meta.get(_ABOUT)
        if not parts:
            super().format_options(ctx, formatter)
            return
        arguments = [(one.metavar or one.name.upper(), one.help) for one in self.expanded.declared.values() if one.argument]
        if arguments and about is None:
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        for title, rows in sections(parts, about):
            with formatter.section(title):
                formatter.write_dl(rows)
        if about is None and _others(parts):
            with formatter.section("Other methods"):
                formatter.write_dl([(name, _in_short(options)) for name, options in _others(parts)])
                formatter.write_text(f"{ctx.command_path} --help METHOD says more of them, and the man page all.")


def sections(parts: Sequence[Part], about: str | None) -> list[tuple[str, list[tuple[str, str]]]]:
    """Title and rows of every section that has options; of the methods the default's, or only that which is asked ``about``."""
    found: dict[str, list[tuple[str, str]]] = {}
    for part in parts:
        default = None if part.choice is None else part.choice.default.split(",")
        for title, method, options in part.sections():
            if about is not None and method != about:
                continue
            if about is None and method is not None and default is not None and method not in default:
                continue
            rows = [record(one) for one in options if one.flags]
            if about is not None:
                rows += [(f"--set {one.name}=X", _with_default(one)) for one in _without_flags(part, method)]
            if rows:
                found.setdefault(title, []).extend(rows)
    return list(found.items())


def record(declared: Declared) -> tuple[str, str]:
    """An option as it is typed, and what help says of it."""
    names = ", ".join(sorted(declared.flags, key=len))
    left = " / ".join(filter(None, [names, declared.off]))
    takes = "" if declared.kind is bool or declared.count else _metavar(declared)
    return f"{left} {takes}".rstrip(), _with_default(declared)


def _metavar(declared: Declared) -> str:
    if declared.metavar:
        return declared.metavar
    if declared.choices:
        return "|".join(map(str, declared.choices))
    return {int: "N", float: "X"}.get(declared.kind, "TEXT")


def _with_default(declared: Declared) -> str:
    said = []
    if declared.default_text is not None:
        said.append(f"default {declared.default_text}")
    if any(bound is not None for bound in (declared.low, declared.high, declared.above, declared.multiple)) and declared.parse is None:
        said.append(wanted(declared).removeprefix("a whole number ").removeprefix("a number "))
    if declared.source is not None:
        said.append(declared.source)
    return f"{declared.help} [{'; '.join(said)}]" if said else declared.help


def _methods(parts: Sequence[Part]) -> dict[str, Any]:
    return {method.name: method for part in parts if part.choice is not None for method in part.choice.methods()}


def _without_flags(part: Part, method: str | None) -> list[Declared]:
    from ovskit.core.runtime.settings import fields_of

    if part.choice is None or method is None:
        return []
    return [one for one in fields_of(part.choice.registry.get(method).options) if not one.flags]


def _others(parts: Sequence[Part]) -> list[tuple[str, tuple[Declared, ...]]]:
    """The methods that are not the default, and their options."""
    found = []
    for part in parts:
        if part.choice is not None:
            default = part.choice.default.split(",")
            found += [(method, options) for _, method, options in part.sections() if method is not None and method not in default]
    return found


def _in_short(options: Sequence[Declared]) -> str:
    return ", ".join("/".join(filter(None, [one.flag, one.off])) for one in options) or "no flags of its own"
