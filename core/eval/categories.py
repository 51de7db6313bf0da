"""Whether two files mean the same by the numbers of their categories.

Categories are compared by number, so a number that stands for two things, or a name with two numbers, would be scored as if nothing were
wrong: COCO's classes are numbered 1 to 90 with gaps by COCO, and 1 to 80 or 0 to 79 by many tools.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from ovskit.core.formats.labels.spaces import comparable
from ovskit.core.formats.streams.masks import ENTITY, MasksHeader
from ovskit.core.formats.truth.ground_truth import GroundTruth
from ovskit.core.runtime.errors import InputError

_ONLY = 1  # the number of masks without a class
_NAMED = 8  # numbers that a message lists


def listed_names(categories: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    """The names of a file's categories by number; those that have none are left out."""
    found = {}
    for one in categories:
        number, name = one.get("id"), one.get("name")
        if type(number) is int and isinstance(name, str) and name.strip():
            found[number] = name
    return found


def contradiction(theirs: Mapping[int, str], ours: Mapping[int, Sequence[str]], owner: str) -> str | None:
    """The first contradiction between ``theirs``, names by number, and ``ours``, the words for each number; None where they agree.

    A number of both must have one name, and a name of both one number. Case, white space, ``_`` and ``-`` make no difference.
    ``owner`` says whose numbers ours are.
    """
    numbers: dict[str, list[int]] = {}
    for number, words in ours.items():
        for word in words:
            numbers.setdefault(_plain(word), []).append(number)
    for number, name in sorted(theirs.items()):
        known = numbers.get(_plain(name), [])
        if number in ours and number not in known:
            return f"category {number} is {name!r}, but {owner} {number} is {ours[number][0]!r}"
        if known and number not in known:
            return f"category {number} is {name!r}, which is {owner} {known[0]}"
    return None


def _plain(word: str) -> str:
    return comparable(word.replace("_", " ").replace("-", " "))


def check_categories(header: MasksHeader, truth: GroundTruth, what: str) -> None:
    """Raises InputError if the categories that the predictions ``what`` list contradict those of the ground truth.

    The numbers of a results list, which has no categories, are believed, as pycocotools does; so are those of masks that are all "entity".
    """
    if not (header.names_categories and _names_classes(truth)):
        return
    ours = {number: (name,) for number, name in listed_names(truth.categories).items() if name.strip() != str(number)}
    found = contradiction(listed_names(header.categories), ours, "the ground truth's")
    if found is not None:
        raise InputError(
            f"{what}: {found}: the two files number their categories differently; give the predictions the ground truth's numbers, or "
            "leave --by-category out"
        )


def category_warnings(header: MasksHeader, truth: GroundTruth, true: Set[int | None], predicted: Set[int | None], what: str) -> list[str]:
    """A warning where scores by category are of masks without classes, or of numbers that the ground truth does not list.

    ``true`` are the categories of the ground truth's masks that count, ``predicted`` those of the predictions, ``what`` names these.
    """
    if not true & predicted:  # which the scores themselves show
        return []
    names = listed_names(truth.categories)
    without = "so scores by category mean nothing; leave --by-category out"
    if not header.names_categories and predicted == {_ONLY} and (len(truth.categories) > 1 or true - {_ONLY}):
        meant = f"the ground truth's category {_ONLY}{f' ({names[_ONLY]})' if _ONLY in names else ''}"
        return [f"{what}: all its masks have category_id {_ONLY}, as masks without a class do, and count as {meant}, {without}"]
    if not _names_classes(truth) and true == {_ONLY} and (len(header.categories) > 1 or predicted - {_ONLY}):
        return [f"{what}: all masks of the ground truth have category_id {_ONLY}, as masks without a class do, {without}"]
    strangers = sorted(number for number in predicted - {one.get("id") for one in truth.categories} if number is not None)
    if strangers and _names_classes(truth):
        text = ", ".join(map(str, strangers[:_NAMED])) + (", …" if len(strangers) > _NAMED else "")
        return [
            f"{what}: its masks of category_id {text} are not scored: the ground truth lists no such category; check that both files "
            "number categories alike"
        ]
    return []


def _names_classes(truth: GroundTruth) -> bool:
    return bool(truth.categories) and list(truth.categories) != [ENTITY]
