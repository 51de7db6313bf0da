"""The contact sheet: where its pictures stand, what colours they have, and what does not fit."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from ovskit.core.records import Image, MaskSet
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.show.colours import colours
from ovskit.core.show.scene import Scene, TruthColumn
from ovskit.core.show.sheet import Sheet, SheetColumn, write_sheet
from ovskit.core.show.truth_matches import judge

from .conftest import build_masks

SIDE = 80


def everything(panel: int) -> SheetColumn:
    def choose(scene: Scene) -> MaskSet:
        masks = scene.panels[panel]
        assert masks is not None
        return masks

    return SheetColumn(f"file {panel}", panel, choose)


def plain_scene(*panels: MaskSet | None, truth: MaskSet | None = None, size: tuple[int, int] = (80, 80), grey: int = 90) -> Scene:
    pixels = np.full((*size, 3), grey, np.uint8)
    return Scene(Image(1, "a.jpg", size[1], size[0]), pixels, panels, () if truth is None else judge(panels, truth, 0.5))


def sheet_of(*scenes: Scene, columns: int = 1, **options: Any) -> tuple[np.ndarray, Sheet]:
    out = io.BytesIO()
    made = write_sheet(iter(scenes), out, columns=[everything(k) for k in range(columns)], side=SIDE, **options)
    return np.asarray(Pillow.open(io.BytesIO(out.getvalue())).convert("RGB")).astype(int), made


def cell(sheet: np.ndarray, column: int, row: int = 0) -> np.ndarray:
    """The picture of 80 × 80 pixels: below a head line and a caption, 8 pixels apart."""
    top, left = 16 + 18 + 8 + 18 + row * (18 + SIDE + 16), 16 + column * (SIDE + 8)
    return sheet[top : top + SIDE, left : left + SIDE]


def half(*, left: bool) -> np.ndarray:
    dense = np.zeros((80, 80), bool)
    dense[:, slice(0, 40) if left else slice(42, 80)] = True  # the right one a little less: no half of the whole
    return dense


def test_photograph_then_files_then_ground_truth() -> None:
    masks = build_masks([np.ones((80, 80), bool), half(left=True)], size=(80, 80))
    truth = build_masks([half(left=True), half(left=False)], size=(80, 80))
    scene = plain_scene(masks, None, truth=truth)
    sheet, made = sheet_of(scene, columns=2, truth=TruthColumn("Ground truth"))
    assert made == Sheet(1, None)
    assert sheet.shape[1] == 2 * 16 + 4 * SIDE + 3 * 8
    assert (cell(sheet, 0) == 90).all()
    mixed = 0.45 * 90 + 0.55 * colours(2)
    drawn = cell(sheet, 1)
    assert np.abs(drawn[10:70, 50:70] - mixed[0]).max() < 2
    assert np.abs(drawn[10:70, 10:30] - mixed[1]).max() < 2
    assert len(np.unique(cell(sheet, 2).reshape(-1, 3), axis=0)) == 1  # the second file lacks the image
    verdict = cell(sheet, 3)
    assert np.abs(verdict[10:70, 10:30] - mixed[1]).max() < 2  # found: the colour of what found it
    right = verdict[10:70, 50:70]
    striped = [0.45 * 90 + 0.55 * np.array([224, 52, 58]), 90 + 0.55 * 0.25 * (np.array([224, 52, 58]) - 90)]
    near = [np.abs(right - colour).max(axis=-1) < 3 for colour in striped]
    assert near[0].mean() > 0.3
    assert near[1].mean() > 0.3
    assert (near[0] | near[1]).all()


def test_colours_are_those_of_the_whole_file_in_every_view() -> None:
    masks = build_masks([np.ones((80, 80), bool), half(left=True)], size=(80, 80))
    chosen = MaskSet(masks.image, masks.masks[1:])
    out = io.BytesIO()
    write_sheet([plain_scene(masks)], out, columns=[SheetColumn("part", 0, lambda _: chosen)], side=SIDE)
    sheet = np.asarray(Pillow.open(out).convert("RGB")).astype(int)
    assert np.abs(cell(sheet, 1)[10:70, 10:30] - (0.45 * 90 + 0.55 * colours(2)[1])).max() < 2


def test_crowds_are_neither_found_nor_missed() -> None:
    truth = build_masks([np.ones((80, 80), bool)], size=(80, 80), iscrowd=[1])
    masks = build_masks([np.ones((80, 80), bool)], size=(80, 80))
    sheet, _ = sheet_of(plain_scene(masks, truth=truth), truth=TruthColumn("Ground truth"))
    assert np.abs(cell(sheet, 2)[10:70, 10:70] - (0.45 * 90 + 0.55 * np.array([143, 142, 137]))).max() < 2


@pytest.mark.parametrize("size", [(40, 80), (80, 40), (1, 500), (300, 200)])
def test_any_shape_is_scaled_to_the_cell(size: tuple[int, int]) -> None:
    masks = build_masks([np.ones(size, bool)], size=size)
    sheet, _ = sheet_of(plain_scene(masks, size=size))
    height, width = (max(1, round(n * SIDE / max(size))) for n in size)
    assert sheet.shape == (16 + 18 + 8 + 18 + height + 16 + 8, 2 * 16 + 2 * SIDE + 8, 3)
    photograph = sheet[60 : 60 + height, 16 : 16 + width]
    assert (photograph == 90).all()


def test_stops_at_what_does_not_fit_and_reads_no_further() -> None:
    read = []

    def scenes() -> Iterator[Scene]:
        for k in range(9):
            read.append(k)
            yield plain_scene(build_masks([], size=(80, 80)), grey=10 * k)

    out = io.BytesIO()
    made = write_sheet(scenes(), out, columns=[everything(0)], side=SIDE, tallest=42 + 3 * 114 + 16)
    assert made == Sheet(3, "a.jpg")
    assert read == [0, 1, 2, 3]
    sheet = np.asarray(Pillow.open(out).convert("RGB"))
    assert sheet.shape[0] <= 42 + 3 * 114 + 16
    assert [int(cell(sheet, 0, row)[40, 40, 0]) for row in range(3)] == [0, 10, 20]
    few = io.BytesIO()
    assert write_sheet(scenes(), few, columns=[everything(0)], side=SIDE, most_pixels=200 * (42 + 114 + 16)).shown == 1
    with Pillow.open(few) as picture:
        assert picture.width * picture.height <= 200 * (42 + 114 + 16)


def test_nothing_to_show_and_no_room() -> None:
    with pytest.raises(InputError, match="no image"):
        sheet_of()
    with pytest.raises(UsageError, match="fewer"):
        sheet_of(plain_scene(build_masks([], size=(80, 80))), tallest=100)


def test_any_name_can_be_a_caption_and_the_same_input_gives_the_same_bytes() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    sheets = []
    for _ in range(2):
        out = io.BytesIO()
        scenes = [Scene(Image(1, name, 8, 8), pixels, (None,)) for name in ("文件\n\udcff.jpg", "x" * 10_000, "\0")]
        assert write_sheet(scenes, out, columns=[everything(0)], side=SIDE).shown == 3
        sheets.append(out.getvalue())
    assert sheets[0] == sheets[1]
