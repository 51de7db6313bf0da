"""The recipe: it learns, it is one and the same however it is run, and what it exports is what it averaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ovskit.core.formats.photographs.sources import list_sources
from ovskit.core.models.builtin.weights import load_network, read_about
from ovskit.core.runtime.errors import UsageError
from ovskit.core.runtime.failures import Failures
from ovskit.core.train.data.pool_cache import PoolCache
from ovskit.core.train.engine.loop import train
from ovskit.core.train.engine.options import TrainOptions
from ovskit.core.train.recipes.backbone import BackboneRecipe, BackboneSettings, precompute

TINY = BackboneSettings(
    widths=(8, 12, 16), blocks=(1, 1, 1), attention=1, pyramid=12, embedding=12, shorter_side=64, scales=(200.0, 1000.0),
    smallest_segment=12, batch=4, crop=32, anchors=16, negatives=200, queue=32, decay=0.9,
)  # fmt: skip


def scene(seed: int) -> np.ndarray:
    """Discs and boxes of texture on a textured ground."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(60, 180, 3) + rng.normal(0, 8, (64, 80, 1))
    y, x = np.mgrid[:64, :80]
    for _ in range(3):
        cy, cx, r = rng.integers(12, 52), rng.integers(12, 68), rng.integers(8, 16)
        inside = (y - cy) ** 2 + (x - cx) ** 2 < r * r if rng.random() < 0.5 else (abs(y - cy) < r) & (abs(x - cx) < r)
        pixels[inside] = rng.integers(20, 230, 3) + rng.normal(0, 8, (int(inside.sum()), 1))
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> PoolCache:
    folder = tmp_path_factory.mktemp("pool")
    for k in range(10):
        Image.fromarray(scene(k)).save(folder / f"{k}.png")
    sources = list_sources([str(folder)], root=None).items
    return precompute(sources, TINY, folder.parent / f"{folder.name}-cache", workers=1, failures=Failures(skip=False))


def options(steps: int, **others: object) -> TrainOptions:
    given: dict[str, object] = {"steps": steps, "learning_rate": 3e-3, "device": "cpu", "log_every": 5, "checkpoint_every": 1000}
    return TrainOptions(**{**given, **others})  # type: ignore[arg-type]


def test_batches_depend_on_seed_step_and_rank_alone(cache: PoolCache) -> None:
    one, same = BackboneRecipe(cache, TINY, seed=1), BackboneRecipe(cache, TINY, seed=1)
    same.batch(0, 0, 2)
    assert torch.equal(one.batch(7, 1, 2).images, same.batch(7, 1, 2).images)
    assert not torch.equal(one.batch(7, 1, 2).images, one.batch(7, 0, 2).images)
    assert not torch.equal(one.batch(7, 1, 2).images, BackboneRecipe(cache, TINY, seed=2).batch(7, 1, 2).images)


def test_training_learns_to_group(cache: PoolCache, tmp_path: Path) -> None:
    recipe = BackboneRecipe(cache, TINY, seed=0)
    batch = recipe.batch(10**6, 0, 1)

    def loss() -> dict[str, float]:
        torch.manual_seed(0)
        with torch.no_grad():
            return {name: float(value) for name, value in recipe.losses(batch, 0).items()}

    before = loss()
    train(recipe, options(60), tmp_path / "run")
    after = loss()
    assert after["loss"] < 0.8 * before["loss"]
    assert after["boundary"] < 0.8 * before["boundary"]
    assert after["within"] < before["within"]


def test_a_stopped_and_resumed_run_ends_with_the_same_bytes(cache: PoolCache, tmp_path: Path) -> None:
    train(BackboneRecipe(cache, TINY, seed=3), options(6), tmp_path / "whole")
    train(BackboneRecipe(cache, TINY, seed=3), options(6, stop_after=2), tmp_path / "pieces")
    train(BackboneRecipe(cache, TINY, seed=3), options(6), tmp_path / "pieces", resume=True)
    for name in ("model.safetensors",):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "pieces" / name).read_bytes()


def test_what_is_exported_is_the_average_in_halves(cache: PoolCache, tmp_path: Path) -> None:
    recipe = BackboneRecipe(cache, TINY, seed=3)
    train(recipe, options(4), tmp_path / "run")
    network = load_network(tmp_path / "run" / "model.safetensors").network
    averaged = {name.removeprefix("average/average/"): t for name, t in recipe.state().items() if name.startswith("average/average/")}
    trained = recipe.modules["network"].state_dict()
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, averaged[name], rtol=2e-3, atol=1e-4)
    name = "embed.weight"
    assert not torch.allclose(network.state_dict()[name], trained[name], rtol=2e-3, atol=1e-4)
    about = read_about(tmp_path / "run" / "model.safetensors")
    assert about["recipe"] == "backbone"
    assert about["photographs"] == 10
    assert about["settings"]["crop"] == 32


def test_training_can_start_from_weights(cache: PoolCache, tmp_path: Path) -> None:
    train(BackboneRecipe(cache, TINY, seed=3), options(2), tmp_path / "run")
    init = tmp_path / "run" / "model.safetensors"
    started = BackboneRecipe(cache, TINY, seed=4, init=init).modules["network"].state_dict()
    for name, tensor in load_network(init).network.state_dict().items():
        assert torch.equal(tensor, started[name]), name
    other = BackboneSettings(**{**{f: getattr(TINY, f) for f in TINY.__dataclass_fields__}, "embedding": 16})
    with pytest.raises(UsageError, match="other widths, blocks or levels"):
        BackboneRecipe(cache, other, init=init)


def test_the_queue_holds_the_latest_vectors(cache: PoolCache) -> None:
    recipe = BackboneRecipe(cache, TINY, seed=0)
    vectors = []
    for step in range(5):
        recipe.losses(recipe.batch(step, 0, 1), step)
        vectors.append(torch.cat(recipe._seen))
        recipe.after_step(step)
    latest = torch.cat(vectors)[-32:]
    assert torch.equal(recipe.state()["queue"].roll(-int(recipe.state()["next"]), 0), latest)


def test_evaluation_sees_the_average_and_leaves_the_weights(cache: PoolCache) -> None:
    def score(network: torch.nn.Module) -> dict[str, float]:
        return {"mean": float(network.state_dict()["embed.weight"].mean())}

    recipe = BackboneRecipe(cache, TINY, seed=0, evaluate=score)
    with torch.no_grad():
        recipe.modules["network"].embed.weight.fill_(2.0)  # type: ignore[union-attr,operator]
    before = float(recipe.state()["average/average/embed.weight"].mean())
    assert recipe.evaluate()["mean"] == pytest.approx(before)
    assert float(recipe.modules["network"].embed.weight.detach().mean()) == 2.0  # type: ignore[union-attr,operator]
    assert BackboneRecipe(cache, TINY, seed=0).evaluate() == {}


@pytest.mark.parametrize(
    "wrong",
    [{"crop": 40}, {"batch": 1}, {"granularities": 3, "scales": (1.0,)}, {"temperature": 0.0}, {"widths": (8,)}, {"smallest_view": 2.0}],
)
def test_settings_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=str(next(iter(wrong)))):
        BackboneSettings(**wrong)  # type: ignore[arg-type]
