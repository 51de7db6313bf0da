"""The pipeline around a stand-in backbone whose features tell which pixels they saw."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from ovskit.core.extract.options import ExtractOptions
from ovskit.core.extract.pipeline import BLOCK_ROWS, extract_features, frame_size
from ovskit.core.formats.photographs.sources import Source, list_sources
from ovskit.core.models.backbones.interface import BackboneSpec, Features
from ovskit.core.records import EmbeddingBlock, FeatureMap, UInt8
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError
from ovskit.core.runtime.failures import Failures, PartialError


class MeanColour:
    """Patch features are the mean colour of 8 × 8 pixels; the CLS is the brightest value; big batches do not fit."""

    def __init__(self, fits: int = 99, scale: float = 1.0) -> None:
        self.spec = BackboneSpec("mean", "mean", "key", -1, 8, 3, True, (0, 0, 0), (1, 1, 1), "nearest")
        self.device = torch.device("cpu")
        self.fits = fits
        self.scale = scale
        self.batches: list[int] = []

    def prepare(self, image: UInt8, height: int, width: int) -> torch.Tensor:
        resized = Pillow.fromarray(image).resize((width, height), Pillow.Resampling.NEAREST)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)

    def extract(self, batch: torch.Tensor, *, cls: bool = False, patch: bool = True) -> Features:
        if len(batch) > self.fits:
            raise torch.OutOfMemoryError
        self.batches.append(len(batch))
        means = torch.nn.functional.avg_pool2d(batch.float(), 8).permute(0, 2, 3, 1) * self.scale
        return Features(means, batch.float().amax(dim=(2, 3)) if cls else None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k in range(7):
        size = (40 + 8 * (k % 2), 24)
        Pillow.fromarray(np.full((size[1], size[0], 3), 10 * k + 1, np.uint8)).save(tmp_path / f"{k}.png")
    return tmp_path


def run(sources: tuple[Source, ...], backbone: MeanColour, failures: Failures | None = None, workers: int = 1, **options) -> list:
    failures = failures or Failures(skip=False)
    return list(extract_features(sources, backbone, ExtractOptions(**options), failures, workers=workers))


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 3, None])
def test_order_and_values_do_not_depend_on_batches_or_workers(folder: Path, workers: int, batch_size: int | None) -> None:
    maps = run(list_sources([str(folder)]).items, MeanColour(), size=(16, 32), workers=workers, batch_size=batch_size)
    assert [(m.image.id, m.image.file_name) for m in maps] == [(k + 1, f"{k}.png") for k in range(7)]
    for k, found in enumerate(maps):
        assert isinstance(found, FeatureMap)
        assert (found.image.width, found.image.height) == (40 + 8 * (k % 2), 24)
        assert found.patch.shape == (2, 4, 3)
        assert found.patch.dtype == np.float16
        assert (found.patch == 10 * k + 1).all()
        assert found.cls is None


def test_kept_sizes_are_batched_by_size(folder: Path) -> None:
    backbone = MeanColour()
    maps = run(list_sources([str(folder)]).items, backbone, size=None, batch_size=4)
    assert [m.patch.shape[:2] for m in maps] == [(3, 5 + k % 2) for k in range(7)]
    assert backbone.batches == [1] * 7


def test_what_does_not_fit_is_halved(folder: Path) -> None:
    backbone = MeanColour(fits=2)
    maps = run(list_sources([str(folder)]).items, backbone, size=(16, 16), batch_size=7, cls=True)
    assert [m.cls[0] for m in maps] == [10 * k + 1 for k in range(7)]
    assert max(backbone.batches) == 2
    with pytest.raises(MemoryError, match="does not fit"):
        run(list_sources([str(folder)]).items, MeanColour(fits=0), size=(16, 16))


def test_pooled_blocks_have_a_fixed_size(tmp_path: Path) -> None:
    image = io.BytesIO()
    Pillow.new("RGB", (8, 8), (7, 7, 7)).save(image, format="PNG")
    (tmp_path / "x.png").write_bytes(image.getvalue())
    sources = tuple(Source(k, f"{k}.png", str(tmp_path / "x.png")) for k in range(1, BLOCK_ROWS + 3))
    for batch_size in (1, 100):
        for pool in ("mean", "cls"):
            blocks = run(sources, MeanColour(), size=(8, 8), pool=pool, batch_size=batch_size, workers=2)
            assert all(isinstance(b, EmbeddingBlock) for b in blocks)
            assert [len(b.images) for b in blocks] == [BLOCK_ROWS, 2]
            assert all((b.rows == 7).all() for b in blocks)


def test_a_bad_image_ends_the_run_or_is_skipped_and_counted(folder: Path) -> None:
    (folder / "3.png").write_bytes(b"not a picture")
    (folder / "5.png").unlink()
    (folder / "5.png").symlink_to(folder / "nowhere.png")
    sources = list_sources([str(folder)]).items
    with pytest.raises(InputError, match=r"3\.png"):
        run(sources, MeanColour(), size=(8, 8), workers=3)
    with pytest.raises(MissingInputError, match=r"5\.png"):
        run(sources[4:], MeanColour(), size=(8, 8))
    failures = Failures(skip=True)
    maps = run(sources, MeanColour(), failures, size=(8, 8), workers=3)
    assert [m.image.id for m in maps] == [1, 2, 3, 5, 7]
    with pytest.raises(PartialError, match="skipped 2 images"):
        failures.report(len(maps))


def test_what_float16_cannot_hold_is_an_error_with_a_remedy(folder: Path) -> None:
    sources = list_sources([str(folder)]).items
    with pytest.raises(InputError, match="--dtype float32"):
        run(sources, MeanColour(scale=1e4), size=(8, 8))
    assert run(sources, MeanColour(scale=1e4), size=(8, 8), dtype="float32")[6].patch[0, 0, 0] == 61e4


@pytest.mark.parametrize("pool", [None, "mean"])
@pytest.mark.parametrize("storage", ["float16", "float32"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_number_that_is_none_is_an_error_wherever_it_is(folder: Path, value: float, storage: str, pool: str | None) -> None:
    class OneWrong(MeanColour):
        def extract(self, batch: torch.Tensor, *, cls: bool = False, patch: bool = True) -> Features:
            features = super().extract(batch, cls=cls, patch=patch)
            for k in range(len(batch)):
                if batch[k, 0, 0, 0] == 31:
                    features.patch[k, -1, 1, 2] = value
            return features

    with pytest.raises(InputError, match=rf"3\.png: a feature is not finite as {storage}"):
        run(list_sources([str(folder)]).items, OneWrong(), size=(16, 32), batch_size=4, dtype=storage, pool=pool)


def test_frames_are_whole_patches() -> None:
    assert frame_size((1024, 1024), 14, 480, 640) == (1022, 1022)
    assert frame_size(None, 8, 3, 101) == (8, 104)


@pytest.mark.parametrize("size", [(0, 32), (16, 20_000)])
def test_a_size_that_makes_no_sense_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="from 1 to 16384"):
        ExtractOptions(size=size)
