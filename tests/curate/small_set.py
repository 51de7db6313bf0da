"""A small set of pairs whose images look alike where their captions speak of the same: rows, captions, and rows of the words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.rows import write_rows

WORDS = ("beach", "boat", "bus", "cat", "cloud", "dog", "fox", "grass", "horse", "lake", "snow", "tree")
WIDTH = 24


class SmallSet(NamedTuple):
    """Names, captions, and rows (n, 24) float32 of images and of captions; ``texts`` (12, 24) are of ``WORDS``."""

    names: list[str]
    captions: list[str]
    rows: np.ndarray
    caption_rows: np.ndarray
    texts: np.ndarray


def small_set(n: int = 60, seed: int = 0) -> SmallSet:
    """Every image has three words, of which its caption names about half."""
    rng = np.random.default_rng(seed)
    texts = rng.normal(size=(len(WORDS), WIDTH))
    there = np.stack([rng.permutation(len(WORDS))[:3] for _ in range(n)])
    rows = texts[there].sum(axis=1) + 0.5 * rng.normal(size=(n, WIDTH))
    named = [[WORDS[k] for k in words if rng.random() < 0.5] for words in there]
    captions = [f"a photo\nof {' and '.join(words)}" if words else "nothing at all" for words in named]
    heard = np.stack([texts[[WORDS.index(w) for w in words]].sum(axis=0) if words else rng.normal(size=WIDTH) for words in named])
    return SmallSet(
        [f"{k:03d}.jpg" for k in range(n)], captions, rows.astype(np.float32), heard.astype(np.float32), texts.astype(np.float32)
    )


def write_small_set(folder: Path, made: SmallSet, order: Sequence[int] | None = None) -> Path:
    """``rows.npz``, ``caption_rows.npz``, ``pairs.jsonl``, ``words.npz`` and ``words.txt`` in ``folder``, pairs and rows in ``order``."""
    order = range(len(made.names)) if order is None else order
    names = [made.names[k] for k in order]
    write_rows(folder / "rows.npz", names, made.rows[list(order)], root=str(folder))
    write_rows(folder / "caption_rows.npz", names, made.caption_rows[list(order)], root=str(folder))
    lines = [json.dumps({"file_name": made.names[k], "caption": made.captions[k]}) for k in reversed(list(order))]
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    np.savez(folder / "words.npz", names=np.array([*WORDS[::-1], "more"]), rows=np.concatenate([made.texts[::-1], np.ones((1, WIDTH))]))
    (folder / "words.txt").write_text("\n".join(WORDS) + "\n")
    return folder
