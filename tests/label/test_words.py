"""Names by CLIP, against open_clip itself and plain arithmetic."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from ovskit.core.formats.labels.spaces import LabelClass, LabelSpace, open_label_space
from ovskit.core.models.backbones.prompts import PromptTower
from ovskit.core.models.clip.text_tower import load_clip_text
from ovskit.core.models.registry import load_backbone
from ovskit.core.models.words import NameOptions, Words, name_categories, read_words, with_names
from ovskit.core.records import MaskSet
from ovskit.core.runtime.errors import InputError, UsageError, WeightsUnavailableError

from .conftest import Clip, scene

CPU = torch.device("cpu")
TEMPLATES = ("a photo of a {}", "{} in the sea", "no {}")
SPACE = LabelSpace(
    "pets", 2,
    (LabelClass(0, "background"), LabelClass(3, "cat", ("kitten", "tom {cat}")), LabelClass(7, "dog"), LabelClass(9, "sky", ("heaven",))),
    TEMPLATES, background=0, ignore=(255,),
)  # fmt: skip


def tower(clip_checkpoint: Clip, name: str = "ovskit-words") -> PromptTower:
    path = clip_checkpoint(name)[1]
    return load_clip_text(load_backbone(f"clip:{name}", weights=path, device=CPU).spec, weights=path, device=CPU)


@pytest.mark.parametrize("name", ["ovskit-words", "ovskit-words-timm"])
def test_text_is_what_open_clip_makes_of_it(clip_checkpoint: Clip, name: str) -> None:
    network, _ = clip_checkpoint(name)
    prompts = [f"a photo of {k} things" for k in range(40)] + ["", "long " * 50]
    with torch.no_grad():
        expected = network.encode_text(open_clip.get_tokenizer(name)(prompts), normalize=True)
    text = tower(clip_checkpoint, name)
    found = text.embed(prompts)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
    assert text.scale == pytest.approx(math.exp(network.logit_scale.item()))
    assert np.array_equal(text.embed(prompts[:33])[:32], found[:32])


def slow_probabilities(network: torch.nn.Module, vectors: np.ndarray) -> dict[int, list[float]]:
    """Class by class and word by word, in float64 and plain Python."""
    tokenizer = open_clip.get_tokenizer("ovskit-words")

    def unit(v: np.ndarray) -> np.ndarray:
        return v / math.sqrt(sum(float(x) ** 2 for x in v))

    best: dict[int, list[float]] = {}
    for each in SPACE.classes[1:]:
        cosines = []
        for word in (each.name, *each.synonyms):
            total = np.zeros(12)
            for template in TEMPLATES:
                before, after = template.split("{}")
                with torch.no_grad():
                    total += unit(network.encode_text(tokenizer([before + word + after]))[0].double().numpy())
            direction = unit(total / len(TEMPLATES))
            cosines.append([sum(float(a) * float(b) for a, b in zip(unit(v), direction, strict=True)) for v in vectors.astype(np.float64)])
        best[each.id] = [max(values) for values in zip(*cosines, strict=True)]
    scale = math.exp(network.logit_scale.item())
    sums = [sum(math.exp(scale * best[k][n]) for k in best) for n in range(len(vectors))]
    return {k: [math.exp(scale * best[k][n]) / sums[n] for n in range(len(vectors))] for k in best}


def vectors(n: int) -> np.ndarray:
    found = np.random.default_rng(1).normal(size=(n, 12))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_probabilities_by_hand(clip_checkpoint: Clip) -> None:
    network, _ = clip_checkpoint("ovskit-words")
    words = read_words(SPACE, tower(clip_checkpoint))
    assert [each.id for each in words.classes] == [3, 7, 9]  # the background takes no part
    assert len(words.rows) == 6
    found = words.probabilities(vectors(5))
    expected = slow_probabilities(network, vectors(5))
    np.testing.assert_allclose(found, np.array([expected[k] for k in (3, 7, 9)]).T, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1)


@pytest.fixture
def words() -> Words:
    """cat by two words, dog and sky by one, along the axes."""
    rows = np.eye(4, dtype=np.float32)
    return Words(SPACE.classes[1:], rows, np.array([0, 2, 3]), 2.0, SPACE.background)


def masks(folder: Path, n: int) -> MaskSet:
    return scene(folder, 1, [(0, 0, 8, 8 + k) for k in range(n)])


def test_labels(words: Words, tmp_path: Path) -> None:
    rows = np.array([[0.6, 0.8, 0, 0], [0, 0, 0.6, 0.8], [0.5, 0.5, 0.5, 0.5]], np.float32)
    found = with_names(masks(tmp_path, 3), rows, words, NameOptions(top=2)).masks
    assert [mask.category_id for mask in found] == [3, 9, 3]  # of equals the first
    total = math.exp(1.6) + 2
    assert found[0].extra == {
        "label_score": round(math.exp(1.6) / total, 6),
        "labels": [
            {"id": 3, "name": "cat", "score": round(math.exp(1.6) / total, 6)},
            {"id": 7, "name": "dog", "score": round(1 / total, 6)},
        ],
    }
    assert found[2].extra["label_score"] == pytest.approx(1 / 3, abs=1e-6)
    assert all(mask.score is None for mask in found)
    assert "labels" not in with_names(masks(tmp_path, 3), rows, words, NameOptions()).masks[0].extra
    assert len(with_names(masks(tmp_path, 3), rows, words, NameOptions(top=99)).masks[0].extra["labels"]) == 3


def test_what_nothing_fits(words: Words, tmp_path: Path) -> None:
    rows = np.array([[1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]], np.float32)
    background = with_names(masks(tmp_path, 2), rows, words, NameOptions(min_prob=0.5)).masks
    assert [mask.category_id for mask in background] == [3, 0]
    dropped = with_names(masks(tmp_path, 2), rows, words, NameOptions(min_prob=0.5, drop=True)).masks
    assert [mask.id for mask in dropped] == [10]
    third = with_names(masks(tmp_path, 2), rows, words, NameOptions(min_prob=1 / 3)).masks
    assert third[1].category_id == 3  # at the limit it stays


@pytest.mark.parametrize(("kind", "expected"), [("keep", [0.5, None]), ("label", [0.786986, 0.786986]), ("product", [0.393493, 0.786986])])
def test_scores(words: Words, tmp_path: Path, kind: str, expected: list[float | None]) -> None:
    from dataclasses import replace

    given = masks(tmp_path, 2)
    scored = MaskSet(given.image, (replace(given.masks[0], score=0.5), given.masks[1]))
    rows = np.array([[1, 0, 0, 0], [0, 1, 0, 0]], np.float32)
    found = with_names(scored, rows, words, NameOptions(score=kind)).masks
    assert math.exp(2) / (math.exp(2) + 2) == pytest.approx(0.786986, abs=1e-6)
    assert [mask.score for mask in found] == expected


def test_categories_and_spaces(clip_checkpoint: Clip) -> None:
    assert name_categories(SPACE)[1] == {"id": 3, "name": "cat", "supercategory": "pets"}
    nothing = LabelSpace("none", 1, SPACE.classes[:1], TEMPLATES, background=0)
    with pytest.raises(UsageError, match="nothing to choose from"):
        read_words(nothing, tower(clip_checkpoint))
    assert len(read_words(open_label_space("a,b"), tower(clip_checkpoint)).rows) == 2


def test_weights_that_are_no_whole_clip(clip_checkpoint: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, path = clip_checkpoint("ovskit-words")
    spec = load_backbone("clip:ovskit-words", weights=path, device=CPU).spec
    save_file({name: value.clone() for name, value in network.visual.state_dict().items()}, tmp_path / "visual.safetensors")
    with pytest.raises(InputError, match="not a whole CLIP"):
        load_clip_text(spec, weights=tmp_path / "visual.safetensors", device=CPU)
    state = load_file(path)
    del state["ln_final.weight"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(InputError, match="ln_final.weight is missing"):
        load_clip_text(spec, weights=tmp_path / "less.safetensors", device=CPU)

    def unavailable(*_: object) -> None:
        raise OSError("We couldn't connect\nand so on")

    monkeypatch.setattr(open_clip, "get_tokenizer", unavailable)
    with pytest.raises(WeightsUnavailableError, match="no tokenizer for clip:ovskit-words: We couldn't connect$"):
        load_clip_text(spec, weights=path, device=CPU)
