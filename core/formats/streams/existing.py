"""Whether an existing output is what a run would write, for ``--skip-existing``: whole, and with the same header.

What members and masks hold is not compared: files appear whole or not at all, and every reader checks what it reads.
"""

from __future__ import annotations

from dataclasses import replace

from ovskit.core.formats.paths import show_path
from ovskit.core.formats.streams import masks
from ovskit.core.formats.streams.curated import CuratedHeader, listed_ids
from ovskit.core.formats.streams.features import HEADER, FeatureHeader, image_ids
from ovskit.core.formats.streams.image_labels import ImageLabelsHeader, listed_images
from ovskit.core.formats.streams.masks import MasksHeader
from ovskit.core.formats.streams.same_run import Header, unlike
from ovskit.core.formats.streams.zipstream import read_directory, read_members
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.output import open_input


def check_existing(
    path: str, header: FeatureHeader | MasksHeader | CuratedHeader | ImageLabelsHeader, *, categories: bool = True
) -> set[int]:
    """The ids of the images of the stream at ``path``, which a run would write with ``header``.

    ``categories``: compare the categories of masks too. Raises InputError if the file is not a whole stream, UsageError if it is one of
    another shard, command, root or model.
    """
    what = show_path(path)
    if isinstance(header, FeatureHeader):
        return _features(path, what, header)
    if isinstance(header, CuratedHeader):
        return _curated(path, what, header)
    if isinstance(header, ImageLabelsHeader):
        return _image_labels(path, what, header)
    return _masks(path, what, header, categories=categories)


def _features(path: str, what: str, header: FeatureHeader) -> set[int]:
    with open_input(path) as file:
        members = read_directory(file, what)
        if not members or members[0].name != HEADER:
            raise InputError(f"{what} is there, but is not a feature stream: remove it, or name another file with -o")
        file.seek(0)
        found = bytes(next(read_members(file, what))[1])
        if found != header.to_bytes():
            raise _other(what, FeatureHeader.from_bytes(found, what), header)
        return image_ids(file, members, header, what)


def _masks(path: str, what: str, header: MasksHeader, *, categories: bool) -> set[int]:
    with open_input(path) as file:
        first = masks.first_line(file, what)
        if not masks.is_masks_stream(first):
            raise InputError(f"{what} is there, but is not a masks stream of ovskit: remove it, or name another file with -o")
        found = masks.parse_header(first, what)
        wanted = header if categories else replace(header, categories=found.categories)
        if first != wanted.to_line():
            raise _other(what, found, header)
        return masks.listed_images(file, what)


def _curated(path: str, what: str, header: CuratedHeader) -> set[int]:
    with open_input(path) as file:
        first = file.readline()
        if first != header.to_line():
            raise _other(what, CuratedHeader.from_line(first, what), header)
        file.seek(0)
        return listed_ids(file, what)


def _image_labels(path: str, what: str, header: ImageLabelsHeader) -> set[int]:
    with open_input(path) as file:
        first = file.readline()
        if first != header.to_line():
            raise _other(what, ImageLabelsHeader.from_line(first, what), header)
        file.seek(0)
        return listed_images(file, what)


def _other(what: str, found: Header, wanted: Header) -> UsageError:
    return UsageError(f"--skip-existing: {what} is there, but it {unlike(found, wanted)}; remove it to have it made again")
