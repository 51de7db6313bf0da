"""``ovs-eval``: masks against ground truth."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ovskit.cli import options as opt
from ovskit.cli.command import OvsApp, log, provenance
from ovskit.cli.eval_tables import draw
from ovskit.cli.plain_text import stdout_bytes
from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    from ovskit.core.formats.labels.maps import LabelTruth
    from ovskit.core.formats.streams.masks import MasksHeader
    from ovskit.core.formats.truth.ground_truth import GroundTruth
    from ovskit.core.records import MaskSet
    from ovskit.core.runtime.failures import Failures

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


class Metric(StrEnum):
    """What to compute."""

    ar = "ar"
    ap = "ap"
    hierarchy = "hierarchy"
    miou = "miou"


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
    metric: Annotated[
        Metric,
        typer.Option(
            "--metric",
            help="ar: average recall (and AP); ap: average precision; hierarchy: ancestor pairs, and what the forests look like; miou: "
            "IoU of classes.",
        ),
    ] = Metric.ar,
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
    maxima = None if max is None else _parse_maxima(max)
    _check_options(ctx.params, paths)

    from ovskit.core.eval.categories import category_warnings, check_categories
    from ovskit.core.eval.evaluation import LVIS_MAXIMA, EvalOptions
    from ovskit.core.eval.evaluation import evaluate as score
    from ovskit.core.eval.report import Bootstrap, caption, class_table, per_image_json, score_files, seed_table, table, to_json
    from ovskit.core.eval.semantic_inputs import check_same_space, open_semantic_truth, predicted_maps
    from ovskit.core.formats import jsonbytes
    from ovskit.core.formats.labels.named_maps import parse_void
    from ovskit.core.formats.paths import show_path
    from ovskit.core.formats.truth.ground_truth import open_ground_truth
    from ovskit.core.runtime.failures import Failures
    from ovskit.core.runtime.output import open_output
    from ovskit.core.runtime.progress import track

    _check_outputs(output, per_image, read=(gt, *paths))
    failures = Failures(skip=on_error is opt.OnError.skip)
    settings = EvalOptions(metric=metric.value, by_category=by_category, per_annotator=per_annotator, images=images.value)
    classes = None
    instances: GroundTruth | None = None
    truth: GroundTruth | LabelTruth
    if metric is Metric.miou:
        classes = open_semantic_truth(
            gt, layout=layout, names=names, segments=segments, void=parse_void(void), partial=images is Scope.listed, failures=failures
        )
        matching = {MatchBy.ids: "ids", MatchBy.hungarian: "counts", MatchBy.hungarian_iou: "iou"}[match]
        settings = replace(settings, semantic=classes.options(matching, joint=bg is Background.joint))
        truth = classes.maps
        for warning in classes.warnings:
            log.warning("%s", warning)
    else:
        truth = instances = open_ground_truth(gt, segments=segments, failures=failures)
        if maxima is None and by_category and instances.searched is not None:
            maxima = LVIS_MAXIMA
    if maxima is not None:
        settings = replace(settings, maxima=maxima)
    resampling = Bootstrap(bootstrap, seed, confidence)
    with ExitStack() as outputs:
        out = outputs.enter_context(open_output(output))
        lines = None if per_image is None else outputs.enter_context(open_output(per_image))
        done = []
        for path in paths:
            what = "stdin" if path == "-" else show_path(path)
            pg: Sequence[Mapping[str, Any]] = ()
            said: list[str] = []
            watch = functools.partial(track, label="scoring")
            if classes is not None and os.path.isdir(path):
                predicted = predicted_maps(path, classes, pred_layout or layout, clusters=match is not MatchBy.ids)
                found = score(predicted.maps, truth, settings, what=what, workers=workers, watch=watch, failures=failures)
                predicted.check()
            else:
                with _predictions(path, what, failures) as (header, sets):
                    pg = header.pg
                    if classes is not None and match is MatchBy.ids:
                        check_same_space(header, classes, what)
                    if instances is not None and by_category:
                        check_categories(header, instances, what)
                    found = score(sets, truth, settings, what=what, header=header, workers=workers, watch=watch, failures=failures)
                    if instances is not None:
                        said += category_warnings(header, instances, found, what)
            if classes is not None:
                classes.check()
            for warning in (*found.warnings, *said):
                log.warning("%s", warning)
            done.append((path, found, provenance(ctx, pg, arguments=[path])))
            if lines is not None:
                for entry in per_image_json(found, path):
                    lines.write(jsonbytes.dumps(entry) + b"\n")
        scored = score_files(done, resampling)
        if json:
            out.write(
                jsonbytes.dumps(to_json(scored, gt, resampling, space=None if classes is None else classes.space, seeds=seeds)) + b"\n"
            )
        else:
            below = caption(scored, resampling, None if classes is None else classes.space)
            shown = [seed_table(scored) if seeds else table(scored), *([] if classes is None else [class_table(scored)])]
            drawn = draw(shown, below, for_terminal=output == "-" and sys.stdout.isatty())
            out.write(stdout_bytes(drawn) if output == "-" else drawn.encode("utf-8", "backslashreplace"))
    failures.report(len(done[0][1].images))


def _check_options(given: Mapping[str, Any], paths: Sequence[str]) -> None:
    """Raises UsageError for options that make no sense together."""
    metric, match = given["metric"], given["match"]
    if [given["gt"], *paths].count("-") > 1:
        raise UsageError("stdin (-) can be read once: name a file for all but one of --gt and the predictions")
    if metric is Metric.hierarchy and (given["by_category"] or given["per_annotator"]):
        raise UsageError("--metric hierarchy knows neither categories nor annotators: leave --by-category and --per-annotator out")
    of_maps = any(given[name] is not None for name in ("layout", "names", "void", "pred_layout"))
    if metric is not Metric.miou and (of_maps or match is not MatchBy.ids):
        raise UsageError("--layout, --names, --void, --pred-layout and --match belong to --metric miou")
    if given["pred_layout"] is not None and not any(map(os.path.isdir, paths)):
        raise UsageError("--pred-layout is about predictions that are folders of label maps, and none of these is one")
    if metric is Metric.miou and (given["by_category"] or given["per_annotator"]):
        raise UsageError("--metric miou knows no annotators, and nothing but categories: leave --by-category and --per-annotator out")
    if given["seeds"] and len(paths) < 2:
        raise UsageError("--seeds: name the predictions of each seed, two files or more")
    if not 0 < given["confidence"] < 1:
        raise UsageError(f"--confidence {given['confidence']}: give a share between 0 and 1, such as 0.95")
    if given["bg"] is Background.joint and match is MatchBy.ids:
        raise UsageError("--bg says what unlabelled pixels are where clusters are matched: add --match hungarian, or leave it out")


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


@contextmanager
def _predictions(path: str, what: str, failures: Failures) -> Iterator[tuple[MasksHeader, Iterator[MaskSet]]]:
    """Predictions in one file, or in a folder of a JSON file for each image, as SA-1B and SAM's own script have them."""
    from ovskit.core.formats.streams.masks import MasksHeader, open_masks
    from ovskit.core.formats.truth.ground_truth import open_ground_truth
    from ovskit.core.runtime.output import open_input

    if os.path.isdir(path):
        folder = open_ground_truth(path, failures=failures)
        yield MasksHeader(exif=folder.exif, categories=()), (folder.load(k) for k in range(len(folder)))
        return
    with open_input(path) as stream:
        yield open_masks(stream, what, failures)


def _parse_maxima(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words) or len(set(words)) < len(words):
        raise UsageError(f"--max {text}: write different positive whole numbers, such as 1,10,1000")
    return tuple(sorted(int(word) for word in words))
