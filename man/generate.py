"""Write man/ovs-*.1 from the commands themselves, so that they cannot differ; ``--check`` only compares.

Name, synopsis, description, options and examples come from each command's Typer app; a command of subcommands has them all in
one page. ``man/NAME.inc`` holds what a
declaration does not say (notes, SEE ALSO), ``man/common.inc`` what all commands share (ENVIRONMENT, EXIT STATUS); both in roff.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ovskit.cli.help import ALL, COMMON, parser_rows, rows_of, sections

HERE = Path(__file__).parent
COMMANDS = ("extract", "cluster", "refine", "hier", "label", "curate", "train", "predict", "eval", "show")
DATE = "2026-11-21"


def escape(text: str) -> str:
    """Text as roff: backslashes, dashes that are to be typed, and control characters at the start of a line."""
    typed = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    lines = ["\\&" + line if line[:1] in (".", "'") else line for line in typed.split("\n")]
    # Latin signs that mandoc has names for; a plain page must not depend on the reader's locale.
    return "\n".join(lines).replace("×", "\\(mu").replace("–", "\\(en").replace("θ", "theta")


def prose(text: str) -> str:
    """A paragraph as roff, one blank apart, in lines short enough for mandoc's taste."""
    return "\n".join(escape(line) for line in textwrap.wrap(" ".join(text.split()), 66, break_on_hyphens=False))


def page(short: str) -> str:
    """The man page of ``ovs-<short>`` in roff."""
    app = importlib.import_module(f"ovskit.cli.{short}").app
    version = importlib.import_module("ovskit.core").__version__
    leaves, name = app.leaves(), app.tool
    is_group = [leaf.name for leaf in leaves] != [name]
    command = app.click_command()
    summary, _, rest = (command.help or "").partition("\n\n")
    one_line = summary.partition(". ")[0].rstrip(".").replace("\n", " ")
    out = [
        f'.TH {name.upper()} 1 {DATE} "ovskit {version}" "ovskit manual"',
        ".SH NAME",
        f"{escape(name)} \\-",
        prose(one_line[0].lower() + one_line[1:]),
        ".SH SYNOPSIS",
    ]
    for k, leaf in enumerate(leaves):
        out += [".br"] if k else []
        out += [f".B {escape(leaf.name)}", f"[\\fIOPTIONS\\fR] {' '.join(_argument(p) for p in _arguments(leaf.click))}"]
    out += [".SH DESCRIPTION", *_paragraphs(summary, rest)]
    for leaf in leaves:
        if is_group:
            summary, _, rest = (leaf.click.help or "").partition("\n\n")
            out += [f".SH {escape(leaf.name).upper()}", *_paragraphs(summary, rest)]
        out += [".SS Arguments" if is_group else ".SH ARGUMENTS"]
        for parameter in _arguments(leaf.click):
            out += [".TP", f"\\fI{escape(parameter.metavar or parameter.name.upper())}\\fR", prose(parameter.help or "")]
        out += [*([] if is_group else [".SH OPTIONS"]), *_options(leaf, ".SS")]
        out += [".SS Examples" if is_group else ".SH EXAMPLES", *_examples(leaf.examples)]
    out.append((HERE / "common.inc").read_text("utf-8").rstrip())
    out.append((HERE / f"{name}.inc").read_text("utf-8").rstrip())
    return "\n".join(out) + "\n"


def _paragraphs(summary: str, rest: str) -> list[str]:
    out = [prose(summary)]
    for paragraph in rest.split("\n\n"):
        if paragraph.strip():
            out += [".PP", prose(paragraph)]
    return out


def _options(leaf: Any, heading: str) -> list[str]:
    """Every option, in the sections of --help; those that only --set gives are among their method's."""
    out = []
    for title, options in sections(leaf.click.expanded.parts, ALL):
        out.append(f"{heading} {escape(title)}")
        rows = [row for declared in options for row in rows_of(declared, leaf.click.expanded.parts)]
        if title == COMMON:
            rows += parser_rows(leaf.click.make_context(leaf.name, [], resilient_parsing=True))
        for name, said in rows:
            out += [".TP", f"\\fB{escape(name.strip())}\\fR", prose(said)]
    return out


def _examples(examples: Sequence[tuple[str, str]]) -> list[str]:
    out = []
    for k, (comment, line) in enumerate(examples):
        out += [".PP"] if k else []
        out += [escape(comment[0].upper() + comment[1:] + ":"), ".PP", ".nf", ".RS 4", escape(line), ".RE", ".fi"]
    return out


def _arguments(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if parameter.param_type_name == "argument"]


def _argument(parameter: Any) -> str:
    many = " ..." if parameter.nargs == -1 else ""
    return f"[\\fI{escape(parameter.metavar or parameter.name.upper())}\\fR{many}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with what is there, write nothing")
    check = parser.parse_args().check
    stale = []
    for short in COMMANDS:
        path, text = HERE / f"ovs-{short}.1", page(short)
        if path.exists() and path.read_text("utf-8") == text:
            continue
        stale.append(path.name)
        if not check:
            path.write_text(text, "utf-8")
    if check and stale:
        sys.stderr.write(f"man pages differ from the commands: {', '.join(stale)}; run make man\n")
        return 1
    sys.stderr.write("man pages: " + ("as the commands say\n" if not stale else f"wrote {', '.join(stale)}\n"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
