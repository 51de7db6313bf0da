"""Centroids kept for new images: one ``.npz`` in the container of the feature stream.

The first member, ``ovs.json``, says what they are centroids of and lists them; then, for each name in that order,
``NAME/rows.npy`` (k, c) float32 and ``NAME/counts.npy`` (k,) int64. ``numpy.load(file)`` opens the same bytes; the same
centroids give the same bytes. Nothing is ever unpickled.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
import numpy.typing as npt

from ovskit.core.formats import jsonbytes
from ovskit.core.formats.streams.npy import npy_chunks, parse_npy
from ovskit.core.formats.streams.zipstream import StoredZipWriter, read_members
from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.output import open_input, open_output

FORMAT = "ovskit.centroids/1"
HEADER = "ovs.json"

Metric = Literal["cosine", "euclidean"]
METRICS: tuple[Metric, ...] = get_args(Metric)

_NAME = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z._-]{0,63}(/[0-9A-Za-z_-][0-9A-Za-z._-]{0,63})?", re.ASCII)
_OF_THE_MODEL = ("model", "facet", "layer", "dim", "weights_sha256")
_WANTED = "expected centroids, as ovs-cluster --save writes them"


@dataclass(frozen=True, slots=True)
class Centroids:
    """What k-means found.

    ``rows`` (k, c): for cosine of length 1 (or 0, where all that was fitted is zero). ``objective`` is the mean squared
    distance of the fitted points (L2-normalised for cosine) to their centroids, and ``counts`` (k,) how many each has.
    """

    rows: npt.NDArray[np.float32]
    metric: Metric
    objective: float
    counts: npt.NDArray[np.int64]


def save_centroids(
    path_or_stream: str | os.PathLike[str] | BinaryIO, centroids_by_name: Mapping[str, Centroids], about: Mapping[str, Any]
) -> None:
    """Write centroids to a stream, or to a path (``-`` is stdout), where the file then appears whole or not at all.

    ``about`` is plain JSON without NaN: ``model`` is ``BackboneSpec.to_json()``, which names the facet too; the rest is the
    caller's. Raises ``ValueError`` for a name that is not letters, digits and ``._-`` with at most one ``/`` inside, or for
    centroids that ``load_centroids`` would refuse, and OutputError as ``open_output`` does.
    """
    if isinstance(path_or_stream, (str, os.PathLike)):
        with open_output(os.fspath(path_or_stream)) as out:
            save_centroids(out, centroids_by_name, about)
        return
    listed = []
    for name, one in centroids_by_name.items():
        wrong = "its name cannot be one" if not _NAME.fullmatch(name) else _problem(one)
        if wrong:
            raise ValueError(f"centroids {name!r}: {wrong}")
        listed.append({"name": name, "metric": one.metric, "objective": float(one.objective)})
    with StoredZipWriter(path_or_stream) as members:
        members.write(HEADER, jsonbytes.dumps({"format": FORMAT, "about": dict(about), "centroids": listed}))
        for name, one in centroids_by_name.items():
            members.write(f"{name}/rows.npy", *npy_chunks(one.rows))
            members.write(f"{name}/counts.npy", *npy_chunks(one.counts))


def load_centroids(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Centroids]]:
    """What was saved: (about, centroids by name in their order). ``-`` is stdin.

    Raises MissingInputError if there is no such file, and InputError, naming it, for one that is damaged, cut short, of
    another program or of another version.
    """
    what = "stdin" if os.fspath(path) == "-" else os.fspath(path)
    with open_input(os.fspath(path)) as stream:
        start = stream.peek(len(_START))[: len(_START)]  # type: ignore[attr-defined]  # buffered, as open_input's are
        if not start:
            raise InputError(f"{what} is empty: zero bytes; {_WANTED}")
        if start != _START[: len(start)]:
            raise InputError(f"{what} is not a file of centroids; {_WANTED}")
        return _parse(read_members(stream, what), what)


def check_feature_model(about: Mapping[str, Any], model_json: Mapping[str, Any], what: str) -> None:
    """Raises InputError, naming the file ``what``, if its centroids, described by ``about``, were fitted on features of another model.

    ``model_json`` is the ``model`` of the features' header. The same model means the same network and weights, facet, layer
    and width; what the user called it may differ.
    """
    own = about.get("model")
    if not isinstance(own, Mapping) or not all(key in own for key in _OF_THE_MODEL):
        raise InputError(f"{what} does not say which model its centroids are of; fit them again")
    for key in _OF_THE_MODEL:
        if own[key] != model_json.get(key):
            here = f"{own[key]!r}, the features' {model_json.get(key)!r}"
            raise InputError(f"{what} has centroids of other features: their {key} is {here}; fit them again, or extract as they were")


def _parse(members: Iterator[tuple[str, memoryview]], what: str) -> tuple[dict[str, Any], dict[str, Centroids]]:
    name, data = next(members)  # raises for a stream without members
    header = jsonbytes.loads(data, f"{what}: {name}") if name == HEADER else None
    kind = header.get("format") if isinstance(header, dict) else None
    if header is None or kind != FORMAT:
        raise InputError(f"{what}: its format is {kind!r}, this ovskit reads centroids as {FORMAT!r}; {_WANTED}")
    about, listed = header.get("about"), header.get("centroids")
    if not isinstance(about, dict) or not isinstance(listed, list):
        raise InputError(f"{what}: {HEADER} is incomplete; fit the centroids again")
    found: dict[str, Centroids] = {}
    for entry in listed:
        try:
            name, metric, objective = entry["name"], entry["metric"], entry["objective"]
        except (KeyError, TypeError):
            raise InputError(f"{what}: {HEADER} lists centroids without name, metric and objective; fit them again") from None
        if not isinstance(name, str) or name in found:
            raise InputError(f"{what}: {HEADER} lists centroids twice, or without a name; fit them again")
        one = Centroids(_member(members, f"{name}/rows.npy", what), metric, objective, _member(members, f"{name}/counts.npy", what))
        if problem := _problem(one):
            raise InputError(f"{what}: centroids {name!r}: {problem}; fit them again")
        found[name] = one
    for name, _ in members:  # to the end, which says that the file is whole
        raise InputError(f"{what}: unexpected member {name!r}; {_WANTED}")
    return about, found


def _member(members: Iterator[tuple[str, memoryview]], name: str, what: str) -> npt.NDArray[Any]:
    found, data = next(members, ("nothing", memoryview(b"")))
    if found != name:
        raise InputError(f"{what}: member {name!r} is missing (found {found!r}); fit the centroids again")
    return parse_npy(data, f"{what}: {name}")


def _problem(one: Centroids) -> str | None:
    """What makes these centroids invalid, None if nothing does."""
    rows, counts = one.rows, one.counts
    if one.metric not in METRICS:
        return f"metric {one.metric!r} is not one of {', '.join(METRICS)}"
    if rows.dtype != np.float32 or rows.ndim != 2 or not rows.size:
        return f"rows are {rows.dtype} {rows.shape}, want float32 with two axes"
    if counts.dtype != np.int64 or counts.shape != rows.shape[:1] or (counts < 0).any():
        return f"counts are {counts.dtype} {counts.shape}, want one int64 of 0 or more for each of {len(rows)} rows"
    if type(one.objective) not in (int, float, np.float32, np.float64) or not 0 <= one.objective < math.inf:
        return f"objective {one.objective!r} is not a mean of squares"
    if not np.isfinite(rows).all():
        return "rows hold infinities or NaN"
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    if one.metric == "cosine" and not ((np.abs(lengths - 1) < 1e-3) | (lengths == 0)).all():
        return "rows for cosine are not of length 1"
    return None


def _start() -> bytes:
    """The bytes that every file of the container begins with: the fixed part of its first local header."""
    out = io.BytesIO()
    StoredZipWriter(out).write(HEADER, b"")
    return out.getvalue()[:14]


_START = _start()
