"""Vectors of words are kept: the text tower is opened once for the same words, and again for others or where what is kept is broken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ovskit.core.formats.labels.spaces import LabelClass, LabelSpace
from ovskit.core.models import registry
from ovskit.core.models.registry import load_backbone, load_text
from ovskit.core.models.words import Words, load_words, read_words
from ovskit.core.runtime import cache_folder

from .conftest import Clip

CPU = torch.device("cpu")
SPACE = LabelSpace("pets", 1, (LabelClass(0, "background"), LabelClass(1, "cat", ("kitten",)), LabelClass(2, "dog")), ("a {}", "the {}"), 0)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """A cache of its own, and the names of the text towers that are opened."""
    names: list[str] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cache_folder.own_folder.cache_clear()

    def noted(spec: registry.BackboneSpec, **others: object) -> registry.TextTower:
        names.append(spec.model)
        return load_text(spec, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(registry, "load_text", noted)
    yield names
    cache_folder.own_folder.cache_clear()


def words(clip_checkpoint: Clip, space: LabelSpace = SPACE, **others: object) -> Words:
    path = clip_checkpoint("ovskit-words")[1]
    spec = load_backbone("clip:ovskit-words", weights=path, device=CPU).spec
    return load_words(space, spec, weights=path, device=CPU, **others)  # type: ignore[arg-type]


def same(a: Words, b: Words) -> bool:
    return np.array_equal(a.rows, b.rows) and a.first.tolist() == b.first.tolist() and (a.classes, a.scale) == (b.classes, b.scale)


def test_the_same_words_are_read_once(clip_checkpoint: Clip, opened: list[str]) -> None:
    first = words(clip_checkpoint)
    assert same(words(clip_checkpoint), first)
    assert len(opened) == 1
    path = clip_checkpoint("ovskit-words")[1]
    spec = load_backbone("clip:ovskit-words", weights=path, device=CPU).spec
    assert same(read_words(SPACE, load_text(spec, weights=path, device=CPU)), first)


def test_other_words_and_templates_are_read_anew(clip_checkpoint: Clip, opened: list[str]) -> None:
    words(clip_checkpoint)
    words(clip_checkpoint, templates=("a {}",))
    words(clip_checkpoint, LabelSpace("pets", 1, SPACE.classes[:2], SPACE.templates, 0))
    found = words(clip_checkpoint, background=("sky", "cat", "sky"))
    assert len(opened) == 4
    assert [one.name for one in found.classes] == ["cat", "dog", "background"]
    assert found.first.tolist() == [0, 2, 3]
    assert len(found.rows) == 4


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", None])
def test_what_is_broken_is_made_again(clip_checkpoint: Clip, opened: list[str], tmp_path: Path, content: bytes | None) -> None:
    first = words(clip_checkpoint)
    (kept,) = (tmp_path / "cache" / "ovskit" / "words").glob("*.npz")
    if content is None:
        np.savez(kept, rows=np.full_like(first.rows, np.nan), scale=1.0)
    else:
        kept.write_bytes(content)
    assert same(words(clip_checkpoint), first)
    assert same(words(clip_checkpoint), first)
    assert len(opened) == 2
