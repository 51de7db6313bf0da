"""Names for masks, zero-shot: the class with a word whose text is nearest to the mask's crop, in the space of a model that knows words.

As in CLIP (Radford et al., ICML 2021, section 3.1.4): every prompt's vector at length 1, their mean over the templates for each word,
at length 1 again. A class has the cosine of its best word (METHODS §5); a softmax with the model's own scale makes probabilities.

The background of a label space stands for what the others are not, so its word takes no part [choice], unless there are words for it
(sky, wall …); it is what a mask gets whose best probability is below ``min_prob``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ovskit.core.formats.labels.spaces import LabelClass, LabelSpace, comparable, prompt
from ovskit.core.masks.forest import kept_masks
from ovskit.core.models.backbones.interface import BackboneSpec, TextTower
from ovskit.core.models.kept_rows import keep, kept_path, read_kept
from ovskit.core.records import Float, Mask, MaskSet
from ovskit.core.runtime.errors import UsageError

Score = Literal["keep", "label", "product"]
_DIGITS = 6
USUAL_BACKGROUND = (
    "sky", "cloud", "wall", "ceiling", "floor", "ground", "road", "pavement", "grass", "tree", "bush", "leaves", "water", "sea", "river",
    "sand", "snow", "mountain", "hill", "rock", "building", "house", "fence", "door", "window", "curtain", "shelf", "cupboard", "stairs",
    "bed", "lamp",
)  # fmt: skip
"""Words for what label spaces of things leave to their background [choice]; the published methods have such lists, others each."""


@dataclass(frozen=True, slots=True)
class NameOptions:
    """``top`` classes are listed with every mask, None for no list. A mask whose best probability is below ``min_prob`` gets the
    background, or goes with ``drop``. ``score`` keeps a mask's own, or makes it the probability, or the product of both.
    """

    top: int | None = None
    min_prob: float = 0.0
    drop: bool = False
    score: Score = "keep"


@dataclass(frozen=True, slots=True)
class Words:
    """The classes that masks are compared with; ``rows`` (w, c) float32 are their words' vectors, ``first`` (classes,) where the words
    of each begin. ``background`` is the id of the background class, for masks that are of none of them.
    """

    classes: tuple[LabelClass, ...]
    rows: Float
    first: npt.NDArray[np.int64]
    scale: float
    background: int | None = None

    def probabilities(self, vectors: Float) -> npt.NDArray[np.float64]:
        """(n, classes) of vectors (n, c) of length 1; rows sum to 1."""
        cosines = vectors.astype(np.float64) @ self.rows.astype(np.float64).T
        logits = self.scale * np.maximum.reduceat(cosines, self.first, axis=1)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        found: npt.NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
        return found


def read_words(
    space: LabelSpace,
    text: TextTower,
    watch: Callable[[Iterable[LabelClass]], Iterable[LabelClass]] = iter,
    *,
    templates: Sequence[str] | None = None,
    background: Sequence[str] = (),
) -> Words:
    """The words of a label space as vectors, by its own templates or others.

    With words for the ``background`` that class takes part as well, if the space has one: it is as probable as the best of them. Those that
    are words of other classes are left out. Raises UsageError for a space without a class other than its background.
    """
    placed = _placed(space, background)
    return _words(placed, _rows(placed, text, templates or space.templates, watch), text.scale, space)


def load_words(
    space: LabelSpace,
    spec: BackboneSpec,
    *,
    weights: Path | None,
    device: Any,
    watch: Callable[[Iterable[LabelClass]], Iterable[LabelClass]] = iter,
    templates: Sequence[str] | None = None,
    background: Sequence[str] = (),
) -> Words:
    """``read_words`` by the text tower beside the image tower that ``spec`` describes, which is opened only where it has not been asked
    the same before: the vectors are kept in the user's cache, by weights, templates and words.

    Raises what ``read_words`` and ``registry.load_text`` raise.
    """
    from ovskit.core.models.registry import load_text

    placed = _placed(space, background)
    prompts = tuple(templates or space.templates)
    said = [[prompt(template, word) for template in prompts] for _, words in placed for word in words]
    path = kept_path("words", [spec.model, spec.weights_sha256, said]) if spec.weights_sha256 is not None else None
    kept = None if path is None else read_kept(path, len(said))
    if kept is not None:
        return _words(placed, kept.rows, kept.scale, space)
    text = load_text(spec, weights=weights, device=device)
    rows = _rows(placed, text, prompts, watch)
    if path is not None and text.weights_sha256 == spec.weights_sha256:
        keep(path, rows, text.scale)
    return _words(placed, rows, text.scale, space)


def _placed(space: LabelSpace, background: Sequence[str]) -> list[tuple[LabelClass, tuple[str, ...]]]:
    """The classes that take part, each with the words that stand for it."""
    classes = [each for each in space.classes if each.id != space.background]
    if not classes:
        raise UsageError(f"the label space {space.name} has no class but its background: there is nothing to choose from")
    taken = {comparable(word) for each in classes for word in each.words}
    left = tuple(word for word in dict.fromkeys(background) if comparable(word) not in taken)
    behind = [(each, left) for each in space.classes if each.id == space.background and left]
    return [(each, each.words) for each in classes] + behind


def _rows(
    placed: Sequence[tuple[LabelClass, tuple[str, ...]]],
    text: TextTower,
    templates: Sequence[str],
    watch: Callable[[Iterable[LabelClass]], Iterable[LabelClass]],
) -> Float:
    words = {each.id: own for each, own in placed}
    rows = []
    for each in watch([one for one, _ in placed]):
        for word in words[each.id]:
            found = text.embed([prompt(template, word) for template in templates]).astype(np.float64)
            mean = found.mean(axis=0)
            rows.append((mean / np.sqrt(np.square(mean).sum())).astype(np.float32))
    return np.stack(rows)


def _words(placed: Sequence[tuple[LabelClass, tuple[str, ...]]], rows: Float, scale: float, space: LabelSpace) -> Words:
    ends = np.cumsum([len(own) for _, own in placed])
    return Words(tuple(each for each, _ in placed), rows, np.concatenate([[0], ends[:-1]]).astype(np.int64), scale, space.background)


def name_categories(space: LabelSpace) -> tuple[dict[str, Any], ...]:
    """The classes of a label space as COCO's categories."""
    return tuple({"id": each.id, "name": each.name, "supercategory": space.name} for each in space.classes)


def with_names(masks: MaskSet, vectors: Float, words: Words, options: NameOptions) -> MaskSet:
    """The masks with the id of their class, ``label_score``, its probability, and with ``options.top`` ``labels``, the best first."""
    if not masks.masks:
        return masks
    chances = words.probabilities(vectors)
    order = np.argsort(-chances, axis=1, kind="stable")
    named = [_named(mask, chance, ranks, words, options) for mask, chance, ranks in zip(masks.masks, chances, order, strict=True)]
    found = replace(masks, masks=tuple(named))
    return kept_masks(found, chances.max(axis=1) >= options.min_prob) if options.drop else found


def _named(mask: Mask, chance: npt.NDArray[np.float64], ranks: npt.NDArray[np.int64], words: Words, options: NameOptions) -> Mask:
    best = int(ranks[0])
    probability = round(float(chance[best]), _DIGITS)
    category = words.classes[best].id
    if chance[best] < options.min_prob and words.background is not None:
        category = words.background
    extra = {key: value for key, value in mask.extra.items() if key != "labels"} | {"label_score": probability}
    if options.top is not None:
        extra["labels"] = [
            {"id": words.classes[k].id, "name": words.classes[k].name, "score": round(float(chance[k]), _DIGITS)}
            for k in ranks[: options.top].tolist()
        ]
    score = mask.score
    if options.score == "label" or (options.score == "product" and score is None):
        score = probability
    elif options.score == "product" and score is not None:
        score = round(score * float(chance[best]), _DIGITS)
    return replace(mask, category_id=category, score=score, extra=extra)
