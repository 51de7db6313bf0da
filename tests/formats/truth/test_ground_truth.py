"""Ground truth of every form says the same of the same masks, and is found under the names a stream may use."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
from ovskit.core.formats.truth.ground_truth import is_sa1b_folder, open_ground_truth
from ovskit.core.masks import rle
from ovskit.core.records import Image, Mask, MaskSet
from ovskit.core.runtime.errors import InputError, MissingInputError

SIZE = (12, 18)
IMAGES = [Image(7, "b/2.jpg", 18, 12), Image(3, "a/1.jpg", 18, 12), Image(9, "c.jpg", 18, 12)]


def labels(seed: int) -> np.ndarray:
    """A map of segments 1, 300 and 70000 and void 0."""
    return np.random.default_rng(seed).choice([0, 1, 300, 70000], SIZE)


MAPS = {7: labels(7), 3: labels(3), 9: np.zeros(SIZE, int)}


def segments(image_id: int) -> dict[int, np.ndarray]:
    return {int(v): MAPS[image_id] == v for v in np.unique(MAPS[image_id]) if v}


def annotations() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for image in IMAGES:
        for dense in segments(image.id).values():
            coded = rle.encode(dense)
            segmentation = {"size": list(SIZE), "counts": coded.counts.decode()}
            found.append({"id": len(found) + 1, "image_id": image.id, "category_id": 5, "segmentation": segmentation})
    return found


def entries(**changes: Any) -> list[dict[str, Any]]:
    return [{"id": i.id, "file_name": i.file_name, "width": i.width, "height": i.height, **changes} for i in IMAGES]


def instances(folder: Path) -> Path:
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": entries(), "annotations": annotations(), "categories": [{"id": 5, "name": "five"}]}))
    return path


def lvis(folder: Path) -> Path:
    images = [{k: v for k, v in e.items() if k != "file_name"} | {"coco_url": f"http://h/x/{e['file_name']}"} for e in entries()]
    images[2]["coco_url"] = "c.jpg"
    path = folder / "lvis.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations(), "categories": []}))
    return path


def panoptic(folder: Path) -> Path:
    path, pictures = folder / "panoptic.json", folder / "panoptic"
    pictures.mkdir()
    found = []
    for image in IMAGES:
        ids = MAPS[image.id]
        name = f"{image.id}.png"
        Pillow.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)).save(pictures / name)
        info = [{"id": k, "category_id": 5, "iscrowd": 0} for k in segments(image.id)]
        found.append({"image_id": image.id, "file_name": name, "segments_info": info})
    path.write_text(json.dumps({"images": entries(), "annotations": found, "categories": []}))
    return path


def sa1b(folder: Path) -> Path:
    out = folder / "sa"
    out.mkdir()
    for k, image in enumerate(IMAGES):
        head = {"image_id": image.id, "file_name": image.file_name, "width": image.width, "height": image.height}
        own = [{k: v for k, v in a.items() if k != "image_id"} for a in annotations() if a["image_id"] == image.id]
        value = {"image": head, "annotations": own}
        text = json.dumps(value, indent=2) if k == 0 else json.dumps(dict(reversed(value.items()) if k == 1 else value.items()))
        (out / f"sa_{image.id}.json").write_text(text)
    return out


def stream(folder: Path) -> Path:
    path = folder / "ours.json"
    with path.open("wb") as out:
        writer = MasksWriter(out, MasksHeader())
        number = 0
        for image in IMAGES:
            masks = []
            for dense in segments(image.id).values():
                number += 1
                coded = rle.encode(dense)
                masks.append(Mask(number, image.id, coded, rle.area(coded), rle.bbox(coded), category_id=5))
            writer.write(MaskSet(image, tuple(masks)))
        writer.finish()
    return path


@pytest.mark.parametrize("make", [instances, lvis, panoptic, sa1b, stream])
def test_every_form_has_the_same_masks(tmp_path: Path, make: Any) -> None:
    truth = open_ground_truth(str(make(tmp_path)))
    assert [i.id for i in truth.images] == [3, 7, 9]
    for k, image in enumerate(truth.images):
        found = truth.load(k)
        assert found.image == image == next(i for i in IMAGES if i.id == image.id)
        expected = [rle.encode(dense) for dense in segments(image.id).values()]
        assert [m.rle for m in found.masks] == expected
        assert [m.area for m in found.masks] == [rle.area(r) for r in expected]
        assert {m.category_id for m in found.masks} <= {5}


@pytest.mark.parametrize("make", [instances, sa1b, stream])
def test_a_byte_order_mark_is_passed_over(tmp_path: Path, make: Any) -> None:
    whole = make(tmp_path)
    for path in [whole] if whole.is_file() else whole.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    truth = open_ground_truth(str(whole))
    assert [len(truth.load(k).masks) for k in range(3)] == [len(segments(image.id)) for image in truth.images]


def test_where_an_image_is_found(tmp_path: Path) -> None:
    truth = open_ground_truth(str(instances(tmp_path)))
    place = {i.id: k for k, i in enumerate(truth.images)}

    def find(number: int, name: str, width: int = 18, height: int = 12) -> tuple[int, str] | None:
        match = truth.find(Image(number, name, width, height))
        return None if match is None else (match.index, match.by)

    assert find(1, "a/1.jpg") == (place[3], "name")
    assert find(1, "1.jpg") == (place[3], "path")
    assert find(1, "data/set/a/1.jpg") == (place[3], "path")
    assert find(1, "other/1.jpg") is None
    assert find(3, "other/1.jpg") is None  # the same id by chance
    assert find(1, "a\\1.jpg") == find(1, "a%2F1.jpg") == find(1, "./a//1.jpg") == (place[3], "form")
    assert find(1, "c.PNG") == find(1, "masks/c.json") == find(1, "c") == (place[9], "stem")
    assert find(3, "3") is None
    assert find(4, "11.jpg") is None
    match = truth.find(Image(3, "3", 18, 12), named=False)
    assert match is not None
    assert (match.index, match.by) == (place[3], "id")
    assert truth.find(Image(2, "2", 18, 12), named=False) is None  # ids alone, though b/2.jpg would fit
    with pytest.raises(InputError, match="20×12, but 18×12"):
        find(1, "a/1.jpg", 20)
    with pytest.raises(InputError, match="20×12, but 18×12"):
        truth.find(Image(3, "3", 20, 12), named=False)


def test_an_ending_that_two_images_share_is_no_match(tmp_path: Path) -> None:
    images = [{"id": k, "file_name": f"{k}/a.jpg", "width": 4, "height": 4} for k in (1, 2)]
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"images": images, "annotations": []}))
    truth = open_ground_truth(str(path))
    assert truth.find(Image(5, "a.jpg", 4, 4)) is None


def test_the_stated_area_of_polygons_is_kept(tmp_path: Path) -> None:
    square = [[1, 1, 5, 1, 5, 5, 1, 5]]
    annotation = {"id": 1, "image_id": 3, "segmentation": square, "area": 15.5, "category_id": 1}
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"images": entries(), "annotations": [annotation]}))
    mask = open_ground_truth(str(path)).load(0).masks[0]
    assert (mask.area, mask.extra) == (16, {"area": 15.5})


def broken_panoptic(folder: Path, change: Any) -> str:
    path = panoptic(folder)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return str(path)


def drop(document: dict[str, Any], key: str) -> None:
    document.pop(key)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["annotations"][0]["segments_info"].pop(), "not in segments_info"),
        (lambda d: d["annotations"][0]["segments_info"].append({"id": 5, "category_id": 1}), "segment 5 has no pixel"),
        (
            lambda d: d["annotations"][0]["segments_info"].append(d["annotations"][0]["segments_info"][0]),
            r"7\.png \(b/2\.jpg\): 2 segments have id 1, of the categories 5, 5",
        ),
        (lambda d: d["annotations"][0].update(file_name="../x.png"), "outside of its folder"),
        (lambda d: d["annotations"][0].update(file_name="9.png"), "not in segments_info|has no pixel"),
        (lambda d: d["annotations"].append(d["annotations"][0]), "one each"),
        (lambda d: d["images"][0].update(width=19), "not RGB of its image's 19×12"),
        (lambda d: drop(d, "images"), 'no "images"'),
    ],
)
def test_broken_panoptic_files(tmp_path: Path, change: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        truth = open_ground_truth(broken_panoptic(tmp_path, change))
        for k in range(len(truth)):
            truth.load(k)


def test_panoptic_without_its_pictures(tmp_path: Path) -> None:
    truth = open_ground_truth(str(panoptic(tmp_path)), segments=str(tmp_path / "elsewhere"))
    with pytest.raises(MissingInputError, match="--segments"):
        truth.load(0)
    (tmp_path / "panoptic" / "3.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="not a PNG"):
        open_ground_truth(str(tmp_path / "panoptic.json")).load(0)


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ("", InputError, "is empty"),
        ("[]", InputError, 'no "images"'),
        (json.dumps(annotations()), InputError, 'no "images"'),
        (json.dumps({"annotations": annotations()}), InputError, 'no "images"'),
        (json.dumps({"images": [], "annotations": []}), InputError, "has no images"),
        (json.dumps({"images": entries(file_name="a.jpg"), "annotations": []}), InputError, "two images are called a.jpg"),
        (json.dumps({"images": entries(id=1), "annotations": []}), InputError, "two images have id 1"),
        (json.dumps({"images": entries(), "annotations": annotations()[:1] * 2}), InputError, "two annotations have id 1"),
    ],
)
def test_broken_files(tmp_path: Path, content: str, error: type[Exception], words: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(content)
    with pytest.raises(error, match=words):
        open_ground_truth(str(path))


def test_a_folder_of_sa1b_is_walked_like_any_other(tmp_path: Path) -> None:
    folder = sa1b(tmp_path)
    plain = open_ground_truth(str(folder))
    masks = [plain.load(k) for k in range(len(plain))]
    (folder / "._sa_0.json").write_bytes(b"what macOS leaves")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "sa_0.json").write_bytes((folder / f"sa_{IMAGES[0].id}.json").read_bytes())
    (tmp_path / "more").mkdir()
    (folder / f"sa_{IMAGES[-1].id}.json").rename(tmp_path / "more" / "z.json")
    (folder / "linked").symlink_to("../more")
    (folder / "linked" / "round").symlink_to("..")
    found = open_ground_truth(str(folder))
    assert found.images == plain.images
    assert [found.load(k) for k in range(len(found))] == masks


def test_which_folders_are_sa1bs(tmp_path: Path) -> None:
    def is_one(*names: str) -> bool:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"")
        found = {is_sa1b_folder(text) for text in (f"{folder}/", str(folder), os.path.relpath(folder), f"./{os.path.relpath(folder)}")}
        assert len(found) == 1
        return found.pop()

    assert is_one("sa_1.json", "sa_1.jpg")
    assert is_one("sa_000/sa_1.json", "sa_000/sa_1.jpg")
    assert is_one("sa_1.json", "x/a.png")
    assert not is_one("a.png", ".b.json", "._c.json")
    assert not is_one("SegmentationClass/a.png", "notes/a.json")
    assert not is_one("readme.txt")


def test_a_folder_without_json_files(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"no \.json files"):
        open_ground_truth(str(tmp_path))
    (tmp_path / "a.json").write_text('{"info": 1}')
    with pytest.raises(InputError, match="SA-1B"):
        open_ground_truth(str(tmp_path))
