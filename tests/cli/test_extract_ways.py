"""What ovs-extract takes for weights, how it resizes photographs and resamples positions, what it says of that, and who takes it up."""

import argparse
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image as Pillow
from safetensors.torch import load_file, save_file

from ovskit.core.models.registry import load_backbone
from tests.reference import vit

from .conftest import Run, one_line

SIZE = 48  # three patches a side, where DINO was trained with fourteen
OPTIONS = ("--model", "dino-vits16", "--layer", 1, "--size", SIZE, "--dtype", "float32")


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DINO's ViT-S/16 with random weights."""
    path = tmp_path_factory.mktemp("dino") / "dino.safetensors"
    generator = torch.Generator().manual_seed(0)
    network = timm.create_model("vit_small_patch16_224.dino", num_classes=0)
    state = {name: (tensor + 0.05 * torch.randn(tensor.shape, generator=generator)).half() for name, tensor in network.state_dict().items()}
    save_file(state, path)
    return path


def extracted(ovs: Run, target: Path, *arguments: object) -> tuple[dict, dict[str, np.ndarray]]:
    """The header's model and the patch features of every image by its name."""
    done = ovs("ovs-extract", *arguments, "-o", target)
    assert done.returncode == 0, done.stderr
    with np.load(target, allow_pickle=False) as file:
        names = {member.partition("/")[0]: json.loads(file[member])["file_name"] for member in file.files if member.endswith("image.json")}
        return json.loads(file["ovs.json"])["model"], {name: file[f"{folder}/patch"] for folder, name in names.items()}


def expected_keys(dino: Path, image: Path, resampling: Pillow.Resampling) -> np.ndarray:
    state = {name: tensor.double().numpy() for name, tensor in load_file(dino).items()}
    small = np.asarray(Pillow.open(image).convert("RGB").resize((SIZE, SIZE), resampling), np.float64).transpose(2, 0, 1) / 255
    mean, std = (np.array(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return vit.keys(state, (small - mean) / std, heads=6, layer=1)


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("resample", [None, "lanczos", "bilinear"])
def test_the_keys_of_dino_are_its_authors(ovs: Run, images: Path, dino: Path, tmp_path: Path, resample: str | None) -> None:
    image = images / "scene-0.png"
    wish = () if resample is None else ("--resample", resample)
    model, found = extracted(ovs, tmp_path / "keys.npz", image, *OPTIONS, "--weights", dino, *wish)
    assert (model["positions"], model["interpolation"]) == ("scale", resample or "bicubic")
    ways = {way: expected_keys(dino, image, Pillow.Resampling[way.upper()]) for way in ("bicubic", "lanczos", "bilinear")}
    for way, expected in ways.items():
        if way == (resample or "bicubic"):
            assert distance(found[image.name], expected) < 3e-6
        else:
            assert distance(found[image.name], expected) > 1e-3


def test_by_size_they_are_others_and_the_header_says_so(ovs: Run, images: Path, dino: Path, tmp_path: Path) -> None:
    image = images / "scene-0.png"
    model, found = extracted(ovs, tmp_path / "keys.npz", image, *OPTIONS, "--weights", dino, "--positions", "size")
    assert model["positions"] == "size"
    assert distance(found[image.name], expected_keys(dino, image, Pillow.Resampling.BICUBIC)) > 1e-4


def test_a_run_goes_on_only_as_it_began(ovs: Run, images: Path, dino: Path, tmp_path: Path) -> None:
    broken = tmp_path / "imgs"
    broken.mkdir()
    for name in ("scene-0.png", "scene-1.png"):
        (broken / name).write_bytes((images / name).read_bytes())
    whole = (broken / "scene-1.png").read_bytes()
    (broken / "scene-1.png").write_bytes(b"no picture")
    run = ("ovs-extract", broken, *OPTIONS, "--weights", dino, "--resume", "-o", tmp_path / "keys.npz", "--positions", "size")
    assert ovs(*run).returncode == 65
    (broken / "scene-1.png").write_bytes(whole)
    for other in (("--positions", "official"), ("--resample", "lanczos")):
        done = ovs(*run, *other)
        assert done.returncode == 2
        one_line(done, "was begun with other inputs or options")
    assert ovs(*run).returncode == 0


def test_a_pipe_looks_closer_as_it_looked_first(ovs: Run, images: Path, tmp_path: Path) -> None:
    """The local step of ovs-cluster would refuse a model that comes out with another preprocessing than the header's."""
    target = tmp_path / "features.npz"
    model, found = extracted(ovs, target, images, "--size", 64, "--resample", "lanczos", "--dtype", "float32")
    assert model["interpolation"] == "lanczos"
    backbone = load_backbone("builtin", device=torch.device("cpu"))
    for name, patch in found.items():
        small = Pillow.open(images / name).convert("RGB").resize((64, 64), Pillow.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.asarray(small).transpose(2, 0, 1).copy())[None]
        assert np.array_equal(patch, backbone.extract(pixels).patch[0].numpy())
    crops = ("--local", "--local-size", 32, "--small", "1/4", "--counts", "20,9,4", "--min-patches", 1, "--min-local", 0)
    by_lanczos = ovs("ovs-cluster", target, *crops, "--no-pg")
    assert by_lanczos.returncode == 0, by_lanczos.stderr
    assert b'"source":"local"' in by_lanczos.stdout


def test_an_unknown_interpolation_is_refused(ovs: Run, images: Path) -> None:
    done = ovs("ovs-extract", images, "--resample", "cubic")
    assert done.returncode == 2
    assert b"lanczos" in done.stderr


def in_transformers_layout(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """DINO's parameters by the names that transformers' ViTModel has in its files."""
    out = {}
    outside = {"cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings", "norm": "layernorm"}
    inside = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
    }
    for name, tensor in state.items():
        if "attn.qkv" in name:
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                out[name.replace("blocks", "encoder.layer").replace("attn.qkv", f"attention.attention.{part}")] = rows.clone()
            continue
        new = name.replace("blocks", "encoder.layer").replace("mlp.fc2", "output.dense")
        for old, theirs in inside.items():
            new = new.replace(f".{old}.", f".{theirs}.")
        for old, theirs in outside.items():
            new = theirs + new.removeprefix(old) if new.startswith(old) else new
        out[new.replace("patch_embed.proj", "embeddings.patch_embeddings.projection")] = tensor
    return {**out, "pooler.dense.weight": torch.zeros(384, 384), "pooler.dense.bias": torch.zeros(384)}


def test_dinos_own_file_and_transformers_are_the_same_network(ovs: Run, images: Path, dino: Path, tmp_path: Path) -> None:
    state = load_file(dino)
    heads = {"head.mlp.0.weight": torch.zeros(2, 2), "head.last_layer.weight_g": torch.zeros(2, 1)}
    teacher = {f"backbone.{name}": tensor for name, tensor in state.items()} | heads
    student = {f"module.{name}": tensor + 1 for name, tensor in teacher.items()}
    full = {"student": student, "teacher": teacher, "epoch": 1, "args": argparse.Namespace(arch="vit_small", lr=5e-4)}
    torch.save(full, tmp_path / "checkpoint.pth")
    save_file(in_transformers_layout(state), tmp_path / "model.safetensors")
    image = images / "scene-1.png"
    plain = extracted(ovs, tmp_path / "plain.npz", image, *OPTIONS, "--weights", dino)[1][image.name]
    for file, said in (("checkpoint.pth", "checkpoint.pth: holds teacher and student; the teacher is taken"), ("model.safetensors", None)):
        target = tmp_path / f"{file}.npz"
        done = ovs("ovs-extract", image, *OPTIONS, "--weights", tmp_path / file, "-o", target)
        assert done.returncode == 0, done.stderr
        assert done.stderr == b"" if said is None else one_line(done, said)
        assert np.array_equal(np.load(target)["000000000001/patch"], plain)


def test_weights_of_dino_under_another_name_are_said(ovs: Run, images: Path, dino: Path, tmp_path: Path) -> None:
    model = ("--model", "timm:vit_small_patch16_224", *OPTIONS[2:], "--weights", dino)
    done = ovs("ovs-extract", images / "scene-1.png", *model, "-o", tmp_path / "other.npz")
    assert done.returncode == 0, done.stderr
    one_line(done, "has no classifier", "mean 0.5, 0.5, 0.5 and std 0.5, 0.5, 0.5", "for DINO's give --model dino-vits16")


@pytest.mark.filterwarnings("ignore")  # torch would rather have another format than TorchScript
def test_an_archive_is_read_without_its_code(ovs: Run, images: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=0).eval()
    torch.jit.save(torch.jit.trace(network, torch.zeros(1, 3, 160, 160), check_trace=False), tmp_path / "script.pt")
    save_file(network.state_dict(), tmp_path / "plain.safetensors")
    with zipfile.ZipFile(tmp_path / "script.pt") as old, zipfile.ZipFile(tmp_path / "spoilt.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, b"no code" if name.endswith(".py") else old.read(name))
    with zipfile.ZipFile(tmp_path / "script.pt") as old, zipfile.ZipFile(tmp_path / "hostile.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, pickle.dumps(print, 2) if name.endswith("/data.pkl") else old.read(name))
    found = {}
    for file in ("plain.safetensors", "script.pt", "spoilt.pt"):
        weights = ("--model", "timm:test_vit.r160_in1k", "--weights", tmp_path / file)
        found[file] = extracted(ovs, tmp_path / f"{file}.npz", images / "scene-0.png", *weights, "--size", 64)[1]["scene-0.png"]
        assert np.array_equal(found[file], found["plain.safetensors"])
    done = ovs("ovs-extract", images, "--model", "timm:test_vit", "--weights", tmp_path / "hostile.pt", "-o", tmp_path / "no.npz")
    assert done.returncode == 65
    one_line(done, "hostile.pt: a TorchScript archive that holds more than modules and tensors (__builtin__.print), refused")
