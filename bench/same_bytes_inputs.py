"""What the runs of bench/same_bytes.py read: photographs of ``$OVSKIT_TEST_DATA`` made small, scenes, ground truths, random weights.

All of it is a function of the photographs and of fixed seeds. None of it is written by ovskit, whose bytes are what is to be compared.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Picture

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.scenes import Faults, make_scene, pseudo_labels

DATA = Path(os.environ.get("OVSKIT_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SIDE = 256
SCENES, SCENE_SIDE = 6, 64

SETTINGS = """workers = 1

[extract]
size = 64
model = "handmade"

[cluster]
counts = "20,10"

[refine]
method = "guided"
set = {guided = {radius = 8}}

[train.backbone]
steps = 2
batch = 2
set = ["crop=64", "shorter_side=96"]
"""


def write_inputs(folder: Path, photographs: int) -> None:
    """Everything, into ``folder``. Ends the process where the photographs are not there."""
    source, voc = DATA / "coco_entities" / "entities_dev.json", DATA / "voc2012"
    for path in (source, voc):
        if not path.exists():
            sys.exit(f"{path} is not there: set OVSKIT_TEST_DATA to the folder that has coco_entities and voc2012")
    document = json.loads(source.read_text())
    images = document["images"][:photographs]
    names = _photographs(folder, source.parent, images)
    _odd(folder, folder / "photos" / names[0])
    _arrays(folder, names)
    _pairs(folder, names)
    _truths(folder / "truth", document, images, names)
    _voc(folder, voc, photographs)
    _scenes(folder / "scenes")
    _weights(folder / "weights")
    (folder / "settings.toml").write_text(SETTINGS)


def _fit(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _photographs(folder: Path, root: Path, images: list[dict[str, Any]]) -> list[str]:
    """``photos``, the same as a tar, and a list of some; the files' names."""
    (folder / "photos").mkdir(parents=True)
    names = [Path(one["file_name"]).name for one in images]
    for one, name in zip(images, names, strict=True):
        with Picture.open(root / one["file_name"]) as picture:
            picture.convert("RGB").resize(_fit(*picture.size), Picture.Resampling.LANCZOS).save(folder / "photos" / name, quality=95)
    with tarfile.open(folder / "photos.tar", "w") as tar:
        for name in names:
            data = (folder / "photos" / name).read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    (folder / "list.nul").write_bytes(b"".join(f"photos/{name}\0".encode() for name in names[:3]))
    return names


def _arrays(folder: Path, names: list[str]) -> None:
    """Features of another program: ``arrays.npz``, grids, and ``rows.npz``, rows with a CLS, one for each photograph."""
    rng = np.random.default_rng(0)
    grids = {name: rng.standard_normal((12, 16, 8)).astype(np.float32) for name in names}
    np.savez_compressed(folder / "arrays.npz", **grids)  # type: ignore[arg-type]
    np.savez(folder / "rows.npz", **{name: np.concatenate([grid[0, :1], grid.reshape(-1, 8)]) for name, grid in grids.items()})  # type: ignore[arg-type]


def _pairs(folder: Path, names: list[str]) -> None:
    """Captions of the photographs that are not theirs, ``pairs.jsonl``; six terms, and rows of them as wide as the built-in
    model's features."""
    terms = ("bus", "cat", "dog", "grass", "sky", "tree")
    rng = np.random.default_rng(0)
    said = [" and ".join(rng.choice(terms, 2, replace=False)) for _ in names]
    (folder / "pairs.jsonl").write_text(
        "".join(json.dumps({"file_name": name, "caption": f"two {words}s"}) + "\n" for name, words in zip(names, said, strict=True))
    )
    (folder / "terms.txt").write_text("\n".join(terms) + "\n")
    np.savez(folder / "words.npz", names=np.array(terms), rows=rng.standard_normal((len(terms), 64)))


def _odd(folder: Path, photograph: Path) -> None:
    """One that EXIF turns, a gray one, one with an alpha channel, and half a file."""
    (folder / "odd").mkdir()
    with Picture.open(photograph) as opened:
        picture = opened.convert("RGB")
    exif = Picture.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    picture.save(folder / "odd" / "turned.jpg", quality=95, exif=exif)
    picture.convert("L").save(folder / "odd" / "gray.png")
    picture.convert("RGBA").save(folder / "odd" / "alpha.png")
    (folder / "odd" / "broken.jpg").write_bytes(photograph.read_bytes()[:2000])


def _rle(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed form of a mask (h, w) bool."""
    from pycocotools import mask as coco

    found = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(found["size"]), "counts": found["counts"].decode("ascii")}


def _annotation(number: int, image: int, mask: np.ndarray, **more: Any) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    return {
        "id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "area": int(mask.sum()), "bbox": [float(x) for x in box],
        "segmentation": _rle(mask), **more,
    }  # fmt: skip


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _truths(folder: Path, document: dict[str, Any], images: list[dict[str, Any]], names: list[str]) -> None:
    """The photographs' ground truth as COCO's and LVIS', and results that are near it."""
    from pycocotools import mask as coco

    rng = np.random.default_rng(0)
    entries, annotations, results, lvis = [], [], [], []
    categories = [{"id": one["id"], "name": one["name"], "frequency": "rcf"[one["id"] % 3]} for one in document["categories"]]
    for image, name in zip(images, names, strict=True):
        width, height = _fit(image["width"], image["height"])
        entries.append({"id": image["id"], "file_name": name, "width": width, "height": height})
        own = []
        for one in document["annotations"]:
            if one["image_id"] != image["id"]:
                continue
            large = Picture.fromarray(coco.decode(one["segmentation"]))
            mask = np.asarray(large.resize((width, height), Picture.Resampling.NEAREST)) > 0
            if not mask.any():
                continue
            category = one["category_id"]
            own.append(category)
            annotations.append(_annotation(one["id"], image["id"], mask, category_id=category, iscrowd=one["iscrowd"]))
            moved = np.roll(mask, tuple(rng.integers(-4, 5, 2)), (0, 1))
            said = categories[0]["id"] if rng.random() < 0.2 else category
            results.append({"image_id": image["id"], "category_id": said, "segmentation": _rle(moved), "score": float(rng.random())})
        absent = [one["id"] for one in categories if one["id"] not in own][:5]
        url = {"coco_url": f"http://images.example.org/photos/{name}"}
        lvis.append({**entries[-1], **url, "neg_category_ids": absent, "not_exhaustive_category_ids": sorted(set(own))[:1]})
    for one in lvis:
        del one["file_name"]
    _write(folder / "instances.json", {"images": entries, "annotations": annotations, "categories": categories})
    _write(folder / "lvis.json", {"images": lvis, "annotations": annotations, "categories": categories})
    _write(folder / "results.json", results)


def _voc(folder: Path, source: Path, photographs: int) -> None:
    """VOC's own folder made small; ``maps``, which are its label maps moved; and as many label maps as each other layout has them."""
    listed = (source / "ImageSets" / "Segmentation" / "val.txt").read_text().split()[:photographs]
    for place in ("voc/JPEGImages", "voc/SegmentationClass", "voc/ImageSets/Segmentation", "maps", "layouts/plain"):
        (folder / place).mkdir(parents=True)
    (folder / "voc/ImageSets/Segmentation/val.txt").write_text("".join(f"{name}\n" for name in listed))
    for name in listed:
        with Picture.open(source / "JPEGImages" / f"{name}.jpg") as picture:
            size = _fit(*picture.size)
            small = picture.convert("RGB").resize(size, Picture.Resampling.LANCZOS)
        small.save(folder / "voc/JPEGImages" / f"{name}.jpg", quality=95)
        with Picture.open(source / "SegmentationClass" / f"{name}.png") as picture:
            labels = picture.resize(size, Picture.Resampling.NEAREST)
        labels.save(folder / "voc/SegmentationClass" / f"{name}.png")
        ids = np.array(labels)
        moved = np.roll(np.where(ids == 255, 0, ids), (5, 3), (0, 1))
        Picture.fromarray(moved).save(folder / "maps" / f"{name}.png")
        Picture.fromarray((np.asarray(small.convert("L")) // 52).astype(np.uint8)).save(folder / "layouts/plain" / f"{name}.png")
        few = np.where(ids == 255, 255, ids % 11).astype(np.uint8)
        for path, values in {
            f"context-59/SegmentationClassContext/{name}.png": few,
            f"context-60/SegmentationClassContext/{name}.png": few,
            f"coco-object/val2017/{name}_instanceTrainIds.png": few,
            f"coco-stuff/val2017/{name}_labelTrainIds.png": few,
            f"ade/validation/{name}.png": np.where(few == 255, 0, few).astype(np.uint8),
            f"cityscapes/gtFine/val/{name}_gtFine_labelTrainIds.png": few,
            f"imagenet-s/validation-segmentation/{name}.png": _two_channels(np.where(few == 255, 1000, few.astype(np.int64))),
            f"camvid/labels/{name}.png": np.where(few == 255, 11, few).astype(np.uint8),
            f"binary/{name}.png": ((few > 0) * 255).astype(np.uint8),
        }.items():
            (folder / "layouts" / path).parent.mkdir(parents=True, exist_ok=True)
            Picture.fromarray(values).save(folder / "layouts" / path)


def _two_channels(ids: np.ndarray) -> np.ndarray:
    return np.stack([ids % 256, ids // 256, np.zeros_like(ids)], -1).astype(np.uint8)


def _scenes(folder: Path) -> None:
    """Scenes with their truth in every form, and pseudo-labels with parents (``pseudo``) and without (``flat``, ``few``)."""
    (folder / "images").mkdir(parents=True)
    (folder / "panoptic").mkdir()
    entries: list[dict[str, Any]] = []
    truth: list[dict[str, Any]] = []
    pseudo: list[dict[str, Any]] = []
    segments: list[dict[str, Any]] = []
    for number in range(1, SCENES + 1):
        scene = make_scene(number, SCENE_SIDE)
        entries.append({"id": number, "file_name": f"{number:05d}.png", "width": SCENE_SIDE, "height": SCENE_SIDE})
        Picture.fromarray(scene.pixels).save(folder / "images" / entries[-1]["file_name"])
        for into, (masks, parents) in ((truth, (scene.masks, scene.parents)), (pseudo, pseudo_labels(scene, number, Faults()))):
            first = len(into) + 1
            for k, mask in enumerate(masks):
                above = {} if parents[k] < 0 else {"parent_id": int(parents[k]) + first}
                score = {"score": 1 - k / 100} if into is pseudo else {}
                into.append(_annotation(first + k, number, mask, **score, **above))
        ids = np.zeros((SCENE_SIDE, SCENE_SIDE), np.int64)
        for k, mask in enumerate(scene.masks):
            ids[mask] = 1 + 300 * k  # more than one channel
        Picture.fromarray(_two_channels(ids)).save(folder / "panoptic" / f"{number:05d}.png")
        info = [{"id": int(k), "category_id": 1 + int(k) % 2, "iscrowd": 0} for k in np.unique(ids) if k]
        segments.append({"image_id": number, "file_name": f"{number:05d}.png", "segments_info": info})
        own = [one for one in truth if one["image_id"] == number]
        image = {"image_id": number, **{key: value for key, value in entries[-1].items() if key != "id"}}
        _write(folder / "sa1b" / f"sa_{number}.json", {"image": image, "annotations": own})
    categories = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]
    flat = [{key: value for key, value in one.items() if key != "parent_id"} for one in pseudo]
    several = [{**one, "annotator": 0} for one in truth] + [{**one, "id": one["id"] + len(truth), "annotator": 1} for one in flat]
    counted = [{**one, "num_annotators": 2} for one in entries]
    few = [one for one in flat if one["image_id"] <= 2]
    written = {"truth": truth, "pseudo": pseudo, "flat": flat, "few": few, "annotators": several, "panoptic": segments}
    for name, listed in written.items():
        images = {"few": entries[:2], "annotators": counted}.get(name, entries)
        _write(folder / f"{name}.json", {"images": images, "annotations": listed, "categories": categories})


def _weights(folder: Path) -> None:
    """Random weights: a ViT of timm, a whole CLIP that reads words, and CascadePSP where its package is installed."""
    import open_clip
    import timm
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    torch.manual_seed(0)
    made = {"vit": timm.create_model("test_vit", num_classes=0), "clip": open_clip.create_model("ViT-S-32-alt", pretrained_hf=False)}
    try:
        from segmentation_refinement.models.psp.pspnet import RefinementModule
    except ImportError:
        print("segmentation_refinement is not installed: refine/cascadepsp will say that it has no weights", file=sys.stderr)
    else:
        made["cascadepsp"] = network = RefinementModule().eval()
        with torch.no_grad():  # an answer with both classes in it
            network.final_21.weight.mul_(50)
            network.final_21.bias.sub_(network(torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64))["out_224"].median())
    for name, module in made.items():
        save_file({key: value.clone().contiguous() for key, value in module.state_dict().items()}, folder / f"{name}.safetensors")
