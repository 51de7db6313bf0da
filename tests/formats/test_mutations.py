"""No input ends in a crash: every reader is given thousands of files that are almost right, and raises our errors or reads them.

What is changed is drawn from a fixed seed: bytes anywhere, and in JSON values in place of others. ``make test-slow`` draws 100,000.
"""

import contextlib
import copy
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from ovskit.core.formats.labels.maps import open_label_folder, painted_prediction
from ovskit.core.formats.labels.spaces import parse_label_space
from ovskit.core.formats.pairs.pair_set import PairSet
from ovskit.core.formats.photographs.coco_sources import sources_from_coco
from ovskit.core.formats.photographs.decoding import decode_ids, decode_image, image_size
from ovskit.core.formats.photographs.sources import list_sources, parse_path_list
from ovskit.core.formats.streams.centroids import Centroids, load_centroids, save_centroids
from ovskit.core.formats.streams.features import FeatureHeader, FeatureWriter, open_features
from ovskit.core.formats.streams.mask_inputs import MaskInputs
from ovskit.core.formats.streams.masks import MasksHeader, MasksWriter
from ovskit.core.formats.streams.soft_margin import SoftGrid, read_soft_margin
from ovskit.core.formats.truth.ground_truth import open_ground_truth
from ovskit.core.masks import rle
from ovskit.core.records import FeatureMap, Image, LabelMap, Mask, MaskSet
from ovskit.core.runtime.errors import OvsError
from ovskit.core.runtime.failures import Failures

Make = Callable[[Path], None]
Read = Callable[[Path], Any]

SQUARE = np.pad(np.ones((3, 3), np.uint8), ((1, 4), (2, 5)))
CODED = {"size": [8, 10], "counts": rle.encode(SQUARE).counts.decode()}
RING = [[1.0, 1.0, 8.0, 1.5, 6.0, 7.0], [2, 2, 3, 2, 3, 3]]
IMAGES = [{"id": k, "file_name": f"im/{k}.jpg", "width": 10, "height": 8, "coco_url": "http://h/x/1.jpg"} for k in (1, 2)]
CATEGORIES = [{"id": 1, "name": "thing", "supercategory": "x"}, {"id": 2, "name": "stuff"}]
ANNOTATIONS = [
    {"id": 1, "image_id": 1, "category_id": 1, "segmentation": CODED, "area": 9, "bbox": [2, 1, 3, 3], "iscrowd": 0, "score": 0.5},
    {"id": 2, "image_id": 2, "category_id": 2, "segmentation": RING, "area": 20.5, "iscrowd": 0, "parent_id": None, "annotator": 1},
    {"id": 3, "image_id": 2, "category_id": 2, "segmentation": {"size": [8, 10], "counts": [0, 40, 40]}, "iscrowd": 1, "parent_id": 2},
]
INSTANCES = {"info": {}, "images": IMAGES, "categories": CATEGORIES, "annotations": ANNOTATIONS}
LVIS = {**INSTANCES, "images": [{**i, "neg_category_ids": [2], "not_exhaustive_category_ids": [1]} for i in IMAGES]}
RESULTS = [{k: v for k, v in a.items() if k != "id"} for a in ANNOTATIONS if isinstance(a["segmentation"], dict)]
SAM = [{"segmentation": CODED, "predicted_iou": 0.9, "stability_score": 1.0, "area": 9, "point_coords": [[1, 2]]}] * 2
SA1B = {"image": {"image_id": 7, "file_name": "sa_7.jpg", "width": 10, "height": 8}, "annotations": [{"id": 4, **SAM[0]}]}
SEGMENTS = [{"id": 5, "category_id": 1, "iscrowd": 0, "area": 9}]
PANOPTIC = {**INSTANCES, "annotations": [{"image_id": k, "file_name": "p.png", "segments_info": SEGMENTS} for k in (1, 2)]}
PAIRS = [{"file_name": "im/1.jpg", "caption": "one"}, {"image": "im/2.jpg", "captions": ["two", "three\n"], "status": "success"}]
CAPTIONS = {"images": IMAGES, "annotations": [{"id": k, "image_id": k, "caption": "c"} for k in (1, 2)]}
SPACE = {
    "format": "ovskit.labels/1", "name": "s", "version": 1, "background": 0, "ignore": [255], "templates": ["a {}"],
    "classes": [{"id": 0, "name": "ground", "synonyms": []}, {"id": 1, "name": "cat", "synonyms": ["kitten"]}],
}  # fmt: skip


def masks_stream() -> bytes:
    out = io.BytesIO()
    margin = {"grid": [2, 2], "at": [0, 0], "size": [2, 2], "step": 0.1, "values": "AAECAw=="}
    writer = MasksWriter(out, MasksHeader(root="r", categories=CATEGORIES, pg=({"id": "t", "tool": "t"},)))
    number = 0
    for k in (1, 2):
        masks = []
        for soft in (margin, {"grid": [2, 2], "box": [1, 1, 8, 6]}):
            number += 1
            parent = number - 1 if masks else None
            masks.append(Mask(number, k, rle.encode(SQUARE), 9, (2, 1, 3, 3), score=0.5, parent_id=parent, extra={"soft": soft}))
        writer.write(MaskSet(Image(k, f"{k}.jpg", 10, 8, 3), tuple(masks)))
    writer.finish()
    return out.getvalue()


def features() -> bytes:
    out = io.BytesIO()
    writer = FeatureWriter(out, FeatureHeader({"model": "m", "stride": 8}, (16, 16), "float16", "imgs"))
    for k in (1, 2):
        writer.write(FeatureMap(Image(k, f"{k}.jpg", 10, 8), np.ones((2, 2, 3), np.float16), np.ones(3, np.float16)))
    writer.finish()
    return out.getvalue()


def centroids(path: Path) -> bytes:
    save_centroids(
        path,
        {"masks": Centroids(np.eye(2, 3, dtype=np.float32), "cosine", 0.5, np.ones(2, np.int64))},
        {"method": "m", "model": {}, "pg": []},
    )
    return path.read_bytes()


def picture(kind: str, mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    exif = Picture.Exif()
    exif[274] = 6
    shape = (8, 10, 3) if mode == "RGB" else (8, 10)
    pixels = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    Picture.fromarray(pixels, mode).save(out, kind, **({"exif": exif} if mode == "RGB" else {}))
    return out.getvalue()


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("a/1.png", "2.jpg", "note.txt"):
            entry = tarfile.TarInfo(name)
            entry.size = 5
            archive.addfile(entry, io.BytesIO(b"12345"))
    return out.getvalue()


def read_masks(path: Path) -> None:
    for failures in (None, Failures(skip=True)):
        try:
            with MaskInputs([str(path)], failures) as inputs:
                for masks in inputs.sets():
                    height, width = masks.image.height, masks.image.width
                    if height * width > 10**6:
                        continue
                    painted_prediction(masks)
                    for mask in masks.masks:
                        soft = read_soft_margin(mask.extra, "x", height, width)
                        if isinstance(soft, SoftGrid):
                            soft = soft.margin_of(rle.decode(mask.rle), (0, 0, height, width), height, width)
                        if soft is not None:
                            soft.in_box((0, 0, height, width), height, width)
        except OvsError:
            pass


def read_truth(path: Path) -> None:
    for failures in (None, Failures(skip=True)):
        try:
            truth = open_ground_truth(str(path), segments=str(path.parent), failures=failures)
            for k in range(len(truth)):
                truth.load(k)
                truth.find(truth.images[k])
        except OvsError:
            pass


def read_sources(path: Path) -> None:
    for source in sources_from_coco(str(path)).items:
        source.read()


def read_features(path: Path) -> None:
    with path.open("rb") as stream:
        for _ in open_features(stream, "x")[1]:
            pass


def read_picture(path: Path) -> None:
    data = path.read_bytes()
    width, height = image_size(data, "x")
    if width * height < 10**6:
        assert decode_image(data, "x").shape[:2] == (height, width)
    with contextlib.suppress(OvsError):  # which a picture of colours is
        decode_ids(data, "x", max_pixels=10**6)


def read_tar(path: Path) -> None:
    for source in list_sources([str(path)]).items:
        source.read()


def pair_images(path: Path) -> None:
    folder = path.parent
    (folder / "im").mkdir(exist_ok=True)
    for k in (1, 2):
        (folder / "im" / f"{k}.jpg").touch()


def pairs_in_tar() -> bytes:
    out = io.BytesIO()
    members = {"a.jpg": b"1", "a.txt": b"one", "b.PNG": b"2", "b.json": as_json({"caption": "two", "captions": ["x"], "status": "success"})}
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def pairs_in_list(path: Path, data: bytes) -> bytes:
    pair_images(path)
    return data


def pairs_in_parquet(path: Path) -> bytes:
    arrow = pytest.importorskip("pyarrow", reason="no pyarrow: pip install 'ovskit[parquet]'")
    from pyarrow import parquet

    pair_images(path)
    out = io.BytesIO()
    parquet.write_table(arrow.table({"image_path": ["im/1.jpg", "im/2.jpg", None], "caption": ["one", None, "three"]}), out)
    return out.getvalue()


def read_pairs(path: Path) -> None:
    for failures in (Failures(skip=False), Failures(skip=True)):
        with contextlib.suppress(OvsError):
            found = PairSet([str(path)], failures=failures, index_folder=str(path.parent / "index"))
            whole = list(found.read())
            assert list(found.find([pair.key for pair in whole])) == whole
            assert all(pair.captions and all(text.strip() and text.encode() for text in pair.captions) for pair in whole)
            for pair in whole:
                with contextlib.suppress(OvsError):
                    pair.image.read()


def index_of_pairs(path: Path) -> bytes:
    folder = path.parent
    (folder / "t.tar").write_bytes(pairs_in_tar())
    read_pairs(folder / "t.tar")
    return next((folder / "index").iterdir()).read_bytes()


def read_index_of_pairs(path: Path) -> None:
    (place,) = (path.parent / "index").iterdir()
    place.write_bytes(path.read_bytes())
    found = PairSet([str(path.parent / "t.tar")], failures=Failures(skip=False), index_folder=str(place.parent))
    assert [(pair.key, pair.captions, pair.image.read()) for pair in found.read()] == [("t/a", ("one",), b"1"), ("t/b", ("two", "x"), b"2")]


def read_maps(path: Path) -> LabelMap:
    return open_label_folder(str(path.parent)).load(0)


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def lines(values: list[Any]) -> bytes:
    return b"\n".join(map(as_json, values))


# For each kind of file: its name, what is changed, and the reader.
KINDS: dict[str, tuple[str, Callable[[Path], bytes], Read]] = {
    "masks stream": ("m.json", lambda _: masks_stream(), read_masks),
    "instances": ("i.json", lambda _: as_json(INSTANCES), read_masks),
    "instances in lines": ("i.json", lambda _: json.dumps(INSTANCES, indent=1).encode(), read_masks),
    "results": ("r.json", lambda _: as_json(RESULTS), read_masks),
    "results in lines": ("r.jsonl", lambda _: lines(RESULTS), read_masks),
    "SAM": ("17.json", lambda _: as_json(SAM), read_masks),
    "SA-1B": ("sa.json", lambda _: as_json(SA1B), read_masks),
    "truth": ("i.json", lambda _: as_json(INSTANCES), read_truth),
    "LVIS": ("l.json", lambda _: as_json(LVIS), read_truth),
    "own truth": ("m.json", lambda _: masks_stream(), read_truth),
    "panoptic": ("p.json", lambda _: as_json(PANOPTIC), read_truth),
    "list of images": ("i.json", lambda _: as_json(INSTANCES), read_sources),
    "label space": ("s.json", lambda _: as_json(SPACE), lambda path: parse_label_space(path.read_bytes(), str(path))),
    "names": ("s.txt", lambda _: b"ground\n# no\ncat,kitten\n", lambda path: parse_label_space(path.read_bytes(), str(path))),
    "features": ("f.npz", lambda _: features(), read_features),
    "centroids": ("c.npz", centroids, lambda path: load_centroids(path)),
    "JPEG": ("p.jpg", lambda _: picture("JPEG"), read_picture),
    "PNG": ("p.png", lambda _: picture("PNG"), read_picture),
    "TIFF": ("p.tif", lambda _: picture("TIFF"), read_picture),
    "WebP": ("p.webp", lambda _: picture("WEBP"), read_picture),
    "label map": ("map.png", lambda _: picture("PNG", "L"), read_maps),
    "tar": ("t.tar", lambda _: tar(), read_tar),
    "pairs in a tar": ("t.tar", lambda _: pairs_in_tar(), read_pairs),
    "pairs in lines": ("p.jsonl", lambda path: pairs_in_list(path, lines(PAIRS)), read_pairs),
    "pairs of COCO": ("c.json", lambda path: pairs_in_list(path, as_json(CAPTIONS)), read_pairs),
    "pairs in a table": ("t.tsv", lambda path: pairs_in_list(path, b"one\tim/1.jpg\ntwo\thttp://h/x/2.jpg\n"), read_pairs),
    "pairs in a CSV file": (
        "t.csv",
        lambda path: pairs_in_list(path, b'caption,url\r\n"one, ""two""\n",http://h/x/1.jpg\r\n'),
        read_pairs,
    ),
    "pairs in Parquet": ("p.parquet", pairs_in_parquet, read_pairs),
    "index of pairs": ("i.pairs", index_of_pairs, read_index_of_pairs),
    "path list": ("p.txt", lambda _: b"\xef\xbb\xbfa.jpg\r\nb\n", lambda path: parse_path_list(path.read_bytes())),
}

ODD: list[Any] = [
    None, True, -1, 0, 1, 1.5, 1e308, 2**31, 2**63, 2**70, -(2**70), "", "x", "\x00", "\ud800", "../../x", "1",
    [], {}, [[]], [None], {"id": 1}, "9" * 400,
]  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a JSON value with each of its keys or indices."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def another_value(data: bytes, rng: np.random.Generator) -> bytes:
    """JSON with one value replaced, taken out or doubled; of lines, in one of them."""
    rows = data.split(b"\n")
    for k in rng.permutation(len(rows)).tolist():
        end = b"," if rows[k].endswith(b",") else b""
        try:
            value = json.loads(rows[k].removesuffix(b","))
        except ValueError:
            continue
        found = list(places(value))
        if not found:
            continue
        value = copy.deepcopy(value)  # parts may be one object
        container, key = list(places(value))[int(rng.integers(len(found)))]
        match int(rng.integers(4)):
            case 0:
                del container[key]
            case 1 if isinstance(container, list):
                container.insert(key, copy.deepcopy(container[key]))
            case _:
                container[key] = copy.deepcopy(ODD[int(rng.integers(len(ODD)))])
        rows[k] = json.dumps(value).encode("utf-8", "surrogatepass") + end
        return b"\n".join(rows)
    return data


def other_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed, taken out, put in or doubled, or the end cut off."""
    at, length = int(rng.integers(len(data) + 1)), int(rng.integers(1, 9))
    match int(rng.integers(6)):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + data[at + length :]
        case 2:
            return data[:at] + rng.bytes(length) + data[at:]
        case 3:
            return data[:at] + data[max(0, at - 40 * length) :]
        case 4:
            return data[:at] + bytes(length) + data[at + length :]
        case _:
            return data[:at] + rng.bytes(length) + data[at + length :]


def mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    rng = np.random.default_rng(seed)
    is_json = data.lstrip()[:1] in (b"{", b"[")
    for _ in range(count):
        changed = data
        for _ in range(int(rng.integers(1, 4))):
            change = another_value if is_json and rng.random() < 0.7 else other_bytes
            changed = change(changed, rng)
        yield changed


def check(folder: Path, kind: str, count: int) -> None:
    name, make, read = KINDS[kind]
    path = folder / name
    data = make(path)
    Picture.fromarray(np.stack([SQUARE * 5, SQUARE * 0, SQUARE * 0], axis=-1)).save(folder / "p.png") if kind == "panoptic" else None
    path.write_bytes(data)
    if kind != "list of images":  # whose images are not there
        read(path)  # as it is it can be read
    for k, changed in enumerate(mutations(data, count, len(data))):
        path.write_bytes(changed)
        try:
            read(path)
        except OvsError:
            pass
        except Exception as error:  # whatever is not ours is what is looked for
            (folder / "crashed").write_bytes(changed)
            raise AssertionError(f"{kind}: change {k} is in {folder / 'crashed'}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize("kind", KINDS)
def test_no_change_of_a_file_ends_in_a_crash(tmp_path: Path, kind: str) -> None:
    check(tmp_path, kind, 2000 // len(KINDS) + 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_thousand_changes(tmp_path: Path, kind: str) -> None:
    check(tmp_path, kind, 100_000 // len(KINDS) + 1)
