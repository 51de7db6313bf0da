"""Classification of whole images by a small random CLIP, against open_clip's own preprocessing, towers and arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from open_clip.transform import image_transform
from PIL import Image as Picture
from torchvision.transforms.functional import center_crop, resize, to_pil_image

from ovskit.core.formats.labels.spaces import LabelClass, LabelSpace
from ovskit.core.formats.photographs.sources import Source
from ovskit.core.models.backbones.interface import Backbone, Features
from ovskit.core.models.registry import load_backbone, load_text
from ovskit.core.models.words import Words, read_words
from ovskit.core.predict.classify import ClassifyOptions, centre_crop, classify
from ovskit.core.records import ImageLabels
from ovskit.core.runtime.errors import InputError
from ovskit.core.runtime.failures import Failures
from tests.label.conftest import Clip, Corners, clip_checkpoint  # noqa: F401  # the fixture

CPU = torch.device("cpu")
SPACE = LabelSpace(
    "pets", 1, (LabelClass(0, "background"), *(LabelClass(k, f"thing {k}", (f"object {k}",)) for k in range(1, 8))),
    ("a photo of a {}.", "art of the {}."), background=0,
)  # fmt: skip
SIZES = [(40, 31), (33, 90), (32, 32), (20, 17), (64, 200), (35, 32)]


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    random = np.random.default_rng(5)
    found = []
    for number, (height, width) in enumerate(SIZES, 1):
        coarse = Picture.fromarray(random.integers(0, 256, (5, 6, 3)).astype(np.uint8))
        coarse.resize((width, height), Picture.Resampling.BICUBIC).save(tmp_path / f"{number}.png")
        found.append(Source(number, f"{number}.png", str(tmp_path / f"{number}.png")))
    return found


@pytest.fixture
def small(clip_checkpoint: Clip) -> tuple[torch.nn.Module, Backbone, Words]:  # noqa: F811
    network, path = clip_checkpoint("ovskit-words")
    backbone = load_backbone("clip:ovskit-words", weights=path, device=CPU)
    return network, backbone, read_words(SPACE, load_text(backbone.spec, weights=path, device=CPU))


def run(sources: list[Source], backbone: Backbone, words: Words, options: ClassifyOptions) -> list[ImageLabels]:
    return list(classify(sources, backbone, words, options, Failures(skip=False)))


def test_it_is_what_open_clip_makes_of_the_same_images(sources: list[Source], small: tuple[torch.nn.Module, Backbone, Words]) -> None:
    """open_clip resizes the shorter side to the size of the crop itself."""
    network, backbone, words = small
    spec = backbone.spec
    found = run(sources, backbone, words, ClassifyOptions(top=7, shorter=32))
    transform = image_transform(32, is_train=False, mean=spec.mean, std=spec.std, interpolation=spec.interpolation)
    tokenizer = open_clip.get_tokenizer("ovskit-words")
    with torch.no_grad():
        batch = torch.stack([transform(Picture.open(source.path).convert("RGB")) for source in sources])
        images = network.encode_image(batch, normalize=True).double()
        texts = []
        for one in SPACE.classes[1:]:
            prompts = [[template.replace("{}", word) for template in SPACE.templates] for word in one.words]
            means = [network.encode_text(tokenizer(some), normalize=True).double().mean(dim=0) for some in prompts]
            texts.append(torch.stack([mean / mean.norm() for mean in means]))
        cosines = torch.stack([(images @ rows.T).max(dim=1).values for rows in texts], dim=1)
        chances = (network.logit_scale.exp().double() * cosines).softmax(dim=1).numpy()
    assert [(one.image.id, one.image.height, one.image.width) for one in found] == [(k, *size) for k, size in enumerate(SIZES, 1)]
    for one, chance in zip(found, chances, strict=True):
        assert {label.id: label.score for label in one.labels} == pytest.approx(dict(enumerate(chance, 1)), abs=2e-5)
        scores = [label.score for label in one.labels]
        assert scores == sorted(scores, reverse=True)
        assert [label.name for label in one.labels] == [f"thing {label.id}" for label in one.labels]


@given(height=st.integers(1, 60), width=st.integers(1, 60), size=st.integers(1, 20), extra=st.integers(0, 6))
def test_the_crop_is_that_of_torchvision(height: int, width: int, size: int, extra: int) -> None:
    pixels = np.random.default_rng(height * 61 + width).integers(0, 256, (height, width, 3)).astype(np.uint8)
    found = centre_crop(pixels, size + extra, size, replace(Corners.spec, interpolation="bilinear"))
    expected = center_crop(resize(to_pil_image(pixels), [size + extra]), [size, size])
    np.testing.assert_array_equal(found, np.asarray(expected))


def test_the_sides_are_256_to_224_unless_one_says_otherwise(small: tuple[torch.nn.Module, Backbone, Words]) -> None:
    spec = small[1].spec
    assert ClassifyOptions().sides(spec) == (37, 32)  # 36.57
    assert ClassifyOptions(size=224).sides(spec) == (256, 224)
    assert ClassifyOptions(size=230, shorter=100).sides(spec) == (224, 224)
    assert ClassifyOptions().sides(replace(spec, model="corners")) == (256, 224)


def test_neither_batches_nor_workers_change_a_result(sources: list[Source], small: tuple[torch.nn.Module, Backbone, Words]) -> None:
    _, backbone, words = small
    alone = run(sources, backbone, words, ClassifyOptions())
    assert [len(one.labels) for one in alone] == [5] * 6
    for batch_size, workers in ((2, 1), (4, 3), (100, 2)):
        assert run(sources, backbone, words, ClassifyOptions(batch_size=batch_size, workers=workers)) == alone
    assert run(sources[3:], backbone, words, ClassifyOptions()) == alone[3:]


def test_an_image_that_cannot_be_read_is_passed_over(sources: list[Source], small: tuple[torch.nn.Module, Backbone, Words]) -> None:
    _, backbone, words = small
    Path(sources[1].path).write_bytes(b"no picture")
    Path(sources[4].path).unlink()
    failures = Failures(skip=True)
    found = list(classify(sources, backbone, words, ClassifyOptions(batch_size=3), failures))
    assert [one.image.id for one in found] == [1, 3, 4, 6]
    assert failures.count == 2
    with pytest.raises(InputError, match=r"2\.png"):
        run(sources, backbone, words, ClassifyOptions())


def test_a_vector_that_is_not_finite_is_said(sources: list[Source], small: tuple[torch.nn.Module, Backbone, Words]) -> None:
    class Broken(Corners):
        def extract(self, batch: torch.Tensor, *, cls: bool = False, patch: bool = True) -> Features:
            return Features(torch.empty(len(batch), 0, 0, 12), torch.full((len(batch), 12), float("nan")))

    with pytest.raises(InputError, match=r"1\.png: its vector is not finite"):
        run(sources, Broken(), small[2], ClassifyOptions(size=8))
