"""Generated photographs whose entities and parts are known, and pseudo-labels of them with known faults.

A scene is a textured ground with a few things on it, each a shape of one texture with smaller shapes of others on it, its
parts; later things hide earlier ones. Everything is a function of the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Picture

from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
from ovskit.core.masks import rle
from ovskit.core.records import Image, Mask, MaskSet

_SMALLEST = 25  # pixels that are left of a mask, or it is none


@dataclass(frozen=True)
class Scene:
    """``pixels`` (S, S, 3) uint8; ``masks`` (n, S, S) bool, what is seen of each thing and part; ``parents`` (n,), -1 for a thing."""

    pixels: np.ndarray
    masks: np.ndarray
    parents: np.ndarray


@dataclass(frozen=True)
class Faults:
    """How pseudo-labels differ from the truth: masks left out, masks of two things in one, and outlines that are off by pixels."""

    dropped: float = 0.25
    merged: float = 0.15
    jitter: int = 3


def make_scene(seed: int, side: int = 96) -> Scene:
    """One scene."""
    rng = np.random.default_rng((seed, 1))
    pixels = _texture(rng, side)
    masks: list[np.ndarray] = []
    parents: list[int] = []
    for _ in range(int(rng.integers(2, 4))):
        radius = float(rng.uniform(0.18, 0.3)) * side
        centre = rng.uniform(0.2, 0.8, 2) * side
        thing = _shape(rng, side, centre, radius)
        for k in range(len(masks)):
            masks[k] = masks[k] & ~thing
        pixels = np.where(thing[..., None], _texture(rng, side), pixels)
        own = len(masks)
        masks.append(thing)
        parents.append(-1)
        for _ in range(int(rng.integers(1, 3))):
            away = rng.uniform(-0.45, 0.45, 2) * radius
            part = _shape(rng, side, centre + away, radius * float(rng.uniform(0.4, 0.55))) & thing
            pixels = np.where(part[..., None], _texture(rng, side), pixels)
            for k in range(own + 1, len(masks)):
                masks[k] = masks[k] & ~part
            masks.append(part)
            parents.append(own)
    kept = [
        k for k in range(len(masks)) if masks[k].sum() >= _SMALLEST and (parents[k] < 0 or masks[parents[k]].sum() >= 1.5 * masks[k].sum())
    ]
    new = {k: n for n, k in enumerate(kept)}
    above = [new.get(parents[k], -1) for k in kept]
    return Scene(pixels.astype(np.uint8), np.array([masks[k] for k in kept]).reshape(-1, side, side), np.array(above, np.int64))


def pseudo_labels(scene: Scene, seed: int, faults: Faults) -> tuple[np.ndarray, np.ndarray]:
    """Masks (m, S, S) bool with faults, and their parents (m,)."""
    rng = np.random.default_rng((seed, 2))
    masks, parents = [], []
    place: dict[int, int] = {}
    things = [k for k in range(len(scene.masks)) if scene.parents[k] < 0]
    for k, mask in enumerate(scene.masks):
        if rng.random() < faults.dropped:
            continue
        if scene.parents[k] < 0 and len(things) > 1 and rng.random() < faults.merged:
            mask = mask | scene.masks[int(rng.choice([t for t in things if t != k]))]
        mask = _off(mask, rng, faults.jitter)
        if mask.sum() < _SMALLEST:
            continue
        place[k] = len(masks)
        masks.append(mask)
        parents.append(place.get(int(scene.parents[k]), -1))
    side = scene.pixels.shape[0]
    return np.array(masks).reshape(-1, side, side), np.array(parents, np.int64)


def mask_set(image: Image, masks: np.ndarray, parents: np.ndarray, first: int = 1) -> MaskSet:
    """Masks as records, with ids from ``first``; all of score 1."""
    found = []
    for k, mask in enumerate(masks):
        one = rle.encode(mask)
        parent = None if parents[k] < 0 else int(parents[k]) + first
        found.append(Mask(k + first, image.id, one, rle.area(one), rle.bbox(one), score=1.0, parent_id=parent))
    return MaskSet(image, tuple(found))


def write_scenes(folder: Path, seeds: range, side: int = 96, faults: Faults | None = None) -> None:
    """``folder``/images, ``truth.json`` and, with ``faults``, ``pseudo.json``, of one scene for each seed."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    files = {"truth": open(folder / "truth.json", "wb")} | ({} if faults is None else {"pseudo": open(folder / "pseudo.json", "wb")})
    writers = {name: MasksWriter(file, MasksHeader()) for name, file in files.items()}
    try:
        for n, seed in enumerate(seeds):
            scene = make_scene(seed, side)
            image = Image(n + 1, f"{n:05d}.png", side, side)
            Picture.fromarray(scene.pixels).save(folder / "images" / image.file_name)
            writers["truth"].write(mask_set(image, scene.masks, scene.parents))
            if faults is not None:
                writers["pseudo"].write(mask_set(image, *pseudo_labels(scene, seed, faults)))
        for writer in writers.values():
            writer.finish()
    finally:
        for file in files.values():
            file.close()


def _texture(rng: np.random.Generator, side: int) -> np.ndarray:
    """Stripes or blotches of a colour around another: (side, side, 3) of 0 … 255."""
    colour, other = rng.uniform(30, 225, 3), rng.uniform(-45, 45, 3)
    if rng.random() < 0.5:
        angle, width = rng.uniform(0, np.pi), rng.uniform(3, 9)
        y, x = np.mgrid[:side, :side]
        pattern = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / width)
    else:
        pattern = cv2.resize(rng.normal(size=(side // 4, side // 4)), (side, side), interpolation=cv2.INTER_LINEAR)
    noise = rng.normal(0, 5, (side, side, 1))
    return np.clip(colour + other * pattern[..., None] + noise, 0, 255)


def _shape(rng: np.random.Generator, side: int, centre: np.ndarray, radius: float) -> np.ndarray:
    """An ellipse, a box or a triangle, turned: (side, side) bool."""
    canvas = np.zeros((side, side), np.uint8)
    kind, turn, aspect = int(rng.integers(3)), float(rng.uniform(0, 360)), float(rng.uniform(0.6, 1.0))
    middle = (float(centre[0]), float(centre[1]))
    if kind == 0:
        cv2.ellipse(canvas, (middle, (2 * radius, 2 * radius * aspect), turn), 1, -1)
    elif kind == 1:
        corners = cv2.boxPoints((middle, (1.8 * radius, 1.8 * radius * aspect), turn))
        cv2.fillPoly(canvas, [np.rint(corners).astype(np.int32)], 1)
    else:
        angles = np.radians(turn + np.array([0, 120, 240]))
        corners = centre + 1.25 * radius * np.stack([np.cos(angles), aspect * np.sin(angles)], 1)
        cv2.fillPoly(canvas, [np.rint(corners).astype(np.int32)], 1)
    return canvas.astype(bool)


def _off(mask: np.ndarray, rng: np.random.Generator, pixels: int) -> np.ndarray:
    """The mask shifted, and grown or shrunk, by up to so many pixels."""
    if not pixels:
        return mask
    down, right = rng.integers(-pixels, pixels + 1, 2)
    moved = cv2.warpAffine(mask.astype(np.uint8), np.array([[1, 0, right], [0, 1, down]], np.float32), mask.shape[::-1])
    grow = int(rng.integers(-pixels, pixels + 1))
    if grow:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(grow) + 1,) * 2)
        moved = cv2.dilate(moved, kernel) if grow > 0 else cv2.erode(moved, kernel)
    return np.asarray(moved, bool)
