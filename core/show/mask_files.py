"""Several mask files side by side: the images of one are found again in the others, whatever the order they come in.

One file *leads*: it is read from front to back, once, so it may be a pipe. In every other file the places of the images are found first;
then their masks are read where they stand, as the leading file comes to them. So a masks stream on disk takes memory for the names of its
images and the masks of a few. A file that cannot be read twice (a pipe), or whose masks do not stand image by image (other COCO files), is
held in memory as run-length masks. A folder of label maps is read map by map.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO

from ovskit.core.formats import jsonbytes
from ovskit.core.formats.coco import entries as coco
from ovskit.core.formats.image_names import ImageNames
from ovskit.core.formats.labels.named_maps import NamedMaps, masks_of_map
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.photographs import photograph_names
from ovskit.core.formats.streams import masks
from ovskit.core.masks.runs import RunReader
from ovskit.core.records import Image, LabelMap, MaskSet
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.output import open_input


class MaskFile:
    """The images of a mask file, in its order, and their masks.

    ``what`` is its name for messages, ``header`` what its first line says. ``load(k)`` gives the masks of ``images[k]``, from
    any thread. Raises InputError if two images have one name.
    """

    def __init__(self, what: str, header: masks.MasksHeader, images: Sequence[Image], load: Callable[[int], MaskSet]) -> None:
        self.what = what
        self.header = header
        self.images = tuple(images)
        self.load = load
        self._names = ImageNames(self.images, what)
        self._by_id = {image.id: k for k, image in enumerate(self.images)}

    def find(self, image: Image, *, named: bool = True) -> int | None:
        """The place of ``image`` among the images, None where it is not there: by name (``ImageNames.find``); by id where this file or the
        other (``named`` is False) has no names, as a results list.
        """
        if not (self.header.named and named):
            return self._by_id.get(image.id)
        found = self._names.find(image.file_name)
        return None if found is None else found[0]


@contextmanager
def open_mask_file(path: str, failures: Failures | None = None) -> Iterator[MaskFile]:
    """The mask file at ``path``, read through once to check it and to find its images.

    Broken annotations of a file that is not ours go to ``failures`` if given. Raises InputError if it is broken, MissingInputError if it
    is not there.
    """
    what = show_path(path)
    with open_input(path) as stream:
        first = masks.first_line(stream, what)
        if masks.is_masks_stream(first) and stream.seekable():
            counted = _CountedLines(stream, stream.tell())
            header, sets = masks.read_stream(first, counted, what)  # type: ignore[arg-type]
            images, spans = [], []
            for found in sets:
                images.append(found.image)
                spans.append(counted.span() if found.masks else (0, 0))
            descriptor = stream.fileno()
            yield MaskFile(what, header, images, lambda k: _read_masks(descriptor, *spans[k], images[k], what))
        else:
            header, sets = masks.read_masks(first, stream, what, failures)
            held = [replace(one, runs=None) for one in sets]  # which would take several times the memory of the texts
            yield MaskFile(what, header, [s.image for s in held], held.__getitem__)


def open_map_folder(path: str, maps: NamedMaps, root: str, failures: Failures | None = None) -> MaskFile:
    """A folder of index maps as a mask file, a mask for each class; its images are the photographs below ``root`` of the same names.

    A damaged tar below ``root`` goes to ``failures``. Raises InputError if two maps are of one photograph, or two photographs have one
    name without extension; MissingInputError if there are none. ``load`` raises InputError for a map that cannot be used,
    MissingInputError if its photograph is not there.
    """
    what = show_path(path)
    names = photograph_names(maps.maps.images, root, maps.maps.plain_name, failures, maps=maps.maps.folder)
    images = [replace(one, file_name=name or one.file_name) for one, name in zip(maps.maps.images, names, strict=True)]

    def load(k: int) -> MaskSet:
        if names[k] is None:
            raise MissingInputError(
                f"{what}: no photograph, or several, below {show_path(root)} for the map {show_path(images[k].file_name)}"
            )
        return masks_of_map(LabelMap(images[k], maps.load(k).labels))

    labels = None if maps.space is None else {"name": maps.space.name, "version": maps.space.version, "hash": maps.space.hash}
    return MaskFile(what, masks.MasksHeader(categories=maps.categories, labels=labels), images, load)


class _CountedLines:
    """A stream that knows where its lines begin.

    The reader of a masks stream gives out an image when it has read the line after its last annotation. So an image's
    lines are those from the line that gave out the one before to the line that gives it out, without the latter.
    """

    def __init__(self, stream: BinaryIO, at: int) -> None:
        self._stream = stream
        self._next = at
        self._last = self._first = at

    def readline(self, size: int = -1) -> bytes:
        line = self._stream.readline(size)
        self._last, self._next = self._next, self._next + len(line)
        return line

    def span(self) -> tuple[int, int]:
        """Offset and length of the lines of the image just given out."""
        found = self._first, self._last - self._first
        self._first = self._last
        return found


def _read_masks(descriptor: int, offset: int, length: int, image: Image, what: str) -> MaskSet:
    lines = os.pread(descriptor, length, offset).splitlines()  # at an offset, not from where the file stands: threads share it
    runs = RunReader()
    found = [coco.read_annotation(jsonbytes.loads(line.strip().rstrip(b","), what), what, runs=runs)[0] for line in lines if line.strip()]
    return coco.mask_set(image, found, what, runs.take(len(found)))


@dataclass(frozen=True, slots=True)
class Entry:
    """An image, the masks that the leading file has of it, and its places in the other files; None where one lacks it.

    ``named`` is False where no file has a name for it but its id.
    """

    image: Image
    lead: MaskSet | None
    places: tuple[int | None, ...]
    named: bool = True


def in_step(lead: Iterable[MaskSet], others: Sequence[MaskFile], *, named: bool = True) -> Iterator[Entry]:
    """The images of all files, each once: those of ``lead`` in its order, then those that only others have, in theirs.

    ``named`` says whether the leading file has names for its images. One that has none has the name that another file knows.
    """
    left = [dict.fromkeys(range(len(other.images))) for other in others]

    def entry(image: Image, masks: MaskSet | None, named: bool) -> Entry:
        places = tuple(other.find(image, named=named) for other in others)
        for place, remaining in zip(places, left, strict=True):
            if place is not None:
                remaining.pop(place, None)
        known = () if named else [o.images[k].file_name for o, k in zip(others, places, strict=True) if k is not None and o.header.named]
        if known:
            image = replace(image, file_name=known[0])
        return Entry(image, masks, places, named or bool(known))

    for found in lead:
        yield entry(found.image, found, named)
    for other, remaining in zip(others, left, strict=True):
        while remaining:
            place = next(iter(remaining))
            del remaining[place]
            yield entry(other.images[place], None, other.header.named)


def masks_of(entry: Entry, others: Sequence[MaskFile], what: str) -> list[MaskSet | None]:
    """The masks of an image in the leading file, called ``what``, and in every other. Raises InputError where sizes differ."""
    found = [entry.lead]
    first, name = (entry.image, what) if entry.lead is not None else (None, "")
    for place, other in zip(entry.places, others, strict=True):
        if place is None:
            found.append(None)
            continue
        image = other.images[place]
        if first is None:
            first, name = image, other.what
        elif (image.width, image.height) != (first.width, first.height):
            raise InputError(
                f"{show_path(entry.image.file_name)} is {first.width}×{first.height} in {name}, but {image.width}×{image.height} in "
                f"{other.what}: masks side by side must be of one picture"
            )
        found.append(other.load(place))
    return found
