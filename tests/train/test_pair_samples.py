"""Batches of pairs: functions of seed, step and rank alone, whatever is damaged and however a step is split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ovskit.core.formats.pairs.options import PairInputs
from ovskit.core.formats.pairs.record import Pair
from ovskit.core.formats.photographs.decoding import decode_photograph
from ovskit.core.formats.photographs.sources import Source
from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.failures import Failures, PartialError
from ovskit.core.train.data.pair_draws import PairDraws
from ovskit.core.train.views.pair_samples import PairSamples, PairViewOptions, random_crop, speaks_of_sides, view_of

from .small_pairs import jpeg, write_shards

VIEW = PairViewOptions(16, 0.5, 0.5, False)


class Said:
    """A tokenizer that keeps what it was given, and makes numbers of it."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: list[str]) -> torch.Tensor:
        self.texts += texts
        return torch.tensor([[sum(map(ord, text)), len(text)] for text in texts])


def samples(folder: Path, tmp_path: Path, *, seed: int = 0, skip: bool = True, options: PairViewOptions = VIEW) -> PairSamples:
    failures = Failures(skip=skip)
    draws = PairDraws(PairInputs((str(folder),)), seed=seed, failures=failures, index_folder=str(tmp_path / "index"))
    return PairSamples(draws, options, Said(), failures)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


def test_a_batch_is_a_function_of_step_and_rank(shards: Path, tmp_path: Path) -> None:
    one, two = samples(shards, tmp_path), samples(shards, tmp_path)
    later = two.batch(7, 1, 2, 4)
    assert torch.equal(one.batch(7, 1, 2, 4).images, later.images)
    assert torch.equal(one.batch(7, 1, 2, 4).tokens, later.tokens)
    assert (later.images.dtype, tuple(later.images.shape)) == (torch.uint8, (4, 3, 16, 16))
    assert not torch.equal(samples(shards, tmp_path, seed=1).batch(7, 1, 2, 4).images, later.images)


@pytest.mark.parametrize("world", [2, 4])
def test_a_step_is_the_same_however_it_is_split(shards: Path, tmp_path: Path, world: int) -> None:
    made = samples(shards, tmp_path)
    whole = made.batch(3, 0, 1, 8)
    parts = [made.batch(3, rank, world, 8 // world) for rank in range(world)]
    assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
    assert torch.equal(torch.cat([part.tokens for part in parts]), whole.tokens)
    assert [(part.rank, part.world) for part in parts] == [(rank, world) for rank in range(world)]


def test_captions_are_drawn_anew_and_each_epoch_has_every_pair(shards: Path, tmp_path: Path) -> None:
    made = samples(shards, tmp_path)
    for step in range(8):
        made.batch(step, 0, 1, 18)
    said = made.tokenizer.texts  # type: ignore[attr-defined]
    assert len(set(said[:18])) > 9  # a caption with its number is a pair's own
    assert len({text for text in said if "number" in text}) == 18
    assert {text.startswith("something") for text in said} == {True, False}


def test_a_damaged_image_is_replaced_by_rule(tmp_path: Path) -> None:
    whole, bad = write_shards(tmp_path / "whole"), write_shards(tmp_path / "bad", damaged=(4, 11))
    good, damaged = samples(whole, tmp_path), samples(bad, tmp_path)
    at_once = samples(bad, tmp_path)
    at_once.batch(1, 1, 2, 5)  # another order of asking
    for step in range(3):
        found = [[pair.pair.key for pair in good.draws.batch(step, rank, 2, 5)] for rank in range(2)]
        for rank in range(2):
            expected, got = good.batch(step, rank, 2, 5), damaged.batch(step, rank, 2, 5)
            again = at_once.batch(step, rank, 2, 5)
            assert torch.equal(got.images, again.images)
            assert torch.equal(got.tokens, again.tokens)
            for k, key in enumerate(found[rank]):
                usable = not key.endswith(("000004", "000011"))
                assert torch.equal(got.images[k], expected.images[k]) == usable
    assert damaged.failures.named_once == 2
    with pytest.raises(PartialError, match="skipped 2 images"):
        damaged.failures.report(16)


def test_a_damaged_image_ends_a_run_that_does_not_skip(tmp_path: Path) -> None:
    made = samples(write_shards(tmp_path / "bad", damaged=(3,)), tmp_path, skip=False)
    with pytest.raises(InputError, match="000003.jpg"):
        made.batch(0, 0, 1, 18)


def test_where_nothing_can_be_decoded_it_ends(tmp_path: Path) -> None:
    made = samples(write_shards(tmp_path / "bad", tars=1, pairs=3, damaged=(0, 1, 2)), tmp_path)
    with pytest.raises(InputError, match="could take its place"):
        made.batch(0, 0, 1, 2)


def test_what_the_data_is_shows_in_its_key(shards: Path, tmp_path: Path) -> None:
    moved = write_shards(tmp_path / "elsewhere")
    assert samples(shards, tmp_path).draws.key == samples(moved, tmp_path).draws.key
    assert samples(shards, tmp_path).draws.key != samples(write_shards(tmp_path / "more", pairs=10), tmp_path).draws.key
    assert samples(shards, tmp_path).draws.total == 18


@given(width=st.integers(1, 400), height=st.integers(1, 400), smallest=st.floats(0.01, 1.0), seed=st.integers(0, 10_000))
def test_a_crop_is_inside_and_large_enough(width: int, height: int, smallest: float, seed: int) -> None:
    left, top, right, bottom = random_crop(width, height, np.random.default_rng(seed), smallest)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    if min(width, height) >= 50 and max(width, height) <= 1.3 * min(width, height):
        assert (right - left) * (bottom - top) >= 0.9 * smallest * width * height * 0.7


@pytest.mark.parametrize(
    ("caption", "speaks"),
    [("a dog on the left", True), ("RIGHT-hand drive", True), ("the leftmost man", True), ("bright light", False), ("", False)],
)
def test_captions_of_sides(caption: str, speaks: bool) -> None:
    assert speaks_of_sides([caption]) == speaks


def at(path: Path, pixels: np.ndarray, **options: object) -> Pair:
    path.write_bytes(jpeg(pixels, **options))
    return Pair("a", "a.jpg", ("x",), "a.txt", Source(0, "a.jpg", str(path)))


@pytest.mark.parametrize(("caption", "mirror_sides", "mirrored"), [("a man", False, True), ("left", False, False), ("left", True, True)])
def test_mirroring(tmp_path: Path, caption: str, mirror_sides: bool, mirrored: bool) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, 16:] = 255
    seen = view_of(at(tmp_path / "a.jpg", pixels), caption, np.random.default_rng(0), PairViewOptions(16, 1.0, 1.0, mirror_sides))
    assert (seen[:, :4].mean() > seen[:, -4:].mean()) == mirrored


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_photograph_is_decoded_smaller_and_looks_alike(tmp_path: Path, orientation: int) -> None:
    y, x = np.mgrid[:480, :640]
    pixels = np.stack([x * 255 // 640, y * 255 // 480, (x + y) % 256 // 2], axis=-1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(pixels, quality=95, exif=exif.tobytes())
    full = decode_photograph(data, "a").pixels
    height, width = full.shape[:2]
    small = decode_photograph(data, "a", at_least=(width // 4, height // 4)).pixels
    assert small.shape == (height // 4, width // 4, 3)
    expected = np.asarray(Image.fromarray(full).resize((width // 4, height // 4), Image.Resampling.BOX))
    assert np.abs(small.astype(int) - expected.astype(int)).mean() < 2
    assert decode_photograph(data, "a", at_least=(width // 4 + 1, height // 4)).pixels.shape[0] == height // 2
    path = tmp_path / "b.jpg"
    path.write_bytes(data)
    pair = Pair("b", "b.jpg", ("x",), "b.txt", Source(0, "b.jpg", str(path)))
    options = PairViewOptions(32, 0.6, 0.0, False)
    seen = view_of(pair, "x", np.random.default_rng(5), options)
    box = random_crop(width, height, np.random.default_rng(5), 0.6)
    expected = np.asarray(Image.fromarray(full).resize((32, 32), Image.Resampling.BICUBIC, box=box))
    assert np.abs(seen.astype(int) - expected.astype(int)).mean() < 3
