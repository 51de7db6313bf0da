"""Groups of options that several commands share, each option declared once.

==================  =====================================================================
``ImagePaths``      IMAGES, --on-error
``ImagesIn``        IMAGES, --null -0, --images, --shard, --on-error; beside ``PhotographsAt``
``MasksIn``         MASKS.json, --on-error
``FeaturesIn``      FEATURES.npz, --grid, --on-error
``PhotographsAt``   --root, --exif, --max-pixels: where the photographs of a stream are
``StreamOut``       --output -o, --resume, --skip-existing, --no-pg
``Workers``         --workers -j
``Compute``         --device, --workers -j
``Common``          --config, --verbose -v, --quiet -q, --version
==================  =====================================================================

Short flags in use: -0 -h -j -k -o -q -v.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import typer

from ovskit.cli.settings import load_config
from ovskit.core import __version__
from ovskit.core.formats.photographs.options import PhotographsAt
from ovskit.core.runtime import values
from ovskit.core.runtime.declared import Effect, Given
from ovskit.core.runtime.logs import get_logger
from ovskit.core.runtime.settings import Options, option
from ovskit.core.runtime.shared_options import NO_PG, OUTPUT, WEIGHTS, WORKERS

if TYPE_CHECKING:
    from ovskit.cli.images import ChosenImages
    from ovskit.core.formats.photographs.sources import Sources
    from ovskit.core.runtime.failures import Failures

log = get_logger("cli")

__all__ = [
    "Common", "Compute", "Faults", "FeaturesIn", "ImagePaths", "ImagesIn", "MasksIn", "PhotographsAt", "StreamOut", "Weights", "Workers",
]  # fmt: skip


def show_version(value: bool) -> None:
    """Callback of ``--version``."""
    if value:
        typer.echo(f"ovskit {__version__}")
        raise typer.Exit()


ON_ERROR: Any = {
    "help": "At an image or a mask that cannot be used: fail; or skip it, name it on stderr and exit with 3 at the end.",
    "flag": True,
    "decides": False,
}


class Faults(Options):
    """What happens at an image that cannot be used."""

    SECTION: ClassVar[str] = "Input"

    on_error: Literal["fail", "skip"] = option("fail", **ON_ERROR)

    def failures(self) -> Failures:
        """The counter of what cannot be used."""
        from ovskit.core.runtime.failures import Failures

        return Failures(skip=self.on_error == "skip")


class ImagePaths(Faults):
    """Images by their paths."""

    inputs: tuple[str, ...] = option(
        (), "Files, folders, globs, .tar shards; - (the default) reads paths from stdin, one per line.", argument=True, metavar="IMAGES"
    )

    def find(self, at: PhotographsAt, failures: Failures) -> Sources:
        """All images that are named; see ``images.find_images``."""
        from ovskit.cli.images import find_images

        return find_images(self.inputs, failures, root=at.root, exif=at.exif)


def _lists_paths(given: Given) -> bool:
    return given["images"] is None and (not given["inputs"] or "-" in given["inputs"])


class ImagesIn(ImagePaths):
    """Images by their paths, or those that a COCO file lists, and which part of them is worked on."""

    nul: bool = option(
        False, "Paths on stdin end with NUL, not newline.", flag="--null", short="-0", decides=False,
        effect=Effect(_lists_paths, "is about a list of paths on stdin, and none is read"),
    )  # fmt: skip
    images: str | None = option(
        None, "Take the images a COCO or LVIS file lists, with its ids; see --root.", flag=True, metavar="COCO.json", environment="never"
    )
    shard: str | None = option(
        None, "Work on part I of N (from 0) of the sorted input; auto reads SLURM's array and step variables.",
        flag=True, metavar="I/N", decides=False,
    )  # fmt: skip

    def find(self, at: PhotographsAt, failures: Failures) -> Sources:
        """All images, whatever the shard; see ``images.find_images``."""
        from ovskit.cli.images import find_images

        return find_images(self.inputs, failures, coco=self.images, root=at.root, nul=self.nul, exif=at.exif)

    def choose(self, at: PhotographsAt, failures: Failures) -> ChosenImages:
        """The images of the shard. Raises UsageError for a shard that does not exist, and what ``find`` raises."""
        from ovskit.cli.images import ChosenImages
        from ovskit.core.runtime.shard import parse_shard

        part = parse_shard(self.shard)
        found = self.find(at, failures)
        chosen = part.pick(found.items)
        log.info("%d images, %d in this shard", len(found.items), len(chosen))
        return ChosenImages(chosen, found.root, found.exif, part)


class MasksIn(Faults):
    """Masks files, read as one."""

    masks: tuple[str, ...] = option(
        (), "A masks stream or any COCO file; several are joined; - (the default) is stdin.", argument=True, metavar="MASKS.json"
    )


def _reads_arrays(given: Given) -> bool:
    from ovskit.core.formats.streams.features import HEADER
    from ovskit.core.formats.streams.numpy_arrays import holds_arrays

    return any(holds_arrays(path, HEADER) for path in given["inputs"] or [])


class FeaturesIn(Faults):
    """Feature streams, read as one, with features saved by NumPy among them."""

    inputs: tuple[str, ...] = option(
        (),
        "Feature streams; - (the default) is stdin. With --root also features "
        "that others saved with NumPy: .npz, .npy or folders of .npy, an array named like each photograph.",
        argument=True,
        metavar="FEATURES.npz",
    )
    grid: tuple[int, int] | None = option(
        None, "Rows and columns of patches in NumPy arrays of shape (n, c), or (1 + n, c) with CLS first.",
        flag=True, metavar="HxW", parse=values.grid, rare=True,
        effect=Effect(_reads_arrays, "is about arrays that were saved with NumPy, and none of the inputs has some: leave it out"),
    )  # fmt: skip


class StreamOut(Options):
    """Where a stream is written."""

    SECTION: ClassVar[str] = "Output"

    output: str = option("-", **OUTPUT)
    resume: bool = option(
        False, "Keep an unfinished output as PATH.part, and go on from it where there is one; not with --no-pg.",
        flag=True, decides=False, environment="never",
    )  # fmt: skip
    skip_existing: bool = option(
        False, "Do nothing if the output is there already, complete and of the same options.", flag=True, decides=False,
        effect=Effect(lambda g: g["output"] != "-", "looks for the output's file: name it with -o"),
    )  # fmt: skip
    no_pg: bool = option(False, **NO_PG)


class Workers(Options):
    """How many threads."""

    SECTION: ClassVar[str] = "Compute"

    workers: int | None = option(None, **WORKERS)

    def threads(self) -> int:
        """The number of threads."""
        from ovskit.core.runtime.workers import default_workers

        return self.workers or default_workers()


class Compute(Workers):
    """Where to compute, and with how many threads."""

    device: str = option(
        "auto",
        "Where to compute: auto, cpu, cuda, cuda:N or mps; auto takes a GPU where there is one.",
        flag=True,
        metavar="DEVICE",
        decides=False,
    )


class Weights(Options):
    """Where a model's weights are."""

    SECTION: ClassVar[str] = "Model"

    weights: Path | None = option(None, **WEIGHTS)


class Common(Options):
    """What every command has."""

    SECTION: ClassVar[str] = "Common"

    config: Path | None = option(
        None,
        "Defaults from a TOML file, for all commands or in a table per command. "
        "A flag beats OVS_… in the environment, which beats the file.",
        flag=True, metavar="FILE", decides=False, environment="never", now=load_config, rare=True,
    )  # fmt: skip
    verbose: int = option(0, "Say more; twice for tracebacks.", flag=True, short="-v", counted=True, decides=False, shown="", rare=True)
    quiet: int = option(0, "Say less.", flag=True, short="-q", counted=True, decides=False, shown="", rare=True)
    version: bool = option(False, "Show the version and exit.", flag=True, decides=False, environment="never", now=show_version, rare=True)
