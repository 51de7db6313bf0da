"""The page as a file: parses, asks for nothing, holds what it was given, and lets nothing from outside out of its place."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from ovskit.core.records import Image, MaskSet
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.show.page import write_page
from ovskit.core.show.scene import Column, Scene, TruthColumn

from .conftest import build_masks, scene_of

EVIL = "</script></style></title><img src=x onerror=alert(1)>\"'\n\udcff\ud800{{script}}"
VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Elements in order with their attributes and text; fails on tags that do not match."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[int] = []
        self.feed(data.decode("utf-8"))
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for k in self._open:
            self.elements[k][2].append(data)

    def all(self, tag: str, **attributes: str) -> list[tuple[dict[str, str | None], str]]:
        return [(a, "".join(t)) for name, a, t in self.elements if name == tag and all(a.get(k) == v for k, v in attributes.items())]

    def data(self) -> list[Any]:
        """The embedded JSON: one value per image, the page's own last."""
        return [json.loads(text) for _, text in self.all("script", type="application/json")]


def make_page(*sets: tuple[MaskSet, np.ndarray], pg: Any = (), categories: Any = (), **options: Any) -> tuple[bytes, Page]:
    """The page of one mask file."""
    return page_of(*(scene_of(*pair) for pair in sets), columns=[Column("masks.json", categories, pg)], **options)


def page_of(*scenes: Scene, **options: Any) -> tuple[bytes, Page]:
    out = io.BytesIO()
    assert write_page(scenes, out, **{"title": "masks.json", **options}) == len(scenes)
    return out.getvalue(), Page(out.getvalue())


ALONE = [{"title": "masks.json", "keys": []}]


def decode_image(uri: str | None) -> np.ndarray:
    assert uri is not None
    kind, _, data = uri.partition(";base64,")
    assert kind == "data:image/jpeg"
    return np.asarray(Pillow.open(io.BytesIO(base64.b64decode(data, validate=True))))


def test_holds_every_mask_as_it_was_given(three_masks: tuple[MaskSet, np.ndarray]) -> None:
    masks, image = three_masks
    _, page = make_page((masks, image))
    data, summary = page.data()
    assert (data["height"], data["width"]) == (20, 30)
    [panel] = data["panels"]
    by_id = {m.id: m for m in masks.masks}
    assert [m["id"] for m in panel["masks"]] == [2, 3, 1]  # by area
    for shown in panel["masks"]:
        mask = by_id[shown["id"]]
        assert shown["rle"].encode() == mask.rle.counts
        assert (shown["area"], shown["score"]) == (mask.area, mask.score)
        assert dict(shown["more"]) == dict(mask.extra)
    panels = [{"title": "masks.json", "keys": ["threshold"]}]
    assert summary == {"images": 1, "masks": 3, "levels": [["threshold", [0.6, 0.3]]], "first": None, "panels": panels}


def test_the_picture_is_the_image_scaled_to_the_longest_side() -> None:
    image = np.zeros((60, 90, 3), np.uint8)
    image[:, :45] = (200, 40, 40)
    masks = build_masks([], size=(60, 90))
    _, page = make_page((masks, image), max_side=30)
    [(attributes, _)] = [entry for entry in page.all("img") if (entry[0]["src"] or "").startswith("data:image/jpeg")]
    picture = decode_image(attributes["src"])
    assert picture.shape == (20, 30, 3)
    assert np.abs(picture[5, 5].astype(int) - (200, 40, 40)).max() < 12
    assert (attributes["width"], attributes["height"]) == ("90", "60")
    _, page = make_page((masks, image), max_side=500)
    [(attributes, _)] = page.all("img")
    assert decode_image(attributes["src"]).shape == image.shape  # never blown up


def test_asks_for_nothing_from_outside(three_masks: tuple[MaskSet, np.ndarray]) -> None:
    data, page = make_page(three_masks)
    text = re.sub(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", "", data.decode())
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|fetch\(|XMLHttpRequest", text)
    for tag, attributes, _ in page.elements:
        assert tag not in ("iframe", "object", "embed", "base")
        for key in ("src", "href", "srcset", "action", "poster"):
            value = attributes.get(key) or ""
            assert value == "" or value.startswith(("data:", "#")), (tag, key)


def test_its_own_script_is_the_only_one_that_may_run(three_masks: tuple[MaskSet, np.ndarray]) -> None:
    _, page = make_page(three_masks)
    [script] = [text for attributes, text in page.all("script") if "type" not in attributes]
    [(policy, _)] = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    allowed = re.findall(r"script-src ([^;]*)", policy["content"] or "")
    assert allowed == [f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"]
    assert "default-src 'none'" in (policy["content"] or "")


def test_nothing_from_outside_becomes_markup() -> None:
    dense = [np.ones((4, 6), bool), np.eye(4, 6, dtype=bool)]
    plain, evil = (
        make_page(
            (
                build_masks(dense, size=(4, 6), name=f"{word}.jpg", extras=[{f"k{word}": word}, {"source": word}], category_id=[1, 2]),
                np.zeros((4, 6, 3), np.uint8),
            ),
            title=word,
            pg=[{"id": word, "tool": word, "version": word, "command": word}],
            categories=[{"id": 1, "name": word}, {"id": 2, "name": word}],
        )[1]
        for word in ("plain", EVIL)
    )
    assert [(tag, sorted(attributes)) for tag, attributes, _ in evil.elements] == [
        (tag, sorted(attributes)) for tag, attributes, _ in plain.elements
    ]
    shown = "</script></style></title><img src=x onerror=alert(1)>\"'\\n\\xff\\ud800{{script}}"
    assert evil.all("title") == [({}, shown)]
    assert evil.all("span", **{"class": "name"})[0][1] == shown + ".jpg"
    assert evil.all("code")[0][1] == shown
    assert evil.data()[0]["panels"][0]["masks"][0]["more"] == [["k" + shown, shown[:79] + "…" if len(shown) > 80 else shown]]
    # The page's own script is the same, whatever the data.
    assert evil.all("script")[-1] == plain.all("script")[-1]


def test_any_coco_file_will_do() -> None:
    """No score, no threshold; extras of every type, of which what cannot be said in a few words is left out.

    So is COCO's area, which is the polygon's: the mask's own stands on the page.
    """
    odd = {
        "area": 17.5,
        "list": [1],
        "none": None,
        "nan": float("nan"),
        "flag": True,
        "big": 2**80,
        "long": "x" * 500,
        "empty": "",
        "iou": 0.25,
    }
    masks = build_masks([np.ones((4, 6), bool), np.zeros((4, 6), bool)], size=(4, 6), extras=[odd, {}], parent_id=[77, 1])
    data, page = make_page((masks, np.zeros((4, 6, 3), np.uint8)))
    first, second = page.data()[0]["panels"][0]["masks"]
    assert dict(first["more"]) == {"flag": "yes", "big": str(2**80), "long": "x" * 79 + "…", "iou": 0.25}
    assert first["parentId"] == 77
    assert "parent" not in first
    assert second["parent"] == 0
    assert "score" not in first
    assert "category" not in first
    assert not re.search(rb"\b(None|nan|NaN)\b", data.split(b"<main>")[1].split(b"</main>")[0])


def test_categories_are_named_where_there_is_more_than_one() -> None:
    masks = build_masks([np.ones((4, 6), bool), np.zeros((4, 6), bool)], size=(4, 6), category_id=[3, 9])
    image = np.zeros((4, 6, 3), np.uint8)
    two = [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}]
    first, second = make_page((masks, image), categories=two)[1].data()[0]["panels"][0]["masks"]
    assert first["category"] == "cat"
    assert "category" not in second
    assert "category" not in make_page((masks, image), categories=two[:1])[1].data()[0]["panels"][0]["masks"][0]


def test_images_without_masks_and_pages_without_images() -> None:
    empty = MaskSet(Image(4, "bare.png", 6, 4), ())
    _, page = make_page((empty, np.zeros((4, 6, 3), np.uint8)))
    [(attributes, text)] = page.all("section")
    assert "bare" in (attributes["class"] or "").split()
    assert "no masks" in text
    assert page.data()[-1] == {"images": 1, "masks": 0, "levels": [], "first": None, "panels": ALONE}
    _, page = make_page()
    assert page.all("section") == []
    assert page.data() == [{"images": 0, "masks": 0, "levels": [], "first": None, "panels": ALONE}]


def test_every_control_has_a_name(three_masks: tuple[MaskSet, np.ndarray]) -> None:
    _, page = make_page(three_masks, pg=[{"tool": "ovs-cluster"}])
    assert [a["lang"] for a, _ in page.all("html")] == ["en"]
    assert all((a.get("alt") or "").startswith("a.jpg") for a, _ in page.all("img"))
    inside = False
    for tag, _, text in page.elements:
        if tag == "label":
            inside = bool("".join(text).strip())
        if tag == "input":
            assert inside
    assert page.all("summary")


def test_opens_at_a_level_one_can_read() -> None:
    dense, extras = [], []
    for cells, theta in ((8, 0.6), (4, 0.4), (1, 0.2)):
        side = 16 // cells
        for row in range(cells):
            for column in range(cells):
                pixels = np.zeros((16, 16), bool)
                pixels[row * side : (row + 1) * side, column * side : (column + 1) * side] = True
                dense.append(pixels)
                extras.append({"threshold": theta})
    masks = build_masks(dense, size=(16, 16), extras=extras)
    _, page = make_page((masks, np.zeros((16, 16, 3), np.uint8)))
    assert page.data()[-1]["first"] == ["threshold", 0.4]
    assert page.data()[-1]["levels"] == [["threshold", [0.6, 0.4, 0.2]]]


def test_writes_each_image_before_it_asks_for_the_next(three_masks: tuple[MaskSet, np.ndarray]) -> None:
    out = io.BytesIO()
    seen = []

    def sets() -> Any:
        for _ in range(3):
            seen.append(out.getvalue().count(b"</section>"))
            yield scene_of(*three_masks)

    assert write_page(sets(), out, title="t", columns=[Column("m")]) == 3
    assert seen == [0, 1, 2]


def test_same_input_same_bytes(three_masks: tuple[MaskSet, np.ndarray]) -> None:
    assert make_page(three_masks)[0] == make_page(three_masks)[0]


def test_provenance_is_shown_only_where_there_is_some(three_masks: tuple[MaskSet, np.ndarray]) -> None:
    _, page = make_page(
        three_masks, pg=[{"tool": "ovs-cluster", "version": "1.2", "command": "ovs-cluster --nms 0.9", "seed": None}, {"odd": 1}]
    )
    assert page.all("code") == [({}, "ovs-cluster --nms 0.9")]
    [(_, text)] = page.all("li")
    assert text.endswith("version 1.2")
    assert make_page(three_masks)[1].all("details") == []


def test_a_wrong_picture_is_refused(three_masks: tuple[MaskSet, np.ndarray]) -> None:
    masks, image = three_masks
    with pytest.raises(InputError, match="30×20"):
        make_page((masks, image[:-1]))
    with pytest.raises(UsageError, match="16"):
        make_page(max_side=0)


def judged(three: tuple[MaskSet, np.ndarray], truth: MaskSet, *, title: str = "Ground truth", **options: Any) -> Page:
    return page_of(
        scene_of(*three, truth=truth),
        columns=[Column("a.json")],
        truth=TruthColumn(title, options.pop("categories", ()), at=0.5),
        **options,
    )[1]


def test_ground_truth_stands_beside_the_masks_with_what_is_found(three_masks: tuple[MaskSet, np.ndarray]) -> None:
    whole, missed = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    whole[2:14, 2:13] = True  # IoU 11/12 with mask 2
    missed[4:10, 4:10] = True  # holds mask 1, 12 of 36 pixels
    truth = build_masks([missed, whole], size=(20, 30), category_id=[7, 8])
    page = judged(three_masks, truth, categories=[{"id": 7, "name": "cup"}, {"id": 8, "name": "dog"}])
    data, summary = page.data()
    [one] = data["truths"]
    assert [m["category"] for m in one["masks"]] == ["dog", "cup"]
    assert one["annotator"] is None
    assert one["found"] == [[[0, 0, round(11 / 12, 4), 1], [1, 2, round(12 / 36, 4), 0]]]
    assert summary["truth"] == {"title": "Ground truth", "keys": [], "at": 0.5, "annotators": [], "found": [1], "total": 2}
    assert summary["first"] == ["matched", 1]
    captions = [" ".join(text.split()) for _, text in page.all("figcaption")]
    assert captions == ["a.json 1 of 2 found at IoU 0.5", "Ground truth 2 masks"]
    assert len(page.all("img")) == 1  # the photograph is in the file once


def test_every_annotator_is_there_and_the_first_one_counts(three_masks: tuple[MaskSet, np.ndarray]) -> None:
    same = [np.zeros((20, 30), bool), np.ones((20, 30), bool)]
    same[0][2:14, 2:14] = True
    truth = build_masks([*same, same[0]], size=(20, 30), extras=[{"annotator": 10}, {"annotator": 10}, {"annotator": 2}])
    data, summary = judged(three_masks, truth).data()
    assert [(one["annotator"], len(one["masks"])) for one in data["truths"]] == [("2", 1), ("10", 2)]
    assert summary["truth"]["annotators"] == ["2", "10"]
    assert (summary["truth"]["found"], summary["truth"]["total"]) == ([1], 1)


def test_files_that_lack_an_image_say_so(three_masks: tuple[MaskSet, np.ndarray]) -> None:
    masks, image = three_masks
    scene = Scene(masks.image, image, (None, masks))
    _, page = page_of(
        scene, columns=[Column("<a>.json", pg=[{"tool": "one"}]), Column("b.json", pg=[{"tool": "two"}])], truth=TruthColumn("GT")
    )
    data, summary = page.data()
    assert [panel is None for panel in data["panels"]] == [True, False]
    assert data["truths"] == []
    missing = [text for attributes, text in page.all("div") if "missing" in (attributes.get("class") or "").split()]
    assert missing == ["No such image in <a>.json", "No such image in GT"]
    [(attributes, _)] = page.all("img")
    assert attributes["alt"] == "a.jpg, b.json, 3 masks"
    assert summary["masks"] == 3
    assert [text for _, text in page.all("summary")] == ["How the masks of <a>.json were made", "How the masks of b.json were made"]


def test_names_of_the_ground_truth_stay_text(three_masks: tuple[MaskSet, np.ndarray]) -> None:
    truth = build_masks([np.ones((20, 30), bool)] * 2, size=(20, 30), category_id=[1, 2], extras=[{"annotator": EVIL}, {"annotator": "b"}])
    plain = build_masks([np.ones((20, 30), bool)] * 2, size=(20, 30), category_id=[1, 2], extras=[{"annotator": "a"}, {"annotator": "b"}])
    names = lambda word: [{"id": 1, "name": word}, {"id": 2, "name": "b"}]  # noqa: E731
    shape = lambda page: [(tag, sorted(attributes)) for tag, attributes, _ in page.elements]  # noqa: E731
    assert shape(judged(three_masks, truth, categories=names(EVIL), title=EVIL)) == shape(judged(three_masks, plain, categories=names("a")))


def test_a_forest_is_levelled_once() -> None:
    """The level that ovs-hier writes is the depth that parent_id says."""
    dense = [np.ones((4, 6), bool), np.eye(4, 6, dtype=bool)]
    forest = build_masks(dense, size=(4, 6), parent_id=[None, 1], extras=[{"level": 0}, {"level": 1}])
    other = build_masks(dense, size=(4, 6), parent_id=[None, 1], extras=[{"level": 1}, {"level": 0}])
    picture = np.zeros((4, 6, 3), np.uint8)
    assert make_page((forest, picture))[1].data()[-1]["levels"] == [["depth", [0, 1]]]
    assert make_page((other, picture))[1].data()[-1]["levels"] == [["level", [0, 1]], ["depth", [0, 1]]]
