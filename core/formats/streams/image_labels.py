"""The stream of image labels: JSON lines, one for each image, with the classes that it may be of, the best first.

The first line is the header, the last ``{"end": n}``, without which every reader calls the stream truncated::

    {"format":"ovskit.image-labels/1","root":"imgs","labels":{"name":"voc-20","version":1,"hash":"…"},"categories":[…],"pg":[…]}
    {"id":1,"file_name":"a.jpg","width":640,"height":480,"labels":[{"id":11,"name":"dog","score":0.93},…]}
    {"end":1}

``id`` is the place of the image among all, from 1; lines are in its order. ``labels`` of the header is the label space that the
``categories`` are of, ``score`` falls along a line, and no class is there twice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from ovskit.core.formats import jsonbytes
from ovskit.core.formats.streams.json_lines import LinesWriter, stated
from ovskit.core.records import Image, ImageLabel, ImageLabels
from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.shard import Shard, shard_of

FORMAT = "ovskit.image-labels/1"
_LONGEST_LINE = 64 << 20
_AGAIN = "classify the images again"


@dataclass(frozen=True, slots=True)
class ImageLabelsHeader:
    """The header: the folder ``root`` that images' names are relative to, the ``categories`` that labels are chosen from, COCO's way, the
    label space ``labels`` that they are of (name, version, hash), the provenance ``pg``, how EXIF orientations were taken (``exif``), and
    which ``shard`` of the images it is, None for all."""

    root: str | None
    categories: Sequence[Mapping[str, Any]]
    labels: Mapping[str, Any] | None = None
    pg: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    exif: str = "apply"
    shard: Shard | None = None

    def to_line(self) -> bytes:
        """The first line, with its end."""
        said: dict[str, Any] = {"format": FORMAT, "root": self.root}
        if self.labels is not None:
            said["labels"] = dict(self.labels)
        if self.exif != "apply":
            said["exif"] = self.exif
        if self.shard is not None:
            said["shard"] = str(self.shard)
        said |= {"categories": [dict(one) for one in self.categories], "pg": [dict(entry) for entry in self.pg]}
        return jsonbytes.dumps(said) + b"\n"

    @classmethod
    def from_line(cls, line: bytes, what: str) -> ImageLabelsHeader:
        """Raises InputError for another format, a newer version or missing fields."""
        value = stated(line, what, FORMAT, "a stream of image labels")
        try:
            root, labels, categories, pg = value["root"], value.get("labels"), value["categories"], value["pg"]
            exif = value.get("exif", "apply")
            tables = isinstance(categories, list) and all(isinstance(one, dict) for one in categories) and isinstance(pg, list)
            if not (tables and isinstance(root, str | None) and isinstance(labels, dict | None) and isinstance(exif, str)):
                raise TypeError
            if any(type(one["id"]) is not int or not isinstance(one["name"], str) for one in categories):
                raise TypeError
            return cls(root, tuple(categories), labels, tuple(pg), exif, shard_of(value.get("shard")))
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{what}: its header is incomplete; {_AGAIN}") from None


class ImageLabelsWriter(LinesWriter):
    """Writes a stream of image labels line by line; ``finish`` closes it, and without it every reader calls it truncated."""

    @classmethod
    def header_of(cls, line: bytes, what: str) -> ImageLabelsHeader:
        """See ``LinesWriter``."""
        return ImageLabelsHeader.from_line(line, what)

    @classmethod
    def id_of(cls, line: bytes, what: str) -> int:
        """See ``LinesWriter``."""
        return _from_json(jsonbytes.loads(line, what), what).image.id

    def write(self, found: ImageLabels) -> None:
        """Append one image."""
        image = found.image
        labels = [{"id": one.id, "name": one.name, "score": one.score} for one in found.labels]
        line = {"id": image.id, "file_name": image.file_name, "width": image.width, "height": image.height, "labels": labels}
        self.append(jsonbytes.dumps(line) + b"\n")


def open_image_labels(stream: BinaryIO, what: str) -> tuple[ImageLabelsHeader, Iterator[ImageLabels]]:
    """The header, and the images as they arrive.

    The iterator raises InputError at damage, so only a consumer that reads to the end may call its input complete.
    """
    header = ImageLabelsHeader.from_line(stream.readline(_LONGEST_LINE), what)
    return header, _images(stream, {one["id"] for one in header.categories}, what)


def _images(stream: BinaryIO, known: set[int], what: str) -> Iterator[ImageLabels]:
    number, last = 1, 0
    while line := stream.readline(_LONGEST_LINE):
        number += 1
        here = f"{what}: line {number}"
        if not line.endswith(b"\n"):
            break
        value = jsonbytes.loads(line, here)
        if isinstance(value, dict) and "end" in value:
            if value["end"] != number - 2:
                raise InputError(f"{here} says that there are {value['end']} images, and there are {number - 2}; {_AGAIN}")
            if stream.readline(1):
                raise InputError(f"{here}: there is more after the end; two streams in one file? Give each by itself")
            return
        found = _from_json(value, here)
        if found.image.id <= last:
            raise InputError(f"{here}: ids must rise, but {found.image.id} follows {last}; {_AGAIN}")
        strangers = [label.id for label in found.labels if label.id not in known]
        if strangers:
            raise InputError(f"{here}: label {strangers[0]} is not among the header's categories; {_AGAIN}")
        last = found.image.id
        yield found
    raise InputError(f'{what} is truncated: it ends at line {number} without {{"end":…}}; {_AGAIN}')


def _from_json(value: Any, what: str) -> ImageLabels:
    """Raises InputError for what is not a line of such a stream."""
    try:
        image = Image(int(value["id"]), str(value["file_name"]), int(value["width"]), int(value["height"]))
        labels = tuple(ImageLabel(int(one["id"]), str(one["name"]), float(one["score"])) for one in value["labels"])
    except (TypeError, KeyError, ValueError, OverflowError):
        raise InputError(f"{what} is not a line of image labels; {_AGAIN}") from None
    scores = [one.score for one in labels]
    if not all(map(math.isfinite, scores)) or any(a < b for a, b in itertools.pairwise(scores)):
        raise InputError(f"{what}: its labels are not in order of their scores, the best first; {_AGAIN}")
    if len({one.id for one in labels}) < len(labels):
        raise InputError(f"{what} has a label twice; {_AGAIN}")
    return ImageLabels(image, labels)


def listed_images(stream: BinaryIO, what: str) -> set[int]:
    """The ids of the images of a whole stream. Raises InputError."""
    return {one.image.id for one in open_image_labels(stream, what)[1]}
