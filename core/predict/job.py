"""What a method of ``ovs-predict`` is given beside its options, what it gives back, and which checkpoints are its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovskit.core.runtime.methods import Method
from ovskit.core.runtime.progress import Watch, unwatched

if TYPE_CHECKING:
    from ovskit.core.formats.photographs.sources import Source
    from ovskit.core.records import MaskSet
    from ovskit.core.runtime.failures import Failures

_MODEL = "model.safetensors"
_LONGEST = 100_000_000  # bytes of a header, as safetensors has it


@dataclass(frozen=True, slots=True)
class PredictJob:
    """A run of ``ovs-predict`` but for its method.

    ``checkpoint`` is what --checkpoint names, ``model`` and ``weights`` what --model and --weights do. Images that cannot be used go to
    ``failures``; those of more than ``max_pixels`` are refused before they are decoded; ``exif`` says how their orientations are taken.
    ``grow_forest`` gives masks parents by coverage. Files that are read beside the images are closed by ``stack``. ``watch`` follows what
    takes long before the first image.
    """

    checkpoint: Path | None
    failures: Failures
    grow_forest: Callable[[MaskSet], MaskSet]
    device: str = "auto"
    workers: int = 1
    max_pixels: int = 178_956_970
    model: str | None = None
    weights: Path | None = None
    exif: str = "apply"
    stack: ExitStack = field(default_factory=ExitStack)
    watch: Watch = unwatched


@dataclass(frozen=True, slots=True)
class Predicted:
    """What a method makes: the ``records`` of any photographs, in order, by ``model``, as provenance names it and its weights.

    They are masks, or the labels of whole images where ``of_images`` says so. ``categories`` and ``labels`` are the stream's, where there
    are classes; ``pg`` is the provenance of what was read beside the images. With a ``report`` nothing is asked of the records but to be
    gone through: what it gives then, as JSON, is what is written.
    """

    model: str
    model_sha256: str | None
    records: Callable[[Sequence[Source]], Iterator[Any]]
    categories: Sequence[Mapping[str, Any]] = ()
    labels: Mapping[str, Any] | None = None
    pg: Sequence[Mapping[str, Any]] = ()
    of_images: bool = False
    report: Callable[[], Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class PredictMethod(Method):
    """A method of ``ovs-predict``. ``opens`` tells whether a checkpoint is its own, without reading the weights.

    ``run`` takes a ``PredictJob`` and the method's options to ``Predicted``.
    """

    opens: Callable[[Path], bool] = lambda checkpoint: False


def kind_of(checkpoint: Path) -> str:
    """The format that a run's finished model states, such as ``ovskit.segmenter/1``; empty for a folder without a model of ovskit."""
    path = checkpoint / _MODEL
    try:
        if not path.is_file():
            return ""
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length <= _LONGEST else {}
        return str(json.loads(header["__metadata__"]["ovskit"])["format"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # reported when it is opened
        return ""
