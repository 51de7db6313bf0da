"""Masks that two passes read, one of which may come by a pipe."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from ovskit.core.formats.streams.mask_inputs import MaskInputs
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter, open_masks
from ovskit.core.formats.streams.spool import Spool
from ovskit.core.label.vector_store import ADVICE
from ovskit.core.records import MaskSet
from ovskit.core.runtime.failures import Failures


class RereadableMasks:
    """Masks files read two times; where one is a pipe, by way of a temporary file that no kill leaves behind.

    ``header`` is as ``MaskInputs`` has it; ``spooled`` says whether there is such a file. ``failures`` and what is raised as for
    ``MaskInputs``.
    """

    def __init__(self, paths: Sequence[str], failures: Failures | None = None) -> None:
        self._paths, self._failures = paths, failures
        self._inputs = MaskInputs(paths, failures)
        self.header = self._inputs.header
        self.spooled = not all(map(_is_regular, paths))
        self._spool: Spool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._inputs.__exit__(kind, error, trace)
        if self._spool is not None:
            self._spool.close()

    def first(self) -> Iterator[MaskSet]:
        """Every image's masks, to be read to the end."""
        if not self.spooled:
            yield from self._inputs.sets()
            return
        # Copied as they are read, so that work on the first images need not wait for the last.
        self._spool = Spool(advice=ADVICE)
        out: Any = self._spool
        writer = MasksWriter(out, MasksHeader())
        for masks in self._inputs.sets():
            writer.write(masks)
            yield masks
        writer.finish()

    def second(self) -> Iterator[MaskSet]:
        """The same again; annotations may have other ids, but no other order."""
        if self._spool is not None:
            yield from open_masks(self._spool.from_start(), "the copy of the masks in a temporary file")[1]
            return
        with MaskInputs(self._paths, self._failures) as again:
            yield from again.sets()


def _is_regular(path: str) -> bool:
    try:
        return path != "-" and stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False
