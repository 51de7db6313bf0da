"""Feature streams that are read more than once, stdin among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ovskit.core.cluster.streams import FeatureInputs, RootedFeatures, name_of
from ovskit.core.formats.streams.numpy_features import NumpyFeatures
from ovskit.core.formats.streams.spool import kept_stdin


class RereadableFeatures:
    """Feature streams as one, to be read from the beginning as often as asked; ``header`` as ``FeatureInputs`` has it."""

    def __init__(self, paths: Sequence[str | NumpyFeatures], names: Sequence[str] | None = None) -> None:
        self._paths, self._names = paths, names
        with FeatureInputs(paths, names) as first:
            self.header = first.header

    def records(self) -> Iterator[RootedFeatures]:
        """Every feature map, in order; see ``FeatureInputs``."""
        with FeatureInputs(self._paths, self._names) as streams:
            yield from streams.records()


@contextmanager
def rereadable(paths: Sequence[str | NumpyFeatures]) -> Iterator[RereadableFeatures]:
    """The streams of ``paths``; stdin (``-``) is copied to a temporary file as long as the context lasts. Raises OutputError if it does not
    fit there."""
    if "-" not in paths:
        yield RereadableFeatures(paths)
        return
    with kept_stdin("features", ".npz") as copy:
        names = [name_of(path) for path in paths]
        yield RereadableFeatures([copy if path == "-" else path for path in paths], names)
