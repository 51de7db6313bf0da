import hashlib
import importlib.util
import json
import runpy
import unicodedata
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovskit.core.formats.labels import spaces as labels
from ovskit.core.formats.labels.spaces import (
    BUILT_IN,
    LabelClass,
    LabelSpace,
    built_in,
    open_label_space,
    parse_label_space,
    prompt,
    templates,
)
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError

# What versions 1 hash to. A change here changes what every printed score means: it needs a new version of the space.
HASHES = {
    "voc-20": "247176d2f01468d63cf0c66167b368e90138adf7705ac84a6aa8f802a0902580",
    "voc-21": "8a07ba6d69a16a2d8a3f2bd8d785896edd55bdec993b4b7f65548845dd7cbfb9",
    "context-59": "4fb0e0382f9af6a18a60fce318693d96960b362575d9ff80737065c27b7ce173",
    "context-60": "032fe19d212f55b370e224a09ea79e978262dc2acadea487e83ac65804f12b5b",
    "coco-object-81": "4b6caaadfe9a941ff1830082462bfca6a5c1603e5f013ce43fb68a81dc2ff1e0",
    "coco-stuff-171": "4009f7310ef88f63d463dbc901fe7f0c8683eb4f306d2482daa875227b1ea6f3",
    "ade-150": "a373d6e4b40efcee60a2671e668b7dd914a3f8a7bf2776a5c96756d487c03d48",
    "cityscapes-19": "1aa632ea2d7f2bd14869d81e9579b7fd0abb8d67de1da3ff1f3a4f8c6e79588b",
    "camvid-11": "198a664c8d6be8bfb62c323dea695fcac3ed8f65ce728669bebd7f28be35235b",
    "imagenet-s-50": "a430aacfa618eea681085eb924631cf95194c11db1591cf09272686ac99f8283",
    "binary-2": "e888dae0bfe36bcc9fbaa07cfe00ef7ddf8b5667c87507c7c1dbfc6c256ef2ca",
    "imagenet-s-300": "4b89731d5e2a11433e60b105352147ea26fc77992c42382c4a44f768b3808711",
    "imagenet-s-919": "8b59b5bdaa6e3b55af3d7470c63a9e7575ffb75939bb8132cc913e024d84d170",
    "groupvit-voc-21": "fd6a44d6fe70828169d7f379b03ae0d2f6667fba10bc1124874e1baa7d5aa309",
    "groupvit-context-60": "2b6ca69418734030c07252ff30549aefadf08f3f46a31b83b478c374cb47ac5a",
}

# Single classes by id, each from the data set's own documentation or from the papers that use it.
KNOWN = {
    "voc-20": {0: "aeroplane", 10: "diningtable", 14: "person", 19: "tvmonitor"},
    "voc-21": {0: "background", 1: "aeroplane", 15: "person", 20: "tvmonitor"},
    "context-59": {0: "aeroplane", 1: "bag", 36: "person", 46: "sky", 58: "wood"},
    "context-60": {0: "background", 1: "aeroplane", 2: "bag", 59: "wood"},
    "coco-object-81": {0: "background", 1: "person", 12: "stop sign", 80: "toothbrush"},
    "coco-stuff-171": {0: "person", 11: "stop sign", 79: "toothbrush", 80: "banner", 145: "sky-other", 170: "wood"},
    "ade-150": {0: "wall", 1: "building", 2: "sky", 12: "person", 20: "car", 89: "television", 149: "flag"},
    "cityscapes-19": {0: "road", 10: "sky", 11: "person", 13: "car", 18: "bicycle"},
    "camvid-11": {0: "Sky", 3: "Road", 8: "Car", 10: "Bicyclist"},
    "imagenet-s-50": {0: "others", 1: "goldfish", 16: "giant panda", 50: "agaric"},
    "binary-2": {0: "background", 1: "foreground"},
    "imagenet-s-300": {0: "others", 1: "tench", 2: "goldfish", 297: "agaric", 300: "bolete"},
    "imagenet-s-919": {0: "others", 1: "tench", 2: "goldfish", 919: "toilet tissue"},
    "groupvit-voc-21": {0: "background", 1: "aeroplane", 11: "table", 16: "plant", 20: "monitor"},
    "groupvit-context-60": {0: "background", 1: "airplane", 34: "motorbike", 40: "plant", 55: "monitor", 59: "wood"},
}

MINIMAL = {"format": "ovskit.labels/1", "classes": [{"id": 0, "name": "cat"}]}
PETS = LabelSpace(
    "pets",
    3,
    (LabelClass(0, "none of these"), LabelClass(1, "cat", ("kitten", "tom")), LabelClass(7, "dog")),
    ("a photo of a {}", "a drawing of a {}"),
    0,
    (200, 255),
)


def read(value: object) -> LabelSpace:
    return parse_label_space(json.dumps(value).encode(), "dir/space.json")


def read_text(data: bytes) -> LabelSpace:
    return parse_label_space(data, "dir/pets.txt")


def found(space: LabelSpace) -> list[tuple[int, str, tuple[str, ...]]]:
    return [(c.id, c.name, c.synonyms) for c in space.classes]


# The built-in spaces


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_space_has_the_classes_of_its_data_set(name: str) -> None:
    space = open_label_space(name)
    assert [c.id for c in space.classes] == list(range(int(name.rsplit("-", 1)[1]) + name.startswith("imagenet-s")))
    assert {number: space.classes[number].name for number in KNOWN[name]} == KNOWN[name]
    assert (space.name, space.version, space.templates) == (name, 1, ("a photo of a {}",))
    assert not set(space.ignore) & {c.id for c in space.classes}


def test_backgrounds_and_void_ids() -> None:
    assert {name: built_in(name).background for name in BUILT_IN if built_in(name).background is not None} == {
        "voc-21": 0,
        "context-60": 0,
        "coco-object-81": 0,
        "imagenet-s-50": 0,
        "binary-2": 0,
        "imagenet-s-300": 0,
        "imagenet-s-919": 0,
        "groupvit-voc-21": 0,
        "groupvit-context-60": 0,
    }
    assert {name: built_in(name).ignore for name in BUILT_IN if built_in(name).ignore != (255,)} == {
        "camvid-11": (11,),
        "imagenet-s-50": (1000,),
        "binary-2": (),
        "imagenet-s-300": (1000,),
        "imagenet-s-919": (1000,),
    }


def test_a_space_with_background_is_the_one_without_and_one_class_more() -> None:
    for without, with_background in (("voc-20", "voc-21"), ("context-59", "context-60")):
        shifted = [LabelClass(c.id + 1, c.name) for c in built_in(without).classes]
        assert list(built_in(with_background).classes[1:]) == shifted
    things = [c.name for c in built_in("coco-stuff-171").classes[:80]]
    assert [c.name for c in built_in("coco-object-81").classes[1:]] == things


def test_the_stuff_classes_of_coco_and_those_of_context_are_in_alphabetical_order() -> None:
    for names in ([c.name for c in built_in("coco-stuff-171").classes[80:]], [c.name for c in built_in("context-59").classes]):
        assert names == sorted(names)


def test_the_spaces_of_imagenet_s_are_synsets_in_order_by_their_first_lemma() -> None:
    """timm keeps the lemmas of every synset of ImageNet-1k in the order of synsets: names of a subset must come in that order too."""
    folder = resources.files("timm.data").joinpath("_info")
    lemmas = dict(line.split("\t", 1) for line in folder.joinpath("imagenet_synset_to_lemma.txt").read_text().splitlines())
    order = folder.joinpath("imagenet_synsets.txt").read_text().split()
    # The benchmark has two classes called crane and two called cardigan: a bird and a machine, a dog and a garment.
    renamed = {"cardigan welsh corgi": "n02113186", "crane bird": "n02012849", "construction crane": "n03126707", "cardigan": "n02963159"}
    by_lemma: dict[str, list[str]] = {}
    for synset in order:
        by_lemma.setdefault(lemmas[synset].split(",")[0].casefold(), []).append(synset)
    for name, renames in (
        ("imagenet-s-50", {}),
        ("imagenet-s-300", {"cardigan": "n02113186", "crane": "n02012849"}),
        ("imagenet-s-919", renamed),
    ):
        words = [c.name for c in built_in(name).classes[1:]]
        found = [[renames[word]] if word in renames else by_lemma[word] for word in words]
        assert all(len(one) == 1 for one in found), [w for w, one in zip(words, found, strict=True) if len(one) != 1]
        synsets = [one[0] for one in found]
        assert synsets == sorted(set(synsets))
    words = {c.name for c in built_in("imagenet-s-919").classes}
    for smaller in ("imagenet-s-50", "imagenet-s-300"):
        assert {c.name for c in built_in(smaller).classes} - {"cardigan", "crane"} <= words


def test_groupvit_names_some_classes_otherwise() -> None:
    for name, other in (("groupvit-voc-21", "voc-21"), ("groupvit-context-60", "context-60")):
        ours, theirs = built_in(name), built_in(other)
        changed = {b.name: a.name for a, b in zip(ours.classes, theirs.classes, strict=True) if a.name != b.name}
        shared = {"pottedplant": "plant", "tvmonitor": "monitor"}
        assert changed == shared | ({"diningtable": "table"} if name == "groupvit-voc-21" else {"aeroplane": "airplane"})
        assert (ours.background, ours.ignore, ours.templates) == (theirs.background, theirs.ignore, theirs.templates)


def test_few_have_synonyms_and_none_that_would_be_ambiguous() -> None:
    assert [name for name in BUILT_IN if any(c.synonyms for c in built_in(name).classes)] == ["ade-150", "binary-2"]
    assert built_in("binary-2").classes[1].words == ("foreground", "entity", "object")
    by_name = {c.name: c.synonyms for c in built_in("ade-150").classes}
    assert by_name["door"] == ("double door",)
    assert by_name["building"] == ("edifice",)
    # objectInfo150 gives "screen" to the screen door and the blind too, "ground" to earth and land.
    assert (by_name["screen door"], by_name["blind"], by_name["earth"], by_name["land"]) == ((), (), (), ("soil",))


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_files_in_the_package_are_as_they_would_be_written(name: str) -> None:
    data = resources.files("ovskit.core.formats.labels").joinpath("label_spaces", f"{name}.json").read_bytes()
    assert built_in(name).to_json() == data


def test_every_file_in_the_package_is_known() -> None:
    there = {entry.name for entry in resources.files("ovskit.core.formats.labels").joinpath("label_spaces").iterdir()}
    assert there == {f"{name}.json" for name in BUILT_IN} | {"templates.json"}


# Hashes


def test_hashes_are_what_they_were() -> None:
    assert {name: built_in(name).hash for name in BUILT_IN} == HASHES
    assert built_in("voc-20").short_hash == HASHES["voc-20"][:12]


def test_a_hash_is_that_of_the_canonical_json() -> None:
    canonical = (
        '{"background":0,"classes":[{"id":0,"name":"none of these","synonyms":[]},{"id":1,"name":"cat","synonyms":["kitten","tom"]},'
        '{"id":7,"name":"dog","synonyms":[]}],"ignore":[200,255],"templates":["a drawing of a {}","a photo of a {}"]}'
    )
    assert PETS.hash == hashlib.sha256(canonical.encode()).hexdigest()


def test_what_can_change_a_score_changes_the_hash() -> None:
    cat, dog = PETS.classes[1], PETS.classes[2]
    others = [
        replace(PETS, classes=(PETS.classes[0], cat, replace(dog, id=8))),
        replace(PETS, classes=(PETS.classes[0], cat, replace(dog, name="Dog"))),
        replace(PETS, classes=(PETS.classes[0], replace(cat, synonyms=("kitten",)), dog)),
        replace(PETS, classes=PETS.classes[:2]),
        replace(PETS, templates=("a photo of a {}",)),
        replace(PETS, background=None),
        replace(PETS, background=7),
        replace(PETS, ignore=(255,)),
    ]
    assert len({space.hash for space in [PETS, *others]}) == len(others) + 1


def test_what_cannot_change_a_score_leaves_the_hash() -> None:
    swapped = LabelClass(1, "cat", ("tom", "kitten"))
    same = replace(
        PETS,
        name="animals",
        version=4,
        classes=(PETS.classes[2], swapped, PETS.classes[0]),
        templates=PETS.templates[::-1],
        ignore=(255, 200),
    )
    assert same.hash == PETS.hash


def test_the_order_of_classes_in_a_file_makes_no_difference() -> None:
    value = json.loads(PETS.to_json())
    value["classes"].reverse()
    assert read(value) == PETS


def test_a_letter_and_its_accent_are_the_letter_with_it() -> None:
    decomposed = unicodedata.normalize("NFD", "café")
    assert open_label_space(f"{decomposed},bar") == open_label_space("café,bar")
    assert replace(PETS, classes=(LabelClass(0, decomposed),)).hash == replace(PETS, classes=(LabelClass(0, "café"),)).hash


# Writing and reading


def clean(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


WORDS = st.text(st.characters(categories=("L", "M", "N", "P", "S", "Zs")), min_size=1, max_size=12).map(clean).filter(bool)


@st.composite
def spaces(draw: st.DrawFn) -> LabelSpace:
    words = draw(st.lists(WORDS, min_size=1, max_size=12, unique_by=lambda word: unicodedata.normalize("NFC", word).casefold()))
    groups: list[list[str]] = []
    for word in words:
        if groups and draw(st.booleans()):
            groups[-1].append(word)
        else:
            groups.append([word])
    numbers = draw(st.lists(st.integers(0, 65535), min_size=len(groups), max_size=len(groups) + 3, unique=True))
    ids, ignore = sorted(numbers[: len(groups)]), sorted(numbers[len(groups) :])
    plain = WORDS.map(lambda word: word.replace("{", "").replace("}", ""))
    texts = draw(st.lists(st.tuples(plain, plain).map(lambda pair: clean(f"{pair[0]} {{}}{pair[1]}")), min_size=1, max_size=3, unique=True))
    return LabelSpace(
        draw(WORDS),
        draw(st.integers(1, 2**31 - 1)),
        tuple(LabelClass(number, group[0], tuple(group[1:])) for number, group in zip(ids, groups, strict=True)),
        tuple(texts),
        draw(st.none() | st.sampled_from(ids)),
        tuple(ignore),
    )


@given(spaces())
def test_a_space_comes_back_as_it_was_written(space: LabelSpace) -> None:
    again = parse_label_space(space.to_json(), "x.json")
    assert again == space
    assert again.hash == space.hash


def check_read_or_refused(data: bytes, path: str) -> None:
    space, refusal = None, ""
    try:
        space = parse_label_space(data, path)
    except InputError as error:
        refusal = str(error)
    assert "\n" not in refusal
    if space is not None:
        assert parse_label_space(space.to_json(), path) == space


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_whatever_a_file_holds_it_is_read_or_refused(data: bytes) -> None:
    for path in ("x.json", "x.txt", "x"):
        check_read_or_refused(data, path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "name", "synonyms"]), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["name", "version", "background", "ignore", "templates", "classes"]), JSON), st.booleans())
def test_whatever_json_holds_it_is_read_or_refused(value: dict[str, object], with_classes: bool) -> None:
    value = {**value, **(MINIMAL if with_classes else {"format": "ovskit.labels/1"})}
    check_read_or_refused(json.dumps(value).encode(), "x.json")


def test_what_a_file_leaves_out_has_a_default() -> None:
    assert read(MINIMAL) == LabelSpace("space", 1, (LabelClass(0, "cat"),), ("a photo of a {}",), None, (255,))


def test_a_class_255_is_not_ignored_by_default() -> None:
    assert read(MINIMAL | {"classes": [{"id": 255, "name": "cat"}]}).ignore == ()
    assert open_label_space(",".join(f"c{k}" for k in range(256))).ignore == ()


def test_ids_may_have_gaps() -> None:
    assert [c.id for c in read(MINIMAL | {"classes": [{"id": 65535, "name": "cat"}, {"id": 3, "name": "dog"}]}).classes] == [3, 65535]


# What --names takes


def test_every_kind_of_names_goes_through_one_function(tmp_path: Path) -> None:
    (tmp_path / "pets.txt").write_text("cat, kitten\ndog\n")
    (tmp_path / "pets.json").write_bytes(PETS.to_json())
    (tmp_path / "pets").write_bytes(PETS.to_json())
    assert found(open_label_space("cat, dog ,sky")) == [(0, "cat", ()), (1, "dog", ()), (2, "sky", ())]
    assert found(open_label_space(str(tmp_path / "pets.txt"))) == [(0, "cat", ("kitten",)), (1, "dog", ())]
    assert open_label_space(str(tmp_path / "pets.json")) == PETS == open_label_space(str(tmp_path / "pets"))
    assert open_label_space("VOC-20") is built_in("voc-20")


def test_a_typed_list_has_no_background() -> None:
    space = open_label_space("cat,dog", "--names")
    assert (space.name, space.version, space.background, space.ignore, space.templates) == ("names", 1, None, (255,), ("a photo of a {}",))
    assert found(open_label_space("cat,")) == [(0, "cat", ())]


def test_a_name_may_have_spaces_accents_and_joiners() -> None:
    assert [c.name for c in open_label_space("traffic\u00a0 light,café,می\u200cخواهم,{}").classes] == [
        "traffic light",
        "café",
        "می\u200cخواهم",
        "{}",
    ]


def test_a_built_in_name_stands_before_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "voc-20").write_text("cat\n")
    assert len(open_label_space("voc-20").classes) == 20
    assert len(open_label_space("./voc-20").classes) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("voc20", "did you mean voc-20?"),
        ("cityscape-19", "did you mean cityscapes-19?"),
        ("cat", "built in: voc-20, voc-21, .*a single one with a comma after it"),
        ("", "unknown label space ''"),
        ("a\x1b[31m", r"'a\\x1b\[31m'"),
        (",", "--names: an empty name"),
        ("cat,,dog", "--names: an empty name"),
        ("cat, ,dog", "--names: an empty name"),
        ("cat,dog,Cat", r"--names: 'Cat' is already the name of class 0 \('cat'\)"),
        ("cat,do\ng", r"'do\\ng' holds the control character U\+000A"),
        ("cat,\udce9", r"control character U\+DCE9"),
        ("cat,a\u202eb", r"control character U\+202E"),
    ],
)
def test_names_that_are_none(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_label_space(text)


@pytest.mark.parametrize("text", ["nowhere.json", "nowhere.TXT", "cat,dog.txt", "no/where", "a\0.txt", "."])
def test_a_file_that_is_not_there(text: str) -> None:
    with pytest.raises(MissingInputError, match="cannot read"):
        open_label_space(text)


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "big.txt", "wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(InputError, match="larger than 16 MiB"):
        open_label_space(str(tmp_path / "big.txt"))


# Text files


def test_a_text_file_may_have_comments_blank_lines_a_bom_and_crlf() -> None:
    data = b"\xef\xbb\xbf# my pets\r\n\r\ncat, kitten , tom\r\n  # none\r\n\tdog,\r\nc# note\r\n"
    space = read_text(data)
    assert found(space) == [(0, "cat", ("kitten", "tom")), (1, "dog", ()), (2, "c# note", ())]
    assert space.name == "pets"


def test_a_text_file_needs_no_last_newline() -> None:
    assert read_text(b"cat\ndog") == read_text(b"cat\ndog\n")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "dir/pets.txt names no class"),
        (b"# nothing\n\n", "dir/pets.txt names no class"),
        (b"cat\ncaf\xe9\n", "dir/pets.txt:2: byte 0xe9 is not UTF-8; .*iconv"),
        ("cat\n".encode("utf-16"), "dir/pets.txt:1: byte 0xff is not UTF-8"),
        (b"cat\n\ndog,,puppy\n", "dir/pets.txt:3: an empty name"),
        (b",cat\n", "dir/pets.txt:1: an empty name"),
        (b"cat\ndog\ncat\n", r"dir/pets.txt:3: 'cat' is already the name of class 0 \('cat'\)"),
        (b"cat\ndog, CAT\n", "dir/pets.txt:2: 'CAT' is already the name of class 0"),
        (b"cat, pet\ndog, pet\n", "dir/pets.txt:2: 'pet' is already a synonym of class 0"),
        (b"cat, pet\npet\n", "dir/pets.txt:2: 'pet' is already a synonym of class 0"),
        (b"cat, tom, Tom\n", r"dir/pets.txt:1: class 0 \('cat'\) has a word twice"),
        (b"cat\rdog\r", r"dir/pets.txt:1: .* U\+000D"),
        (b"cat\nd\0g\n", r"dir/pets.txt:2: .* U\+0000"),
        (b"\xff\xd8\xff\xe0", "dir/pets.txt:1: byte 0xff is not UTF-8"),
        ("".join(f"c{k}\n" for k in range(65537)).encode(), "has 65537 classes; label maps hold at most 65536"),
    ],
)
def test_a_broken_text_file(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_text(data)


# JSON files


def test_json_is_known_by_its_first_byte_or_its_path() -> None:
    assert parse_label_space(PETS.to_json(), "pets.txt") == PETS
    assert parse_label_space(b"\xef\xbb\xbf\n " + PETS.to_json().replace(b"\n", b"\r\n"), "pets") == PETS
    with pytest.raises(InputError, match="is not valid JSON"):
        parse_label_space(b"cat\ndog\n", "pets.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "ovskit.labels/2"}, "its format is 'ovskit.labels/2', this ovskit reads 'ovskit.labels/1'; update ovskit"),
        ({"format": "ovskit.masks/1"}, "a label space begins with"),
        ({"format": None}, "its format is None"),
        ({"clases": []}, "space.json: unknown key 'clases'; valid: format, name"),
        ({"name": ""}, "name: an empty name"),
        ({"name": 3}, "name: 3 is not a string"),
        ({"version": 0}, "version is 0"),
        ({"version": True}, "version is True"),
        ({"version": "1"}, "version is '1'"),
        ({"classes": []}, "names no class"),
        ({"classes": {"0": "cat"}}, 'has a list of "classes"'),
        ({"classes": ["cat"]}, r"classes\[0\]: a class is an object"),
        ({"classes": [{"id": 0}]}, r"classes\[0\]: name: None is not a string"),
        ({"classes": [{"name": "cat"}]}, r"classes\[0\]: id is None"),
        ({"classes": [{"id": -1, "name": "cat"}]}, "id is -1, must be a whole number from 0 to 65535"),
        ({"classes": [{"id": 65536, "name": "cat"}]}, "id is 65536"),
        ({"classes": [{"id": 10**30, "name": "cat"}]}, "id is 1"),
        ({"classes": [{"id": 0.0, "name": "cat"}]}, "id is 0.0"),
        ({"classes": [{"id": True, "name": "cat"}]}, "id is True"),
        ({"classes": [{"id": 0, "name": "cat", "synonym": ["tom"]}]}, r"classes\[0\]: unknown key 'synonym'"),
        ({"classes": [{"id": 0, "name": "cat", "synonyms": "tom"}]}, "synonyms must be a list"),
        ({"classes": [{"id": 0, "name": "cat", "synonyms": [""]}]}, "synonyms: an empty name"),
        ({"classes": [{"id": 0, "name": "c\tat\n"}]}, r"U\+000A"),
        ({"classes": [{"id": 4, "name": "cat"}, {"id": 4, "name": "dog"}]}, r"classes\[1\]: id 4 is already that of 'cat'"),
        ({"classes": [{"id": 4, "name": "cat"}, {"id": 5, "name": "cat"}]}, r"classes\[1\]: 'cat' is already the name of class 4"),
        ({"background": 1}, 'background is 1, must be "none" or the id of a class'),
        ({"background": None}, "background is None"),
        ({"background": False}, "background is False"),
        ({"ignore": 255}, "ignore must be a list"),
        ({"ignore": [255, 0]}, "id 0 is both ignored and a class's"),
        ({"ignore": [255, 255]}, "twice"),
        ({"ignore": [-1]}, "ignore is -1"),
        ({"templates": []}, "must be a list of strings"),
        ({"templates": "imagenet-81"}, "unknown templates 'imagenet-81'; valid: plain, plain-stop, imagenet-7, imagenet-80"),
        ({"templates": ["a photo"]}, "must have one {}"),
        ({"templates": ["{} and {}"]}, "must have one {}"),
        ({"templates": ["a {0} {}"]}, "no other braces"),
        ({"templates": ["a {}", " a  {}"]}, "a template is there twice"),
        ({"templates": [None]}, "None is not a string"),
    ],
)
def test_a_broken_json_file(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(MINIMAL | changes)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not valid JSON"),
        (PETS.to_json()[:-5], r"dir/space.json is not valid JSON: .*line \d+"),
        (b"[]", "is a JSON object"),
        (b'{"format": "ovskit.labels/1", "name": "caf\xe9"}', "dir/space.json:1: byte 0xe9 is not UTF-8"),
        (b'{"format": "ovskit.labels/1", "classes": [{"id": 0, "name": "\\ud83d"}]}', r"U\+D83D"),
        (b"[" * 900 + b"]" * 900, "is a JSON object"),
        (b'{"format": ' + b"[" * 900 + b"]" * 900 + b"}", r"its format is \[\[\["),
        (b'{"format": "' + b"x" * 10**6 + b'"}', r"its format is 'x{1,40}\.\.\.x+'"),
    ],
)
def test_bytes_that_are_no_label_space(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_label_space(data, "dir/space.json")
    assert len(str(caught.value)) < 300


# Templates


def test_named_templates() -> None:
    assert templates("plain") == ("a photo of a {}",)
    eighty = templates("ImageNet-80")
    assert len(eighty) == len(set(eighty)) == 80
    assert all(text.count("{}") == 1 for text in eighty)
    assert (eighty[0], eighty[-1]) == ("a bad photo of a {}.", "a tattoo of the {}.")
    with pytest.raises(UsageError, match="valid: plain, plain-stop, imagenet-7, imagenet-80"):
        templates("vild")


def test_the_eighty_and_the_seven_are_those_that_open_clip_has() -> None:
    """An independent copy of CLIP's lists; open_clip keeps functions instead of strings, in a file that needs no torch."""
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None
    assert spec.origin is not None
    metadata = runpy.run_path(str(Path(spec.origin).with_name("zero_shot_metadata.py")))
    assert tuple(template("{}") for template in metadata["OPENAI_IMAGENET_TEMPLATES"]) == templates("imagenet-80")
    assert tuple(template("{}") for template in metadata["SIMPLE_IMAGENET_TEMPLATES"]) == templates("imagenet-7")
    assert templates("plain-stop") == (templates("plain")[0] + ".",)


def test_a_space_may_name_its_templates() -> None:
    assert read(MINIMAL | {"templates": "imagenet-80"}).templates == templates("imagenet-80")


def test_nothing_in_a_name_is_evaluated() -> None:
    assert prompt("a photo of a {}.", "{0.__class__} {}") == "a photo of a {0.__class__} {}."


def test_largest_id_is_that_of_a_sixteen_bit_map() -> None:
    assert labels.LARGEST_ID == 2**16 - 1
