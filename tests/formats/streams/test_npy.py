"""Arrays as .npy: the same bytes as numpy's, and nothing but plain arrays read."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ovskit.core.formats.streams.npy import npy_chunks, parse_npy
from ovskit.core.runtime.errors import InputError

DTYPES = ["<f2", "<f4", "<f8", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8"]


@given(st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4))))
@settings(deadline=None, max_examples=150)
def test_npy_both_ways_with_numpy(array: np.ndarray[Any, Any]) -> None:
    header, body = npy_chunks(array)
    ours = header + bytes(body)
    np.testing.assert_array_equal(np.load(io.BytesIO(ours), allow_pickle=False), array, strict=True)
    theirs = io.BytesIO()
    np.save(theirs, array)
    for data in (ours, theirs.getvalue()):
        np.testing.assert_array_equal(parse_npy(data, "a"), array, strict=True)


def test_npy_copies_nothing_and_stays_writable() -> None:
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    header, body = npy_chunks(array)
    assert np.shares_memory(np.frombuffer(body, "u1"), array)
    buffer = bytearray(header + bytes(body))
    parsed = parse_npy(buffer, "a")
    parsed[1, 2] = 70
    assert np.shares_memory(parsed, np.frombuffer(buffer, "u1"))
    assert parsed.flags.writeable


def test_npy_of_a_transposed_array() -> None:
    array = np.arange(6, dtype="<f4").reshape(2, 3).T
    np.testing.assert_array_equal(parse_npy(b"".join(npy_chunks(array)), "a"), array, strict=True)


@pytest.mark.parametrize("dtype", [">f4", object, bool, "<c8", "<U3", "M8[s]", [("a", "<f4")]])
def test_npy_refuses_to_write_other_dtypes(dtype: Any) -> None:
    with pytest.raises(ValueError, match="not a dtype"):
        npy_chunks(np.zeros(3, dtype))


def saved(array: Any, save: Callable[..., None] = np.save) -> bytes:
    out = io.BytesIO()
    save(out, array)
    return out.getvalue()


def header(text: str, body: bytes = b"") -> bytes:
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode() + body


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (saved(np.array([{}], object)), "never unpickled"),
        (saved(np.zeros(3, ">f4")), "has dtype '>f4'"),
        (saved(np.zeros(3, bool)), "has dtype '|b1'"),
        (saved(np.zeros(3, [("a", "<f4")])), "has dtype"),
        (saved(np.asfortranarray(np.zeros((2, 3)))), "Fortran"),
        (saved(np.zeros(3))[:-1], "23 bytes of data"),
        (saved(np.zeros(3)) + b"0", "25 bytes of data"),
        (saved(np.zeros(3), lambda out, a: np.lib.format.write_array(out, a, (2, 0))), "format 1.0"),
        (b"", "format 1.0"),
        (b"\x93NUMPY\1\0", "format 1.0"),
        (saved(np.zeros(3))[:50], "header"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"), "header"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }"), "header"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999999999,), }"), "impossible shape"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4611686018427387904, 8), }"), "impossible shape"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }" % ("1, " * 40)), "impossible shape"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os').abort(),), }"), "header"),
        (header("{'descr': 'a\nb', 'fortran_order': False, 'shape': (), }"), "has dtype"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), } "), "0 bytes of data"),
    ],
)
def test_npy_that_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_npy(data, "in.npz: x/patch.npy")
    assert words in str(caught.value)
    assert "in.npz: x/patch.npy" in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_npy_with_changed_header_bytes(data: st.DataObject) -> None:
    buffer = bytearray(b"".join(npy_chunks(np.arange(12, dtype="<f2").reshape(3, 4))))
    for _ in range(data.draw(st.integers(1, 4))):
        buffer[data.draw(st.integers(0, 127))] = data.draw(st.integers(0, 255))
    try:
        array = parse_npy(buffer, "a")
    except InputError:
        return
    assert array.nbytes == 24
    assert array.dtype.str in DTYPES
