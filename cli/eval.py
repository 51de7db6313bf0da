"""``ovs-eval``: masks against ground truth."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated, ClassVar

import typer

from ovskit.cli.command import OvsApp, log, provenance
from ovskit.cli.eval_tables import draw
from ovskit.cli.expand import Choice
from ovskit.cli.groups import Common, Faults, Workers
from ovskit.cli.plain_text import stdout_bytes
from ovskit.core.eval.registry import EVAL
from ovskit.core.eval.request import Bootstrap, Compared
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.methods import ChosenMethod
from ovskit.core.runtime.settings import Options, option
from ovskit.core.runtime.shared_options import NO_PG, OUTPUT

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
        ("IoU of unnamed clusters, by the best matching", "ovs-eval --metric miou --match hungarian --layout ade --gt ADE masks.json"),
        ("the same for five seeds: mean and deviation", "ovs-eval --metric miou --match hungarian --seeds --gt labels/ seed-*.json"),
    ],
)  # fmt: skip


class ScoresOut(Options):
    """What is written of the scores, and where."""

    SECTION: ClassVar[str] = "Output"

    json: bool = option(False, "Write JSON, fractions instead of percent.", flag=True)
    per_image: str | None = option(
        None, "Also write the scores of each image by itself, a JSON object a line.",
        flag=True, metavar="FILE", decides=False, environment="never",
    )  # fmt: skip
    output: str = option("-", **OUTPUT)
    no_pg: bool = option(False, **NO_PG, rare=True)


@app.ovs_command()
def evaluate(
    ctx: typer.Context,
    compared: Compared,
    chosen: Annotated[ChosenMethod, Choice(EVAL, "ar")],
    resampling: Bootstrap,
    out: ScoresOut,
    faults: Faults,
    threads: Workers,
    common: Common,
) -> None:
    """Score masks against ground truth: average recall, average precision, their hierarchy, the IoU of classes; or labels of whole images.

    Numbers are those of pycocotools; two definitions of mIoU are in use, and both are shown. Images are found by name, by the end of their
    path, or by name without extension; by id only where one side has no names, as in results lists. Images of the ground truth that the
    predictions do not list count as images without masks. What could not be matched is said on stderr.
    """
    from ovskit.core.eval.report import caption, per_image_json, score_files, tables, to_json
    from ovskit.core.eval.request import EvalRequest
    from ovskit.core.eval.run import run_evaluation
    from ovskit.core.formats import jsonbytes
    from ovskit.core.runtime.output import open_output
    from ovskit.core.runtime.progress import track

    request = EvalRequest(chosen.method.run(chosen.options), compared, resampling)
    _check_outputs(out, read=(compared.gt, *request.predictions))
    failures = faults.failures()
    files = run_evaluation(
        request,
        workers=threads.workers,
        watch=functools.partial(track, label="scoring"),
        warn=functools.partial(log.warning, "%s"),
        failures=failures,
    )
    with ExitStack() as outputs:
        stream = outputs.enter_context(open_output(out.output))
        lines = None if out.per_image is None else outputs.enter_context(open_output(out.per_image))
        done = []
        for file in files:
            done.append((file.path, file.evaluation, provenance(ctx, file.pg, arguments=[file.path])))
            if lines is not None:
                lines.write(b"".join(jsonbytes.dumps(entry) + b"\n" for entry in per_image_json(file.evaluation, file.path)))
        scored = score_files(done, resampling)
        if out.json:
            stream.write(jsonbytes.dumps(to_json(scored, request)) + b"\n")
        else:
            to_terminal = out.output == "-" and sys.stdout.isatty()
            drawn = draw(tables(scored, request), caption(scored, resampling), for_terminal=to_terminal)
            stream.write(stdout_bytes(drawn) if out.output == "-" else drawn.encode("utf-8", "backslashreplace"))
    failures.report(len(done[0][1].images))


def _check_outputs(out: ScoresOut, *, read: Sequence[str]) -> None:
    """Raises UsageError for outputs that are one, or that would take the place of what is ``read``; as ``check_output`` besides."""
    from ovskit.core.runtime.output import check_output, same_file

    output, per_image = out.output, out.per_image
    if per_image is not None and (per_image == output or same_file(per_image, output)):
        raise UsageError(f"--per-image and -o both name {output}: give them different files")
    for flag, path in (("-o", output), ("--per-image", per_image)):
        if path is not None:
            if any(same_file(path, one) for one in read):
                raise UsageError(f"{flag} {path} is what is read: scores would take its place; name another file")
            check_output(path, binary=False)
