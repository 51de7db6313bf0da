"""Options that several commands share, each spelled once.

===================  =====  ==========================================================
``MASKS.json``              masks files, read as one
``--output``         -o     where to write; ``-`` is stdout
``--device``                auto, cpu, cuda[:n], mps
``--workers``        -j     threads; results never depend on it
``--weights``               a checkpoint file instead of the cache or the hub
``--root``                  the folder that images' names are relative to
``--on-error``              fail (exit 65 or 66) or skip (exit 3) a bad image
``--max-pixels``            the decompression-bomb limit
``--exif``                  apply or ignore EXIF orientations
``--shard``                 I/N or auto
``--resume``                continue PATH.part after a kill
``--skip-existing``         do nothing if the output is there, whole and of the same run
``--no-pg``                 leave out this run's provenance and all before it
``--config``                TOML settings
``--verbose, --quiet``      -v, -q   counted
``--version``
===================  =====  ==========================================================

Short flags in use: -0 -h -j -o -q -v.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ovskit.cli.command import show_version
from ovskit.cli.settings import load_config


class OnError(StrEnum):
    """What to do with an image that cannot be used."""

    fail = "fail"
    skip = "skip"


class ExifOrientation(StrEnum):
    """What to do with a photograph whose EXIF says that it is to be turned."""

    apply = "apply"
    ignore = "ignore"


MaskFiles = Annotated[
    list[str] | None,
    typer.Argument(metavar="MASKS.json", help="A masks stream or any COCO file; several are joined; - (the default) is stdin."),
]
Output = Annotated[str, typer.Option("--output", "-o", metavar="PATH", help="Write to PATH, whole or not at all; - is stdout.")]
Device = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps. auto takes a GPU where there is one.")
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", "-j", min=1, metavar="N", show_default="the cores available", help="Threads. Results do not depend on it."),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="The model's weights: a safetensors file, a torch checkpoint or a TorchScript archive; nothing in it is run. "
        "Otherwise the local cache, then the model hub.",
    ),
]
Root = Annotated[str | None, typer.Option("--root", metavar="DIR", help="The folder that image names are relative to.")]
OnErrorOption = Annotated[
    OnError,
    typer.Option("--on-error", help="At an image that cannot be used, or a mask: fail, or skip it, name it on stderr and exit with 3."),
]
Exif = Annotated[
    ExifOrientation | None,
    typer.Option(
        "--exif",
        show_default="what the stream was made with, else apply",
        help="Turn photographs upright by their EXIF orientation, or ignore it: for masks drawn on pixels as they are stored.",
    ),
]
MaxPixels = Annotated[
    int, typer.Option("--max-pixels", min=1, metavar="N", help="Refuse images of more pixels than this before decoding them.")
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="I/N", help="Work on part I of N (from 0) of the sorted input; auto reads SLURM's array and step variables."
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Keep an unfinished output as PATH.part, and go on from it where there is one; not with --no-pg.")
]
SkipExisting = Annotated[bool, typer.Option("--skip-existing", help="Do nothing if the output is there, whole and of this run.")]
NoPg = Annotated[bool, typer.Option("--no-pg", help="Leave the provenance out of the output.")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=load_config,
        help="Defaults from a TOML file, for all commands or in a table per command. "
        "A flag beats OVS_… in the environment, which beats the file.",
    ),
]
Verbose = Annotated[int, typer.Option("--verbose", "-v", count=True, show_default=False, help="Say more; twice for tracebacks.")]
Quiet = Annotated[int, typer.Option("--quiet", "-q", count=True, show_default=False, help="Say less.")]
Version = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=show_version, show_default=False, help="Show the version and exit.")
]
