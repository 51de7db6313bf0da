"""Label spaces: which classes there are, which words name them, and which ids of a label map no score counts.

A label space is a small versioned file::

    {"format": "ovskit.labels/1", "name": "pets", "version": 1, "background": "none", "ignore": [255],
     "templates": ["a photo of a {}"], "classes": [{"id": 0, "name": "cat", "synonyms": ["kitten"]}, …]}

Renaming classes alone moves public models by as much as 20 points, so a score means something only beside the *hash*
of everything that can change it. See ``docs/reference/formats.md``.

Ids are those of the index space that the field evaluates in: 0-based and, in the built-in spaces, contiguous. Data sets
store them otherwise, ADE20K shifted by one and COCO-Stuff with gaps. Undoing that ("reduce zero", train ids) belongs to
the layout of the label maps, not to the space, and ``ignore`` names void ids as they are after it.

A space says which class is its background. The probability below which a pixel becomes background is not part of it:
that number is a method's own (the published 0.95 and 0.35 are for GroupViT's softmax), and two methods scored on the
same classes must have the same hash.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import os
import re
import reprlib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from ovskit.core.formats import jsonbytes
from ovskit.core.formats.paths import show_path
from ovskit.core.formats.text_files import decode_utf8, read_small
from ovskit.core.runtime.errors import InputError, MissingInputError, OvsError, UsageError

FORMAT = "ovskit.labels/1"
BUILT_IN = (
    "voc-20",
    "voc-21",
    "context-59",
    "context-60",
    "coco-object-81",
    "coco-stuff-171",
    "ade-150",
    "cityscapes-19",
    "camvid-11",
    "imagenet-s-50",
    "binary-2",
    "imagenet-s-300",
    "imagenet-s-919",
    "groupvit-voc-21",
    "groupvit-context-60",
)
"""By name. ImageNet-S has its classes in the order of their synsets, each by its first lemma; of the 919 two are "cardigan" and two
"crane", which are told apart here as cardigan welsh corgi, cardigan, crane bird and construction crane [choice]."""

LARGEST_ID = 65535  # of a 16-bit label map
VOID = 255

_NO_BACKGROUND = "none"
_KEYS = ("format", "name", "version", "background", "ignore", "templates", "classes")
_CLASS_KEYS = ("id", "name", "synonyms")
_TEMPLATE = re.compile(r"[^{}]*\{\}[^{}]*")
_JOINERS = "\u200c\u200d"  # not printable by Unicode's book, but part of words in Persian and several Indian scripts


@dataclass(frozen=True, slots=True)
class LabelClass:
    """One class: the ``id`` it has in label maps (0 to 65535), its ``name``, and other words for the same thing."""

    id: int
    name: str
    synonyms: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """The name and the synonyms: all are alternatives, and the best of them counts."""
        return (self.name, *self.synonyms)


@dataclass(frozen=True, slots=True)
class LabelSpace:
    """The classes of a label map, in the order of their ids.

    ``background`` is the id of the class that stands for everything that is not of another class, or None where every pixel
    is of some class. ``ignore`` holds the ids of pixels that no score counts. Each of ``templates`` has one ``{}`` for
    the word. ``version`` counts changes of a space that keeps its name. ``void_said`` is False where the ignored ids are not stated, and
    255 is ignored by custom.
    """

    name: str
    version: int
    classes: tuple[LabelClass, ...]
    templates: tuple[str, ...]
    background: int | None = None
    ignore: tuple[int, ...] = ()
    void_said: bool = field(default=True, compare=False)

    @property
    def hash(self) -> str:
        """SHA-256, in hex, of everything that can change a score.

        That is ids, names, synonyms, templates, background and ignored ids, as JSON with sorted keys, no spaces, UTF-8
        in NFC. The order of classes, synonyms, templates and ignored ids makes no difference, nor do name and version.
        """
        what = {
            "background": _NO_BACKGROUND if self.background is None else self.background,
            "classes": [
                {"id": c.id, "name": _nfc(c.name), "synonyms": sorted(map(_nfc, c.synonyms))}
                for c in sorted(self.classes, key=lambda c: c.id)
            ],
            "ignore": sorted(self.ignore),
            "templates": sorted(map(_nfc, self.templates)),
        }
        text = json.dumps(what, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()

    @property
    def short_hash(self) -> str:
        """The first 12 characters of ``hash``, for tables."""
        return self.hash[:12]

    def to_json(self) -> bytes:
        """The space as a file, a class on a line; ``parse_label_space`` gives it back."""

        def line(value: Any) -> str:
            return json.dumps(value, ensure_ascii=False)

        head: dict[str, Any] = {
            "format": FORMAT,
            "name": self.name,
            "version": self.version,
            "background": _NO_BACKGROUND if self.background is None else self.background,
            "ignore": list(self.ignore),
            "templates": list(self.templates),
        }
        rows = [line({"id": c.id, "name": c.name, "synonyms": list(c.synonyms)}) for c in self.classes]
        top = "".join(f" {line(key)}: {line(value)},\n" for key, value in head.items())
        return ("{\n" + top + ' "classes": [\n  ' + ",\n  ".join(rows) + "\n ]\n}\n").encode("utf-8")


def open_label_space(text: str, what: str = "--names") -> LabelSpace:
    """The label space that ``text`` stands for: a built-in one, a file, or names separated by commas.

    In that order: ``voc-20`` in any case; a path that exists or ends in ``.json`` or ``.txt``; ``cat,dog,sky`` with ids
    from 0, where a comma at the end makes a list of one name. Raises UsageError (naming ``what``) for any other text, MissingInputError
    where the file is not there, InputError where it is broken.
    """
    if text.casefold() in BUILT_IN:
        return built_in(text.casefold())
    if os.path.exists(text) or text.lower().endswith((".json", ".txt")):
        return parse_label_space(read_small(text, "a list of classes"), text)
    if "," in text:
        words = [_word(word, what, UsageError) for word in _split(text)]
        return _plain_space(what.lstrip("-"), [(what, word, ()) for word in words], what, UsageError)
    if os.sep in text:
        raise MissingInputError(f"cannot read {show_path(text)}: no such file")
    close = difflib.get_close_matches(text.casefold(), BUILT_IN, n=1, cutoff=0.6)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise UsageError(
        f"{what}: unknown label space {_show(text)}{hint}; built in: {', '.join(BUILT_IN)}; "
        "or a .json or .txt file, or names separated by commas (a single one with a comma after it)"
    )


@functools.cache
def built_in(name: str) -> LabelSpace:
    """The built-in space of that name, one of ``BUILT_IN``."""
    return parse_label_space(_data(f"{name}.json"), f"{name}.json")


def templates(name: str) -> tuple[str, ...]:
    """The prompt templates of that name: ``plain``, just ``a photo of a {}``, ``plain-stop``, the same with a full stop, ``imagenet-80``,
    CLIP's for ImageNet, or ``imagenet-7``, those that CLIP's authors found to be the best few of them.

    Raises UsageError, with the valid names, for any other.
    """
    sets = _template_sets()
    if name.casefold() not in sets:
        raise UsageError(f"unknown templates {_show(name)}; valid: {', '.join(sets)}")
    return sets[name.casefold()]


def comparable(word: str) -> str:
    """A word in the form in which words are compared: Unicode composition, case and white space make no difference."""
    return " ".join(_nfc(word).split()).casefold()


def prompt(template: str, word: str) -> str:
    """The template with the word in its place. Braces in the word stay what they are: nothing is evaluated."""
    return template.replace("{}", word)


def parse_label_space(data: bytes, path: str) -> LabelSpace:
    """The label space in a file's bytes: JSON where they begin with ``{`` or ``[`` or the path ends in ``.json``, else text.

    Text has one class a line with ids from 0: the name, then synonyms after commas; lines that are empty or begin with
    ``#`` are passed over. ``path`` is for messages, and the name where the file gives none. Raises InputError.
    """
    where = show_path(path)
    text = decode_utf8(data, where)
    if path.lower().endswith(".json") or text.lstrip()[:1] in ("{", "["):
        return _from_json(jsonbytes.loads(jsonbytes.without_mark(data), where), where, _stem(path))
    entries = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r").strip(" \t")
        if line and not line.startswith("#"):
            place = f"{where}:{number}"
            words = [_word(word, place, InputError) for word in _split(line)]
            entries.append((place, words[0], tuple(words[1:])))
    return _plain_space(_stem(path), entries, where, InputError)


def _plain_space(name: str, entries: Sequence[tuple[str, str, tuple[str, ...]]], where: str, error: type[OvsError]) -> LabelSpace:
    """A space of (place, name, synonyms) in order: ids from 0, no background, the plain template."""
    placed = [(place, LabelClass(number, word, synonyms)) for number, (place, word, synonyms) in enumerate(entries)]
    classes = _distinct(placed, where, error)
    return LabelSpace(name, 1, classes, templates("plain"), None, _usual_void(classes), void_said=False)


def _from_json(value: Any, where: str, stem: str) -> LabelSpace:
    if not isinstance(value, dict):
        raise InputError(f'{where}: a label space is a JSON object with "format", "name" and "classes"')
    form = value.get("format")
    if form != FORMAT:
        newer = isinstance(form, str) and form.startswith("ovskit.labels/")
        advice = "update ovskit" if newer else f'a label space begins with "format": "{FORMAT}"'
        raise InputError(f"{where}: its format is {_show(form)}, this ovskit reads {FORMAT!r}; {advice}")
    _known_keys(value, _KEYS, where)
    name = _word(value["name"], f"{where}: name", InputError) if "name" in value else stem
    version = value.get("version", 1)
    if type(version) is not int or not 1 <= version < 1 << 31:
        raise InputError(f"{where}: version is {_show(version)}, must be a whole number from 1")
    if not isinstance(value.get("classes"), list):
        raise InputError(f'{where}: a label space has a list of "classes"')
    placed = []
    for number, entry in enumerate(value["classes"]):
        place = f"{where}: classes[{number}]"
        placed.append((place, _class(entry, place)))
    classes = _distinct(placed, where, InputError)
    ids = {c.id for c in classes}
    background = value.get("background", _NO_BACKGROUND)
    if background != _NO_BACKGROUND and (type(background) is not int or background not in ids):
        raise InputError(f'{where}: background is {_show(background)}, must be "{_NO_BACKGROUND}" or the id of a class')
    ignore = _ignore(value["ignore"], ids, where) if "ignore" in value else _usual_void(classes)
    words = _templates(value.get("templates", "plain"), f"{where}: templates")
    return LabelSpace(name, version, classes, words, None if background == _NO_BACKGROUND else background, ignore, "ignore" in value)


def _class(entry: Any, place: str) -> LabelClass:
    if not isinstance(entry, dict):
        raise InputError(f'{place}: a class is an object with "id", "name" and, if it has any, "synonyms"')
    _known_keys(entry, _CLASS_KEYS, place)
    number = _id(entry.get("id"), f"{place}: id")
    synonyms = entry.get("synonyms", [])
    if not isinstance(synonyms, list):
        raise InputError(f"{place}: synonyms must be a list of strings")
    name = _word(entry.get("name"), f"{place}: name", InputError)
    return LabelClass(number, name, tuple(_word(word, f"{place}: synonyms", InputError) for word in synonyms))


def _ignore(value: Any, ids: set[int], where: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise InputError(f"{where}: ignore must be a list of ids")
    ignored = [_id(number, f"{where}: ignore") for number in value]
    for number in ignored:
        if number in ids:
            raise InputError(f"{where}: id {number} is both ignored and a class's")
    if len(set(ignored)) < len(ignored):
        raise InputError(f"{where}: ignore lists an id twice")
    return tuple(sorted(ignored))


def _templates(value: Any, place: str) -> tuple[str, ...]:
    if isinstance(value, str):
        try:
            return templates(value)
        except UsageError as error:
            raise InputError(f"{place}: {error}") from None
    if not isinstance(value, list) or not value:
        raise InputError(f"{place}: must be a list of strings with {{}} in them, or one of {', '.join(_template_sets())}")
    words = tuple(_word(word, place, InputError) for word in value)
    for word in words:
        if not _TEMPLATE.fullmatch(word):
            raise InputError(f"{place}: {_show(word)} must have one {{}}, where the name goes, and no other braces")
    if len(set(words)) < len(words):
        raise InputError(f"{place}: a template is there twice")
    return words


@functools.cache
def _template_sets() -> dict[str, tuple[str, ...]]:
    return {name: tuple(words) for name, words in json.loads(_data("templates.json")).items()}


def _distinct(placed: Sequence[tuple[str, LabelClass]], where: str, error: type[OvsError]) -> tuple[LabelClass, ...]:
    """The classes in order of their ids. Raises ``error`` for an empty list, and where two classes share an id or a word.

    Case makes no difference: text encoders fold it, and two classes with one word always tie.
    """
    if not placed:
        raise error(f"{where} names no class")
    if len(placed) > LARGEST_ID + 1:
        raise error(f"{where} has {len(placed)} classes; label maps hold at most {LARGEST_ID + 1}")
    ids: dict[int, str] = {}
    words: dict[str, LabelClass] = {}
    for place, entry in placed:
        if entry.id in ids:
            raise error(f"{place}: id {entry.id} is already that of {_show(ids[entry.id])}")
        ids[entry.id] = entry.name
        for word in entry.words:
            other = words.setdefault(word.casefold(), entry)
            if other is not entry:
                role = "the name" if word.casefold() == other.name.casefold() else "a synonym"
                raise error(
                    f"{place}: {_show(word)} is already {role} of class {other.id} ({_show(other.name)}); a word stands for one class"
                )
        if len({word.casefold() for word in entry.words}) < len(entry.words):
            raise error(f"{place}: class {entry.id} ({_show(entry.name)}) has a word twice")
    return tuple(sorted((entry for _, entry in placed), key=lambda c: c.id))


def _usual_void(classes: Iterable[LabelClass]) -> tuple[int, ...]:
    return () if any(c.id == VOID for c in classes) else (VOID,)


def _known_keys(value: dict[str, Any], known: Sequence[str], place: str) -> None:
    for key in value:
        if key not in known:
            raise InputError(f"{place}: unknown key {_show(key)}; valid: {', '.join(known)}")


def _id(value: Any, place: str) -> int:
    if type(value) is not int or not 0 <= value <= LARGEST_ID:
        raise InputError(f"{place} is {_show(value)}, must be a whole number from 0 to {LARGEST_ID}")
    return value


def _word(value: Any, place: str, error: type[OvsError]) -> str:
    """A name, synonym or template: in NFC, printable, white space at the ends gone and elsewhere one space."""
    if not isinstance(value, str):
        raise error(f"{place}: {_show(value)} is not a string")
    for character in value:
        if not (character.isprintable() or character == "\t" or character in _JOINERS or unicodedata.category(character) == "Zs"):
            raise error(f"{place}: {_show(value)} holds the control character U+{ord(character):04X}")
    word = " ".join(_nfc(value).split())
    if not word:
        raise error(f"{place}: an empty name")
    return word


def _split(line: str) -> list[str]:
    """The line at its commas, of which one may end it."""
    return line.rstrip(" \t").removesuffix(",").split(",")


def _stem(path: str) -> str:
    stem = os.path.splitext(os.path.basename(path))[0]
    return " ".join(_nfc(show_path(stem)).split()) or "names"


def _show(value: Any) -> str:
    """The value fit for a line of a message: escaped, and cut where it is long or deep."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 80
    return short.repr(value)


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _data(name: str) -> bytes:
    return resources.files("ovskit.core.formats.labels").joinpath("label_spaces", name).read_bytes()
