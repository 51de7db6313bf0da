"""``ovs-eval``: masks against ground truth."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ovskit.cli import options as opt
from ovskit.cli.command import OvsApp, log, provenance
from ovskit.cli.eval_tables import draw
from ovskit.cli.plain_text import stdout_bytes
from ovskit.core.eval.registry import METRICS
from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    MetricName = str
else:
    MetricName = StrEnum("MetricName", [(entry.name, entry.name) for entry in METRICS])

_DEFAULT_METRIC = MetricName(METRICS[0].name)
_METRICS = "; ".join(f"{entry.name}: {entry.summary}" for entry in METRICS) + "."

app = OvsApp(
    "ovs-eval",
    examples=[
        ("average recall, all objects alike", "ovs-extract imgs/ | ovs-cluster | ovs-eval --gt instances.json"),
        ("two sets of masks on the same images, with intervals", "ovs-eval --gt instances.json --bootstrap 1000 before.json after.json"),
        ("COCO's AP by category at 100 masks an image", "ovs-eval --metric ap --by-category --max 100 --gt instances.json masks.json"),
        ("parts and wholes", "ovs-hier masks.json | ovs-eval --metric hierarchy --gt parts.json"),
        ("numbers for a script; which images are worst", "ovs-eval --gt instances.json --json --per-image images.jsonl masks.json"),
        ("several annotators of each image", "ovs-eval --per-annotator --gt bsds.json masks.json"),
        ("semantic segmentation: IoU of named classes", "ovs-eval --metric miou --layout voc --gt VOC2012 named.json"),
        ("of clusters without names, by the best matching", "ovs-eval --metric miou --match hungarian --layout ade --gt ADE masks.json"),
        ("the same of five seeds, mean and deviation", "ovs-eval --metric miou --match hungarian --seeds --gt labels/ seed-*.json"),
    ],
)  # fmt: skip


class MatchBy(StrEnum):
    """How predicted classes get the ground truth's."""

    ids = "ids"
    hungarian = "hungarian"
    hungarian_iou = "hungarian-iou"


class Background(StrEnum):
    """What unlabelled pixels are when clusters are matched."""

    fixed = "fixed"
    joint = "joint"


class Scope(StrEnum):
    """Which images of the ground truth count."""

    all = "all"
    listed = "listed"


@app.ovs_command()
def evaluate(
    ctx: typer.Context,
    gt: Annotated[
        str,
        typer.Option(
            "--gt",
            metavar="GT",
            help="The ground truth: COCO instances or panoptic, LVIS, masks of ovskit, SA-1B's files or folder; for miou also a folder of "
            "label maps.",
        ),
    ],
    masks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MASKS.json",
            help="Predictions, a column each, later ones compared with the first; - (the default) is stdin. Folders of a JSON file for "
            "each image; for miou, of label maps.",
        ),
    ] = None,
    metric: Annotated[MetricName, typer.Option("--metric", help=_METRICS)] = _DEFAULT_METRIC,
    max: Annotated[
        str | None,
        typer.Option(
            "--max",
            metavar="N,N,…",
            show_default="1,10,1000; of LVIS by category 300",
            help="Masks an image may have, best first: AR@N for each; the largest for all else.",
        ),
    ] = None,
    by_category: Annotated[
        bool, typer.Option("--by-category", help="Match within categories and average over them (COCO's useCats=1; LVIS by its own rule).")
    ] = False,
    per_annotator: Annotated[
        bool, typer.Option("--per-annotator", help="Score each annotator's masks by themselves, then average.")
    ] = False,
    images: Annotated[
        Scope, typer.Option("--images", help="Score all images of the ground truth, or those that the predictions list.")
    ] = Scope.all,
    segments: Annotated[
        str | None,
        typer.Option("--segments", metavar="DIR", help="Where a panoptic ground truth's PNG files are.", show_default="GT without .json"),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option("--layout", metavar="NAME", help="How the ground truth's folder of label maps is kept: voc, ade, … (miou)."),
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(
            "--names", metavar="SPACE", show_default="the layout's", help="The label space: voc-21, a file, or names with commas (miou)."
        ),
    ] = None,
    void: Annotated[
        str | None,
        typer.Option(
            "--void",
            metavar="ID,…|none",
            show_default="the layout's or the label space's, else 255",
            help="Ids of the ground truth's maps that no score counts, where no layout says them (miou).",
        ),
    ] = None,
    pred_layout: Annotated[
        str | None,
        typer.Option(
            "--pred-layout",
            metavar="NAME|plain",
            show_default="--layout",
            help="How predicted label maps are numbered; plain: as the label space is (miou).",
        ),
    ] = None,
    match: Annotated[
        MatchBy,
        typer.Option("--match", help="Predicted ids are classes, or clusters to be matched by common pixels or by IoU (miou)."),
    ] = MatchBy.ids,
    bg: Annotated[
        Background,
        typer.Option("--bg", help="Of clusters: unlabelled pixels are the background, or a cluster like any other (miou)."),
    ] = Background.fixed,
    seeds: Annotated[bool, typer.Option("--seeds", help="The files differ in their seed: show mean and deviation.")] = False,
    bootstrap: Annotated[int, typer.Option("--bootstrap", min=0, metavar="N", help="Add intervals from N resamples of the images.")] = 0,
    confidence: Annotated[float, typer.Option("--confidence", metavar="P", help="The share of resamples within an interval.")] = 0.95,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Of the resamples.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Write JSON, fractions instead of percent.")] = False,
    per_image: Annotated[
        str | None, typer.Option("--per-image", metavar="FILE", help="Also write the scores of each image by itself, a JSON object a line.")
    ] = None,
    on_error: opt.OnErrorOption = opt.OnError.fail,
    output: opt.Output = "-",
    workers: opt.Workers = None,
    no_pg: opt.NoPg = False,
    config: opt.Config = None,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = 0,
    version: opt.Version = False,
) -> None:
    """Score masks against ground truth: average recall, average precision, their hierarchy, or the IoU of classes.

    Numbers are those of pycocotools; of mIoU two are in use, and both are shown. Images are found by name, by the end of their path, or by
    name without extension; by id only where one side has no names, as results lists. Those of the ground truth that the predictions do not
    list count as without masks. What could not be matched is said on stderr.
    """
    paths = masks or ["-"]

    from ovskit.core.eval.registry import chosen_metric
    from ovskit.core.eval.report import caption, per_image_json, score_files, tables, to_json
    from ovskit.core.eval.request import Bootstrap, EvalRequest
    from ovskit.core.eval.run import run_evaluation
    from ovskit.core.formats import jsonbytes
    from ovskit.core.formats.labels.named_maps import parse_void
    from ovskit.core.runtime.failures import Failures
    from ovskit.core.runtime.output import open_output
    from ovskit.core.runtime.progress import track

    given = {
        "maxima": None if max is None else _parse_maxima(max),
        "by_category": by_category,
        "per_annotator": per_annotator,
        "layout": layout,
        "names": names,
        "void": parse_void(void),
        "pred_layout": pred_layout,
        "match": None if match is MatchBy.ids else match.value,
        "bg": None if bg is Background.fixed else bg.value,
    }
    resampling = Bootstrap(bootstrap, seed, confidence)
    request = EvalRequest(chosen_metric(str(metric), given), gt, paths, images.value, segments, seeds, resampling)
    _check_outputs(output, per_image, read=(gt, *paths))
    failures = Failures(skip=on_error is opt.OnError.skip)
    files = run_evaluation(
        request,
        workers=workers,
        watch=functools.partial(track, label="scoring"),
        warn=functools.partial(log.warning, "%s"),
        failures=failures,
    )
    with ExitStack() as outputs:
        out = outputs.enter_context(open_output(output))
        lines = None if per_image is None else outputs.enter_context(open_output(per_image))
        done = []
        for file in files:
            done.append((file.path, file.evaluation, provenance(ctx, file.pg, arguments=[file.path])))
            if lines is not None:
                lines.write(b"".join(jsonbytes.dumps(entry) + b"\n" for entry in per_image_json(file.evaluation, file.path)))
        scored = score_files(done, resampling)
        if json:
            out.write(jsonbytes.dumps(to_json(scored, request)) + b"\n")
        else:
            drawn = draw(tables(scored, request), caption(scored, resampling), for_terminal=output == "-" and sys.stdout.isatty())
            out.write(stdout_bytes(drawn) if output == "-" else drawn.encode("utf-8", "backslashreplace"))
    failures.report(len(done[0][1].images))


def _check_outputs(output: str, per_image: str | None, *, read: Sequence[str]) -> None:
    """Raises UsageError for outputs that are one, or that would take the place of what is ``read``; as ``check_output`` besides."""
    from ovskit.core.runtime.output import check_output, same_file

    if per_image is not None and (per_image == output or same_file(per_image, output)):
        raise UsageError(f"--per-image and -o both name {output}: give them different files")
    for option, path in (("-o", output), ("--per-image", per_image)):
        if path is not None:
            if any(same_file(path, one) for one in read):
                raise UsageError(f"{option} {path} is what is read: scores would take its place; name another file")
            check_output(path, binary=False)


def _parse_maxima(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words) or len(set(words)) < len(words):
        raise UsageError(f"--max {text}: write different positive whole numbers, such as 1,10,1000")
    return tuple(sorted(int(word) for word in words))
