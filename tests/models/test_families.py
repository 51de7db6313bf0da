"""The table of families: short to import, true, and all that the rest of ovskit needs to know of a model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image as Pillow
from pycocotools import mask as coco_mask

from ovskit.core.models import families
from ovskit.core.models.backbones.interface import Backbone, BackboneSpec, Features, TextTower
from ovskit.core.models.backbones.names import ModelName
from ovskit.core.models.backbones.resize import resize_rgb
from ovskit.core.models.families import model_names, resolve_name
from ovskit.core.models.family import BackboneRequest, Family
from ovskit.core.models.registry import build_pyramid, load_backbone, load_text
from ovskit.core.records import Float, UInt8
from ovskit.core.runtime.errors import UsageError

CPU = torch.device("cpu")

SHORT_TIMM = [entry for entry in model_names() if entry.model.startswith("timm:") and not entry.name.startswith("timm:")]


def test_the_table_imports_no_model_library() -> None:
    code = "import sys, ovskit.core.models.families; assert not {'torch', 'timm', 'open_clip', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("entry", SHORT_TIMM, ids=lambda entry: entry.name)
def test_short_names_are_published_models_of_that_size(entry: object) -> None:
    name, model, description = entry.name, entry.model.removeprefix("timm:"), entry.description  # type: ignore[attr-defined]
    config = timm.models.get_pretrained_cfg(model)
    assert config is not None
    assert config.hf_hub_id == f"timm/{model}"
    with torch.device("meta"):
        network = timm.create_model(model, num_classes=0, depth=1)
    assert int(re.search(r"(\d+) channels", description)[1]) == network.embed_dim  # type: ignore[index]
    patch = re.search(r"(\d+)(plus)?(-reg)?$", name)
    assert patch is not None
    assert network.patch_embed.patch_size == (int(patch[1]),) * 2
    assert (network.num_prefix_tokens > 1) == ("-reg" in name or name.startswith("dinov3"))


def test_every_name_in_the_table_is_once_there_and_on_one_line() -> None:
    names = [entry.name for entry in model_names()]
    assert len(set(names)) == len(names)
    assert {"builtin", "handmade", "dino-vits8", "dinov2-vitg14-reg", "dinov3-vitl16"} <= set(names)
    assert {"clip:ARCH/TAG", "run:DIR", "timm:NAME"} <= set(names)
    assert all(entry.description and "\n" not in entry.description for entry in model_names())


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("builtin", "builtin-v1"),
        ("builtin-v1", "builtin-v1"),
        ("handmade", "handmade-v1"),
        ("handmade-v1", "handmade-v1"),
        ("dino-vitb8", "timm:vit_base_patch8_224.dino"),
        ("timm:anything.at_all", "timm:anything.at_all"),
        ("clip:ViT-B-16/openai", "clip:ViT-B-16/openai"),
        ("run:a/folder", "run:a/folder"),
    ],
)
def test_what_names_stand_for(name: str, model: str) -> None:
    assert resolve_name(name) == model


@pytest.mark.parametrize("name", ["", "dino", "Builtin", "timm:", "clip:", "run:", "vit_base_patch8_224.dino", "hf-hub:x/y", "a\nb"])
def test_unknown_names_list_the_valid_ones(name: str) -> None:
    with pytest.raises(UsageError, match="valid: builtin, handmade, dino-vits8") as caught:
        resolve_name(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "facets", "words", "size"),
    [
        ("builtin", False, False, 128),
        ("builtin-v1", False, False, 128),
        ("handmade", False, False, None),
        ("dino-vitb8", True, False, None),
        ("timm:anything.at_all", True, False, None),
        ("clip:ViT-B-16/openai", True, True, 224),
        ("clip:ViT-L-14-336/openai", True, True, 336),
        ("clip:nobody-has-this", True, True, None),
        ("run:of-nobody", True, True, None),
        ("of no family", True, False, None),
    ],
)
def test_what_a_model_states_of_itself(name: str, facets: bool, words: bool, size: int | None) -> None:
    assert (families.has_facets(name), families.has_words(name), families.image_size(name)) == (facets, words, size)


@pytest.mark.parametrize("name", ["builtin", "timm:test_vit", "timm:test_resnet", "handmade", "clip:ViT-B-16/openai", "run:of-nobody"])
def test_models_that_say_so_can_be_built_with_grouping_and_no_others(name: str) -> None:
    def build() -> torch.nn.Module:
        return build_pyramid(name, weights=None, pretrained=False, freeze=False, grouping=True)

    if families.has_grouping(name):
        _, vectors = build().eval().grouped(torch.zeros(1, 3, 32, 64, dtype=torch.uint8))
        assert vectors.shape[2:] == (8, 16)
    else:
        with pytest.raises(UsageError, match="does not say what belongs together.* take builtin, or kinds=0"):
            build()


def test_words_are_refused_to_models_without() -> None:
    with pytest.raises(UsageError, match="handmade knows no words: name clip:ARCH/TAG, such as clip:ViT-B-16/openai"):
        load_text(load_backbone("handmade", device=CPU).spec, device=CPU)


def test_what_a_family_states_is_not_in_a_streams_header() -> None:
    said = load_backbone("builtin", device=CPU).spec.to_json()
    assert list(said) == [
        "name", "model", "facet", "layer", "stride", "dim", "has_cls", "mean", "std", "interpolation", "weights_sha256", "counts", "local",
        "positions",
    ]  # fmt: skip


class Colour:
    """A model whose vector of an image is its mean colour."""

    device = CPU

    def __init__(self, name: str, model: str) -> None:
        self.spec = BackboneSpec(name, model, "key", -1, 4, 3, True, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear")
        self.sizes: set[tuple[int, int]] = set()

    def prepare(self, image: UInt8, height: int, width: int) -> torch.Tensor:
        self.sizes.add((height, width))
        return resize_rgb(image, height, width, "bilinear")

    def extract(self, batch: torch.Tensor, *, cls: bool = False, patch: bool = True) -> Features:
        return Features(torch.empty(len(batch), 0, 0, 3), batch.float().mean(dim=(2, 3)))


class ColourWords:
    """Its words: a prompt is the colours that it names."""

    scale = 100.0

    def embed(self, prompts: Sequence[str]) -> Float:
        rows = np.array([[colour in prompt for colour in ("red", "green", "blue")] for prompt in prompts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def colour(monkeypatch: pytest.MonkeyPatch) -> list[Colour]:
    """A family of a model of its own, ``colour``, that knows words; and the extractors that were opened."""
    opened: list[Colour] = []

    def load(request: BackboneRequest) -> Backbone:
        opened.append(Colour(request.name, request.model))
        return opened[-1]

    def text(spec: BackboneSpec, weights: Path | None, device: torch.device) -> TextTower:
        assert (spec.model, weights, device) == ("colour-v1", None, CPU)
        return ColourWords()

    family = Family(
        names=(ModelName("colour", "colour-v1", "the mean colour of an image"),),
        load=load, text=text, image_size=lambda model: 24, has_facets=False,
    )  # fmt: skip
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, family))
    return opened


def label(*arguments: object) -> int:
    from ovskit.cli.label import app

    return int(app.click_command().main(list(map(str, arguments)), prog_name="ovs-label", standalone_mode=False) or 0)


def test_a_family_of_ones_own_names_masks(colour: list[Colour], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    boxes = {1: (0, 20), 2: (20, 40), 3: (40, 60)}
    annotations = []
    for number, (left, right) in boxes.items():
        pixels[:, left:right, {1: 2, 2: 0, 3: 1}[number]] = 200  # blue, red, green
        inside = np.zeros((40, 60), np.uint8, order="F")
        inside[5:35, left + 5 : right - 5] = 1
        outline = coco_mask.encode(inside)
        bbox = [float(side) for side in coco_mask.toBbox(outline)]
        shape = {"size": [40, 60], "counts": outline["counts"].decode()}
        annotations.append(
            {"id": number, "image_id": 1, "category_id": 1, "segmentation": shape, "bbox": bbox, "area": 300, "iscrowd": 0, "score": 0.5}
        )
    Pillow.fromarray(pixels).save(tmp_path / "a.png")
    images = [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}]
    (tmp_path / "masks.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))
    begin = ("--names", "red,green,blue", "--root", tmp_path, "--device", "cpu", tmp_path / "masks.json", "-o", tmp_path / "named.json")
    assert label("--model", "colour", *begin) == 0
    found = json.loads((tmp_path / "named.json").read_text())
    assert [each["category_id"] for each in found["annotations"]] == [2, 0, 1]
    assert colour[0].sizes == {(24, 24)}
    assert label("--model", "handmade", *begin) == 2
    known = "clip:ARCH/TAG, such as clip:ViT-B-16/openai or run:DIR, such as run:towers or colour"
    assert f"handmade knows none: give --model {known}" in capfd.readouterr().err


def test_a_family_of_ones_own_is_in_the_table(colour: list[Colour]) -> None:
    assert [entry.name for entry in model_names()][-4:] == ["colour", "clip:ARCH/TAG", "run:DIR", "timm:NAME"]
    assert resolve_name("colour") == resolve_name("colour-v1") == "colour-v1"
    with pytest.raises(UsageError, match=re.escape("unknown model 'color' (did you mean colour?)")):
        resolve_name("color")
    assert load_backbone("colour", device=CPU) is colour[0]
