"""The photographs that bench/two_towers.py trains and scores on, shrunk: four tars of WebP images and JSON, packed for another machine.

``pool-train``, ``pool-test``: photographs of one thing each, with their class, and "a photo of a {class}" as their caption; a tenth of each
class is held out, by a hash of the photograph's name. ``pairs-train``, ``pairs-test``: photographs with five captions. Captions are for
experiments: nothing that is trained on them is to be shipped.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import DATA
from PIL import Image

PARTS = ("pool-train", "pool-test", "pairs-train", "pairs-test")
HELD_OUT = 10
_NAMES = {"Faces": "face", "Motorbikes": "motorbike", "airplanes": "airplane", "Leopards": "leopard", "car_side": "car"}
_LEFT_OUT = "BACKGROUND_Google"  # of no class


def word_of(name: str) -> str:
    """What a class is called in a caption."""
    return _NAMES.get(name, name.replace("_", " ").lower())


def held_out() -> Iterator[tuple[str, Image.Image]]:
    """The pool's photographs that are not trained on, each with what its class is called, in a fixed order."""
    for path in sorted((DATA / "pool").glob("*.tar")):
        for stem, image, about in _samples(path):
            if about["class"] != _LEFT_OUT and _is_held_out(path, stem, about):
                yield word_of(about["class"]), Image.open(io.BytesIO(image)).convert("RGB")


def _is_held_out(path: Path, stem: str, about: dict[str, Any]) -> bool:
    name = f"{about['source']}/{about['class']}/{path.stem}/{stem}"
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % HELD_OUT == 0


def pack(folder: Path, side: int, quality: int) -> int:
    """Write the four tars, compressed, with images of a shorter side of ``side``; returns their bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    tars = {part: tarfile.open(folder / f"{part}.tar.gz", "w:gz") for part in PARTS}
    for source, part in (("pool", None), ("flickr8k_pairs", "pairs")):
        for path in sorted((DATA / source).glob("*.tar")):
            for stem, image, about in _samples(path):
                if part is None:
                    if about["class"] == _LEFT_OUT:
                        continue
                    tar = tars["pool-test" if _is_held_out(path, stem, about) else "pool-train"]
                    word = word_of(about["class"])
                    kept: dict[str, Any] = {"class": word, "captions": [f"a photo of a {word}"]}
                else:
                    tar, kept = tars["pairs-test" if path.stem.startswith("test") else "pairs-train"], {"captions": about["captions"]}
                _add(tar, f"{path.stem}-{stem}.webp", shrunk(image, side, quality))
                _add(tar, f"{path.stem}-{stem}.json", json.dumps(kept).encode())
    for tar in tars.values():
        tar.close()
    return sum((folder / f"{part}.tar.gz").stat().st_size for part in PARTS)


def unpacked(packed: Path, folder: Path) -> Path:
    """The tars of a pack, not compressed, in ``folder``, as pairs are read."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        with gzip.open(packed / f"{part}.tar.gz") as source, open(folder / f"{part}.tar", "wb") as out:
            shutil.copyfileobj(source, out)
    return folder


def shrunk(data: bytes, side: int, quality: int) -> bytes:
    """An image with a shorter side of ``side`` pixels at most, as WebP."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = min(1.0, side / min(image.size))
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=quality, method=4)
    return out.getvalue()


def _samples(path: Path) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    with tarfile.open(path) as tar:
        members = {member.name: member for member in tar.getmembers()}
        for name in sorted(members):
            stem, _, suffix = name.rpartition(".")
            if suffix != "jpg" or f"{stem}.json" not in members:
                continue
            image, about = (tar.extractfile(members[f"{stem}.{kind}"]) for kind in ("jpg", "json"))
            assert image is not None
            assert about is not None
            yield stem, image.read(), json.load(about)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
