"""Which images and label maps the commands find: nothing twice, nothing lost, nothing hidden."""

import io
import json
import os
import tarfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from .conftest import Run, one_line, paint

SIZE = ("--size", "32")


def png(seed: int) -> bytes:
    out = io.BytesIO()
    paint(seed, (48, 32)).save(out, "PNG")
    return out.getvalue()


def archive(*names: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for k, name in enumerate(names):
            data = png(k)
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def found(features: bytes | Path) -> list[str]:
    """The names of the images of a feature stream."""
    with np.load(io.BytesIO(features) if isinstance(features, bytes) else features) as file:
        return [json.loads(file[name])["file_name"] for name in file if name.endswith("image.json")]


def test_tars_put_together_are_read_to_the_end_and_found_again(ovs: Run, tmp_path: Path) -> None:
    (tmp_path / "both.tar").write_bytes(archive("a.png", "b.png") + archive() + archive("c.png"))
    done = ovs("ovs-extract", tmp_path / "both.tar", *SIZE)
    assert done.returncode == 0, done.stderr
    assert found(done.stdout) == ["a.png", "b.png", "c.png"]
    masks = ovs("ovs-cluster", "--no-local", stdin=done.stdout).stdout
    refined = ovs("ovs-refine", stdin=masks)  # which looks for the photographs in the tar
    assert refined.returncode == 0, refined.stderr
    assert len(json.loads(refined.stdout)["images"]) == 3


def test_empty_and_cut_shards(ovs: Run, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "0.tar").write_bytes(archive("a.png"))
    (shards / "1.tar").write_bytes(archive())
    done = ovs("ovs-extract", *sorted(shards.iterdir()), *SIZE, "-v")
    assert (done.returncode, found(done.stdout)) == (0, ["0.tar/a.png"])
    assert b"1.tar is empty" in done.stderr
    done = ovs("ovs-extract", shards / "1.tar", *SIZE)
    assert done.returncode == 66
    one_line(done, "no images in", "1.tar")
    (shards / "2.tar").write_bytes(archive("a.png", "b.png")[:3000])
    done = ovs("ovs-extract", shards, *SIZE)
    assert (done.returncode, done.stdout) == (65, b"")
    one_line(done, "2.tar", "truncated")
    done = ovs("ovs-extract", shards, *SIZE, "--on-error", "skip", "-o", tmp_path / "f.npz")
    assert done.returncode == 3
    assert b"skipped 1 tar that" in done.stderr
    assert found(tmp_path / "f.npz") == ["0.tar/a.png"]


def test_training_skips_a_cut_shard(ovs: Run, tmp_path: Path) -> None:
    for name, data in (("0.tar", archive("a.png", "b.png")), ("1.tar", archive("c.png")[:700])):
        (tmp_path / name).write_bytes(data)
    begin = ("ovs-train", "backbone", tmp_path / "0.tar", tmp_path / "1.tar", "-o", tmp_path / "run", "--steps", 1, "--batch", 2)
    done = ovs(*begin, "--device", "cpu")
    assert done.returncode == 65
    one_line(done, "1.tar")
    done = ovs(*begin, "--device", "cpu", "--on-error", "skip", "--set", "crop=32")
    assert done.returncode == 3, done.stderr
    assert b"skipped 1 tar that" in done.stderr


def test_links_to_their_own_parent_add_nothing(ovs: Run, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "a.png").write_bytes(png(0))
    (tmp_path / "s" / "b.png").write_bytes(png(1))
    for name in ("one", "two", "s/up"):
        (tmp_path / name).symlink_to(tmp_path)
    for where in (tmp_path, f"{tmp_path}/**/*.png"):
        done = ovs("ovs-extract", where, *SIZE)
        assert (done.returncode, found(done.stdout)) == (0, ["a.png", "s/b.png"])
        one_line(done, "passed over", "and 2 more")


def test_hidden_label_maps_are_not_scored_and_linked_ones_are(ovs: Run, tmp_path: Path) -> None:
    """Without the walk the hidden copies, all wrong, are two more images, and the linked folder is none."""
    left = np.zeros((8, 8), np.uint8)
    left[:, 4:] = 1
    for folder in ("truth", "predicted"):
        (tmp_path / folder / ".ipynb_checkpoints").mkdir(parents=True)
        Pillow.fromarray(left).save(tmp_path / folder / "a.png")
        wrong = left if folder == "truth" else 1 - left
        Pillow.fromarray(wrong).save(tmp_path / folder / ".ipynb_checkpoints" / "a-checkpoint.png")
        Pillow.fromarray(wrong).save(tmp_path / folder / "._a.png")
        (tmp_path / f"{folder}-more").mkdir()
        Pillow.fromarray(left).save(tmp_path / f"{folder}-more" / "b.png")
        (tmp_path / folder / "more").symlink_to(f"../{folder}-more")
    begin = ("ovs-eval", "--metric", "miou", "--names", "left,right", "--json", "--gt", tmp_path / "truth", tmp_path / "predicted")
    done = ovs(*begin, "--per-image", tmp_path / "lines")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "lines").read_bytes().splitlines()]
    assert [line["file_name"] for line in lines] == ["a.png", "more/b.png"]
    assert not done.stderr


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_path_list_of_windows(ovs: Run, images: Path, encoding: str) -> None:
    listed = "".join(f"{path}\r\n" for path in sorted(images.iterdir())).encode(encoding)
    done = ovs("ovs-extract", *SIZE, stdin=listed)
    assert done.returncode == 0, done.stderr
    assert found(done.stdout) == [f"scene-{k}.png" for k in range(5)]


def test_accents_taken_apart(ovs: Run, tmp_path: Path) -> None:
    apart, together = (unicodedata.normalize(form, "été.png") for form in ("NFD", "NFC"))
    (tmp_path / apart).write_bytes(png(0))
    if os.path.exists(tmp_path / together):
        pytest.skip("this file system takes the two for one")
    done = ovs("ovs-extract", *SIZE, stdin=f"{tmp_path}/{together}\n".encode())
    assert (done.returncode, found(done.stdout)) == (0, [apart])
    (tmp_path / "c.json").write_text(json.dumps({"images": [{"id": 4, "file_name": together}]}))
    done = ovs("ovs-extract", *SIZE, "--images", tmp_path / "c.json")
    assert (done.returncode, found(done.stdout)) == (0, [together])
    masks = ovs("ovs-cluster", "--no-local", stdin=done.stdout).stdout
    assert ovs("ovs-refine", stdin=masks).returncode == 0
