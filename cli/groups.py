"""Groups of options that several commands share, each option declared once.

==================  =====================================================================
``ImagesIn``        IMAGES, --null -0, --images, --root, --exif, --max-pixels, --shard, --on-error
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

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import typer

from ovskit.cli.settings import load_config
from ovskit.core import __version__
from ovskit.core.formats.photographs.options import PhotographsAt
from ovskit.core.runtime import values
from ovskit.core.runtime.settings import Effect, Given, Options, option

__all__ = ["Common", "Compute", "Faults", "FeaturesIn", "MasksIn", "PhotographsAt", "StreamOut", "Weights", "Workers"]

if TYPE_CHECKING:
    from ovskit.core.runtime.failures import Failures


def show_version(value: bool) -> None:
    """Callback of ``--version``."""
    if value:
        typer.echo(f"ovskit {__version__}")
        raise typer.Exit()


ON_ERROR: Any = {
    "help": "At an image that cannot be used, or a mask: fail, or skip it, name it on stderr and exit with 3.",
    "flag": True,
    "decides": False,
}


@dataclass(frozen=True, slots=True)
class Faults(Options):
    """What happens at an image that cannot be used."""

    SECTION: ClassVar[str] = "Input"

    on_error: Literal["fail", "skip"] = option("fail", **ON_ERROR)

    def failures(self) -> Failures:
        """Where they are counted."""
        from ovskit.core.runtime.failures import Failures

        return Failures(skip=self.on_error == "skip")


@dataclass(frozen=True, slots=True)
class MasksIn(Faults):
    """Masks files, read as one."""

    masks: tuple[str, ...] = option(
        (), "A masks stream or any COCO file; several are joined; - (the default) is stdin.", argument=True, metavar="MASKS.json"
    )


def _reads_arrays(given: Given) -> bool:
    from ovskit.core.formats.streams.features import HEADER
    from ovskit.core.formats.streams.numpy_arrays import holds_arrays

    return any(holds_arrays(path, HEADER) for path in given["inputs"] or [])


@dataclass(frozen=True, slots=True)
class FeaturesIn(Faults):
    """Feature streams, read as one, those among them that were saved with NumPy too."""

    inputs: tuple[str, ...] = option(
        (),
        "Feature streams; - (the default) is stdin. With --root also features "
        "that others saved with NumPy: .npz, .npy or folders of .npy, an array named like each photograph.",
        argument=True,
        metavar="FEATURES.npz",
    )
    grid: tuple[int, int] | None = option(
        None, "Rows and columns of patches of NumPy's arrays (n, c), or (1 + n, c) with CLS first.",
        flag=True, metavar="HxW", parse=values.grid, rare=True,
        effect=Effect(_reads_arrays, "is about arrays that were saved with NumPy, and none of the inputs has some: leave it out"),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class StreamOut(Options):
    """Where a stream is written."""

    SECTION: ClassVar[str] = "Output"

    output: str = option(
        "-", "Write to PATH, whole or not at all; - is stdout.", flag=True, short="-o", metavar="PATH", decides=False, environment="never"
    )
    resume: bool = option(
        False, "Keep an unfinished output as PATH.part, and go on from it where there is one; not with --no-pg.",
        flag=True, decides=False, environment="never",
    )  # fmt: skip
    skip_existing: bool = option(
        False, "Do nothing if the output is there, whole and of this run.", flag=True, decides=False,
        effect=Effect(lambda g: g["output"] != "-", "looks for the output's file: name it with -o"),
    )  # fmt: skip
    no_pg: bool = option(False, "Leave the provenance out of the output.", flag=True, decides=False)


@dataclass(frozen=True, slots=True)
class Workers(Options):
    """How many threads."""

    SECTION: ClassVar[str] = "Compute"

    workers: int | None = option(
        None, "Threads. Results do not depend on it.", flag=True, short="-j", low=1, metavar="N", shown="the cores available", decides=False
    )

    def threads(self) -> int:
        """How many there are to be."""
        from ovskit.core.runtime.workers import default_workers

        return self.workers or default_workers()


@dataclass(frozen=True, slots=True)
class Compute(Workers):
    """Where to compute, and with how many threads."""

    device: str = option(
        "auto", "auto, cpu, cuda, cuda:N or mps. auto takes a GPU where there is one.", flag=True, metavar="DEVICE", decides=False
    )


@dataclass(frozen=True, slots=True)
class Weights(Options):
    """Where a model's weights are."""

    SECTION: ClassVar[str] = "Model"

    weights: Path | None = option(
        None,
        "The model's weights: a safetensors file, a torch checkpoint or a TorchScript archive; nothing in it is run. "
        "Otherwise the local cache, then the model hub.",
        flag=True, metavar="FILE", decides=False,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Common(Options):
    """What every command has."""

    SECTION: ClassVar[str] = "Common"

    config: Path | None = option(
        None,
        "Defaults from a TOML file, for all commands or in a table per command. "
        "A flag beats OVS_… in the environment, which beats the file.",
        flag=True, metavar="FILE", decides=False, environment="never", now=load_config, rare=True,
    )  # fmt: skip
    verbose: int = option(0, "Say more; twice for tracebacks.", flag=True, short="-v", count=True, decides=False, shown="", rare=True)
    quiet: int = option(0, "Say less.", flag=True, short="-q", count=True, decides=False, shown="", rare=True)
    version: bool = option(False, "Show the version and exit.", flag=True, decides=False, environment="never", now=show_version, rare=True)
