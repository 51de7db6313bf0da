"""What bench/gpu.sh learns from, made before on a CPU: photographs of the pool with our own masks, and a few to be scored on.

PACK is a folder, new or begun before: a lot of photographs is made whole, so a script that was killed goes on at the next one.

- ``photographs/NN.tar``: a lot of the pool's photographs, shrunk to ``--side`` pixels on the shorter side, as JPEG. The pool in the
  order of a hash of the names: any number of lots is a fair sample.
- ``masks/NN.json.xz``: what ``ovs-extract --size 512 | ovs-cluster | ovs-refine | ovs-hier`` finds in them, our masks stream; of each
  photograph the ``--regions`` of the highest scores that are no smaller than ``--smallest`` of it, since a segmenter sees a point for
  4 × 4 pixels.
- ``scored/SET/``: the first 30 photographs of each set that annotators outlined, in their own size, and their truth;
  ``explored.json.xz``, the 100 best masks of each that the same pipeline finds at its defaults, and ``explored-scores.json``, what
  ovs-eval says of all that it finds. That is what a segmenter is held against.

The last lots are left out where they would not fit into ``--mebibytes``. A pack is not to be committed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import os
import shlex
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from harness.arguments import bench_parser
from harness.commands import per_annotator, pipe, scores
from harness.photographs import DATA, SETS, pool, truth_file
from harness.report import progress
from PIL import Image as Picture

from ovskit.core.formats.photographs.photographs import read_source
from ovskit.core.formats.photographs.sources import Source, list_sources
from ovskit.core.formats.streams.masks import MasksWriter, open_masks
from ovskit.core.masks.forest import keep
from ovskit.core.records import MaskSet
from ovskit.core.runtime.failures import Failures

EXPLORED = 100  # masks of a photograph that is scored
MEBIBYTE = 1 << 20


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("pack", type=Path, help="the folder")
    parser.add_argument("--mebibytes", type=float, default=45, help="size of the whole folder at most")
    parser.add_argument("--lots", type=int, default=18, help="most lots to make")
    parser.add_argument("--lot", type=int, default=250, help="photographs in each lot")
    parser.add_argument("--side", type=int, default=160, help="shorter side of a photograph, pixels")
    parser.add_argument("--size", type=int, default=512, help="--size of ovs-extract for the pool's photographs")
    parser.add_argument("--regions", type=int, default=60, help="masks kept of a photograph")
    parser.add_argument("--smallest", type=float, default=0.003, help="smallest mask, as a share of the photograph")
    parser.add_argument("--quality", type=int, default=75, help="quality of the JPEG files")
    parser.add_argument("--scored", type=int, default=30, help="photographs of each set to be scored on")
    parser.add_argument("--jobs", type=int, default=2, help="threads of each command")
    arguments = parser.parse_args()
    pack: Path = arguments.pack
    for name in SETS:
        scored_set(pack / "scored" / name, name, arguments.scored, arguments.jobs, arguments.quality)
    sources = in_hashed_order(list_sources([str(path) for path in pool()]).items)
    for number in range(min(arguments.lots, -(-len(sources) // arguments.lot))):
        photographs = sources[number * arguments.lot : (number + 1) * arguments.lot]
        lot(pack, number, photographs, arguments)
        if size_of(pack) > arguments.mebibytes * MEBIBYTE:
            for path in files_of(pack, number):
                path.unlink()
            progress(f"lot {number} would not fit into {arguments.mebibytes:g} MiB; it and those after it are left out")
            break
        progress(f"lot {number}: {len(photographs)} photographs, {size_of(pack) / MEBIBYTE:.1f} MiB in all")


def in_hashed_order(sources: Iterable[Source]) -> list[Source]:
    """Sources in the order of a hash of their names."""
    return sorted(sources, key=lambda source: hashlib.sha256(source.file_name.encode()).digest())


def files_of(pack: Path, number: int) -> tuple[Path, Path]:
    """The photographs and the masks of a lot."""
    return pack / "photographs" / f"{number:02d}.tar", pack / "masks" / f"{number:02d}.json.xz"


def size_of(pack: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in pack.rglob("*") if path.is_file())


def lot(pack: Path, number: int, photographs: Sequence[Source], arguments: argparse.Namespace) -> None:
    """Make a lot, unless it is there."""
    tar, masks = files_of(pack, number)
    for path in (tar, masks):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not tar.exists():
        with whole(tar) as part:
            write_tar(part, photographs, arguments.side, arguments.quality)
    if not masks.exists():
        with tempfile.TemporaryDirectory() as folder:
            found = Path(folder) / "masks.json"
            explore(f"--size {arguments.size} {shlex.quote(tar.name)}", tar.parent, found, arguments.jobs)
            with whole(masks) as part:
                write_best(found, part, arguments.regions, arguments.smallest)


class whole:
    """A path to write to that takes the place of ``path`` when all went well."""

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, path.with_name(path.name + ".part")

    def __enter__(self) -> Path:
        return self._part

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)


def write_tar(path: Path, photographs: Sequence[Source], side: int, quality: int) -> None:
    """The photographs as JPEG, not larger than ``side`` on the shorter side."""
    with tarfile.open(path, "w") as tar:
        for source in photographs:
            picture = Picture.fromarray(read_source(source)[1])
            scale = min(1.0, side / min(picture.size))
            small = picture.resize((round(picture.width * scale), round(picture.height * scale)), Picture.Resampling.LANCZOS)
            data = io.BytesIO()
            small.save(data, "JPEG", quality=quality)
            entry = tarfile.TarInfo(Path(source.file_name).name)
            entry.size = data.tell()
            data.seek(0)
            tar.addfile(entry, data)


def explore(images: str, root: Path, out: Path, jobs: int) -> None:
    """The default pipeline, in the folder of the photographs so that their names in the masks are short."""
    tail = f"-q -j {jobs}"
    last = f"ovs-hier -q -o {shlex.quote(str(out.resolve()))}"
    pipe(f"ovs-extract {tail} {images}", f"ovs-cluster {tail}", f"ovs-refine {tail}", last, cwd=root)


def write_best(found: Path, out: Path, regions: int, smallest: float) -> None:
    """The masks of ``found`` with the highest scores, compressed: ``regions`` an image, of at least ``smallest`` of it each.

    Parts of a mask that is left out come under the next above.
    """
    with open(found, "rb") as stream, lzma.open(out, "wb") as file:
        header, sets = open_masks(stream, str(found), Failures(skip=False))
        writer = MasksWriter(file, header)
        for masks in sets:
            writer.write(best(masks, regions, smallest))
        writer.finish()


def best(masks: MaskSet, regions: int, smallest: float) -> MaskSet:
    """See ``write_best``; in the order of the stream."""
    least = smallest * masks.image.width * masks.image.height
    large = [k for k, mask in enumerate(masks.masks) if mask.area >= least]
    order = sorted(large, key=lambda k: (-(masks.masks[k].score or 0.0), k))[:regions]
    kept = np.zeros(len(masks.masks), np.bool_)
    kept[order] = True
    return keep(masks, kept)


def scored_set(folder: Path, name: str, count: int, jobs: int, quality: int) -> None:
    """The first photographs of a set with their truth and what the pipeline finds in them; nothing where they are there."""
    explored = folder / "explored.json.xz"
    if explored.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    data = json.loads(truth_file(name).read_bytes())
    images = data["images"][:count]
    ids = {image["id"] for image in images}
    for image in images:
        to = folder / image["file_name"]
        to.parent.mkdir(parents=True, exist_ok=True)
        Picture.open(DATA / name / image["file_name"]).convert("RGB").save(to, "JPEG", quality=quality)
    truth = data | {"images": images, "annotations": [one for one in data["annotations"] if one["image_id"] in ids]}
    packed(folder / "truth.json.xz", json.dumps(truth, separators=(",", ":")).encode())
    with tempfile.TemporaryDirectory() as temporary:
        found, whole_truth = Path(temporary) / "explored.json", Path(temporary) / "truth.json"
        whole_truth.write_text(json.dumps(truth))
        explore(f"--images {shlex.quote(str(whole_truth))} --root .", folder, found, jobs)
        packed(folder / "explored-scores.json", json.dumps(scores(whole_truth, [found], *per_annotator(name))).encode())
        with whole(explored) as part:
            write_best(found, part, EXPLORED, 0.0)


def packed(path: Path, data: bytes) -> None:
    """Write a file, whole, compressed if its name says so."""
    with whole(path) as part:
        part.write_bytes(lzma.compress(data) if path.suffix == ".xz" else data)


if __name__ == "__main__":
    main()
