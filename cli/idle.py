"""Options that would have no effect beside others, which is said instead of leaving somebody to believe in them.

Only of flags on the command line: what the environment or a settings file says is meant for whichever run it fits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ovskit.cli.settings import flag_of, options_of, word_of
from ovskit.core.runtime.errors import UsageError

Given = Mapping[str, Any]  # values of a command's options, by the names of their flags, and of its arguments


@dataclass(frozen=True, slots=True)
class Rule:
    """``options`` of ``commands`` (as they are typed, without ovs-; none: all) do nothing but where they are ``heard``."""

    commands: str
    options: str
    heard: Callable[[Given], bool]
    why: str


RULES = (
    Rule("train", "eval_root eval_limit", lambda g: g["eval"] is not None, "is about what --eval names: add --eval GT.json"),
    Rule("train segment", "scratch", lambda g: g["weights"] is None, "begins with random weights, and --weights brings some: choose one"),
)


def is_by_hand(context: Any, option: Any) -> bool:
    """Whether an option is on the command line."""
    source = context.get_parameter_source(option.name)
    return source is not None and source.name == "COMMANDLINE"


def check_heard(context: Any) -> None:
    """Raises UsageError for a flag on the command line that would have no effect beside the others."""
    path = str(context.command_path).removeprefix("ovs-")
    options = {word_of(option): option for option in options_of(context.command)}
    given = {**context.params, **{word: context.params.get(option.name) for word, option in options.items()}}
    for rule in RULES:
        if rule.commands and not any(f"{path} ".startswith(f"{command} ") for command in rule.commands.split("|")):
            continue
        for word in rule.options.split():
            if word in options and is_by_hand(context, options[word]) and not rule.heard(given):
                raise UsageError(f"{flag_of(options[word])} {rule.why.format(**given)}")
