"""Every way we know to hold it wrong: one clear line, the right exit code, nothing half-written, nothing lost."""

import io
import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

from ovskit.cli.command import OvsApp
from ovskit.core.formats.streams.features import FeatureHeader, FeatureWriter
from ovskit.core.models.registry import load_backbone
from ovskit.core.records import FeatureMap, Image
from ovskit.core.runtime.settings import Options, option
from ovskit.core.runtime.signals import Terminated

from .conftest import Run, command, one_line, paint

SPEC = load_backbone("builtin", device=torch.device("cpu")).spec


def stream_of(*maps: FeatureMap) -> bytes:
    out = io.BytesIO()
    writer = FeatureWriter(out, FeatureHeader(SPEC.to_json(), (64, 64), "float16", "."))
    for item in maps:
        writer.write(item)
    writer.finish()
    return out.getvalue()


# Images


@pytest.mark.parametrize("path", ["absent", "absent.jpg", "absent/*.jpg"])
def test_a_missing_path(ovs: Run, path: str) -> None:
    done = ovs("ovs-extract", path)
    assert done.returncode == 66
    one_line(done, "absent")


def test_an_empty_folder(ovs: Run, tmp_path: Path) -> None:
    done = ovs("ovs-extract", tmp_path)
    assert done.returncode == 66
    one_line(done, "no images", ".jpg")


def test_an_empty_list(ovs: Run) -> None:
    done = ovs("ovs-extract", "-")
    assert done.returncode == 66
    one_line(done, "no path")


@pytest.fixture
def with_corrupt(tmp_path: Path) -> Path:
    folder = tmp_path / "imgs"
    folder.mkdir()
    for k in range(4):
        paint(k, (64, 48)).save(folder / f"{k}.jpg")
    data = (folder / "2.jpg").read_bytes()
    (folder / "2.jpg").write_bytes(data[: len(data) // 2])
    return folder


def test_a_corrupt_image_among_good_ones(ovs: Run, with_corrupt: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.npz"
    done = ovs("ovs-extract", with_corrupt, "--size", "64", "-o", out)
    assert done.returncode == 65
    one_line(done, "2.jpg")
    assert not out.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["imgs"]


def test_a_corrupt_image_skipped(ovs: Run, with_corrupt: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.npz"
    done = ovs("ovs-extract", with_corrupt, "--size", "64", "-o", out, "--on-error", "skip")
    assert done.returncode == 3
    text = done.stderr.decode()
    assert "skipped: 2.jpg" in text
    assert "skipped 1 image" in text
    with np.load(out) as file:
        ids = {name.split("/")[0] for name in file if "/" in name}
    assert ids == {"000000000001", "000000000002", "000000000004"}  # ids count the whole input
    clustered = ovs("ovs-cluster", out, "--no-local")
    assert clustered.returncode == 0, clustered.stderr


def test_an_unreadable_file(ovs: Run, tmp_path: Path) -> None:
    paint(0, (32, 32)).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "nowhere.png")
    done = ovs("ovs-extract", tmp_path, "--size", "32")
    assert done.returncode == 66
    one_line(done, "b.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file, so no mode makes one unreadable")
def test_a_file_without_permission(ovs: Run, tmp_path: Path) -> None:
    paint(0, (32, 32)).save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    done = ovs("ovs-extract", tmp_path, "--size", "32")
    assert done.returncode == 66
    one_line(done, "a.png", "Permission")


def test_too_many_pixels(ovs: Run, images: Path) -> None:
    done = ovs("ovs-extract", images, "--max-pixels", "1000")
    assert done.returncode == 65
    one_line(done, "scene-0.png", "--max-pixels")


def test_two_images_of_one_name(ovs: Run, images: Path) -> None:
    done = ovs("ovs-extract", images, images / "scene-0.png")
    assert done.returncode == 65
    one_line(done, "two images are named scene-0.png")


def test_the_same_stream_twice(ovs: Run, features: Path) -> None:
    done = ovs("ovs-cluster", "--no-local", features, features)
    assert done.returncode == 65
    one_line(done, "twice")


# Options


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "dino-vitb9"], ["dino-vitb8", "builtin", "clip:ARCH/TAG"]),
        (["--shard", "3/2"], ["0/2 to 1/2"]),
        (["--shard", "auto"], ["SLURM"]),
        (["--size", "0"], ["--size"]),
        (["--size", "big"], ["keep"]),
        (["--batch-size", "many"], ["auto"]),
        (["--facet", "keys"], ["key", "query"]),
        (["--device", "gpu"], ["cuda:N"]),
        (["--device", "cuda:99"], ["CUDA"]),
        (["--model", "handmade", "--cls"], ["CLS"]),
        (["--model", "handmade", "--pool", "cls"], ["CLS"]),
        (["--pool", "mean", "--cls"], ["choose one"]),
        (["--images", "x.json", "y"], ["--images"]),
        (["--resume"], ["-o PATH"]),
        (["--resume", "--no-pg", "-o", "x.npz"], ["--resume", "--no-pg"]),
        (["--frobnicate"], ["--frobnicate", "--help"]),
        (["-j", "0"], ["workers"]),
        (["--model", "handmade", "--weights", "w.pt"], ["weights"]),
    ],
)
def test_extract_options(ovs: Run, images: Path, arguments: list[str], words: list[str]) -> None:
    done = ovs("ovs-extract", images, *arguments)
    assert done.returncode == 2, done.stderr
    one_line(done, *words)
    assert done.stdout == b""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--thresholds", "0.1..0.6"], ["descend", "0.6..0.1"]),
        (["--thresholds", "0.6,0.6"], ["descend"]),
        (["--thresholds", "0.6..0.1:0"], ["positive"]),
        (["--thresholds", "2..0.1"], ["cosine"]),
        (["--thresholds", "high"], ["0.6..0.1"]),
        (["--thresholds", "nan,0.1"], ["cosine"]),
        (["--counts", "3,40"], ["descend"]),
        (["--counts", "many"], ["whole numbers"]),
        (["--connectivity", "6"], ["4 or 8"]),
        (["--small", "2"], ["1/1024"]),
        (["--nms", "1.5"], ["nms"]),
        (["--method", "magic"], ["sohes"]),
        (["--config", "absent.toml"], ["absent.toml"]),
    ],
)
def test_cluster_options(ovs: Run, features: Path, arguments: list[str], words: list[str]) -> None:
    done = ovs("ovs-cluster", features, *arguments)
    assert done.returncode == (66 if "absent.toml" in arguments else 2), done.stderr
    one_line(done, *words)
    assert done.stdout == b""


def test_a_setting_nobody_knows(ovs: Run, features: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[cluster]\nthreshold = 0.5\n")
    done = ovs("ovs-cluster", features, "--config", tmp_path / "c.toml")
    assert done.returncode == 2
    one_line(done, "'threshold'", "ovs-cluster")
    (tmp_path / "c.toml").write_text("[cluster\n")
    assert ovs("ovs-cluster", features, "--config", tmp_path / "c.toml").returncode == 2


def test_weights_that_cannot_be_had(ovs: Run, images: Path, tmp_path: Path) -> None:
    done = ovs("ovs-extract", images, "--model", "dino-vits16", env={"HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path)})
    assert done.returncode == 69
    one_line(done, "dino-vits16", "--weights", str(tmp_path))


def test_a_traceback_only_when_asked_for(ovs: Run) -> None:
    assert b"Traceback" not in ovs("ovs-extract", "absent", "-v").stderr
    assert b"Traceback" in ovs("ovs-extract", "absent", "-vv").stderr


# Streams


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_feature_stream(ovs: Run, features: Path, share: float) -> None:
    data = features.read_bytes()
    done = ovs("ovs-cluster", "--no-local", stdin=data[: int(len(data) * share)])
    assert done.returncode == 65
    one_line(done, "stdin")
    assert b"]}" not in done.stdout.splitlines()


def test_a_flipped_byte(ovs: Run, features: Path) -> None:
    data = bytearray(features.read_bytes())
    data[len(data) // 2] ^= 4
    done = ovs("ovs-cluster", "--no-local", stdin=bytes(data))
    assert done.returncode == 65
    one_line(done, "damaged")


@pytest.mark.slow
def test_two_hundred_cuts_and_flips_through_the_command(ovs: Run, features: Path) -> None:
    data = features.read_bytes()
    random = np.random.default_rng(0)
    for k, place in enumerate(random.integers(0, len(data), 200).tolist()):
        damaged = bytearray(data[:place] if k % 2 else data)
        if not k % 2:
            damaged[place] ^= 1 << int(random.integers(0, 8))
        done = ovs("ovs-cluster", "--no-local", stdin=bytes(damaged))
        assert done.returncode == 65, (place, done.stderr)
        one_line(done)


def test_a_foreign_npz(ovs: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "foreign.npz", patch=np.zeros((4, 4, 4)))
    done = ovs("ovs-cluster", tmp_path / "foreign.npz")
    assert done.returncode == 2
    one_line(done, "foreign.npz", "--root")
    done = ovs("ovs-cluster", stdin=(tmp_path / "foreign.npz").read_bytes())
    assert done.returncode == 65
    one_line(done, "numpy.savez")


def test_features_that_are_not_finite(ovs: Run) -> None:
    patch = np.ones((8, 8, 4), np.float16)
    bad = patch.copy()
    bad[3, 3, 3] = np.nan
    stream = stream_of(FeatureMap(Image(1, "good.jpg", 64, 64), patch), FeatureMap(Image(2, "bad.jpg", 64, 64), bad))
    done = ovs("ovs-cluster", "--no-local", stdin=stream)
    assert done.returncode == 65
    one_line(done, "bad.jpg")
    skipped = ovs("ovs-cluster", "--no-local", "--on-error", "skip", stdin=stream)
    assert skipped.returncode == 3
    assert [image["file_name"] for image in json.loads(skipped.stdout)["images"]] == ["good.jpg"]


def test_photographs_that_have_moved_or_changed(ovs: Run, tmp_path: Path) -> None:
    patch = np.random.default_rng(0).normal(size=(64, 64, SPEC.dim)).astype(np.float16)
    stream = stream_of(FeatureMap(Image(1, "gone.png", 64, 64), patch))
    assert ovs("ovs-cluster", stdin=stream, cwd=tmp_path).returncode == 0  # the built-in model recommends no local step
    done = ovs("ovs-cluster", "--local", "--min-patches", "1", stdin=stream, cwd=tmp_path)
    assert done.returncode == 66
    one_line(done, "gone.png", "--root", "--no-local")
    paint(1, (32, 64)).save(tmp_path / "gone.png")
    done = ovs("ovs-cluster", "--local", "--min-patches", "1", stdin=stream, cwd=tmp_path)
    assert done.returncode == 65
    one_line(done, "gone.png", "32×64")


def damage(old: bytes, new: bytes, data: bytes) -> bytes:
    assert old in data
    return data.replace(old, new, 1)


@pytest.mark.parametrize(
    "how",
    [
        lambda d: d[: len(d) // 2],
        lambda d: d[:-4],
        lambda d: b"",
        lambda d: b"not json",
        lambda d: b'{"images": 3}',
        lambda d: damage(b'"counts":"', b'"counts":"zzzzzzzzzzzzz', d),  # runs beyond the image and beyond 32 bits
        lambda d: damage(b'"size":[', b'"size":[9', d),
        lambda d: damage(b'"iscrowd":0', b'"iscrowd":', d),
    ],
)
def test_broken_masks(ovs: Run, masks: Path, tmp_path: Path, how) -> None:
    out = tmp_path / "page.html"
    done = ovs("ovs-show", "-o", out, stdin=how(masks.read_bytes()))
    assert done.returncode == 65
    one_line(done, "stdin")
    assert list(tmp_path.iterdir()) == []


def test_show_needs_to_know_where(ovs: Run, images: Path, masks: Path, tmp_path: Path) -> None:
    done = ovs("ovs-show", masks, "-o", tmp_path / "page")
    assert done.returncode == 2
    one_line(done, "page/", ".html")
    done = ovs("ovs-show", masks, "--root", tmp_path, "-o", tmp_path / "page.html")
    assert done.returncode == 66
    one_line(done, "scene-0.png")
    results = [{"image_id": 1, "category_id": 1, "segmentation": {"size": [2, 2], "counts": [0, 4]}, "score": 1.0}]
    done = ovs("ovs-show", "-o", tmp_path / "page.html", stdin=json.dumps(results).encode())
    assert done.returncode == 2
    one_line(done, "--root")


# Outputs and signals


def test_a_closed_pipe_is_silent(shell: Run, images: Path, features: Path, masks: Path) -> None:
    for line in (
        f"ovs-extract {images} --size 512 | head -c 1 > /dev/null",
        f"ovs-cluster --no-local --nms 1 --min-patches 1 {features} | head -1 > /dev/null",
        f"ovs-show {masks} | head -c 10 > /dev/null",
        "ovs-extract --help | true",
    ):
        done = shell(line + "; exit ${PIPESTATUS[0]}")
        assert done.returncode in ((141,) if "--help" not in line else (0, 141)), (line, done.stderr)
        assert done.stderr == b"", line


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk(shell: Run, images: Path, features: Path, masks: Path) -> None:
    for line in (f"ovs-extract {images} --size 64", f"ovs-cluster --no-local {features}", f"ovs-show {masks}"):
        for full in (line + " > /dev/full", line + " -o /dev/full") if "show" not in line else (line + " > /dev/full",):
            done = shell(full)
            assert done.returncode == 74, (full, done.stderr)
            one_line(done, "No space left")


def test_closed_streams(shell: Run, features: Path) -> None:
    for line, code in (("ovs-cluster <&-", 66), ("ovs-extract <&-", 2), (f"ovs-cluster --no-local {features} >&-", 74)):
        done = shell(line)
        assert done.returncode == code, (line, done.stderr)
        one_line(done)


def test_a_folder_that_is_not_there(ovs: Run, features: Path, tmp_path: Path) -> None:
    done = ovs("ovs-cluster", "--no-local", features, "-o", tmp_path / "no" / "m.json")
    assert done.returncode == 74
    one_line(done, "no folder")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_nothing_behind(environment: dict[str, str], features: Path, tmp_path: Path, number: int, code: int) -> None:
    process = subprocess.Popen(
        [command("ovs-cluster"), "--no-local", "-o", str(tmp_path / "m.json")],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
        # A shell starts background jobs, this test run perhaps, with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdin is not None
    data = features.read_bytes()
    process.stdin.write(data[: len(data) // 2])
    process.stdin.flush()
    deadline = time.monotonic() + 120
    while not list(tmp_path.iterdir()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [p.suffix for p in tmp_path.iterdir()] == [".tmp"]
    process.send_signal(number)
    assert process.wait(60) == code
    assert list(tmp_path.iterdir()) == []
    assert process.stderr is not None
    text = process.stderr.read().decode()
    assert text.count("\n") == 1
    assert "Traceback" not in text


def test_no_binary_on_a_terminal(environment: dict[str, str], images: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [command("ovs-extract"), str(images)], stdout=theirs, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment
    )
    os.close(theirs)
    _, errors = process.communicate(timeout=120)
    os.close(ours)
    assert process.returncode == 2
    assert b"terminal" in errors


# What nobody raised on purpose


class Sizes(Options):
    size: int = option(1, "Size.", flag=True)
    batch_size: int = option(1, "Batch size.", flag=True)
    workers: int = option(1, "Threads.", flag=True)


def ending(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Status and stderr of a command that ends with ``error``."""
    app = OvsApp("ovs-test", [])

    @app.ovs_command()
    def test(ctx: typer.Context, sizes: Sizes) -> None:
        raise error

    before = signal.getsignal(signal.SIGTERM)
    try:
        status = app.click_command().main([], standalone_mode=False)
    finally:
        signal.signal(signal.SIGTERM, before)
    return status, capsys.readouterr().err


def test_memory_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    advice = "use a smaller --size or --batch-size, or fewer -j workers\n"
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    for error, words in (
        (caught.value, "can't allocate memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "CUDA"),
        (MemoryError("no"), "out of memory: no; "),
        (MemoryError(), "out of memory; use"),
    ):
        status, said = ending(error, capsys)
        assert status == 1
        assert words in said
        assert said.startswith("ovs-test: out of memory")
        assert said.endswith(advice)
    status, said = ending(RuntimeError("odd"), capsys)
    assert (status, said) == (1, "ovs-test: bug: RuntimeError: odd; run again with -vv for the traceback and please report it\n")


@pytest.mark.parametrize(("kind", "status"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_a_signal_says_what_it_brings(capsys: pytest.CaptureFixture[str], kind: type[BaseException], status: int) -> None:
    for error, words in ((kind(), "nothing half-written is left"), (kind("go on from 3"), "go on from 3")):
        found, said = ending(error, capsys)
        assert found == status
        assert said.endswith(f"ted; {words}\n")
