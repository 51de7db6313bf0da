"""Small shards of photographs of one colour with captions that name it."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220)}


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", **options)
    return out.getvalue()


def write_shards(folder: Path, tars: int = 2, pairs: int = 9, *, damaged: tuple[int, ...] = ()) -> Path:
    """Pair k has a colour by k mod 3 and two captions; the images of pairs ``damaged`` cannot be decoded."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for t in range(tars):
        with tarfile.open(folder / f"{t:05d}.tar", "w") as tar:
            for k in range(t * pairs, (t + 1) * pairs):
                name = list(COLOURS)[k % 3]
                pixels = np.clip(rng.normal(0, 25, (40, 56, 3)) + np.array(COLOURS[name]), 0, 255).astype(np.uint8)
                image = b"\xff\xd8\xff broken" if k in damaged else jpeg(pixels)
                said = json.dumps({"captions": [f"a {name} thing, number {k}", f"something {name}"]}).encode()
                for suffix, data in ((".jpg", image), (".json", said)):
                    entry = tarfile.TarInfo(f"{k:06d}{suffix}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
    return folder
