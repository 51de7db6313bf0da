"""``ovs-hier``: masks become a forest of wholes, parts and parts of parts."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from ovskit.cli import options as opt
from ovskit.cli.command import OvsApp
from ovskit.cli.plain_text import stdout_bytes
from ovskit.cli.stage import run_mask_stage
from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    from ovskit.core.records import MaskSet

app = OvsApp(
    "ovs-hier",
    examples=[
        ("a forest from a pool of masks", "ovs-hier masks.json -o forest.json"),
        ("in the pipeline", "ovs-extract imgs/ | ovs-cluster | ovs-refine | ovs-hier > forest.json"),
        ("look at it in the terminal", "ovs-hier --tree masks.json | less"),
        ("the masks without a parent", "ovs-hier masks.json | grep '\"level\":0[,}]'"),
        ("the shards of a run, joined", "ovs-hier masks-*.json -o forest.json"),
        ("a stricter test", "ovs-hier --cover 0.95 masks.json -o forest.json"),
        ("HASSOD's wholes, parts and subparts", "ovs-hier --inclusive --deepest 2 masks.json -o forest.json"),
    ],
)


@app.ovs_command()
def hier(
    ctx: typer.Context,
    masks: opt.MaskFiles = None,
    cover: Annotated[
        float,
        typer.Option(
            "--cover", min=0.0, max=1.0, metavar="X", help="A part lies in its whole by more than this share, and not the reverse."
        ),
    ] = 0.9,
    inclusive: Annotated[
        bool, typer.Option("--inclusive", help="A share of exactly --cover is enough, as in HASSOD; SOHES wants more.")
    ] = False,
    deepest: Annotated[
        int | None,
        typer.Option(
            "--deepest", min=0, metavar="N", show_default="none", help="Write deeper levels as N, parents as they are; HASSOD's is 2."
        ),
    ] = None,
    tree: Annotated[
        bool, typer.Option("--tree", help="Print the forest as text on stdout, instead of the masks; with -o PATH, beside them.")
    ] = False,
    on_error: opt.OnErrorOption = opt.OnError.fail,
    output: opt.Output = "-",
    resume: opt.Resume = False,
    skip_existing: opt.SkipExisting = False,
    workers: opt.Workers = None,
    no_pg: opt.NoPg = False,
    config: opt.Config = None,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = 0,
    version: opt.Version = False,
) -> None:
    """Find out which masks are parts of which, by how much of one lies in the other.

    Mask j is an ancestor of mask i if more than 0.9 of i lies in j and less than 0.9 of j lies in i; the parent is the smallest
    ancestor. Each annotation gets a level (0 for a whole, 1 for a part, and so on) and, below level 0, a parent_id.
    """
    if tree and (resume or skip_existing):
        raise UsageError("--tree shows all images: it goes without --resume and --skip-existing")

    from ovskit.core.hier.coverage_forest import grow_forest
    from ovskit.core.hier.tree import draw_forest
    from ovskit.core.runtime.output import open_output

    with ExitStack() as stack:
        text = stack.enter_context(open_output("-")) if tree else None

        def show(grown: MaskSet) -> None:
            if text is not None:
                text.write(stdout_bytes("".join(f"{line}\n" for line in draw_forest(grown))))

        run_mask_stage(
            ctx,
            masks or [],
            lambda header: lambda found: grow_forest(found, cover, inclusive=inclusive, deepest=deepest),
            description="forest by ovs-hier",
            doing="comparing",
            output=None if tree and output == "-" else output,
            resume=resume,
            skip_existing=skip_existing,
            on_error=on_error,
            workers=workers,
            watch=show,
        )
