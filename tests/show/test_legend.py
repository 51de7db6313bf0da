"""Semantic maps over a photograph against a slow loop, the legend below them, and sheets of them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as Pillow

from ovskit.core.formats.labels.named_maps import masks_of_map
from ovskit.core.records import Image, LabelMap, MaskSet
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.show.agreement import Agreement
from ovskit.core.show.categories import Categories, Category, category_map
from ovskit.core.show.colours import category_colours
from ovskit.core.show.legend import category_overlay, legend_height, legend_of, legend_strip, with_legend
from ovskit.core.show.scene import Column, Scene, TruthColumn
from ovskit.core.show.sheet import SheetColumn, write_sheet
from ovskit.core.show.truth_matches import judge

from .conftest import build_masks

NAMES = Column("a", [{"id": 0, "name": "background"}, {"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}], by_category=True)


def set_of(labels: np.ndarray, name: str = "a.png") -> MaskSet:
    labels = np.asarray(labels, np.int32)
    return masks_of_map(LabelMap(Image(1, name, labels.shape[1], labels.shape[0]), labels))


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(-1, 2)), st.floats(0, 1))
def test_pixels_take_the_colour_of_their_category(labels: np.ndarray, opacity: float) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
    before = image.copy()
    shown = category_map(set_of(labels), NAMES, Categories([NAMES]))
    drawn = category_overlay(image, shown, opacity=opacity, outlines=False)
    colours = {0: (128, 128, 128), 1: category_colours()[0], 2: category_colours()[1]}
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            number = int(labels[y, x])
            share = 0 if number < 0 else opacity / 4 if number == 0 else opacity
            expected = image[y, x] * (1 - share) + np.array(colours.get(number, (0, 0, 0))) * share
            assert np.abs(drawn[y, x] - expected).max() <= 0.51
    assert np.array_equal(image, before)


def test_no_line_runs_between_masks_of_one_category() -> None:
    boxes = [np.zeros((12, 30), bool) for _ in range(3)]
    boxes[0][:, :10], boxes[1][:, 10:20], boxes[2][:, 20:] = True, True, True
    masks = build_masks(boxes, size=(12, 30), category_id=[1, 1, 2])
    image = np.full((12, 30, 3), 90, np.uint8)
    shown = category_map(masks, NAMES, Categories([NAMES]))
    changed = (category_overlay(image, shown) != category_overlay(image, shown, outlines=False)).any(axis=(0, 2))
    assert not changed[:18].any()
    assert changed[19:21].all()


def test_what_is_refused() -> None:
    shown = category_map(set_of(np.zeros((4, 6))), NAMES, Categories([NAMES]))
    with pytest.raises(InputError, match="6×4"):
        category_overlay(np.zeros((4, 7, 3), np.uint8), shown)
    with pytest.raises(UsageError, match="opacity"):
        category_overlay(np.zeros((4, 6, 3), np.uint8), shown, opacity=2)


def test_the_legend_stands_below_the_picture_and_has_a_swatch_for_what_is_seen() -> None:
    labels = np.zeros((50, 200), np.int32)
    labels[:, 150:] = 2
    shown = category_map(set_of(labels), NAMES, Categories([NAMES]))
    assert [(one.name, said) for one, said in legend_of(shown)] == [("background", "75 %"), ("dog", "25 %")]
    picture = np.random.default_rng(0).integers(0, 256, (50, 200, 3), dtype=np.uint8)
    both = with_legend(picture, shown)
    assert both.shape == (50 + legend_height(legend_of(shown), 200), 200, 3)
    assert np.array_equal(both[:50], picture)
    for rgb in ((128, 128, 128), category_colours()[1]):
        assert (both[50:] == rgb).all(axis=-1).sum() == 12 * 12
    assert not (both[50:] == category_colours()[0]).all(axis=-1).any()
    nothing = category_map(set_of(np.full((50, 200), -1)), NAMES, Categories([NAMES]))
    assert np.array_equal(with_legend(picture, nothing), picture)


@pytest.mark.parametrize("width", [1, 30, 64, 480, 1000, 4000])
@pytest.mark.parametrize("count", [1, 2, 171])
def test_any_number_of_names_fits_any_width(width: int, count: int) -> None:
    names = ["x", "a name that is much longer than there is room for it " * 5, "\u202e\n\x07<b>", "名前"]
    lines = [(Category(f"{names[k % 4]}{k}", (1 + k, 200, 7)), f"{k} %") for k in range(count)]
    strip = legend_strip(lines, width)
    assert strip.shape == (legend_height(lines, width), width, 3)
    if width >= 64:
        swatches = strip[(strip[..., 1:] == (200, 7)).all(axis=-1)][:, 0]
        assert np.bincount(swatches, minlength=172)[1 : count + 1].tolist() == [144] * count
        assert len(strip) <= 20 * (count + 1)
    if width == 4000:
        assert len(strip) < 20 * count / 3 + 40


def test_larger_pictures_have_larger_letters() -> None:
    lines = [(Category("cat", (9, 9, 9)), "50 %")]
    assert legend_height(lines, 4000, size=4.0) == 4 * legend_height(lines, 4000)


def sheet_of(*scenes: Scene, columns: list[SheetColumn], **options: Any) -> np.ndarray:
    out = io.BytesIO()
    assert write_sheet(scenes, out, columns=columns, side=64, opacity=1.0, **options).shown == len(scenes)
    return np.asarray(Pillow.open(out))


def column(panel: int, file: Column) -> SheetColumn:
    def choose(scene: Scene) -> MaskSet:
        found = scene.panels[panel]
        assert found is not None
        return found

    return SheetColumn(file.title, panel, choose, file)


def test_a_sheet_has_one_legend_for_all_its_rows() -> None:
    image = np.full((64, 64, 3), 50, np.uint8)
    truth = Column("Ground truth", NAMES.categories, by_category=True, is_map=True)
    sets = [np.full((64, 64), 1), np.full((64, 64), 2), np.full((64, 64), -1)]
    scenes = [Scene(set_of(one).image, image, (set_of(one), set_of(sets[1])), agreements=(Agreement(1, 2),)) for one in sets]
    columns = [column(0, NAMES), column(1, truth)]
    whole, bare = sheet_of(*scenes, columns=columns), sheet_of(*scenes, columns=columns, legend=False)
    below = whole[len(bare) - 8 :]
    assert np.array_equal(whole[: len(bare) - 8], bare[:-8])
    cat, dog = category_colours()[:2]
    assert [int((below == rgb).all(axis=-1).sum()) for rgb in (cat, dog, (128, 128, 128))] == [144, 144, 0]
    # The same category has the same colour in both columns: the first's second row, and all of the second's.
    pixels = (bare == dog).all(axis=-1)
    first, second = 16 + 64 + 8, 16 + 2 * (64 + 8)
    assert pixels[:, first : first + 64].sum() == pytest.approx(64 * 64, rel=0.1)
    assert pixels[:, second : second + 64].sum() == pytest.approx(3 * 64 * 64, rel=0.1)


def test_masks_of_instances_beside_it_are_coloured_as_categories_too() -> None:
    left, right = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
    left[:, :32], right[:, 32:] = True, True
    masks, truth = (build_masks([left, right], size=(64, 64), category_id=ids) for ids in ([1, 2], [2, 2]))
    scene = Scene(masks.image, np.zeros((64, 64, 3), np.uint8), (masks,), judge([masks], truth, 0.5))
    sheet = sheet_of(scene, columns=[column(0, NAMES)], truth=TruthColumn("GT", NAMES.categories, by_category=True))
    dog = (sheet == category_colours()[1]).all(axis=-1)
    left_edge = 16 + 2 * (64 + 8)
    assert dog[60:124, left_edge : left_edge + 64].all()


def test_a_sheet_keeps_room_for_its_legend() -> None:
    many = Column("m", by_category=True)
    labels = np.arange(64 * 64).reshape(64, 64) % 200
    scene = Scene(set_of(labels).image, np.zeros((64, 64, 3), np.uint8), (set_of(labels),))
    row, top = 18 + 64 + 16, 16 + 18 + 8
    out = io.BytesIO()
    tall = top + 2 * row + 200 * 20 + 60
    made = write_sheet([scene] * 40, out, columns=[column(0, many)], side=64, tallest=tall)
    sheet = np.asarray(Pillow.open(out))
    assert made.shown == 2
    assert sheet.shape[0] <= tall
    with pytest.raises(UsageError, match="legend"):
        write_sheet([scene], io.BytesIO(), columns=[column(0, many)], side=64, tallest=top + row + 50)
