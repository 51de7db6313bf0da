"""Mask sets to show, made without the code under test: masks are encoded by pycocotools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pycocotools import mask as coco_mask

from ovskit.core.records import Image, Mask, MaskSet, Rle
from ovskit.core.show.scene import Scene
from ovskit.core.show.truth_matches import judge

Dense = npt.NDArray[np.bool_]


def build_masks(
    dense: Sequence[Dense],
    *,
    size: tuple[int, int],
    name: str = "a.jpg",
    scored: bool = False,
    extras: Sequence[dict[str, Any]] = (),
    **fields: Any,
) -> MaskSet:
    """A mask set of ``size`` (height, width), ids from 1; ``fields`` hold one value per mask."""
    image = Image(1, name, size[1], size[0])
    masks = []
    for k, pixels in enumerate(dense):
        coded = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
        x, y, width, height = coco_mask.toBbox(coded).tolist()
        masks.append(
            Mask(
                id=k + 1,
                image_id=1,
                rle=Rle(size[0], size[1], coded["counts"]),
                area=int(pixels.sum()),
                bbox=(x, y, width, height),
                score=0.5 + k / 1000 if scored else None,
                extra=extras[k] if extras else {},
                **{key: values[k] for key, values in fields.items()},
            )
        )
    return MaskSet(image, tuple(masks))


def scene_of(masks: MaskSet, image: npt.NDArray[np.uint8], *, truth: MaskSet | None = None, at: float = 0.5) -> Scene:
    """A scene of one mask file, with ground truth if there is some."""
    return Scene(masks.image, image, (masks,), () if truth is None else judge([masks], truth, at))


@pytest.fixture
def mask_set() -> Callable[..., MaskSet]:
    return build_masks


@pytest.fixture
def three_masks() -> tuple[MaskSet, npt.NDArray[np.uint8]]:
    """A 20×30 image: a large mask, a smaller one inside it, a third apart; with scores, thresholds and sources."""
    dense = [np.zeros((20, 30), bool) for _ in range(3)]
    dense[0][5:8, 5:9] = True  # listed first, though the second is around it
    dense[1][2:14, 2:14] = True
    dense[2][10:18, 20:28] = True
    extras = [{"threshold": 0.6, "source": "local"}, {"threshold": 0.3, "source": "global"}, {"threshold": 0.6, "source": "global"}]
    image = np.random.default_rng(7).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    return build_masks(dense, size=(20, 30), scored=True, extras=extras), image
