"""``ovs-cluster`` on features that another program saved with NumPy."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ovskit.core.formats.streams.features import FeatureHeader, FeatureWriter, open_features
from ovskit.core.records import FeatureMap, Image

from .conftest import Run, one_line

Make = Callable[[dict[str, np.ndarray], Path], Path]


def of_stream(path: Path, part: str = "patch") -> dict[str, np.ndarray]:
    """The arrays of our own stream, by the names of their photographs, as NumPy reads them."""
    with np.load(path, allow_pickle=False) as file:
        named = {json.loads(file[key])["file_name"]: key for key in file.files if key.endswith("/image.json")}
        return {name: file[key.replace("image.json", part)] for name, key in named.items()}


def archive(found: dict[str, np.ndarray], folder: Path) -> Path:
    np.savez(folder / "f.npz", **found)
    return folder / "f.npz"


def rows_compressed(found: dict[str, np.ndarray], folder: Path) -> Path:
    np.savez_compressed(
        folder / "f.npz", **{name.removesuffix(".png"): array.reshape(-1, array.shape[-1]) for name, array in found.items()}
    )
    return folder / "f.npz"


def npy_folder(found: dict[str, np.ndarray], folder: Path) -> Path:
    (folder / "all" / "imgs").mkdir(parents=True)
    for name, array in found.items():
        np.save(folder / "all" / "imgs" / f"{name}.npy", np.asfortranarray(array[None]))
    return folder / "all"


MERGED, TOGETHER = "--thresholds 0.9..0.1 --no-local", "--method kmeans -k 5 --scope dataset"


@pytest.mark.parametrize(("make", "how"), [(archive, MERGED), (rows_compressed, MERGED), (npy_folder, MERGED), (rows_compressed, TOGETHER)])
def test_the_masks_are_those_of_our_own_stream(ovs: Run, features: Path, images: Path, tmp_path: Path, make: Make, how: str) -> None:
    ours = ovs("ovs-cluster", "--no-pg", *how.split(), features)
    theirs = ovs("ovs-cluster", "--no-pg", *how.split(), "--root", images, make(of_stream(features), tmp_path))
    assert ours.returncode == theirs.returncode == 0, theirs.stderr
    assert theirs.stderr == b""
    assert json.loads(theirs.stdout)["annotations"]
    assert theirs.stdout.split(b"\n")[1:] == ours.stdout.split(b"\n")[1:]  # all but the header


def test_lightcluster_takes_the_first_row_as_cls(ovs: Run, features: Path, images: Path, tmp_path: Path) -> None:
    patches = of_stream(features)
    cls = {name: array.reshape(-1, array.shape[-1])[37] for name, array in patches.items()}
    with (tmp_path / "ours.npz").open("wb") as file:
        writer = FeatureWriter(file, replace(opened(features), root=str(images)))
        for k, (name, array) in enumerate(patches.items(), 1):
            writer.write(FeatureMap(Image(k, name, 120, 96), array, cls[name]))
        writer.finish()
    rows = {name: np.concatenate([cls[name][None], array.reshape(-1, array.shape[-1])]) for name, array in patches.items()}
    np.savez(tmp_path / "theirs.npz", **rows)
    how = ("ovs-cluster", "--no-pg", "--method", "lightcluster", "--set", "superclasses=2")
    ours = ovs(*how, tmp_path / "ours.npz")
    assert ours.returncode == 0, ours.stderr
    theirs = ovs(*how, "--root", images, "--grid", "16×16", tmp_path / "theirs.npz")
    assert theirs.returncode == 0, theirs.stderr
    assert theirs.stdout.split(b"\n")[1:] == ours.stdout.split(b"\n")[1:]
    np.savez(tmp_path / "theirs.npz", **patches)
    done = ovs(*how, "--root", images, tmp_path / "theirs.npz")
    assert done.returncode == 65
    one_line(done, "CLS", "(n + 1, c)")


def opened(features: Path) -> FeatureHeader:
    with features.open("rb") as file:
        return open_features(file, "x")[0]


def test_later_commands_find_the_photographs_and_the_history(ovs: Run, features: Path, images: Path, tmp_path: Path) -> None:
    theirs = archive(of_stream(features), tmp_path)
    done = ovs("ovs-cluster", "--root", images, theirs, "-o", tmp_path / "m.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    refined = ovs("ovs-refine", "--method", "guided", tmp_path / "m.json", cwd=tmp_path)
    assert refined.returncode == 0, refined.stderr
    head = json.loads(refined.stdout)["info"]["ovskit"]
    assert head["root"] == str(images)
    assert [(entry["tool"], entry.get("model")) for entry in head["pg"]] == [("ovs-cluster", "numpy"), ("ovs-refine", None)]


def test_an_output_that_is_there_stays_and_one_that_is_not_whole_goes_on(ovs: Run, features: Path, images: Path, tmp_path: Path) -> None:
    how = ("ovs-cluster", "--root", images, archive(of_stream(features), tmp_path), "-o", tmp_path / "m.json")
    assert ovs(*how).returncode == 0
    whole = (tmp_path / "m.json").read_bytes()
    before = (tmp_path / "m.json").stat().st_mtime_ns
    assert ovs(*how, "--skip-existing").returncode == 0
    assert (tmp_path / "m.json").stat().st_mtime_ns == before
    assert ovs(*how, "--resume").returncode == 0
    begun = (tmp_path / "m.json").read_bytes()
    (tmp_path / "m.json").unlink()
    (tmp_path / "m.json.part").write_bytes(begun[: begun.rindex(b'"image_id":4') - 20])
    assert ovs(*how, "--resume").returncode == 0
    assert (tmp_path / "m.json").read_bytes() == begun
    assert begun.split(b"\n")[1:] == whole.split(b"\n")[1:]


def test_centroids_are_kept_for_features_of_the_same_width(ovs: Run, features: Path, images: Path, tmp_path: Path) -> None:
    found = of_stream(features)
    how = ("ovs-cluster", "--no-pg", "--method", "kmeans", "--scope", "dataset", "--root", images)
    first = ovs(*how, "-k", "3", "--save", tmp_path / "c.npz", archive(found, tmp_path))
    assert first.returncode == 0, first.stderr
    assert ovs(*how, "--from", tmp_path / "c.npz", npy_folder(found, tmp_path)).stdout == first.stdout
    narrow = archive({name: array[..., :9] for name, array in found.items()}, tmp_path)
    done = ovs(*how, "--from", tmp_path / "c.npz", narrow)
    assert done.returncode == 65
    one_line(done, "dim")
    done = ovs(*how, "--from", tmp_path / "c.npz", features)
    assert done.returncode == 65
    one_line(done, "model")


def test_what_is_asked_for_and_cannot_be_had(ovs: Run, features: Path, images: Path, tmp_path: Path) -> None:
    theirs = archive(of_stream(features), tmp_path)
    for arguments, code, words in (
        ([theirs], 2, ["f.npz", "--root DIR"]),
        ([tmp_path], 2, ["--root DIR"]),
        (["--root", images, "--local", theirs], 2, ["--local", "f.npz"]),
        (["--root", images, "--grid", "8x8", features], 2, ["--grid is about arrays"]),
        (["--root", images, "--grid", "8", theirs], 2, ["--grid 8:", "28x28"]),
        (["--root", images, "--grid", "0x8", theirs], 2, ["--grid 0x8:"]),
        (["--root", images, "--grid", "8x8", theirs], 65, ["scene-0.png.npy", "(16, 16, ", "--grid 8x8"]),
        (["--root", tmp_path / "gone", theirs], 66, ["gone"]),
        (["--root", images, tmp_path / "gone.npz"], 66, ["gone.npz"]),
        (["--root", images, features, theirs], 65, ["f.npz was not extracted like"]),
    ):
        done = ovs("ovs-cluster", *arguments)
        assert done.returncode == code, (arguments, done.stderr)
        one_line(done, *words)
        assert done.stdout == b""
    meant_for_others = {"OVS_GRID": "8x8"}
    assert ovs("ovs-cluster", features, "-o", tmp_path / "m.json", env=meant_for_others).returncode == 0


def test_a_pipe_carries_our_own_stream_alone(ovs: Run, features: Path, images: Path, tmp_path: Path) -> None:
    data = archive(of_stream(features), tmp_path).read_bytes()
    done = ovs("ovs-cluster", "--root", images, stdin=data)
    assert done.returncode == 65
    one_line(done, "stdin is not a feature stream", "numpy.savez", "by name")


def test_archives_that_are_damaged_or_hold_something_else(ovs: Run, features: Path, images: Path, tmp_path: Path) -> None:
    found = of_stream(features)

    def error(words: list[str], *options: str) -> None:
        done = ovs("ovs-cluster", "--root", images, *options, tmp_path / "f.npz")
        assert done.returncode == 65, done.stderr
        one_line(done, *words)

    path = archive(found, tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    error(["f.npz: scene-0.png.npy", "CRC"])
    path.write_bytes(data[:-9])
    error(["f.npz is damaged"])
    np.savez(path, **{"scene-0": np.array([{}], object)}, allow_pickle=True)
    error(["Python objects", "float16 or float32"])
    archive({name: array.transpose(2, 0, 1) for name, array in found.items()}, tmp_path)
    error(["looks like (c, h, w)", "transpose(1, 2, 0)"])
    np.savez(path, np.stack(list(found.values())))
    error(["arr_0", "scene-0.png"])
    with zipfile.ZipFile(path, "w") as other:
        other.writestr("archive/data.pkl", b"")
    error(["no .npy arrays", "archive/data.pkl"])


def test_what_cannot_be_used_is_skipped_where_that_is_asked_for(ovs: Run, features: Path, images: Path, tmp_path: Path) -> None:
    found = of_stream(features)
    found["scene-1.png"] = np.full_like(found["scene-1.png"], np.nan)
    found["scene-2.png"] = found["scene-2.png"][..., :5]
    theirs = archive(found, tmp_path)
    for method in ([], ["--method", "kmeans", "--scope", "dataset", "-k", "3"]):
        done = ovs("ovs-cluster", *method, "--root", images, theirs)
        assert done.returncode == 65
        one_line(done, "scene-")
    done = ovs("ovs-cluster", "--on-error", "skip", "--root", images, theirs)
    assert done.returncode == 3
    assert [image["file_name"] for image in json.loads(done.stdout)["images"]] == ["scene-0.png", "scene-3.png", "scene-4.png"]
    said = done.stderr.decode()
    assert said.count("scene-1.png") == said.count("scene-2.png.npy") == 1
    assert "skipped 2 images" in said
