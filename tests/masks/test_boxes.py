"""Boxes of masks against dense slices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.masks import rle
from ovskit.core.masks.boxes import box_around, decode_box, encode_box
from ovskit.core.masks.runs import run_table
from ovskit.core.runtime.errors import InputError


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_box_decoded_and_encoded_again(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    random = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    masks = (random.random((3, height, width)) < data.draw(st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0]))).astype(np.uint8)
    top, bottom = sorted((data.draw(st.integers(0, height)), data.draw(st.integers(0, height))))
    left, right = sorted((data.draw(st.integers(0, width)), data.draw(st.integers(0, width))))
    box = (top, left, bottom, right)
    table = run_table([rle.encode(m) for m in masks])
    for k, dense in enumerate(masks):
        piece = decode_box(table, k, box)
        np.testing.assert_array_equal(piece, dense[top:bottom, left:right])
        only = np.zeros_like(dense)
        only[top:bottom, left:right] = piece
        for laid in (piece, piece.astype(bool), np.asfortranarray(piece), piece * 7):
            assert encode_box(laid, box, height, width) == rle.encode(only)


def test_the_box_around_a_mask() -> None:
    dense = np.zeros((20, 30), np.uint8)
    dense[5:9, 10:12] = 1
    table = run_table([rle.encode(dense), rle.encode(np.zeros_like(dense))])
    assert box_around(table, 0, 0) == (5, 10, 9, 12)
    assert box_around(table, 0, 3) == (2, 7, 12, 15)
    assert box_around(table, 0, 100) == (0, 0, 20, 30)
    assert box_around(table, 1, 100) == (0, 0, 0, 0)
    assert decode_box(table, 1, (0, 0, 0, 0)).shape == (0, 0)
    assert encode_box(np.zeros((0, 0), np.uint8), (0, 0, 0, 0), 20, 30) == rle.encode(np.zeros_like(dense))


@pytest.mark.parametrize(
    ("pixels", "box"),
    [
        (np.ones((2, 2), np.uint8), (0, 0, 2, 3)),
        (np.ones((2, 2), np.uint8), (-1, 0, 1, 2)),
        (np.ones((2, 2), np.uint8), (4, 0, 6, 2)),
        (np.ones((2, 2), np.float32), (0, 0, 2, 2)),
    ],
)
def test_what_does_not_fit_is_refused(pixels: np.ndarray, box: tuple[int, int, int, int]) -> None:
    with pytest.raises(InputError, match="cannot lay"):
        encode_box(pixels, box, 5, 5)
