"""``ovs-eval``: masks against ground truth."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ovskit.cli import options as opt
from ovskit.cli.command import OvsApp, log, provenance
from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    from ovskit.core.eval.report import Bootstrap, Scored

app = OvsApp(
    "ovs-eval",
    examples=[
        ("average recall, all objects alike", "ovs-extract imgs/ | ovs-cluster | ovs-eval --gt instances.json"),
        ("two sets of masks on the same images, with intervals", "ovs-eval --gt instances.json --bootstrap 1000 before.json after.json"),
        ("COCO's AP by category at 100 masks an image", "ovs-eval --metric ap --by-category --max 100 --gt instances.json masks.json"),
        ("parts and wholes", "ovs-hier masks.json | ovs-eval --metric hierarchy --gt parts.json"),
        ("numbers for a script; which images are worst", "ovs-eval --gt instances.json --json --per-image images.jsonl masks.json"),
        ("several annotators of each image", "ovs-eval --per-annotator --gt bsds.json masks.json"),
    ],
)  # fmt: skip


class Metric(StrEnum):
    """What to compute."""

    ar = "ar"
    ap = "ap"
    hierarchy = "hierarchy"


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
            "--gt", metavar="GT", help="The ground truth: COCO instances or panoptic, LVIS, masks of ovskit, or SA-1B's files or folder."
        ),
    ],
    masks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MASKS.json", help="Predictions, a column each, later ones compared with the first; - (the default) is stdin."
        ),
    ] = None,
    metric: Annotated[
        Metric,
        typer.Option(
            "--metric",
            help="ar: average recall (and AP); ap: average precision; hierarchy: ancestor pairs, and what the forests look like.",
        ),
    ] = Metric.ar,
    max: Annotated[
        str, typer.Option("--max", metavar="N,N,…", help="Masks an image may have, best first: AR@N for each; the largest for all else.")
    ] = "1,10,1000",
    by_category: Annotated[
        bool, typer.Option("--by-category", help="Match within categories and average over them (COCO's useCats=1).")
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
    bootstrap: Annotated[int, typer.Option("--bootstrap", min=0, metavar="N", help="Add intervals from N resamples of the images.")] = 0,
    confidence: Annotated[float, typer.Option("--confidence", metavar="P", help="The share of resamples within an interval.")] = 0.95,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Of the resamples.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Write JSON, fractions instead of percent.")] = False,
    per_image: Annotated[
        str | None, typer.Option("--per-image", metavar="FILE", help="Also write the scores of each image by itself, a JSON object a line.")
    ] = None,
    output: opt.Output = "-",
    workers: opt.Workers = None,
    no_pg: opt.NoPg = False,
    config: opt.Config = None,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = 0,
    version: opt.Version = False,
) -> None:
    """Score masks against ground truth: average recall, average precision, or their hierarchy.

    Numbers are those of pycocotools. Images are found by name, by the end of their path, or by id; those of the ground truth that the
    predictions do not list count as without masks. What could not be matched is said on stderr.
    """
    paths = masks or ["-"]
    maxima = _parse_maxima(max)
    if [gt, *paths].count("-") > 1:
        raise UsageError("stdin (-) can be read once: name a file for all but one of --gt and the predictions")
    if metric is Metric.hierarchy and (by_category or per_annotator):
        raise UsageError("--metric hierarchy knows neither categories nor annotators: leave --by-category and --per-annotator out")
    if not 0 < confidence < 1:
        raise UsageError(f"--confidence {confidence}: give a share between 0 and 1, such as 0.95")
    if per_image == output:
        raise UsageError(f"--per-image and -o both name {output}: give them different files")

    from ovskit.core.eval.evaluation import EvalOptions
    from ovskit.core.eval.evaluation import evaluate as score
    from ovskit.core.eval.report import Bootstrap, per_image_json, score_files, to_json
    from ovskit.core.formats import jsonbytes
    from ovskit.core.formats.ground_truth import open_ground_truth
    from ovskit.core.formats.masks import open_masks
    from ovskit.core.formats.sources import show_path
    from ovskit.core.runtime.output import check_output, open_input, open_output
    from ovskit.core.runtime.progress import track

    for path in (output, per_image):
        if path is not None:
            check_output(path, binary=False)
    settings = EvalOptions(metric=metric.value, maxima=maxima, by_category=by_category, per_annotator=per_annotator, images=images.value)
    resampling = Bootstrap(bootstrap, seed, confidence)
    truth = open_ground_truth(gt, segments=segments)
    with ExitStack() as outputs:
        out = outputs.enter_context(open_output(output))
        lines = None if per_image is None else outputs.enter_context(open_output(per_image))
        done = []
        for path in paths:
            what = "stdin" if path == "-" else show_path(path)
            with open_input(path) as stream:
                header, sets = open_masks(stream, what)
                found = score(sets, truth, settings, what=what, workers=workers, watch=lambda units: track(units, "scoring"))
            for warning in found.warnings:
                log.warning("%s", warning)
            done.append((path, found, provenance(ctx, header.pg, arguments=[path])))
            if lines is not None:
                for entry in per_image_json(found, path):
                    lines.write(jsonbytes.dumps(entry) + b"\n")
        scored = score_files(done, resampling)
        if json:
            out.write(jsonbytes.dumps(to_json(scored, gt, resampling)) + b"\n")
        else:
            out.write(_draw(scored, resampling, for_terminal=output == "-" and sys.stdout.isatty()))


def _parse_maxima(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words) or len(set(words)) < len(words):
        raise UsageError(f"--max {text}: write different positive whole numbers, such as 1,10,1000")
    return tuple(sorted(int(word) for word in words))


def _draw(scored: Sequence[Scored], bootstrap: Bootstrap, *, for_terminal: bool) -> bytes:
    """The table as text: as wide as it is, or as the terminal is."""
    import io

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ovskit.core.eval.report import caption, table

    columns, rows = table(scored)
    drawn = Table()
    for k, title in enumerate(columns):
        drawn.add_column(Text(title), justify="right" if k else "left", overflow="fold")
    for row in rows[:-1]:
        drawn.add_row(*map(Text, row))
    drawn.add_section()
    drawn.add_row(*map(Text, rows[-1]))
    text = io.StringIO()
    probe = Console(file=text, force_terminal=False, width=10_000)
    width = None if for_terminal else probe.measure(drawn).maximum
    console = Console(file=text, force_terminal=for_terminal, width=width, color_system="auto" if for_terminal else None)
    console.print(drawn)
    console.print(Text(caption(scored, bootstrap)), soft_wrap=True)
    return text.getvalue().encode("utf-8", "backslashreplace")
