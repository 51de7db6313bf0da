"""The stream of image labels: what is written is read, and nothing cut or changed passes for whole."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovskit.core.formats.streams.existing import check_existing
from ovskit.core.formats.streams.image_labels import ImageLabelsHeader, ImageLabelsWriter, open_image_labels
from ovskit.core.records import Image, ImageLabel, ImageLabels
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.shard import Shard

CATEGORIES = ({"id": 0, "name": "cat"}, {"id": 4, "name": "Füchslein"}, {"id": 7, "name": "dog"})
PG = ({"id": "ovs-predict", "command": "ovs-predict --classify a", "previous": None},)
HEADER = ImageLabelsHeader("imgs", CATEGORIES, {"name": "pets", "version": 1, "hash": "ab"}, PG)


def one(number: int) -> ImageLabels:
    labels = (ImageLabel(7, "dog", 0.75), ImageLabel(4, "Füchslein", 0.125), ImageLabel(0, "cat", 0.125))
    return ImageLabels(Image(number, f"a/\udcff{number}.jpg", 40, 30), labels[: number % 4])


IMAGES = [one(k) for k in range(1, 9)]


def stream_of(images: list[ImageLabels], header: ImageLabelsHeader = HEADER) -> bytes:
    out = io.BytesIO()
    writer = ImageLabelsWriter(out, header)
    for image in images:
        writer.write(image)
    writer.finish()
    return out.getvalue()


WHOLE = stream_of(IMAGES)


@pytest.mark.parametrize("header", [HEADER, replace(HEADER, exif="ignore", shard=Shard(1, 3), root=None, labels=None)])
def test_what_is_written_is_read(header: ImageLabelsHeader) -> None:
    found, images = open_image_labels(io.BytesIO(stream_of(IMAGES, header)), "x")
    assert found == header
    assert list(images) == IMAGES


@settings(max_examples=200, deadline=None)
@given(end=st.integers(0, len(WHOLE) - 1))
def test_a_cut_stream_is_never_whole(end: int) -> None:
    with pytest.raises(InputError, match="^x"):
        list(open_image_labels(io.BytesIO(WHOLE[:end]), "x")[1])


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, len(WHOLE) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_is_an_error_or_another_value(place: int, byte: int) -> None:
    changed = WHOLE[:place] + bytes([byte]) + WHOLE[place + 1 :]
    said, count = "x", len(IMAGES)
    try:
        count = len(list(open_image_labels(io.BytesIO(changed), "x")[1]))
    except InputError as error:
        said = str(error)
    assert count == len(IMAGES)
    assert said.startswith("x")
    assert "\n" not in said


def lines(*changed: tuple[int, object]) -> bytes:
    found = WHOLE.split(b"\n")
    for k, value in changed:
        found[k] = value if isinstance(value, bytes) else json.dumps(value).encode()
    return b"\n".join(found)


LINE = {"id": 1, "file_name": "a.jpg", "width": 4, "height": 3, "labels": [{"id": 7, "name": "dog", "score": 0.5}]}
CAT = {"id": 0, "name": "cat", "score": 0.75}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "x is not a stream of image labels"),
        (b'{"info":{}}\n', "x is not a stream of image labels"),
        (lines((0, {"format": "ovskit.image-labels/2"})), "its format is 'ovskit.image-labels/2', this ovskit reads"),
        (lines((0, {"format": "ovskit.image-labels/1"})), "header is incomplete"),
        (lines((1, b"nonsense")), "x: line 2 is not valid JSON"),
        (lines((1, [])), "x: line 2 is not a line of image labels"),
        (lines((1, {key: value for key, value in LINE.items() if key != "file_name"})), "line 2 is not a line"),
        (lines((1, LINE | {"id": 9})), "ids must rise, but 2 follows 9"),
        (lines((1, LINE | {"labels": [*LINE["labels"], CAT]})), "not in order of their scores"),
        (lines((1, LINE | {"labels": [CAT, CAT]})), "has a label twice"),
        (lines((1, LINE | {"labels": [CAT | {"id": 5}]})), "label 5 is not among the header's categories"),
        (lines((-2, {"end": 7})), "says that there are 7 images, and there are 8"),
        (WHOLE + WHOLE, "there is more after the end"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(open_image_labels(io.BytesIO(data), "x")[1])


@settings(max_examples=60, deadline=None)
@given(end=st.integers(0, len(WHOLE)))
def test_a_run_that_is_taken_up_again_gives_the_same_bytes(end: int) -> None:
    file = io.BytesIO(WHOLE[:end])
    writer, done = ImageLabelsWriter.resume(file, HEADER, "x")
    for image in IMAGES:
        if image.image.id not in done:
            writer.write(image)
    writer.finish()
    assert file.getvalue() == WHOLE


def test_another_run_is_not_continued() -> None:
    with pytest.raises(UsageError, match="begun with other inputs or options: it is shard 0/2"):
        ImageLabelsWriter.resume(io.BytesIO(stream_of(IMAGES, replace(HEADER, shard=Shard(0, 2)))), HEADER, "x")


def test_an_existing_output_is_known_again(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(WHOLE)
    assert check_existing(str(path), HEADER) == set(range(1, 9))
    with pytest.raises(UsageError, match="images below"):
        check_existing(str(path), replace(HEADER, root="elsewhere"))
    path.write_bytes(WHOLE[:-3])
    with pytest.raises(InputError, match="truncated"):
        check_existing(str(path), HEADER)
