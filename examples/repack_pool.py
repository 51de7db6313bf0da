#!/usr/bin/env python
"""Repack photographs into small tar shards, so that a pool fits where little can be carried, such as a short slot on a GPU.

    python examples/repack_pool.py PHOTOGRAPHS… OUT/ [--shorter-side 176] [--quality 85] [--megabytes 16]

PHOTOGRAPHS are files, folders or tar shards. OUT/pool-000.tar and so on get them as JPEG, in order, named by their number; the
name each had stands in names.jsonl of its shard. Equal input gives equal bytes.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from ovskit.core.formats.photographs.decoding import decode_image
from ovskit.core.formats.photographs.sources import list_sources
from ovskit.core.runtime.errors import OvsError


def jpegs(paths: list[str], shorter_side: int, quality: int) -> Iterator[tuple[str, bytes]]:
    for source in list_sources(paths, root=None).items:
        image = Image.fromarray(decode_image(source.read(), source.file_name))
        shrink = min(1.0, shorter_side / min(image.size))
        if shrink < 1:
            image = image.resize((max(1, round(image.width * shrink)), max(1, round(image.height * shrink))), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True)
        yield source.file_name, buffer.getvalue()


def write_shard(path: Path, members: list[tuple[str, str, bytes]]) -> None:
    names = "".join(json.dumps({"name": name, "was": was}) + "\n" for name, was, _ in members).encode()
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in [(name, data) for name, _, data in members] + [("names.jsonl", names)]:
            info = tarfile.TarInfo(name)  # no times, no owners
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    print(f"{path}: {len(members)} photographs, {path.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", nargs="+")
    parser.add_argument("out", type=Path)
    parser.add_argument("--shorter-side", type=int, default=176, help="larger photographs are shrunk to this [176]")
    parser.add_argument("--quality", type=int, default=85, help="of the JPEG files [85]")
    parser.add_argument("--megabytes", type=float, default=16, help="a shard holds no more than this, and at least one photograph [16]")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if any(arguments.out.iterdir()):
        parser.error(f"{arguments.out} is not empty")
    members: list[tuple[str, str, bytes]] = []
    size, number, shards = 0, 0, 0
    try:
        for was, data in jpegs(arguments.photographs, arguments.shorter_side, arguments.quality):
            stored = 512 + -(-len(data) // 512) * 512
            if members and size + stored > arguments.megabytes * 1e6:
                write_shard(arguments.out / f"pool-{shards:03}.tar", members)
                members, size, shards = [], 0, shards + 1
            members.append((f"{number:06}.jpg", was, data))
            size, number = size + stored, number + 1
    except OvsError as error:
        sys.exit(f"repack_pool: {error}")
    if members:
        write_shard(arguments.out / f"pool-{shards:03}.tar", members)


if __name__ == "__main__":
    main()
