"""The cache of photographs and segments: what is in it, and what it refuses."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovskit.core.formats.photographs.sources import Source, list_sources
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
from ovskit.core.masks.rle import encode
from ovskit.core.models.superpixels import superpixels
from ovskit.core.records import Image as ImageRecord
from ovskit.core.records import Mask, MaskSet
from ovskit.core.runtime.errors import InputError, MissingInputError, OutputError
from ovskit.core.runtime.failures import Failures, PartialError
from ovskit.core.train.data.pool_cache import MaskOptions, PoolCache, SegmentOptions, open_pool

OPTIONS = SegmentOptions(shorter_side=48, scales=(100.0, 1000.0), smallest=8)
STRICT = Failures(skip=False)


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """Coloured rectangles with a little noise."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3), np.int64) + rng.integers(40, 200, 3)
    for _ in range(5):
        y, x = rng.integers(0, height - 8), rng.integers(0, width - 8)
        pixels[y : y + rng.integers(8, height), x : x + rng.integers(8, width)] = rng.integers(40, 200, 3)
    return np.clip(pixels + rng.integers(-3, 4, pixels.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for k, (height, width) in enumerate([(48, 64), (70, 48), (48, 51), (96, 160)]):
        Image.fromarray(picture(k, height, width)).save(folder / f"{k}.png")
    return folder


def sources(folder: Path) -> tuple[Source, ...]:
    return list_sources([str(folder)], root=None).items


def test_the_cache_holds_the_pixels_and_their_segments(photographs: Path, tmp_path: Path) -> None:
    cache = open_pool(sources(photographs), OPTIONS, tmp_path / "cache", workers=1, failures=STRICT)
    assert len(cache) == 4
    assert cache.levels == 2
    assert cache.names == ["0.png", "1.png", "2.png", "3.png"]
    for k in range(3):
        pixels = np.asarray(Image.open(photographs / f"{k}.png"))
        image, labels = cache[k]
        np.testing.assert_array_equal(image, pixels)
        found = superpixels(pixels, OPTIONS.scales, OPTIONS.smallest, pixels.size)
        assert labels.shape == (pixels.shape[0] // 2, pixels.shape[1] // 2, 2)
        for level in range(2):
            np.testing.assert_array_equal(labels[..., level], found.labels[level].T[1::2, 1::2][: labels.shape[0], : labels.shape[1]] % 256)
    assert cache[3][0].shape == (48, 80, 3)  # shrunk


def test_any_number_of_workers_makes_the_same_bytes(photographs: Path, tmp_path: Path) -> None:
    for workers in (1, 3):
        open_pool(sources(photographs), OPTIONS, tmp_path / f"cache{workers}", workers=workers, failures=STRICT)
    for name in ("images.npy", "labels.npy"):
        assert (tmp_path / "cache1" / name).read_bytes() == (tmp_path / "cache3" / name).read_bytes()


def test_a_complete_cache_is_used_again(photographs: Path, tmp_path: Path) -> None:
    listed = sources(photographs)
    open_pool(listed, OPTIONS, tmp_path / "cache", workers=1, failures=STRICT)
    for k in range(4):  # were it made again, there would be nothing to read
        (photographs / f"{k}.png").write_bytes((photographs / f"{k}.png").read_bytes()[::-1])
    assert len(open_pool(listed, OPTIONS, tmp_path / "cache", workers=1, failures=STRICT)) == 4


def test_a_cache_of_something_else_is_refused(photographs: Path, tmp_path: Path) -> None:
    open_pool(sources(photographs), OPTIONS, tmp_path / "cache", workers=1, failures=STRICT)
    with pytest.raises(InputError, match="other photographs or with other segments"):
        open_pool(sources(photographs), SegmentOptions(scales=(100.0,)), tmp_path / "cache", workers=1, failures=STRICT)
    with pytest.raises(InputError, match="other photographs"):
        open_pool(sources(photographs)[1:], OPTIONS, tmp_path / "cache", workers=1, failures=STRICT)


def test_what_cannot_be_used_is_named_and_skipped(photographs: Path, tmp_path: Path) -> None:
    (photographs / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    Image.fromarray(picture(9, 40, 20)).save(photographs / "2.png")
    with pytest.raises(InputError, match=r"1\.png"):
        open_pool(sources(photographs), OPTIONS, tmp_path / "cache", workers=1, failures=STRICT)
    assert not (tmp_path / "cache").exists()
    assert not list(tmp_path.glob(".cache*"))
    failures = Failures(skip=True)
    cache = open_pool(sources(photographs), OPTIONS, tmp_path / "cache", workers=2, failures=failures)
    assert cache.names == ["0.png", "3.png"]
    assert failures.count == 2
    with pytest.raises(PartialError):
        failures.report(len(cache))


def test_nothing_left_to_train_on(photographs: Path, tmp_path: Path) -> None:
    for path in photographs.iterdir():
        path.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InputError, match="no photograph is left"):
        open_pool(sources(photographs), OPTIONS, tmp_path / "cache", workers=1, failures=Failures(skip=True))
    assert not list(tmp_path.glob("*cache*"))


def test_a_folder_that_holds_something_is_not_replaced(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "mine.txt").write_text("kept")
    with pytest.raises(OutputError, match="cannot write the cache"):
        open_pool(sources(photographs), OPTIONS, tmp_path / "cache", workers=1, failures=STRICT)
    assert (tmp_path / "cache" / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "index.npz"])
def test_a_damaged_cache_is_refused(photographs: Path, tmp_path: Path, name: str) -> None:
    open_pool(sources(photographs), OPTIONS, tmp_path / "cache", workers=1, failures=STRICT)
    path = tmp_path / "cache" / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged cache"):
        PoolCache(tmp_path / "cache")
    path.unlink()
    with pytest.raises(MissingInputError, match="no cache"):
        PoolCache(tmp_path / "cache")


def test_nothing_is_unpickled(photographs: Path, tmp_path: Path) -> None:
    open_pool(sources(photographs), OPTIONS, tmp_path / "cache", workers=1, failures=STRICT)
    buffer = io.BytesIO()
    np.save(buffer, np.array([print], dtype=object), allow_pickle=True)
    for name in ("images.npy", "index.npz"):  # the latter is looked at first
        (tmp_path / "cache" / name).write_bytes(buffer.getvalue())
        with pytest.raises(InputError, match=rf"a damaged cache \({name} cannot be read\); delete the folder"):
            PoolCache(tmp_path / "cache")


def halves(name: str, k: int, height: int, width: int) -> MaskSet:
    """The left half, the right one and a quarter of the left one."""
    left = np.zeros((height, width), np.uint8)
    left[:, : width // 2] = 1
    corner = left.copy()
    corner[height // 2 :] = 0
    masks = [
        Mask(n + 1, k, rle, int(pixels.sum()), (0, 0, 0, 0)) for n, pixels in enumerate((left, 1 - left, corner)) if (rle := encode(pixels))
    ]
    return MaskSet(ImageRecord(k, name, width, height), tuple(masks))


def write_masks(path: Path, sets: list[MaskSet]) -> Path:
    with path.open("wb") as file:
        writer = MasksWriter(file, MasksHeader())
        for masks in sets:
            writer.write(masks)
        writer.finish()
    return path


def test_segments_can_come_from_masks(photographs: Path, tmp_path: Path) -> None:
    sizes = [(48, 64), (70, 48), (48, 51), (96, 160)]
    path = write_masks(tmp_path / "masks.json", [halves(f"{k}.png", k + 1, *size) for k, size in enumerate(sizes)])
    masks = MaskOptions(path, (0.1, 0.4))
    cache = open_pool(sources(photographs), OPTIONS, tmp_path / "cache", workers=2, failures=STRICT, masks=masks)
    assert cache.levels == 2
    for k in range(4):
        image, labels = cache[k]
        assert labels.shape == (image.shape[0] // 2, image.shape[1] // 2, 2)
        assert [len(np.unique(labels[..., level])) for level in range(2)] == [3, 2]
        assert labels[0, 0, 0] != labels[-1, 0, 0] == labels[-1, 0, 1]
    again = open_pool(sources(photographs), OPTIONS, tmp_path / "cache", workers=1, failures=STRICT, masks=masks)
    assert again.key == cache.key
    write_masks(path, [halves(f"{k}.png", k + 1, *size) for k, size in enumerate(sizes[:3])])
    with pytest.raises(InputError, match="other photographs or with other segments"):
        open_pool(sources(photographs), OPTIONS, tmp_path / "cache", workers=1, failures=STRICT, masks=masks)
    with pytest.raises(InputError, match=r"3\.png: has no masks"):
        open_pool(sources(photographs), OPTIONS, tmp_path / "other", workers=1, failures=STRICT, masks=masks)
    failures = Failures(skip=True)
    assert open_pool(sources(photographs), OPTIONS, tmp_path / "other", workers=1, failures=failures, masks=masks).names == [
        "0.png",
        "1.png",
        "2.png",
    ]
    assert failures.count == 1


def test_photographs_without_segments(photographs: Path, tmp_path: Path) -> None:
    cache = open_pool(sources(photographs), SegmentOptions(64, ()), tmp_path / "cache", workers=1, failures=STRICT)
    assert cache.levels == 0
    assert cache[3][0].shape == (64, 107, 3)
    assert cache[3][1].shape == (32, 53, 0)
