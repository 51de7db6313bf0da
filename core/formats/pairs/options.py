"""Where image-text pairs are: options of every command that reads pairs, each once, as keywords of ``settings.option``."""

from __future__ import annotations

from typing import Any, NamedTuple

ROOT: Any = {
    "help": "Folder that the images of JSONL, COCO and TSV files are in.",
    "flag": True,
    "metavar": "DIR",
    "decides": False,
    "environment": "never",
}
COLUMNS: Any = {
    "help": "Columns of TSV files: caption,image or image,caption; auto looks for paths and URLs.",
    "flag": True,
    "metavar": "NAMES",
    "rare": True,
}


class PairInputs(NamedTuple):
    """What a person names as pairs; see ``pair_set.PairSet``."""

    inputs: tuple[str, ...]
    root: str | None = None
    columns: str = "auto"
