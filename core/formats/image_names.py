"""Finding an image under the name that somebody else's file gives it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, Protocol

from ovskit.core.formats.sources import show_path
from ovskit.core.runtime.errors import InputError


class Named(Protocol):
    """Whatever has an image's name: an ``Image``, a ``Source``."""

    @property
    def file_name(self) -> str: ...


class ImageNames:
    """The names of a file's images. Raises InputError, naming the file ``what``, if two images have one name."""

    def __init__(self, images: Sequence[Named], what: str) -> None:
        self._images = images
        self._by_name: dict[str, int] = {}
        self._by_last: dict[str, list[int]] = defaultdict(list)
        for k, image in enumerate(images):
            if image.file_name in self._by_name:
                raise InputError(f"{what}: two images are called {show_path(image.file_name)}")
            self._by_name[image.file_name] = k
            self._by_last[_last(image.file_name)].append(k)

    def find(self, name: str) -> tuple[int, Literal["name", "path"]] | None:
        """The place of the image called ``name``; else of the only one whose path ends as ``name`` does, or the other way round."""
        found = self._by_name.get(name)
        if found is not None:
            return found, "name"
        ends = [k for k in self._by_last.get(_last(name), ()) if _is_end(self._images[k].file_name, name)]
        return (ends[0], "path") if len(ends) == 1 else None


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _is_end(a: str, b: str) -> bool:
    """Whether one path is the other's last components."""
    short, long = sorted((a, b), key=len)
    return long.endswith("/" + short)
