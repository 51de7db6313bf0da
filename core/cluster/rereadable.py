"""Feature streams that are read more than once, stdin among them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ovskit.core.cluster.streams import FeatureInputs, RootedFeatures
from ovskit.core.formats.paths import show_path
from ovskit.core.runtime.errors import OutputError
from ovskit.core.runtime.logs import get_logger
from ovskit.core.runtime.output import open_input

log = get_logger("cluster")


class RepeatedInputs:
    """Feature streams as one, to be read from the beginning as often as asked; ``header`` as ``FeatureInputs`` has it."""

    def __init__(self, paths: Sequence[str], names: Sequence[str] | None = None) -> None:
        self._paths, self._names = paths, names
        with FeatureInputs(paths, names) as first:
            self.header = first.header

    def records(self) -> Iterator[RootedFeatures]:
        """Every feature map, in order; see ``FeatureInputs``."""
        with FeatureInputs(self._paths, self._names) as streams:
            yield from streams.records()


@contextmanager
def repeatable(paths: Sequence[str]) -> Iterator[RepeatedInputs]:
    """The streams of ``paths``; stdin (``-``) is copied to a temporary file as long as the context lasts. Raises OutputError if it does not
    fit there."""
    if "-" not in paths:
        yield RepeatedInputs(paths)
        return
    with tempfile.NamedTemporaryFile(prefix="ovskit-features-", suffix=".npz") as copy:
        log.warning("features are read twice: keeping stdin in %s meanwhile; a file named on the command line needs no copy", copy.name)
        try:
            with open_input("-") as stream:
                shutil.copyfileobj(stream, copy, 1 << 20)
            copy.flush()
        except OSError as error:
            raise OutputError(f"cannot keep stdin in {copy.name}: {error.strerror}; set TMPDIR to a folder with room") from None
        names = ["stdin" if path == "-" else show_path(path) for path in paths]
        yield RepeatedInputs([copy.name if path == "-" else path for path in paths], names)
