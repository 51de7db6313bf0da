"""Options that would have no effect beside others, which is said instead of leaving somebody to believe in them.

Only of flags on the command line: what the environment or a settings file says is meant for whichever run it fits.
"""

from __future__ import annotations

import os
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


def _reads_list(given: Given) -> bool:
    return given["images"] is None and (not given["inputs"] or "-" in given["inputs"])


def _draws(*kinds: str) -> Callable[[Given], bool]:
    """Whether ovs-show draws one of these: a page, a folder of overlays, a sheet."""

    def draws(given: Given) -> bool:
        output = str(given["output"])
        folder = output.endswith("/") or os.path.isdir(output)
        return ("sheet" if given["sheet"] is not None else "folder" if folder else "page") in kinds

    return draws


def _by_head(given: Given) -> bool:
    several = "," in str(given["scales"])
    return given["hier"] == "head" or (given["hier"] is None and not several)


def _is_learned(given: Given) -> bool:
    return given["model"] not in ("builtin", "handmade")


RULES = (
    Rule("", "skip_existing", lambda g: g["output"] != "-", "looks for the output's file: name it with -o"),
    Rule("extract|predict", "null", _reads_list, "is about a list of paths on stdin, and none is read"),
    Rule("extract", "facet", lambda g: _is_learned(g) or g["facet"] == "key", "says nothing to {model}, which has no facets"),
    Rule("extract", "layer", lambda g: _is_learned(g) or g["layer"] == -1, "says nothing to {model}, which has no layers"),
    Rule(
        "cluster",
        "batch",
        lambda g: g["method"] != "kmeans" or g["scope"] == "batch",
        "is the number of images that --scope batch clusters together: add it, or leave the number out",
    ),
    Rule(
        "cluster",
        "small local_size min_local context min_crop share weights",
        lambda g: g["local"] is not False,
        "is about crops of small regions, and --no-local looks at none",
    ),
    Rule("refine", "weights", lambda g: "cascadepsp" in g["method"], "is for --method cascadepsp: no other method has weights"),
    Rule(
        "label",
        "seed restarts iterations",
        lambda g: g["clusters"] is not None,
        "is of k-means, which only --clusters runs: leave it out",
    ),
    Rule("predict", "ancestor_threshold", _by_head, "is of the ancestor head: add --hier head, or leave it out"),
    Rule(
        "eval",
        "confidence",
        lambda g: g["bootstrap"] > 0 or not 0 < g["confidence"] < 1,
        "is the share of resamples within an interval: add --bootstrap N",
    ),
    Rule("eval", "seed", lambda g: g["bootstrap"] > 0, "is of the resamples: add --bootstrap N"),
    Rule("eval", "max", lambda g: g["metric"] in ("ar", "ap"), "says nothing to --metric {metric}, which takes all masks"),
    Rule("show", "match_iou", lambda g: g["gt"] is not None, "says which masks of a ground truth are found: add --gt GT"),
    Rule("show", "title", _draws("page"), "is that of a page (-o PAGE.html)"),
    Rule("show", "max_side", _draws("page", "sheet"), "is for pages and sheets: overlays are as large as their photographs"),
    Rule(
        "show", "opacity no_legend view", _draws("folder", "sheet"), "is for pictures (-o DIR/ or --sheet): a page has controls of its own"
    ),
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
