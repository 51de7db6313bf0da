"""The ruler: SOHES' self-exploration stage by stage, as its Table 2, on photographs that annotators outlined.

Each photograph is described once; then its masks are made by every stage: each single threshold, all thresholds pooled, the
counts that the model recommends where it does (then the rest stands on those, as in the commands), the local step, each
refiner on top, and on ccp_parts the hierarchy. All stages are scored on the same photographs by ``ovskit.core.eval``:
class-agnostic AR and AP at 1,000 masks a photograph, AR by area, hierarchy as ancestor pairs. bsds500: each annotator's
partition by itself, then their mean. Intervals are 95 % by bootstrap over photographs; a difference is paired, to the stage
named. Seconds a photograph are wall time, describing included, and mean something with ``--jobs 1`` on a quiet machine only.

``--baselines`` adds what one would use without any network: scikit-image's felzenszwalb at eight scales in one pool, SLIC at
eight sizes in one pool, and square tiles. ``--vary NAME=V,V`` scores other values of an option of ``ovs-cluster`` (or, as
``refine.NAME``, of the first refiner, where ``;`` stands for a comma) against the default. The photographs are few, and none of these
figures may be compared with the papers'.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from harness.arguments import bench_parser, list_of
from harness.machine import surroundings
from harness.photographs import DATA, SETS, SIZE, described, pixels_of, recall_of, recommended, truth_of
from harness.report import made_by, percent, section, table, with_interval, write_json
from rich.console import Console
from rich.progress import Progress

from ovskit.core.cluster.crop_features import CropExtractor
from ovskit.core.cluster.options import SohesOptions
from ovskit.core.cluster.sohes import cluster_regions
from ovskit.core.eval.evaluation import Evaluation, evaluate
from ovskit.core.eval.registry import make_metric
from ovskit.core.hier.coverage_forest import grow_forest
from ovskit.core.masks.grid import edges, nested_rles
from ovskit.core.masks.nms import suppress
from ovskit.core.masks.runs import run_table
from ovskit.core.models.registry import load_backbone
from ovskit.core.records import Image, Mask, MaskSet, UInt8
from ovskit.core.runtime.workers import ordered_map

if TYPE_CHECKING:
    from ovskit.core.refine.refiner import Refiner

THRESHOLDS = (0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
OF_THE_LOCAL_STEP = frozenset({"small", "min_local", "context", "min_crop", "share"})
COUNTS = (400, 280, 200, 140, 100, 70, 50, 36, 25, 18, 12, 8, 5, 3)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One line of the table: how its masks are made from those of the stage ``after``, or from the features.

    ``against`` is the stage that its difference is taken to.
    """

    name: str
    after: str | None = None
    options: SohesOptions | None = None
    local: bool = False
    refine: str | None = None
    settings: tuple[tuple[str, str], ...] = ()
    baseline: Callable[[UInt8, Image], MaskSet] | None = None
    against: str | None = None
    shown: bool = True


def stages_of(arguments: argparse.Namespace, default: SohesOptions) -> list[Stage]:
    """The stages; ``default`` are the options with which the commands cut features of the model."""
    paper, local, own = "θ = 0.6 … 0.1", "+ local", default.counts
    mixed = paper if own is None else f"its {len(own)} counts"
    stages = [Stage(f"θ = {t}", options=SohesOptions(thresholds=(t,)), against=paper) for t in reversed(THRESHOLDS)]
    stages.append(Stage(paper, options=SohesOptions()))
    if own is not None:
        stages.append(Stage(mixed, options=default, against=paper))
    stages.append(Stage(local, options=default, local=True, against=mixed))
    for method in arguments.refine:
        stages.append(Stage(f"+ local + {method}", after=local, refine=method, against=local))
        stages.append(Stage(f"no local + {method}", after=mixed, refine=method, against=mixed))
    stages += [
        Stage("14 counts", options=SohesOptions(counts=COUNTS), against=mixed),
        Stage("14 counts + local", options=SohesOptions(counts=COUNTS), local=True, against=local),
    ]
    for name, value in arguments.vary:
        if name.startswith("refine."):
            method = arguments.refine[0]
            settings = ((name.removeprefix("refine."), value),)
            stages.append(
                Stage(
                    f"+ local + {method}, {settings[0][0]} {value}", local, refine=method, settings=settings, against=f"+ local + {method}"
                )
            )
        else:
            base = local if name in OF_THE_LOCAL_STEP else mixed
            stages.append(Stage(f"{base}, {name} {value}", options=varied(default, name, value), local=base == local, against=base))
    if arguments.baselines:
        stages += [Stage(name, baseline=make, against=local) for name, make in BASELINES.items()]
    return stages


def varied(options: SohesOptions, name: str, value: str) -> SohesOptions:
    kind = type(getattr(options, name))
    return dataclasses.replace(options, **{name: kind(value)})


def pooled(layers: Sequence[np.ndarray], image: Image, nms: float = 0.9) -> MaskSet:
    """Every region of every label map (H, W) once, larger first; of two above ``nms`` the later goes."""
    stack = np.stack([layer.astype(np.int32) for layer in layers])
    wanted = np.concatenate([np.stack([np.full(len(v), k), v], 1) for k, v in enumerate(map(np.unique, stack))])
    rows, cols = edges(image.height, 0, image.height, image.height), edges(image.width, 0, image.width, image.width)
    found = nested_rles(stack, wanted, rows, cols, image.height, image.width)
    order = np.argsort(-found.areas, kind="stable")
    order = order[found.areas[order] >= 16]
    kept = suppress(run_table([found.rles[k] for k in order]), nms)
    masks = [
        Mask(n, image.id, found.rles[k], int(found.areas[k]), tuple(found.bboxes[k].tolist()), score=float(found.areas[k]))
        for n, k in enumerate(order[kept].tolist(), 1)
    ]
    return MaskSet(image, tuple(masks))


def by_felzenszwalb(pixels: UInt8, image: Image) -> MaskSet:
    from skimage.segmentation import felzenszwalb

    scales = (50, 100, 200, 300, 500, 800, 1500, 3000)  # with min_size the best of five settings tried
    return pooled([felzenszwalb(pixels, scale=s, sigma=0.8, min_size=100) for s in scales], image)


def by_slic(pixels: UInt8, image: Image) -> MaskSet:
    from skimage.segmentation import slic

    return pooled([slic(pixels, n_segments=n, compactness=10, start_label=1) for n in (4, 8, 16, 32, 64, 128, 256, 512)], image)


def by_tiles(pixels: UInt8, image: Image) -> MaskSet:
    y, x = np.mgrid[: image.height, : image.width]
    return pooled([(y * n // image.height) * n + x * n // image.width for n in (1, 2, 3, 4, 6, 8, 12, 16)], image)


BASELINES: dict[str, Callable[[UInt8, Image], MaskSet]] = {
    "felzenszwalb, 8 scales": by_felzenszwalb,
    "SLIC, 8 sizes": by_slic,
    "square tiles, 8 sizes": by_tiles,
}


class Photograph:
    """One photograph through all stages; each stage's masks and the seconds that they took from pixels on."""

    def __init__(self, image: Image, name: str, backbone: Any, size: int) -> None:
        self.image, self.pixels, self._size = image, pixels_of(image, name), size
        start = time.perf_counter()
        self._features = described(backbone, image, self.pixels, size)
        self._described = time.perf_counter() - start
        self._crop_extractor = CropExtractor(backbone, str(DATA / name), max_pixels=10**9)
        self.masks: dict[str, MaskSet] = {}
        self.seconds: dict[str, float] = {}

    def run(self, stage: Stage, refiners: dict[str, Any]) -> None:
        start, before = time.perf_counter(), self._described
        if stage.baseline is not None:
            found, before = stage.baseline(self.pixels, self.image), 0.0
        elif stage.refine is not None and stage.after is not None:
            before = self.seconds[stage.after]
            found = refiners[stage.name](self.masks[stage.after], self.pixels)
        else:
            assert stage.options is not None
            crop_features = partial(self._crop_extractor, self.image) if stage.local else None
            found = cluster_regions(self._features, stage.options, frame=(self._size, self._size), crop_features=crop_features)
        self.seconds[stage.name] = before + time.perf_counter() - start
        self.masks[stage.name] = found


def refiner_of(name: str, texts: Iterable[str]) -> Refiner:
    """A refiner with other settings, on the CPU."""
    from ovskit.core.refine.job import RefineJob
    from ovskit.core.refine.methods import REFINE
    from ovskit.core.runtime.settings import settings_from

    method = REFINE.get(name)
    refiner: Refiner = method.run(RefineJob("cpu"), method.options(**settings_from(method.options, list(texts))))
    return refiner


def refiners_of(stages: Iterable[Stage]) -> dict[str, Callable[[MaskSet, UInt8], MaskSet]]:
    """For every stage that refines: a function from masks and pixels to masks, with the command's own defaults."""
    from ovskit.core.refine.options import RefineOptions
    from ovskit.core.refine.pipeline import refine_masks

    found: dict[str, Callable[[MaskSet, UInt8], MaskSet]] = {}
    for stage in stages:
        if stage.refine is None:
            continue
        names = [name for name in stage.refine.split("+") if name != "none"]
        general = {f.name for f in dataclasses.fields(RefineOptions)}
        options = RefineOptions(**{key: float(value) for key, value in stage.settings if key in general})
        texts = [f"{key}={value.replace(';', ',')}" for key, value in stage.settings if key not in general]
        chain = [refiner_of(name, texts if k == len(names) - 1 else []) for k, name in enumerate(names)]
        found[stage.name] = lambda masks, pixels, chain=chain, options=options: refine_masks(masks, pixels, chain, options)[0]
    return found


def measure(name: str, stages: Sequence[Stage], backbone: Any, arguments: argparse.Namespace, progress: Progress) -> list[dict[str, Any]]:
    """All stages on one set; rows in the order of ``stages``."""
    truth = truth_of(name, arguments.limit, arguments.skip)
    images = truth.images
    refiners = refiners_of(stages)
    found: dict[str, list[MaskSet]] = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    task = progress.add_task(name, total=len(images))

    def work(image: Image) -> Photograph:
        photograph = Photograph(image, name, backbone, arguments.size)
        for stage in stages:
            photograph.run(stage, refiners)
        return photograph

    for photograph in ordered_map(work, images, arguments.jobs):
        for stage in stages:
            found[stage.name].append(photograph.masks[stage.name])
            seconds[stage.name].append(photograph.seconds[stage.name])
        progress.advance(task)

    scored: dict[str, Evaluation] = {stage.name: evaluate(found[stage.name], truth, recall_of(name)) for stage in stages}
    rows = []
    for stage in stages:
        own = scored[stage.name]
        row: dict[str, Any] = {
            "stage": stage.name,
            "masks": own.predicted_masks / len(images),
            "metrics": own.metrics(),
            "intervals": own.intervals(arguments.bootstrap),
            "seconds": {"mean": float(np.mean(seconds[stage.name])), "median": float(np.median(seconds[stage.name]))},
        }
        if stage.against in scored:
            gain = own.difference(scored[stage.against], arguments.bootstrap)
            row["against"] = stage.against
            row["differences"] = {metric: {"value": d.value, "interval": d.interval} for metric, d in gain.items()}
        if name == "ccp_parts":
            forests = [grow_forest(masks) for masks in found[stage.name]]
            forest = evaluate(forests, truth, make_metric("hierarchy"))
            row["hierarchy"] = {"metrics": forest.metrics(), "intervals": forest.intervals(arguments.bootstrap)}
        rows.append(row)
    return rows


def markdown(result: dict[str, Any]) -> str:
    """The tables, one a set, as Markdown."""
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    lines = [
        f"# Quality of self-exploration: `{result['model']}`",
        "",
        f"{made_by(result)} ({result['machine']['cpus']} cores, "
        f"{result['jobs']} job{'' if result['jobs'] == 1 else 's'}, no GPU used); {versions}.",
        "",
        "Class-agnostic, at most 1,000 masks a photograph; numbers are percent, in brackets 95 % intervals by bootstrap over photographs; "
        "the difference in AR@1000 is paired and to the stage named. Seconds are the mean of a photograph, from decoded pixels to masks.",
    ]
    for name, rows in result["sets"].items():
        columns = ("stage", "masks", "AR@1000", "AP", "AR_S", "AR_M", "AR_L", "difference in AR@1000", "s")
        lines += section(f"{name}, {result['images'][name]} photographs", columns, map(recall_cells, rows))
        if any("hierarchy" in row for row in rows):
            columns = ("stage", "precision", "recall", "F1", "recall of all pairs", "trees a photograph", "masks a tree", "mean depth")
            text = "Hierarchy (`ovs-hier` on each stage's masks): ancestor pairs between masks matched at IoU 0.5."
            lines += ["", text, "", *table(columns, map(hierarchy_cells, rows))]
    return "\n".join(lines) + "\n"


def recall_cells(row: dict[str, Any]) -> list[str]:
    m, spans, gain = row["metrics"], row["intervals"], row.get("differences", {}).get("AR@1000")
    return [
        row["stage"],
        f"{row['masks']:.0f}",
        with_interval(m["AR@1000"], spans["AR@1000"]),
        *(percent(m[k]) for k in ("AP", "AR_S", "AR_M", "AR_L")),
        f"{with_interval(gain['value'], gain['interval'], '+.1f')} to {row['against']}" if gain else "",
        f"{row['seconds']['mean']:.2f}",
    ]


def hierarchy_cells(row: dict[str, Any]) -> list[str]:
    m, spans = row["hierarchy"]["metrics"], row["hierarchy"]["intervals"]
    numbers = [f"{m[k]:.1f}" if m[k] is not None else "–" for k in ("trees", "mean_size", "mean_depth")]
    return [row["stage"], *(with_interval(m[k], spans[k]) for k in ("precision", "recall", "f1", "recall_all")), *numbers]


def variation(text: str) -> list[tuple[str, str]]:
    """``nms=0.7,0.8`` as [("nms", "0.7"), ("nms", "0.8")]."""
    name, _, values = text.partition("=")
    name = name.replace("-", "_")
    known = {field.name for field in dataclasses.fields(SohesOptions)} - {"thresholds", "counts"}
    if not values or (name not in known and not name.startswith("refine.")):
        raise argparse.ArgumentTypeError(f"give NAME=V,V with NAME one of {', '.join(sorted(known))} or refine.…")
    return [(name, value) for value in values.split(",")]


def main() -> None:
    parser = bench_parser(__doc__, model="builtin", sets=SETS, limit=100, skip=True, bootstrap=1000, jobs=True, markdown=True, json=True)
    parser.add_argument("--weights", type=Path, metavar="FILE", help="weights of the model")
    parser.add_argument("--facet", help="facet of the model's patch tokens, where it has several")
    parser.add_argument("--size", type=int, default=SIZE, help=f"pixels a side at which photographs are described [{SIZE}]")
    parser.add_argument(
        "--refine",
        type=list_of(str),
        default="guided,snap,snap+guided,convcrf,crf",
        help="refiners, each a stage; + chains them: snap,guided,snap+convcrf",
    )
    parser.add_argument("--baselines", action="store_true", help="also what one would use without a network")
    parser.add_argument(
        "--vary", type=variation, action="extend", default=[], metavar="NAME=V,V", help="score these values of an option; several times"
    )
    parser.add_argument("--stages", default="", help="only stages whose name holds one of these texts, and what they build on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    facet = {} if arguments.facet is None else {"facet": arguments.facet}
    backbone = load_backbone(arguments.model, device=torch.device("cpu"), weights=arguments.weights, **facet)
    stages = chosen(stages_of(arguments, recommended(backbone)), arguments.stages)
    about = {**surroundings(), "model": backbone.spec.model, "jobs": arguments.jobs}
    result: dict[str, Any] = {"bench": "quality", **about, "images": {}, "sets": {}}
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        for name in arguments.sets:
            result["sets"][name] = measure(name, stages, backbone, arguments, progress)
            result["images"][name] = len(truth_of(name, arguments.limit, arguments.skip))
            write_json(arguments.json, result)  # after every set: the whole may take an hour
            if arguments.markdown:
                arguments.markdown.write_text(markdown(result))
    print(markdown(result), end="")


def chosen(stages: list[Stage], texts: str) -> list[Stage]:
    """The stages whose names hold one of the comma-separated ``texts``, with those they are made from or compared to."""
    if not texts:
        return stages
    by_name = {stage.name: stage for stage in stages}
    wanted = [stage.name for stage in stages if any(text in stage.name for text in texts.split(","))]
    for name in wanted:
        for needed in (by_name[name].after, by_name[name].against):
            if needed is not None and needed in by_name and needed not in wanted:
                wanted.append(needed)
    return [stage for stage in stages if stage.name in wanted]


if __name__ == "__main__":
    main()
