"""LightCluster on grids and on planted foregrounds."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ovskit.core.cluster.light_levels import Levels, Seen, Votes, see
from ovskit.core.cluster.light_stream import Margined, fit_light, light_masks, margins_of
from ovskit.core.cluster.lightcluster import Margins, foreground_of_image, joined, masks_of_margin
from ovskit.core.cluster.options import LightOptions
from ovskit.core.cluster.patch_sample import PatchSample
from ovskit.core.cluster.streams import RootedFeatures
from ovskit.core.formats.streams.soft_margin import SoftMargin, read_soft_margin
from ovskit.core.masks.rle import decode
from ovskit.core.models.kmeans import KMeansOptions
from ovskit.core.records import FeatureMap, Image
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.failures import Failures

GRID = (12, 14)
CLUSTERING = KMeansOptions(k=2, max_points=20_000)
FAIL = Failures(skip=False)


def planted(number: int, noise: float = 0.15) -> tuple[RootedFeatures, np.ndarray]:
    """An image of one of two superclasses: a box of foreground keys on background keys, and where the box is."""
    rng = np.random.default_rng(number)
    axes = np.eye(16)
    kind = number % 2
    box = np.zeros(GRID, bool)
    y, x = rng.integers(2, 4, 2)
    box[y : y + 6, x : x + 7] = True
    # Foreground and background of both kinds share something; what they differ in is the kind's own.
    foreground, background = axes[0] + 0.6 * axes[2 + kind], axes[1] + 0.6 * axes[4 + kind]
    patch = np.where(box[..., None], foreground, background) + noise * rng.standard_normal((*GRID, 16))
    cls = axes[8 + kind] + 0.1 * rng.standard_normal(16)
    image = Image(number, f"{number}.jpg", 140, 120)
    return RootedFeatures("", FeatureMap(image, patch.astype(np.float16), cls.astype(np.float16))), box


RECORDS = [planted(k) for k in range(1, 13)]


def records() -> list[RootedFeatures]:
    return [record for record, _ in RECORDS]


def test_the_foreground_touches_the_border_less() -> None:
    labels = np.zeros((5, 6), np.int32)
    labels[1:4, 1:5] = 1
    assert foreground_of_image(labels) == 1
    assert foreground_of_image(1 - labels) == 0
    half = np.zeros((4, 4), np.int32)
    half[:, 2:] = 1  # as many on the border of both: of equal ones 1
    assert foreground_of_image(half) == 1
    half[1, 1] = 1  # now 0 is smaller
    assert foreground_of_image(half) == 0


@given(arrays(np.int32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 1)))
def test_other_rules_of_an_images_own_side(labels: np.ndarray) -> None:
    cells = [(y, x) for y in range(labels.shape[0]) for x in range(labels.shape[1])]
    edge = [cell for cell in cells if cell[0] in (0, labels.shape[0] - 1) or cell[1] in (0, labels.shape[1] - 1)]
    sizes = [sum(labels[cell] == k for cell in cells) for k in (0, 1)]
    on_edge = [sum(labels[cell] == k for cell in edge) for k in (0, 1)]
    if all(sizes):  # two clusters never leave one empty
        shares = [Fraction(int(on_edge[k]), int(sizes[k])) for k in (0, 1)]
        expected = 0 if (shares[0], sizes[0]) < (shares[1], sizes[1]) else 1
        assert foreground_of_image(labels, "share") == expected
    assert foreground_of_image(labels, "smaller") == (0 if sizes[0] < sizes[1] else 1)


margins = arrays(np.float32, (5, 6), elements=st.sampled_from([-0.5, -0.1, 0.2, 0.6]))


@settings(deadline=None)
@given(
    margins, margins, margins, st.sampled_from(["and", "two"]), st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from(["category", "image", "none"]),
)  # fmt: skip
def test_levels_together(dataset: np.ndarray, category: np.ndarray, image: np.ndarray, vote: str, overlap: float, fallback: str) -> None:
    options = LightOptions(vote=vote, overlap=overlap, min_patches=1, fallback=fallback)  # type: ignore[arg-type]
    found = joined(Margins(dataset, category, image), options) > 0
    d, c, i = dataset > 0, category > 0, image > 0
    agreed = d & c if vote == "and" else (d.astype(int) + c + i) >= 2
    kept = np.zeros_like(agreed)
    for piece in pieces(agreed):
        if (piece & i).sum() >= overlap * piece.sum():
            kept |= piece
    otherwise = {"category": c if c.any() else i, "image": i, "none": kept}[fallback]
    expected = kept if kept.any() else otherwise
    np.testing.assert_array_equal(found, expected)


def pieces(mask: np.ndarray) -> list[np.ndarray]:
    """Connected pieces, corners included, by flooding."""
    left, found = mask.copy(), []
    while left.any():
        piece = np.zeros_like(mask)
        stack = [tuple(np.argwhere(left)[0])]
        while stack:
            y, x = stack.pop()
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and left[y, x]:
                left[y, x], piece[y, x] = False, True
                stack += [(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
        found.append(piece)
    return found


def test_masks_are_pieces_in_the_images_own_pixels() -> None:
    margin = np.full((4, 8), -0.3, np.float32)
    margin[1:3, 1:3] = 0.4
    margin[1:3, 5:7] = 0.9
    margin[0, 7] = 0.2
    found = masks_of_margin(Image(3, "a.jpg", 80, 40), margin, "final", LightOptions(min_patches=2))
    assert [mask.extra["source"] for mask in found.masks] == ["final"] * 2
    assert found.masks[0].score > found.masks[1].score  # type: ignore[operator]
    left, right = decode(found.masks[1].rle), decode(found.masks[0].rle)
    assert (left[15, 20], left[15, 60], right[15, 60]) == (1, 0, 1)
    assert left.shape == (40, 80)
    # Bilinear: the edge lies where the margin crosses 0, between the patches' centres.
    assert left[15].sum() == pytest.approx(10 + 2 * 10 * 0.4 / 0.7, abs=1)
    assert masks_of_margin(Image(3, "a.jpg", 80, 40), -np.abs(margin), "final", LightOptions()).masks == ()


def test_masks_keep_the_margin_below_and_around_them() -> None:
    margin = np.random.default_rng(1).normal(-0.5, 0.1, (10, 12)).astype(np.float32)
    margin[4:6, 5:7] = 0.4
    image = Image(3, "a.jpg", 120, 100)
    kept = read_soft_margin(masks_of_margin(image, margin, "final", LightOptions(min_patches=1)).masks[0].extra, "mask 1", 100, 120)
    assert isinstance(kept, SoftMargin)
    assert kept.grid == (10, 12)
    (top, left), (rows, cols) = kept.at, kept.values.shape
    assert top <= 2
    assert left <= 3
    assert top + rows >= 8
    assert left + cols >= 9
    assert rows * cols < 120
    np.testing.assert_allclose(kept.values, margin[top : top + rows, left : left + cols], atol=np.abs(margin).max() / 127)
    bare = masks_of_margin(image, margin, "final", LightOptions(min_patches=1, soft=False)).masks[0]
    assert bare.extra == {"source": "final"}


def test_planted_foregrounds_are_found_at_every_level() -> None:
    levels = fit_light(records(), LightOptions(superclasses=2), CLUSTERING)
    assert {see(record.features, levels, CLUSTERING).category for record in records()[::2]} != {
        see(record.features, levels, CLUSTERING).category for record in records()[1::2]
    }
    voted = Margined(records(), levels, LightOptions(), CLUSTERING, FAIL, 1)
    for (image, found), (_, box) in zip(voted.margins(), RECORDS, strict=True):
        for level in (*found, joined(found, LightOptions())):
            np.testing.assert_array_equal(level > 0, box, err_msg=image.file_name)


def test_centroids_from_before_give_the_same_masks() -> None:
    options = LightOptions(superclasses=2)
    voted = Margined(records(), fit_light(records(), options, CLUSTERING), options, CLUSTERING, FAIL, 1)
    kept = Levels.of_named(voted.levels.named(), "c.npz")
    for level in ("final", "image", "category", "dataset"):
        first = list(light_masks(voted.margins(), level, options, 1))  # type: ignore[arg-type]
        again = list(light_masks(margins_of(records(), kept, options, CLUSTERING, FAIL, 3), level, options, 2))  # type: ignore[arg-type]
        assert first == again
    with pytest.raises(InputError, match=r"c\.npz"):
        Levels.of_named({"dataset": kept.dataset}, "c.npz")


def test_votes_turn_a_clustering_whichever_way_it_came_out() -> None:
    own = np.full((3, 3), -1.0, np.float32)
    own[1, 1] = 1
    for sign in (1, -1):
        votes = Votes(2)
        for category in (0, 0, 1):
            votes.add(Seen(Margins(sign * own, sign * own, own), category))
        assert votes.signs() == (sign, [sign, sign])


@pytest.mark.parametrize(("rule", "sign"), [("overlap", 1), ("share", -1), ("images", -1)])
def test_three_ways_to_vote(rule: str, sign: int) -> None:
    """A large image with much of everything in cluster 1, two small ones whose foreground is all of cluster 0."""
    votes = Votes(1, rule)  # type: ignore[arg-type]
    large = np.ones((10, 10), np.float32)
    own = -large
    own[:4] = 1  # 40 of the 100 patches of cluster 1
    votes.add(Seen(Margins(large, large, own), 0))
    small = np.array([[-1.0, 1.0, 1.0]], np.float32)
    for _ in range(2):
        votes.add(Seen(Margins(small, small, -small - 0.5), 0))  # 1 of 1 patch of cluster 0
    assert votes.signs() == (sign, [sign])


def test_a_sample_has_room_for_all_images() -> None:
    sample, later = PatchSample(100, 0), PatchSample(100, 0)
    for record in records():
        sample.add(record.features)
    for record in records()[::-1]:
        later.add(record.features)
    rows = sample.rows(sample.images())
    assert 50 < len(rows) <= 100
    np.testing.assert_array_equal(rows, later.rows(later.images()))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=2e-3)


def test_a_sample_of_more_images_than_it_has_room_for() -> None:
    found = []
    for order in (slice(None), slice(None, None, -1)):
        sample = PatchSample(7, 3)
        for record in records()[order]:
            sample.add(record.features)
        found.append((sample.images(), sample.rows(sample.images()).tobytes(), sample.cls().tobytes()))
    assert found[0] == found[1]
    assert len(found[0][0]) == 7
    other = PatchSample(7, 4)
    for record in records():
        other.add(record.features)
    assert other.images() != found[0][0]


def test_what_is_not_finite_is_named_and_spoils_nothing(caplog: pytest.LogCaptureFixture) -> None:
    options, spoiled = LightOptions(superclasses=2), records()
    patch = spoiled[4].features.patch.copy()
    patch[3, 3] = np.inf
    spoiled[4] = RootedFeatures("", replace(spoiled[4].features, patch=patch))
    without = [record for record in records() if record.features.image.id != 5]
    made = []
    for some in (spoiled, without):
        levels = fit_light(some, options, CLUSTERING)
        failures = Failures(skip=True)
        made.append(list(light_masks(Margined(some, levels, options, CLUSTERING, failures, 2).margins(), "final", options, 1)))
        assert failures.count == (some is spoiled)
    assert made[0] == made[1]
    with pytest.raises(InputError, match=r"5\.jpg.*NaN"):
        Margined(spoiled, levels, options, CLUSTERING, FAIL, 1)


def test_what_superclasses_need() -> None:
    bare = [RootedFeatures("", FeatureMap(r.features.image, r.features.patch)) for r in records()]
    with pytest.raises(InputError, match="--cls"):
        fit_light(bare, LightOptions(), CLUSTERING)
    with pytest.raises(InputError, match="4 superclasses of 3 images"):
        fit_light(records()[:3], LightOptions(), CLUSTERING)
    alone = fit_light(bare, LightOptions(superclasses=1), CLUSTERING)
    voted = Margined(bare, alone, LightOptions(), CLUSTERING, FAIL, 2)
    assert len(list(light_masks(voted.margins(), "final", LightOptions(), 2))) == len(bare)
    with pytest.raises(InputError, match="no image has features"):
        fit_light([], LightOptions(), CLUSTERING)
    for wrong in ({"vote": "three"}, {"side": "left"}, {"sign": "minus"}, {"fallback": "all"}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            LightOptions(**wrong)  # type: ignore[arg-type]


def test_an_image_of_one_colour_has_no_foreground_of_its_own() -> None:
    flat = FeatureMap(Image(99, "flat.jpg", 30, 20), np.ones((4, 5, 16), np.float16), np.ones(16, np.float16))
    levels = fit_light(records(), LightOptions(superclasses=2), CLUSTERING)
    assert (see(flat, levels, CLUSTERING).margins.image < 0).all()
