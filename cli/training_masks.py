"""What the subcommands of ``ovs-train`` that learn from masks share: their inputs, and the run from these to its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ovskit.cli import options as opt
from ovskit.cli import training as run
from ovskit.cli.command import provenance
from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ovskit.core.formats.sources import Source
    from ovskit.core.runtime.failures import Failures
    from ovskit.core.train.devices import Devices
    from ovskit.core.train.options import TrainOptions
    from ovskit.core.train.recipe import Recipe
    from ovskit.core.train.target_index import TargetIndex, TargetOptions

# Adan's are timm's [choice], AdamW's the usual ones.
BETAS = {run.Optimizer.adan: (0.98, 0.92, 0.99), run.Optimizer.adamw: (0.9, 0.999)}

Masks = Annotated[Path | None, typer.Argument(metavar="MASKS.json", help="A masks stream or any COCO file: what to learn from.")]
ImagesOf = Annotated[
    list[str] | None,
    typer.Option(
        "--images", metavar="IMAGES", help="The images of the masks: files, folders, globs, .tar shards; may be given several times."
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option("--cache", metavar="DIR", show_default="RUN/targets", help="Keep the masks' index here; runs on the same masks share it."),
]


@dataclass
class MaskJob:
    """A run that learns from masks. Made before anything costs time: raises UsageError where an input is not named."""

    ctx: typer.Context
    masks: Path | None
    images: list[str] | None
    output: str | None
    root: str | None
    cache: Path | None
    resume: bool
    on_error: opt.OnError
    folder: Path = field(init=False)
    failures: Failures = field(init=False)

    def __post_init__(self) -> None:
        from ovskit.core.formats.sources import list_sources
        from ovskit.core.runtime.failures import Failures

        if self.masks is None:
            raise UsageError("no masks: name a masks file, then its images with --images (see --help)")
        if not self.images:
            raise UsageError(f"--images: say where the images of {self.masks} are")
        self.folder = run.run_folder(self.output, resume=self.resume)
        self.photographs: Sequence[Source] = list_sources(self.images, root=self.root).items
        self.failures = Failures(skip=self.on_error is opt.OnError.skip)

    def targets(self, options: TargetOptions, devices: Devices) -> TargetIndex:
        """The index of the masks, made by one process."""
        from ovskit.core.runtime.progress import track
        from ovskit.core.train.target_index import open_targets

        assert self.masks is not None
        with devices.first_goes_first():
            return open_targets(
                self.photographs,
                self.masks,
                options,
                self.cache or self.folder / "targets",
                failures=self.failures,
                watch=lambda items: track(items, "indexing"),
            )

    def provenance(self) -> list[dict[str, Any]]:
        """What the checkpoint and the finished model say of how they were made."""
        return [dict(entry) for entry in provenance(self.ctx, [], **self._facts())]

    def train(self, recipe: Recipe, options: TrainOptions, devices: Devices, done: int) -> None:
        """Train to the end, and say what was left out."""
        run.run_recipe(self.ctx, recipe, options, self.folder, devices, resume=self.resume, **self._facts())
        self.failures.report(done)

    def _facts(self) -> dict[str, Any]:
        return {"arguments": [str(self.masks)]}
