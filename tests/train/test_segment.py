"""``ovs-train segment``: one and the same however it is run, with the rates and scores that it should have."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ovskit.core.models.segmenter.network import Segmenter
from ovskit.core.models.segmenter.open import open_segmenter
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.train.engine.loop import train
from ovskit.core.train.engine.options import TrainOptions
from ovskit.core.train.recipes.mask_recipe import BEST
from ovskit.core.train.recipes.segment import SegmentRecipe, SegmentSettings, new_segmenter, settings_from
from tests.train.small_segmenter import SETTINGS, Data, scenes_to_learn


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return scenes_to_learn(tmp_path_factory.mktemp("scenes"), 6)


def recipe(data: Data, folder: Path, settings: SegmentSettings = SETTINGS, **others: Any) -> SegmentRecipe:
    segmenter = new_segmenter(settings, weights=None, pretrained=False, seed=3)
    return SegmentRecipe(*data, segmenter, settings, folder, seed=3, **others)


def options(steps: int, **others: Any) -> TrainOptions:
    return TrainOptions(steps=steps, optimizer="adan", betas=(0.98, 0.92, 0.99), learning_rate=1e-3, clip_norm=1.0, device="cpu", **others)


def test_a_stopped_and_resumed_run_ends_with_the_same_bytes(data: Data, tmp_path: Path) -> None:
    train(recipe(data, tmp_path / "whole"), options(4), tmp_path / "whole")
    train(recipe(data, tmp_path / "pieces"), options(4, stop_after=2), tmp_path / "pieces")
    train(recipe(data, tmp_path / "pieces"), options(4), tmp_path / "pieces", resume=True)
    one, two = (tmp_path / name / "model.safetensors" for name in ("whole", "pieces"))
    assert one.read_bytes() == two.read_bytes()


def test_what_is_exported_is_what_was_trained(data: Data, tmp_path: Path) -> None:
    made = recipe(data, tmp_path, pg=[{"tool": "ovs-train"}])
    train(made, options(2), tmp_path)
    loaded = open_segmenter(tmp_path)
    own = made.modules["segmenter"].state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in loaded.segmenter.state_dict().items())
    assert loaded.training["updates"] == 2
    assert loaded.training["pg"] == [{"tool": "ovs-train"}]
    assert settings_from(loaded.training, {}, "it") == SETTINGS
    assert settings_from(loaded.training, {"batch": 7}, "it") == replace(SETTINGS, batch=7)
    with pytest.raises(InputError, match="does not say what settings"):
        settings_from({}, {}, "it")


def test_the_backbone_learns_more_slowly_towards_its_input(data: Data, tmp_path: Path) -> None:
    made = recipe(data, tmp_path, replace(SETTINGS, backbone_rate=0.5, layer_decay=0.5))
    segmenter: Segmenter = made.modules["segmenter"]  # type: ignore[assignment]
    scale = {id(p): group["lr_scale"] for group in made.parameter_groups() for p in group["params"]}
    assert len(scale) == sum(p.requires_grad for p in segmenter.parameters())
    assert {scale[id(p)] for p in segmenter.head_parameters() if p.requires_grad} == {1.0}
    rates = [{scale[id(p)] for p in block} for block in segmenter.pyramid.depth_groups()]  # type: ignore[operator]
    assert rates == [{0.5 * 0.5 ** (len(rates) - 1 - k)} for k in range(len(rates))]
    bare = [p for group in made.parameter_groups() if group.get("weight_decay") == 0 for p in group["params"]]
    assert all(p.dim() <= 1 or p.shape[0] in (SETTINGS.queries, 3) for p in bare)


def test_a_frozen_backbone_stays(data: Data, tmp_path: Path) -> None:
    made = recipe(data, tmp_path, replace(SETTINGS, freeze=True))
    segmenter: Segmenter = made.modules["segmenter"]  # type: ignore[assignment]
    before = {name: tensor.clone() for name, tensor in segmenter.pyramid.trunk.state_dict().items()}  # type: ignore[union-attr, operator]
    train(made, options(2), tmp_path)
    after = segmenter.pyramid.trunk.state_dict()  # type: ignore[union-attr, operator]
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())


def test_the_best_by_recall_is_kept(data: Data, tmp_path: Path) -> None:
    scores = iter([10.0, 30.0, 20.0])
    made = recipe(data, tmp_path, evaluate=lambda segmenter: {"AR@1000": next(scores)})
    train(made, options(6, eval_every=2), tmp_path)
    assert open_segmenter(tmp_path / BEST).training["updates"] == 4
    assert open_segmenter(tmp_path / BEST).training["scores"] == {"AR@1000": 30.0}
    assert open_segmenter(tmp_path).training["scores"] == {"AR@1000": 20.0}


def test_queries_begin_at_places_where_the_backbone_says_what_belongs_together() -> None:
    plain = SegmentSettings(size="tiny", backbone="timm:test_vit")
    assert (plain.config().kinds, plain.config().queries) == (0, 20)
    own = SegmentSettings(size="tiny")
    assert (own.config().kinds, own.config().queries) == (4, 324)
    assert replace(own, queries=50).config().queries == 50
    assert (replace(own, kinds=0).config().kinds, replace(own, kinds=0).config().queries) == (0, 20)
    with pytest.raises(UsageError, match="queries 8: give at least as many as there are kinds, 9"):
        replace(own, kinds=9, queries=8).config()
    # A run from before there were places had none, whatever its backbone.
    before = asdict(own)
    del before["kinds"]
    assert settings_from({"settings": before}, {}, "it").config().kinds == 0


def test_what_makes_no_sense() -> None:
    wrong: list[dict[str, Any]] = [
        {"size": "huge"}, {"side": 100}, {"batch": 0}, {"paste": 2.0}, {"smallest_scale": 3.0}, {"layer_decay": 0.0},
        {"balance": "x"}, {"ancestors": -1.0}, {"largest_scale": float("inf")}, {"largest_paste": float("nan")},
        {"queries": 10_001}, {"points": 1_000_001}, {"side": 8224}, {"batch": 4097}, {"max_masks": 100_001}, {"kinds": -2}, {"kinds": 101},
    ]  # fmt: skip
    for changes in wrong:
        with pytest.raises(UsageError, match=next(iter(changes))) as caught:
            replace(SETTINGS, **changes)
        assert str(caught.value).startswith(next(iter(changes)))
    replace(SETTINGS, queries=10_000, points=1_000_000, side=8192, batch=4096, max_masks=100_000)
