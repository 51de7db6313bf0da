"""Run-length masks against pycocotools and against NumPy on dense masks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pycocotools.mask as coco
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ovskit.core.masks import rle as rlelib
from ovskit.core.masks.coverage import coverage
from ovskit.core.masks.overlap import intersections, iou
from ovskit.core.masks.runs import run_table
from ovskit.core.records import Rle
from ovskit.core.runtime.errors import InputError

Mask = npt.NDArray[np.uint8]

SETTINGS = settings(deadline=None, max_examples=100)
sizes = st.tuples(st.integers(1, 20), st.integers(1, 20))


@st.composite
def masks(draw: st.DrawFn, size: tuple[int, int] | None = None) -> Mask:
    """Noise, boxes, and unions of both: short runs, long ones, and runs that go round column ends."""
    height, width = size or draw(sizes)
    noise = draw(hnp.arrays(np.uint8, (height, width), elements=st.integers(0, 1), fill=st.just(draw(st.integers(0, 1)))))
    y0, y1 = sorted(draw(st.tuples(st.integers(0, height), st.integers(0, height))))
    x0, x1 = sorted(draw(st.tuples(st.integers(0, width), st.integers(0, width))))
    noise[y0:y1, x0:x1] = draw(st.integers(0, 1))
    return noise


@st.composite
def mask_lists(draw: st.DrawFn, low: int = 0, lists: int = 1) -> list[list[Mask]]:
    size = draw(sizes)
    return [draw(st.lists(masks(size), min_size=low, max_size=6)) for _ in range(lists)]


def reference(mask: Mask) -> dict[str, Any]:
    return coco.encode(np.asfortranarray(mask))


def as_coco(rle: Rle) -> dict[str, Any]:
    return {"size": [rle.height, rle.width], "counts": rle.counts}


def run_lengths(mask: Mask) -> list[int]:
    """Column-major runs, the slow way."""
    flat = mask.T.reshape(-1).tolist()
    lengths = [(value, len(list(group))) for value, group in itertools.groupby(flat)]
    return ([0] if lengths[0][0] else []) + [length for _, length in lengths]


def blob(rng: np.random.Generator, height: int, width: int) -> Mask:
    y, x = np.mgrid[:height, :width]
    angle = np.arctan2(y - rng.uniform(0, height), x - rng.uniform(0, width))
    radius = rng.uniform(5, min(height, width) / 2) * (1 + 0.3 * np.sin(angle * rng.integers(2, 9) + rng.uniform(0, 6)))
    return (np.hypot(y - rng.uniform(0, height), x - rng.uniform(0, width)) < radius).astype(np.uint8)


@SETTINGS
@given(masks())
def test_one_mask_equals_pycocotools(mask: Mask) -> None:
    expected = reference(mask)
    rle = rlelib.encode(mask)
    assert rle == Rle(*mask.shape, expected["counts"])
    assert rlelib.runs(rle).tolist() == run_lengths(mask)
    assert rlelib.runs(rle).dtype == np.uint32
    assert np.array_equal(rlelib.decode(rle), mask)
    assert np.array_equal(rlelib.decode(rle), coco.decode(expected))
    assert rlelib.area(rle) == coco.area(expected) == mask.sum()
    assert rlelib.bbox(rle) == tuple(coco.toBbox(expected).tolist())
    assert rlelib.from_runs(*mask.shape, run_lengths(mask)) == rle
    for counts in (rle.counts, rle.counts.decode(), run_lengths(mask)):
        assert rlelib.validate(*mask.shape, counts) == rle


@pytest.mark.parametrize("seed", range(6))
def test_large_masks_equal_pycocotools(seed: int) -> None:
    """Sizes at which encoding skips blocks of pixels, and numbers take several characters."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(100, 700, 2)
    for mask in (
        blob(rng, height, width),
        (rng.random((height, width)) < 0.5).astype(np.uint8),
        (rng.random((height, width)) < 0.0005).astype(np.uint8),
        np.ones((height, width), np.uint8),
        np.zeros((height, width), np.uint8),
    ):
        expected = reference(mask)
        rle = rlelib.encode(mask)
        assert rle.counts == expected["counts"]
        assert np.array_equal(rlelib.decode(rle), mask)
        assert rlelib.bbox(rle) == tuple(coco.toBbox(expected).tolist())
        assert rlelib.validate(int(height), int(width), run_lengths(mask)) == rle


@SETTINGS
@given(masks(), st.integers(0, 2**32))
def test_encode_reads_any_layout_and_any_value(mask: Mask, seed: int) -> None:
    expected = reference(mask)["counts"]
    values = mask * np.random.default_rng(seed).integers(1, 256, mask.shape, dtype=np.uint8)
    apart = np.zeros((mask.shape[0] * 2, mask.shape[1] * 3), np.uint8)
    apart[::2, ::3] = values
    flipped = np.ascontiguousarray(values[::-1, ::-1])[::-1, ::-1]
    for layout in (values, np.asfortranarray(values), apart[::2, ::3], flipped, mask.astype(bool), np.asfortranarray(mask.astype(bool))):
        assert rlelib.encode(layout).counts == expected


@SETTINGS
@given(mask_lists(low=1))
def test_merge_equals_pycocotools(lists: list[list[Mask]]) -> None:
    rles = [rlelib.encode(mask) for mask in lists[0]]
    theirs = [as_coco(rle) for rle in rles]
    assert rlelib.union(rles).counts == coco.merge(theirs)["counts"] == rlelib.encode(np.any(lists[0], axis=0)).counts
    both = rlelib.intersection(rles)
    assert both.counts == coco.merge(theirs, intersect=True)["counts"] == rlelib.encode(np.all(lists[0], axis=0)).counts
    assert (both.height, both.width) == lists[0][0].shape


@SETTINGS
@given(mask_lists(lists=2), st.integers(0, 2**6 - 1))
def test_pairs_equal_pycocotools(lists: list[list[Mask]], bits: int) -> None:
    first, second = ([rlelib.encode(mask) for mask in part] for part in lists)
    a, b = run_table(first), run_table(second)
    crowd = [bits >> j & 1 for j in range(len(b))]
    dense = np.array([[int((x & y).sum()) for y in lists[1]] for x in lists[0]], np.int64).reshape(len(a), len(b))
    assert np.array_equal(intersections(a, b), dense)
    assert np.array_equal(intersections(a, a), intersections(a, run_table(first)))
    for ours, flags in ((iou(a, b), [0] * len(b)), (iou(a, b, crowd), crowd), (coverage(a, b), [1] * len(b))):
        assert ours.shape == (len(a), len(b))
        if ours.size:
            assert np.array_equal(ours, coco.iou([as_coco(r) for r in first], [as_coco(r) for r in second], flags))


@SETTINGS
@given(mask_lists())
def test_table_measures_like_single_masks(lists: list[list[Mask]]) -> None:
    rles = [rlelib.encode(mask) for mask in lists[0]]
    table = run_table(rles)
    assert len(table) == len(rles)
    assert table.areas.tolist() == [int(mask.sum()) for mask in lists[0]]
    assert [tuple(box) for box in table.bboxes.tolist()] == [rlelib.bbox(rle) for rle in rles]
    for k, mask in enumerate(lists[0]):
        inside = np.zeros(mask.size, np.uint8)
        for start, end in zip(*(part[table.offsets[k] : table.offsets[k + 1]] for part in (table.starts, table.ends)), strict=True):
            inside[start:end] = 1
        assert np.array_equal(inside.reshape(mask.shape[::-1]).T, mask)


def test_blobs_pairwise_equal_pycocotools() -> None:
    rng = np.random.default_rng(7)
    rles = [rlelib.encode(blob(rng, 240, 320)) for _ in range(40)]
    table, theirs = run_table(rles), [as_coco(rle) for rle in rles]
    assert np.array_equal(iou(table, table), coco.iou(theirs, theirs, [0] * 40))
    assert np.array_equal(coverage(table, table), coco.iou(theirs, theirs, [1] * 40))
    assert rlelib.union(rles).counts == coco.merge(theirs)["counts"]
    assert rlelib.intersection(rles[:3]).counts == coco.merge(theirs[:3], intersect=True)["counts"]


@SETTINGS
@given(masks(), st.data())
def test_validate_canonicalises(mask: Mask, data: st.DataObject) -> None:
    """Zero runs anywhere and numbers with needless groups are read, and leave no trace."""
    lengths = run_lengths(mask)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(lengths) - 1))
        cut = data.draw(st.integers(0, lengths[at]))
        lengths[at : at + 1] = [cut, 0, lengths[at] - cut]
    expected = rlelib.encode(mask)
    padding = data.draw(st.integers(0, 3))
    assert rlelib.validate(*mask.shape, lengths) == expected
    assert rlelib.validate(*mask.shape, np.array(lengths, np.int32)) == expected
    text = number_text(lengths, padding)
    assert rlelib.validate(*mask.shape, text) == expected
    assert rlelib.runs(Rle(*mask.shape, text)).tolist() == run_lengths(mask)


def number_text(lengths: Sequence[int], padding: int) -> bytes:
    """COCO's text of run lengths with ``padding`` more groups of 5 bits to a number than it needs."""
    out = bytearray()
    for i, length in enumerate(lengths):
        value = length - lengths[i - 2] if i > 2 else length
        groups = 1
        while not -(1 << 5 * groups - 1) <= value < 1 << 5 * groups - 1:
            groups += 1
        groups += padding
        out += bytes(48 + (value >> 5 * g & 31 | (32 if g < groups - 1 else 0)) for g in range(groups))
    return bytes(out)


def test_number_text_is_cocos() -> None:
    """The oracle above is itself checked."""
    mask = blob(np.random.default_rng(3), 300, 200)
    assert number_text(run_lengths(mask), 0) == reference(mask)["counts"]


@settings(deadline=None, max_examples=250)
@given(masks(), st.data())
def test_mutated_text_is_refused_or_a_mask(mask: Mask, data: st.DataObject) -> None:
    text = bytearray(rlelib.encode(mask).counts)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        part = data.draw(st.binary(max_size=3) | st.binary(max_size=9).map(lambda b: bytes(48 + c % 64 for c in b)))
        text[at : at + data.draw(st.integers(0, 2))] = part
    height, width = mask.shape
    damaged = bytes(text)
    try:
        rle = rlelib.validate(height, width, damaged)
    except InputError:
        for use in (rlelib.runs, rlelib.decode, rlelib.area, rlelib.bbox):
            with pytest.raises(InputError):
                use(Rle(height, width, damaged))
        with pytest.raises(InputError, match="mask 1: "):
            run_table([rlelib.encode(mask), Rle(height, width, damaged)])
        return
    lengths = rlelib.runs(rle)
    assert lengths.sum() == height * width
    assert (lengths[1:] > 0).all()
    assert rlelib.decode(rle).sum() == rlelib.area(rle) == coco.area(as_coco(rle))
    assert rlelib.encode(rlelib.decode(rle)) == rle == rlelib.validate(height, width, rle.counts)


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 6), st.integers(1, 6), st.binary(max_size=40) | st.text(max_size=20) | st.lists(st.integers(), max_size=8))
def test_arbitrary_counts_are_refused_or_a_mask(height: int, width: int, counts: bytes | str | list[int]) -> None:
    try:
        rle = rlelib.validate(height, width, counts)
    except InputError:
        return
    assert rlelib.runs(rle).sum() == height * width


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (b"", "fewer pixels"),
        (b"P", "end inside a number"),
        (b"<\x00", "character 1 .* not one of the format"),
        (b"<~", "character 1 .* not one of the format"),
        ("<é", "character 1 .* not one of the format"),
        (b"O", "negative"),  # -1
        (b"111N", "position 3 .* negative"),  # the fourth is a difference: 1 - 2
        (b"=", "more pixels"),
        (b";", "fewer pixels"),
        (b"P" * 40 + b"0", "too large"),
        (b"oooooooooooo0", "too large"),
        ([4, -1, 9], "position 1 .* negative"),
        ([2**32 + 12], "more pixels"),
        ([2**31, 2**31, 12], "more pixels"),
        (np.array([2**63, 12], np.uint64), "longer"),
        ([2**70], "longer"),
        ([-(2**70)], "longer"),
        (np.array([12.0]), "integers"),
        (np.array([[12]]), "integers"),
        ([6, 6.5], "integers"),
        ({12: 12}, "integers"),
        ([6, 5], "fewer pixels"),
        ([], "fewer pixels"),
        ([12.0], "integers"),
        (["12"], "integers"),
        ([[6], [3, 3]], "integers"),
        ([[6, 6]], "integers"),
        (None, "integers"),
        ({"a": 1}, "integers"),
        (12, "integers"),
    ],
)
def test_malformed_counts(counts: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        rlelib.validate(3, 4, counts)
    assert "4x3" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_character_more_than_a_mask_has() -> None:
    """The strings above are near misses of this one."""
    assert rlelib.validate(3, 4, b"<") == Rle(3, 4, b"<")


def test_a_number_of_eleven_padded_groups_is_read_and_of_thirteen_refused() -> None:
    assert rlelib.validate(3, 4, number_text([12], 10)) == Rle(3, 4, b"<")
    with pytest.raises(InputError, match="too large"):
        rlelib.validate(3, 4, number_text([12], 12))


@pytest.mark.parametrize("size", [(0, 4), (-3, 4), (3, 0), (True, 4), (3.0, 4), ("3", 4), (None, 4), (2**16, 2**16), (2**40, 2**40)])
def test_impossible_sizes(size: tuple[Any, Any]) -> None:
    with pytest.raises(InputError, match=r"size|larger"):
        rlelib.validate(*size, b"<")
    with pytest.raises(InputError, match=r"size|larger"):
        rlelib.from_runs(*size, [12])
    for use in (rlelib.decode, rlelib.area, rlelib.bbox):
        with pytest.raises(InputError, match=r"size|larger"):
            use(Rle(*size, b"<"))


def test_the_largest_mask() -> None:
    """Runs that need all 32 bits, never decoded; expected numbers by hand."""
    height = width = 2**16 - 1
    total = height * width
    rle = rlelib.validate(height, width, [0, total - 1, 1])
    assert rlelib.area(rle) == total - 1
    assert rlelib.runs(rle).tolist() == [0, total - 1, 1]
    assert rlelib.bbox(rle) == (0, 0, width, height)
    far = rlelib.from_runs(height, width, [total - 1, 1])
    assert rlelib.bbox(far) == (width - 1, height - 1, 1, 1)
    assert rlelib.area(rlelib.union([rle, far])) == total
    table = run_table([rle, far])
    assert intersections(table, table).tolist() == [[total - 1, 0], [0, 1]]
    jump = rlelib.from_runs(height, width, [5, 1, total // 2, 1, total - total // 2 - 7])
    assert rlelib.bbox(jump) == (
        0,
        min(5, (total // 2 + 6) % height),
        (total // 2 + 6) // height + 1,
        1 + abs((total // 2 + 6) % height - 5),
    )
    assert coco.toBbox(as_coco(jump)).tolist() == list(rlelib.bbox(jump))


def test_sizes_that_differ_are_named() -> None:
    small, large = rlelib.encode(np.ones((3, 4), bool)), rlelib.encode(np.ones((4, 3), bool))
    for merge in (rlelib.union, rlelib.intersection, run_table):
        with pytest.raises(InputError, match=r"4x3 .* mask 1 is 3x4"):
            merge([small, large])
    for compare in (intersections, iou, coverage):
        with pytest.raises(InputError, match=r"4x3 .* 3x4"):
            compare(run_table([small]), run_table([large]))
        assert compare(run_table([]), run_table([large])).shape == (0, 1)


def test_nothing_to_merge() -> None:
    for merge in (rlelib.union, rlelib.intersection):
        with pytest.raises(InputError, match="empty list"):
            merge([])


def test_iscrowd_of_another_length() -> None:
    table = run_table([rlelib.encode(np.ones((3, 4), bool))])
    with pytest.raises(InputError, match="each of the 1 masks"):
        iou(table, table, [0, 1])


@pytest.mark.parametrize("mask", [np.ones((2, 3, 1), bool), np.ones(3, np.uint8), np.ones((2, 2), np.float32), np.ones((0, 3), bool)])
def test_encode_refuses_what_is_no_mask(mask: Any) -> None:
    with pytest.raises(InputError, match=r"2-D array|positive"):
        rlelib.encode(mask)
