"""``ovs-cluster --method kmeans`` and ``lightcluster`` as users run them."""

import json
from pathlib import Path

import numpy as np
import pytest

from ovskit.core.masks.rle import decode
from ovskit.core.records import Rle

from .conftest import Run, one_line


@pytest.fixture(scope="module")
def with_cls(images: Path, ovs: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cls") / "features.npz"
    done = ovs("ovs-extract", images, "--size", 128, "--cls", "-o", path)
    assert done.returncode == 0, done.stderr.decode()
    return path


@pytest.fixture(scope="module")
def two(images: Path, ovs: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The features of two of ``images``, for what is refined over and over: a mask takes the CRFs long."""
    folder = tmp_path_factory.mktemp("two")
    done = ovs("ovs-extract", *sorted(images.iterdir())[:2], "--root", images, "--size", 128, "--cls", "-o", folder / "features.npz")
    assert done.returncode == 0, done.stderr.decode()
    return folder / "features.npz"


def masks_of(done: object) -> list[dict]:
    assert done.returncode == 0, done.stderr.decode()  # type: ignore[attr-defined]
    return json.loads(done.stdout)["annotations"]  # type: ignore[attr-defined]


def test_clusters_of_an_image_are_all_of_it(features: Path, ovs: Run) -> None:
    found = masks_of(ovs("ovs-cluster", "--method", "kmeans", "-k", 5, features))
    for image in range(1, 6):
        own = [one for one in found if one["image_id"] == image]
        assert len(own) == 5
        assert {one["category_id"] for one in own} == {1}
        assert {one["cluster"] for one in own} == set(range(5))
        dense = [decode(Rle(*one["segmentation"]["size"], one["segmentation"]["counts"].encode())) for one in own]
        np.testing.assert_array_equal(np.sum(dense, axis=0), np.ones((96, 120)))
    pieces = masks_of(ovs("ovs-cluster", "--method", "kmeans", "-k", 5, "--components", "--set", "min_patches=3", features))
    assert len(pieces) != len(found)


def test_workers_change_nothing(features: Path, with_cls: Path, ovs: Run) -> None:
    for arguments in (
        ("kmeans", "-k", 4),
        ("kmeans", "-k", 3, "--scope", "dataset"),
        ("kmeans", "-k", 3, "--scope", "batch", "--batch", 2, "--set", "metric=euclidean"),
        ("lightcluster", "--set", "superclasses=2", "--set", "vote=two", "--set", "side=share"),
    ):
        begin = ("ovs-cluster", "--no-pg", with_cls if arguments[0] == "lightcluster" else features, "--method", *arguments)
        assert masks_of(ovs(*begin, "-j", 1)) == masks_of(ovs(*begin, "-j", 3))


def test_centroids_are_kept_for_other_images(features: Path, ovs: Run, tmp_path: Path) -> None:
    begin = ("ovs-cluster", "--method", "kmeans", "-k", 4, "--scope", "dataset")
    first = masks_of(ovs(*begin, "--save", tmp_path / "c.npz", features))
    assert {one["category_id"] for one in first} <= {1, 2, 3, 4}
    again = ovs(*begin, "--from", tmp_path / "c.npz", features)
    assert masks_of(again) == first
    assert f"--from {tmp_path}/c.npz" in json.loads(again.stdout)["info"]["ovskit"]["pg"][-1]["command"]
    np.load(tmp_path / "c.npz", allow_pickle=False).close()
    done = ovs("ovs-cluster", "--method", "lightcluster", "--from", tmp_path / "c.npz", features)
    assert done.returncode == 65
    one_line(done, "c.npz", "--method kmeans")


def test_light_through_a_pipe(images: Path, shell: Run, tmp_path: Path) -> None:
    line = (
        f"ovs-extract {images} --size 128 --cls -q | ovs-cluster --method lightcluster --set superclasses=2 --save {tmp_path}/c.npz "
        "| ovs-refine -q | ovs-show -q -o "
        f"{tmp_path}/page.html"
    )
    done = shell(line)
    assert done.returncode == 0, done.stderr.decode()
    assert b"features are read twice: copying stdin to" in done.stderr
    assert (tmp_path / "c.npz").exists()


def test_every_level_of_light(with_cls: Path, ovs: Run, tmp_path: Path) -> None:
    begin = ("ovs-cluster", "--method", "lightcluster", "--set", "superclasses=2", with_cls)
    kept = {}
    for level in ("final", "image", "category", "dataset"):
        kept[level] = masks_of(ovs(*begin, "--emit", level, "--save", tmp_path / "c.npz"))
        assert {one["source"] for one in kept[level]} == {level}
    again = ovs("ovs-cluster", "--method", "lightcluster", "--from", tmp_path / "c.npz", "--emit", "category", with_cls)
    assert masks_of(again) == kept["category"]


def test_a_crf_starts_from_the_soft_margin(two: Path, ovs: Run, tmp_path: Path) -> None:
    begin = ("ovs-cluster", "--method", "lightcluster", "--set", "superclasses=2", two, "-o")
    assert ovs(*begin, tmp_path / "soft.json").returncode == 0
    assert ovs(*begin, tmp_path / "hard.json", "--no-soft").returncode == 0
    soft, hard = (json.loads((tmp_path / name).read_text())["annotations"] for name in ("soft.json", "hard.json"))
    assert [{k: v for k, v in one.items() if k != "soft"} for one in soft] == hard
    assert all("soft" in one for one in soft)
    refine = ("ovs-refine", "--method", "convcrf", "--min-iou", "0")
    by_soft, by_hard, by_order = (
        masks_of(ovs(*refine, *more))
        for more in ((tmp_path / "soft.json",), (tmp_path / "hard.json",), (tmp_path / "soft.json", "--set", "convcrf.sharpness=inf"))
    )
    assert by_order == by_hard != by_soft
    assert not any("soft" in one for one in by_soft)
    broken = (tmp_path / "soft.json").read_text().replace('"step":', '"stop":')
    (tmp_path / "broken.json").write_text(broken)
    done = ovs(*refine, tmp_path / "broken.json", "-o", tmp_path / "out.json")
    assert done.returncode == 65
    one_line(done, "mask 1", "soft")
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("method", ["sohes", "kmeans"])
def test_a_crf_starts_from_the_grid(two: Path, ovs: Run, tmp_path: Path, method: str) -> None:
    begin = ("ovs-cluster", "--method", method, two, "-o")
    assert ovs(*begin, tmp_path / "soft.json").returncode == 0
    assert ovs(*begin, tmp_path / "hard.json", "--no-soft").returncode == 0
    soft, hard = (json.loads((tmp_path / name).read_text())["annotations"] for name in ("soft.json", "hard.json"))
    assert [{k: v for k, v in one.items() if k != "soft"} for one in soft] == hard
    assert all(one["soft"] == {"grid": [16, 16]} for one in soft)
    # What does not move boundaries passes it on, here to a third command.
    assert ovs("ovs-hier", tmp_path / "soft.json", "-o", tmp_path / "forest.json").returncode == 0
    refine = ("ovs-refine", "--method", "convcrf", "--min-iou", "0", "--no-pg")
    by_soft, by_hard, by_order, by_forest = (
        masks_of(ovs(*refine, *more))
        for more in (
            (tmp_path / "soft.json",),
            (tmp_path / "hard.json",),
            (tmp_path / "soft.json", "--set", "convcrf.sharpness=inf"),
            (tmp_path / "forest.json",),
        )
    )
    assert by_order == by_hard != by_soft
    assert not any("soft" in one for one in by_soft + by_forest)
    assert [one["segmentation"] for one in by_forest] == [one["segmentation"] for one in by_soft]
    if method == "sohes":  # k-means' masks are not a partition of a level
        together = ("ovs-refine", "--method", "crf", "--joint", "--min-iou", "0", "--no-pg")
        by_soft, by_hard, by_order = (
            masks_of(ovs(*together, *more))
            for more in ((tmp_path / "soft.json",), (tmp_path / "hard.json",), (tmp_path / "soft.json", "--set", "crf.sharpness=inf"))
        )
        assert by_order == by_hard != by_soft
    broken = (tmp_path / "soft.json").read_text().replace('"grid":[16,16]', '"grid":[16,16],"box":[0,0,9999,1]')
    (tmp_path / "broken.json").write_text(broken)
    done = ovs(*refine, tmp_path / "broken.json")
    assert done.returncode == 65
    one_line(done, "mask 1", "soft")


def test_what_does_not_go_together(features: Path, with_cls: Path, ovs: Run, tmp_path: Path) -> None:
    for arguments, code, words in (
        (("--method", "kmeans", "--nms", "0.5"), 2, ["--nms", "kmeans"]),
        (("-k", "3"), 2, ["--clusters", "sohes"]),
        (("--method", "lightcluster", "-k", "3"), 2, ["--clusters", "lightcluster"]),
        (("--method", "kmeans", "--save", tmp_path / "c.npz"), 2, ["--scope dataset"]),
        (("--method", "lightcluster"), 65, ["--cls"]),
        (("--method", "lightcluster", "--set", "vote=three"), 2, ["vote=three", "and or two"]),
        (("--method", "kmeans", "--device", "cuda:99"), 2, ["cuda"]),
        (("--method", "kmeans", "--set", "blobs=3"), 2, ["min_patches"]),
        (("--method", "kmeans", "--scope", "dataset", "--from", tmp_path / "gone.npz"), 66, ["gone.npz"]),
    ):
        done = ovs("ovs-cluster", features, *arguments, "-o", tmp_path / "out.json")
        assert done.returncode == code, (arguments, done.stderr.decode())
        one_line(done, *words)
        assert not (tmp_path / "out.json").exists()
    done = ovs("ovs-cluster", with_cls, "--method", "lightcluster", "--set", "superclasses=9")
    assert done.returncode == 65
    one_line(done, "9 superclasses of 5 images")
    done = ovs("ovs-cluster", features, "--method", "kmeans", "-k", 4000)
    assert done.returncode == 65
    one_line(done, "256 patches, too few for 4000 clusters")


def test_nothing_is_written_over_what_is_read(features: Path, with_cls: Path, ovs: Run, tmp_path: Path) -> None:
    mine, kept, out = tmp_path / "mine.npz", tmp_path / "c.npz", tmp_path / "out.json"
    mine.write_bytes(with_cls.read_bytes())
    dataset = ("ovs-cluster", "--method", "kmeans", "--scope", "dataset")
    assert ovs(*dataset, "-k", 3, mine, "--save", kept, "-o", out).returncode == 0
    before = {path: path.read_bytes() for path in (mine, kept, out)}
    for arguments, words in (
        ((*dataset, mine, "--save", f"{tmp_path}/./mine.npz"), ["--save"]),
        (("ovs-cluster", "--method", "lightcluster", mine, "--save", mine), ["--save"]),
        ((*dataset, mine, "--save", out, "-o", out), ["--save"]),
        ((*dataset, mine, "--save", "-"), ["--save"]),
        ((*dataset, mine, "--from", kept, "-o", kept), ["--from"]),
        ((*dataset, mine, "--from", kept, "--save", tmp_path / "d.npz"), ["--save", "--from"]),
        ((*dataset, mine, "--from", kept, "-k", 7), ["-k 7", "3 clusters"]),
        ((*dataset, mine, "--from", kept, "--seed", 7), ["--seed", "--from"]),
        ((*dataset, mine, "--from", kept, "--set", "iterations=3"), ["iterations=3", "--from"]),
        ((*dataset, "-", "--from", "-"), ["stdin"]),
        (("ovs-cluster", "--method", "lightcluster", "-", "-"), ["stdin"]),
        (("ovs-cluster", "--method", "kmeans", mine, "--set", "min_patches=-5"), ["min_patches"]),
    ):
        done = ovs(*arguments)
        assert done.returncode == 2, (arguments, done.stderr.decode())
        one_line(done, *words)
    light = ("ovs-cluster", "--method", "lightcluster", mine)
    assert ovs(*light, "--set", "superclasses=2", "--save", tmp_path / "l.npz").returncode == 0
    done = ovs(*light, "--from", tmp_path / "l.npz", "--set", "superclasses=2")
    assert done.returncode == 2
    one_line(done, "superclasses=2", "--from")
    assert ovs(*light, "--from", tmp_path / "l.npz", "--set", "vote=two", "--seed", 3).returncode == 0
    assert {path: path.read_bytes() for path in before} == before
    assert ovs(*dataset, mine, "--from", kept, "--components", "--set", "min_patches=3").returncode == 0


def test_all_patches_and_a_cut_pipe(with_cls: Path, ovs: Run) -> None:
    every = ovs("ovs-cluster", "--method", "kmeans", "--scope", "dataset", "-k", 3, "--set", "max_points=0", with_cls)
    assert len({one["image_id"] for one in masks_of(every)}) == 5
    done = ovs("ovs-cluster", "--method", "lightcluster", stdin=with_cls.read_bytes()[:-500])
    assert done.returncode == 65
    assert "ovs-cluster: stdin" in done.stderr.decode()
    assert "ovskit-features" not in done.stderr.decode().splitlines()[-1]


def test_a_setting_nobody_knows_is_told_all_there_are(ovs: Run, features: Path) -> None:
    done = ovs("ovs-cluster", features, "--method", "kmeans", "--set", "rounds=3")
    assert done.returncode == 2
    one_line(done, "components", "iterations", "restarts")
    done = ovs("ovs-cluster", features, "--method", "lightcluster", "--set", "k=3")
    assert done.returncode == 2
    one_line(done, "--set k=3: choose from soft, save, source, seed", "superclasses")


def test_what_has_a_flag_is_set_as_well(ovs: Run, features: Path) -> None:
    words = ("ovs-cluster", features, "--method", "kmeans", "--no-pg")
    for flags, settings in ((["--seed", "1", "-k", "3"], ["seed=1", "clusters=3"]), (["--no-soft"], ["soft=false"])):
        wanted = ovs(*words, *flags)
        assert wanted.returncode == 0
        assert ovs(*words, *(word for text in settings for word in ("--set", text))).stdout == wanted.stdout
    both = ovs(*words, "--set", "clusters=3", "-k", "4")
    assert both.stdout == ovs(*words, "-k", "4").stdout  # a flag goes before
