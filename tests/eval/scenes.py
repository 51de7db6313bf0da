"""Random ground truth and predictions, as our records and as pycocotools wants them, and what pycocotools says of them."""

import contextlib
import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ovskit.core.formats.truth.ground_truth import GroundTruth
from ovskit.core.masks import rle
from ovskit.core.records import Image, Mask, MaskSet


def mask(pixels: np.ndarray, number: int, image: int = 1, **keys: Any) -> Mask:
    """A mask of these pixels; ``keys`` are fields of the record or extra keys of the annotation."""
    found = rle.encode(np.asarray(pixels, np.uint8))
    own = {name: keys.pop(name) for name in ("category_id", "iscrowd", "score", "parent_id") if name in keys}
    return Mask(number, image, found, rle.area(found), rle.bbox(found), extra=keys, **own)


def box(height: int, width: int, top: int, left: int, rows: int, cols: int) -> np.ndarray:
    """A rectangle of ones."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[top : top + rows, left : left + cols] = 1
    return pixels


def truth_of(*sets: MaskSet) -> GroundTruth:
    return GroundTruth("the ground truth", [s.image for s in sets], sets.__getitem__)


@dataclass(frozen=True)
class Scene:
    truth: list[MaskSet]
    predictions: list[MaskSet]


def scene(seed: int, images: int = 6, most: int = 14, side: int = 110, distinct: bool = False, annotators: bool = False) -> Scene:
    """Everything that decides a tie or a rule somewhere: repeated masks and scores, crowds, areas on the bounds, empty images.

    ``distinct`` gives every prediction a score of its own; ``annotators`` names 1, 2 or 3 for every annotation.
    """
    random = np.random.default_rng(seed)
    sizes = [8, 20, 32, 32, 60, 96, 96, 100]
    numbers = random.permutation(np.arange(1, 10_000))[: 4 * images * most].tolist()
    scores = random.permutation(images * most) / (images * most)

    def shape() -> np.ndarray:
        rows, cols = random.choice(sizes, 2) if random.random() < 0.5 else np.repeat(random.choice(sizes), 2)
        return box(side, side, random.integers(0, side - 8), random.integers(0, side - 8), rows, cols)

    truth, predictions = [], []
    for image_id in random.permutation(np.arange(1, images + 1)).tolist():
        image = Image(image_id, f"{image_id}.jpg", side, side)
        shapes = [shape() for _ in range(random.integers(0, 7))]
        shapes += [shapes[k] for k in random.integers(0, len(shapes), 2)] if shapes else []
        masks = []
        for pixels in shapes:
            stated: dict[str, Any] = {"area": float(random.choice([1024, 1025, 9216, 50]))} if random.random() < 0.3 else {}
            crowd, category = int(random.random() < 0.2), int(random.integers(1, 4))
            if annotators:
                stated["annotator"] = category
            masks.append(mask(pixels, numbers.pop(), image_id, category_id=category, iscrowd=crowd, **stated))
        truth.append(MaskSet(image, tuple(masks)))
        found = []
        for k in range(random.integers(0, most)):
            if shapes and random.random() < 0.8:
                pixels = np.roll(shapes[random.integers(len(shapes))], random.integers(-4, 5, 2), (0, 1))
            else:
                pixels = shape()
            score = scores[image_id * most - k - 1] if distinct else random.integers(0, 5) / 4
            found.append(mask(pixels, k + 1, image_id, category_id=int(random.integers(1, 4)), score=float(score)))
        predictions.append(MaskSet(image, tuple(found)))
    order = random.permutation(images)
    return Scene(truth, [predictions[k] for k in order])


def repeated(data: Scene, times: dict[int, int]) -> Scene:
    """The scene with image ``id`` there ``times[id]`` times, copies beside each other."""
    truth, predictions = [], []
    for sets, out in ((data.truth, truth), (data.predictions, predictions)):
        for masks in sets:
            for copy in range(times.get(masks.image.id, 0)):
                image = replace(masks.image, id=1000 * masks.image.id + copy, file_name=f"{masks.image.id}-{copy}.jpg")
                out.append(MaskSet(image, tuple(replace(m, image_id=image.id, id=20 * m.id + copy) for m in masks.masks)))
    return Scene(truth, predictions)


def judge(data: Scene, maxima: tuple[int, ...], *, by_category: bool = False) -> dict[str, float | None]:
    """All AR and AP by pycocotools, None where it has -1."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        categories = sorted({m.category_id for side in (data.truth, data.predictions) for s in side for m in s.masks} | {1})
        coco.dataset = {
            "images": [{"id": s.image.id, "width": s.image.width, "height": s.image.height} for s in data.truth],
            "annotations": [as_coco(m) for s in data.truth for m in s.masks],
            "categories": [{"id": c} for c in categories],
        }
        coco.createIndex()
        results = [as_coco(m) for s in data.predictions for m in s.masks]
        found = COCO()
        found.dataset = {**coco.dataset, "annotations": []}
        if results:
            found = coco.loadRes(results)
        else:
            found.createIndex()
        judge = COCOeval(coco, found, "segm")
        judge.params.useCats = int(by_category)
        judge.params.maxDets = list(maxima)
        judge.evaluate()
        judge.accumulate()
    precision, recall = judge.eval["precision"], judge.eval["recall"]
    values = {f"AR@{most}": recall[:, :, 0, k] for k, most in enumerate(maxima)}
    values |= {f"AR_{name}": recall[:, :, a, -1] for a, name in ((1, "S"), (2, "M"), (3, "L"))}
    values |= {"AP": precision[..., 0, -1], "AP50": precision[0, ..., 0, -1], "AP75": precision[5, ..., 0, -1]}
    values |= {f"AP_{name}": precision[..., a, -1] for a, name in ((1, "S"), (2, "M"), (3, "L"))}
    return {name: float(found[found > -1].mean()) if (found > -1).any() else None for name, found in values.items()}


def as_coco(m: Mask) -> dict[str, Any]:
    """An annotation or result. Without a box: given one, ``loadRes`` takes the box's area for the mask's."""
    value = {"id": m.id, "image_id": m.image_id, "category_id": m.category_id, "iscrowd": m.iscrowd, "area": m.extra.get("area", m.area)}
    value["segmentation"] = {"size": [m.rle.height, m.rle.width], "counts": m.rle.counts.decode()}
    return value if m.score is None else {**value, "score": m.score}
