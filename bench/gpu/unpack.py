"""A pack of bench/gpu_pack.py as files that commands take."""

from __future__ import annotations

import json
import lzma
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.commands import scores

from ovskit.core.formats.streams.masks import MasksWriter, open_masks
from ovskit.core.records import MaskSet
from ovskit.core.runtime.failures import Failures
from tests.scenes import Faults, write_scenes


@dataclass(frozen=True)
class Scored:
    """A set to be scored on: the folder of its photographs, its truth, and the best masks that were found without a segmenter."""

    name: str
    root: Path
    truth: Path
    explored: Path
    scores: Path


def training_files(pack: Path, folder: Path, lots: int | None = None) -> tuple[Path, list[Path]]:
    """The masks of all lots in one file, made below ``folder`` if it is not there, and the tars of their photographs."""
    tars = [tar for tar in sorted((pack / "photographs").glob("*.tar")) if lot_masks(pack, tar).exists()][:lots]
    masks = folder / f"masks-{len(tars)}.json"
    if not masks.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = masks.with_suffix(".part")
        join([lot_masks(pack, tar) for tar in tars], part)
        part.replace(masks)
    return masks, tars


def lot_masks(pack: Path, tar: Path) -> Path:
    """The masks of a lot's photographs."""
    return pack / "masks" / f"{tar.stem}.json.xz"


def join(packed: Sequence[Path], out: Path) -> None:
    """Compressed masks streams as one, whose images are numbered anew."""
    writer: MasksWriter | None = None
    images = 0
    with open(out, "wb") as file:
        for path in packed:
            with lzma.open(path, "rb") as stream:
                header, sets = open_masks(stream, str(path), Failures(skip=False))
                writer = writer or MasksWriter(file, header)
                for masks in sets:
                    images += 1
                    writer.write(numbered(masks, images))
        assert writer is not None, "a pack without a lot"
        writer.finish()


def numbered(masks: MaskSet, image: int) -> MaskSet:
    """The masks as those of an image of another number."""
    return MaskSet(replace(masks.image, id=image), tuple(replace(mask, image_id=image) for mask in masks.masks))


def scored_sets(pack: Path, folder: Path) -> list[Scored]:
    """The sets to be scored on, unpacked below ``folder`` unless they are there."""
    sets = []
    for root in sorted((pack / "scored").iterdir()):
        to = folder / root.name
        to.mkdir(parents=True, exist_ok=True)
        for name in ("truth.json", "explored.json"):
            if not (to / name).exists():
                (to / name).write_bytes(lzma.decompress((root / f"{name}.xz").read_bytes()))
        sets.append(Scored(root.name, root, to / "truth.json", to / "explored.json", root / "explored-scores.json"))
    return sets


def dry_pack(pack: Path) -> Path:
    """A pack of a few generated scenes, for a trial: eight to learn from, and two to be scored on."""
    for folder in ("photographs", "masks", "scored/scenes"):
        (pack / folder).mkdir(parents=True)
    scenes = pack.parent / "scenes"
    write_scenes(scenes / "train", range(8), faults=Faults())
    with tarfile.open(pack / "photographs" / "00.tar", "w") as tar:
        for path in sorted((scenes / "train" / "images").iterdir()):
            tar.add(path, path.name)
    (pack / "masks" / "00.json.xz").write_bytes(lzma.compress((scenes / "train" / "pseudo.json").read_bytes()))
    scored = pack / "scored" / "scenes"
    write_scenes(scored, range(100, 102), faults=Faults())
    for path in (scored / "images").iterdir():
        path.rename(scored / path.name)
    explored = scored / "pseudo.json"
    (scored / "explored-scores.json").write_text(json.dumps(scores(scored / "truth.json", [explored])))
    for name, path in (("truth", scored / "truth.json"), ("explored", explored)):
        (scored / f"{name}.json.xz").write_bytes(lzma.compress(path.read_bytes()))
    return pack
