"""Finding an image under the name that somebody else's file gives it.

Tools number images as they like and write one path in many ways, but a picture keeps its name. So names decide, by comparisons from the
strictest to the loosest: the whole name; one path is the end of the other; both again in a form that all tools share (``plain_form``); both
again without the suffix (``without_suffix``). A name that fits more than one image fits none.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, Protocol
from urllib.parse import unquote

from ovskit.core.formats.paths import show_path
from ovskit.core.runtime.errors import InputError

By = Literal["name", "path", "form", "stem"]

# Suffixes of pictures and of files made from them. No others: img.v1 and img.v2 differ by their suffixes alone.
_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .tif .tiff .bmp .gif .heic .heif .avif .jxl .jp2 .ppm .pgm .pbm .pnm .dng .raw"
    " .npy .npz .json .xml .txt".split()
)


class Named(Protocol):
    """Whatever has an image's name: an ``Image``, a ``Source``."""

    @property
    def file_name(self) -> str: ...


class ImageNames:
    """The names of a file's images. Raises InputError, naming the file ``what``, if two images have one name."""

    def __init__(self, images: Sequence[Named], what: str) -> None:
        names = [image.file_name for image in images]
        self._by_name: dict[str, int] = {}
        for k, name in enumerate(names):
            if name in self._by_name:
                raise InputError(f"{what}: two images are called {show_path(name)}")
            self._by_name[name] = k
        self._written = _Paths(names)
        forms = [plain_form(name) for name in names]
        self._forms = _Paths(forms)
        self._stems = _Paths([without_suffix(form) for form in forms])

    def find(self, name: str) -> tuple[int, By] | None:
        """The place of the image called ``name``, and the comparison that found it: ``name``, ``path``, ``form`` or ``stem``.

        The first comparison that fits any image decides; None where it fits several images, or no comparison fits any.
        """
        fits, by = self._fitting(name)
        return (fits[0], by) if len(fits) == 1 else None

    def fits(self, name: str) -> int:
        """How many images could be the one called ``name``."""
        return len(self._fitting(name)[0])

    def _fitting(self, name: str) -> tuple[list[int], By]:
        found = self._by_name.get(name)
        if found is not None:
            return [found], "name"
        fits = self._written.fitting(name)
        if fits:
            return fits, "path"
        form = plain_form(name)
        fits = self._forms.fitting(form)
        return (fits, "form") if fits else (self._stems.fitting(without_suffix(form)), "stem")


class _Paths:
    """Paths by what they end in."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._by_last: dict[str, list[int]] = defaultdict(list)
        for k, path in enumerate(paths):
            self._by_last[_last(path)].append(k)

    def fitting(self, path: str) -> list[int]:
        """The places of the paths that equal ``path``; without any, of those that end in its components or whose components it ends in."""
        same_last = self._by_last.get(_last(path), ())
        equal = [k for k in same_last if self._paths[k] == path]
        return equal or [k for k in same_last if _is_end(self._paths[k], path)]


def plain_form(name: str) -> str:
    """A name without what depends on who wrote it: ``/`` between components, nothing percent-encoded, NFC, no empty or ``.`` component."""
    name = name.replace("\\", "/")
    if "%" in name:
        name = unquote(name, errors="surrogateescape")
    return "/".join(part for part in unicodedata.normalize("NFC", name).split("/") if part not in ("", "."))


def without_suffix(name: str) -> str:
    """A name without its ending, if that is one of a picture, a map or a list of masks."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot and stem and not stem.endswith("/") and dot + ending.lower() in _SUFFIXES else name


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _is_end(a: str, b: str) -> bool:
    """Whether one path is the other's last components."""
    short, long = sorted((a, b), key=len)
    return long.endswith("/" + short)
