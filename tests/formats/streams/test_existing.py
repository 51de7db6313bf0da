"""What --skip-existing may leave alone: whole streams by the very same header."""

from pathlib import Path

import numpy as np
import pytest

from ovskit.core.formats.streams.existing import check_existing
from ovskit.core.formats.streams.features import FeatureHeader, FeatureWriter
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter, open_masks
from ovskit.core.records import EmbeddingBlock, FeatureMap, Image, MaskSet
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.shard import Shard

IMAGES = [Image(k, f"{k}.png", 8, 8) for k in (1, 5, 9)]
PG = [{"id": "ovs-extract", "command": "ovs-extract imgs", "previous": None}]


def features(path: Path, header: FeatureHeader) -> bytes:
    with path.open("wb") as out:
        writer = FeatureWriter(out, header)
        for image in IMAGES:
            writer.write(FeatureMap(image, np.zeros((2, 2, 3), np.float16), np.zeros(3, np.float16)))
        writer.finish()
    return path.read_bytes()


def masks(path: Path, header: MasksHeader) -> bytes:
    with path.open("wb") as out:
        writer = MasksWriter(out, header)
        for image in IMAGES:
            writer.write(MaskSet(image, ()))
        writer.finish()
    return path.read_bytes()


@pytest.mark.parametrize("shard", [None, Shard(1, 4)])
def test_a_whole_stream_says_which_images_it_has(tmp_path: Path, shard: Shard | None) -> None:
    one = FeatureHeader({"name": "m"}, None, "float16", "imgs", None, PG, shard)
    features(tmp_path / "f.npz", one)
    assert check_existing(str(tmp_path / "f.npz"), one) == {1, 5, 9}
    other = MasksHeader(root="imgs", pg=PG, shard=shard)
    masks(tmp_path / "m.json", other)
    assert check_existing(str(tmp_path / "m.json"), other) == {1, 5, 9}
    with (tmp_path / "m.json").open("rb") as file:
        assert open_masks(file, "m.json")[0].shard == shard


def test_blocks_of_embeddings_are_counted_image_by_image(tmp_path: Path) -> None:
    header = FeatureHeader({"name": "m"}, None, "float16", "imgs", "mean")
    with (tmp_path / "e.npz").open("wb") as out:
        writer = FeatureWriter(out, header)
        writer.write(EmbeddingBlock(tuple(IMAGES), np.zeros((3, 4), np.float16)))
        writer.finish()
    assert check_existing(str(tmp_path / "e.npz"), header) == {1, 5, 9}


def test_every_cut_and_every_addition_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "out"
    one, other = FeatureHeader({"name": "m"}, None, "float16", "imgs"), MasksHeader(root="imgs")
    for data, header in ((features(path, one), one), (masks(path, other), other)):
        last = 1 if header is other else 0  # the line break after the closing ]} is nothing
        for size in range(0, len(data) - last, 7):
            path.write_bytes(data[:size])
            with pytest.raises(InputError, match="out"):
                check_existing(str(path), header)
        path.write_bytes(data + b"x")
        with pytest.raises(InputError, match="out"):
            check_existing(str(path), header)


def test_a_changed_end_never_adds_or_loses_an_image(tmp_path: Path) -> None:
    """Names of members are taken from the directory; whoever reads the members compares."""
    header = FeatureHeader({"name": "m"}, None, "float16", "imgs")
    data = bytearray(features(tmp_path / "f.npz", header))
    for at in range(data.index(b"PK\1\2"), len(data), 5):
        changed = data.copy()
        changed[at] ^= 0x80
        (tmp_path / "f.npz").write_bytes(changed)
        try:
            found = check_existing(str(tmp_path / "f.npz"), header)
        except InputError:
            continue
        assert found == {1, 5, 9}


def test_what_tells_two_runs_apart_is_said(tmp_path: Path) -> None:
    header = MasksHeader(root="imgs", pg=PG, shard=Shard(0, 4))
    masks(tmp_path / "m.json", header)
    for wanted, words in (
        (MasksHeader(root="imgs", pg=PG, shard=Shard(0, 2)), "is shard 0/4, and this run is shard 0/2"),
        (MasksHeader(root="imgs", pg=PG), "is shard 0/4, and this run is the whole"),
        (MasksHeader(root="imgs", pg=[{"command": "ovs-extract --size 64 imgs"}], shard=Shard(0, 4)), "was made by 'ovs-extract imgs'"),
        (MasksHeader(root="other", pg=PG, shard=Shard(0, 4)), "has its images below imgs, and this run below other"),
        (MasksHeader(root="imgs", pg=[{**PG[0], "version": "2"}], shard=Shard(0, 4)), "another version"),
        (MasksHeader(root="imgs", pg=PG, shard=Shard(0, 4), categories=({"id": 1, "name": "cat"},)), "other inputs"),
    ):
        with pytest.raises(UsageError, match=words):
            check_existing(str(tmp_path / "m.json"), wanted)
    assert check_existing(str(tmp_path / "m.json"), MasksHeader(root="imgs", pg=PG, shard=Shard(0, 4), categories=()), categories=False)
