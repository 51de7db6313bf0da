"""The feature stream's container: what other programs read from it, and that nothing broken passes for whole."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import threading
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.formats.streams import zipstream
from ovskit.core.formats.streams.npy import npy_chunks
from ovskit.core.formats.streams.zipstream import Member, StoredZipWriter, read_members, scan_complete
from ovskit.core.runtime.errors import InputError

Members = list[tuple[str, bytes]]

names = st.text("abcXYZ019._/-", min_size=1, max_size=40)
member_lists = st.lists(st.tuples(names, st.binary(max_size=300)), max_size=8, unique_by=lambda member: member[0])


def pack(members: Members) -> bytes:
    out = io.BytesIO()
    with StoredZipWriter(out) as writer:
        for name, data in members:
            writer.write(name, data)
    return out.getvalue()


def unpack(data: bytes) -> Members:
    return [(name, bytes(member)) for name, member in read_members(io.BytesIO(data), "in.npz")]


def error_of(data: bytes) -> str:
    with pytest.raises(InputError) as caught:
        unpack(data)
    message = str(caught.value)
    assert "in.npz" in message
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def stream() -> bytes:
    rng = np.random.default_rng(0)
    members: Members = [("ovs.json", b'{"format":"ovskit.features/1"}')]
    for index in range(1, 4):
        members.append((f"{index:012d}/image.json", b'{"id":%d}' % index))
        members.append((f"{index:012d}/patch.npy", b"".join(npy_chunks(rng.normal(size=(3, 4, 5)).astype("<f2")))))
    return pack(members)


# Written, and read by us and by others


@given(member_lists)
@settings(deadline=None, max_examples=100)
def test_round_trip_and_zipfile_agree(members: Members) -> None:
    data = pack(members)
    assert unpack(data) == members
    assert data == pack(members)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert [(info.filename, archive.read(info)) for info in archive.infolist()] == members
        assert {info.date_time for info in archive.infolist()} <= {(1980, 1, 1, 0, 0, 0)}
        assert {info.compress_type for info in archive.infolist()} <= {zipfile.ZIP_STORED}


def test_numpy_load_opens_it(tmp_path: Path) -> None:
    arrays = {"a/patch": np.arange(24, dtype="<f4").reshape(2, 3, 4), "b": np.arange(5, dtype="<i4"), "c": np.zeros((0, 3), "<f8")}
    path = tmp_path / "features.npz"
    with path.open("wb") as out, StoredZipWriter(out) as writer:
        for name, array in arrays.items():
            writer.write(f"{name}.npy", *npy_chunks(array))
    with np.load(path, allow_pickle=False) as loaded:
        assert sorted(loaded.files) == sorted(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(loaded[name], array, strict=True)


def test_more_members_than_zip32_can_count() -> None:
    members: Members = [(f"{index:06d}", b"") for index in range(65_600)]
    data = pack(members)
    assert unpack(data) == members
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert len(archive.namelist()) == len(members)


def test_chunks_are_joined_and_need_not_be_bytes() -> None:
    out = io.BytesIO()
    array = np.arange(6, dtype="<i4").reshape(2, 3)
    with StoredZipWriter(out) as writer:
        writer.write("joined", b"ab", bytearray(b"cd"), memoryview(b"ef"), array.data)
    assert unpack(out.getvalue()) == [("joined", b"abcdef" + array.tobytes())]


def test_the_fast_crc_is_the_standard_one() -> None:
    data = random.Random(0).randbytes(100_001)
    for size in (0, 1, 15, 4096, len(data)):
        assert zipstream.crc32(data[:size]) == zlib.crc32(data[:size])
        assert zipstream.crc32(memoryview(data[size:]), zipstream.crc32(data[:size])) == zlib.crc32(data)


def test_runs_without_the_fast_crc(stream: bytes) -> None:
    script = (
        "import sys, zlib; sys.modules['isal'] = None\n"
        "from ovskit.core.formats.streams import zipstream\n"
        "assert zipstream.crc32 is zlib.crc32\n"
        "print(sum(len(data) for _, data in zipstream.read_members(sys.stdin.buffer, 'pipe')))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], input=stream, capture_output=True, check=True)
    assert int(done.stdout) == sum(len(data) for _, data in unpack(stream))


@pytest.mark.parametrize("buffering", [0, -1])
def test_through_a_real_pipe(buffering: int) -> None:
    members = [(f"{index}", random.Random(index).randbytes(300_000)) for index in range(5)]
    source, sink = os.pipe()

    def feed() -> None:
        with os.fdopen(sink, "wb", buffering=buffering) as out, StoredZipWriter(out) as writer:
            for name, data in members:
                writer.write(name, data)

    feeder = threading.Thread(target=feed)
    feeder.start()
    with os.fdopen(source, "rb", buffering=buffering) as into:
        got = list(read_members(into, "pipe"))  # kept all at once: every member has a buffer of its own
    feeder.join()
    assert [(name, bytes(data)) for name, data in got] == members


class Trickle(io.RawIOBase):
    """Takes and gives at most 7 bytes at a time, as a raw stream may."""

    def __init__(self, data: bytes = b"") -> None:
        self.buffer = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        return self.buffer.readinto(memoryview(target)[:7])

    def write(self, data: Any) -> int:
        return self.buffer.write(memoryview(data)[:7])


def test_short_reads_and_writes(stream: bytes) -> None:
    members = unpack(stream)
    out = Trickle()
    with StoredZipWriter(out) as writer:  # type: ignore[arg-type]
        for name, data in members:
            writer.write(name, data)
    assert out.buffer.getvalue() == stream
    assert [(name, bytes(data)) for name, data in read_members(Trickle(stream), "slow")] == members  # type: ignore[arg-type]


def test_members_over_one_block_arrive_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipstream, "_BLOCK", 1000)
    members = [(f"{size}", random.Random(size).randbytes(size)) for size in (999, 1000, 1001, 2000, 54_321)]
    assert unpack(pack(members)) == members


# The writer's own rules


@pytest.mark.parametrize("name", ["", "a b", "ä", "a\n", "x" * 256, "a\\b"])
def test_refuses_names_outside_the_dialect(name: str) -> None:
    with pytest.raises(ValueError, match="not a member name"):
        StoredZipWriter(io.BytesIO()).write(name, b"")


def test_an_exception_leaves_the_stream_truncated() -> None:
    out = io.BytesIO()

    def fail() -> None:
        with StoredZipWriter(out) as writer:
            writer.write("a", b"1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert "truncated" in error_of(out.getvalue())


def test_nothing_follows_a_failed_write_or_the_end() -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    writer = StoredZipWriter(Full())
    with pytest.raises(OSError, match="No space"):
        writer.write("a", b"1")
    with pytest.raises(ValueError, match="failed"):
        writer.finish()
    finished = StoredZipWriter(io.BytesIO())
    finished.finish()
    with pytest.raises(ValueError, match="finished"):
        finished.write("a", b"1")


# Broken input


def test_truncation_anywhere_is_an_input_error(stream: bytes) -> None:
    rng = random.Random(1)
    for size in {*range(70), *rng.sample(range(len(stream)), 200), *range(len(stream) - 150, len(stream))}:
        message = error_of(stream[:size])
        assert ("truncated" if size else "empty input") in message, (size, message)


def test_a_changed_byte_anywhere_is_an_input_error(stream: bytes) -> None:
    rng = random.Random(2)
    for at in range(len(stream)):
        flipped = bytearray(stream)
        flipped[at] ^= rng.choice([1 << rng.randrange(8), rng.randrange(1, 256)])
        error_of(bytes(flipped))


def test_a_changed_data_byte_names_the_member(stream: bytes) -> None:
    at = stream.index(b"NUMPY") + 100
    assert "CRC of 000000000001/patch.npy" in error_of(stream[:at] + bytes([stream[at] ^ 1]) + stream[at + 1 :])


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_splices_never_pass(stream: bytes, data: st.DataObject) -> None:
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(stream)), st.integers(0, len(stream)))))
    patch = data.draw(st.one_of(st.binary(max_size=20), st.just(stream[end : end + 60]), st.just(stream[start:end] * 2)))
    broken = stream[:start] + patch + stream[end:]
    if broken != stream:
        error_of(broken)


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=200)
def test_random_bytes_never_pass(data: bytes) -> None:
    error_of(data)
    error_of(b"PK\3\4" + data)


def test_two_streams_or_rubbish_behind_the_end(stream: bytes) -> None:
    assert "goes on after its end" in error_of(stream + b"\n")
    assert "goes on after its end" in error_of(stream + stream)


def test_a_member_dropped_repeated_or_reordered() -> None:
    parts = {name: pack([(name, name.encode())]) for name in "ab"}
    local = {name: data[: 30 + 1 + 20 + 1] for name, data in parts.items()}
    end = pack([("a", b"a"), ("b", b"b")])[len(local["a"] + local["b"]) :]
    assert local["a"] + local["b"] + end == pack([("a", b"a"), ("b", b"b")])
    for order in ("b", "a", "ba", "aab", "abb"):
        assert "is damaged" in error_of(b"".join(local[name] for name in order) + end)


def savez(**options: Any) -> bytes:
    out = io.BytesIO()
    options.pop("save", np.savez)(out, a=np.arange(10), **options)
    return out.getvalue()


def savez_to_a_pipe() -> bytes:
    class Pipe(io.RawIOBase):
        data = b""

        def writable(self) -> bool:
            return True

        def write(self, chunk: Any) -> int:
            self.data += bytes(chunk)
            return len(chunk)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as archive:  # type: ignore[arg-type]
        archive.writestr("a.npy", b"1234")
    return pipe.data


def empty_zip() -> bytes:
    out = io.BytesIO()
    zipfile.ZipFile(out, "w").close()
    return out.getvalue()


def npy() -> bytes:
    out = io.BytesIO()
    np.save(out, np.arange(3))
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty input"),
        (savez(), "numpy.savez"),
        (savez(save=np.savez_compressed), "compressed zip (method 8)"),
        (savez_to_a_pipe(), "sizes come after the data"),
        (empty_zip(), "empty one"),
        (npy(), "single .npy array"),
        (b"hello world, this is text\n" * 9, "text that starts with 'hello world, thi'"),
        (b'{"info": {}}', "JSON"),
        (b"\xff\xd8\xff\xe0 and so on", "JPEG"),
        (bytes(100), "bytes 00 00 00"),
    ],
)
def test_foreign_input_is_named(data: bytes, words: str) -> None:
    message = error_of(data)
    assert words in message
    assert "expected a feature stream" in message


@pytest.mark.parametrize("claim", [1 << 40, 1 << 62, (1 << 64) - 1])
def test_a_claimed_size_takes_no_memory_before_data_comes(claim: int) -> None:
    data = zipstream._local_header("a", 0, claim) + b"12345"
    tracemalloc.start()
    try:
        message = error_of(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert f"5 bytes into the {claim}" in message
    assert peak < 80 << 20


# Resuming


def test_resumed_after_a_kill_at_any_byte_gives_the_same_file(stream: bytes) -> None:
    members = unpack(stream)
    sizes = [30 + len(name) + 20 + len(data) for name, data in members]
    ends = [sum(sizes[:count]) for count in range(len(members) + 1)]
    for size in range(0, len(stream) + 1):
        file = io.BytesIO(stream[:size])
        done, end = scan_complete(file, "part")
        assert len(done) == sum(at <= size for at in ends) - 1
        assert end == ends[len(done)]
        assert [(member.name, member.crc) for member in done] == [(name, zlib.crc32(data)) for name, data in members[: len(done)]]
        file.truncate(end)
        file.seek(end)
        with StoredZipWriter(file, done, end) as writer:
            for name, data in members[len(done) :]:
                writer.write(name, data)
        assert file.getvalue() == stream


def test_a_damaged_member_ends_what_is_kept(stream: bytes) -> None:
    at = stream.index(b'{"id":2}')
    done, end = scan_complete(io.BytesIO(stream[: at + 3] + b"?" + stream[at + 4 :]), "part")
    assert [member.name for member in done] == ["ovs.json", "000000000001/image.json", "000000000001/patch.npy"]
    assert end == done[-1].offset + 30 + len(done[-1].name) + 20 + done[-1].size


@pytest.mark.parametrize("data", [savez(), b"text", bytes(200), empty_zip()])
def test_a_foreign_file_is_not_resumed(data: bytes) -> None:
    with pytest.raises(InputError, match=r"part.npz cannot be resumed"):
        scan_complete(io.BytesIO(data), "part.npz")


def test_a_finished_file_without_members_resumes() -> None:
    whole = pack([])
    for size in range(len(whole) + 1):
        assert scan_complete(io.BytesIO(whole[:size]), "part") == ([], 0)


def test_zipfile_reads_sizes_and_offsets_beyond_4_gib(tmp_path: Path) -> None:
    size = 5 << 30
    path = tmp_path / "sparse.npz"
    with path.open("wb") as out:
        local = zipstream._local_header("big", 7, size)
        out.write(local)
        out.seek(end := len(local) + size)  # a hole in the file where the data would be
        with StoredZipWriter(out, [Member("big", 7, size, 0)], end) as writer:
            writer.write("after", b"123")
    with zipfile.ZipFile(path) as archive:
        assert [(info.file_size, info.header_offset) for info in archive.infolist()] == [(size, 0), (3, end)]
        assert archive.read("after") == b"123"
