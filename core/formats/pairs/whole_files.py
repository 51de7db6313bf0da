"""Pairs from files that can only be read as a whole: COCO's captions, Parquet. Their captions are kept in memory as bytes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from ovskit.core.formats import jsonbytes
from ovskit.core.formats.coco.lvis import image_name
from ovskit.core.formats.pairs.captions import Left, is_utf8
from ovskit.core.formats.pairs.listing import PEEK, Listing, Rows
from ovskit.core.formats.paths import show_path
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError


class WholeFile(Listing):
    """A list whose captions are kept."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._blob = bytearray()

    @abstractmethod
    def entries(self) -> Iterator[tuple[int, Any, Any]]:
        """Number, image name and caption of each entry, whatever they are."""

    def first_names(self) -> list[str]:
        return [name for _, name, _ in islice(self.entries(), PEEK) if isinstance(name, str)]

    def rows(self) -> Rows:
        rows = Rows()
        self._blob.clear()
        for number, name, caption in self.entries():
            if not isinstance(caption, str) or not caption.strip():
                rows.left_out[Left.ALONE if caption is None else Left.BLANK] += 1
                continue
            if not is_utf8(caption):
                rows.left_out[Left.UNDECODABLE] += 1
                continue
            known = self.name_of(name)
            if known is None:
                rows.left_out[Left.NO_IMAGE] += 1
                continue
            data = caption.strip().encode()
            rows.add(known, len(self._blob), len(data), number)
            self._blob += data
        return rows

    def captions(self, file: BinaryIO | None, offset: int, length: int) -> Sequence[str]:
        return [self._blob[offset : offset + length].decode()]

    def file(self) -> BinaryIO | None:
        return None


class CocoCaptions(WholeFile):
    """A COCO file whose annotations have a ``caption``; images without one are left out."""

    part = "annotation"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._document: dict[str, Any] | None = None

    def rows(self) -> Rows:
        rows = super().rows()
        told = {entry.get("image_id") for entry in self._annotations() if isinstance(entry.get("image_id"), int | str)}
        if silent := sum(entry["id"] not in told for entry in self._listed("images") if _has_id(entry)):
            rows.left_out[Left.ALONE] += silent
        self._document = None  # several times the size of what is kept
        return rows

    def entries(self) -> Iterator[tuple[int, Any, Any]]:
        names = {entry["id"]: image_name(entry) for entry in self._listed("images") if _has_id(entry)}
        for number, entry in enumerate(self._annotations(), 1):
            image = entry.get("image_id")
            yield number, names.get(image) if isinstance(image, int | str) else None, entry.get("caption")

    def _annotations(self) -> Iterable[dict[str, Any]]:
        entries = self._listed("annotations")
        if entries and not any("caption" in entry for entry in entries):
            raise InputError(f"{self.what}: its annotations have no captions; give a COCO file of captions")
        return entries

    def _listed(self, key: str) -> list[dict[str, Any]]:
        if self._document is None:
            try:
                data = Path(self.path).read_bytes()
            except OSError as error:
                raise MissingInputError(f"cannot read {self.what}: {error.strerror}") from None
            document = jsonbytes.loads(jsonbytes.without_mark(data), self.what)
            if not isinstance(document, dict) or not all(isinstance(document.get(part), list) for part in ("images", "annotations")):
                raise InputError(f'{self.what}: a COCO file of captions has lists of "images" and "annotations"')
            self._document = document
        return [entry for entry in self._document[key] if isinstance(entry, dict)]


class Parquet(WholeFile):
    """clip-retrieval's metadata: rows with ``image_path`` and ``caption``. Needs pyarrow."""

    part = "row"

    def entries(self) -> Iterator[tuple[int, Any, Any]]:
        arrow, parquet = _pyarrow(self.what)
        try:
            with parquet.ParquetFile(self.path) as table:
                names = set(table.schema_arrow.names)
                if not {"image_path", "caption"} <= names:
                    raise InputError(f"{self.what}: {_other_columns(names)}")
                number = 0
                for batch in table.iter_batches(columns=["image_path", "caption"], batch_size=8192):
                    columns = (_texts(arrow, batch.column(key)) for key in ("image_path", "caption"))
                    for name, caption in zip(*columns, strict=True):
                        yield number, name, caption
                        number += 1
        except (arrow.ArrowException, OSError, ValueError) as error:  # any of these for what is damaged
            if isinstance(error, OSError) and error.errno is not None:
                raise MissingInputError(f"cannot read {self.what}: {error.strerror}") from None
            why = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(f"{self.what} is not a readable Parquet file: {show_path(why)}; make it again") from None

    def image_names(self, root: str | None) -> list[bytes]:
        """The name of the image of each row, relative to ``root`` or else to the images' folder; empty where a row names none. Raises as
        ``rows``."""
        self.need_images = False
        self.choose_base(root)
        self._root = self.base
        return [self.name_of(name) or b"" for _, name, _ in self.entries()]


def _texts(arrow: Any, column: Any) -> list[Any]:
    """The values of a column; bytes that are not UTF-8 are carried as surrogates, which pyarrow would not read."""
    kind = column.type
    if arrow.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if arrow.types.is_string(kind) or arrow.types.is_large_string(kind):
        column = column.cast(arrow.large_binary())
    values = column.to_pylist()
    return [value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value for value in values]


def _other_columns(names: set[str]) -> str:
    if {"key", "caption"} <= names:
        return "it belongs to a tar of img2dataset, which is not beside it; name tars"
    return f"it has no columns image_path and caption, but {', '.join(sorted(names)[:8])}"


def _pyarrow(what: str) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UsageError(f"{what}: Parquet files are read with pyarrow, which is not installed: pip install 'ovskit[parquet]'") from None
    return pyarrow, parquet


def _has_id(entry: dict[str, Any]) -> bool:
    return isinstance(entry.get("id"), int | str)
