"""Features that others saved with NumPy, read as a stream."""

import contextlib
import io
import logging
import re
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from ovskit.core.formats.streams import numpy_arrays
from ovskit.core.formats.streams.features import HEADER, FeatureHeader, FeatureWriter
from ovskit.core.formats.streams.numpy_arrays import holds_arrays
from ovskit.core.formats.streams.numpy_features import NumpyFeatures, array_layout, with_arrays
from ovskit.core.models.backbones.interface import BackboneSpec
from ovskit.core.records import FeatureMap, Image
from ovskit.core.runtime.errors import InputError, MissingInputError, OvsError, UsageError
from ovskit.core.runtime.failures import Failures

Arrays = dict[str, np.ndarray[Any, Any]]

# Width and height of the photographs, in order of their ids.
SIZES = {"b.png": (40, 30), "sub/a.jpg": (30, 40), "sub/deep/a.png": (32, 32)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("photographs") / "imgs"
    for name, size in SIZES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Picture.new("RGB", size, "teal").save(folder / name)
    return str(folder)


def arrays(dtype: str = "f2") -> Arrays:
    """A grid for each photograph, under its name without suffix."""
    rng = np.random.default_rng(0)
    return {name.rpartition(".")[0]: rng.normal(size=(h // 8, w // 8, 5)).astype(dtype) for name, (w, h) in SIZES.items()}


def opened(paths: list[Path], root: str, **options: Any) -> NumpyFeatures:
    return NumpyFeatures(
        list(map(str, paths)),
        root=root,
        **{"grid": None, "exif": "apply", "failures": Failures(skip=False), "max_pixels": 10**6, **options},
    )


def read(paths: list[Path], root: str, **options: Any) -> list[FeatureMap]:
    with opened(paths, root, **options).open() as reader:
        found = []
        while images := reader.peek():
            record = reader.take()
            assert images == (record.image,)
            found.append(record)
        return found


class Pipe(io.RawIOBase):
    """What zipfile writes data descriptors to: it cannot seek."""

    def __init__(self, file: io.BytesIO) -> None:
        self.file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self.file.write(data)


def savez(found: Arrays, **options: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **found, **options)
    return out.getvalue()


def compressed(found: Arrays) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **found)
    return out.getvalue()


def zipped(found: Arrays, method: int, *, pipe: bool = False, zip64: bool = False) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(Pipe(out) if pipe else out, "w", method) as archive:  # type: ignore[call-overload]
        for name, array in found.items():
            with archive.open(f"{name}.npy", "w", force_zip64=zip64) as member:
                np.save(member, array)
    return out.getvalue()


ARCHIVES: dict[str, Callable[[Arrays], bytes]] = {
    "savez": savez,
    "savez_compressed": compressed,
    "stored, data descriptors": lambda found: zipped(found, zipfile.ZIP_STORED, pipe=True),
    "deflated, data descriptors": lambda found: zipped(found, zipfile.ZIP_DEFLATED, pipe=True),
    "deflated, ZIP64, data descriptors": lambda found: zipped(found, zipfile.ZIP_DEFLATED, pipe=True, zip64=True),
    "ZIP64": lambda found: zipped(found, zipfile.ZIP_STORED, zip64=True),
    "bzip2": lambda found: zipped(found, zipfile.ZIP_BZIP2),
    "lzma": lambda found: zipped(found, zipfile.ZIP_LZMA),
}


def same_as_saved(found: list[FeatureMap], saved: Arrays) -> None:
    assert [(record.image.id, record.image.file_name) for record in found] == list(enumerate(SIZES, 1))
    for record in found:
        assert (record.image.width, record.image.height) == SIZES[record.image.file_name]
        array = saved[record.image.file_name.rpartition(".")[0]]
        assert record.patch.dtype == array.dtype.newbyteorder("=")
        assert record.patch.flags.c_contiguous
        assert np.array_equal(record.patch, array)
        assert record.cls is None


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_of_any_dialect(tmp_path: Path, root: str, kind: str) -> None:
    saved = dict(reversed(arrays().items()))  # the order is the photographs'
    path = tmp_path / "f.npz"
    path.write_bytes(ARCHIVES[kind](saved))
    assert holds_arrays(str(path), HEADER)
    same_as_saved(read([path], root), saved)


def test_folders_and_single_files(tmp_path: Path, root: str) -> None:
    saved = arrays("f4")
    for name, array in saved.items():
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "all" / f"{name}.npy", array)
    (tmp_path / "all" / "notes.txt").write_text("not an array")
    assert holds_arrays(str(tmp_path / "all"), HEADER)
    same_as_saved(read([tmp_path / "all"], root), saved)
    files = [tmp_path / "all" / f"{name}.npy" for name in saved]
    assert all(holds_arrays(str(file), HEADER) for file in files)
    same_as_saved(read(files[::-1], root), saved)
    rest = tmp_path / "rest.npz"
    np.savez(rest, **{name: array for name, array in saved.items() if name != "b"})
    same_as_saved(read([rest, files[0]], root), saved)


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_kind_of_npy(tmp_path: Path, root: str, dtype: str, version: tuple[int, int], order: str) -> None:
    array = np.random.default_rng(1).normal(size=(3, 4, 5)).astype(dtype).copy(order)  # type: ignore[call-overload]
    with (tmp_path / "b.npy").open("wb") as file:
        np.lib.format.write_array(file, array, version)
    (record,) = read([tmp_path / "b.npy"], root)
    assert record.patch.dtype == np.dtype(f"f{min(array.itemsize, 4)}")
    assert np.array_equal(record.patch, array.astype(record.patch.dtype))


def test_names_with_suffix_with_and_without_folders(tmp_path: Path, root: str, caplog: pytest.LogCaptureFixture) -> None:
    array = np.ones((4, 4, 2), np.float32)

    def names(*keys: str) -> list[str]:
        np.savez(tmp_path / "f.npz", **dict.fromkeys(keys, array))
        return [record.image.file_name for record in read([tmp_path / "f.npz"], root)]

    assert names("a.jpg", "data/imgs/sub/deep/a", "b") == list(SIZES)
    with caplog.at_level(logging.WARNING, "ovskit"):
        assert names("b", "labels", "more") == ["b.png"]
    assert "labels.npy and 1 more" in caplog.text
    with pytest.raises(InputError, match=r"f\.npz: a\.npy fits 2 photographs"):
        names("a")
    with pytest.raises(InputError, match=r"b\.npy and .*b\.png\.npy both fit b\.png"):
        names("b", "b.png")
    with pytest.raises(InputError, match="no array is named like a photograph.*'arr_0'.*'b.png'"):
        names("arr_0")


def test_the_header_says_what_is_known(tmp_path: Path, root: str) -> None:
    np.savez(tmp_path / "f.npz", **arrays())
    header = opened([tmp_path / "f.npz"], root, exif="ignore").header
    assert FeatureHeader.from_bytes(header.to_bytes(), "x").root == root
    assert header.exif == "ignore"
    spec = BackboneSpec.from_json(header.model)
    assert (spec.model, spec.dim, spec.has_cls, spec.local, spec.counts) == ("numpy", 5, False, False, None)


def test_photographs_are_upright_or_as_they_are_stored(tmp_path: Path) -> None:
    exif = Picture.Exif()
    exif[274] = 6
    (tmp_path / "imgs").mkdir()
    Picture.new("RGB", (40, 30)).save(tmp_path / "imgs" / "x.jpg", exif=exif)
    np.save(tmp_path / "x.npy", np.ones((4, 4, 2), np.float32))
    (upright,) = read([tmp_path / "x.npy"], str(tmp_path / "imgs"))
    (stored,) = read([tmp_path / "x.npy"], str(tmp_path / "imgs"), exif="ignore")
    assert (upright.image.width, upright.image.height, upright.image.orientation) == (30, 40, 6)
    assert (stored.image.width, stored.image.height, stored.image.orientation) == (40, 30, 1)
    with pytest.raises(InputError, match="too large.*--max-pixels"):
        read([tmp_path / "x.npy"], str(tmp_path / "imgs"), max_pixels=1199)


WIDE = Image(1, "w.jpg", 640, 480)
SQUARE = Image(1, "s.jpg", 500, 500)


@pytest.mark.parametrize(
    ("shape", "image", "grid", "expected", "cls"),
    [
        ((30, 40, 384), WIDE, None, (30, 40), False),
        ((28, 28, 384), WIDE, None, (28, 28), False),
        ((1, 28, 28, 384), WIDE, None, (28, 28), False),
        ((40, 30, 384), WIDE, None, (40, 30), False),  # of photographs resized to one size
        ((64, 64, 3), WIDE, None, (64, 64), False),  # a few principal components
        ((64, 28, 28), WIDE, (64, 28), (64, 28), False),
        ((784, 384), WIDE, None, (28, 28), False),
        ((1, 784, 384), WIDE, None, (28, 28), False),
        ((1200, 384), WIDE, None, (30, 40), False),
        ((784, 384), WIDE, (14, 56), (14, 56), False),
        ((785, 384), SQUARE, (28, 28), (28, 28), True),
        ((1, 785, 384), SQUARE, (28, 28), (28, 28), True),
        ((1, 7, 384), SQUARE, (1, 7), (1, 7), False),
        ((1, 1, 384), SQUARE, None, (1, 1), False),
    ],
)
def test_shapes_that_are_read(
    shape: tuple[int, ...], image: Image, grid: tuple[int, int] | None, expected: tuple[int, int], cls: bool
) -> None:
    found = array_layout(shape, image, grid, "x")
    assert (found.grid, found.channels, found.cls) == (expected, shape[-1], cls)


@pytest.mark.parametrize(
    ("shape", "image", "grid", "words"),
    [
        ((), WIDE, None, ["shape ()", "want (h, w, c), or (n, c)"]),
        ((384,), WIDE, None, ["shape (384,)", "want (h, w, c)"]),
        ((2, 28, 28, 384), WIDE, None, ["one array for each photograph"]),
        ((0, 28, 384), WIDE, None, ["want (h, w, c)"]),
        ((384, 28, 28), WIDE, None, ["(384, 28, 28)", "looks like (c, h, w)", "transpose(1, 2, 0)", "--grid 384x28"]),
        ((1, 384, 30, 40), WIDE, None, ["looks like (c, h, w)"]),
        ((64, 128, 128), SQUARE, None, ["looks like (c, h, w)"]),
        ((384, 30, 40), WIDE, (30, 40), ["looks like (c, h, w)"]),
        ((28, 28, 384), WIDE, (30, 40), ["another grid than --grid 30x40"]),
        ((785, 384), SQUARE, None, ["785 rows do not make a grid", "500×500", "--grid HxW", "28x28 if the first row is CLS"]),
        ((1764, 384), WIDE, None, ["36x49 or 42x42", "--grid"]),
        ((756, 384), SQUARE, None, ["27x28 or 28x27", "--grid"]),
        ((7, 384), SQUARE, None, ["do not make a grid"]),
        ((783, 384), SQUARE, (28, 28), ["784 rows", "785"]),
        ((384, 784), SQUARE, (28, 28), ["784 rows", "array.T"]),
    ],
)
def test_shapes_that_are_not_read_are_named(shape: tuple[int, ...], image: Image, grid: tuple[int, int] | None, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        array_layout(shape, image, grid, "f.npz: x.npy")
    for word in ["f.npz: x.npy", *words]:
        assert word in str(error.value)


@settings(max_examples=300, deadline=None)
@given(st.integers(16, 5000), st.integers(16, 5000), st.floats(0.002, 0.1), st.booleans(), st.booleans())
def test_rows_are_never_read_as_another_grid_than_the_photographs_own(wide: int, high: int, scale: float, up: bool, left: bool) -> None:
    """The whole patches of a photograph at any size, however its sides were rounded: they are found, or it is said that more would do."""
    grid = int(high * scale) + up, int(wide * scale) + left
    assume(min(grid) > 0)
    try:
        found = array_layout((grid[0] * grid[1], 8), Image(1, "x", wide, high), None, "x")
    except InputError as error:
        said = str(error)
    else:
        said = f"{found.grid[0]}x{found.grid[1]} alone"
    assert re.search(rf"\b{grid[0]}x{grid[1]}( or | alone| patches of )", said), said


def test_a_grid_by_the_aspect_is_said_once(tmp_path: Path, root: str, caplog: pytest.LogCaptureFixture) -> None:
    np.savez(tmp_path / "f.npz", **{"b": np.ones((300 * 400, 1)), "sub/a.jpg": np.ones((300 * 400, 1)), "deep/a": np.ones((900, 1))})
    features = opened([tmp_path / "f.npz"], root)
    with caplog.at_level(logging.WARNING, "ovskit"):
        for _ in range(2):
            with features.open() as reader:
                shapes = []
                while reader.peek():
                    shapes.append(reader.take().patch.shape)
            assert shapes == [(300, 400, 1), (400, 300, 1), (30, 30, 1)]
    assert caplog.text.count("300x400, by the aspect") == 1
    assert caplog.text.count("by the aspect") == 1


def test_the_first_row_is_cls_where_a_grid_says_so(tmp_path: Path, root: str) -> None:
    rows = np.random.default_rng(2).normal(size=(1 + 12, 5))
    np.save(tmp_path / "b.npy", rows)
    (record,) = read([tmp_path / "b.npy"], root, grid=(3, 4))
    assert record.cls is not None
    assert np.array_equal(record.cls, rows[0].astype(np.float32))
    assert np.array_equal(record.patch, rows[1:].reshape(3, 4, 5).astype(np.float32))


def npy(descr: str, shape: str, data: bytes = b"") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (np.array([{"a": 1}], object), "Python objects"),
        (np.ones((3, 4, 5), np.int64), "<i8"),
        (np.ones((3, 4, 5), np.uint8), "|u1"),
        (np.ones((3, 4, 5), np.complex64), "<c8"),
        (np.ones((3, 4, 5), "V2"), "bfloat16"),
        (np.ones((3, 4), [("a", "<f4")]), "not floats"),
        (np.array(["x"]), "<U1"),
        (np.ones((3, 4, 5), np.longdouble), "not floats"),
    ],
)
def test_arrays_of_something_else(tmp_path: Path, root: str, array: np.ndarray[Any, Any], word: str) -> None:
    np.save(tmp_path / "b.npy", array, allow_pickle=True)
    np.savez(tmp_path / "f.npz", b=array, allow_pickle=True)
    for path in (tmp_path / "b.npy", tmp_path / "f.npz"):
        with pytest.raises(InputError) as error:
            read([path], root)
        assert word in str(error.value)
        assert "save it as float16 or float32" in str(error.value)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "not an array"),
        (b"\x93NUMPY\4\0", "not an array"),
        (npy("'<f4'", "(3, 4, 5)", bytes(239)), "239 bytes of data where its header says 240"),
        (npy("'<f4'", "(3, 4, 5)", bytes(241)), "241 bytes of data where its header says 240"),
        (npy("'<f4'", "(3, 4, -5)", bytes(240)), "header"),
        (npy("'<f4'", "__import__('os').abort()"), "header"),
        (npy("'<f4'", "(99999999999, 99999999999, 9)"), "the limit is"),
        (b"\x93NUMPY\2\0\xff\xff\xff\xff" + b"{" * 99999, "header"),
        (b"\x93NUMPY\1\0\xff\x3f{'descr': '<f4', 'fortran_order': False, 'shape': (" + b" " * 16331, "header"),
    ],
)
def test_npy_that_is_broken(tmp_path: Path, root: str, data: bytes, word: str) -> None:
    (tmp_path / "b.npy").write_bytes(data)
    with pytest.raises(InputError, match=word):
        read([tmp_path / "b.npy"], root)


def test_a_bomb_takes_no_memory(tmp_path: Path, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpy_arrays, "MAX_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "f.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("b.npy", "w") as member:
        member.write(npy("'<f4'", "(4096, 4096, 4)"))
        for _ in range(64):
            member.write(bytes(4 << 20))
    assert (tmp_path / "f.npz").stat().st_size < 1 << 19
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="the limit is 1048576"):
            read([tmp_path / "f.npz"], root)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_one_image_is_in_memory(tmp_path: Path, root: str) -> None:
    one = np.ones((64, 64, 256), np.float32)
    np.savez_compressed(tmp_path / "f.npz", **dict.fromkeys(arrays(), one))
    features = opened([tmp_path / "f.npz"], root)
    tracemalloc.start()
    try:
        with features.open() as reader:
            count = 0
            while reader.peek():
                reader.take()
                count += 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 3
    assert one.nbytes < peak < 2 * one.nbytes + (16 << 20)  # two, and the blocks that are read at a time


def test_damage_and_what_is_no_archive(tmp_path: Path, root: str) -> None:
    path = tmp_path / "f.npz"
    data = savez(arrays())
    at = data.index(b"\x93NUMPY") + 200  # among the numbers of the first array
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(InputError, match=r"f\.npz: b\.npy is damaged.*CRC"):
        read([path], root)
    path.write_bytes(data[:-60])
    assert holds_arrays(str(path), HEADER)
    with pytest.raises(InputError, match=r"f\.npz is damaged"):
        read([path], root)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    with pytest.raises(InputError, match=r"holds no \.npy arrays \(its first member is archive/data\.pkl\)"):
        read([path], root)
    (tmp_path / "none").mkdir()
    with pytest.raises(MissingInputError, match=r"no \.npy arrays in folder"):
        read([tmp_path / "none"], root)


def test_arrays_of_different_models(tmp_path: Path, root: str) -> None:
    np.savez(tmp_path / "f.npz", b=np.ones((4, 4, 3)), **{"deep/a": np.ones((4, 4, 2))})
    with pytest.raises(InputError, match=r"a\.npy has 2 channels and .*b\.npy 3"):
        read([tmp_path / "f.npz"], root)


def test_what_is_skipped_is_counted_once(tmp_path: Path, root: str) -> None:
    np.savez(tmp_path / "f.npz", **{**arrays(), "b": np.ones(3)})
    failures = Failures(skip=True)
    features = opened([tmp_path / "f.npz"], root, failures=failures)
    for _ in range(2):
        with features.open() as reader:
            ids = []
            while reader.peek():
                ids.append(reader.take().image.id)
        assert ids == [2, 3]
    assert failures.count == 1
    np.savez(tmp_path / "f.npz", b=np.ones(3))
    with pytest.raises(InputError, match="none of its arrays can be used"):
        opened([tmp_path / "f.npz"], root, failures=failures)


def own_stream() -> bytes:
    out = io.BytesIO()
    writer = FeatureWriter(out, FeatureHeader({"model": "m"}, None, "float16", "imgs"))
    writer.write(FeatureMap(Image(1, "b.png", 40, 30), np.ones((3, 4, 5), np.float16)))
    writer.finish()
    return out.getvalue()


def test_our_own_streams_are_told_from_others(tmp_path: Path, root: str) -> None:
    path = tmp_path / "f.npz"
    data = own_stream()
    for at in range(70):  # the first header, and the name in it
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        assert not holds_arrays(str(path), HEADER), at
    for other in (data[:40], b"", b"text", b"PK"):
        path.write_bytes(other)
        assert not holds_arrays(str(path), HEADER)
    assert not holds_arrays("-", HEADER)
    assert not holds_arrays(str(tmp_path / "gone"), HEADER)
    # Names that are not ASCII are marked as UTF-8, as all of ours are.
    np.savez(path, **{"ä": np.ones(3)})
    assert holds_arrays(str(path), HEADER)


def test_streams_and_arrays_among_the_inputs(tmp_path: Path, root: str) -> None:
    ours, first, second = (str(tmp_path / name) for name in ("ours.npz", "first.npz", "second.npz"))
    Path(ours).write_bytes(own_stream())
    np.savez(first, b=np.ones((3, 4, 5)))
    np.savez(second, **{"deep/a": np.ones((3, 4, 5))})
    given: dict[str, Any] = {"exif": "apply", "failures": Failures(skip=False), "max_pixels": 10**6}
    found = with_arrays(["-", first, ours, second], root=root, grid=None, local=False, **given)
    assert [found[0], found[2]] == ["-", ours]
    assert isinstance(found[1], NumpyFeatures)
    assert found[1].what == f"{first}, {second}"
    assert with_arrays(["-", ours], root=None, grid=None, local=True, **given) == ["-", ours]
    for options, word in (
        ({"root": None, "grid": None, "local": False}, "add --root DIR"),
        ({"root": root, "grid": None, "local": True}, "--local"),
    ):
        with pytest.raises(UsageError, match=word):
            with_arrays([first], **options, **given)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([*ARCHIVES, ".npy"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 4), st.binary(min_size=1, max_size=6)), min_size=1, max_size=4),
)
@example("savez", [(0.999, 0, b"\xff\xff\xff\xff")])
def test_no_damage_ends_in_a_crash(tmp_path: Path, root: str, kind: str, changes: list[tuple[float, int, bytes]]) -> None:
    found = {name: array[:2, :2] for name, array in arrays().items()}
    path = tmp_path / ("b.npy" if kind == ".npy" else "f.npz")
    if kind == ".npy":
        np.save(path, found["b"])
        data = path.read_bytes()
    else:
        data = ARCHIVES[kind](found)
    for where, cut, new in changes:
        at = int(where * len(data))
        data = data[:at] + new + data[at + cut :]
    path.write_bytes(data)
    with contextlib.suppress(OvsError):
        if holds_arrays(str(path), HEADER):
            read([path], root)
