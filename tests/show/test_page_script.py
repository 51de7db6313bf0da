"""The page's script: what needs no document under Node, the whole of it in a browser. Each is skipped where there is none."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from pycocotools import mask as coco_mask

from ovskit.core.records import Image, MaskSet
from ovskit.core.show.colours import colours
from ovskit.core.show.page import write_page
from ovskit.core.show.scene import Column, Scene, TruthColumn
from ovskit.core.show.truth_matches import judge
from ovskit.core.show.views import larger_first, order_by_area, runs_in_order, view_of, views

from .conftest import build_masks, scene_of

NODE = shutil.which("node")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

HARNESS = """
const cases = JSON.parse(require('fs').readFileSync(0, 'utf8'));
console.log(JSON.stringify(cases.map(({ text, height, width, shown }) => {
  const ends = runEnds(text);
  const held = [];
  for (let at = 0; at < height * width; at++) held.push(holds(ends, at) ? 1 : 0);
  const plane = new Uint8Array(shown[0] * shown[1]);
  fillMask(ends, height, edges(width, shown[1]), edges(height, shown[0]), shown[0], plane, 1);
  return { ends: [...ends], held, outside: holds(ends, height * width), plane: [...plane] };
})));
"""


def under_node(script: str, harness: str, cases: Any) -> Any:
    source = resources.files("ovskit.core.show").joinpath(script).read_text("utf-8") + harness
    result = subprocess.run([str(NODE), "-e", source], input=json.dumps(cases), capture_output=True, text=True, check=True, timeout=60)
    return json.loads(result.stdout)


needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed: the page's script is not run by itself")


@needs_node
def test_the_decoder_agrees_with_pycocotools() -> None:
    random = np.random.default_rng(3)
    dense = [np.ones((5, 4), bool), np.zeros((5, 4), bool), np.ones((1, 1), bool), np.ones((3000, 700), bool)]
    for _ in range(150):
        height, width = random.integers(1, 40, 2)
        pixels = random.random((height, width)) < random.random()
        dense.append(np.repeat(pixels, random.integers(1, 6), axis=random.integers(0, 2)))
    cases = []
    for pixels in dense:
        counts = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))["counts"]
        shown = [int(n) for n in random.integers(1, 60, 2)]
        cases.append({"text": counts.decode(), "height": pixels.shape[0], "width": pixels.shape[1], "shown": shown})
    for case, pixels, got in zip(cases, dense, under_node("rle.js", HARNESS, cases), strict=True):
        height, width = pixels.shape
        assert got["ends"][-1] == height * width
        assert np.array_equal(got["held"], pixels.T.reshape(-1))
        assert got["outside"] is False
        rows, columns = case["shown"]
        # The native pixel under the centre of each canvas pixel, in whole numbers.
        expected = pixels[np.ix_((2 * np.arange(rows) + 1) * height // (2 * rows), (2 * np.arange(columns) + 1) * width // (2 * columns))]
        assert np.array_equal(got["plane"], expected.T.reshape(-1))


TREE_HARNESS = """
const cases = JSON.parse(require('fs').readFileSync(0, 'utf8'));
console.log(JSON.stringify(cases.map(({ masks, views, view, keys, matched, open }) => {
  const parents = parentsOf(masks);
  const children = childrenOf(parents);
  const members = membersAt(masks.length, views, view, new Set(keys), matched && new Map(matched.map((k) => [k, 1])));
  const rows = listed(parents, members, view);
  return {
    parents, members, within: rows.parents, open: [...rows.open],
    below: masks.map((_, k) => below(children, k)), above: masks.map((_, k) => above(parents, k)),
    rows: visibleRows(rows.parents, rows.open), all: visibleRows(parents, new Set(open)),
  };
})));
"""


def ways_up(parents: list[int | None]) -> list[list[int]]:
    """What is above each mask, nearest first; a mask above itself stands alone."""
    found = []
    for k in range(len(parents)):
        way: list[int] = []
        up = parents[k]
        while up is not None and up not in way:
            way.append(up)
            up = parents[up]
        found.append(way)
    # Whoever is in a cycle is cut off from what was above it.
    return [
        [] if k in way else way[: 1 + next((i for i, up in enumerate(way) if up in found[up]), len(way))] for k, way in enumerate(found)
    ]


@needs_node
def test_the_forest_and_its_levels_are_those_of_the_masks() -> None:
    random = np.random.default_rng(11)
    cases, sets = [], []
    for number in range(80):
        count = int(random.integers(0, 9))
        # Parents at random, so that there are cycles; some without, so that there are proper forests.
        parents = [None if random.random() < 0.4 else int(random.integers(0, k if number % 2 and k else count)) for k in range(count)]
        parents = [None if parent == k else parent for k, parent in enumerate(parents)]
        masks = build_masks(
            [np.arange(12).reshape(3, 4) < 12 - k for k in range(count)],
            size=(3, 4),
            parent_id=[None if p is None else p + 1 for p in parents],
            extras=[{"threshold": float(random.choice([0.6, 0.4, 0.2]))} for _ in range(count)],
        )
        ordered = larger_first(masks)
        found = views(ordered, runs_in_order(masks, order_by_area(masks)))
        shown: list[Any] = [None, ["matched", 1], *([view.key, view.value] for view in found)]
        view = shown[number % len(shown)]
        matched = [k for k in range(count) if random.random() < 0.5]
        case = {
            "masks": [{} if p is None else {"parent": p} for p in parents],
            "views": [[v.key, v.value, v.members] for v in found],
            "view": view,
            "keys": [],
            "matched": matched,
            "open": [k for k in range(count) if random.random() < 0.6],
        }
        cases.append(case)
        sets.append((masks, parents))
    kinds = set()
    for case, (masks, parents), got in zip(cases, sets, under_node("tree.js", TREE_HARNESS, cases), strict=True):
        ways, count, view = ways_up(parents), len(parents), case["view"]
        assert got["above"] == ways
        assert got["parents"] == [way[0] if way else -1 for way in ways]
        assert got["below"] == [[k for k in range(count) if up in ways[k]] for up in range(count)]
        if view is None:
            members = list(range(count))
        elif view[0] == "matched":
            members = case["matched"]
        else:
            members = [mask.id - 1 for mask in view_of(masks, *view).masks]
        assert got["members"] == members
        kinds.add(view and view[0])
        whole = view is None or view[0] == "depth"
        expected = [way[0] if way else -1 for way in ways] if whole else [next((u for u in way if u in members), -1) for way in ways]
        assert got["within"] == [parent if whole or k in members else -2 for k, parent in enumerate(expected)]
        for rows, opened, within in ((got["rows"], got["open"], got["within"]), (got["all"], case["open"], got["parents"])):
            listed = [k for k in range(count) if within[k] != -2]
            chain = {k: [] if within[k] < 0 else [within[k]] for k in listed}
            for k in listed:
                while chain[k] and within[chain[k][-1]] >= 0:
                    chain[k].append(within[chain[k][-1]])
            # In sight is what has only unfolded masks around it, each below its parent, larger ones first.
            seen = sorted((k for k in listed if set(chain[k]) <= set(opened)), key=lambda k: [*reversed(chain[k]), k])
            assert [row["k"] for row in rows] == seen
            for row in rows:
                siblings = [k for k in listed if within[k] == within[row["k"]]]
                place = (len(chain[row["k"]]), sum(within[k] == row["k"] for k in listed), siblings.index(row["k"]) + 1, len(siblings))
                assert (row["level"], row["children"], row["place"], row["size"]) == place
    assert kinds == {None, "matched", "depth", "threshold"}


@needs_node
def test_images_with_fewer_levels_than_the_others() -> None:
    masks = [{}, {}, {}]
    thresholds = [["threshold", 0.5, [1, 2]], ["threshold", 0.3, [0]]]
    cases = [
        {"masks": masks, "views": views, "view": view, "keys": keys, "matched": None, "open": []}
        for views, view, keys in (
            ([], ["threshold", 0.4], ["threshold"]),  # everything was recorded at one threshold
            (thresholds, ["threshold", 0.4], ["threshold"]),  # nothing changed between 0.5 and 0.4
            (thresholds, ["threshold", 0.6], ["threshold"]),
            ([], ["depth", 0], ["depth"]),  # a forest of wholes
            ([], ["depth", 1], ["depth"]),
            ([], ["depth", 1], []),  # no forest: another file's levels say nothing about it
            ([], ["matched", 1], []),  # nothing to match with
        )
    ]
    assert [got["members"] for got in under_node("tree.js", TREE_HARNESS, cases)] == [
        [0, 1, 2],
        [1, 2],
        [],
        [0, 1, 2],
        [],
        [0, 1, 2],
        [0, 1, 2],
    ]


PARTNER_HARNESS = """
const { found, ask } = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const pairings = found.map(pairing);
console.log(JSON.stringify(ask.map(([panel, k]) => partners(pairings, panel, k))));
"""


@needs_node
def test_a_mask_brings_out_what_it_is_paired_with_everywhere() -> None:
    # Two files; mask 0 of the ground truth is found by both, mask 1 by the second, mask 2 by none but near to one of the first.
    found = [[[0, 4, 0.9, 1], [1, 5, 0.3, 0], [2, 4, 0.2, 0]], [[0, 7, 0.8, 1], [1, 8, 0.6, 1]]]
    ask = [[2, 0], [2, 1], [2, 2], [2, 3], [0, 4], [1, 8], [0, 5], [1, 99]]
    got = under_node("tree.js", PARTNER_HARNESS, {"found": found, "ask": ask})
    said = [[(one["panel"], one["k"], one["iou"], one["paired"]) for one in rows] for rows in got]
    assert said == [
        [(0, 4, 0.9, True), (1, 7, 0.8, True)],
        [(0, 5, 0.3, False), (1, 8, 0.6, True)],
        [(0, 4, 0.2, False)],
        [],
        [(1, 7, 0.8, True), (2, 0, 0.9, True)],
        [(2, 1, 0.6, True)],
        [],
        [],
    ]


def rendered(page: Path, folder: Path) -> tuple[str, np.ndarray]:
    """The page's DOM after its script ran, and a screenshot."""
    command = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
    ]
    command += ["--disable-component-update", "--disable-sync", f"--user-data-dir={folder / 'profile'}", "--window-size=1200,2400"]
    command += ["--virtual-time-budget=3000", f"--screenshot={folder / 'page.png'}", "--dump-dom", page.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return result.stdout, np.asarray(Pillow.open(folder / "page.png").convert("RGB"))


# A headless window draws no frames of its own.
BEFORE = "<script>window.requestAnimationFrame = (then) => setTimeout(then, 5);</script>"
AFTER = """<script>
const report = [];
const all = (query) => [...document.querySelectorAll(query)];
const texts = (query) => all(query).map((element) => element.textContent);
STEPS
const next = () => {
  const step = steps.shift();
  if (step) step(), setTimeout(next, 40);
  else document.body.append(Object.assign(document.createElement('pre'), { id: 'report', textContent: JSON.stringify(report) }));
};
setTimeout(next, 100);
</script></body>"""


def report_of(path: Path, steps: str) -> dict[str, Any]:
    """What ``steps``, one after the other, put into ``report`` in a browser, by name.

    They run in a copy of the page without its policy, which lets no other script in.
    """
    page, policies = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', BEFORE, path.read_text("utf-8"))
    assert policies == 1
    path.write_text(page.replace("</body>", AFTER.replace("STEPS", steps)), "utf-8")
    dom, _ = rendered(path, path.parent)
    [text] = re.findall(r'<pre id="report">(.*?)</pre>', dom)
    return {name: values for name, *values in json.loads(html.unescape(text))}


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: the page's script is not run")
def test_a_browser_draws_and_lists_the_masks(tmp_path: Path, three_masks: tuple[MaskSet, np.ndarray]) -> None:
    evil = "<img src=x onerror=\"document.title='broken'\">"
    plain = build_masks(
        [np.ones((40, 60), bool), np.zeros((40, 60), bool)],
        size=(40, 60),
        name=evil,
        category_id=[5, 6],
        extras=[{evil: evil}, {}],
        parent_id=[2, 1],
    )
    bare = MaskSet(Image(9, "bare.jpg", 60, 40), ())
    picture = np.full((40, 60, 3), 90, np.uint8)
    with open(tmp_path / "page.html", "wb") as out:
        scenes = [scene_of(*three_masks), scene_of(plain, picture), scene_of(bare, picture)]
        write_page(scenes, out, title="t", columns=[Column("m", [{"id": 5, "name": evil}, {"id": 6, "name": "sky"}])])
    dom, shot = rendered(tmp_path / "page.html", tmp_path)
    body = re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)
    assert "<title>t</title>" in dom
    assert body.count("<canvas") == 6  # fill, lines, focus of two images
    assert re.findall(r'class="id"><span>([^<]*)<', body) == ["#2", "#3", "#1", evil.replace("<", "&lt;").replace(">", "&gt;"), "sky"]
    assert "3 images · 5 masks" in body
    assert "No masks in this image." in body
    text = re.sub(r"<[^>]*>", " ", body)
    assert not re.search(r"undefined|NaN|null|Infinity|\[object", text)
    # The second image is grey 90 below the colour of the largest mask at 55 %, 60×40 pixels shown three times as large.
    expected = 0.45 * 90 + 0.55 * colours(1)[0]
    assert (np.abs(shot - expected).max(axis=-1) < 3).sum() > 0.9 * 9 * 60 * 40
    assert re.findall(r'name="level"[^>]*aria-label="([^"]*)"', body)[0].startswith("All masks")


STEPS = """
const rows = () => all('.row').map((row) => {
  const marks = ['off', 'on'].filter((name) => row.classList.contains(name));
  return [row.getAttribute('aria-level') ?? '-', row.querySelector('.id').textContent, ...marks].join(' ');
});
const key = (element, name) => element.dispatchEvent(new KeyboardEvent('keydown', { key: name, bubbles: true, cancelable: true }));
const choose = (text) => all('.tools label').find((label) => label.textContent === text).querySelector('input').click();
const at = (picture, x, y) => {
  const box = picture.getBoundingClientRect();
  return { bubbles: true, pointerType: 'mouse', clientX: box.left + x * box.width, clientY: box.top + y * box.height };
};
const steps = [
  () => report.push(['first', texts('.said'), rows(), texts('.tools .levels label'), all('.picture img').length]),
  () => all('.picture')[2].dispatchEvent(new MouseEvent('click', at(all('.picture')[2], 0.97, 0.97))),
  () => report.push(['missed', texts('.card dd'), texts('.tagged .tag'), rows()]),
  () => all('.picture')[2].dispatchEvent(new MouseEvent('click', at(all('.picture')[2], 0.1, 0.2))),
  () => report.push(['found', texts('.tagged .tag'), all('.focusing').length]),
  () => document.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true })),
  () => report.push(['none', texts('.tagged .tag'), all('.focusing').length]),
  () => choose('b.json'),
  () => report.push(['marked by b', texts('.said'), texts('.row .score')]),
  () => all('.tabs input')[0].click(),
  () => choose('Entities'),
  () => report.push(['entities', rows()]),
  () => all('.row')[0].focus(),
  () => key(document.activeElement, 'ArrowRight'),
  () => report.push(['unfolded', rows(), document.activeElement.querySelector('.id').textContent, scrollY]),
  () => key(document.activeElement, 'ArrowRight'),
  () => report.push(['child', document.activeElement.querySelector('.id').textContent]),
  () => key(document.activeElement, 'ArrowLeft'),
  () => key(document.activeElement, 'ArrowLeft'),
  () => report.push(['folded', rows(), document.activeElement.getAttribute('aria-expanded')]),
  () => all('.row')[0].querySelector('.twist').click(),
  () => report.push(['by mouse', rows().length, all('[aria-selected="true"]').length]),
  () => choose('Parts'),
  () => report.push(['parts', rows()]),
  () => report.push(['width', document.documentElement.scrollWidth - innerWidth]),
];
"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: the page's script is not run")
def test_a_browser_compares_files_and_walks_the_tree(tmp_path: Path) -> None:
    boxes = [(2, 14, 2, 14), (5, 9, 5, 9), (10, 18, 20, 28)]
    dense = [np.zeros((20, 30), bool) for _ in boxes]
    for pixels, (top, bottom, left, right) in zip(dense, boxes, strict=True):
        pixels[top:bottom, left:right] = True
    forest = build_masks(dense, size=(20, 30), parent_id=[None, 1, None])
    other = build_masks([dense[2]], size=(20, 30))
    near = dense[2].copy()
    near[:, 24:] = False
    near[18:, 24:] = near[:, 28:] = True  # shares 32 pixels with the third mask
    truth = build_masks([dense[0], near], size=(20, 30))
    panels = (forest, other)
    scene = Scene(forest.image, np.full((20, 30, 3), 90, np.uint8), panels, judge(panels, truth, 0.5))
    with open(tmp_path / "page.html", "wb") as out:
        write_page([scene], out, title="t", columns=[Column("a.json"), Column("b.json")], truth=TruthColumn("Ground truth"))
    report = report_of(tmp_path / "page.html", STEPS)
    captions = ["1 of 2 found at IoU 0.5", "0 of 2 found at IoU 0.5", "2 masks, 1 missed"]
    views_offered = ["All", "Matched", "Entities", "Parts", "a.json", "b.json"]
    assert report["first"] == [captions, ["- #1"], views_offered, 3]
    missed = int(near.sum())
    iou = 32 / (missed + 64 - 32)
    assert report["missed"] == [
        [f"{missed} px", "missed", f"nearest #3, IoU {iou:.2f}", f"nearest #1, IoU {iou:.2f}"],
        [f"nearest, IoU {iou:.2f} · Mask 3", f"nearest, IoU {iou:.2f} · Mask 1", "Mask 2 · 13 %"],
        ["- #1", "- #2 on"],
    ]
    assert report["found"] == [["IoU 1.00 · Mask 1", "Mask 1 · 24 %"], 2]
    assert report["none"] == [[], 0]
    assert report["marked by b"] == [[*captions[:2], "2 masks, 2 missed"], ["missed", "missed"]]
    assert report["entities"] == [["1 #1", "1 #3"]]
    assert report["unfolded"] == [["1 #1 on", "2 #2 off", "1 #3"], "#1", 0]
    assert report["child"] == ["#2"]
    assert report["folded"] == [["1 #1 on", "1 #3"], "false"]
    assert report["by mouse"] == [3, 0]
    assert report["parts"] == [["1 #1 off", "2 #2", "1 #3 off"]]
    assert report["width"] == [0]
