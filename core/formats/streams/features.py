"""The feature stream: one real ``.npz``, written and read one image at a time, also through a pipe.

The first member, ``ovs.json``, is the header. Then per image, ids padded to twelve digits::

    000000000001/image.json   {"id": 1, "file_name": "a.jpg", "width": 640, "height": 480}
    000000000001/patch.npy    (h, w, c) float16 or float32
    000000000001/cls.npy      (c,), where asked for

or, for pooled embeddings, per block of images::

    000000000001/images.json     a list of such records; the folder is named by the first
    000000000001/embedding.npy   (n, c)

``numpy.load(file)`` opens the same bytes. See ``docs/reference/formats.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO

import numpy as np

from ovskit.core.formats import jsonbytes
from ovskit.core.formats.coco import entries as coco
from ovskit.core.formats.streams.npy import npy_chunks, parse_npy
from ovskit.core.formats.streams.same_run import begun_otherwise, unlike
from ovskit.core.formats.streams.zipstream import Member, StoredZipWriter, read_members, scan_complete
from ovskit.core.records import EmbeddingBlock, FeatureMap, Float, Image
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.shard import Shard, shard_of

FORMAT = "ovskit.features/1"
HEADER = "ovs.json"


@dataclass(frozen=True, slots=True)
class FeatureHeader:
    """The header of a feature stream.

    ``model`` is ``BackboneSpec.to_json()``; ``size`` the (height, width) every image was resized to, or None where the
    aspect was kept; ``root`` the folder that the images' names are relative to; ``pg`` the provenance; ``pool`` is
    None for patch features, else how the embeddings were pooled; ``exif`` says whether EXIF orientations were applied or ignored;
    ``shard`` is which part of the images these are, None for all.
    """

    model: Mapping[str, Any]
    size: tuple[int, int] | None
    dtype: str
    root: str
    pool: str | None = None
    pg: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    exif: str = "apply"
    shard: Shard | None = None

    def to_bytes(self) -> bytes:
        part = {} if self.shard is None else {"shard": str(self.shard)}
        return jsonbytes.dumps(
            {
                "format": FORMAT,
                "model": dict(self.model),
                "size": None if self.size is None else list(self.size),
                "dtype": self.dtype,
                "pool": self.pool,
                "root": self.root,
                **({} if self.exif == "apply" else {"exif": self.exif}),
                **part,
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
                exif=str(value.get("exif", "apply")),
                shard=shard_of(value.get("shard")),
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
        begun = bytes(next(read_members(file, what))[1])
        if begun != header.to_bytes():
            raise UsageError(begun_otherwise(what, unlike(FeatureHeader.from_bytes(begun, what), header)))
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

    def write(self, record: FeatureMap | EmbeddingBlock) -> None:
        """Append one image's features, or a block of pooled embeddings."""
        if isinstance(record, EmbeddingBlock):
            self._write_block(record)
            return
        folder = _folder(record.image.id)
        self._zip.write(f"{folder}/image.json", jsonbytes.dumps(_image_json(record.image)))
        self._zip.write(f"{folder}/patch.npy", *npy_chunks(record.patch))
        if record.cls is not None:
            self._zip.write(f"{folder}/cls.npy", *npy_chunks(record.cls))

    def _write_block(self, block: EmbeddingBlock) -> None:
        folder = _folder(block.images[0].id)
        self._zip.write(f"{folder}/images.json", jsonbytes.dumps([_image_json(image) for image in block.images]))
        self._zip.write(f"{folder}/embedding.npy", *npy_chunks(block.rows))

    def finish(self) -> None:
        """Write the central directory that marks the stream as complete."""
        self._zip.finish()


def image_ids(file: BinaryIO, members: Sequence[Member], header: FeatureHeader, what: str) -> set[int]:
    """The ids of the images of a whole stream with these ``members``. Raises InputError."""
    if header.pool is not None:
        file.seek(0)
        return _pooled_ids(file, len(members), what)
    folders = {name.removesuffix("/image.json") for name, *_ in members if name.endswith("/image.json")}
    if not all(folder.isdecimal() for folder in folders):
        raise InputError(f"{what}: unexpected members; this is not a stream that ovs-extract wrote")
    return {int(folder) for folder in folders}


def _pooled_ids(file: BinaryIO, members: int, what: str) -> set[int]:
    file.seek(0)
    blocks = islice(read_members(file, what), members)
    return {entry["id"] for name, data in blocks if name.endswith("/images.json") for entry in jsonbytes.loads(data, what)}


def _folder(image_id: int) -> str:
    return f"{image_id:012d}"


def _image_json(image: Image) -> dict[str, Any]:
    turned = {} if image.orientation == 1 else {coco.ORIENTATION: image.orientation}
    return {"id": image.id, "file_name": image.file_name, "width": image.width, "height": image.height, **turned}


class FeatureReader:
    """The records of ``stream``, in its order; works on pipes. ``header`` is there at once.

    ``peek`` gives the images of the next record before its arrays are read, so that many streams can be read in step. Bounded memory;
    arrays are views of fresh buffers that the caller may keep. Raises InputError, naming the stream ``what``, for anything but a whole,
    undamaged stream: on opening, or when the damage is reached, at the end too.
    """

    def __init__(self, stream: BinaryIO, what: str) -> None:
        self._members, self._what = read_members(stream, what), what
        first = next(self._members, None)
        if first is None or first[0] != HEADER:
            raise InputError(f"{what} is a .npz but not a feature stream (its first member is not {HEADER}); make one with ovs-extract")
        self.header = FeatureHeader.from_bytes(first[1], what)
        self._read: tuple[str, Any] | None = None  # a member that was read too early
        self._next: tuple[str, tuple[Image, ...]] | None = None  # whose turn it is: their folder, and who they are

    def peek(self) -> tuple[Image, ...]:
        """The images of the next record, several for an embedding block; empty at the end of a whole stream."""
        if self._next is None:
            member, self._read = self._read or next(self._members, None), None
            if member is None:
                return ()
            name, data = member
            folder, _, part = name.partition("/")
            where = f"{self._what}: {name}"
            if part == "image.json":
                images: tuple[Image, ...] = (_image(jsonbytes.loads(data, where), where),)
            elif part == "images.json":
                listed = jsonbytes.loads(data, where)
                if not isinstance(listed, list) or not listed:
                    raise InputError(f"{where} is not a list of images")
                images = tuple(_image(entry, where) for entry in listed)
            else:
                raise InputError(f"{self._what}: unexpected member {name!r}; this is not a stream that ovs-extract wrote")
            self._next = (f"{folder}/{'' if part == 'image.json' else 'embedding.npy'}", images)
        return self._next[1]

    def take(self) -> FeatureMap | EmbeddingBlock:
        """The next record, to be called only where ``peek`` gives images."""
        images = self.peek()
        assert self._next is not None
        (path, _), self._next = self._next, None
        if not path.endswith("/"):
            rows = _array(self._member(path), 2, f"{self._what}: {path}")
            if len(rows) != len(images):
                raise InputError(f"{self._what}: {path} has {len(rows)} rows for {len(images)} images")
            return EmbeddingBlock(images, rows)
        patch = _array(self._member(f"{path}patch.npy"), 3, f"{self._what}: {path}patch.npy")
        self._read = next(self._members, None)
        if self._read is None or self._read[0] != f"{path}cls.npy":
            return FeatureMap(images[0], patch)
        cls, self._read = _array(self._read[1], 1, f"{self._what}: {path}cls.npy"), None
        return FeatureMap(images[0], patch, cls)

    def _member(self, name: str) -> Any:
        found = next(self._members, (None, None))
        if found[0] != name:
            raise InputError(f"{self._what}: member {name!r} is missing (found {found[0]!r})")
        return found[1]


def open_features(stream: BinaryIO, what: str) -> tuple[FeatureHeader, Iterator[FeatureMap | EmbeddingBlock]]:
    """The header, and the records as they arrive, see ``FeatureReader``.

    The iterator raises InputError at damage, so only a consumer that reads to the end may call its input complete.
    """
    reader = FeatureReader(stream, what)
    return reader.header, _records(reader)


def _records(reader: FeatureReader) -> Iterator[FeatureMap | EmbeddingBlock]:
    while reader.peek():
        yield reader.take()


def _array(data: Any, ndim: int, what: str) -> Float:
    array = parse_npy(data, what)
    if array.ndim != ndim or array.size == 0 or array.dtype not in (np.float16, np.float32):
        raise InputError(f"{what}: expected float16 or float32 with {ndim} axes, found {array.dtype} {array.shape}")
    return array


def _image(value: Any, what: str) -> Image:
    try:
        image = Image(value["id"], value["file_name"], value["width"], value["height"], coco.orientation(value))
    except (KeyError, TypeError):
        raise InputError(f"{what}: an image needs id, file_name, width and height") from None
    sides = (image.width, image.height)
    if not coco.whole_id(image.id) or not all(type(v) is int and v > 0 for v in sides) or not isinstance(image.file_name, str):
        raise InputError(f"{what}: an image needs a whole id, a positive whole width and height, and a name")
    return image
