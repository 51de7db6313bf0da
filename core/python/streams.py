"""The streams as Python sees them: a header and records, read from a file or made by a step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from ovskit.core.cluster.streams import FeatureInputs
from ovskit.core.formats.streams.curated import CuratedHeader, CuratedInputs, CuratedPair
from ovskit.core.formats.streams.features import FeatureHeader, FeatureWriter
from ovskit.core.formats.streams.mask_inputs import MaskInputs
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
from ovskit.core.records import EmbeddingBlock, FeatureMap, MaskSet
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.output import check_output, open_output

Paths = str | Path | Iterable[str | Path]


@dataclass(frozen=True)
class Features:
    """Features of a set of images: ``header``, and one ``FeatureMap`` after the other when iterated over.

    One that was read from a file may be iterated over again; what a step makes can be iterated over once: ``write_features`` keeps it.
    ``path`` is the file, None of what a step makes.
    """

    header: FeatureHeader
    records: Callable[[], Iterator[FeatureMap | EmbeddingBlock]] = field(repr=False)
    path: tuple[str, ...] | None = None

    def __iter__(self) -> Iterator[FeatureMap | EmbeddingBlock]:
        return self.records()


@dataclass(frozen=True)
class Masks:
    """Masks of a set of images: ``header``, and one ``MaskSet`` after the other when iterated over. As ``Features`` otherwise."""

    header: MasksHeader
    records: Callable[[], Iterator[MaskSet]] = field(repr=False)
    path: tuple[str, ...] | None = None

    def __iter__(self) -> Iterator[MaskSet]:
        return self.records()


@dataclass(frozen=True)
class Curated:
    """Curated pairs: ``header``, and one ``CuratedPair`` after the other when iterated over, as often as one likes."""

    header: CuratedHeader
    records: Callable[[], Iterator[CuratedPair]] = field(repr=False)
    path: tuple[str, ...]

    def __iter__(self) -> Iterator[CuratedPair]:
        return self.records()


def read_curated(paths: Paths) -> Curated:
    """What ``ovs-curate`` wrote, in one file or in all parts of a run as one. Raises as ``read_features`` does."""
    names = as_paths(paths)

    def records() -> Iterator[CuratedPair]:
        with CuratedInputs(names) as inputs:
            yield from inputs.pairs()

    with CuratedInputs(names) as inputs:
        return Curated(inputs.header, records, tuple(names))


def read_features(paths: Paths) -> Features:
    """Patch features in one file, or in several shards of a run as one.

    Raises MissingInputError and InputError (``core.runtime.errors``) for what cannot be read, now or when it is iterated over.
    """
    names = as_paths(paths)

    def records() -> Iterator[FeatureMap]:
        with FeatureInputs(names) as inputs:
            for rooted in inputs.records():
                yield rooted.features

    with FeatureInputs(names) as inputs:
        return Features(inputs.header, records, tuple(names))


def read_masks(paths: Paths) -> Masks:
    """Masks in one file, a stream of ours or any COCO document, or in several joined. Raises as ``read_features`` does."""
    names = as_paths(paths)

    def records() -> Iterator[MaskSet]:
        with MaskInputs(names) as inputs:
            yield from inputs.sets()

    with MaskInputs(names) as inputs:
        return Masks(inputs.header, records, tuple(names))


def write_features(path: str | Path, features: Features) -> None:
    """Write ``features`` to a file, whole or not at all. Raises OutputError, and what making them raises."""
    check_output(str(path), binary=True)
    with open_output(str(path)) as out:
        writer = FeatureWriter(out, features.header)
        for record in features:
            writer.write(record)
        writer.finish()


def write_masks(path: str | Path, masks: Masks | Iterable[MaskSet], *, root: str | Path | None = None) -> None:
    """Write ``masks`` to a file, whole or not at all; ``root`` is the folder of their photographs, if they do not say themselves.

    Raises OutputError, and what making them raises.
    """
    check_output(str(path), binary=False)
    header = masks.header if isinstance(masks, Masks) else MasksHeader("masks by ovskit")
    with open_output(str(path)) as out:
        writer = MasksWriter(out, header if root is None else replace(header, root=str(root)))
        for record in masks:
            writer.write(record)
        writer.finish()


def as_paths(paths: Paths) -> list[str]:
    """Paths as texts. Raises UsageError for none at all, or for stdin, which is the commands'."""
    names = [os.fspath(paths)] if isinstance(paths, str | Path) else [os.fspath(path) for path in paths]
    if not names or "-" in names:
        raise UsageError("name a file" if not names else "stdin (-) is for the commands: name a file")
    return names


def as_features(features: Features | Paths) -> Features:
    """``features``, or those of the files that are named."""
    return features if isinstance(features, Features) else read_features(features)


def as_masks(masks: Masks | Paths) -> Masks:
    """``masks``, or those of the files that are named."""
    return masks if isinstance(masks, Masks) else read_masks(masks)


def files_of(features: Features, stack: ExitStack) -> list[str]:
    """Files that hold ``features``: their own, or a temporary one that goes with ``stack``."""
    import tempfile

    if features.path is not None:
        return list(features.path)
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ovskit-"))
    path = os.path.join(folder, "features.npz")
    write_features(path, features)
    return [path]
