"""Samples: image, masks and ancestors belong together, whatever the view, and a seed decides all."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from ovskit.core.formats.photographs.sources import Source, list_sources
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
from ovskit.core.masks.rle import encode
from ovskit.core.records import Image, Mask, MaskSet
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.runtime.failures import Failures
from ovskit.core.train.data.mask_index import ImageMasks, IndexOptions, MaskIndex, open_mask_index
from ovskit.core.train.engine.batches import count_samples, map_tensors, to_device
from ovskit.core.train.views.colour_augment import ColourOptions, erased, strongly_changed
from ovskit.core.train.views.copy_paste import PasteOptions
from ovskit.core.train.views.geometry import carry
from ovskit.core.train.views.samples import (
    GIVE_UP,
    Sample,
    SampleOptions,
    batch_places,
    collate,
    draw_batch,
    draw_pairs,
    draw_sample,
    read_photograph,
)

PLAIN = SampleOptions(side=64, paste=None)
PASTED = SampleOptions(side=64, paste=PasteOptions(chance=1.0))
STRONG = SampleOptions(side=64, colours=ColourOptions())


def tiles(height: int, width: int) -> np.ndarray:
    """Four by four tiles, numbered from 0."""
    return (np.arange(height)[:, None] * 4 // height) * 4 + np.arange(width)[None] * 4 // width


def painted(k: int, height: int, width: int) -> tuple[np.ndarray, MaskSet]:
    """A photograph whose red channel tells its tile, the green one the photograph; masks: a half, its tiles, and a quarter of one tile."""
    number = tiles(height, width)
    pixels = np.stack([number * 12 + 30, np.full_like(number, 60 + 50 * k), np.full_like(number, 90)], -1).astype(np.uint8)
    dense = [number < 8, *(number == tile for tile in range(8))]
    parents = [None] + [9 * k + 1] * 8
    masks = [
        Mask(9 * k + n + 1, k + 1, encode(m), int(m.sum()), (0, 0, 0, 0), parent_id=above)
        for n, (m, above) in enumerate(zip(dense, parents, strict=True))
    ]
    return pixels, MaskSet(Image(k + 1, f"{k}.png", width, height), tuple(masks))


Data = tuple[MaskIndex, tuple[Source, ...]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("samples")
    (folder / "photos").mkdir()
    with (folder / "masks.json").open("wb") as file:
        writer = MasksWriter(file, MasksHeader())
        for k, size in enumerate([(96, 128), (128, 80), (100, 100)]):
            pixels, masks = painted(k, *size)
            Picture.fromarray(pixels).save(folder / "photos" / f"{k}.png")
            writer.write(masks)
        writer.finish()
    sources = list_sources([str(folder / "photos")]).items
    return open_mask_index(sources, folder / "masks.json", IndexOptions(), folder / "index", failures=Failures(skip=False)), sources


def draw(data: Data, seed: int, options: SampleOptions, place: int = 0) -> Sample:
    return draw_sample(*data, place, np.random.default_rng(seed), options)


def same(a: object, b: object) -> bool:
    found: list[torch.Tensor] = []
    for batch in (a, b):
        map_tensors(batch, lambda tensor: found.append(tensor) or tensor)
    half = len(found) // 2
    return len(found) % 2 == 0 and all(torch.equal(x, y) for x, y in zip(found[:half], found[half:], strict=True))


@pytest.mark.parametrize("options", [PLAIN, PASTED, STRONG, SampleOptions(side=64, scales=None), SampleOptions(side=60, stride=2)])
def test_shapes_and_dtypes(data: Data, options: SampleOptions) -> None:
    for seed in range(12):
        found = draw(data, seed, options, seed % 3)
        n, places = len(found.masks), options.side // options.stride
        assert (found.image.shape, found.image.dtype) == ((3, options.side, options.side), torch.uint8)
        assert (found.masks.shape, found.masks.dtype) == ((n, places, places), torch.uint8)
        assert (found.ancestors.shape, found.ancestors.dtype) == ((n, n), torch.bool)
        assert found.masks.max() <= 1
        assert (found.masks.sum((1, 2)) >= options.min_points).all()


@pytest.mark.parametrize("options", [PLAIN, PASTED])
def test_masks_lie_where_their_pixels_are(data: Data, options: SampleOptions) -> None:
    """A tile's mask, drawn back, shows one red level; who is above whom is as it was."""
    pasted = 0
    for seed in range(40):
        found = draw(data, seed, options, seed % 3)
        if found.view.scaled_height < 48:
            continue
        image = found.image.numpy()
        wholes = found.ancestors.any(1).numpy()
        for k, mask in enumerate(found.masks.numpy().astype(bool)):
            inner = mask.copy()
            inner[1:-1, 1:-1] &= mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
            inner[[0, -1]] = inner[:, [0, -1]] = False
            red, green = image[0, 2::4, 2::4][inner], image[1, 2::4, 2::4][inner]
            if not len(red):
                continue
            assert np.ptp(green.astype(int)) <= 2
            pasted += bool(abs(int(green[0]) - (60 + 50 * (seed % 3))) > 2)
            if not wholes[k] and found.ancestors[:, k].any():
                assert np.ptp(red.astype(int)) <= 2
        for whole, part in found.ancestors.nonzero().tolist():
            assert (found.masks[part] <= found.masks[whole]).all()
    assert (pasted > 4) == (options is PASTED)


def test_what_is_pasted_is_of_another_photograph(data: Data) -> None:
    index, sources = data
    asked: list[int] = []

    class Watched:
        def __len__(self) -> int:
            return len(index)

        def __getitem__(self, k: int) -> ImageMasks:
            asked.append(k)
            return index[k]

    for seed in range(30):
        draw_sample(Watched(), sources, 1, np.random.default_rng(seed), PASTED)  # type: ignore[arg-type]
    assert asked[::2] == [1] * 30
    assert set(asked[1::2]) == {0, 2}


def test_what_is_hardly_seen_is_no_target(data: Data) -> None:
    strict = SampleOptions(side=64, paste=None, min_visible=0.999, scales=(2.0, 2.0))
    for seed in range(10):
        some, whole = draw(data, seed, SampleOptions(side=64, paste=None, scales=(2.0, 2.0))), draw(data, seed, strict)
        assert len(whole.masks) < len(some.masks)
        assert torch.equal(some.image, whole.image)


def test_a_sample_without_masks(data: Data) -> None:
    none = SampleOptions(side=64, paste=None, scales=(0.1, 0.1), min_points=100)
    found = draw(data, 0, none)
    assert found.masks.shape == (0, 16, 16)
    assert found.ancestors.shape == (0, 0)
    batch = collate([found, draw(data, 1, PLAIN)])
    assert batch.masks[0].shape == (0, 16, 16)
    pasted = draw(data, 1, SampleOptions(side=64, scales=(0.1, 0.1), min_points=20, paste=PasteOptions(1.0, (1.0, 1.0))))
    assert len(pasted.masks)  # pasted onto nothing


def test_a_batch_is_a_function_of_seed_step_and_rank(data: Data) -> None:
    index, sources = data

    def batch(seed: int = 0, step: int = 3, rank: int = 1, world: int = 2) -> object:
        return draw_batch(index, sources, STRONG, seed=seed, step=step, rank=rank, world=world, size=3)

    first = batch()
    assert same(first, batch())
    assert not any(same(first, other) for other in (batch(seed=1), batch(step=4), batch(rank=0)))
    ranks = [draw_batch(index, sources, PLAIN, seed=0, step=0, rank=rank, world=2, size=3).views for rank in range(2)]
    sizes = [[max(view.scaled_height, view.scaled_width) for view in views] for views in ranks]
    assert len({*sizes[0], *sizes[1]}) == 6  # not the same views of other photographs
    assert [p for step in range(2) for rank in range(2) for p in batch_places(8, seed=1, step=step, rank=rank, world=2, size=2)] == [
        p for step in range(4) for p in batch_places(8, seed=1, step=step, rank=0, world=1, size=2)
    ]
    assert sorted(p for k in range(4) for p in batch_places(8, seed=1, step=k, rank=0, world=1, size=2)) == list(range(8))


def test_batches_travel(data: Data) -> None:
    batch = draw_batch(*data, PASTED, seed=0, step=0, rank=0, world=1, size=3)
    assert batch.images.shape == (3, 3, 64, 64)
    assert count_samples(batch) == 3
    moved = to_device(batch, torch.device("cpu"), channels_last=True)
    assert type(moved) is type(batch)
    assert same(moved, batch)
    assert moved.views == batch.views
    assert [len(masks) for masks in batch.masks] == [len(above) for above in batch.ancestors]
    with pytest.raises(ValueError, match="no samples"):
        collate([])
    with pytest.raises(ValueError, match="not a multiple"):
        SampleOptions(side=62)


def test_pairs_show_one_photograph(data: Data) -> None:
    """What the weak view has as red levels, carried over, is what the strong view shows; without colours, to see it."""
    pairs = draw_pairs(data[1], [0, 1, 2, 0], np.random.default_rng(0), SampleOptions(side=64, scales=(0.8, 2.0)))
    assert pairs.weak.shape == pairs.strong.shape == (4, 3, 64, 64)
    for weak, strong, seen, wanted in zip(*pairs, strict=True):
        carried = carry(weak, seen, wanted, 64).int()
        shown = carried[2] > 0
        assert shown.float().mean() > 0.3
        assert ((carried - strong.int()).abs().amax(0)[shown] <= 3).float().mean() > 0.8
    changed = draw_pairs(
        data[1], [0, 1, 2, 0], np.random.default_rng(0), SampleOptions(side=64, scales=(0.8, 2.0), colours=ColourOptions())
    )
    assert not torch.equal(changed.strong, pairs.strong)
    assert torch.equal(changed.weak[0], pairs.weak[0])
    assert len({view.mirrored for view in draw_pairs(data[1], [0] * 20, np.random.default_rng(0), PLAIN).weak_views}) == 2


def test_photographs_that_do_not_fit(data: Data, tmp_path: Path) -> None:
    index, sources = data
    swapped = (sources[1], *sources[1:])
    with pytest.raises(InputError, match=r"1\.png is 80×128, but its masks are 128×96"):
        draw_sample(index, swapped, 0, np.random.default_rng(0), PLAIN)
    with pytest.raises(MissingInputError):
        read_photograph(Source(1, "gone.png", str(tmp_path / "gone.png")))
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"bad\.png"):
        read_photograph(Source(1, "bad.png", str(tmp_path / "bad.png")))


def test_a_photograph_that_cannot_be_used_is_passed_over(data: Data, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    index, sources = data
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    bad = Source(1, "bad.png", str(tmp_path / "bad.png"))
    photographs = (bad, *sources[1:])
    numbers = {"seed": 3, "step": 0, "rank": 0, "world": 1, "size": 9}  # three rounds of three photographs
    assert set(batch_places(3, seed=3, step=0, rank=0, world=1, size=9)) == {0, 1, 2}
    with pytest.raises(InputError, match=r"bad\.png"):
        draw_batch(index, photographs, PLAIN, **numbers, failures=Failures(skip=False))
    failures = Failures(skip=True)
    passed = draw_batch(index, photographs, PLAIN, **numbers, failures=failures)
    assert failures.count == 1  # drawn three times, named once
    assert sum("bad.png" in record.message for record in caplog.records) == 1
    places = [place or 1 for place in batch_places(3, seed=3, step=0, rank=0, world=1, size=9)]
    expected = collate([draw_sample(index, sources, place, np.random.default_rng((3, 0, 0, n)), PLAIN) for n, place in enumerate(places)])
    assert same(passed, expected)
    pairs = draw_pairs(photographs, [0, 2], np.random.default_rng(0), PLAIN, failures)
    assert same(pairs, draw_pairs(photographs, [1, 2], np.random.default_rng(0), PLAIN))
    with pytest.raises(InputError, match=r"bad\.png"):
        draw_pairs((bad, bad), [0], np.random.default_rng(0), PLAIN, failures)


def test_a_disk_that_is_gone_is_not_walked_to_its_end(data: Data, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked: list[str] = []

    class Gone(Source):
        def read(self) -> bytes:
            asked.append(self.file_name)
            return super().read()

    photographs = [Gone(k, f"{k}.png", str(tmp_path / f"{k}.png")) for k in range(1, 3 * GIVE_UP)]
    failures = Failures(skip=True)
    with pytest.raises(MissingInputError, match=rf"105\.png.*; {GIVE_UP} photographs in a row cannot be used"):
        draw_pairs(photographs, [5], np.random.default_rng(0), PLAIN, failures)
    assert len(asked) == len({*asked}) == GIVE_UP
    assert failures.count == GIVE_UP - 1
    # One fewer, and there is one to take their place.
    good = [*photographs[: GIVE_UP - 1], data[1][0]]
    assert draw_pairs(good, [0], np.random.default_rng(0), PLAIN, failures).weak.shape == (1, 3, 64, 64)


def test_photographs_in_a_tar(data: Data, tmp_path: Path) -> None:
    _, sources = data
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        for source in sources:
            archive.add(source.path, f"deep/{source.file_name}")
    packed = list_sources([str(tmp_path / "photos.tar")]).items[::-1]  # another order than the masks file's
    masks = Path(sources[0].path).parents[1] / "masks.json"
    index = open_mask_index(packed, masks, IndexOptions(), tmp_path / "index", failures=Failures(skip=False))
    for place in range(3):
        assert same(draw((index, packed), 5, PASTED, place), draw(data, 5, PASTED, place))


def test_strong_colours_change_pixels_as_often_as_asked() -> None:
    image = np.full((40, 60, 3), (200, 60, 90), np.uint8)
    rng = np.random.default_rng(0)
    changed = [strongly_changed(image, rng, ColourOptions(erase=0.0)) for _ in range(300)]
    grey = np.mean([np.ptp(view[0, 0].astype(int)) <= 2 for view in changed])
    same_as_before = np.mean([(view == image).all() for view in changed])
    assert 0.14 < grey < 0.27
    assert 0.1 < same_as_before < 0.23  # (1 − 0.8)(1 − 0.2): blur leaves a flat image as it is
    nothing = ColourOptions(jitter=0.0, grey=0.0, blur=0.0, erase=0.0)
    assert all((strongly_changed(image, rng, nothing) == image).all() for _ in range(5))
    assert (image == (200, 60, 90)).all()


def test_what_is_erased_is_a_rectangle_within_bounds() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(100):
        gone = (erased(image, rng, ColourOptions()) > 0).any(-1)
        rows, columns = np.flatnonzero(gone.any(1)), np.flatnonzero(gone.any(0))
        assert gone[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.99
        shares.append(gone.mean())
    assert 0.015 < min(shares) < max(shares) < 0.21
    assert np.mean(shares) == pytest.approx(0.11, abs=0.02)
    assert not image.any()
