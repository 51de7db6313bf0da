"""What a file says of the part of a run that it is: kept through a pipe, heard by --skip-existing, and by whoever joins."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from .conftest import Run, one_line

SIZE = ("--size", "64")


@pytest.fixture(scope="module")
def parts(ovs: Run, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the features ``k.npz`` and the masks ``k.json`` of four shards."""
    folder = tmp_path_factory.mktemp("parts")
    for k in range(4):
        assert ovs("ovs-extract", images, *SIZE, "--shard", f"{k}/4", "-o", folder / f"{k}.npz").returncode == 0
        assert ovs("ovs-cluster", "--no-local", folder / f"{k}.npz", "-o", folder / f"{k}.json").returncode == 0
    return folder


def shard_in(masks: bytes) -> str | None:
    return json.loads(masks)["info"]["ovskit"].get("shard")


def test_every_stage_of_a_pipe_says_which_shard_it_is_of(ovs: Run, images: Path, parts: Path) -> None:
    assert [shard_in((parts / f"{k}.json").read_bytes()) for k in range(4)] == ["0/4", "1/4", "2/4", "3/4"]
    masks = (parts / "2.json").read_bytes()
    for stage in (("ovs-refine",), ("ovs-hier",), ("ovs-label", "--clusters", 2)):
        masks = ovs(*stage, stdin=masks).stdout
        assert shard_in(masks) == "2/4", stage
    only = ovs("ovs-extract", images, *SIZE, "--shard", "0/1")
    whole = ovs("ovs-extract", images, *SIZE)
    assert only.stdout == whole.stdout


def test_all_shards_joined_are_the_whole_and_no_shard(ovs: Run, images: Path, parts: Path) -> None:
    whole = ovs("ovs-extract", images, *SIZE).stdout
    names = [parts / f"{k}.npz" for k in (3, 1, 0, 2)]
    masks = ovs("ovs-cluster", "--no-local", "--no-pg", *names).stdout
    assert masks == ovs("ovs-cluster", "--no-local", "--no-pg", stdin=whole).stdout
    assert shard_in(masks) is None
    joined = ovs("ovs-hier", "--no-pg", *(path.with_suffix(".json") for path in names)).stdout
    assert joined == ovs("ovs-hier", "--no-pg", stdin=masks).stdout


@pytest.mark.parametrize(("tool", "suffix"), [("ovs-cluster", "npz"), ("ovs-hier", "json")])
def test_a_join_with_a_hole_is_refused(ovs: Run, images: Path, parts: Path, tmp_path: Path, tool: str, suffix: str) -> None:
    def refused(*names: object, words: tuple[str, ...]) -> None:
        done = ovs(tool, *names, "-o", tmp_path / "out")
        assert done.returncode == 65
        one_line(done, *words)
        assert not (tmp_path / "out").exists()

    one, two, three = (parts / f"{k}.{suffix}" for k in (0, 1, 3))
    refused(one, two, three, words=("2/4 is missing",))
    refused(one, three, words=("1/4, 2/4 are missing",))
    again = shutil.copy(one, tmp_path / f"again.{suffix}")
    refused(one, again, words=("both shard 0/4",))
    for shard in ("1/2", None):
        other = tmp_path / f"other.{suffix}"
        options = () if shard is None else ("--shard", shard)
        made = ovs("ovs-extract", images, *SIZE, *options).stdout
        other.write_bytes(made if suffix == "npz" else ovs("ovs-cluster", "--no-local", stdin=made).stdout)
        refused(one, other, words=("0/4", "only the shards of one run are joined"))
    alone = ovs(tool, one, "-o", tmp_path / "out")
    assert alone.returncode == 0, alone.stderr


def test_skip_existing_knows_its_own_shard(ovs: Run, images: Path, parts: Path, tmp_path: Path) -> None:
    """A run of four shards, repeated with two: before, it took 0/4 and 1/4 for 0/2 and 1/2, half of the images."""
    out = Path(shutil.copy(parts / "0.npz", tmp_path / "0.npz"))
    before = out.stat().st_mtime_ns
    begin = ("ovs-extract", images, *SIZE, "--skip-existing", "-o", out)
    done = ovs(*begin, "--shard", "0/4", "-v")
    assert done.returncode == 0, done.stderr
    assert b"is there already" in done.stderr
    for options, words in (
        (("--shard", "0/2"), ("is shard 0/4, and this run is shard 0/2", "--shard")),
        ((), ("is shard 0/4, and this run is the whole",)),
        (("--shard", "0/4", "--dtype", "float32"), ("was made by 'ovs-extract --size 64",)),
        (("--shard", "0/4", "--no-pg"), ("was made by",)),
    ):
        done = ovs(*begin, *options)
        assert done.returncode == 2, options
        one_line(done, "0.npz", *words)
    assert out.stat().st_mtime_ns == before


@pytest.mark.parametrize("tool", ["ovs-cluster", "ovs-refine", "ovs-hier", "kmeans"])
def test_skip_existing_of_every_stage(ovs: Run, parts: Path, tmp_path: Path, tool: str) -> None:
    suffix = "npz" if tool in ("ovs-cluster", "kmeans") else "json"
    begin = {
        "ovs-cluster": ("ovs-cluster", "--no-local"),
        "kmeans": ("ovs-cluster", "--method", "kmeans", "--scope", "dataset", "-k", "2"),
    }.get(tool, (tool,))
    out, source = tmp_path / "out.json", Path(shutil.copy(parts / f"1.{suffix}", tmp_path / f"in.{suffix}"))
    assert ovs(*begin, source, "-o", out).returncode == 0
    whole, before = out.read_bytes(), out.stat().st_mtime_ns
    done = ovs(*begin, source, "-o", out, "--skip-existing")
    assert (done.returncode, done.stderr, out.stat().st_mtime_ns) == (0, b"", before)
    shutil.copy(parts / f"0.{suffix}", source)  # another shard by the same name
    done = ovs(*begin, source, "-o", out, "--skip-existing")
    assert done.returncode == 2
    one_line(done, "is shard 1/4, and this run is shard 0/4")
    done = ovs(*begin, "-", "-o", out, "--skip-existing", stdin=(parts / f"1.{suffix}").read_bytes())
    assert done.returncode == 2
    assert "was made by" in done.stderr.decode().splitlines()[-1]  # k-means says first that it keeps stdin
    if tool != "ovs-hier":
        return
    shutil.copy(parts / f"1.{suffix}", source)
    for text in (whole[:-10], b"mine", b"", whole + b"x"):
        out.write_bytes(text)
        done = ovs(*begin, source, "-o", out, "--skip-existing")
        assert done.returncode == 65
        one_line(done, "out.json")
        assert out.read_bytes() == text


def test_skip_existing_counts_images(ovs: Run, images: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "imgs", tmp_path / "f.npz"
    shutil.copytree(images, folder)
    begin = ("ovs-extract", folder, *SIZE, "--skip-existing", "-o", out)
    good = (folder / "scene-1.png").read_bytes()
    (folder / "scene-1.png").write_bytes(good[:100])
    assert ovs(*begin, "--on-error", "skip").returncode == 3
    done = ovs(*begin, "--on-error", "skip")
    assert done.returncode == 3  # complete it is not, the second time either
    one_line(done, "lacks 1 of 5 images", "scene-1.png")
    done = ovs(*begin)
    assert done.returncode == 2
    one_line(done, "scene-1.png", "--on-error skip")
    out.unlink()
    (folder / "scene-1.png").write_bytes(good)
    assert ovs(*begin).returncode == 0
    (folder / "scene-4.png").unlink()
    done = ovs(*begin)
    assert done.returncode == 2
    one_line(done, "image 5, which is not among this run's")
    for text in (out.read_bytes()[:-1], out.read_bytes()[:-200], out.read_bytes() + b"x", b"", b"mine"):
        out.write_bytes(text)
        done = ovs(*begin)
        assert done.returncode == 65
        one_line(done, "f.npz")
    assert ovs(*begin[:-1], "/dev/null").returncode == 0  # no file that could be there already


def test_skip_existing_of_embeddings(ovs: Run, images: Path, tmp_path: Path) -> None:
    begin = ("ovs-extract", images, *SIZE, "--pool", "mean", "--skip-existing", "-o", tmp_path / "e.npz")
    assert ovs(*begin).returncode == 0
    assert ovs(*begin).returncode == 0
    assert ovs(*begin, "--shard", "0/2").returncode == 2


def test_broken_shards_in_headers(ovs: Run, parts: Path, tmp_path: Path) -> None:
    text = (parts / "0.json").read_bytes()
    for shard in (b'"4/4"', b"3", b'"0/0"', b'"-1/2"', b"{}"):
        (tmp_path / "m.json").write_bytes(text.replace(b'"shard":"0/4"', b'"shard":' + shard))
        done = ovs("ovs-hier", tmp_path / "m.json")
        assert done.returncode == 65
        one_line(done, "m.json", "is not a shard")


def test_numpy_opens_a_shard(parts: Path) -> None:
    with np.load(parts / "3.npz") as file:
        assert json.loads(file["ovs.json"])["shard"] == "3/4"
        assert "000000000004/patch" in file
