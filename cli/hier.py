"""``ovs-hier``: masks become a forest of wholes, parts and parts of parts."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import typer

from ovskit.cli.command import OvsApp, provenance
from ovskit.cli.groups import Common, MasksIn, StreamOut, Workers
from ovskit.cli.output import StreamOutput, check_stream
from ovskit.cli.plain_text import stdout_bytes
from ovskit.core.hier.options import ForestOptions
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.settings import Options, option

if TYPE_CHECKING:
    from typing import BinaryIO

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


class Shown(Options):
    """Whether the forest is shown to a person."""

    SECTION: ClassVar[str] = "Output"

    tree: bool = option(
        False, "Print the forest as text on stdout, instead of the masks; with -o PATH, beside them.",
        flag=True, decides=False, environment="never",
    )  # fmt: skip


class _Tree:
    """Writes forests as text, where a stream's writer would write masks."""

    def __init__(self, out: BinaryIO, header: Any = None) -> None:
        self._out = out

    def write(self, grown: MaskSet) -> None:
        from ovskit.core.hier.tree import draw_forest

        self._out.write(stdout_bytes("".join(f"{line}\n" for line in draw_forest(grown))))

    def finish(self) -> None:
        """Nothing closes a text."""


@app.ovs_command()
def hier(
    ctx: typer.Context, options: ForestOptions, shown: Shown, source: MasksIn, out: StreamOut, workers: Workers, common: Common
) -> None:
    """Find out which masks are parts of which, by how much of one lies in the other.

    Mask j is an ancestor of mask i if more than 0.9 of i lies in j and less than 0.9 of j lies in i; the parent is the smallest
    ancestor. Each annotation gets a level (0 for a whole, 1 for a part, and so on) and, below level 0, a parent_id.
    """
    if shown.tree and (out.resume or out.skip_existing):
        raise UsageError("--tree shows all images: it goes without --resume and --skip-existing")
    check_stream(out)

    from ovskit.core.formats.streams.mask_inputs import MaskInputs
    from ovskit.core.formats.streams.masks import MasksWriter
    from ovskit.core.formats.streams.transform import transform_masks
    from ovskit.core.hier.coverage_forest import grow_forest
    from ovskit.core.runtime.output import open_output

    def work(masks: MaskSet) -> MaskSet:
        return grow_forest(masks, options.cover, inclusive=options.inclusive, deepest=options.deepest)

    failures = source.failures()
    instead = shown.tree and out.output == "-"
    output = StreamOutput(out, _Tree if instead else MasksWriter, "comparing", failures)
    with ExitStack() as stack:
        inputs = stack.enter_context(MaskInputs(source.masks or ("-",), failures))
        pg = provenance(ctx, inputs.header.pg, arguments=source.masks)
        header = replace(inputs.header, description="forest by ovs-hier", pg=pg)
        if not output.is_there(header):
            beside = _Tree(stack.enter_context(open_output("-"))).write if shown.tree and not instead else None
            output.write(
                header,
                lambda done: transform_masks(inputs.sets(), work, failures, workers=workers.threads(), done=done),
                watch=beside,
            )
