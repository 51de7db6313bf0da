"""The feature stream: one real ``.npz``, written and read one image at a time, also through a pipe.

The first member, ``ovs.json``, is the header. Then per image, ids padded to twelve digits::

    000000000001/image.json   {"id": 1, "file_name": "a.jpg", "width": 640, "height": 480}
    000000000001/patch.npy    (h, w, c) float16 or float32
    000000000001/cls.npy      (c,), where asked for

or, for pooled embeddings, per block of images::

    000000000001/images.json     a list of such records; the folder is named by the first
    000000000001/embedding.npy   (n, c)

``numpy.load(file)`` opens the same bytes. See ``docs/formats.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO

import numpy as np

from ovskit.core.formats import jsonbytes
from ovskit.core.formats.npy import npy_chunks, parse_npy
from ovskit.core.formats.zipstream import StoredZipWriter, read_members, scan_complete
from ovskit.core.records import EmbeddingBlock, FeatureMap, Float, Image
from ovskit.core.runtime.errors import InputError, UsageError

FORMAT = "ovskit.features/1"
HEADER = "ovs.json"


@dataclass(frozen=True, slots=True)
class FeatureHeader:
    """What a feature stream says of itself.

    ``model`` is ``BackboneSpec.to_json()``; ``size`` the (height, width) every image was resized to, or None where the
    aspect was kept; ``root`` the folder that the images' names are relative to; ``pg`` the provenance; ``pool`` is
    None for patch features, else how the embeddings were pooled.
    """

    model: Mapping[str, Any]
    size: tuple[int, int] | None
    dtype: str
    root: str
    pool: str | None = None
    pg: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    def to_bytes(self) -> bytes:
        return jsonbytes.dumps(
            {
                "format": FORMAT,
                "model": dict(self.model),
                "size": None if self.size is None else list(self.size),
                "dtype": self.dtype,
                "pool": self.pool,
                "root": self.root,
                "pg": [dict(entry) for entry in self.pg],
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview, what: str) -> FeatureHeader:
        """Raises InputError for another format, a newer version or missing fields."""
        value = jsonbytes.loads(data, f"{what}: header {HEADER}")
        kind = value.get("format") if isinstance(value, dict) else None
        if kind != FORMAT:
            raise InputError(f"{what}: its format is {kind!r}, this ovskit reads {FORMAT!r}")
        try:
            size = value["size"]
            if not (isinstance(value["model"], dict) and isinstance(value["pg"], list)):
                raise TypeError
            return cls(
                model=value["model"],
                size=None if size is None else (int(size[0]), int(size[1])),
                dtype=str(value["dtype"]),
                root=str(value["root"]),
                pool=None if value["pool"] is None else str(value["pool"]),
                pg=tuple(value["pg"]),
            )
        except (KeyError, TypeError, ValueError, IndexError):
            raise InputError(f"{what}: header {HEADER} is incomplete; extract the features again") from None


class FeatureWriter:
    """Writes a feature stream record by record; ``finish`` closes it, and without it every reader calls it truncated."""

    def __init__(self, out: BinaryIO, header: FeatureHeader) -> None:
        self._zip = StoredZipWriter(out)
        self._zip.write(HEADER, header.to_bytes())

    @classmethod
    def resume(cls, file: BinaryIO, header: FeatureHeader, what: str) -> tuple[FeatureWriter, set[int]]:
        """Continue the unfinished stream in ``file`` (open for reading and writing); returns the ids already complete.

        A torn tail is cut off. Raises UsageError if the file was begun with other inputs or options.
        """
        members, end = scan_complete(file, what)
        if not members:
            file.seek(0)
            file.truncate()
            return cls(file, header), set()
        file.seek(0)
        if bytes(next(read_members(file, what))[1]) != header.to_bytes():
            raise UsageError(f"{what} was begun with other inputs or options; run the same command again, or remove it to start anew")
        # The last record may lack a member that the others have, so it is done again.
        folders = [member.name.partition("/")[0] for member in members]
        whole = 1 + sum(folder != folders[-1] for folder in folders[1:])
        end = members[whole].offset if whole < len(members) else end
        done = {int(folder) for folder in folders[1:whole]} if header.pool is None else _pooled_ids(file, whole, what)
        file.seek(end)
        file.truncate()
        writer = cls.__new__(cls)
        writer._zip = StoredZipWriter(file, members=members[:whole], offset=end)
        return writer, done

    def write(self, features: FeatureMap) -> None:
        """Append one image's features."""
        folder = _folder(features.image.id)
        self._zip.write(f"{folder}/image.json", jsonbytes.dumps(_image_json(features.image)))
        self._zip.write(f"{folder}/patch.npy", *npy_chunks(features.patch))
        if features.cls is not None:
            self._zip.write(f"{folder}/cls.npy", *npy_chunks(features.cls))

    def write_block(self, block: EmbeddingBlock) -> None:
        """Append a block of pooled embeddings."""
        folder = _folder(block.images[0].id)
        self._zip.write(f"{folder}/images.json", jsonbytes.dumps([_image_json(image) for image in block.images]))
        self._zip.write(f"{folder}/embedding.npy", *npy_chunks(block.rows))

    def finish(self) -> None:
        """Write the central directory that marks the stream as complete."""
        self._zip.finish()


def _pooled_ids(file: BinaryIO, members: int, what: str) -> set[int]:
    file.seek(0)
    blocks = islice(read_members(file, what), members)
    return {entry["id"] for name, data in blocks if name.endswith("/images.json") for entry in jsonbytes.loads(data, what)}


def _folder(image_id: int) -> str:
    return f"{image_id:012d}"


def _image_json(image: Image) -> dict[str, Any]:
    return {"id": image.id, "file_name": image.file_name, "width": image.width, "height": image.height}


def open_features(stream: BinaryIO, what: str) -> tuple[FeatureHeader, Iterator[FeatureMap | EmbeddingBlock]]:
    """The header, and the records as they arrive; bounded memory, works on pipes.

    The iterator raises InputError for anything but a whole, undamaged stream — at the end too, so only a consumer that
    reads to the end may call its input complete. Arrays are views of fresh buffers that the caller may keep.
    """
    members = read_members(stream, what)
    first = next(members, None)
    if first is None or first[0] != HEADER:
        raise InputError(f"{what} is a .npz but no feature stream (its first member is not {HEADER}); make one with ovs-extract")
    header = FeatureHeader.from_bytes(first[1], what)
    return header, _records(members, header, what)


def _records(members: Iterator[tuple[str, Any]], header: FeatureHeader, what: str) -> Iterator[FeatureMap | EmbeddingBlock]:
    pending: tuple[str, Image, Float] | None = None  # a feature map whose cls may still follow
    for name, data in members:
        folder, _, part = name.partition("/")
        if pending is not None:
            if part == "cls.npy" and folder == pending[0]:
                yield FeatureMap(pending[1], pending[2], _array(data, 1, f"{what}: {name}"))
                pending = None
                continue
            yield FeatureMap(pending[1], pending[2])
            pending = None
        if part == "image.json":
            image = _image(jsonbytes.loads(data, f"{what}: {name}"), f"{what}: {name}")
            patch = _expect(members, f"{folder}/patch.npy", what)
            pending = (folder, image, _array(patch, 3, f"{what}: {folder}/patch.npy"))
        elif part == "images.json":
            listed = jsonbytes.loads(data, f"{what}: {name}")
            if not isinstance(listed, list) or not listed:
                raise InputError(f"{what}: {name} is not a list of images")
            images = tuple(_image(entry, f"{what}: {name}") for entry in listed)
            rows = _array(_expect(members, f"{folder}/embedding.npy", what), 2, f"{what}: {folder}/embedding.npy")
            if len(rows) != len(images):
                raise InputError(f"{what}: {folder}/embedding.npy has {len(rows)} rows for {len(images)} images")
            yield EmbeddingBlock(images, rows)
        else:
            raise InputError(f"{what}: unexpected member {name!r}; this is no stream that ovs-extract wrote")
    if pending is not None:
        yield FeatureMap(pending[1], pending[2])


def _expect(members: Iterator[tuple[str, Any]], name: str, what: str) -> Any:
    found = next(members, (None, None))
    if found[0] != name:
        raise InputError(f"{what}: member {name!r} is missing (found {found[0]!r})")
    return found[1]


def _array(data: Any, ndim: int, what: str) -> Float:
    array = parse_npy(data, what)
    if array.ndim != ndim or array.size == 0 or array.dtype not in (np.float16, np.float32):
        raise InputError(f"{what}: expected float16 or float32 with {ndim} axes, found {array.dtype} {array.shape}")
    return array


def _image(value: Any, what: str) -> Image:
    try:
        image = Image(value["id"], value["file_name"], value["width"], value["height"])
    except (KeyError, TypeError):
        raise InputError(f"{what}: an image needs id, file_name, width and height") from None
    numbers = (image.id, image.width, image.height)
    if not all(type(v) is int and v > 0 for v in numbers) or not isinstance(image.file_name, str):
        raise InputError(f"{what}: an image needs positive whole id, width and height, and a name")
    return image
