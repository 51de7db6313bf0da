"""What the commands from masks to masks share: open the stream, work on it image by image, write it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ovskit.cli import options as opt
from ovskit.cli.command import log, provenance
from ovskit.cli.existing import is_there

if TYPE_CHECKING:
    import typer

    from ovskit.core.formats.streams.masks import MasksHeader
    from ovskit.core.records import MaskSet

Work = Callable[["MaskSet"], "MaskSet"]


def run_mask_stage(
    ctx: typer.Context,
    masks: Sequence[str],
    make_work: Callable[[MasksHeader], Work],
    *,
    description: str,
    doing: str,
    output: str | None,
    resume: bool = False,
    skip_existing: bool = False,
    on_error: opt.OnError = opt.OnError.fail,
    workers: int | None = None,
    facts: Mapping[str, Any] | None = None,
    root: str | None = None,
    exif: str | None = None,
    watch: Callable[[MaskSet], None] | None = None,
    at_end: Callable[[], None] | None = None,
) -> None:
    """Read the files ``masks`` as one (none: stdin), work on every image's masks, write ``output`` (None: write nothing).

    ``make_work`` is given the stream's header before anything is written, and may refuse it. ``facts`` are added to this
    run's provenance (``model``, ``model_sha256``, ``supervised``); ``root`` and ``exif`` replace the header's. ``watch``
    sees every result, in order; ``at_end`` is called when the output is complete.
    """
    from contextlib import ExitStack
    from dataclasses import replace

    from ovskit.core.formats.streams.mask_inputs import MaskInputs
    from ovskit.core.formats.streams.mask_stage import map_mask_sets
    from ovskit.core.formats.streams.masks import MasksWriter
    from ovskit.core.runtime.failures import Failures
    from ovskit.core.runtime.output import check_output, open_output, part_path
    from ovskit.core.runtime.progress import track
    from ovskit.core.runtime.workers import default_workers

    if output is not None:
        check_output(output, binary=False, resume=resume, pg=not ctx.params.get("no_pg"))
    failures = Failures(skip=on_error is opt.OnError.skip)
    with MaskInputs(masks or ["-"], failures) as inputs:
        header = inputs.header
        work = make_work(header)
        pg = provenance(ctx, header.pg, arguments=masks, **(facts or {}))
        new = replace(header, description=description, pg=pg)
        new = replace(new, root=header.root if root is None else root, exif=header.exif if exif is None else str(exif))
        if output is not None and skip_existing and is_there(output, new):
            return
        done: set[int] = set()
        with ExitStack() as stack:
            writer = None
            if output is not None:
                out = stack.enter_context(open_output(output, resume=resume))
                if resume:
                    writer, done = MasksWriter.resume(out, new, str(part_path(output)))
                    log.info("resuming: %d images are done", len(done))
                else:
                    writer = MasksWriter(out, new)
            finished = len(done)
            results = map_mask_sets(inputs.sets(), work, failures, workers=workers or default_workers(), done=frozenset(done))
            for result in track(results, doing):
                if writer is not None:
                    writer.write(result)
                if watch is not None:
                    watch(result)
                finished += 1
            if writer is not None:
                writer.finish()
    if at_end is not None:
        at_end()
    failures.report(finished)
