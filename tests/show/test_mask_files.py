"""Images of one mask file found in others: whatever their order, from streams on disk, pipes and other COCO files."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter, open_masks
from ovskit.core.records import Image, MaskSet
from ovskit.core.runtime.errors import InputError, MissingInputError
from ovskit.core.show.mask_files import MaskFile, in_step, masks_of, open_mask_file

from .conftest import build_masks


def set_of(name: str, number: int, count: int = 1, size: tuple[int, int] = (3, 4)) -> MaskSet:
    random = np.random.default_rng([number, count])
    found = build_masks([random.random(size) < 0.5 for _ in range(count)], size=size, name=name)
    return MaskSet(Image(number, name, size[1], size[0]), found.masks)


def write(path: Path, sets: Sequence[MaskSet]) -> Path:
    with open(path, "wb") as out:
        writer = MasksWriter(out, MasksHeader(root="photos", pg=({"tool": "t"},)))
        for masks in sets:
            writer.write(masks)
        writer.finish()
    return path


def runs_of(masks: MaskSet | None) -> list[bytes] | None:
    return None if masks is None else [mask.rle.counts for mask in masks.masks]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 3), max_size=6), st.randoms(use_true_random=False))
def test_a_stream_on_disk_is_read_where_its_images_stand(tmp_path_factory: pytest.TempPathFactory, counts: list[int], random) -> None:
    sets = [set_of(f"{k}.jpg", k + 1, count) for k, count in enumerate(counts)]
    path = write(tmp_path_factory.mktemp("m") / "m.json", sets)
    with open(path, "rb") as stream:
        read = {masks.image.file_name: masks for masks in open_masks(stream, "m")[1]}
    with open_mask_file(str(path)) as file:
        assert {image.file_name for image in file.images} == set(read)
        assert file.header.root == "photos"
        order = list(range(len(file.images)))
        random.shuffle(order)
        for k in order:
            assert file.load(k) == read[file.images[k].file_name]


def test_blank_lines_are_skipped_as_the_reader_does(tmp_path: Path) -> None:
    path = write(tmp_path / "m.json", [set_of("a", 1, 2), set_of("b", 2, 1), set_of("c", 3, 0)])
    path.write_bytes(path.read_bytes().replace(b"\n", b"\n\n"))
    with open_mask_file(str(path)) as file:
        assert [len(file.load(k).masks) for k in range(3)] == [2, 1, 0]


def test_a_pipe_and_another_coco_file_are_held(tmp_path: Path) -> None:
    sets = [set_of("a", 1, 2), set_of("b", 2, 1)]
    path = write(tmp_path / "m.json", sets)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    feeder.start()
    with open_mask_file(str(pipe)) as file:
        assert [runs_of(file.load(k)) for k in (1, 0)] == [runs_of(s) for s in reversed(sets)]
    feeder.join()
    document = json.loads(path.read_bytes())
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps({"images": document["images"], "annotations": document["annotations"]}, indent=1))
    with open_mask_file(str(plain)) as file:
        assert [runs_of(file.load(k)) for k in (0, 1)] == [runs_of(s) for s in sets]


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-4], lambda b: b[: len(b) // 2], lambda b: b.replace(b'"counts":"', b'"counts":"~', 1), lambda _: b""]
)
def test_a_broken_file_is_known_before_anything_is_shown(tmp_path: Path, damage) -> None:
    path = write(tmp_path / "m.json", [set_of("a", 1, 2), set_of("b", 2, 1)])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"m\.json"), open_mask_file(str(path)):
        pass
    with pytest.raises(MissingInputError), open_mask_file(str(tmp_path / "none.json")):
        pass


def file_of(what: str, sets: Sequence[MaskSet]) -> MaskFile:
    return MaskFile(what, MasksHeader(), [s.image for s in sets], list(sets).__getitem__)


def test_images_go_by_name_and_by_number_only_where_one_side_has_no_names() -> None:
    file = file_of("b", [set_of("x/a.jpg", 5), set_of("c.jpg", 6), set_of("y/d.jpg", 7), set_of("z/d.jpg", 8), set_of("9", 9)])
    find = lambda name, number=1: file.find(Image(number, name, 4, 3))  # noqa: E731
    assert find("x/a.jpg") == 0
    assert find("a.jpg") == 0
    assert find("train/x/a.jpg") == 0
    assert find("train/c.jpg") == 1
    assert find("d.jpg") is None  # two could be meant
    assert find("bc.jpg") is None
    assert find("q.jpg", 5) is None  # a number means nothing where there are names
    assert find("q.jpg", 9) is None
    assert find("d.png") is None
    assert find("c.png") == 1
    assert file.find(Image(7, "7", 4, 3), named=False) == 2
    assert file.find(Image(1, "9", 4, 3), named=False) is None
    nameless = MaskFile("r", MasksHeader(named=False), [Image(6, "6", 4, 3)], lambda k: set_of("6", 6))
    assert nameless.find(Image(6, "c.jpg", 4, 3)) == 0
    assert nameless.find(Image(5, "6", 4, 3)) is None
    with pytest.raises(InputError, match="two images are called"):
        file_of("b", [set_of("a", 1), set_of("a", 2)])


def test_the_leading_file_goes_first_and_every_image_comes_once() -> None:
    lead = [set_of(n, k) for k, n in enumerate("cab", 1)]
    second = file_of("b.json", [set_of(n, k, 2) for k, n in enumerate("dbae", 1)])
    third = file_of("c.json", [set_of(n, k, 3) for k, n in enumerate("fed", 1)])
    entries = list(in_step(lead, [second, third]))
    assert [e.image.file_name for e in entries] == ["c", "a", "b", "d", "e", "f"]
    panels = [[None if m is None else len(m.masks) for m in masks_of(e, [second, third], "a.json")] for e in entries]
    assert panels == [[1, None, None], [1, 2, None], [1, 2, None], [None, 2, 3], [None, 2, 3], [None, None, 3]]


def test_a_results_list_has_the_names_that_another_file_knows() -> None:
    [first, second] = in_step([set_of("6", 6), set_of("8", 8)], [file_of("b", [set_of("x/c.jpg", 6)])], named=False)
    assert (first.image.file_name, first.image.id, first.places, first.named) == ("x/c.jpg", 6, (0,), True)
    assert (second.image.file_name, second.places, second.named) == ("8", (None,), False)


def test_two_sizes_of_one_image_are_refused() -> None:
    other = file_of("b.json", [set_of("a", 1, size=(4, 4))])
    [entry] = in_step([set_of("a", 1)], [other])
    with pytest.raises(InputError, match=r"4×3 in a\.json, but 4×4 in b\.json"):
        masks_of(entry, [other], "a.json")
    third = file_of("c.json", [set_of("a", 1, size=(3, 3))])
    [entry] = in_step([], [other, third])
    with pytest.raises(InputError, match=r"b\.json.*c\.json"):
        masks_of(entry, [other, third], "a.json")
