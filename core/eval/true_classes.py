"""What the classes that a ground truth of images writes are in the label space of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ovskit.core.eval.categories import contradiction, listed_names
from ovskit.core.formats.labels.spaces import BUILT_IN, LabelSpace, built_in, comparable
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.streams.masks import MasksHeader
from ovskit.core.formats.truth.image_classes import ImageClasses, Written
from ovskit.core.runtime.errors import InputError

_NAMED = 5  # classes that a message lists


def known_words(space: LabelSpace | None, header: MasksHeader, what: str) -> dict[int, tuple[str, ...]]:
    """The words of each class by its id: those of ``space`` if given, else of the built-in space that the predictions' ``header`` names,
    else the names of its categories.

    Raises InputError if the categories of the predictions ``what`` contradict ``space``.
    """
    said = header.labels or {}
    if space is not None:
        words = {one.id: one.words for one in space.classes}
        found = contradiction(listed_names(header.categories), words, f"{space.name}'s")
        if found is not None:
            raise InputError(f"{what}: {found}: two label spaces are mixed; name the predictions' own with --names, or leave it out")
        return words
    name = said.get("name")
    if name in BUILT_IN and built_in(str(name)).hash == said.get("hash"):
        return {one.id: one.words for one in built_in(str(name)).classes}
    return {number: (word,) for number, word in listed_names(header.categories).items()}


def class_ids(truth: ImageClasses, words: Mapping[int, Sequence[str]], owner: str) -> dict[Written, int]:
    """The id of every class that the ground truth writes.

    A name is found among the ``words`` whatever its case; if that fails, with ``_`` and ``-`` as blanks, and if that fails too, as the id
    that it spells. Raises InputError for classes that ``owner``, the label space, does not have.
    """
    exact = {comparable(word): number for number, some in words.items() for word in some}
    plain: dict[str, set[int]] = {}
    for word, number in exact.items():
        plain.setdefault(_blank(word), set()).add(number)
    found: dict[Written, int] = {}
    strangers: list[Written] = []
    for written in dict.fromkeys(one for some in truth.classes for one in some):
        place = _id(written, words, exact, plain)
        if place is None:
            strangers.append(written)
        else:
            found[written] = place
    if strangers:
        listed = ", ".join(show_path(str(one)) for one in strangers[:_NAMED])
        more = f" and {len(strangers) - _NAMED} more" if len(strangers) > _NAMED else ""
        raise InputError(
            f"{truth.what}: {listed}{more}: not classes of {owner}; say what they are with --set mapping=FILE, a JSON object from these to "
            "names of classes, or to null for images that are not to be scored"
        )
    return found


def _id(written: Written, words: Mapping[int, Sequence[str]], exact: Mapping[str, int], plain: Mapping[str, set[int]]) -> int | None:
    if isinstance(written, int):
        return written if written in words else None
    word = comparable(written)
    if word in exact:
        return exact[word]
    alike = plain.get(_blank(word), set())
    if len(alike) == 1:
        return next(iter(alike))
    number = int(word) if word.isascii() and word.isdigit() and len(word) < 10 else None
    return number if number in words else None


def _blank(word: str) -> str:
    return comparable(word.replace("_", " ").replace("-", " "))
