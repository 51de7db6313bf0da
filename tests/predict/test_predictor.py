"""What a segmenter sees, as masks of the image: the same in any batch, with scores, sizes and parents that belong together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torch import nn

from ovskit.core.formats.photographs.sources import Source, list_sources
from ovskit.core.masks import rle
from ovskit.core.masks.runs import run_table
from ovskit.core.models.segmenter.forest import forest
from ovskit.core.models.segmenter.network import Predictions
from ovskit.core.predict.predictor import PredictOptions, frame_size, pooled, predict_masks
from ovskit.core.records import MaskSet
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.failures import Failures
from ovskit.core.train.recipes.segment import SegmentSettings, new_segmenter

CPU = torch.device("cpu")
SETTINGS = SegmentSettings(size="tiny", queries=12, backbone="timm:test_vit", side=64)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, ...]:
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for k, size in enumerate([(50, 80), (80, 50), (64, 64), (33, 97), (50, 80)]):
        Picture.fromarray(rng.integers(0, 255, (*size, 3)).astype(np.uint8)).resize(size[::-1], Picture.Resampling.BILINEAR).save(
            folder / f"{k}.png"
        )
    return list_sources([str(folder)]).items


@pytest.fixture(scope="module")
def segmenter() -> Any:
    return new_segmenter(SETTINGS, weights=None, pretrained=False, seed=0).eval()


def predicted(sources: Sequence[Source], segmenter: Any, **changes: Any) -> list[MaskSet]:
    return list(predict_masks(sources, segmenter, PredictOptions(**{"size": 96, **changes}), Failures(skip=False), device=CPU))


def test_masks_are_the_images_own(photographs: tuple[Source, ...], segmenter: Any) -> None:
    found = predicted(photographs, segmenter)
    assert [masks.image.file_name for masks in found] == [source.file_name for source in photographs]
    assert sum(len(masks.masks) for masks in found) > 10
    for masks in found:
        scores = [mask.score or 0 for mask in masks.masks]
        assert scores == sorted(scores, reverse=True)
        ids = {mask.id for mask in masks.masks}
        for mask in masks.masks:
            assert (mask.rle.height, mask.rle.width) == (masks.image.height, masks.image.width)
            assert mask.area == rle.area(mask.rle) > 0
            assert mask.bbox == rle.bbox(mask.rle)
            assert mask.parent_id is None or mask.parent_id in ids - {mask.id}


@pytest.mark.parametrize("changes", [{"batch_size": 3}, {"workers": 3}, {"batch_size": 2, "workers": 2}])
def test_neither_batch_nor_workers_matter(photographs: tuple[Source, ...], segmenter: Any, changes: dict[str, int]) -> None:
    assert predicted(photographs, segmenter, **changes) == predicted(photographs, segmenter)


class Says(nn.Module):
    """A segmenter that always says the same."""

    def __init__(self, masks: torch.Tensor, scores: list[float], ancestors: torch.Tensor) -> None:
        super().__init__()
        self.masks, self.chance, self.above = masks, torch.tensor(scores), ancestors

    def forward(self, images: torch.Tensor, queries: int | None = None) -> Predictions:
        count = len(images)
        height, width = images.shape[2] // 4, images.shape[3] // 4
        logits = nn.functional.interpolate(self.masks[None].float() * 60 - 30, (height, width), mode="nearest")
        classes = torch.stack([self.chance.log(), (1 - self.chance).log()], dim=1)[None]
        return Predictions([classes.expand(count, -1, -1)], [logits.expand(count, -1, -1, -1)], self.above[None].expand(count, -1, -1))


def quarters() -> tuple[torch.Tensor, torch.Tensor]:
    masks = torch.zeros(4, 8, 8, dtype=torch.bool)
    masks[0], masks[1, :, :4], masks[2, :4, :4], masks[3, :, :4] = True, True, True, True
    masks[3, 7, 3] = False  # all but the same as the second
    above = torch.full((4, 4), -30.0)
    above[0, 1] = above[0, 2] = above[1, 2] = above[0, 3] = 30.0
    return masks, above


def test_scores_parents_and_limits(photographs: tuple[Source, ...]) -> None:
    masks, above = quarters()
    says = Says(masks, [0.5, 0.9, 0.7, 0.3], above)
    one = predicted(photographs[2:3], says)[0]
    assert [mask.score for mask in one.masks] == pytest.approx([0.9, 0.7, 0.5, 0.3], abs=1e-5)
    # Corners of interpolated masks lose a pixel.
    assert [mask.area for mask in one.masks] == pytest.approx([2048, 1024, 4096, 1984], abs=2)
    assert [mask.parent_id for mask in one.masks] == [3, 1, None, 3]
    assert [mask.area for mask in predicted(photographs[2:3], says, max_masks=2)[0].masks] == [one.masks[0].area, one.masks[1].area]
    assert len(predicted(photographs[2:3], says, min_score=0.6)[0].masks) == 2
    assert len(predicted(photographs[2:3], says, nms=0.9)[0].masks) == 3
    assert all(mask.parent_id is None for mask in predicted(photographs[2:3], says, parents=False)[0].masks)


def test_the_forest_is_that_of_the_heads_probabilities() -> None:
    masks, above = quarters()
    areas = masks.flatten(1).sum(1).numpy()
    assert forest(above.sigmoid().numpy(), areas).tolist() == [-1, 0, 1, 0]


def test_several_scales_are_pooled(photographs: tuple[Source, ...]) -> None:
    masks, above = quarters()
    says = Says(masks, [0.5, 0.9, 0.7, 0.3], above)
    one = predicted(photographs[2:3], says, scales=(1.0, 2.0), nms=0.95, parents=False)[0]
    assert [mask.area for mask in one.masks] == pytest.approx([2048, 1024, 4096], abs=2)
    with pytest.raises(UsageError, match="several scales"):
        PredictOptions(scales=(1.0, 2.0))


@pytest.mark.parametrize("given", [{"size": 10**8}, {"size": 512, "scales": (1.0, 1e9), "parents": False}])
def test_a_size_beyond_any_memory_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="at most 16384 pixels"):
        PredictOptions(**given)


def test_nothing_seen_is_no_mask(photographs: tuple[Source, ...]) -> None:
    found = predicted(photographs, Says(torch.zeros(2, 8, 8, dtype=torch.bool), [0.9, 0.9], torch.zeros(2, 2)))
    assert [len(masks.masks) for masks in found] == [0] * 5


@pytest.mark.parametrize(
    ("size", "frame"), [((480, 640), (384, 512)), ((640, 480), (512, 384)), ((10, 2000), (32, 512)), ((5, 5), (512, 512))]
)
def test_aspect_is_kept(size: tuple[int, int], frame: tuple[int, int]) -> None:
    assert frame_size(512, *size) == frame


def test_pooled_scores_are_the_chance_that_one_is_right() -> None:
    rng = np.random.default_rng(0)
    masks = [np.zeros((12, 12), np.uint8) for _ in range(20)]
    for mask in masks:
        top, left = rng.integers(0, 4, 2)
        mask[top : top + 6, left : left + 6] = 1
    scores = rng.random(20).astype(np.float32)
    scores[3] = 1.0
    wanted = []
    for a in masks:
        wrong = 1.0
        for b, score in zip(masks, scores.tolist(), strict=True):
            if (a & b).sum() / (a | b).sum() > 0.5:
                wrong *= 1 - score
        wanted.append(1 - wrong)
    found = pooled(run_table([rle.encode(mask) for mask in masks]), scores, 0.5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    np.testing.assert_allclose(pooled(run_table([rle.encode(masks[0])]), scores[:1], 0.9), scores[:1], rtol=1e-6)


def test_what_cannot_be_read(photographs: tuple[Source, ...], segmenter: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    sources = [*list_sources([str(tmp_path)]).items, photographs[0]]
    with pytest.raises(InputError, match=r"a\.png"):
        predicted(sources, segmenter)
    failures = Failures(skip=True)
    assert len(list(predict_masks(sources, segmenter, PredictOptions(size=64), failures, device=CPU))) == 1
    assert failures.count == 1
