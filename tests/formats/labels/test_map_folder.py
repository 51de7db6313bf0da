"""Label maps as PNG files: read again by our own reader and by Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from ovskit.core.formats.labels.layouts import PLAIN
from ovskit.core.formats.labels.map_folder import MapFolder
from ovskit.core.formats.labels.maps import open_label_folder
from ovskit.core.formats.labels.spaces import LabelClass, LabelSpace
from ovskit.core.formats.photographs.sources import Source
from ovskit.core.records import Image, LabelMap
from ovskit.core.runtime.errors import InputError, UsageError

LABELS = np.array([[0, 3, -1], [3, 3, 0]], np.int32)


def space(*ids: int) -> LabelSpace:
    return LabelSpace("pets", 1, tuple(LabelClass(k, f"class {k}") for k in ids), ("a {}",))


def test_maps_are_read_again(tmp_path: Path) -> None:
    folder = MapFolder(tmp_path / "maps", space(0, 3))
    for name in ("a.jpg", "sub/b.c.jpeg"):
        folder.write(LabelMap(Image(1, name, 3, 2), LABELS))
    found = open_label_folder(str(tmp_path / "maps"), PLAIN)
    assert [image.file_name for image in found.images] == ["a.png", "sub/b.c.png"]
    for k in range(2):
        np.testing.assert_array_equal(found.load(k).labels, LABELS)
    with Picture.open(tmp_path / "maps" / "a.png") as picture:
        assert picture.mode == "P"
        # PASCAL VOC's colours: id 3 is olive, void is nearly white.
        assert picture.getpalette()[9:12] == [128, 128, 0]
        assert picture.getpalette()[-3:] == [224, 224, 192]


def test_large_ids_make_maps_of_sixteen_bits(tmp_path: Path) -> None:
    labels = np.where(LABELS == 3, 300, LABELS)
    MapFolder(tmp_path, space(0, 300)).write(LabelMap(Image(1, "a.jpg", 3, 2), labels))
    with Picture.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(np.array(picture), np.where(labels < 0, 65535, labels))


@pytest.mark.parametrize("name", ["../a.jpg", "sub/../../a.jpg", "..\\a.jpg", "%2e%2e/a.jpg"])
def test_nothing_is_written_outside_the_folder(tmp_path: Path, name: str) -> None:
    folder = MapFolder(tmp_path / "maps", space(0))
    with pytest.raises(InputError, match="outside of"):
        folder.check([Source(1, name, "/nowhere")])
    with pytest.raises(InputError, match="outside of"):
        folder.write(LabelMap(Image(1, name, 3, 2), LABELS))
    assert list(tmp_path.rglob("*.png")) == []


def test_an_absolute_name_stays_below(tmp_path: Path) -> None:
    folder = MapFolder(tmp_path / "maps", space(0))
    assert folder.path_of("/etc/a.jpg") == tmp_path / "maps" / "etc" / "a.png"


def test_two_photographs_with_one_map_are_refused(tmp_path: Path) -> None:
    folder = MapFolder(tmp_path / "maps", space(0))
    with pytest.raises(UsageError, match=r"a\.jpg and a\.png would have one map"):
        folder.check([Source(1, "a.jpg", "/nowhere"), Source(2, "a.png", "/nowhere")])


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "maps").write_text("")
    with pytest.raises(UsageError, match="that is a file"):
        MapFolder(tmp_path / "maps", space(0))
