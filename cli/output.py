"""The one way in which commands write a stream: whole or not at all, taken up where it was left, or left alone if it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ovskit.cli.command import log
from ovskit.cli.existing import is_there
from ovskit.cli.groups import StreamOut
from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    from ovskit.core.formats.photographs.sources import Source
    from ovskit.core.runtime.failures import Failures

Records = Callable[[frozenset[int]], Iterable[Any]]
"""The records of all images but those whose ids are given, since they are done."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class StreamOutput:
    """The output of a run.

    ``kind`` is its writer, ``MasksWriter`` or ``FeatureWriter``; ``doing`` is what the progress bar says. ``chosen`` are the images that it
    will have, if they are known beforehand; images that could not be used are in ``failures``.
    """

    out: StreamOut
    kind: Any
    doing: str
    failures: Failures
    chosen: Sequence[Source] | None = None

    def is_there(self, header: Any, *, categories: bool = True) -> bool:
        """Whether nothing is to be done, since --skip-existing was given and the output is what would be written. ``categories``: whether
        the header's are known yet."""
        return self.out.skip_existing and is_there(
            self.out.output, header, chosen=self.chosen, failures=None if self.chosen is None else self.failures, categories=categories
        )

    def write(
        self,
        header: Any,
        records: Records,
        *,
        watch: Callable[[Any], None] | None = None,
        at_end: Callable[[], None] | None = None,
        total: int | None = None,
    ) -> int:
        """Write ``records`` under ``header``, say what was left out, and give the number of images in the output.

        ``watch`` sees every record, in order; ``at_end`` is called when the output is complete, before what was left out is said. ``total``
        is how many records there are, if it is known and not the number of the chosen images.
        Raises PartialError if images were left out, UsageError if those of an output that is resumed are not among the ``chosen``, and
        what writing and making records raises.
        """
        from ovskit.core.records import EmbeddingBlock
        from ovskit.core.runtime.output import open_output, part_path
        from ovskit.core.runtime.progress import track

        output = self.out.output
        done: set[int] = set()
        with open_output(output, resume=self.out.resume) as stream:
            if self.out.resume:
                writer, done = self.kind.resume(stream, header, str(part_path(output)))
                self._say_resumed(done, str(part_path(output)))
            else:
                writer = self.kind(stream, header)
            if self.chosen is not None:
                total = len(self.chosen) - len(done)
            elif total is not None:
                total -= len(done)
            finished = len(done)
            for record in track(records(frozenset(done)), self.doing, total=total):
                writer.write(record)
                finished += len(record.images) if isinstance(record, EmbeddingBlock) else 1
                if watch is not None:
                    watch(record)
            writer.finish()
        if at_end is not None:
            at_end()
        self.failures.report(finished)
        return finished

    def _say_resumed(self, done: set[int], part: str) -> None:
        if self.chosen is None:
            log.info("resuming: %d images are done", len(done))
            return
        strangers = done - {source.id for source in self.chosen}
        if strangers:  # joined with the others', that output would have them twice
            raise UsageError(
                f"{part} has image {min(strangers)}, which is not in this shard: go on with the --shard that it was begun with"
            )
        log.info("resuming: %d images are done, %d to go", len(done), len(self.chosen) - len(done))


def check_stream(out: StreamOut, *, binary: bool = False) -> None:
    """Refuse an output that cannot be written, before any work is done. Raises UsageError and OutputError."""
    from ovskit.core.runtime.output import check_output

    check_output(out.output, binary=binary, resume=out.resume, pg=not out.no_pg)
