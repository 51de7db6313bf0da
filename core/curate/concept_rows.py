"""Concepts as vectors, in the space of the images: of the text tower beside the model of the image rows, or made elsewhere."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ovskit.core.concepts.vocabulary import Vocabulary
from ovskit.core.curate.kernels import Float32, unit
from ovskit.core.formats.paths import show_path
from ovskit.core.runtime.cache_folder import can_write, own_folder
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError
from ovskit.core.runtime.logs import get_logger
from ovskit.core.runtime.output import open_output
from ovskit.core.runtime.progress import Watch

if TYPE_CHECKING:
    from ovskit.core.models.backbones.interface import BackboneSpec

log = get_logger("curate")

_BATCH = 256  # prompts between two looks at the progress bar


def read_concept_rows(path: Path, names: Sequence[str], width: int) -> Float32:
    """The rows of the concepts ``names`` (n,) from a .npz of ``names`` (m,) and ``rows`` (m, width), at length 1: (n, width) float32.

    Names are compared as they are written, but for case. Raises MissingInputError for a file that is not there; InputError for one without
    these arrays, of another width, that lacks a concept, or that holds infinities, NaN or a row of zeros.
    """
    what = show_path(str(path))
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found, rows = arrays["names"], np.asarray(arrays["rows"], np.float32)
    except FileNotFoundError:
        raise MissingInputError(f"no such file: {what}") from None
    except OSError as error:
        raise InputError(f"{what} is not a .npz of names and rows: {error}") from None
    except (KeyError, ValueError, zipfile.BadZipFile, TypeError) as error:
        raise InputError(f"{what} is not a .npz with the arrays names (n,) and rows (n, c): {_first_line(error)}") from None
    if found.ndim != 1 or found.dtype.kind != "U" or rows.ndim != 2 or len(found) != len(rows):
        raise InputError(f"{what}: names {found.dtype} {found.shape} and rows {rows.shape} are not a text and a vector for each concept")
    if rows.shape[1] != width:
        raise InputError(f"{what} has rows of {rows.shape[1]} numbers, and the images' have {width}: they are not of one model")
    places = {str(name).casefold(): place for place, name in enumerate(found)}
    lacking = [name for name in names if name.casefold() not in places]
    if lacking:
        raise InputError(f"{what} has no row for {len(lacking)} of {len(names)} concepts, such as {', '.join(lacking[:3])}")
    chosen = rows[[places[name.casefold()] for name in names]]
    if not np.isfinite(chosen).all() or not chosen.any(axis=1).all():
        raise InputError(f"{what} has a row of zeros, or with infinities or NaN")
    return unit(chosen)


def embed_concepts(
    spec: BackboneSpec, vocabulary: Vocabulary, template: str, width: int, *, weights: Path | None, device: Any, watch: Watch
) -> Float32:
    """The concepts of ``vocabulary`` as the text tower of the model ``spec`` sees them in ``template``: (n, width) float32, of length 1.

    They are kept in the user's cache by vocabulary, template and weights. Raises UsageError for a model that knows no words, InputError for
    weights that are not those of ``spec``, and what ``registry.load_text`` raises.
    """
    from ovskit.core.models.families import has_words, names_with_words
    from ovskit.core.models.registry import load_text

    if not has_words(spec.model):
        raise UsageError(
            f"the rows are of {spec.name}, which knows no words: extract them with {names_with_words()}, or give --concept-rows FILE.npz"
        )
    kept = _kept(spec, vocabulary, template)
    if kept is not None and kept.is_file():
        try:
            return read_concept_rows(kept, vocabulary.names, width)
        except InputError as error:
            log.info("made again: %s", error)
    text = load_text(spec, weights=weights, device=device)
    if spec.weights_sha256 is not None and text.weights_sha256 != spec.weights_sha256:
        raise InputError(
            f"the rows were made by {spec.name} with weights sha256 {spec.weights_sha256[:12]}…, and the text tower is of "
            f"{str(text.weights_sha256)[:12]}…; give the same file with --weights, or extract the rows again"
        )
    prompts = [template.replace("{}", name) for name in vocabulary.names]
    starts = range(0, len(prompts), _BATCH)
    rows = unit(np.concatenate([text.embed(prompts[k : k + _BATCH]) for k in watch(starts, "reading concepts", len(starts))]))
    if rows.shape[1] != width:
        raise InputError(
            f"the text tower of {spec.name} makes rows of {rows.shape[1]} numbers, and the images' have {width}: extract --pool cls"
        )
    if kept is not None:
        arrays = io.BytesIO()
        np.savez(arrays, names=np.array(vocabulary.names), rows=rows)
        with open_output(str(kept)) as file:
            file.write(arrays.getvalue())
    return rows


def _kept(spec: BackboneSpec, vocabulary: Vocabulary, template: str) -> Path | None:
    """Where the rows are kept; None where nothing can be, or where the weights have no name by which to know them again."""
    folder = own_folder()
    if folder is None or spec.weights_sha256 is None:
        return None
    concepts = os.path.join(folder, "concepts")
    if not can_write(concepts):
        return None
    said = json.dumps([vocabulary.hash, template, spec.model, spec.weights_sha256])
    return Path(concepts) / f"{hashlib.sha256(said.encode()).hexdigest()[:32]}.npz"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
