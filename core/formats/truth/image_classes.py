"""Ground truth of whole images: the classes that each is of, from a folder with a folder for each class, or from JSON lines.

In a folder the name of an image's own folder is its class, as ImageNet and most data sets for classification have it. JSON lines are
objects with ``file_name`` and ``label``, or ``labels`` where an image is of several classes. Classes are names or numbers, as they are
written; what they mean is for who compares with them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ovskit.core.formats import jsonbytes
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.sources import SUFFIXES
from ovskit.core.formats.text_files import decode_utf8, read_small
from ovskit.core.formats.truth.ground_truth import TruthImages
from ovskit.core.formats.walk import files_below
from ovskit.core.records import Image
from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.output import open_input

Written = str | int
"""A class as a ground truth writes it: its name, or its number."""

Mapped = Mapping[str, tuple[Written, ...]]
"""The classes that a written one stands for, none for one that is not scored."""


class ImageClasses(TruthImages):
    """The ``images`` of a ground truth, whose sizes are not known (0), and ``classes``, those of each; ``left_out`` says how many images
    a mapping gives no class."""

    def __init__(self, what: str, names: Sequence[str], classes: Sequence[tuple[Written, ...]], left_out: int = 0) -> None:
        super().__init__(what, [Image(k, name, 0, 0) for k, name in enumerate(names, 1)])
        self.classes = tuple(classes)
        self.left_out = left_out

    def load(self, k: int) -> tuple[Written, ...]:
        """The classes of ``images[k]``, one or more."""
        return self.classes[k]

    def _checked(self, k: int, image: Image) -> int:
        return k  # classes have no pixels that could be of another size


def open_image_classes(path: str, mapping: Mapped | None = None, failures: Failures | None = None) -> ImageClasses:
    """The ground truth at ``path``, a folder or a file of JSON lines, its classes replaced as ``mapping`` says.

    A class that the mapping does not have stays as it is. A broken line goes to ``failures`` if given. Raises InputError for what cannot be
    used, MissingInputError for what is not there.
    """
    what = show_path(path)
    rows = _of_folder(path, what) if os.path.isdir(path) else _of_lines(path, what, failures)
    names: list[str] = []
    classes: list[tuple[Written, ...]] = []
    left_out = 0
    for name, written in rows:
        meant = written if mapping is None else [one for own in written for one in mapping.get(str(own), (own,))]
        found = tuple(dict.fromkeys(meant))
        if found:
            names.append(name)
            classes.append(found)
        else:
            left_out += 1
    if not names:
        raise InputError(f"{what} has no image with a class: it is a folder with a folder of images for each class, or JSON lines")
    return ImageClasses(what, names, classes, left_out)


def read_mapping(path: str) -> dict[str, tuple[Written, ...]]:
    """A file with a JSON object from written classes to those that they stand for: a name, a number, several of these, or null for images
    that are not scored. Raises InputError and MissingInputError."""
    what = show_path(path)
    data = read_small(path, "a mapping of classes")
    decode_utf8(data, what)
    value = jsonbytes.loads(jsonbytes.without_mark(data), what)
    if not isinstance(value, dict):
        raise InputError(f'{what}: a mapping of classes is a JSON object such as {{"n01440764": "tench"}}')
    found = {}
    for written, meant in value.items():
        some = [] if meant is None else meant if isinstance(meant, list) else [meant]
        if not all(map(_is_class, some)):
            raise InputError(f"{what}: {written!r} must stand for the name or number of a class, a list of these, or null")
        found[written] = tuple(some)
    return found


def _is_class(value: Any) -> bool:
    return type(value) is int or (isinstance(value, str) and bool(value.strip()))


def _of_folder(folder: str, what: str) -> Iterator[tuple[str, tuple[Written, ...]]]:
    paths = (os.path.relpath(path, folder) for path in files_below(folder) if path.lower().endswith(SUFFIXES))
    for name in sorted(paths, key=os.fsencode):
        own = os.path.basename(os.path.dirname(name))
        if not own:
            raise InputError(f"{what}: {show_path(name)} is in no folder of a class: each class has a folder of its own, with its name")
        yield name, (own,)


def _of_lines(path: str, what: str, failures: Failures | None) -> Iterator[tuple[str, tuple[Written, ...]]]:
    with open_input(path) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                yield _row(jsonbytes.loads(jsonbytes.without_mark(line) if number == 1 else line, f"{what}: line {number}"), what, number)
            except InputError as error:
                if failures is None:
                    raise
                failures.handle(error, "line")


def _row(value: Any, what: str, number: int) -> tuple[str, tuple[Written, ...]]:
    entry = value if isinstance(value, dict) else {}
    name, written = entry.get("file_name"), entry.get("labels", entry.get("label"))
    some = written if isinstance(written, list) else [written]
    if not (isinstance(name, str) and name and some and all(map(_is_class, some))):
        raise InputError(f'{what}: line {number} is not an object with "file_name" and "label", the name or number of a class, or "labels"')
    return name, tuple(some)
