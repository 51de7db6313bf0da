"""The recipe: it learns and does not collapse, is the same however it is run, and exports a model that others can load."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open

from ovskit.core.formats.photographs.sources import list_sources
from ovskit.core.models.registry import load_backbone
from ovskit.core.runtime.errors import InputError, UsageError
from ovskit.core.runtime.failures import Failures
from ovskit.core.train.data.pool_cache import PoolCache
from ovskit.core.train.engine.checkpoint import read_checkpoint
from ovskit.core.train.engine.events import Logged
from ovskit.core.train.engine.loop import train
from ovskit.core.train.engine.options import TrainOptions
from ovskit.core.train.recipes.dino import DinoRecipe, DinoSettings, precompute
from ovskit.core.train.recipes.dino_loss import multi_crop_loss
from ovskit.core.train.recipes.dino_network import save_vit
from ovskit.core.train.views.multi_crop import draw_crops

TINY = DinoSettings(
    arch="test_vit", shorter_side=64, batch=8, global_crop=48, local_crop=32, local_crops=2, hidden=64, bottleneck=32, prototypes=64,
    freeze_last=2, warm_teacher=3, momentum=0.9,
)  # fmt: skip


def changed(**others: Any) -> DinoSettings:
    return dataclasses.replace(TINY, **others)


def scene(seed: int) -> np.ndarray:
    """Discs of flat colour on a noisy ground."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(40, 200, 3) + rng.normal(0, 8, (64, 80, 1))
    y, x = np.mgrid[:64, :80]
    for _ in range(4):
        inside = (y - rng.integers(64)) ** 2 + (x - rng.integers(80)) ** 2 < rng.integers(8, 20) ** 2
        pixels[inside] = rng.integers(20, 230, 3)
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> PoolCache:
    folder = tmp_path_factory.mktemp("pool")
    for k in range(12):
        Image.fromarray(scene(k)).save(folder / f"{k:02}.png")
    sources = list_sources([str(folder)], root=None).items
    return precompute(sources, TINY, folder.parent / f"{folder.name}-cache", workers=1, failures=Failures(skip=False))


def options(steps: int, **others: Any) -> TrainOptions:
    given: dict[str, Any] = {"steps": steps, "learning_rate": 5e-4, "device": "cpu", "weight_decay": 0.04, "clip_norm": 3.0}
    return TrainOptions(**{**given, **others})


def weights(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def test_batches_depend_on_seed_step_and_rank_alone(cache: PoolCache) -> None:
    one, same = DinoRecipe(cache, TINY, steps=9, seed=1), DinoRecipe(cache, TINY, steps=99, seed=1)
    same.batch(0, 0, 2)
    for first, again in zip(one.batch(7, 1, 2), same.batch(7, 1, 2), strict=True):
        assert torch.equal(first, again)
    assert not torch.equal(one.batch(7, 1, 2).large, one.batch(7, 0, 2).large)
    assert not torch.equal(one.batch(7, 1, 2).large, DinoRecipe(cache, TINY, steps=9, seed=2).batch(7, 1, 2).large)


@pytest.mark.parametrize("world", [1, 3])
def test_every_photograph_is_seen_once_a_round(cache: PoolCache, world: int) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.key, self.seen = cache.key, list[int]()

        def __len__(self) -> int:
            return len(cache)

        def __getitem__(self, k: int) -> tuple[np.ndarray, np.ndarray]:
            self.seen.append(k)
            return cache[k]

    recorder = Recorder()
    recipe = DinoRecipe(recorder, changed(batch=4), steps=9, seed=5)  # type: ignore[arg-type]
    for k in range(6):
        recipe.batch(k // world, k % world, world)
    assert sorted(recorder.seen[:12]) == sorted(recorder.seen[12:]) == list(range(12))
    assert recorder.seen[:12] != recorder.seen[12:]


def test_teacher_and_student_begin_alike_and_the_seed_decides_how(cache: PoolCache) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    modules = [DinoRecipe(cache, TINY, steps=9, seed=seed).modules for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    student, teacher = (modules[0][name].state_dict() for name in ("student", "teacher"))
    assert all(torch.equal(student[name], teacher[name]) for name in student)
    assert all(torch.equal(student[name], tensor) for name, tensor in modules[1]["student"].state_dict().items())
    name = "backbone.patch_embed.proj.weight"
    assert not torch.equal(student[name], modules[2]["student"].state_dict()[name])


def test_decay_spares_biases_norms_and_prototypes(cache: PoolCache) -> None:
    recipe = DinoRecipe(cache, TINY, steps=9)
    names = {id(parameter): name for name, parameter in recipe.modules.named_parameters()}
    decayed, spared = ([names[id(p)] for p in group["params"]] for group in recipe.parameter_groups())
    assert all(name.startswith("student.") for name in decayed + spared)
    assert not [name for name in decayed if name.endswith(("bias", "norm1.weight", "norm.weight", "prototypes"))]
    assert "student.head.prototypes" in spared
    assert "student.head.mlp.0.weight" in decayed


def test_every_parameter_takes_part_even_when_frozen(cache: PoolCache) -> None:
    recipe = DinoRecipe(cache, TINY, steps=9)
    recipe.losses(recipe.batch(0, 0, 1), 0)["loss"].backward()
    assert all(parameter.grad is not None for group in recipe.parameter_groups() for parameter in group["params"])
    assert all(parameter.grad is None for parameter in recipe.modules["teacher"].parameters())


def test_centre_and_teacher_follow_at_the_end_of_a_step(cache: PoolCache) -> None:
    recipe = DinoRecipe(cache, changed(momentum=0.5, centre_momentum=0.75), steps=10)
    taught = []
    for rank in range(2):  # two accumulated batches
        batch = recipe.batch(0, rank, 2)
        recipe.losses(batch, 0)
        with torch.no_grad():
            taught.append(recipe.modules["teacher"](batch.large.transpose(0, 1).flatten(0, 1)))
    with torch.no_grad():
        for parameter in recipe.modules["student"].parameters():
            parameter.add_(1.0)
    before = {name: tensor.clone() for name, tensor in recipe.modules["teacher"].state_dict().items()}
    recipe.after_step(5)
    torch.testing.assert_close(recipe.state()["centre"], 0.25 * torch.cat(taught).mean(0))
    for name, tensor in recipe.modules["teacher"].state_dict().items():  # λ is halfway from 0.5 to 1
        torch.testing.assert_close(tensor, before[name] + 0.25, atol=1e-5, rtol=1e-5)


def test_training_tells_photographs_apart(cache: PoolCache, tmp_path: Path) -> None:
    recipe = DinoRecipe(cache, changed(prototypes=128, momentum=0.95, hidden=128, warm_teacher=10), steps=160, seed=0)
    crops = draw_crops(cache, range(12), np.random.default_rng(5), TINY.crops())

    def gap() -> tuple[float, float]:
        """The loss on pairs of views of one photograph, and on those of two."""
        recipe.modules.eval()
        with torch.no_grad():
            student, teacher = (
                recipe.modules[name](crops.large.transpose(0, 1).flatten(0, 1)).unflatten(0, (2, 12)) for name in ("student", "teacher")
            )
            turns = [teacher.roll(k, 1) for k in range(12)]
            centre = teacher.mean((0, 1))
            found = [float(multi_crop_loss(student, t, centre, student_temperature=0.1, teacher_temperature=0.05).loss) for t in turns]
        recipe.modules.train()
        return found[0], float(np.mean(found[1:]))

    before, _ = gap()
    train(recipe, options(160, learning_rate=3e-4, warmup=10), tmp_path / "run")
    own, others = gap()
    assert own < before - 0.3
    assert own < np.log(128) - 0.1  # better than knowing nothing
    assert others > own + 0.5


def test_without_centring_it_collapses_and_the_log_says_so(cache: PoolCache, tmp_path: Path) -> None:
    logged: dict[float, dict[str, float]] = {}
    for momentum in (0.9, 1 - 1e-9):

        def watch(event: Any, key: float = momentum) -> None:
            if isinstance(event, Logged):
                logged[key] = dict(event.losses)

        recipe = DinoRecipe(cache, changed(centre_momentum=momentum), steps=50)
        train(recipe, options(50, learning_rate=3e-3, warmup=5, log_every=10), tmp_path / f"run{momentum}", watch=watch)
    centred, collapsed = logged[0.9], logged[1 - 1e-9]
    assert set(centred) == {"loss", "entropy", "divergence"}
    assert collapsed["entropy"] < 0.7 * centred["entropy"]
    assert collapsed["divergence"] < 0.3 * centred["divergence"]
    assert centred["loss"] == pytest.approx(centred["entropy"] + centred["divergence"], rel=1e-4)


def test_a_stopped_and_resumed_run_ends_with_the_same_bytes(cache: PoolCache, tmp_path: Path) -> None:
    assert TINY.drop_path > 0
    train(DinoRecipe(cache, TINY, steps=5, seed=3), options(5, accumulate=2), tmp_path / "whole")
    for stop in (1, 3, None):
        train(DinoRecipe(cache, TINY, steps=5, seed=3), options(5, accumulate=2, stop_after=stop), tmp_path / "pieces", resume=True)
    one, two = (tmp_path / name / "model.safetensors" for name in ("whole", "pieces"))
    assert one.read_bytes() == two.read_bytes()
    first, second = (read_checkpoint(tmp_path / name / "checkpoint.safetensors").tensors for name in ("whole", "pieces"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_resumed_run_of_another_length_warns(cache: PoolCache, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(DinoRecipe(cache, TINY, steps=5), options(5, stop_after=1, schedule="constant"), tmp_path / "run")
    train(DinoRecipe(cache, TINY, steps=2), options(2, schedule="constant"), tmp_path / "run", resume=True)
    assert "the teacher's momentum goes on as in a run of 2" in caplog.text


def test_the_last_layer_is_frozen_at_first(cache: PoolCache, tmp_path: Path) -> None:
    recipe = DinoRecipe(cache, TINY, steps=4)
    before = {name: tensor.clone() for name, tensor in recipe.modules["student"].head.state_dict().items()}
    train(recipe, options(4, stop_after=2), tmp_path / "run")
    now = recipe.modules["student"].head.state_dict()
    assert torch.equal(now["prototypes"], before["prototypes"])
    assert not torch.equal(now["mlp.4.weight"], before["mlp.4.weight"])
    resumed = DinoRecipe(cache, TINY, steps=4)
    train(resumed, options(4), tmp_path / "run", resume=True)
    assert not torch.equal(resumed.modules["student"].head.prototypes, before["prototypes"])


def test_bf16_and_no_small_crops(cache: PoolCache, tmp_path: Path) -> None:
    seen: list[float] = []
    train(
        DinoRecipe(cache, changed(local_crops=0), steps=2),
        options(2, precision="bf16", log_every=1),
        tmp_path / "run",
        watch=lambda event: seen.append(event.losses["loss"]) if isinstance(event, Logged) else None,
    )
    assert len(seen) == 2
    assert np.isfinite(seen).all()
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.fixture(scope="module")
def finished(cache: PoolCache, tmp_path_factory: pytest.TempPathFactory) -> tuple[DinoRecipe, Path]:
    recipe, folder = DinoRecipe(cache, TINY, steps=3), tmp_path_factory.mktemp("finished") / "run"
    train(recipe, options(3, learning_rate=5e-3), folder)
    return recipe, folder / "model.safetensors"


@pytest.mark.parametrize(("height", "width"), [(160, 160), (64, 96)])
def test_what_is_exported_is_the_teacher(finished: tuple[DinoRecipe, Path], height: int, width: int) -> None:
    recipe, path = finished
    loaded = load_backbone("timm:test_vit", facet="key", weights=path, device=torch.device("cpu"))
    assert loaded.spec.has_cls
    pixels = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = loaded.extract(pixels, cls=True)
    teacher: Any = recipe.modules["teacher"]
    keys: list[torch.Tensor] = []
    hook = teacher.backbone.blocks[-1].attn.qkv.register_forward_hook(lambda module, given, out: keys.append(out))
    with torch.no_grad():
        tokens = teacher.backbone.forward_features((pixels.float() - teacher.mean) / teacher.std)
    hook.remove()
    own = keys[0][:, 1:].chunk(3, -1)[1].reshape(2, height // 16, width // 16, -1)
    torch.testing.assert_close(found.patch, own, atol=5e-3, rtol=5e-3)  # halves
    torch.testing.assert_close(found.cls, tokens[:, 0], atol=5e-3, rtol=5e-3)
    student: Any = recipe.modules["student"].eval()
    with torch.no_grad():
        other = student.backbone.forward_features((pixels.float() - teacher.mean) / teacher.std)[:, 0]
    assert F.mse_loss(other, tokens[:, 0]) > 100 * F.mse_loss(found.cls, tokens[:, 0])  # type: ignore[arg-type]


def test_the_file_says_what_it_is(finished: tuple[DinoRecipe, Path], cache: PoolCache, tmp_path: Path) -> None:
    recipe, path = finished
    with safe_open(path, framework="pt") as file:
        (text,) = file.metadata().values()
    header = json.loads(text)
    assert (header["format"], header["arch"]) == ("ovskit.vit/1", "test_vit")
    about = header["about"]
    assert (about["recipe"], about["photographs"], about["updates"], about["pool"]) == ("dino", 12, 3, cache.key)
    assert about["settings"]["global_crop"] == 48
    recipe.export(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == path.read_bytes()
    assert {tensor.dtype for tensor in weights(path).values()} == {torch.float16}
    assert not [name for name in weights(path) if "head" in name]


def test_weights_too_large_for_halves_stay_as_they_are(tmp_path: Path) -> None:
    network = torch.nn.Linear(3, 2)
    with torch.no_grad():
        network.bias[0] = 1e6
    save_vit(tmp_path / "m.safetensors", network, "none", {})
    found = weights(tmp_path / "m.safetensors")
    assert torch.equal(found["bias"], network.bias)
    assert torch.equal(found["weight"], network.weight)
    with torch.no_grad():
        network.bias[0] = float("nan")
    with pytest.raises(InputError, match="bias is not finite"):
        save_vit(tmp_path / "n.safetensors", network, "none", {})
    assert not (tmp_path / "n.safetensors").exists()


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("test_vitt", "unknown model 'test_vitt' \\(did you mean test_vit\\?\\)"),
        ("test_resnet", "test_resnet is not supported"),
        ("test_vit_relpos", "test_vit_relpos is not supported"),
        ("test_vit2", "no CLS token"),
        ("vit_tiny_patch16_224.augreg_in21k", "without the tag"),
    ],
)
def test_architectures_that_do_not_do(tmp_path: Path, arch: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        precompute([], changed(arch=arch), tmp_path / "cache", workers=1, failures=Failures(skip=False))


@pytest.mark.parametrize("name", ["global_crop", "local_crop"])
def test_crops_are_multiples_of_the_patch(cache: PoolCache, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} 40: give a multiple of 16"):
        DinoRecipe(cache, changed(**{name: 40}), steps=3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": 0}, {"prototypes": 1}, {"local_crops": -1}, {"smallest_global": 1.5}, {"smallest_local": 0.0}, {"smallest_local": 0.5},
        {"teacher_temperature": 0.0}, {"student_temperature": float("inf")}, {"drop_path": 1.0}, {"momentum": 1.1},
        {"centre_momentum": -0.1}, {"freeze_last": -1},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        DinoSettings(**wrong)
