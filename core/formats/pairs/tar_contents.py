"""The image-text pairs of a tar: which members belong together, found once, and their captions, read when asked for."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ovskit.core.formats.pairs.captions import JSON, TEXTS, Left, LeftOutError, json_captions, text_captions, tidy
from ovskit.core.formats.pairs.packed import Int64, Packed
from ovskit.core.formats.pairs.record import to_bytes
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.photographs.tar_walk import is_hidden, walk_tar
from ovskit.core.formats.photographs.tars import SUFFIXES, Member, follow_links
from ovskit.core.runtime.errors import InputError, MissingInputError

_KINDS = {suffix: rank for rank, suffix in enumerate((*TEXTS, JSON), 1)} | dict.fromkeys(SUFFIXES, 0)


@dataclass(frozen=True)
class TarContents:
    """The n pairs of a tar, ascending by key, with m members that hold captions.

    ``keys``: members' names without their suffix. ``suffixes``: all that occur, with their dot, as they are written. Of each pair:
    ``image_suffix`` uint8 (n,), which of them; ``image_offset``, ``image_length`` int64 (n,), bytes in the tar; ``first_part`` int64
    (n + 1,): its captions are in parts ``first_part[k]`` to ``first_part[k + 1]``. Of each part ``part_suffix`` uint8, ``part_offset``
    and ``part_length`` int64 (m,). ``left_out``: how many were left out, by reason.
    """

    keys: Packed
    suffixes: tuple[str, ...]
    image_suffix: npt.NDArray[np.uint8]
    image_offset: Int64
    image_length: Int64
    first_part: Int64
    part_suffix: npt.NDArray[np.uint8]
    part_offset: Int64
    part_length: Int64
    left_out: Mapping[str, int]


@dataclass(slots=True)
class _Sample:
    images: list[Member] = field(default_factory=list)
    parts: list[tuple[int, str, Member]] = field(default_factory=list)  # kind, name, place: as they are to be sorted


def read_tar_contents(path: str) -> TarContents:
    """Walk through the tar at ``path``, and look into every caption once.

    Members are joined by their names without suffix, in whichever order they come. Raises InputError for a tar that is damaged, truncated
    or changed meanwhile, for a name that is there twice and for two images that differ in their suffix alone; MissingInputError if it
    cannot be read.
    """
    what = show_path(path)
    try:
        with open(path, "rb") as file:
            before = os.fstat(file.fileno())
            samples = _collect(path, what)
            found = _Found()
            places = sorted({_place(part[2]) for sample in samples.values() if sample.images for part in sample.parts})  # front to back
            verdicts = {place: _look(place.suffix, os.pread(file.fileno(), place.length, place.offset)) for place in places}
            after = os.fstat(file.fileno())
    except OSError as error:
        raise MissingInputError(f"cannot read {what}: {error.strerror}") from None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise InputError(f"{what} was changed while it was read; run this again when it is complete")
    for key in sorted(samples):
        found.add(key, samples[key], verdicts, what)
    return found.packed()


def captions_from(parts: Iterable[tuple[str, bytes]]) -> tuple[str, ...]:
    """The captions in the members of one pair, given by suffix and bytes. Raises LeftOutError where one has none, as one that was indexed
    does not."""
    return tidy(text for suffix, data in parts for text in _captions_in(suffix, data))


def _captions_in(suffix: str, data: bytes) -> tuple[str, ...]:
    return json_captions(data) if suffix.lower() == JSON else text_captions(data)


class _Place(NamedTuple):
    """Where captions are and how to read them: a file and a link to it may have different suffixes."""

    offset: int
    length: int
    suffix: str


def _place(member: Member) -> _Place:
    return _Place(member.offset, member.length, member.name[member.name.rfind(".") :])


def _look(suffix: str, data: bytes) -> Left | bool:
    """Whether a member has captions, or why it has none."""
    try:
        return bool(_captions_in(suffix, data))
    except LeftOutError as left:
        return left.why


def _collect(path: str, what: str) -> dict[bytes, _Sample]:
    """The members of a tar that are of use, by key."""
    files: dict[str, Member] = {}
    links: dict[str, str] = {}
    for name, offset, length, target in walk_tar(path):
        if "//" in name or name.startswith("/"):
            name = "/".join(part for part in name.split("/") if part)
        if name[name.rfind(".") :].lower() not in _KINDS or is_hidden(name):
            continue
        if name in files or name in links:
            raise InputError(f"{what}: two members are named {show_path(name)}")
        if target is None:
            files[name] = Member(name, offset, length)
        else:
            links[name] = target
    samples: dict[bytes, _Sample] = {}
    for name, member in (files | follow_links(files, links, what)).items():
        dot = name.rfind(".")
        key = to_bytes(name[:dot])
        if key is None:
            raise InputError(f"{what}: {show_path(name)} is not a possible file name; make it again")
        kind = _KINDS[name[dot:].lower()]
        sample = samples.setdefault(key, _Sample())
        if kind:
            sample.parts.append((kind, name, member))
        else:
            sample.images.append(member)
    return samples


class _Found:
    """The columns of ``TarContents`` so far."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.suffixes: dict[str, int] = {}
        self.image: tuple[array[int], array[int], array[int]] = (array("B"), array("q"), array("q"))
        self.ends = array("q", [0])
        self.part: tuple[array[int], array[int], array[int]] = (array("B"), array("q"), array("q"))
        self.left_out: Counter[str] = Counter()

    def add(self, key: bytes, sample: _Sample, verdicts: Mapping[_Place, Left | bool], what: str) -> None:
        """One sample, or the reason why it is left out."""
        if not sample.images:
            self.left_out[Left.NO_IMAGE] += 1
            return
        if len(sample.images) > 1:
            first, second = sorted(show_path(member.name) for member in sample.images)[:2]
            raise InputError(f"{what}: two images have the key {show_path(os.fsdecode(key))}: {first} and {second}; rename one of them")
        parts = [(verdicts[_place(member)], member) for _, _, member in sorted(sample.parts)]
        usable = [member for verdict, member in parts if verdict is True]
        reasons = [verdict for verdict, _ in parts if isinstance(verdict, Left)]
        self.left_out.update(why for why in reasons if usable and why in (Left.DAMAGED, Left.UNDECODABLE))
        if not usable or Left.FAILED in reasons:
            order = (Left.FAILED, Left.DAMAGED, Left.UNDECODABLE, Left.BLANK)
            self.left_out[next((why for why in order if why in reasons), Left.ALONE)] += 1
            return
        self.keys.append(key)
        self._member(self.image, sample.images[0])
        for member in usable:
            self._member(self.part, member)
        self.ends.append(len(self.part[0]))

    def _member(self, columns: tuple[array[int], array[int], array[int]], member: Member) -> None:
        place = _place(member)
        columns[0].append(self.suffixes.setdefault(place.suffix, len(self.suffixes)))
        columns[1].append(place.offset)
        columns[2].append(place.length)

    def packed(self) -> TarContents:
        image_suffix, image_offset, image_length = map(np.array, self.image)
        part_suffix, part_offset, part_length = map(np.array, self.part)
        return TarContents(
            Packed.of(self.keys), tuple(self.suffixes), image_suffix, image_offset, image_length, np.array(self.ends, np.int64),
            part_suffix, part_offset, part_length, dict(self.left_out),
        )  # fmt: skip
