"""Label maps as masks, and folders of them whose ids have names; photographs found again by the names of maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as Picture
from pycocotools import mask as coco_mask

from ovskit.core.formats.labels.maps import painted_prediction
from ovskit.core.formats.labels.named_maps import chosen_space, masks_of_map, open_named_maps
from ovskit.core.formats.labels.spaces import built_in
from ovskit.core.formats.photographs.photographs import photograph_names
from ovskit.core.records import Image, LabelMap
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError


def save(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(ids.astype(np.uint8)).save(path)


@settings(deadline=None, max_examples=80)
@given(hnp.arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([-1, 0, 1, 7, 65535])), st.booleans())
def test_a_mask_for_each_class_as_pycocotools_encodes_it(labels: np.ndarray, in_columns: bool) -> None:
    height, width = labels.shape
    image = Image(3, "a", width, height)
    masks = masks_of_map(LabelMap(image, np.asfortranarray(labels) if in_columns else labels))
    assert [mask.category_id for mask in masks.masks] == sorted(set(labels[labels >= 0].tolist()))
    assert [mask.id for mask in masks.masks] == list(range(1, len(masks.masks) + 1))
    for mask in masks.masks:
        coded = coco_mask.encode(np.asfortranarray((labels == mask.category_id).astype(np.uint8)))
        assert mask.rle.counts == coded["counts"]
        assert (mask.area, list(mask.bbox)) == (coco_mask.area(coded), coco_mask.toBbox(coded).tolist())
        assert (mask.image_id, mask.score) == (3, None)
    assert np.array_equal(painted_prediction(masks).labels, labels)


def test_ids_are_those_of_the_layout_or_of_the_space(tmp_path: Path) -> None:
    save(tmp_path / "labels" / "x" / "a.png", np.array([[0, 10, 11]]))
    maps = open_named_maps(str(tmp_path), layout="camvid", space=chosen_space("camvid", None))
    assert maps.space is built_in("camvid-11")
    assert maps.load(0).labels.tolist() == [[0, 10, -1]]
    assert maps.categories[10] == {"id": 10, "name": "Bicyclist"}
    # Without a layout it is the space that says what is void.
    assert open_named_maps(str(tmp_path), space=built_in("camvid-11")).load(0).labels.tolist() == [[0, 10, -1]]
    plain = open_named_maps(str(tmp_path))
    assert (plain.space, list(plain.categories)) == (None, [])
    assert plain.load(0).labels.tolist() == [[0, 10, 11]]


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    save(tmp_path / "m" / "a.png", np.array([[0, 20, 21, 22]]))
    with pytest.raises(InputError, match=r"a\.png: ids 21, 22 are outside the label space voc-21"):
        open_named_maps(str(tmp_path / "m"), space=built_in("voc-21")).load(0)
    with pytest.raises(InputError, match="id 22 is outside"):
        open_named_maps(str(tmp_path / "m"), space=chosen_space(None, ",".join(f"c{k}" for k in range(22)))).load(0)
    with pytest.raises(UsageError, match="--layout vok: choose voc, "):
        chosen_space("vok", None)
    with pytest.raises(UsageError, match="is not a folder"):
        open_named_maps(str(tmp_path / "m" / "a.png"), layout="voc")
    with pytest.raises(MissingInputError, match="is not a folder"):
        open_named_maps(str(tmp_path / "none"))
    assert chosen_space(None, None) is None


def test_photographs_of_maps_are_found_by_name_and_by_the_end_of_the_path(tmp_path: Path) -> None:
    for name in ("x/a.b.jpg", "y/a.b.jpg", "y/c.png", "d.JPG"):
        save(tmp_path / name, np.zeros((2, 2)))
    plain = lambda name: name.rpartition(".")[0]  # noqa: E731
    images = [Image(k, name, 2, 2) for k, name in enumerate(["x/a.b.png", "a.b.tif", "c.png", "deep/d.png", "none.png"], 1)]
    assert photograph_names(images, str(tmp_path), plain) == ["x/a.b.jpg", None, "y/c.png", "d.JPG", None]
    save(tmp_path / "d.png", np.zeros((2, 2)))
    with pytest.raises(InputError, match="two images are called d"):
        photograph_names(images, str(tmp_path), plain)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInputError, match="no images"):
        photograph_names(images, str(tmp_path / "empty"), plain)
