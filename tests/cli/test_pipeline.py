"""What goes in at one end comes out at the other, the same for any number of workers, batches and shards."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from ovskit.core.models.builtin.extractor import COUNTS

from .conftest import Run, command, one_line, paint


def test_the_main_pipe(shell: Run, images: Path, tmp_path: Path) -> None:
    line = f"ovs-extract {images} --size 128 | ovs-cluster --local-size 64 | tee m.json | ovs-show -o page.html"
    done = shell(line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    coco = COCO(str(tmp_path / "m.json"))
    assert len(coco.imgs) == 5
    annotations = coco.loadAnns(coco.getAnnIds())
    assert len(annotations) >= 5
    for annotation in annotations:
        assert coco.annToMask(annotation).sum() == annotation["area"] > 0
        assert {"score", "count", "source"} <= annotation.keys()
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.count("scene-") >= 5


def test_provenance_names_every_stage(masks: Path) -> None:
    head = json.loads(masks.read_bytes())["info"]["ovskit"]
    assert head["format"] == "ovskit.masks/1"
    assert [entry["tool"] for entry in head["pg"]] == ["ovs-extract", "ovs-cluster"]
    assert head["pg"][0]["command"].startswith("ovs-extract --size 128 ")
    assert head["pg"][1]["command"].startswith("ovs-cluster --thresholds 0.6..0.1 --local ")
    assert head["pg"][0]["model"] == "builtin-v1"


def test_no_pg_leaves_it_out(ovs: Run, features: Path) -> None:
    done = ovs("ovs-cluster", features, "--no-local", "--no-pg")
    assert json.loads(done.stdout)["info"]["ovskit"]["pg"] == []


@pytest.mark.parametrize("options", [["--no-local"], ["--local-size", "64", "--counts", "60,30,10,3"]])
def test_cluster_workers_change_nothing(ovs: Run, process: Run, features: Path, options: list[str]) -> None:
    one, four = (run("ovs-cluster", features, *options, "-j", j) for run, j in ((ovs, 1), (process, 4)))
    assert one.returncode == 0, one.stderr
    assert one.stdout == four.stdout


def test_extract_workers_and_batches_change_nothing(ovs: Run, images: Path, features: Path) -> None:
    for options in (["-j", "1", "--batch-size", "1"], ["-j", "3", "--batch-size", "4"]):
        done = ovs("ovs-extract", images, "--size", "128", *options)
        assert done.returncode == 0, done.stderr
        assert done.stdout == features.read_bytes()


def test_shards_together_are_the_whole(ovs: Run, images: Path, features: Path, tmp_path: Path) -> None:
    whole = np.load(features)
    parts = []
    for k in range(3):
        done = ovs("ovs-extract", images, "--size", "128", "--shard", f"{k}/3", "-o", tmp_path / f"{k}.npz")
        assert done.returncode == 0, done.stderr
        parts.append(np.load(tmp_path / f"{k}.npz"))
    names = [name for part in parts for name in part if name != "ovs.json"]
    assert sorted(names) == sorted(set(whole) - {"ovs.json"})
    for k, part in enumerate(parts):
        said = json.loads(part["ovs.json"])
        assert said.pop("shard") == f"{k}/3"
        assert said == json.loads(whole["ovs.json"])
        for name in set(part) - {"ovs.json"}:
            assert np.array_equal(part[name], whole[name])
    from_parts = ovs("ovs-cluster", "--no-local", "--no-pg", *(tmp_path / f"{k}.npz" for k in range(3)))
    from_whole = ovs("ovs-cluster", "--no-local", "--no-pg", features)
    assert from_parts.returncode == 0, from_parts.stderr
    assert from_parts.stdout == from_whole.stdout
    # Backwards, and one of them by a pipe.
    mixed = ovs(
        "ovs-cluster", "--no-local", "--no-pg", tmp_path / "2.npz", "-", tmp_path / "0.npz", stdin=(tmp_path / "1.npz").read_bytes()
    )
    assert mixed.stdout == from_whole.stdout


def test_a_list_of_paths_and_a_folder_are_the_same(ovs: Run, images: Path, features: Path) -> None:
    listed = b"\0".join(os.fsencode(p) for p in sorted(images.iterdir(), reverse=True))
    done = ovs("ovs-extract", "-0", "--size", "128", "--no-pg", stdin=listed)
    assert done.returncode == 0, done.stderr
    plain = ovs("ovs-extract", images, "--size", "128", "--no-pg")
    assert done.stdout == plain.stdout


def test_coco_images_and_root(ovs: Run, images: Path, tmp_path: Path) -> None:
    listed = {"images": [{"id": 50, "file_name": "scene-1.png"}, {"id": 7, "file_name": "scene-4.png"}]}
    (tmp_path / "c.json").write_text(json.dumps(listed))
    done = ovs("ovs-extract", "--images", tmp_path / "c.json", "--root", images, "--size", "64", "-o", tmp_path / "f.npz")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "f.npz") as file:
        assert json.loads(file["000000000007/image.json"])["file_name"] == "scene-4.png"
        assert "000000000050/patch" in file


def test_kept_sizes_follow_the_image_in_whole_patches(ovs: Run, images: Path, tmp_path: Path) -> None:
    done = ovs("ovs-extract", images, "--size", "keep", "--dtype", "float32", "-o", tmp_path / "f.npz")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "f.npz") as file:
        assert json.loads(file["ovs.json"])["size"] is None
        assert file["000000000001/patch"].shape[:2] == (96 // 8, 120 // 8)
        assert file["000000000001/patch"].dtype == np.float32
    clustered = ovs("ovs-cluster", tmp_path / "f.npz", "--local-size", "64")
    assert clustered.returncode == 0, clustered.stderr
    assert all(image["width"] == 120 and image["height"] == 96 for image in json.loads(clustered.stdout)["images"])


def test_pooled_embeddings(ovs: Run, images: Path, tmp_path: Path) -> None:
    done = ovs("ovs-extract", images, "--size", "64", "--pool", "mean", "-o", tmp_path / "e.npz")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "e.npz") as file:
        assert len(json.loads(file["000000000001/images.json"])) == 5
        assert file["000000000001/embedding"].shape[0] == 5
    refused = ovs("ovs-cluster", tmp_path / "e.npz")
    assert refused.returncode == 65
    assert b"without --pool" in refused.stderr


def test_odd_names_go_all_the_way(shell: Run, tmp_path: Path) -> None:
    folder = tmp_path / "imgs"
    folder.mkdir()
    names = [b"new\nline.png", b"quo\"te's.png", b"caf\xe9-latin1.png", "naïve-ü.png".encode(), b"-dash.png", b"<b>.png"]
    for k, name in enumerate(names):
        paint(k, (64, 48)).save(folder / "x.png")
        os.rename(os.fsencode(folder / "x.png"), os.path.join(os.fsencode(folder), name))
    done = shell("ovs-extract imgs --size 64 | ovs-cluster --local-size 32 | tee m.json | ovs-show -o p.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = {os.fsencode(image["file_name"]) for image in json.loads((tmp_path / "m.json").read_bytes())["images"]}
    assert found == set(names)
    overlays = shell("ovs-show m.json -o overlays/", cwd=tmp_path)
    assert overlays.returncode == 0, overlays.stderr
    assert len(list((tmp_path / "overlays").rglob("*.png"))) == len(names)


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(ovs: Run, features: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('thresholds = "0.5,0.4"\n[cluster]\nlocal = false\n[extract]\nsize = 64\n')

    def thresholds(*arguments: str, env: dict[str, str] | None = None) -> set[float]:
        done = ovs("ovs-cluster", features, "--no-local", "--nms", "1", "--min-patches", "1", *arguments, env=env)
        assert done.returncode == 0, done.stderr
        return {annotation.get("threshold", annotation.get("count")) for annotation in json.loads(done.stdout)["annotations"]}

    config = ("--config", str(tmp_path / "c.toml"))
    assert thresholds() <= set(COUNTS)
    assert thresholds()
    assert thresholds("--thresholds", "0.6..0.1") <= {0.6, 0.5, 0.4, 0.3, 0.2, 0.1}
    assert thresholds(*config) == {0.5, 0.4}
    assert thresholds(*config, env={"OVS_THRESHOLDS": "0.3,0.2"}) == {0.3, 0.2}
    assert thresholds(*config, "--thresholds", "0.6,0.1", env={"OVS_THRESHOLDS": "0.3,0.2"}) == {0.6, 0.1}


def test_an_existing_output_is_replaced_only_when_complete(ovs: Run, features: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.json"
    target.write_bytes(b"mine")
    (tmp_path / "cut.npz").write_bytes(features.read_bytes()[:-100])
    assert ovs("ovs-cluster", "--no-local", tmp_path / "cut.npz", "-o", target).returncode == 65
    assert target.read_bytes() == b"mine"
    assert ovs("ovs-cluster", "--no-local", features, "-o", target).returncode == 0
    assert json.loads(target.read_bytes())["images"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut.npz", "m.json"]


@pytest.mark.parametrize("tool", ["ovs-extract", "ovs-cluster"])
def test_killed_and_resumed_gives_the_same_bytes(
    tool: str, ovs: Run, images: Path, features: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """The process is killed (-9) in the middle: extract on its image list, cluster on a pipe we hold."""
    whole = features.read_bytes()
    out = tmp_path / "out"
    part = tmp_path / "out.part"
    if tool == "ovs-extract":
        expected = whole
        arguments = [str(images), "--size", "128", "--resume", "-o", str(out)]
    else:
        arguments = ["--no-local", "--resume", "-o", str(out)]
        expected = ovs("ovs-cluster", "--no-local", stdin=whole).stdout
    process = subprocess.Popen([command(tool), *arguments], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    assert process.stdin is not None
    if tool == "ovs-cluster":
        process.stdin.write(whole[: int(len(whole) * 0.7)])
        process.stdin.flush()
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and not (part.exists() and part.stat().st_size > 0):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    assert not out.exists() or out.read_bytes() == expected
    again = ovs(tool, *arguments, stdin=whole if tool == "ovs-cluster" else b"")
    assert again.returncode == 0, again.stderr
    assert out.read_bytes() == expected
    assert not part.exists()


def test_going_on_with_another_shard_is_refused(ovs: Run, images: Path, tmp_path: Path) -> None:
    out, part = tmp_path / "out.npz", tmp_path / "out.npz.part"
    arguments = ("ovs-extract", images, "--size", 128, "--resume", "-o", out)
    assert ovs(*arguments, "--shard", "0/2").returncode == 0
    whole = out.read_bytes()
    out.unlink()
    part.write_bytes(whole[:-200])
    done = ovs(*arguments, "--shard", "1/2")
    assert done.returncode == 2
    one_line(done, "out.npz.part", "is shard 0/2, and this run is shard 1/2", "--shard")
    assert not out.exists()
    assert ovs(*arguments, "--shard", "0/2").returncode == 0
    assert out.read_bytes() == whole
