"""AR and AP: ours, pycocotools and, where it is installed, faster-coco-eval; equality first, then time.

Images of 640 × 480 with wavy discs: a ground truth, a tenth of it crowds, and predictions that are shifted and scaled copies of
it or discs of their own, with scores of which many are equal. Every score is compared to 1e-9 before anything is timed, and
one that differs ends the run. All three start from annotations in memory (loading results, matching, accumulating) and give
AR@1, AR@10, AR@1000, AR and AP by area, AP50 and AP75; ours makes two evaluations for that, "ar" and "ap". Times are wall
times, the least of several runs; what is compiled is compiled before.

Parity decides: scores are of use only if everybody gets the same, so the matching is
pycocotools' rule for rule, and speed comes from looking at the pairs that overlap by half alone, from runs instead of
pixels, and from compiled loops. pycocotools itself stays the oracle of the tests. faster-coco-eval is not a dependency: it
holds all detections of all images, where ours holds sums.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from harness.arguments import bench_parser
from harness.machine import machine
from harness.measure import timed
from harness.report import show, write_json
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ovskit.core.eval.evaluation import Evaluation, evaluate
from ovskit.core.eval.registry import make_metric
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter, open_masks
from ovskit.core.formats.truth.ground_truth import GroundTruth
from ovskit.core.masks import rle
from ovskit.core.masks.boxes import encode_box
from ovskit.core.records import Image, Mask, MaskSet, Rle

HEIGHT, WIDTH = 480, 640
MAXIMA = (1, 10, 1000)
Disc = tuple[float, float, float, int]  # y, x, radius, seed of its outline


def draw(disc: Disc) -> Rle:
    """A disc whose radius waves around."""
    y, x, radius, seed = disc
    reach = 1.6 * radius
    top, left = max(0, int(y - reach)), max(0, int(x - reach))
    bottom, right = min(HEIGHT, int(y + reach) + 2), min(WIDTH, int(x + reach) + 2)
    dy, dx = np.mgrid[top:bottom, left:right].astype(np.float32)
    dy, dx = dy - y, dx - x
    angle = np.arctan2(dy, dx)
    rng = np.random.default_rng(seed)
    wave = sum(rng.normal(0, 0.15 / k) * np.sin(k * angle + rng.uniform(0, 6)) for k in range(2, 8))
    return encode_box(np.hypot(dy, dx) < radius * (1 + wave), (top, left, bottom, right), HEIGHT, WIDTH)


def scenes(images: int, predictions: int, truths: int) -> tuple[list[MaskSet], list[MaskSet]]:
    """Ground truth and predictions."""
    rng = np.random.default_rng(0)
    truth, predicted = [], []
    number = 0
    for k in range(1, images + 1):
        image = Image(k, f"{k:06}.jpg", WIDTH, HEIGHT)
        discs = [disc(rng) for _ in range(truths)]
        masks = []
        for one in discs:
            number += 1
            masks.append(record(draw(one), number, k, iscrowd=int(rng.random() < 0.1)))
        truth.append(MaskSet(image, tuple(masks)))
        found = []
        for j in range(predictions):
            y, x, radius, seed = one = discs[rng.integers(truths)]
            shift = radius * rng.normal(0, 0.15, 2)
            near = (y + shift[0], x + shift[1], radius * rng.uniform(0.8, 1.25), seed)
            found.append(record(draw(near if rng.random() < 0.5 else disc(rng)), j + 1, k, score=float(rng.integers(0, 500)) / 500))
        predicted.append(MaskSet(image, tuple(found)))
    return truth, predicted


def disc(rng: np.random.Generator) -> Disc:
    return float(rng.uniform(20, HEIGHT - 20)), float(rng.uniform(20, WIDTH - 20)), float(8 * 12 ** rng.random()), int(rng.integers(2**31))


def record(found: Rle, number: int, image: int, **keys: Any) -> Mask:
    return Mask(number, image, found, rle.area(found), rle.bbox(found), **keys)


def ours(truth: GroundTruth, predicted: list[MaskSet], workers: int) -> dict[str, float | None]:
    found = (evaluate(predicted, truth, make_metric(name), workers=workers) for name in ("ar", "ap"))
    return {name: value for evaluation in found for name, value in evaluation.metrics().items()}


def ours_from_file(truth: GroundTruth, data: bytes, workers: int) -> Evaluation:
    _, sets = open_masks(io.BytesIO(data), "the bench")
    evaluation = evaluate(sets, truth, make_metric("ar"), workers=workers)
    evaluation.metrics()
    return evaluation


def dataset(truth: list[MaskSet]) -> dict[str, Any]:
    listed = [{"id": s.image.id, "file_name": s.image.file_name, "width": WIDTH, "height": HEIGHT} for s in truth]
    annotations = [{**plain(m), "area": m.area, "iscrowd": m.iscrowd} for s in truth for m in s.masks]
    return {"info": {}, "images": listed, "annotations": annotations, "categories": [{"id": 1, "name": "entity"}]}


def plain(mask: Mask) -> dict[str, Any]:
    counts = {"size": [HEIGHT, WIDTH], "counts": mask.rle.counts.decode()}
    found = {"id": mask.id, "image_id": mask.image_id, "category_id": 1, "segmentation": counts}
    return found if mask.score is None else {**found, "score": mask.score}


def theirs(make_coco: Any, make_judge: Any, truth: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float | None]:
    """What pycocotools, or what has its interface, says."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = make_coco()
        coco.dataset = {**truth, "annotations": [dict(entry) for entry in truth["annotations"]]}
        coco.createIndex()
        judge = make_judge(coco, coco.loadRes([dict(result) for result in results]), "segm")
        judge.params.useCats = 0
        judge.params.maxDets = list(MAXIMA)
        judge.evaluate()
        judge.accumulate()
    precision, recall = np.asarray(judge.eval["precision"]), np.asarray(judge.eval["recall"])
    values = {f"AR@{most}": recall[:, :, 0, k] for k, most in enumerate(MAXIMA)}
    values |= {f"AR_{name}": recall[:, :, a, -1] for a, name in ((1, "S"), (2, "M"), (3, "L"))}
    values |= {"AP": precision[..., 0, -1], "AP50": precision[0, ..., 0, -1], "AP75": precision[5, ..., 0, -1]}
    values |= {f"AP_{name}": precision[..., a, -1] for a, name in ((1, "S"), (2, "M"), (3, "L"))}
    return {name: float(found[found > -1].mean()) if (found > -1).any() else None for name, found in values.items()}


def greatest_difference(one: dict[str, float | None], other: dict[str, float | None]) -> float:
    if any((one[name] is None) != (other[name] is None) for name in one):
        return float("inf")
    return max(abs(value - other[name]) for name, value in one.items() if value is not None)


def main() -> None:
    parser = bench_parser(__doc__, repeat=3, json=True)
    parser.add_argument("--images", type=int, default=20, help="number of images [20]")
    parser.add_argument("--predictions", type=int, default=1000, help="masks predicted in an image [1000]")
    parser.add_argument("--truths", type=int, default=50, help="masks of the ground truth in an image [50]")
    arguments = parser.parse_args()
    truth_sets, predicted = scenes(arguments.images, arguments.predictions, arguments.truths)
    truth = GroundTruth("the bench", [s.image for s in truth_sets], truth_sets.__getitem__)
    document, results = dataset(truth_sets), [plain(m) for s in predicted for m in s.masks]
    first = timed(lambda: ours(truth, predicted[:1], 1), 1).least
    values = ours(truth, predicted, 2)
    rivals = [("pycocotools", COCO, COCOeval)]
    try:
        fast = importlib.import_module("faster_coco_eval")
        rivals.append(("faster-coco-eval", fast.COCO, fast.COCOeval_faster))
    except ImportError:
        sys.stderr.write("faster-coco-eval is not installed: left out\n")
    rows: list[dict[str, Any]] = []
    for workers in (1, 2):
        seconds = timed(lambda workers=workers: ours(truth, predicted, workers), arguments.repeat).least
        rows.append({"what": f"ovskit, -j {workers}", "seconds": seconds, "difference": 0.0})
    for name, make_coco, make_judge in rivals:
        difference = greatest_difference(values, theirs(make_coco, make_judge, document, results))
        if not difference <= 1e-9 and name == "pycocotools":
            raise SystemExit(f"{name}: scores differ from ours by {difference}")
        repeat = 1 if name == "pycocotools" else arguments.repeat
        seconds = timed(lambda c=make_coco, j=make_judge: theirs(c, j, document, results), repeat).least
        rows.append({"what": name, "seconds": seconds, "difference": difference})
    stream = io.BytesIO()
    writer = MasksWriter(stream, MasksHeader())
    for masks in predicted:
        writer.write(masks)
    writer.finish()
    data = stream.getvalue()
    for workers in (1, 2):
        seconds = timed(lambda workers=workers: ours_from_file(truth, data, workers), arguments.repeat).least
        rows.append({"what": f"ovskit, AR and AP from a stream of {len(data) / 1e6:.0f} MB, -j {workers}", "seconds": seconds})
    evaluation = ours_from_file(truth, data, 2)
    rows.append({"what": "ovskit, 1,000 resamples of AR and AP on top", "seconds": timed(lambda: evaluation.intervals(1000), 1).least})
    about = machine("ovskit", "numpy", "numba", "pycocotools")
    reference = next(row["seconds"] for row in rows if row["what"] == "pycocotools")
    title = f"{arguments.images} images × {arguments.predictions:,} predictions × {arguments.truths} masks of 640 × 480"
    columns = ("what", "s", "ms an image", "of pycocotools' time", "greatest difference")
    cells = [
        (
            row["what"],
            f"{row['seconds']:.2f}",
            f"{1000 * row['seconds'] / arguments.images:.1f}",
            f"1/{reference / row['seconds']:.1f}" if "difference" in row else "",
            f"{row['difference']:.1e}" if "difference" in row else "",
        )
        for row in rows
    ]
    show(title, columns, cells, f"first call (compiling, or loading what is compiled): {first:.2f} s; {about}", width=140)
    write_json(arguments.json, {"bench": "eval", "machine": about, "first_call_s": first, "rows": rows})


if __name__ == "__main__":
    main()
