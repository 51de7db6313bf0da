"""Tables of runs: read mask by mask, made at once and sliced, all alike, and dense masks say the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.masks import rle
from ovskit.core.masks.boxes import decode_box
from ovskit.core.masks.overlap import iou_of_each
from ovskit.core.masks.runs import RunReader, chosen, measure, run_table, table_of
from ovskit.core.records import Image, Mask, MaskSet, Rle, RunTable
from ovskit.core.runtime.errors import InputError

SIZE = (13, 17)


def dense_masks(seed: int, number: int) -> list[np.ndarray]:
    """Noise of every density, empty and full ones among it."""
    random = np.random.default_rng(seed)
    return [random.random(SIZE) < random.choice([0.0, 0.1, 0.5, 0.95, 1.0]) for _ in range(number)]


def same(a: RunTable, b: RunTable) -> bool:
    arrays = ("starts", "ends", "offsets", "areas", "bboxes")
    alike = all(np.array_equal(getattr(a, name), getattr(b, name)) and getattr(a, name).dtype == getattr(b, name).dtype for name in arrays)
    return alike and (a.height, a.width) == (b.height, b.width)


def shows(table: RunTable, masks: Sequence[np.ndarray]) -> bool:
    whole = (0, 0, *SIZE)
    return len(table) == len(masks) and all(np.array_equal(decode_box(table, k, whole), mask) for k, mask in enumerate(masks))


@settings(deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 150), min_size=1, max_size=4))
def test_what_is_read_mask_by_mask_is_what_is_made_at_once(seed: int, lots: list[int]) -> None:
    reader = RunReader()
    masks = dense_masks(seed, sum(lots) + 1)
    texts = [rle.encode(mask) for mask in masks]
    measured = [reader.add(one.height, one.width, one.counts) for one in texts]
    assert [each.rle for each in measured] == texts
    assert [each.area for each in measured] == [int(mask.sum()) for mask in masks]
    assert [each.bbox for each in measured] == [rle.bbox(one) for one in texts]
    first = 0
    for lot in lots:
        found = reader.take(lot)
        assert len(reader) == len(masks) - first - lot
        assert same(found, run_table(texts[first : first + lot]))
        assert shows(found, masks[first : first + lot])
        first += lot
    assert shows(reader.take(1), masks[first:])


@given(st.integers(0, 10**6), st.data())
def test_chosen_masks(seed: int, data: st.DataObject) -> None:
    masks = dense_masks(seed, 8)
    table = run_table([rle.encode(mask) for mask in masks])
    which = data.draw(st.lists(st.integers(0, 7), max_size=12))
    assert shows(chosen(table, which), [masks[k] for k in which])
    flags = np.array(data.draw(st.lists(st.booleans(), min_size=8, max_size=8)))
    places = np.flatnonzero(flags)
    assert same(chosen(table, flags), chosen(table, places))
    assert shows(chosen(table, places), [masks[k] for k in places])


@pytest.mark.parametrize(
    "counts", [[5, 216], [0, 0, 221], [3, 0, 2, 1, 215], "5\x80", b"5", b"5m0", [5], [-1, 222], [], "", b"P7", [1 << 33]]
)
def test_it_accepts_and_refuses_what_validate_does(counts: str | bytes | list[int]) -> None:
    reader = RunReader()

    def outcome(check: Callable[[], Rle]) -> Rle | str:
        try:
            return check()
        except InputError as error:
            return str(error)

    expected, found = outcome(lambda: rle.validate(*SIZE, counts)), outcome(lambda: reader.add(*SIZE, counts).rle)
    assert found == expected
    assert len(reader) == isinstance(expected, Rle)


def test_a_padded_text_is_made_canonical() -> None:
    assert RunReader().add(1, 4, b"11R0").rle == rle.from_runs(1, 4, [1, 1, 2])  # R0 is 2 with a character too many
    assert rle.from_runs(1, 4, [1, 1, 2]).counts == b"112"


def test_a_mask_that_is_refused_leaves_no_trace() -> None:
    good = [rle.encode(mask) for mask in dense_masks(3, 5)]
    short = rle.encode(np.eye(9, dtype=bool)).counts
    reader = RunReader()
    for one in good:
        reader.add(*SIZE, one.counts)
        with pytest.raises(InputError, match="the runs cover fewer pixels"):
            reader.add(*SIZE, short)
    assert same(reader.take(5), run_table(good))


def test_masks_of_two_sizes_make_no_table() -> None:
    reader = RunReader()
    reader.add(2, 3, [6])
    reader.add(3, 2, [6])
    with pytest.raises(InputError, match="mask 0 is 3x2 and mask 1 is 2x3"):
        reader.take(2)


def test_a_set_gives_its_own_runs_or_makes_them() -> None:
    masks = tuple(Mask(k + 1, 1, *measure(*SIZE, rle.encode(mask).counts)) for k, mask in enumerate(dense_masks(1, 4)))
    image = Image(1, "a.png", SIZE[1], SIZE[0])
    bare = MaskSet(image, masks)
    table = table_of(bare)
    assert table.areas.tolist() == [mask.area for mask in masks]
    with_runs = MaskSet(image, masks, table)
    assert table_of(with_runs) is table
    assert with_runs == bare
    with pytest.raises(ValueError, match="runs of 4 masks for a set of 3"):
        MaskSet(image, masks[:3], table)


def test_iou_one_by_one() -> None:
    first, second = dense_masks(5, 30), dense_masks(6, 30)
    found = iou_of_each(*(run_table([rle.encode(mask) for mask in masks]) for masks in (first, second)))
    expected = [(a & b).sum() / max(1, (a | b).sum()) for a, b in zip(first, second, strict=True)]
    assert found.tolist() == expected
    with pytest.raises(ValueError, match="not pairs"):
        iou_of_each(run_table([]), run_table([rle.encode(first[0])]))
