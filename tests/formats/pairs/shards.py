"""Small shards and lists of image-text pairs."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from ovskit.core.formats.pairs.pair_set import PairSet
from ovskit.core.formats.pairs.record import Pair
from ovskit.core.runtime.failures import Failures

Members = Iterable[tuple[str, bytes]]


def tar_bytes(members: Members) -> bytes:
    """A tar of these members, in this order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def write_tar(path: Path, members: Members) -> Path:
    """The same as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(members))
    return path


def sample(key: str, *captions: str, image: str = "jpg") -> list[tuple[str, bytes]]:
    """An image, which holds its own name, and a member of captions: text for one, JSON for several."""
    if len(captions) == 1:
        said = (f"{key}.txt", captions[0].encode())
    else:
        said = (f"{key}.json", json.dumps({"captions": captions}).encode())
    return [(f"{key}.{image}", os.fsencode(f"{key}.{image}")), said]


def shard(first: int, count: int) -> list[tuple[str, bytes]]:
    """``count`` samples with numbers from ``first`` on."""
    return [member for k in range(first, first + count) for member in sample(f"{k:05d}", f"caption {k}")]


def png(value: int = 0) -> bytes:
    """A real image of one colour."""
    out = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(out, "PNG")
    return out.getvalue()


def pairs(tmp_path: Path, *inputs: object, skip: bool = False, **options: object) -> PairSet:
    """The pairs that ``inputs`` name; their index is kept in ``tmp_path``."""
    kept = {"index_folder": str(tmp_path / "index"), "failures": Failures(skip=skip), **options}
    return PairSet([str(one) for one in inputs], **kept)  # type: ignore[arg-type]


def said(found: Iterable[Pair | None]) -> dict[str, tuple[str, ...]]:
    """The captions by key."""
    return {pair.key: pair.captions for pair in found if pair is not None}
