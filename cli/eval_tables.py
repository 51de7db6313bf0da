"""The tables of ``ovs-eval`` as text."""

from __future__ import annotations

from collections.abc import Sequence


def draw(tables: Sequence[tuple[list[str], list[list[str]]]], said: str, *, for_terminal: bool) -> str:
    """Tables and what is said below them as text: as wide as they are, or as the terminal is."""
    import io

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ovskit.core.eval.report import COUNTS

    text = io.StringIO()
    for columns, rows in tables:
        drawn = Table()
        for k, title in enumerate(columns):
            drawn.add_column(Text(title), justify="right" if k else "left", overflow="fold")
        for row in rows:
            if row[0] == COUNTS:
                drawn.add_section()
            drawn.add_row(*map(Text, row))
        probe = Console(file=text, force_terminal=False, width=10_000)
        width = None if for_terminal else probe.measure(drawn).maximum
        console = Console(file=text, force_terminal=for_terminal, width=width, color_system="auto" if for_terminal else None)
        console.print(drawn)
    console.print(Text(said), soft_wrap=True)
    return text.getvalue()
