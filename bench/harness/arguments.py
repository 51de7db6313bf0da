"""The flags that several scripts have, with the same name, the same check and the same text in each."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from harness.photographs import SETS, photographs_at_hand

T = TypeVar("T")


def bench_parser(
    text: str | None,
    *,
    repeat: int | None = None,
    sets: Iterable[str] = (),
    limit: int | None = None,
    skip: bool = False,
    model: str | None = None,
    bootstrap: int | None = None,
    jobs: bool = False,
    markdown: bool = False,
    json: bool = False,
) -> argparse.ArgumentParser:
    """A parser with the named flags; ``text`` is the script's docstring.

    A value is the flag's default; a flag that has none of its own is there if True. ``sets`` are the names that ``--sets`` allows, all
    of them by default.
    """
    where = "Photographs come from $OVSKIT_TEST_DATA (default: ../shared/data beside the checkout)."
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=text, formatter_class=form, epilog=where if limit is not None else None)
    add = parser.add_argument
    if repeat is not None:
        add("--repeat", type=int, default=repeat, help=f"measure this many times [{repeat}]")
    if sets:
        known = tuple(sets)
        add("--sets", type=lambda given: chosen_sets(given, known), default=",".join(known), help=f"photographs of [{','.join(known)}]")
    if limit is not None:
        add("--limit", type=int, default=limit, help=f"photographs of each set [{limit}]")
    if skip:
        add("--skip", type=int, default=0, help="leave out this many photographs of each set, the first ones [0]")
    if model is not None:
        add("--model", default=model, help=f"the model that describes photographs [{model}]")
    if bootstrap is not None:
        add("--bootstrap", type=int, default=bootstrap, help=f"resamples for an interval [{bootstrap}]")
    if jobs:
        add("--jobs", type=int, default=1, help="photographs at a time [1]")
    if markdown:
        add("--markdown", type=Path, metavar="FILE", help="also write the tables here, as Markdown")
    if json:
        add("--json", type=Path, metavar="FILE", help="also write the numbers here")
    return parser


def chosen_sets(text: str, known: Iterable[str] = tuple(SETS)) -> list[str]:
    """``bsds500,ccp_parts`` as a list. Raises ArgumentTypeError for a name that is not ``known``, or whose photographs are not there."""
    names = text.split(",")
    if not set(names) <= set(known):
        raise argparse.ArgumentTypeError(f"choose from {', '.join(known)}")
    missing = photographs_at_hand(names)
    if missing:
        raise argparse.ArgumentTypeError(missing)
    return names


def list_of(kind: Callable[[str], T], known: Iterable[Any] = ()) -> Callable[[str], list[T]]:
    """The type of a flag that takes values with commas between; of ``known`` ones only, if some are named."""
    choices = tuple(known)

    def parse(text: str) -> list[T]:
        values = [kind(word) for word in text.split(",") if word]
        if choices and not set(values) <= set(choices):
            raise argparse.ArgumentTypeError(f"choose from {', '.join(map(str, choices))}")
        return values

    return parse
