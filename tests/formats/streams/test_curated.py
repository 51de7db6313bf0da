"""The curated stream: what is written is read, parts join to the whole, and nothing cut or changed passes for whole."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.formats.streams.curated import (
    Concept,
    CuratedHeader,
    CuratedInputs,
    CuratedPair,
    CuratedWriter,
    Neighbour,
    open_curated,
)
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.shard import Shard

HEADER = CuratedHeader(
    "imgs", {"model": "m"}, {"hash": "h", "size": 3}, {"texts": 3}, ({"id": "ovs-curate", "command": "ovs-curate a", "previous": None},)
)


def pair(number: int) -> CuratedPair:
    concepts = (Concept("fox", 1.25, 0.25, 0, True, ()), Concept("grass", 1.0, 0.125, 1, False, (0, 1)))
    return CuratedPair(number, f"k/{number}", f"k.tar/{number}.jpg", ("a fox\nruns", "ein Füchslein"), concepts[: number % 3], NEAR)


NEAR = (Neighbour("k/9", 0.5), Neighbour("\udcff", 0.25))
PAIRS = [pair(k) for k in range(1, 9)]


def stream_of(pairs: list[CuratedPair], header: CuratedHeader = HEADER) -> bytes:
    out = io.BytesIO()
    writer = CuratedWriter(out, header)
    for one in pairs:
        if all(place < len(one.neighbours) for concept in one.concepts for place in concept.seen):
            writer.write(one)
    writer.finish()
    return out.getvalue()


WHOLE = stream_of(PAIRS)


def test_what_is_written_is_read() -> None:
    header, pairs = open_curated(io.BytesIO(WHOLE), "x")
    assert header == HEADER
    assert list(pairs) == PAIRS


@settings(max_examples=200, deadline=None)
@given(end=st.integers(0, len(WHOLE) - 1))
def test_a_cut_stream_is_never_whole(end: int) -> None:
    with pytest.raises(InputError):
        list(open_curated(io.BytesIO(WHOLE[:end]), "x")[1])


@settings(max_examples=200, deadline=None)
@given(end=st.integers(0, len(WHOLE)))
def test_an_unfinished_file_goes_on_to_the_same_bytes(end: int) -> None:
    file = io.BytesIO(WHOLE[:end])
    writer, done = CuratedWriter.resume(file, HEADER, "x")
    assert done <= {one.id for one in PAIRS}
    for one in PAIRS:
        if one.id not in done:
            writer.write(one)
    writer.finish()
    assert file.getvalue() == WHOLE


def test_another_run_is_not_gone_on_with() -> None:
    other = replace(HEADER, pg=({"id": "ovs-curate", "command": "ovs-curate b"},))
    with pytest.raises(UsageError, match="was made by 'ovs-curate a'"):
        CuratedWriter.resume(io.BytesIO(WHOLE[:-9]), other, "x")


def parts(folder: Path, count: int, header: CuratedHeader = HEADER) -> list[str]:
    for k in range(count):
        (folder / f"{k}.jsonl").write_bytes(stream_of(PAIRS[k::count], replace(header, shard=Shard(k, count))))
    return [str(folder / f"{k}.jsonl") for k in range(count)]


@pytest.mark.parametrize("count", [2, 4])
def test_parts_join_to_the_whole_in_any_order(tmp_path: Path, count: int) -> None:
    files = parts(tmp_path, count)
    for names in (files, files[::-1]):
        with CuratedInputs(names) as joined:
            assert stream_of(list(joined.pairs()), joined.header) == WHOLE


def test_what_is_not_a_whole_of_one_run_is_refused(tmp_path: Path) -> None:
    files = parts(tmp_path, 4)
    with pytest.raises(InputError, match="3/4 is missing"):
        CuratedInputs(files[:3])
    (tmp_path / "other.jsonl").write_bytes(stream_of(PAIRS, replace(HEADER, vocabulary={"hash": "i", "size": 3})))
    with pytest.raises(InputError, match="another vocabulary"):
        CuratedInputs([*files, str(tmp_path / "other.jsonl")])
    (tmp_path / "whole.jsonl").write_bytes(WHOLE)
    with pytest.raises(InputError, match=r"pair k/1 \(1\) is in .* and in "), CuratedInputs([str(tmp_path / "whole.jsonl")] * 2) as twice:
        list(twice.pairs())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"id":1}\n', "not a line of a curated stream"),
        (b"nonsense\n", "not valid JSON"),
        (PAIRS[1].to_line().replace(b'"seen":[0,1]', b'"seen":[7]'), "a neighbour that is not listed"),
        (PAIRS[0].to_line(), "ids must rise"),
        (b'{"end":5}\n', "says that there are 5 pairs, and there are 8"),
        (b'{"end":8}\n{"end":8}\n', "more after the end"),
    ],
)
def test_lines_that_do_not_fit(line: bytes, said: str) -> None:
    data = WHOLE.removesuffix(b'{"end":8}\n') + line + b'{"end":9}\n'
    with pytest.raises(InputError, match=said):
        list(open_curated(io.BytesIO(data), "x")[1])


@pytest.mark.parametrize("first", [b"", b"\n", b"[]\n", b'{"format":"ovskit.masks/1"}\n', b'{"format":"ovskit.curated/1"}\n', b"\xff\n"])
def test_other_files_are_refused(first: bytes) -> None:
    with pytest.raises(InputError, match=r"x is not a curated stream|x: its header is incomplete"):
        open_curated(io.BytesIO(first), "x")
