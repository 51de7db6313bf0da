"""Photographs for a measurement: those at hand, or generated ones."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
from harness import DATA
from PIL import Image as Picture

from gpu.work import Work
from tests.scenes import Scene, make_scene

TILES, SIDE = 4, 160  # 640 × 640 pixels


def photographs(work: Work, count: int) -> tuple[Path, str]:
    """A folder of ``count`` photographs, and where they are from; few at hand come several times, under other names."""
    folder = work.folder / f"photographs-{count}"
    found = [] if work.dry else sorted(DATA.rglob("*.jpg"))
    said = f"{len(found)} at hand" if found else "generated"
    if folder.exists():
        return folder, said
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    if found:
        step = max(1, len(found) // count)
        chosen = found[::step]
        for k in range(count):
            shutil.copyfile(chosen[k % len(chosen)], part / f"{k:04d}.jpg")
    else:
        pixels = mosaics(count, tiles=2 if work.dry else TILES, side=48 if work.dry else SIDE)
        for k in range(count):
            Picture.fromarray(pixels[k]).save(part / f"{k:04d}.jpg", quality=90)
    os.rename(part, folder)
    return folder, said


def mosaics(count: int, tiles: int, side: int) -> np.ndarray:
    """(count, tiles·side, tiles·side, 3) uint8: generated scenes side by side, each of the few that are drawn in many places."""
    random = np.random.default_rng(0)
    scenes = np.stack([scene.pixels for scene in few_scenes(side)])
    chosen = scenes[random.integers(0, len(scenes), (count, tiles, tiles))]
    return np.ascontiguousarray(chosen.transpose(0, 1, 3, 2, 4, 5)).reshape(count, tiles * side, tiles * side, 3)


def few_scenes(side: int, count: int = 24) -> list[Scene]:
    return [make_scene(seed, side) for seed in range(count)]
