"""The built-in extractor: the same bytes however it is run, equal steps to a plain composition, and weights that are checked."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from ovskit.core.cluster.merge import merge_sequence, partition
from ovskit.core.models.backbones.interface import BackboneSpec
from ovskit.core.models.builtin import extractor
from ovskit.core.models.builtin.extractor import BuiltinBackbone, Composition, load_builtin
from ovskit.core.models.builtin.network import Grouping
from ovskit.core.models.builtin.weights import read_about, save_network
from ovskit.core.models.registry import load_backbone, reload_backbone
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError
from tests.models.conftest import threads
from tests.reference.builtin import compose

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def backbone() -> BuiltinBackbone:
    return load_builtin("builtin", device=CPU)


def photograph(height: int, width: int, turn: int = 0) -> torch.Tensor:
    resized = np.asarray(Image.fromarray(np.rot90(astronaut(), turn)).resize((width, height), Image.Resampling.BILINEAR))
    return torch.from_numpy(resized.transpose(2, 0, 1).copy())


def test_shapes_and_specification(backbone: BuiltinBackbone) -> None:
    found = backbone.extract(torch.stack([photograph(96, 160)] * 2), cls=True)
    assert found.patch.shape == (2, 12, 20, 64)
    assert found.patch.dtype == torch.float32
    assert found.cls is not None
    assert found.cls.shape[0] == 2
    assert found.cls.dtype == torch.float32
    assert torch.isfinite(found.patch).all()
    assert torch.isfinite(found.cls).all()
    assert backbone.spec.has_cls
    assert backbone.spec.stride == 8
    assert backbone.spec.dim == 64
    assert BackboneSpec.from_json(backbone.spec.to_json()) == backbone.spec
    assert list(backbone.spec.counts or ()) == sorted(set(backbone.spec.counts or ()), reverse=True)


@pytest.mark.parametrize("size", [(8, 8), (8, 72), (64, 64), (136, 40)])
def test_sizes_of_all_kinds(backbone: BuiltinBackbone, size: tuple[int, int]) -> None:
    found = backbone.extract(photograph(*size)[None])
    assert found.patch.shape == (1, size[0] // 8, size[1] // 8, 64)
    assert torch.isfinite(found.patch).all()


def test_only_what_is_asked_for(backbone: BuiltinBackbone) -> None:
    images = photograph(64, 96)[None]
    both = backbone.extract(images, cls=True)
    alone = backbone.extract(images, cls=True, patch=False)
    assert alone.cls is not None
    assert both.cls is not None
    assert torch.equal(alone.cls, both.cls)
    assert alone.patch.numel() == 0
    assert backbone.extract(images).cls is None
    empty = backbone.extract(images[:0], cls=True)
    assert empty.patch.shape == (0, 8, 12, 64)
    assert empty.cls is not None
    assert len(empty.cls) == 0


def test_the_same_bytes_in_any_batch_and_on_any_number_of_threads(backbone: BuiltinBackbone) -> None:
    images = torch.stack([photograph(128, 96, turn) for turn in range(3)])
    with threads(1):
        alone = [backbone.extract(image[None], cls=True) for image in images]
    with threads(2):
        together = backbone.extract(images, cls=True)
    for k, one in enumerate(alone):
        assert torch.equal(one.patch[0], together.patch[k])
        assert one.cls is not None
        assert together.cls is not None
        assert torch.equal(one.cls[0], together.cls[k])


def test_an_image_of_one_colour_has_zero_features(backbone: BuiltinBackbone) -> None:
    assert float(backbone.extract(torch.full((1, 3, 64, 64), 77, dtype=torch.uint8)).patch.abs().max()) == 0


def test_regions_stop_at_the_edge_between_two_surfaces(backbone: BuiltinBackbone) -> None:
    rng = np.random.default_rng(0)
    image = np.array([60, 90, 60]) + rng.normal(0, 6, (128, 128, 1))
    image[:, 64:] = np.array([170, 120, 90]) + rng.normal(0, 6, (128, 64, 1))
    pixels = torch.from_numpy(np.clip(image, 0, 255).astype(np.uint8).transpose(2, 0, 1).copy())
    features = backbone.extract(pixels[None]).patch[0].numpy().astype(np.float32)
    sequence = merge_sequence(np.ascontiguousarray(features), stop_similarity=None)
    labels = partition(sequence, len(sequence.first) - 5)  # six regions
    assert len(np.unique(labels)) == 6
    assert not set(np.unique(labels[:, :8])) & set(np.unique(labels[:, 8:]))


def test_sizes_that_do_not_fit_the_patch(backbone: BuiltinBackbone) -> None:
    with pytest.raises(UsageError, match="multiples of its 8-pixel patch"):
        backbone.extract(torch.zeros(1, 3, 60, 64, dtype=torch.uint8))
    with pytest.raises(UsageError, match="multiples of its 8-pixel patch"):
        backbone.prepare(np.zeros((10, 10, 3), np.uint8), 4, 8)


def test_the_shipped_weights_are_those_of_the_card() -> None:
    path = resources.files("ovskit.core.models.builtin")
    data = (path / extractor.WEIGHTS).read_bytes()
    assert hashlib.sha256(data).hexdigest() == extractor.SHA256
    assert len(data) <= 12 * 10**6
    card = (path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert extractor.SHA256 in card
    assert "CC BY 4.0" in card
    assert "CC0" in card
    with resources.as_file(path / extractor.WEIGHTS) as file:
        assert read_about(file)["recipe"] == "backbone"


def test_changed_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractor, "SHA256", "0" * 64)
    with pytest.raises(InputError, match="have changed"):
        load_builtin("builtin", device=CPU)


def test_weights_of_ones_own(backbone: BuiltinBackbone, tmp_path: Path) -> None:
    network = load_builtin("builtin", device=CPU)._network  # folded: not what a file holds, so it is refused
    with pytest.raises(MissingInputError, match="no such file"):
        load_backbone("builtin", weights=tmp_path / "none.safetensors", device=CPU)
    torch.manual_seed(0)
    fresh = type(network)(network.config)
    path = tmp_path / "own.safetensors"
    save_network(path, fresh, {})
    own = load_backbone("builtin", weights=path, device=CPU)
    image = photograph(64, 64)[None]
    assert not torch.equal(own.extract(image).patch, backbone.extract(image).patch)
    assert own.spec.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(InputError, match="were made by builtin with weights"):
        reload_backbone(own.spec, device=CPU)
    assert reload_backbone(own.spec, weights=path, device=CPU).spec == own.spec


def test_the_composition_is_what_its_description_says() -> None:
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:10, :12]
    blocks = (y // 5) * 2 + x // 6  # four even regions under the noise
    handmade = rng.normal(size=(9, 4))[:, blocks] + 0.4 * rng.normal(size=(9, 10, 12))
    embeddings = [rng.normal(size=(7, 4))[:, blocks] + 0.4 * rng.normal(size=(7, 10, 12)), rng.normal(size=(7, 5, 6))]
    logits = [[2 * rng.normal(size=(3, *e.shape[1:])) for e in embeddings] for _ in range(2)]
    seen = [
        Grouping(*(torch.from_numpy(v)[None].float() for v in (e, r, b)), pooled=torch.zeros(1, 1))
        for e, r, b in zip(embeddings, *logits, strict=True)
    ]
    how = Composition(handmade=5, embedded=3, learned=0.7, steps=6, contrast=3.0, boundary=2.0)
    found = extractor._compose(torch.from_numpy(handmade)[None].float(), seen, (10, 12), how)[0].reshape(120, -1).double().numpy()
    expected = compose(handmade, embeddings, *logits, kept=(5, 3), learned=0.7, steps=6, contrast=3.0, boundary=2.0)

    def cosines(rows: np.ndarray) -> np.ndarray:  # the signs of components are arbitrary
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit @ unit.T

    np.testing.assert_allclose(cosines(found), cosines(expected), atol=0.02)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.linalg.norm(expected, axis=1), rel=0.02)
