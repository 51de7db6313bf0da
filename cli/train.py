"""``ovs-train``: models from masks, pairs or images alone; one subcommand for each recipe that there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from ovskit.cli.command import OvsGroup, provenance
from ovskit.cli.expand import Choice
from ovskit.cli.groups import Common, Faults
from ovskit.cli.images import find_images
from ovskit.cli.training_display import Display
from ovskit.core.formats.pairs.options import COLUMNS, PairInputs
from ovskit.core.formats.pairs.options import ROOT as PAIRS_ROOT
from ovskit.core.formats.photographs.options import EXIF, ROOT
from ovskit.core.runtime.declared import Effect
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.methods import ChosenMethod
from ovskit.core.runtime.settings import Options, option, with_defaults
from ovskit.core.runtime.shared_options import NO_PG
from ovskit.core.train.engine.options import TrainOptions
from ovskit.core.train.job import TrainJob, TrainMethod
from ovskit.core.train.recipes import TRAIN

if TYPE_CHECKING:
    import torch

    from ovskit.core.formats.photographs.sources import Source
    from ovskit.core.runtime.failures import Failures

app = OvsGroup(
    "ovs-train",
    about="Train a model. A run is a folder; stopped at any moment, it goes on with --resume.",
    examples=[
        ("the built-in network, from photographs alone", "ovs-train backbone imgs/ -o run"),
        ("a vision transformer, from photographs alone", "ovs-train dino imgs/ -o run"),
        ("a segmenter, from masks that a clustering found", "ovs-train segment masks.json --images imgs -o run"),
        ("a segmenter further, by self-correction", "ovs-train correct masks.json --images imgs --from run -o run2"),
        ("two towers, from images and their captions", "ovs-train pairs 'shards/*.tar' -o towers"),
        ("all that can be set", "ovs-train backbone --help"),
    ],
)

# The order in which a run's provenance names what decides it: first what is learned and for how long. What else there is comes after.
ORDER = (
    "masks inputs images source output threshold steps minutes resume backbone freeze batch accumulate optimizer learning_rate warmup "
    "schedule weight_decay clip_norm setting weights scratch init segments cache root columns exif checkpoint_every log_every eval_every "
    "truth eval_root eval_limit tensorboard compile seed device precision on_error workers"
).split()


class PhotographsToLearnFrom(Faults):
    """Photographs alone."""

    inputs: tuple[str, ...] = option(
        (), "Files, folders, globs, .tar shards; - (the default) reads paths from stdin, one per line.", argument=True, metavar="IMAGES"
    )
    cache: Path | None = option(
        None, "Keep the prepared images here; runs on the same images share it.",
        flag=True, metavar="DIR", shown="RUN/cache", decides=False,
    )  # fmt: skip
    root: str | None = option(None, **ROOT)
    exif: Literal["apply", "ignore"] | None = option(None, **EXIF)

    masks: ClassVar[None] = None
    pairs: ClassVar[None] = None

    def named(self) -> list[str]:
        """The arguments."""
        return list(self.inputs)

    def photographs(self, failures: Failures) -> tuple[Source, ...]:
        """All photographs that are named. Raises what ``find_images`` raises."""
        return find_images(self.named(), failures, root=self.root, exif=self.exif).items


class MasksToLearnFrom(Faults):
    """Masks and their photographs."""

    masks: Path | None = option(None, "A masks stream or any COCO file: what to learn from.", argument=True, metavar="MASKS.json")
    images: tuple[str, ...] = option(
        (), "The images of the masks: files, folders, globs, .tar shards; may be given several times.",
        flag=True, metavar="IMAGES", environment="never",
    )  # fmt: skip
    cache: Path | None = option(
        None, "Keep the masks' index here; runs on the same masks share it.",
        flag=True, metavar="DIR", shown="RUN/targets", decides=False,
    )  # fmt: skip
    root: str | None = option(None, **ROOT)
    exif: Literal["apply", "ignore"] | None = option(None, **EXIF)

    pairs: ClassVar[None] = None

    def named(self) -> list[str]:
        """The argument."""
        return [str(self.masks)]

    def photographs(self, failures: Failures) -> tuple[Source, ...]:
        """All photographs that are named, turned upright or not as somebody says, or else as the masks were made.

        Raises UsageError where an input is not named, and what listing them raises.
        """
        from ovskit.core.formats.photographs.photographs import settled_exif
        from ovskit.core.formats.photographs.sources import list_sources
        from ovskit.core.formats.streams.masks import stated_exif
        from ovskit.core.runtime.output import open_input

        if self.masks is None:
            raise UsageError("no masks: name a masks file, then its images with --images (see --help)")
        what = str(self.masks)
        if what == "-" or self.masks.is_fifo():
            raise UsageError("the masks are read twice, which a pipe cannot be: write them to a file and name that")
        if not self.images:
            raise UsageError(f"--images: say where the images of {what} are")
        with open_input(what) as stream:
            exif = str(settled_exif(self.exif, stated_exif(stream, what), what))
        listed = list_sources(list(self.images), root=self.root, failures=failures).items
        return tuple(replace(photograph, exif=exif) for photograph in listed)


class PairsToLearnFrom(Faults):
    """Image-text pairs."""

    inputs: tuple[str, ...] = option(
        (), "Image-text pairs: tar shards, folders or globs of them, JSONL, COCO captions, TSV, parquet.", argument=True, metavar="PAIRS"
    )
    root: str | None = option(None, **PAIRS_ROOT)
    columns: str = option("auto", **COLUMNS)

    masks: ClassVar[None] = None
    cache: ClassVar[None] = None
    exif: ClassVar[None] = None

    @property
    def pairs(self) -> PairInputs:
        """All that is named. Raises UsageError where nothing is."""
        if not self.inputs:
            raise UsageError("no pairs: name tar shards, folders of them, or lists of captions (see --help)")
        return PairInputs(self.inputs, self.root, self.columns)

    def named(self) -> list[str]:
        """The arguments."""
        return list(self.inputs)

    def photographs(self, failures: Failures) -> tuple[Source, ...]:
        """None: they are read as they are asked for."""
        return ()


INPUTS = {"photographs": PhotographsToLearnFrom, "masks": MasksToLearnFrom, "pairs": PairsToLearnFrom}


class RunOut(Options):
    """Where the run is kept."""

    SECTION: ClassVar[str] = "Output"

    output: str | None = option(
        None, "The folder of the run: checkpoint, log and the finished model.",
        flag=True, short="-o", metavar="RUN", decides=False, environment="never",
    )  # fmt: skip
    resume: bool = option(
        False, "Go on from the run's checkpoint, where there is one.", flag=True, decides=False, environment="never"
    )  # fmt: skip
    no_pg: bool = option(False, **NO_PG)

    def folder(self) -> Path:
        """The folder of the run. Raises UsageError if it is not given, is a file, or holds a run that is not to be resumed."""
        from ovskit.core.train.engine.checkpoint import check_folder

        if self.output is None or self.output == "-":
            raise UsageError("a run is a folder: name it with -o RUN")
        folder = Path(self.output)
        check_folder(folder, resume=self.resume)
        return folder


_OF_EVAL = Effect(lambda g: g["eval"] is not None, "is about what --eval names: add --eval GT.json")


class Evaluation(Options):
    """What the model under training is scored on."""

    SECTION: ClassVar[str] = "Evaluation"

    truth: str | None = option(
        None, "Ground truth to score on every --eval-every steps: average recall on its photographs.", flag="--eval", metavar="GT.json"
    )
    eval_root: str | None = option(
        None, "Folder of the photographs of --eval.", flag=True, metavar="DIR", shown="the ground truth's folder", effect=_OF_EVAL
    )
    eval_limit: int = option(
        50, "Photographs of --eval to score on, the first of its file.", flag=True, low=1, metavar="N", effect=_OF_EVAL
    )

    def every(self, options: TrainOptions) -> int:
        """Steps between evaluations: 0 without a ground truth, by default those between checkpoints. Raises UsageError."""
        if self.truth is None:
            if options.eval_every:
                raise UsageError("--eval-every: say what to evaluate on with --eval GT.json")
            return 0
        return options.eval_every or options.checkpoint_every

    def score(self, method: TrainMethod, device: torch.device, exif: str | None) -> Callable[..., dict[str, float]] | None:
        """A function from what is trained to its scores, see ``TrainJob``; None if nothing is to be scored.

        Rooms do not know each other: here masks are found by one and scored by another. Raises what ``TruthSample`` raises.
        """
        if self.truth is None:
            return None
        from ovskit.core.eval.truth_sample import TruthSample

        sample = TruthSample(self.truth, self.eval_root, self.eval_limit, exif)
        if method.scored_as == "backbone":
            from ovskit.core.cluster.network_regions import regions_by
            from ovskit.core.train.recipes.backbone import extractor_of

            return lambda network: sample.score_of(regions_by(extractor_of(device)(network)))
        from ovskit.core.predict.predictor import PredictOptions, predict_pixels

        def score(segmenter: Any, size: int) -> dict[str, float]:
            options = PredictOptions(size=size, parents=False)
            return sample.score_of(lambda image, pixels: predict_pixels(image, pixels, segmenter, options, device))

        return score


def groups_of(method: TrainMethod) -> dict[str, Any]:
    """The groups of a recipe's subcommand that are its own; of one that cannot be scored, without what is about that."""
    run, evaluation = method.run_options, Evaluation
    if method.scored_as is None:
        run = with_defaults(run, fixed=("eval_every",))
        evaluation = with_defaults(evaluation, fixed=("truth", "eval_root", "eval_limit"))
    return {"source": INPUTS[method.learns_from], "files": method.files, "options": run, "evaluation": evaluation}


def train_by(
    ctx: typer.Context,
    source: Any,
    files: Any,
    out: RunOut,
    chosen: ChosenMethod,
    options: TrainOptions,
    evaluation: Evaluation,
    common: Common,
) -> None:
    """What every subcommand does. Raises PartialError if --minutes ended it early or images were left out, and all that training raises."""
    options = replace(options, eval_every=evaluation.every(options))
    failures = source.failures()
    photographs, pairs = source.photographs(failures), source.pairs
    folder = out.folder()

    from ovskit.core.runtime.failures import PartialError
    from ovskit.core.runtime.progress import track
    from ovskit.core.train.engine.devices import open_devices
    from ovskit.core.train.engine.loop import train

    method: Any = chosen.method
    devices = open_devices(options.device, options.precision, accumulate=options.accumulate)
    job = TrainJob(
        folder, photographs, options, devices, failures, source.masks, pairs, files, source.cache,
        score=evaluation.score(method, devices.device, source.exif),
        pg=provenance(ctx, [], arguments=source.named()), watch=track, given=chosen.given,
    )  # fmt: skip
    recipe, learned_from = method.run(job, chosen.options)
    with Display() as display:
        outcome = train(recipe, options, folder, devices=devices, resume=out.resume, pg=job.pg, watch=display)
    devices.close()
    if not outcome.finished:
        raise PartialError(f"stopped at step {outcome.step} of {options.steps} with a checkpoint; the same command with --resume goes on")
    failures.report(max(0, learned_from - failures.named_once))


def command_of(method: TrainMethod) -> Callable[..., None]:
    """``train_by`` as the subcommand of a recipe, with its options."""

    def command(
        ctx: typer.Context, source: Any, files: Any, out: RunOut, chosen: Any, options: Any, evaluation: Any, common: Common
    ) -> None:
        train_by(ctx, source, files, out, chosen, options, evaluation, common)

    command.__doc__ = method.about
    command.__annotations__ = {
        "ctx": typer.Context,
        **groups_of(method),
        "out": RunOut,
        "chosen": Annotated[ChosenMethod, Choice(TRAIN, method.name, fixed=True)],
        "common": Common,
        "return": None,
    }
    return command


for _method in TRAIN:
    assert isinstance(_method, TrainMethod)  # the registry has no other
    app.ovs_command(_method.name, _method.examples, ORDER)(command_of(_method))
app.broken = TRAIN.broken
