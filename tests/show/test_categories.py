"""Which files are about categories, which colour a category has, and what is painted, against slow loops."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ovskit.core.formats.labels.maps import painted_prediction, painted_truth
from ovskit.core.formats.labels.spaces import built_in, parse_label_space
from ovskit.core.formats.streams.masks import MasksHeader
from ovskit.core.formats.truth.ground_truth import GroundTruth
from ovskit.core.records import MaskSet
from ovskit.core.runtime.errors import InputError
from ovskit.core.show.categories import Categories, category_map, space_of, speaks_of_categories
from ovskit.core.show.colours import BACKGROUND, category_colours
from ovskit.core.show.scene import Column, TruthColumn

from .conftest import build_masks


def named(*names: str, first: int = 0) -> list[dict[str, Any]]:
    return [{"id": first + k, "name": name} for k, name in enumerate(names)]


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Björn Ottosson's matrices from linear sRGB, which are not those that the code has."""
    value = rgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(
        [[0.4122214708, 0.2119034982, 0.0883024619], [0.5363325363, 0.6806995451, 0.2817188376], [0.0514459929, 0.1073969566, 0.6299787005]]
    )
    return np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )


def test_colours_are_far_apart_and_none_is_as_gray_as_the_background() -> None:
    palette = category_colours()
    lab = oklab(palette)
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + np.eye(len(lab))
    for count, least in ((20, 0.09), (59, 0.078), (171, 0.048)):
        assert apart[:count, :count].min() >= least
    assert len(np.unique(palette, axis=0)) == len(palette) == 256
    assert np.hypot(lab[:, 1], lab[:, 2]).min() > 0.06
    assert np.abs(oklab(np.array([BACKGROUND]))[0, 1:]).max() < 1e-4


@pytest.mark.parametrize(
    ("header", "about"),
    [
        (MasksHeader(), False),
        (MasksHeader(categories=named("cat", "dog")), False),  # a COCO file, whatever its categories
        (MasksHeader(categories=named("cat", "dog"), pg=({"tool": "ovs-refine"},)), False),
        (MasksHeader(categories=named("cat", "dog"), pg=({"tool": "ovs-label"}, {"tool": "ovs-hier"})), True),
        (MasksHeader(categories=named("cluster 1", "cluster 2"), pg=({"tool": "ovs-cluster"},)), True),
        (MasksHeader(pg=({"tool": "ovs-cluster"},)), False),
        (MasksHeader(categories=named("cat"), labels={"name": "cat"}), True),
    ],
)
def test_what_a_file_says_it_is_about(header: MasksHeader, about: bool) -> None:
    assert speaks_of_categories(header) is about


def test_the_space_is_known_only_if_it_is_the_same() -> None:
    space = built_in("voc-21")
    assert space_of(MasksHeader(labels={"name": "voc-21", "hash": space.hash})) is space
    assert space_of(MasksHeader(labels={"name": "voc-21", "hash": "other"})) is None
    assert space_of(MasksHeader(labels={"name": "mine", "hash": space.hash})) is None
    assert space_of(MasksHeader(labels={"name": ["voc-21"]})) is None
    assert space_of(MasksHeader()) is None


def test_one_name_one_colour_whatever_the_ids() -> None:
    a, b = Column("a", named("cat", "dog", "sky")), Column("b", named("Dog", "tree", "CAT", first=7))
    categories = Categories([a, b])
    assert categories.of(a, 0) == categories.of(b, 9)
    assert categories.of(a, 1) == categories.of(b, 7)
    assert categories.of(b, 9).name == "cat"
    found = [categories.of(a, k) for k in range(3)] + [categories.of(b, 8)]
    assert [list(one.rgb) for one in found] == category_colours()[:4].tolist()
    assert not any(one.is_background for one in found)


def test_ids_without_a_name_are_named_by_their_number_and_have_its_colour() -> None:
    nameless, other = Column("maps"), Column("a", named("cat", "dog"))
    alone = Categories([nameless])
    assert alone.of(nameless, 7).name == "class 7"
    assert list(alone.of(nameless, 7).rgb) == category_colours()[7].tolist()
    both = Categories([nameless, other])
    # So that they have no category of another file.
    assert list(both.of(nameless, 0).rgb) == category_colours()[2].tolist()
    assert both.of(nameless, 65535).name == "class 65535"


def test_the_background_is_gray_and_takes_no_colour() -> None:
    space = built_in("voc-21")
    column = Column("a", [{"id": one.id, "name": one.name} for one in space.classes])
    for spaces in ([], [space]):
        categories = Categories([column], spaces)
        assert (categories.of(column, 0).rgb, categories.of(column, 0).is_background) == (BACKGROUND, True)
        assert list(categories.of(column, 1).rgb) == category_colours()[0].tolist()
    own = Column("b", named("stuff", "thing"))
    text = b'{"format":"ovskit.labels/1","name":"s","background":0,"classes":[{"id":0,"name":"Stuff"},{"id":1,"name":"thing"}]}'
    assert Categories([own], [parse_label_space(text, "s.json")]).of(own, 0).is_background


def test_a_synonym_has_the_colour_of_its_class() -> None:
    space = parse_label_space(b"aeroplane, airplane\nbike\n", "s.txt")
    a, b = Column("a", named("airplane")), Column("b", named("bike", "aeroplane"))
    categories = Categories([a, b], [space])
    assert categories.of(a, 0) == categories.of(b, 1)
    assert categories.of(a, 0).name == "aeroplane"


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(np.bool_, st.tuples(st.integers(0, 6), st.integers(1, 8), st.integers(1, 8))),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([None, 0.2, 0.5, 1.0])), min_size=6, max_size=6),
)
def test_the_map_is_the_one_that_a_score_is_made_of(dense: np.ndarray, kinds: list[tuple[int, float | None]]) -> None:
    height, width = dense.shape[1:]
    kinds = kinds[: len(dense)]
    plain = build_masks(list(dense), size=(height, width), category_id=[c for c, _ in kinds])
    masks = MaskSet(plain.image, tuple(dataclasses.replace(m, score=s) for m, (_, s) in zip(plain.masks, kinds, strict=True)))
    column = Column("a", named("zero", "one", "two"))  # 3 has no name
    categories = Categories([column])
    shown = category_map(masks, column, categories)
    # Pixel by pixel: the higher score on top, no score being 1, then the smaller mask, then the first one.
    for y in range(height):
        for x in range(width):
            over = [m for m in masks.masks if dense[m.id - 1, y, x]]
            best = max(over, key=lambda m: (1.0 if m.score is None else m.score, -m.area, -m.id), default=None)
            label = int(shown.labels[y, x])
            assert (label == 0) is (best is None)
            if best is not None:
                assert shown.swatches[label - 1].category == categories.of(column, best.category_id)
                assert painted_prediction(masks).labels[y, x] == best.category_id
    assert [s.pixels for s in shown.swatches] == [int((shown.labels == k + 1).sum()) for k in range(len(shown.swatches))]
    assert [s.pixels for s in shown.swatches] == sorted((s.pixels for s in shown.swatches), reverse=True)
    assert sum(s.masks for s in shown.swatches) == len(dense)
    assert [shown.swatches[g].category for g in shown.groups] == [categories.of(column, m.category_id) for m in masks.masks]
    assert sorted(shown.order) == list(range(len(dense)))
    # A ground truth knows no scores.
    truth = category_map(masks, TruthColumn("t", column.categories), categories)
    table = np.array([-1, *(["zero", "one", "two", "class 3"].index(s.category.name) for s in truth.swatches)])
    reference = painted_truth(GroundTruth("t", [masks.image], lambda k: masks), {k: k for k in range(4)}, None)
    assert np.array_equal(table[truth.labels], reference.load(0).labels)


def test_two_ids_of_one_name_are_one_category() -> None:
    left, right = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    left[:, :2], right[:, 2:] = True, True
    column = Column("a", [{"id": 1, "name": "sky"}, {"id": 2, "name": "Sky"}])
    shown = category_map(build_masks([left, right], size=(2, 4), category_id=[1, 2]), column, Categories([column]))
    assert [(s.category.name, s.pixels, s.masks) for s in shown.swatches] == [("sky", 8, 2)]


def test_masks_of_another_size_are_refused() -> None:
    masks = build_masks([np.ones((2, 4), bool)], size=(2, 4))
    other = MaskSet(dataclasses.replace(masks.image, width=5), masks.masks)
    with pytest.raises(InputError, match="5×2"):
        category_map(other, Column("a"), Categories([]))
