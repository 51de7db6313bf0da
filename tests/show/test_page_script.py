"""The page's script: its run-length decoder under Node, the whole of it in a browser. Each is skipped where there is none."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from pycocotools import mask as coco_mask

from ovskit.core.records import Image, MaskSet
from ovskit.core.show.colours import colours
from ovskit.core.show.page import write_page

from .conftest import build_masks

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


@pytest.mark.skipif(NODE is None, reason="node is not installed: the page's decoder is not run")
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
    source = resources.files("ovskit.core.show").joinpath("rle.js").read_text("utf-8") + HARNESS
    result = subprocess.run([str(NODE), "-e", source], input=json.dumps(cases), capture_output=True, text=True, check=True, timeout=60)
    for case, pixels, got in zip(cases, dense, json.loads(result.stdout), strict=True):
        height, width = pixels.shape
        assert got["ends"][-1] == height * width
        assert np.array_equal(got["held"], pixels.T.reshape(-1))
        assert got["outside"] is False
        rows, columns = case["shown"]
        # The native pixel under the centre of each canvas pixel, in whole numbers.
        expected = pixels[np.ix_((2 * np.arange(rows) + 1) * height // (2 * rows), (2 * np.arange(columns) + 1) * width // (2 * columns))]
        assert np.array_equal(got["plane"], expected.T.reshape(-1))


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
        sets = [three_masks, (plain, picture), (bare, picture)]
        write_page(sets, out, title="t", categories=[{"id": 5, "name": evil}, {"id": 6, "name": "sky"}])
    dom, shot = rendered(tmp_path / "page.html", tmp_path)
    body = re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)
    assert "<title>t</title>" in dom
    assert body.count("<canvas") == 6  # fill, lines, focus of two images
    assert re.findall(r'class="id">([^<]*)<', body) == ["#2", "#3", "#1", evil.replace("<", "&lt;").replace(">", "&gt;"), "sky"]
    assert "3 images · 5 masks" in body
    assert "No masks in this image." in body
    text = re.sub(r"<[^>]*>", " ", body)
    assert not re.search(r"undefined|NaN|null|Infinity|\[object", text)
    # The second image is grey 90 below the colour of the largest mask at 55 %, 60×40 pixels shown three times as large.
    expected = 0.45 * 90 + 0.55 * colours(1)[0]
    assert (np.abs(shot - expected).max(axis=-1) < 3).sum() > 0.9 * 9 * 60 * 40
    assert re.findall(r'name="level"[^>]*aria-label="([^"]*)"', body)[0].startswith("All masks")
