"""What makes one mask a part of another."""

from __future__ import annotations

from typing import ClassVar

from ovskit.core.runtime.settings import Options, option


class ForestOptions(Options):
    """See ``coverage_forest.grow_forest``. The defaults are SOHES'; HASSOD's are ``inclusive`` and 2."""

    SECTION: ClassVar[str] = "Forest"

    cover: float = option(
        0.9, "A part lies in its whole by more than this share, and not the reverse.",
        flag=True, low=0, high=1, metavar="X", source="SOHES section 3.1",
    )  # fmt: skip
    inclusive: bool = option(False, "Accept a share of exactly --cover too, as HASSOD does; SOHES asks for more.", flag=True)
    deepest: int | None = option(
        None, "Write levels deeper than N as N, parents unchanged; HASSOD's is 2.", flag=True, low=0, metavar="N", shown="none"
    )
