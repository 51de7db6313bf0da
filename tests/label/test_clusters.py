"""Two passes, and what they keep."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ovskit.core.formats.streams.centroids import Centroids
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
from ovskit.core.label.clusters import Collected, about, check_same_crops, check_same_encoder, cluster_categories, crop_of, with_clusters
from ovskit.core.label.crops import CropOptions
from ovskit.core.label.mask_vectors import MaskVectors
from ovskit.core.label.rereadable import RereadableMasks
from ovskit.core.label.vector_store import VectorStore
from ovskit.core.records import MaskSet
from ovskit.core.runtime.errors import InputError, UsageError

from .conftest import Corners, scene


def some(folder: Path, counts: list[int]) -> list[MaskVectors]:
    random = np.random.default_rng(5)
    sets = [scene(folder, k + 1, [(j, j, j + 5, j + 5) for j in range(n)]) for k, n in enumerate(counts)]
    return [MaskVectors(each, random.normal(size=(len(each.masks), 3)).astype(np.float32)) for each in sets]


def test_the_nearest_cluster_by_cosine(tmp_path: Path) -> None:
    (one,) = some(tmp_path, [7])
    rows = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0].astype(np.float32)
    masks = MaskSet(one.masks.image, tuple(replace(m, score=0.3, extra={"labels": [], "label_score": 1, "x": 2}) for m in one.masks.masks))
    found = with_clusters(masks, one.vectors, Centroids(rows, "cosine", 0.0, np.ones(3, np.int64)))
    for k, mask in enumerate(found.masks):
        cosines = [sum(float(a) * float(b) for a, b in zip(row, one.vectors[k], strict=True)) for row in rows]
        assert mask.category_id == 1 + cosines.index(max(cosines))
        assert (mask.score, mask.extra, mask.rle) == (0.3, {"x": 2}, masks.masks[k].rle)
    assert [c["id"] for c in cluster_categories(2)] == [1, 2]
    assert cluster_categories(2)[1]["name"] == "cluster 2"


@pytest.mark.parametrize("in_memory", [0, 50, 1 << 20])
def test_what_was_collected_comes_again(tmp_path: Path, in_memory: int) -> None:
    found = some(tmp_path, [3, 0, 4, 1])
    with VectorStore(in_memory) as store:
        collected = Collected(store)
        kept = [found[0], found[1], found[3]]  # the third image was skipped
        assert list(collected.collect(kept)) == kept
        assert np.array_equal(collected.rows(4), np.concatenate([each.vectors for each in kept if len(each.vectors)]))
        again = list(collected.again([each.masks for each in found]))
        assert [each.masks for each in again] == [each.masks for each in kept]
        assert all(np.array_equal(a.vectors, b.vectors) for a, b in zip(again, kept, strict=True) if len(b.vectors))
        rest = list(collected.again([each.masks for each in found], frozenset({1})))
        assert [each.masks.image.id for each in rest] == [2, 4]
        assert np.array_equal(rest[1].vectors, found[3].vectors)
        with pytest.raises(InputError, match="changed"):
            list(collected.again([each.masks for each in found[:3]]))
        fewer = MaskSet(found[0].masks.image, found[0].masks.masks[:2])
        with pytest.raises(InputError, match="changed"):
            list(collected.again([fewer, *(each.masks for each in found[1:])]))
        with pytest.raises(InputError, match="5 clusters cannot be made of 4 masks"):
            collected.rows(5)


def test_nothing_to_cluster() -> None:
    with VectorStore() as store, pytest.raises(InputError, match="no masks"):
        Collected(store).rows(1)


def written(sets: list[MaskSet]) -> bytes:
    out = io.BytesIO()
    writer = MasksWriter(out, MasksHeader(root="/x"))
    for each in sets:
        writer.write(each)
    writer.finish()
    return out.getvalue()


@pytest.mark.parametrize("piped", [False, True])
def test_masks_are_read_twice(tmp_path: Path, piped: bool) -> None:
    sets = [each.masks for each in some(tmp_path, [3, 0, 2])]
    data = written(sets)
    path = str(tmp_path / "m.json")
    if piped:
        reading, writing = os.pipe()
        os.write(writing, data)
        os.close(writing)
        path = f"/dev/fd/{reading}"
    else:
        Path(path).write_bytes(data)
    with RereadableMasks([path]) as masks:
        assert masks.header.root == "/x"
        assert masks.spooled == piped
        passes = [list(masks.first()), list(masks.second())]
        assert written(passes[0]) == written(passes[1]) == data
    if piped:
        os.close(reading)


def test_centroids_know_what_they_are_of() -> None:
    crop = CropOptions(64, 0.25, True, (1, 2, 3))
    said = json.loads(json.dumps(about(Corners.spec, crop)))
    assert crop_of(said, "c.npz") == crop
    check_same_encoder(said, Corners.spec.to_json(), "c.npz")
    check_same_encoder(said, replace(Corners.spec, name="alias", facet="token", layer=2).to_json(), "c.npz")
    with pytest.raises(InputError, match=r"c\.npz: its centroids are of corners's vectors, not y"):
        check_same_encoder(said, replace(Corners.spec, name="y", model="y").to_json(), "c.npz")
    with pytest.raises(InputError, match="with other weights"):
        check_same_encoder(said, replace(Corners.spec, weights_sha256="0" * 64).to_json(), "c.npz")
    check_same_crops(crop, size=64, context=None, masked=True, what="c.npz")
    for wish, words in (
        ({"size": 32}, "--size 32: .* with 64"),
        ({"context": 0.1}, r"--context 0\.1: .* with 0\.25"),
        ({"masked": False}, "--no-mask-crop"),
    ):
        with pytest.raises(UsageError, match=words):
            check_same_crops(crop, **{"size": None, "context": None, "masked": None, **wish}, what="c.npz")
    for broken in ({}, {"of": "masks"}, {**said, "of": "patches"}, {**said, "crop": {"size": "x"}}):
        with pytest.raises(InputError, match="not of masks"):
            crop_of(broken, "c.npz")
