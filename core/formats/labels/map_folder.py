"""Label maps written as a folder of PNG files, a map a photograph, as ``ovs-eval --gt`` and others read them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from ovskit.core.formats.image_names import plain_form, without_suffix
from ovskit.core.formats.labels.spaces import LARGEST_ID, VOID, LabelSpace
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.sources import Source
from ovskit.core.records import LabelMap
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.output import open_output, write_error


class MapFolder:
    """Writes label maps below ``folder``, each under its photograph's name with the suffix ``.png``.

    Maps have 8 bits with 255 where a pixel is of no class and a palette to look at, or 16 bits with 65535 where a class of ``space`` has an
    id above 254. Raises UsageError if ``folder`` is a file.
    """

    def __init__(self, folder: Path, space: LabelSpace) -> None:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--maps {show_path(str(folder))}: that is a file; name a folder, which may be new")
        self.folder = folder
        self.wide = max(one.id for one in space.classes) >= VOID

    def check(self, sources: Iterable[Source]) -> None:
        """Raises UsageError for two photographs whose maps would be one file, InputError for one whose map would be outside the folder."""
        seen: dict[Path, str] = {}
        for source in sources:
            other = seen.setdefault(self.path_of(source.file_name), source.file_name)
            if other != source.file_name:
                raise UsageError(f"--maps: {show_path(other)} and {show_path(source.file_name)} would have one map; rename one of them")

    def path_of(self, file_name: str) -> Path:
        """Where the map of a photograph is written. Raises InputError for a name that leads out of the folder."""
        parts = without_suffix(plain_form(file_name)).split("/")
        if ".." in parts or not any(parts) or any("\0" in part for part in parts):
            raise InputError(f"--maps: the map of {show_path(file_name)} would be outside of {show_path(str(self.folder))}")
        return self.folder.joinpath(*parts[:-1], parts[-1] + ".png")

    def write(self, found: LabelMap) -> None:
        """Write a map, whole or not at all. Raises OutputError if it cannot be written."""
        labels = found.labels
        if self.wide:
            picture = Picture.fromarray(np.where(labels < 0, LARGEST_ID, labels).astype(np.uint16))
        else:
            picture = Picture.fromarray(np.where(labels < 0, VOID, labels).astype(np.uint8), mode="P")
            picture.putpalette(_palette())
        data = io.BytesIO()
        picture.save(data, "PNG")
        path = self.path_of(found.image.file_name)
        try:
            os.makedirs(path.parent, exist_ok=True)
        except OSError as error:
            raise write_error(str(path.parent), error) from None
        with open_output(str(path)) as out:
            out.write(data.getvalue())


def _palette() -> bytes:
    """PASCAL VOC's colours, which viewers of label maps know: the bits of the id, spread over the high bits of red, green and blue."""
    ids = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for k in range(8):
        for channel in range(3):
            colours[:, channel] |= (((ids >> (3 * k + channel)) & 1) << (7 - k)).astype(np.uint8) if 3 * k + channel < 8 else 0
    return colours.tobytes()
