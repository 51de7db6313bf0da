"""The masks stream: one valid COCO document, one annotation per line, so that it streams.

::

    {"info":{…,"ovskit":{"format":"ovskit.masks/1","pg":[…]}},"categories":[…],"annotations":[
    {"id":1,"image_id":1,"file_name":"a.jpg",…,"segmentation":{"size":[h,w],"counts":"…"},…},
    …
    ],"images":[
    {"id":1,"file_name":"a.jpg","width":w,"height":h},
    …
    ]}

A reader works on image k while the writer is at image k+1. The closing ``]}`` proves that nothing is missing. COCO
files that are not in lines are read by ``formats.coco``. See ``docs/reference/formats.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from ovskit.core.formats import jsonbytes
from ovskit.core.formats.coco import documents as coco_documents
from ovskit.core.formats.coco import entries as coco
from ovskit.core.formats.streams.resume_masks import resume_point
from ovskit.core.formats.streams.same_run import begun_otherwise, unlike
from ovskit.core.masks.runs import RunReader
from ovskit.core.records import Image, Mask, MaskSet
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.failures import Failures
from ovskit.core.runtime.shard import Shard, shard_of

FORMAT = "ovskit.masks/1"
ENTITY = {"id": 1, "name": "entity", "supercategory": "entity"}

_ANNOTATIONS = b'"annotations":['
_IMAGES = b'],"images":['
_END = b"]}"
_LONGEST_LINE = 1 << 28  # a mask's RLE is at most about seven bytes a pixel; a longer "line" is not of a masks stream


@dataclass(frozen=True, slots=True)
class MasksHeader:
    """The header of a masks stream, before the annotations: a description, the categories, the provenance and the images' root.

    ``root`` is the folder that the images' names are relative to, where it is known; ``labels`` the label space that the categories
    are of, where they are of one: its name, version and hash. Where ``named`` is False the file has no image names, as a results list, and
    ids stand for them. ``results``: the file is a results list, which lists neither categories nor the images without a mask; never
    written. ``exif`` says whether EXIF orientations were applied or ignored when the images were opened (``formats.photographs``);
    ``unknown`` for masks of other tools. ``shard`` is which part of a run's images these are, None for all.
    """

    description: str = "masks by ovskit"
    categories: Sequence[Mapping[str, Any]] = (ENTITY,)
    root: str | None = None
    pg: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    labels: Mapping[str, Any] | None = None
    named: bool = True
    exif: str = "apply"
    shard: Shard | None = None
    results: bool = False

    @property
    def names_categories(self) -> bool:
        """Whether the file has categories of its own: others list none, or only the one of masks without a class."""
        return bool(self.categories) and list(self.categories) != [ENTITY]

    def to_line(self) -> bytes:
        own: dict[str, Any] = {"format": FORMAT}
        if self.root is not None:
            own["root"] = self.root
        if self.labels is not None:
            own["labels"] = dict(self.labels)
        if not self.named:
            own["named"] = False
        if self.exif != "apply":
            own["exif"] = self.exif
        if self.shard is not None:
            own["shard"] = str(self.shard)
        own["pg"] = [dict(entry) for entry in self.pg]
        info = {"description": self.description, "ovskit": own}
        head = jsonbytes.dumps({"info": info, "categories": [dict(c) for c in self.categories]})
        return head[:-1] + b"," + _ANNOTATIONS + b"\n"


class MasksWriter:
    """Writes a masks stream image by image; annotation ids count from 1 in the order written.

    ``finish`` writes the list of images and the closing ``]}``; a stage that fails must not call it.
    """

    def __init__(self, out: BinaryIO, header: MasksHeader) -> None:
        self._out = out
        self._images: list[Image] = []
        self._next_id = 1
        self._open_line = False
        out.write(header.to_line())

    @classmethod
    def resume(cls, file: BinaryIO, header: MasksHeader, what: str) -> tuple[MasksWriter, set[int]]:
        """Continue an unfinished stream (see ``resume_masks``). Raises UsageError where it was begun with another header."""
        line = header.to_line()
        done = resume_point(file, line, what, lambda first: _begun_otherwise(first, line, what))
        if done is None:
            file.seek(0)
            file.truncate()
            return cls(file, header), set()
        file.seek(done.offset)
        file.truncate()
        writer = cls.__new__(cls)
        writer._out, writer._images, writer._next_id, writer._open_line = file, list(done.images), done.next_id, done.next_id > 1
        return writer, {image.id for image in done.images}

    def write(self, masks: MaskSet) -> None:
        """Append one image's masks, renumbering their ids (and ``parent_id``) to follow the stream's."""
        new_ids = {mask.id: self._next_id + k for k, mask in enumerate(masks.masks)}
        lines = []
        for mask in masks.masks:
            line = jsonbytes.dumps(_annotation(mask, new_ids, masks.image))
            lines.append(b",\n" + line if self._open_line else line)
            self._open_line = True
        self._next_id += len(masks.masks)
        self._images.append(masks.image)
        if lines:
            self._out.write(b"".join(lines))

    def finish(self) -> None:
        """Close the document: images in order of id, with those that have no mask."""
        out = self._out
        out.write((b"\n" if self._open_line else b"") + _IMAGES + b"\n")
        entries = [
            jsonbytes.dumps({"id": i.id, "file_name": i.file_name, "width": i.width, "height": i.height, **_turned(i)})
            for i in sorted(self._images, key=lambda image: image.id)
        ]
        out.write(b",\n".join(entries) + (b"\n" if entries else b"") + _END + b"\n")


def _begun_otherwise(first: bytes, header_line: bytes, what: str) -> UsageError:
    if not is_masks_stream(first):
        return UsageError(begun_otherwise(what, "is not a masks stream of ovskit"))
    return UsageError(begun_otherwise(what, unlike(parse_header(first, what), parse_header(header_line, what))))


def _annotation(mask: Mask, new_ids: Mapping[int, int], image: Image) -> dict[str, Any]:
    value: dict[str, Any] = {
        "id": new_ids[mask.id],
        "image_id": image.id,
        "file_name": image.file_name,
        "category_id": mask.category_id,
        "segmentation": {"size": [mask.rle.height, mask.rle.width], "counts": mask.rle.counts.decode("ascii")},
        "area": mask.area,
        "bbox": list(mask.bbox),
        "iscrowd": mask.iscrowd,
        **_turned(image),
    }
    if mask.score is not None:
        if not math.isfinite(mask.score):
            raise InputError(f"{image.file_name}: a mask's score is {mask.score}")
        value["score"] = mask.score
    if mask.parent_id is not None:
        value["parent_id"] = new_ids[mask.parent_id]
    for key, item in mask.extra.items():
        value.setdefault(key, item)
    return value


def _turned(image: Image) -> dict[str, int]:
    return {} if image.orientation == 1 else {coco.ORIENTATION: image.orientation}


def open_masks(stream: BinaryIO, what: str, failures: Failures | None = None) -> tuple[MasksHeader, Iterator[MaskSet]]:
    """The header and the masks, image by image, of a masks stream or of any other COCO file.

    Images without a mask come last, when the list of images is known. Our own stream needs memory for one image; other
    COCO documents are parsed whole. The iterator raises InputError at the first thing that is wrong, and at the end if
    the document is not complete; broken annotations of a document that is not ours go to ``failures`` if given.
    """
    return read_masks(first_line(stream, what), stream, what, failures)


def stated_exif(stream: BinaryIO, what: str) -> str:
    """How a masks file's images had their EXIF orientations treated (``MasksHeader.exif``), by its first line alone."""
    first = first_line(stream, what)
    return read_stream(first, stream, what)[0].exif if is_masks_stream(first) else "unknown"


def read_masks(first: bytes, stream: BinaryIO, what: str, failures: Failures | None = None) -> tuple[MasksHeader, Iterator[MaskSet]]:
    """As ``open_masks``, of a stream whose ``first`` line has been read."""
    if is_masks_stream(first):
        return read_stream(first, stream, what)
    values = coco_documents.parse_document(first, stream, what)
    header = MasksHeader(
        categories=coco_documents.categories(values) or (ENTITY,),
        named=coco_documents.names_images(values),
        exif="unknown",
        results=coco_documents.is_results(values) and not coco_documents.is_of_one_image(values),
    )
    return header, coco_documents.mask_sets(values, what, failures)


def first_line(stream: BinaryIO, what: str) -> bytes:
    """The first line of a masks file. Raises InputError if it cannot be one of JSON."""
    first = jsonbytes.without_mark(stream.readline(_LONGEST_LINE))
    while first and not first.strip():  # blank lines before the beginning
        first = stream.readline(_LONGEST_LINE)
    if not first:
        raise InputError(f"{what} is empty: the command that should have written it failed or has not run")
    if first.lstrip()[:1] not in (b"{", b"["):
        start = bytes(first[:8]).hex(" ")
        raise InputError(f"{what} is neither a masks stream nor a COCO file: it starts with the bytes {start}; ovs-cluster writes one")
    return first


def is_masks_stream(first: bytes) -> bool:
    """Whether the line is the first of our own format, and not of a document that breaks its lines at the same place."""
    if not first.rstrip().endswith(_ANNOTATIONS):
        return False
    try:
        head = jsonbytes.loads(first.rstrip() + b"]}", "")
    except InputError:
        return False
    return isinstance(head, dict) and isinstance(head.get("info"), dict) and "ovskit" in head["info"]


def read_stream(first: bytes, stream: BinaryIO, what: str) -> tuple[MasksHeader, Iterator[MaskSet]]:
    """The header and the masks of a stream of our own format, whose ``first`` line has been read."""
    return parse_header(first, what), _stream(stream, what)


def listed_images(stream: BinaryIO, what: str) -> set[int]:
    """The ids of the images that a stream of our own lists at its end, its first line having been read; annotations are passed over.

    Raises InputError if it is not whole.
    """
    for number, line in enumerate(_lines(stream, what), 2):
        if line.rstrip() == _IMAGES:
            return {found.image.id for found in _closing_images(stream, what, number, {})}
    raise InputError(f"{what} is truncated: it ends among the annotations; run the stage that wrote it again")


def parse_header(first: bytes, what: str) -> MasksHeader:
    """What the ``first`` line of a stream of our own says. Raises InputError."""
    return _header(jsonbytes.loads(first.rstrip() + b"]}", f"{what}: line 1"), what)


def _header(head: Any, what: str) -> MasksHeader:
    own = head.get("info", {}).get("ovskit", {}) if isinstance(head.get("info"), dict) else {}
    if not isinstance(own, dict) or own.get("format", FORMAT) != FORMAT:
        raise InputError(f"{what}: its format is {own.get('format') if isinstance(own, dict) else own!r}, this ovskit reads {FORMAT!r}")
    categories, pg, root, labels = head.get("categories", []), own.get("pg", []), own.get("root"), own.get("labels")
    well_formed = isinstance(categories, list) and all(isinstance(c, dict) for c in categories) and isinstance(labels, dict | None)
    if not (well_formed and isinstance(pg, list) and all(isinstance(e, dict) for e in pg) and isinstance(root, str | None)):
        raise InputError(f"{what}: line 1 has broken categories or provenance")
    named, exif = own.get("named") is not False, str(own.get("exif", "apply"))
    try:
        shard = shard_of(own.get("shard"))
    except ValueError as error:
        raise InputError(f"{what}: line 1: {error}") from None
    return MasksHeader(str(head.get("info", {}).get("description", "")), tuple(categories), root, tuple(pg), labels, named, exif, shard)


def _stream(stream: BinaryIO, what: str) -> Iterator[MaskSet]:
    number = 1
    current: Image | None = None
    masks: list[Mask] = []
    runs = RunReader()
    seen: dict[int, Image] = {}
    last_id = 0
    more = True  # whether the line before promised another by its comma
    for raw in _lines(stream, what):
        number += 1
        line = raw.rstrip()
        if line == _IMAGES:
            break
        if not line:
            continue
        if not raw.endswith(b"\n"):  # cut in the middle of a line, which is then no JSON either
            raise InputError(f"{what} is truncated: it ends within line {number}; run the stage that wrote it again")
        more = line.endswith(b",")
        here = f"{what}: line {number}"
        mask, image = coco.read_annotation(jsonbytes.loads(line.rstrip(b","), here), here, runs=runs)
        if mask.id <= last_id:
            raise InputError(f"{what}: line {number}: annotation ids must rise, but {mask.id} follows {last_id}")
        last_id = mask.id
        if image is None:
            raise InputError(f"{what}: line {number}: an annotation of a masks stream has a file_name")
        if current is None or image.id != current.id:
            if current is not None:
                yield coco.mask_set(current, masks, what, runs.take(len(masks)))
                masks = []
            if image.id in seen:
                raise InputError(f"{what}: line {number}: the annotations of image {image.id} are not together")
            current = seen[image.id] = image
        elif image != current:
            raise InputError(f"{what}: line {number}: image {image.id} has two names or two sizes")
        masks.append(mask)
    else:
        raise InputError(f"{what} is truncated: it ends at line {number} among the annotations; run the stage that wrote it again")
    if current is not None:
        if more:
            raise InputError(f"{what}: line {number - 1}: the last annotation ends with a comma; lines are missing")
        yield coco.mask_set(current, masks, what, runs.take(len(masks)))
    yield from _closing_images(stream, what, number, seen)


def _closing_images(stream: BinaryIO, what: str, number: int, seen: dict[int, Image]) -> Iterator[MaskSet]:
    listed: set[int] = set()
    names: set[str] = set()
    closed = False
    for raw in _lines(stream, what):
        number += 1
        line = raw.rstrip()
        if closed:
            if line:
                raise InputError(f"{what}: line {number}: there is more after the closing ]}}; two streams in one file?")
            continue
        if line == _END:
            closed = True
            continue
        if not line:
            continue
        image = coco.read_image(jsonbytes.loads(line.rstrip(b","), f"{what}: line {number}"), f"{what}: line {number}")
        if image.id in listed or image.file_name in names:
            raise InputError(f"{what}: line {number}: image {image.id} ({image.file_name!r}) is listed twice")
        listed.add(image.id)
        names.add(image.file_name)
        if image.id in seen:
            if seen[image.id] != image:
                raise InputError(f"{what}: line {number}: image {image.id} differs from its annotations in name or size")
        else:
            yield MaskSet(image, ())
    if not closed:
        raise InputError(f"{what} is truncated: it ends at line {number} without ]}}; run the stage that wrote it again")
    missing = seen.keys() - listed
    if missing:
        raise InputError(f"{what}: image {min(missing)} has annotations but is not in the list of images")


def _lines(stream: BinaryIO, what: str) -> Iterator[bytes]:
    while line := stream.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise InputError(f"{what}: a line is longer than {_LONGEST_LINE >> 20} MiB; this is not a masks stream")
        yield line
