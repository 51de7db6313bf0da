"""ovs-predict --names, --classify and --sweep as users run them, by small towers with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from tests.towers import tiny_run

from .conftest import Run, one_line

NAMES = ("--names", "voc-21", "--templates", "plain", "--short-side", 64, "--window", 64, "--stride", 32)
METHODS = ("plain", "clear", "sclip", "naclip", "proxy", "corr")


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("run") / "vit", "test_vit")


@pytest.fixture(scope="module")
def convolutional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("run") / "conv", "test_convnext")


@pytest.fixture(scope="module")
def few(features: Path, ovs: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks of the five scenes."""
    path = tmp_path_factory.mktemp("few") / "few.json"
    done = ovs("ovs-cluster", features, *"--counts 12,5 --no-local -o".split(), path)
    assert done.returncode == 0, done.stderr
    return path


def document(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data)
    return found


def body(data: bytes) -> bytes:
    """All but the header, which has the provenance."""
    return data.split(b"\n", 1)[1]


def method_arguments(method: str) -> tuple[str, ...]:
    return ("--method", method, *(("--proxy", "handmade") if method in ("proxy", "corr") else ()))


@pytest.mark.parametrize("method", METHODS)
def test_every_pixel_has_a_name(ovs: Run, vit: Path, images: Path, method: str) -> None:
    done = ovs("ovs-predict", "--model", f"run:{vit}", *method_arguments(method), *NAMES, "--min-prob", 0, images)
    assert (done.returncode, done.stderr) == (0, b"")
    found = document(done.stdout)
    assert found["info"]["ovskit"]["labels"]["name"] == "voc-21"
    assert [one["name"] for one in found["categories"]][:2] == ["background", "aeroplane"]
    assert len(found["images"]) == 5
    for image in found["images"]:
        of_image = [one for one in found["annotations"] if one["image_id"] == image["id"]]
        assert sum(one["area"] for one in of_image) == image["width"] * image["height"]
        assert len({one["category_id"] for one in of_image}) == len(of_image)
        assert all(0 < one["score"] <= 1 for one in of_image)


@pytest.mark.parametrize("method", ["plain", "proxy", "corr"])
def test_convolutional_towers_name_as_well(ovs: Run, convolutional: Path, images: Path, method: str) -> None:
    done = ovs("ovs-predict", "--model", f"run:{convolutional}", *method_arguments(method), *NAMES, images)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("method", ["naclip", "corr"])
def test_batches_workers_and_shards_do_not_matter(ovs: Run, vit: Path, images: Path, few: Path, tmp_path: Path, method: str) -> None:
    common = ("--model", f"run:{vit}", *method_arguments(method), *NAMES, "--masks", few, "--no-pg", images)
    whole = ovs("ovs-predict", *common)
    assert whole.returncode == 0, whole.stderr
    assert ovs("ovs-predict", *common, "--batch-size", 3, "-j", 1).stdout == whole.stdout
    assert ovs("ovs-predict", *common, "--batch-size", 50, "-j", 3).stdout == whole.stdout
    for k in range(2):
        done = ovs("ovs-predict", *common, "--shard", f"{k}/2", "-o", tmp_path / f"{k}.json")
        assert done.returncode == 0, done.stderr
    joined = ovs("ovs-hier", tmp_path / "0.json", tmp_path / "1.json", "--no-pg")
    assert joined.returncode == 0, joined.stderr
    areas = [
        [(one["image_id"], one["category_id"], one["area"]) for one in document(data)["annotations"]]
        for data in (joined.stdout, whole.stdout)
    ]
    assert sorted(areas[0]) == sorted(areas[1])


def test_label_maps_say_the_same_and_score(ovs: Run, vit: Path, images: Path, tmp_path: Path) -> None:
    named = ovs("ovs-predict", "--model", f"run:{vit}", *NAMES, "--maps", tmp_path / "maps", images, "-o", tmp_path / "named.json")
    assert (named.returncode, named.stderr) == (0, b"")
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == [f"scene-{k}.png" for k in range(5)]
    result = ovs("ovs-eval", "--metric", "miou", "--names", "voc-21", "--gt", tmp_path / "maps", tmp_path / "named.json", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["metrics"]["mIoU"] == 1
    with Picture.open(tmp_path / "maps" / "scene-0.png") as picture:
        counted = dict(zip(*(each.tolist() for each in np.unique(np.array(picture), return_counts=True)), strict=True))
    found = document((tmp_path / "named.json").read_bytes())
    assert counted == {one["category_id"]: one["area"] for one in found["annotations"] if one["image_id"] == 1}


def test_masks_take_the_most_frequent_name(ovs: Run, vit: Path, images: Path, few: Path) -> None:
    arguments = ("--model", f"run:{vit}", "--method", "plain", *NAMES, "--min-prob", 0, images)
    corrected = ovs("ovs-predict", *arguments, "--masks", "-", stdin=few.read_bytes())
    assert (corrected.returncode, corrected.stderr) == (0, b"")
    plain = ovs("ovs-predict", *arguments)
    same = ovs("ovs-predict", *arguments, "--masks", few, "--no-correct")
    assert body(same.stdout) == body(plain.stdout) != body(corrected.stdout)
    entry = document(corrected.stdout)["info"]["ovskit"]["pg"]
    assert [each["tool"] for each in entry] == ["ovs-extract", "ovs-cluster", "ovs-predict"]


def test_given_masks_are_named_as_ovs_label_names_them(ovs: Run, vit: Path, images: Path, few: Path) -> None:
    done = ovs("ovs-predict", "--model", f"run:{vit}", *NAMES, "--masks", few, "--as", "masks", "--top-k", 3, images, "--method", "plain")
    assert (done.returncode, done.stderr) == (0, b"")
    before, after = document(few.read_bytes()), document(done.stdout)
    for old, new in zip(before["annotations"], after["annotations"], strict=True):
        assert old["segmentation"] == new["segmentation"]
        assert old["score"] == new["score"]
        assert new["category_id"] in {0, new["labels"][0]["id"]}
        assert new["labels"][0]["score"] == new["label_score"]
        assert len(new["labels"]) == 3


def test_words_for_the_background_take_part(ovs: Run, vit: Path, images: Path, tmp_path: Path) -> None:
    def background(*arguments: object) -> int:
        done = ovs("ovs-predict", "--model", f"run:{vit}", *NAMES, "--min-prob", 0, *arguments, images)
        assert (done.returncode, done.stderr) == (0, b"")
        return sum(one["area"] for one in document(done.stdout)["annotations"] if one["category_id"] == 0)

    (tmp_path / "words.txt").write_text("# of things\nsky\n\ndog\n")
    assert background("--background-words", "none") == 0
    assert background("--background-words", "usual") == background() > 0
    # A word of a class stays that class's.
    assert background("--background-words", tmp_path / "words.txt") == background("--background-words", "sky")
    assert background("--background-words", "none", "--min-prob", 1) == sum(120 * 96 for _ in range(5))


def test_whole_images_are_named_and_scored(ovs: Run, vit: Path, images: Path, tmp_path: Path) -> None:
    named = ovs(
        "ovs-predict", "--classify", "--model", f"run:{vit}", "--names", "cat,dog,sky", "--top-k", 2, images, "-o", tmp_path / "c.jsonl"
    )
    assert (named.returncode, named.stderr) == (0, b"")
    lines = [json.loads(line) for line in (tmp_path / "c.jsonl").read_bytes().splitlines()]
    assert [line["file_name"] for line in lines[1:-1]] == [f"scene-{k}.png" for k in range(5)]
    assert all(len(line["labels"]) == 2 for line in lines[1:-1])
    truth = "".join(json.dumps({"file_name": line["file_name"], "label": line["labels"][0]["name"]}) + "\n" for line in lines[1:-1])
    (tmp_path / "gt.jsonl").write_text(truth)
    scored = ovs("ovs-eval", "--metric", "accuracy", "--gt", tmp_path / "gt.jsonl", tmp_path / "c.jsonl", "--json")
    assert json.loads(scored.stdout)["metrics"]["top1"] == 1
    again = ovs(
        "ovs-predict",
        "--classify",
        "--model",
        f"run:{vit}",
        "--names",
        "cat,dog,sky",
        "--top-k",
        2,
        images,
        "-o",
        tmp_path / "c.jsonl",
        "--skip-existing",
    )
    assert again.returncode == 0, again.stderr


def test_the_threshold_is_found_on_photographs_with_ground_truth(ovs: Run, vit: Path, images: Path, tmp_path: Path) -> None:
    common = ("--model", f"run:{vit}", *NAMES, "--background-words", "none")
    made = ovs("ovs-predict", *common, "--min-prob", 0.09, "--maps", tmp_path / "maps", images, "-o", tmp_path / "n.json")
    assert (made.returncode, made.stderr) == (0, b"")
    swept = ovs("ovs-predict", *common, "--sweep", tmp_path / "maps", images, "-o", tmp_path / "sweep.json")
    assert swept.returncode == 0, swept.stderr
    assert b"the best --min-prob is 0.09: mIoU 100.00 %" in swept.stderr
    found = json.loads((tmp_path / "sweep.json").read_bytes())
    assert (found["images"], found["best"], found["mIoU"]) == (5, 0.09, 1)
    assert len(found["thresholds"]) == 100


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "--names"),
        (("--names", ""), 2, "unknown label space"),
        (("--names", "cat,dog,Cat"), 2, "already the name of class 0"),
        (("--names", "names.txt"), 65, "names no class"),
        (("--names", "cat,dog", "--method", "corr", "--masks", "others.json", "--proxy", "handmade"), 65, "masks of other photographs"),
        (("--names", "cat,dog", "--method", "plain", "--masks", "larger.json"), 65, "are they of this picture?"),
        (("--names", "cat,dog", "--masks", "gone.json"), 66, "gone.json"),
        (("--names", "cat,dog", "--as", "masks"), 2, "--masks"),
        (("--names", "cat,dog", "--top-k", "2"), 2, "--as masks"),
        (("--names", "cat,dog", "--background-words", "sky"), 2, "has no background"),
        (("--names", "cat,dog", "--sweep", "maps"), 2, "has no background"),
        (("--names", "cat,dog", "--window", "4"), 2, "from 8 to 16384 pixels, or whole"),
        (("--names", "cat,dog", "--templates", "seven"), 2, "unknown templates"),
        (("--names", "cat,dog", "--method", "best"), 2, "choose from segmenter, plain"),
        (("--names", "cat,dog", "--hier", "head"), 2, "it is an option of segmenter"),
        (("--names", "cat,dog", "--method", "plain", "--proxy", "builtin"), 2, "it is an option of proxy and corr"),
        (("--names", "cat,dog", "--proxy", "dino-vitb9"), 2, "did you mean"),
        (("--names", "cat,dog", "--maps", "names.txt"), 2, "that is a file"),
        (("--names", "cat,dog", "--classify", "--method", "plain"), 2, "leave one of them out"),
        (("--names", "cat,dog", "--method", "plain", "--checkpoint", "run"), 2, "give one of the two"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    ovs: Run, vit: Path, images: Path, few: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / "names.txt").write_text("# nothing\n")
    (tmp_path / "others.json").write_bytes(few.read_bytes().replace(b"scene-", b"other-"))
    smaller = document(few.read_bytes())
    for k, image in enumerate(smaller["images"]):
        Picture.new("RGB", (12, 10)).save(tmp_path / f"scene-{k}.png")
        assert image["file_name"] == f"scene-{k}.png"
    (tmp_path / "larger.json").write_bytes(few.read_bytes())
    shown = tmp_path if "larger.json" in arguments else images
    inputs = sorted(shown.glob("*.png"))
    done = ovs("ovs-predict", "--model", f"run:{vit}", *arguments, *inputs, "--root", shown, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, b""), done.stderr
    one_line(done, said)


@pytest.mark.parametrize(
    ("model", "arguments", "code", "said"),
    [
        ("builtin", (), 2, "knows no words"),
        ("run:gone", (), 66, "gone"),
        ("clip:RN50/openai", (), 2, "RN50"),
        ("clip:ViT-B-16-SigLIP/webli", (), 2, "ViT-B-16-SigLIP"),
        ("clip:ViT-B-16/openai", (), 69, "open_clip_model.safetensors of timm/vit_base_patch16_clip_224.openai"),
        ("clip:ViT-B-16/openai", ("--classify",), 69, "--weights"),
    ],
)
def test_models_that_cannot_are_refused_by_name(
    ovs: Run, images: Path, model: str, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = ovs("ovs-predict", "--model", model, "--names", "cat,dog", *arguments, images)
    assert (done.returncode, done.stdout) == (code, b"")
    one_line(done, said)


def test_convolutional_towers_have_no_attention_to_change(ovs: Run, convolutional: Path, images: Path) -> None:
    done = ovs("ovs-predict", "--model", f"run:{convolutional}", "--method", "clear", "--names", "cat,dog", images)
    assert done.returncode == 2
    one_line(done, "without attention to change")


def test_a_proxy_of_another_stride_and_windows_larger_than_the_image(ovs: Run, vit: Path, images: Path) -> None:
    done = ovs(
        "ovs-predict",
        "--model",
        f"run:{vit}",
        "--names",
        "cat,dog,sky",
        "--templates",
        "plain",
        "--proxy",
        "handmade",
        "--short-side",
        50,
        "--window",
        500,
        images,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_one_image_beyond_all_memory_does_not_stop_the_others(ovs: Run, vit: Path, images: Path, tmp_path: Path) -> None:
    Picture.new("RGB", (3000, 1)).save(tmp_path / "line.png")
    inputs = (tmp_path / "line.png", images / "scene-0.png")
    done = ovs("ovs-predict", "--model", f"run:{vit}", "--names", "cat,dog", "--on-error", "skip", *inputs)
    assert done.returncode == 3, done.stderr
    assert b"line.png: 3000" in done.stderr
    assert len(document(done.stdout)["images"]) == 1


@pytest.mark.parametrize("flag", ["--resume", "--skip-existing"])
def test_a_report_is_not_gone_on_with(ovs: Run, vit: Path, images: Path, tmp_path: Path, flag: str) -> None:
    (tmp_path / "maps").mkdir()
    for k in range(5):
        Picture.new("L", (120, 96)).save(tmp_path / "maps" / f"scene-{k}.png")
    arguments = (*NAMES, "--sweep", tmp_path / "maps", images, "-o", tmp_path / "s.json", flag)
    done = ovs("ovs-predict", "--model", f"run:{vit}", *arguments)
    assert done.returncode == 2
    one_line(done, flag, "leave it out")


def test_masks_and_a_list_of_images_cannot_both_come_from_stdin(ovs: Run, vit: Path, few: Path) -> None:
    done = ovs("ovs-predict", "--model", f"run:{vit}", "--names", "cat,dog", "--masks", "-", stdin=few.read_bytes())
    assert done.returncode == 2
    one_line(done, "name them as arguments")


def test_from_photographs_to_a_page_by_pipes(shell: Run, vit: Path, images: Path, tmp_path: Path) -> None:
    line = (
        f"ovs-extract -q {images} | ovs-cluster -q --no-local | ovs-predict -q --model run:{vit} --method corr --proxy builtin --masks - "
        f"--names cat,dog,sky --short-side 64 --window 64 {images} | ovs-show -q --root {images} -o {tmp_path / 'page.html'}"
    )
    done = shell(line)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"sky" in (tmp_path / "page.html").read_bytes()


def test_an_interrupted_run_goes_on(ovs: Run, vit: Path, images: Path, tmp_path: Path) -> None:
    common = ("--model", f"run:{vit}", *NAMES, images)
    whole = ovs("ovs-predict", *common, "-o", tmp_path / "whole.json")
    assert whole.returncode == 0, whole.stderr
    lines = (tmp_path / "whole.json").read_bytes().splitlines(keepends=True)
    (tmp_path / "again.json.part").write_bytes(b"".join(lines[: len(lines) // 2]).replace(b"whole.json", b"again.json"))
    again = ovs("ovs-predict", *common, "--resume", "-o", tmp_path / "again.json")
    assert again.returncode == 0, again.stderr
    assert body((tmp_path / "again.json").read_bytes()) == body((tmp_path / "whole.json").read_bytes())
