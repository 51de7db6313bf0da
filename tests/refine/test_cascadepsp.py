"""CascadePSP: the package's own refiner is the oracle, on random weights; nothing here touches a network."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import requests
import segmentation_refinement
import torch
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from segmentation_refinement import download
from segmentation_refinement.models.psp.pspnet import RefinementModule

from ovskit.core.masks import rle
from ovskit.core.masks.runs import run_table
from ovskit.core.records import Mask
from ovskit.core.refine import cascadepsp
from ovskit.core.refine.cascadepsp import cascadepsp_refiner, crop_around
from ovskit.core.refine.methods.cascadepsp import METHOD, CascadeOptions
from ovskit.core.refine.refiner import Refiner
from ovskit.core.runtime.errors import InputError, MissingInputError, OutputError, UsageError, WeightsUnavailableError

SMALLEST, LARGEST = 66, 72  # the network takes seconds for larger crops

torch.set_num_threads(1)  # as the refiner does, since the bits of a result depend on it


@dataclass
class Checkpoints:
    """One network's weights as the package has them, in the folder it expects, and as safetensors."""

    torch_file: Path
    safetensors: Path


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoints]:
    folder = tmp_path_factory.mktemp("cascadepsp")
    torch.manual_seed(0)
    network = RefinementModule().eval()
    with torch.no_grad():  # an answer with both classes in it, and far from one half
        network.final_21.weight.mul_(50)
        logits = network(torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64))["out_224"]
        network.final_21.bias.sub_(logits.median())
    state = {name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()}
    files = Checkpoints(folder / "model", folder / "model.safetensors")
    torch.save({f"module.{name}": value for name, value in state.items()}, files.torch_file)
    save_file({name: value.clone() for name, value in state.items()}, files.safetensors)
    yield files
    shutil.rmtree(folder)  # pytest would keep a quarter of a gigabyte of each of the last runs


@pytest.fixture(scope="module")
def refiner(checkpoints: Checkpoints) -> Refiner:
    return cascadepsp_refiner(CascadeOptions(checkpoints.safetensors, SMALLEST, LARGEST), "cpu")


def mask_of(pixels: np.ndarray, k: int = 1) -> Mask:
    found = rle.encode(pixels.astype(np.uint8))
    return Mask(k, 1, found, rle.area(found), rle.bbox(found))


def scene() -> tuple[np.ndarray, list[Mask]]:
    """An image, and masks whose crops are smaller than 66, larger than 72, at the border, of no pixel."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (20, 24, 3)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    boxes = [(30, 40, 43, 50), (20, 10, 70, 30), (0, 80, 31, 96), (5, 5, 5, 5)]
    masks = []
    for k, (top, left, bottom, right) in enumerate(boxes):
        pixels = np.zeros(image.shape[:2], np.uint8)
        pixels[top:bottom, left:right] = random.random((bottom - top, right - left)) < 0.95
        masks.append(mask_of(pixels, k + 1))
    return image, masks


@pytest.fixture(scope="module")
def package(checkpoints: Checkpoints) -> segmentation_refinement.Refiner:
    """The package as its users have it, weights loaded by its own loader."""
    folder = str(checkpoints.torch_file.parent)
    return segmentation_refinement.Refiner(device="cpu", model_folder=folder, download_and_check_model=False)


def by_the_package(image: np.ndarray, mask: Mask, package: segmentation_refinement.Refiner, fast: bool) -> np.ndarray:
    """The package called as its users call it, on the crop that UnSAM takes."""
    height, width = image.shape[:2]
    pixels = rle.decode(mask.rle)
    x, y, w, h = mask.bbox
    side = max(w, h)
    left, top = int(max(0, x + w / 2 - side)), int(max(0, y + h / 2 - side))
    right, bottom = int(min(width, x + w / 2 + side)), int(min(height, y + h / 2 + side))
    longer = max(min(max(right - left, bottom - top), LARGEST), SMALLEST)
    answer = package.refine(image[top:bottom, left:right], pixels[top:bottom, left:right] * 255, fast=fast, L=longer)
    out = np.zeros_like(pixels)
    out[top:bottom, left:right] = answer > 127
    return out


def test_the_packages_answer(package: segmentation_refinement.Refiner, refiner: Refiner) -> None:
    image, masks = scene()
    refined = refiner.refine(image, masks)
    assert len(refined) == len(masks)
    for mask, found in zip(masks[:3], refined, strict=False):
        pixels = rle.decode(found)
        assert np.array_equal(pixels, by_the_package(image, mask, package, fast=True))
        assert pixels.any()
        assert found != mask.rle
    assert refined[3] == masks[3].rle


def test_both_steps(package: segmentation_refinement.Refiner, checkpoints: Checkpoints, refiner: Refiner) -> None:
    image, masks = scene()
    thorough = cascadepsp_refiner(CascadeOptions(checkpoints.torch_file, SMALLEST, LARGEST, fast=False), "cpu")
    (found,) = thorough.refine(image, masks[:1])
    assert np.array_equal(rle.decode(found), by_the_package(image, masks[0], package, fast=False))
    assert found != refiner.refine(image, masks[:1])[0]


def test_both_kinds_of_checkpoint_are_the_same_network(checkpoints: Checkpoints, refiner: Refiner) -> None:
    image, masks = scene()
    other = cascadepsp_refiner(CascadeOptions(checkpoints.torch_file, SMALLEST, LARGEST), "cpu")
    assert other.refine(image, masks[:1]) == refiner.refine(image, masks[:1])


def test_what_it_says_of_itself(checkpoints: Checkpoints, refiner: Refiner) -> None:
    digest = hashlib.sha256(checkpoints.safetensors.read_bytes()).hexdigest()
    assert (refiner.name, METHOD.supervised, refiner.weights_sha256) == ("cascadepsp", True, digest)


def test_same_masks_in_any_company_and_thread(refiner: Refiner) -> None:
    image, masks = scene()
    together = refiner.refine(image, masks[:2])
    with ThreadPoolExecutor(2) as pool:
        apart = list(pool.map(lambda mask: refiner.refine(image, [mask])[0], masks[:2]))
    assert apart == together
    assert refiner.refine(image, []) == []


def test_a_thread_of_an_image_keeps_its_masks(refiner: Refiner) -> None:
    """Resized to 72 pixels, a line of 100 would have no height."""
    line = np.zeros((1, 100), np.uint8)
    line[0, 20:80] = 1
    mask = mask_of(line)
    assert refiner.refine(np.zeros((1, 100, 3), np.uint8), [mask]) == [mask.rle]


def test_masks_of_another_size(refiner: Refiner) -> None:
    _, masks = scene()
    with pytest.raises(InputError, match="96x80"):
        refiner.refine(np.zeros((80, 80, 3), np.uint8), masks)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_the_crop_holds_the_mask_and_is_within_the_image(height: int, width: int, data: st.DataObject) -> None:
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    pixels = np.zeros((height, width), np.uint8)
    pixels[top:bottom, left:right] = 1
    box = crop_around(run_table([rle.encode(pixels)]), 0)
    assert 0 <= box[0] <= top < bottom <= box[2] <= height
    assert 0 <= box[1] <= left < right <= box[3] <= width
    side = max(bottom - top, right - left)
    for (near, far), (low, high), length in (((top, bottom), (box[0], box[2]), height), ((left, right), (box[1], box[3]), width)):
        assert low == 0 or (near + far) / 2 - side - 1 < low
        assert high == length or (near + far) / 2 + side - 1 < high


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10), st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_room_is_never_overdrawn(total: int, sizes: list[int]) -> None:
    room = cascadepsp._Room(total)
    under_way: list[int] = []
    lock = threading.Lock()

    def work(size: int) -> bool:
        with room.take(size):
            with lock:
                under_way.append(size)
                fits = sum(under_way) <= total or len(under_way) == 1
            with lock:
                under_way.remove(size)
        return fits

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, sizes))
    assert not under_way


def test_room_is_given_back_after_an_error() -> None:
    room = cascadepsp._Room(1)
    with pytest.raises(ZeroDivisionError), room.take(1):
        raise ZeroDivisionError
    with room.take(1):
        pass


class Bomb:
    """Makes a folder when unpickled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._folder),)


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_no_pickle_runs(tmp_path: Path, form: str) -> None:
    weights, sign = tmp_path / "model", tmp_path / "executed"
    content = {"module.feats.conv1.weight": Bomb(sign)}
    if form == "pickle":
        weights.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, weights)
    with pytest.raises(InputError, match="runs code|neither"):
        cascadepsp_refiner(CascadeOptions(weights), "cpu")
    assert not sign.exists()


def test_weights_of_something_else(tmp_path: Path) -> None:
    shapes = {name: torch.zeros(3, 1) for name in RefinementModule().state_dict()}
    save_file(shapes, tmp_path / "shapes.safetensors")
    save_file({"fc.weight": torch.zeros(2, 2)}, tmp_path / "names.safetensors")
    for name, words in (
        ("shapes.safetensors", "feats.conv1.weight is 3×1, not 64×6×7×7"),
        ("names.safetensors", "is missing"),
    ):
        with pytest.raises(InputError, match=words) as error:
            cascadepsp_refiner(CascadeOptions(tmp_path / name), "cpu")
        assert "\n" not in str(error.value)
        assert name in str(error.value)


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such file"):
        cascadepsp_refiner(CascadeOptions(tmp_path / "absent"), "cpu")


def test_a_checkpoint_without_counters(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Before torch 0.4.1 norms did not count batches; the package loads such files too."""
    state = torch.load(checkpoints.torch_file, weights_only=True)
    path = tmp_path / "old"
    torch.save({name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}, path)
    try:
        assert cascadepsp_refiner(CascadeOptions(path), "cpu").name == "cascadepsp"
    finally:
        path.unlink()


@pytest.mark.parametrize(("smallest", "largest"), [(65, 900), (200, 100), (0, 0)])
def test_options_out_of_range(smallest: int, largest: int) -> None:
    with pytest.raises(UsageError, match="smallest"):
        cascadepsp_refiner(CascadeOptions(None, smallest, largest), "cpu")


def test_the_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_refinement", None)
    with pytest.raises(UsageError, match=r"needs pip install 'ovskit\[cascadepsp\]'"):
        cascadepsp_refiner(CascadeOptions(None), "cpu")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home; the network answers, and what the package would download there is up to the test."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(cascadepsp, "connect", lambda url, seconds: None)
    monkeypatch.setattr(download, "download_model", lambda path: pytest.fail("nothing was to be downloaded"))
    return tmp_path


def unavailable(reason: str, home: Path) -> None:
    """The one line says where the file is looked for, why it is not there, where it is to be had and what to do with it."""
    with pytest.raises(WeightsUnavailableError, match=reason) as error:
        cascadepsp_refiner(CascadeOptions(None), "cpu")
    for word in (str(home / ".segmentation-refinement" / "model"), cascadepsp.URL, "--weights"):
        assert word in str(error.value)
    assert "\n" not in str(error.value)
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_nothing_can_be_reached(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, seconds: float) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(cascadepsp, "connect", refuse)
    unavailable("cannot be reached", home)


def test_nothing_answers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(cascadepsp, "_CONNECT_SECONDS", 0.05)
    monkeypatch.setattr(cascadepsp, "connect", lambda url, seconds: release.wait())
    unavailable("cannot be reached", home)
    release.set()


def test_downloads_are_switched_off(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    unavailable("HF_HUB_OFFLINE", home)


def test_the_connection_breaks(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> None:
        Path(path).write_bytes(b"half of")
        raise requests.exceptions.ConnectionError("reset by peer")

    monkeypatch.setattr(download, "download_model", broken)
    unavailable("ConnectionError", home)


def test_something_else_is_sent(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "download_model", lambda path: Path(path).write_bytes(b"<html>404</html>"))
    unavailable("not the published file", home)


def test_the_disk_is_full(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download, "download_model", full)
    with pytest.raises(OutputError, match="No space left"):
        cascadepsp_refiner(CascadeOptions(None), "cpu")


def test_a_download_is_kept_and_found_again(
    home: Path, checkpoints: Checkpoints, refiner: Refiner, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    downloads = []

    def fetch(path: Path) -> None:
        print("Downloading model file into", path)
        downloads.append(path)
        os.symlink(checkpoints.torch_file, path)

    monkeypatch.setattr(download, "download_model", fetch)
    monkeypatch.setattr(download, "check_model", lambda path: Path(path).samefile(checkpoints.torch_file))
    image, masks = scene()
    folder = home / ".segmentation-refinement"
    options = CascadeOptions(None, SMALLEST, LARGEST)
    assert cascadepsp_refiner(options, "cpu").refine(image, masks[:1]) == refiner.refine(image, masks[:1])
    assert [path.name for path in folder.iterdir()] == ["model"]
    cascadepsp_refiner(options, "cpu")
    assert len(downloads) == 1
    (folder / "model").unlink()
    (folder / "model").write_bytes(checkpoints.torch_file.read_bytes()[:1000])  # damaged: fetched again
    cascadepsp_refiner(options, "cpu")
    assert len(downloads) == 2
    assert capfd.readouterr().out == ""
