"""Arrays that others saved with NumPy: archives of ``numpy.savez`` and ``savez_compressed``, folders of ``.npy``, single ones.

Any dialect of zip that Python's ``zipfile`` reads by its central directory, so archives are files and not pipes: stored, deflated,
with data descriptors, ZIP64. ``.npy`` in format 1.0 to 3.0, of any byte order, in C or Fortran order. Nothing is unpickled and no Python
expression from outside is evaluated; an array's header says how large it is, and one that says too much, or another size than its member
has, is refused before it is read.
"""

from __future__ import annotations

import lzma
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from ovskit.core.formats.paths import show_path
from ovskit.core.formats.walk import files_below
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.limits import allow_open_files

MAX_BYTES = 4 << 30  # of one array [choice]: 80 times what a ViT-B/8 makes of 1024 × 1024 pixels in float32

_SUFFIX = ".npy"
_MAGIC = b"\x93NUMPY"
_LENGTHS = {1: struct.Struct("<H"), 2: struct.Struct("<I"), 3: struct.Struct("<I")}
_MAX_HEADER = 1 << 14  # numpy refuses more than 10,000 characters
# As numpy writes it; blanks may be elsewhere, since other languages' libraries have their own.
_HEADER = re.compile(
    rb"\{ *'descr' *: *('[^']{0,16}'|\[.*\]) *, *'fortran_order' *: *(True|False) *, *'shape' *: *"
    rb"\(((?: *\d{1,19} *,)*(?: *\d{1,19})? *)\)(?: *,)? *\}\s*"
)
_DTYPES = frozenset(f"{order}f{size}" for order in "<>" for size in (2, 4, 8))
_BLOCK = 4 << 20

# What zipfile lets escape at damage or at what it does not know: its own error, those of the three decompressors, of a member that ends
# early, of encrypted members (RuntimeError) and unknown methods (NotImplementedError is one), of names that are not text and of offsets
# that no file has.
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError, OverflowError, struct.error)


@dataclass(frozen=True, slots=True)
class StoredArray:
    """One array and where it is: ``name`` is its key in an archive or its path in a folder, without ``.npy``; ``member`` is None for a
    file of its own."""

    name: str
    path: str
    member: zipfile.ZipInfo | None = None

    @property
    def what(self) -> str:
        """The array's name in messages."""
        return show_path(self.path) if self.member is None else f"{show_path(self.path)}: {show_path(self.member.filename)}"


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """The header of an array: its ``shape``, whether it is in ``fortran`` order, and its ``dtype``, a float of 2, 4 or 8 bytes."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Bytes of data."""
        return math.prod(self.shape) * self.dtype.itemsize


def holds_arrays(path: str, header: str) -> bool:
    """Whether ``path`` is a folder, an ``.npy`` file or a zip that is not a stream of ovskit, whose first member is called ``header``.

    False for stdin (``-``), pipes and files that are missing or cannot be read, which their reader reports. A damaged stream of ovskit
    still counts as a stream of ovskit.
    """
    if os.path.isdir(path):
        return True
    try:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            head = file.read(30 + len(header))
    except OSError:
        return False
    if head.startswith(_MAGIC):
        return True
    if not head.startswith((b"PK\3\4", b"PK\5\6")) or head[30:] == header.encode():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return header not in archive.namelist()
    except _DAMAGE:
        # A stream of ovskit is stored and says that its names are UTF-8, which numpy says only of names that are not ASCII.
        return head[6:10] != b"\0\x08\0\0"


def list_arrays(paths: Sequence[str]) -> list[StoredArray]:
    """All arrays of archives, folders and ``.npy`` files, in that order; in folders as ``walk.files_below`` lists them.

    Raises InputError for an archive whose directory is damaged, or without arrays, MissingInputError for a folder without any or what
    cannot be read.
    """
    found: list[StoredArray] = []
    for path in paths:
        before = len(found)
        if os.path.isdir(path):
            below = (file for file in files_below(path) if file.endswith(_SUFFIX))
            found += [StoredArray(os.path.relpath(file, path).removesuffix(_SUFFIX), file) for file in below]
            if len(found) == before:
                raise MissingInputError(f"no {_SUFFIX} arrays in folder {show_path(path)}")
        elif path.endswith(_SUFFIX):
            found.append(StoredArray(os.path.normpath(path).removesuffix(_SUFFIX), path))
        else:
            with _archive(path) as archive:
                members = archive.infolist()
            found += [
                StoredArray(member.filename.removesuffix(_SUFFIX), path, member) for member in members if member.filename.endswith(_SUFFIX)
            ]
            if len(found) == before:
                inside = f"its first member is {show_path(members[0].filename)}" if members else "it is empty"
                raise InputError(f"{show_path(path)} holds no {_SUFFIX} arrays ({inside}); save them with numpy.savez")
    return found


class ArrayFiles:
    """The files that arrays are in, opened when they are first asked for and closed at the end of the context."""

    def __init__(self, arrays: Sequence[StoredArray]) -> None:
        self._stack = ExitStack()
        self._archives: dict[str, zipfile.ZipFile] = {}
        allow_open_files(len({array.path for array in arrays if array.member is not None}))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def header(self, array: StoredArray) -> ArrayHeader:
        """The header of the array. Raises as ``read`` does."""
        with self._open(array) as (file, size):
            return _read_header(file, size, array.what)

    def read(self, array: StoredArray) -> npt.NDArray[Any]:
        """The array in C order and the machine's byte order, float16, float32 or float64.

        Raises MissingInputError if it is not there; InputError, naming it, if it is damaged, anything but plain floats, or larger than
        ``MAX_BYTES``.
        """
        with self._open(array) as (file, size):
            header = _read_header(file, size, array.what)
            data = np.empty(header.size, np.uint8)
            with data.data as view:
                at = 0
                while at < len(view):
                    got = file.readinto(view[at : at + _BLOCK])  # type: ignore[attr-defined]  # every binary file has it but typing.IO
                    if not got:
                        raise InputError(f"{array.what} ends {at} bytes into the {len(view)} of its array; save it again")
                    at += got
            if file.read(1):  # at a member's end its CRC is compared
                raise InputError(f"{array.what} goes on after its array; save it again")
        flat = data.view(header.dtype)
        whole = flat.reshape(header.shape[::-1]).T if header.fortran else flat.reshape(header.shape)
        return np.ascontiguousarray(whole, header.dtype.newbyteorder("="))

    @contextmanager
    def _open(self, array: StoredArray) -> Iterator[tuple[IO[bytes], int]]:
        """The array's ``.npy`` file, and its size in bytes."""
        if array.member is None:
            try:
                file = open(array.path, "rb")
            except OSError as error:
                raise MissingInputError(f"cannot read {array.what}: {error.strerror}") from None
            with file, _reporting(array.what):
                yield file, os.fstat(file.fileno()).st_size
            return
        if array.path not in self._archives:
            self._archives[array.path] = self._stack.enter_context(_archive(array.path))
        with _reporting(array.what), self._archives[array.path].open(array.member) as stream:
            yield stream, array.member.file_size


def _read_header(file: IO[bytes], size: int, what: str) -> ArrayHeader:
    head = file.read(8)
    length = _LENGTHS.get(head[6]) if len(head) == 8 and head.startswith(_MAGIC) else None
    if length is None:
        raise InputError(f"{what} is not an array that numpy.save writes")
    count = int.from_bytes(file.read(length.size), "little")
    text = file.read(min(count, _MAX_HEADER + 1))
    match = _HEADER.fullmatch(text)
    if match is None or len(text) != count:
        raise InputError(f"{what} has a header that numpy.save does not write for plain arrays; save it again as float16 or float32")
    descr = match[1].decode(errors="replace").strip("'")
    if descr not in _DTYPES:
        why = {"|O": "Python objects, which would have to be unpickled and never are", "|V2": "raw pairs of bytes, such as of bfloat16"}
        raise InputError(f"{what} has dtype {descr[:40]} ({why.get(descr, 'not floats')}); save it as float16 or float32")
    shape = tuple(int(side) for side in match[3].split(b",") if side.strip())
    header = ArrayHeader(shape, match[2] == b"True", np.dtype(descr))
    if header.size > MAX_BYTES:
        raise InputError(f"{what} claims {header.size} bytes for one photograph, the limit is {MAX_BYTES}; save smaller grids")
    start = 8 + length.size + count
    if header.size != size - start:
        raise InputError(f"{what} has {max(0, size - start)} bytes of data where its header says {header.size}; save it again")
    return header


def _archive(path: str) -> zipfile.ZipFile:
    with _reporting(show_path(path)):
        return zipfile.ZipFile(path)


@contextmanager
def _reporting(what: str) -> Iterator[None]:
    """Turns what reading raises at damage into one ``InputError`` line."""
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{what} is damaged or cannot be read: {reason}; save it again") from None
