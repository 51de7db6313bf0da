"""The page of semantic maps: its data, and in a browser what its legend does."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovskit.core.formats.labels.maps import painted_prediction
from ovskit.core.formats.labels.named_maps import masks_of_map
from ovskit.core.records import Image, LabelMap, MaskSet
from ovskit.core.show.agreement import Agreement
from ovskit.core.show.colours import category_colours
from ovskit.core.show.page import write_page
from ovskit.core.show.scene import Column, Scene, TruthColumn
from ovskit.core.show.truth_matches import judge

from .conftest import build_masks
from .test_page import EVIL, Page, page_of
from .test_page_script import BROWSER, report_of

NAMED = [{"id": 0, "name": "background"}, {"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
PREDICTED = Column("p.json", NAMED, by_category=True)
MAPS = Column("Ground truth", [{"id": 7, "name": "DOG"}, {"id": 8, "name": "cow"}], by_category=True, is_map=True)


def overlapping() -> MaskSet:
    """A 20×30 image: a large mask of high score over most of a smaller one, another of the large one's category, a background."""
    boxes = [(2, 14, 2, 14), (4, 8, 4, 18), (10, 18, 20, 28), (0, 20, 0, 30)]
    dense = [np.zeros((20, 30), bool) for _ in boxes]
    for pixels, (top, bottom, left, right) in zip(dense, boxes, strict=True):
        pixels[top:bottom, left:right] = True
    masks = build_masks(dense, size=(20, 30), category_id=[1, 2, 1, 0])
    import dataclasses

    scores = [0.9, 0.5, 0.6, 0.1]
    return MaskSet(masks.image, tuple(dataclasses.replace(m, score=s) for m, s in zip(masks.masks, scores, strict=True)))


def truth_map() -> MaskSet:
    labels = np.full((20, 30), 8, np.int32)
    labels[:10], labels[:, :3] = 7, -1
    return masks_of_map(LabelMap(Image(1, "a.jpg", 30, 20), labels))


def scene() -> Scene:
    masks = overlapping()
    return Scene(masks.image, np.full((20, 30, 3), 90, np.uint8), (masks, truth_map()), agreements=(Agreement(150, 540),))


def test_the_data_hold_the_legend_and_the_order_of_painting() -> None:
    _, page = page_of(scene(), columns=[PREDICTED, MAPS])
    data, summary = page.data()
    cat, dog, cow = (bytes(rgb).hex() for rgb in category_colours()[:3].tolist())
    assert {name: (rgb, faint) for name, rgb, faint in summary["categories"]} == {
        "background": ("808080", 1),
        "cat": (cat, 0),
        "dog": (dog, 0),
        "cow": (cow, 0),
    }
    names = [name for name, _, _ in summary["categories"]]
    first, second = data["panels"]
    labels = painted_prediction(overlapping()).labels
    legend = {names[c]: (pixels, masks) for c, pixels, masks in first["legend"]}
    assert legend == {entry["name"]: (int((labels == entry["id"]).sum()), 2 if entry["id"] == 1 else 1) for entry in NAMED}
    assert [pixels for _, pixels, _ in first["legend"]] == sorted((p for _, p, _ in first["legend"]), reverse=True)
    for mask in first["masks"]:
        category = summary["categories"][first["legend"][mask["group"]][0]]
        assert (mask["category"], mask["rgb"]) == (category[0], category[1])
    # From the lowest to the topmost: by score, whatever the area.
    assert [first["masks"][k]["id"] for k in first["order"]] == [4, 2, 3, 1]
    assert [names[c] for c, _, _ in second["legend"]] == ["cow", "dog"]
    assert first["right"] == 150 / 540
    assert "right" not in second
    assert summary["right"] == [150 / 540, None]
    assert (summary["masks"], summary["first"], "truth" in summary) == (4, None, False)  # those of the ground truth are not counted
    assert [" ".join(text.split()) for _, text in page.all("figcaption")] == ["p.json 28 % of pixels right", "Ground truth 2 classes"]


def test_a_page_without_categories_says_nothing_of_them() -> None:
    masks = overlapping()
    _, page = page_of(Scene(masks.image, np.zeros((20, 30, 3), np.uint8), (masks,)), columns=[Column("m", NAMED)])
    data, summary = page.data()
    assert summary.keys() == {"images", "masks", "levels", "first", "panels"}
    assert data["panels"][0].keys() == {"masks", "views"}
    assert not any("group" in mask for mask in data["panels"][0]["masks"])


def test_instances_of_a_ground_truth_are_coloured_by_category_and_still_found() -> None:
    masks = overlapping()
    shot = Scene(masks.image, np.zeros((20, 30, 3), np.uint8), (masks,), judge([masks], masks, 0.5))
    _, page = page_of(shot, columns=[PREDICTED], truth=TruthColumn("GT", NAMED, by_category=True))
    data, summary = page.data()
    [truth] = data["truths"]
    assert summary["first"] is None
    assert summary["truth"]["found"] == [4]
    # The smaller mask on top: a ground truth's scores, if it has some, say nothing.
    areas = [truth["masks"][k]["area"] for k in truth["order"]]
    assert areas == sorted(areas, reverse=True)
    assert [mask["rgb"] for mask in truth["masks"]] == [mask["rgb"] for mask in data["panels"][0]["masks"]]


def test_names_stay_text() -> None:
    labels = np.zeros((4, 6), np.int32)
    labels[:2] = 1
    masks = masks_of_map(LabelMap(Image(1, "a.jpg", 6, 4), labels))

    def shape(name: str) -> Any:
        column = Column("m", [{"id": 0, "name": name}, {"id": 1, "name": "b"}], by_category=True)
        _, page = page_of(Scene(masks.image, np.zeros((4, 6, 3), np.uint8), (masks,)), columns=[column])
        return [(tag, sorted(attributes)) for tag, attributes, _ in page.elements], page.data()[-1]["categories"][0][0]

    (evil, said), (plain, _) = shape(EVIL), shape("plain")
    assert evil == plain
    assert said.startswith("</script>")
    assert "\\n" in said


def test_same_input_same_bytes() -> None:
    def made() -> bytes:
        out = io.BytesIO()
        write_page([scene()], out, title="t", columns=[PREDICTED, MAPS])
        return out.getvalue()

    assert made() == made()
    Page(made())


STEPS = """
const row = (name) => all('.classes .row').find((one) => one.title === name);
const area = (one) => one.querySelector('.area').textContent;
const rows = () => all('.classes .row').map((one) => `${one.title} ${area(one)}${one.classList.contains('off') ? ' off' : ''}`);
const key = (name) => document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key: name, bubbles: true, cancelable: true }));
const points = [[0.5, 0.05], [0.1, 0.2], [0.57, 0.3], [0.8, 0.7], [0.99, 0.99]];
// The colour of the first picture's masks, as red, green, blue, opacity.
const colours = (of = 0) => {
  const canvas = all('.picture')[of].querySelector('canvas.fill');
  const pen = canvas.getContext('2d');
  return points.map(([x, y]) => [...pen.getImageData(Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data]);
};
const lines = () => {
  const canvas = all('.picture')[0].querySelector('canvas.lines');
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let count = 0;
  for (let k = 3; k < data.length; k += 4) count += data[k] > 0;
  return count;
};
const hover = (element, type = 'pointerover') => element.dispatchEvent(new PointerEvent(type, { bubbles: true, pointerType: 'mouse' }));
const at = (picture, x, y) => {
  const box = picture.getBoundingClientRect();
  return { bubbles: true, clientX: box.left + x * box.width, clientY: box.top + y * box.height };
};
const steps = [
  () => report.push(['first', rows(), texts('.said'), colours(), texts('#summary'), all('.list:not([hidden]) .row').length]),
  () => hover(row('dog')),
  () => report.push(['dog', texts('.tagged .tag'), texts('.card dd'), all('.focusing').length]),
  () => hover(all('.classes')[0], 'pointerleave'),
  () => report.push(['left', texts('.tagged .tag'), all('.focusing').length, lines()]),
  () => row('cat').click(),
  () => report.push(['off', rows(), row('cat').getAttribute('aria-pressed'), colours(), all('.all')[0].hidden]),
  () => all('.picture')[0].dispatchEvent(new MouseEvent('click', at(all('.picture')[0], 0.2, 0.3))),
  () => report.push(['below', texts('.tagged .tag')]),
  () => document.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true })),
  () => all('.all')[0].click(),
  () => report.push(['on', rows(), colours(), all('.all')[0].hidden]),
  () => all('.classes .row[tabindex="0"]')[0].focus(),
  () => key('ArrowDown'),
  () => report.push(['down', document.activeElement.title, all('.classes .row[tabindex="0"]').length]),
  () => key('End'),
  () => report.push(['end', document.activeElement.title]),
  () => document.activeElement.click(),
  () => report.push(['kept', document.activeElement.title, document.activeElement.getAttribute('aria-pressed')]),
  () => all('.tabs input')[1].click(),
  () => report.push(['truth', rows(), all('.list:not([hidden])').length, colours(1)]),
  () => report.push(['width', document.documentElement.scrollWidth - innerWidth]),
];
"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: the page's script is not run")
def test_a_browser_draws_the_map_and_its_legend(tmp_path: Path) -> None:
    with open(tmp_path / "page.html", "wb") as out:
        write_page([scene()], out, title="t", columns=[PREDICTED, MAPS])
    report = report_of(tmp_path / "page.html", STEPS)
    cat, dog, cow = ([*rgb, 255] for rgb in category_colours()[:3].tolist())
    gray, nothing = [130, 130, 130, 61], [0, 0, 0, 0]  # gray 128, as a canvas keeps it at a quarter of the opacity
    # 600 pixels: 144 + 64 are cats, 4 × 4 of the dog are not below the cat.
    legend = ["background 63 %", "cat 35 %", "dog 2.7 %", "cow –"]
    masks = ["28 % of pixels right", "2 classes"]
    facts = ["1 image · 4 masks · 28 % of pixels right"]
    assert report["first"] == [legend, masks, [gray, cat, dog, cat, gray], facts, 4]
    assert report["dog"] == [["dog · 2.7 %", "dog · 45 %"], ["2.7 %", "45 %"], 2]
    assert report["left"][:2] == [[], 0]
    assert report["left"][2] > 0
    off = [legend[0], "cat 35 % off", *legend[2:]]
    # What is switched off bares the picture: the dog below it stays hidden, and what was the topmost cannot be taken.
    assert report["off"] == [off, "false", [gray, nothing, dog, nothing, gray], False]
    assert report["below"] == [["dog · 9.3 %"]]
    assert report["on"] == [legend, [gray, cat, dog, cat, gray], True]
    assert report["down"] == ["cat", 1]
    assert report["end"] == ["cow"]
    assert report["kept"] == ["cow", "false"]
    assert report["truth"] == [["dog 45 %", "cow 45 % off", "background –", "cat –"], 0, [dog, dog, dog, nothing, nothing]]
    assert report["width"] == [0]
