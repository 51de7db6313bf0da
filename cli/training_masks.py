"""What the subcommands of ``ovs-train`` that learn from masks share: their inputs, and the run from these to its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ovskit.cli import options as opt
from ovskit.cli import training as run
from ovskit.cli import training_eval as dev
from ovskit.cli.command import provenance
from ovskit.core.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ovskit.core.train.data.target_index import TargetIndex, TargetOptions
    from ovskit.core.train.engine.recipe import Recipe
    from ovskit.core.train.recipes.segment_settings import SegmentSettings

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


class MaskJob:
    """A run that learns from masks, by the options of its command.

    Made before anything costs time: raises UsageError where an input is not named or options make no sense.
    """

    def __init__(self, ctx: typer.Context) -> None:
        from ovskit.core.formats.photographs.sources import list_sources
        from ovskit.core.runtime.failures import Failures
        from ovskit.core.train.engine.devices import open_devices

        self._ctx, self._given = ctx, ctx.params
        given = ctx.params
        if given["masks"] is None:
            raise UsageError("no masks: name a masks file, then its images with --images (see --help)")
        self._masks = Path(given["masks"])
        if str(self._masks) == "-" or self._masks.is_fifo():
            raise UsageError("the masks are read twice, which a pipe cannot be: write them to a file and name that")
        if not given["images"]:
            raise UsageError(f"--images: say where the images of {given['masks']} are")
        self._options = run.train_options(
            ctx,
            betas=BETAS[run.Optimizer(given["optimizer"])],
            eval_every=dev.every(given["eval_every"], given["checkpoint_every"], given["truth"]),
        )
        self._folder = run.run_folder(given["output"], resume=given["resume"])
        self._failures = Failures(skip=opt.OnError(given["on_error"]) is opt.OnError.skip)
        self._exif = self._settled_exif(given["exif"])
        listed = list_sources(given["images"], root=given["root"], failures=self._failures).items
        self._photographs = tuple(replace(photograph, exif=self._exif) for photograph in listed)
        self._devices = open_devices(given["device"], str(given["precision"]), accumulate=given["accumulate"])

    def _settled_exif(self, asked: str | None) -> str:
        """What to do with the photographs' orientations: what is asked for, or what the masks were made with."""
        from ovskit.core.formats.photographs.photographs import settled_exif
        from ovskit.core.formats.streams.masks import stated_exif
        from ovskit.core.runtime.output import open_input

        with open_input(str(self._masks)) as stream:
            return str(settled_exif(asked, stated_exif(stream, str(self._masks)), str(self._masks)))

    def train(
        self, recipe: Callable[..., Recipe], settings: SegmentSettings, begun_with: Mapping[str, Any], *, unlabelled: bool = False
    ) -> None:
        """Train to the end, and say what was left out. ``recipe`` lacks what every ``MaskRecipe`` is given but its segmenter;
        with ``unlabelled`` it looks at photographs without masks too."""
        given = self._given
        judge = None
        if given["truth"] is not None:
            where = (given["truth"], given["eval_root"], given["eval_limit"])
            judge = dev.segmenter_recall_on(*where, self._devices.device, settings.side, given["exif"])
        index = self._targets(settings.targets())
        facts: dict[str, Any] = {"arguments": [str(self._masks)]}
        made = recipe(
            index=index,
            photographs=self._photographs,
            settings=settings,
            folder=self._folder,
            seed=given["seed"],
            begun_with={**begun_with, **({"exif": self._exif} if self._exif == "ignore" else {})},
            pg=provenance(self._ctx, [], **facts),
            evaluate=judge,
            failures=self._failures,
        )
        run.run_recipe(self._ctx, made, self._options, self._folder, self._devices, resume=given["resume"], **facts)
        shown = len(self._photographs) if unlabelled else len(index)
        self._failures.report(max(0, shown - self._failures.named_once))

    def _targets(self, options: TargetOptions) -> TargetIndex:
        """The index of the masks, made by one process."""
        from ovskit.core.runtime.progress import track
        from ovskit.core.train.data.target_index import open_targets

        cache = self._given["cache"]
        with self._devices.first_goes_first():
            return open_targets(
                self._photographs,
                self._masks,
                options,
                self._folder / "targets" if cache is None else Path(cache),
                failures=self._failures,
                watch=lambda items: track(items, "indexing"),
            )
