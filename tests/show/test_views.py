"""Views against the partitions that the masks were recorded from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from ovskit.core.records import MaskSet
from ovskit.core.runtime.errors import InputError
from ovskit.core.show.views import larger_first, legible_view, most_legible, order_by_area, runs_in_order, view_of, views

from .conftest import build_masks

THETAS = (0.6, 0.4, 0.2)


def dense_of(masks: MaskSet) -> list[np.ndarray]:
    return [coco_mask.decode({"size": [m.rle.height, m.rle.width], "counts": m.rle.counts}).astype(bool) for m in masks.masks]


@st.composite
def nested_pools(draw: st.DrawFn) -> tuple[MaskSet, list[np.ndarray]]:
    """Partitions of a small image, each coarser than the one before, and the pool of their distinct regions."""
    shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    labels = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 9)))
    partitions = [labels]
    for _ in THETAS[1:]:
        merge = draw(hnp.arrays(np.int64, 10, elements=st.integers(0, 9)))
        partitions.append(merge[partitions[-1]])
    regions: dict[bytes, tuple[np.ndarray, float]] = {}
    for theta, partition in zip(THETAS, partitions, strict=True):
        for label in np.unique(partition):
            regions.setdefault((partition == label).tobytes(), (partition == label, theta))
    order = draw(st.permutations(list(regions.values())))
    return build_masks([d for d, _ in order], size=shape, extras=[{"threshold": t} for _, t in order]), partitions


@settings(deadline=None, max_examples=150)
@given(nested_pools())
def test_a_threshold_shows_the_partition_recorded_there(pool: tuple[MaskSet, list[np.ndarray]]) -> None:
    masks, partitions = pool
    for theta, partition in zip(THETAS, partitions, strict=True):
        expected = {(partition == label).tobytes() for label in np.unique(partition)}
        assert {d.tobytes() for d in dense_of(view_of(masks, "threshold", theta))} == expected


def test_views_name_levels_finer_first_and_match_view_of(three_masks: tuple[MaskSet, np.ndarray]) -> None:
    masks, _ = three_masks
    ordered = larger_first(masks)
    found = views(ordered, runs_in_order(masks, order_by_area(masks)))
    assert [(v.key, v.value) for v in found] == [("threshold", 0.6), ("threshold", 0.3)]
    assert [[ordered[k].id for k in v.members] for v in found] == [[3, 1], [2, 3]]
    for view in found:
        assert tuple(ordered[k] for k in view.members) == view_of(masks, view.key, view.value).masks


def test_depth_follows_parents_and_survives_cycles_and_orphans() -> None:
    dense = [np.ones((2, 2), bool)] * 6
    masks = build_masks(dense, size=(2, 2), parent_id=[None, 1, 2, 99, 6, 5])
    ids = lambda value: [m.id for m in view_of(masks, "depth", value).masks]  # noqa: E731
    assert ids(0) == [1, 4]
    assert ids(1) == [2, 5, 6]
    assert ids(2) == [3]


def test_levels_are_taken_as_given_and_other_types_ignored() -> None:
    dense = [np.ones((2, 2), bool)] * 5
    masks = build_masks(dense, size=(2, 2), extras=[{"level": 1}, {"level": 2}, {"level": "2"}, {"level": True}, {"level": float("nan")}])
    ordered = larger_first(masks)
    assert [(v.value, v.members) for v in views(ordered, runs_in_order(masks, order_by_area(masks)))] == [(1, (0,)), (2, (1,))]


def test_a_value_per_mask_is_no_level() -> None:
    dense = [np.ones((2, 2), bool)] * 40
    masks = build_masks(dense, size=(2, 2), extras=[{"threshold": k / 40} for k in range(40)])
    ordered = larger_first(masks)
    assert views(ordered, runs_in_order(masks, order_by_area(masks))) == []


def test_the_legible_view_has_about_sixteen_masks() -> None:
    dense, extras = [], []
    for cells, theta in ((8, 0.6), (4, 0.4), (1, 0.2)):
        for k in range(cells * cells):
            pixels = np.zeros((16, 16), bool)
            side = 16 // cells
            row, column = divmod(k, cells)
            pixels[row * side : (row + 1) * side, column * side : (column + 1) * side] = True
            dense.append(pixels)
            extras.append({"threshold": theta})
    masks = build_masks(dense, size=(16, 16), extras=extras)
    assert {m.extra["threshold"] for m in legible_view(masks).masks} == {0.4}
    few = MaskSet(masks.image, masks.masks[:5])
    assert len(legible_view(few).masks) == 5
    assert legible_view(MaskSet(masks.image, ())).masks == ()


def test_masks_of_another_size_are_refused(mask_set: Callable[..., MaskSet]) -> None:
    masks = mask_set([np.ones((2, 3), bool)], size=(2, 3))
    other = mask_set([], size=(3, 2)).image
    with pytest.raises(InputError, match="2×3.*3×2"):
        legible_view(MaskSet(other, masks.masks))


def test_level_is_depth_where_no_mask_says_its_level() -> None:
    dense = [np.ones((2, 2), bool)] * 3
    masks = build_masks(dense, size=(2, 2), parent_id=[None, 1, 2])
    assert [[m.id for m in view_of(masks, "level", value).masks] for value in (0, 1, 2)] == [[1], [2], [3]]
    given = build_masks(dense, size=(2, 2), parent_id=[None, 1, 2], extras=[{"level": 2}, {}, {"level": 0}])
    assert [[m.id for m in view_of(given, "level", value).masks] for value in (0, 1, 2)] == [[3], [], [1]]


def test_level_and_depth_are_one_view_where_they_agree() -> None:
    dense = [np.ones((2, 2), bool)] * 3
    for levels, keys in (((0, 1, 1), {"depth"}), ((1, 2, 2), {"level", "depth"})):
        masks = build_masks(dense, size=(2, 2), parent_id=[None, 1, 1], extras=[{"level": level} for level in levels])
        ordered = larger_first(masks)
        assert {view.key for view in views(ordered, runs_in_order(masks, order_by_area(masks)))} == keys


def test_what_covers_the_image_is_shown_before_what_is_deep_in_a_tree() -> None:
    specks = [("depth", 0.0, 3), ("depth", 1.0, 40), ("depth", 5.0, 16)]
    assert most_legible([("threshold", 0.6, 90), ("threshold", 0.2, 25), *specks], 200) == ("threshold", 0.2)
    assert most_legible(specks, 200) == ("depth", 1.0)
    assert most_legible([("level", 4.0, 90), ("level", 5.0, 15)], 200) == ("level", 5.0)
    assert most_legible(specks, 20) is None
