"""A method that another package brings: found in --help and the manual, and run like ours."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Run, one_line

TOY = '''
"""Regions of a toy: the two halves of every image."""

from dataclasses import dataclass

from ovskit.core.cluster.job import each_image
from ovskit.core.runtime.methods import Method
from ovskit.core.runtime.settings import Options, option


@dataclass(frozen=True, slots=True)
class ToyOptions(Options):
    """The options of the toy."""

    where: float = option(0.5, "Where the image is cut, as a share of its width.", flag="--cut-at", low=0.1, high=0.9, metavar="SHARE")
    halves: int = option(2, "How many of the halves are kept.", low=1, high=2)


def halves(features, options):
    """The left and the right part of an image as masks."""
    import numpy as np

    from ovskit.core.records import RunTable
    from ovskit.core.masks.rle import encode
    from ovskit.core.records import Mask, MaskSet

    image = features.image
    cut = round(image.width * options.where)
    masks = []
    for k, (left, right) in enumerate([(0, cut), (cut, image.width)][: options.halves]):
        dense = np.zeros((image.height, image.width), bool)
        dense[:, left:right] = True
        masks.append(Mask(k + 1, image.id, encode(dense), int(dense.sum()), (left, 0, right - left, image.height), score=1.0))
    return MaskSet(image, tuple(masks))


METHOD = Method("toy", "The two halves of every image.", ToyOptions, each_image(halves))
'''
ENTRY = "[ovskit.methods]\ncluster.toy = toy_regions:METHOD\n"


def install(folder: Path, module: str = TOY, entry: str = ENTRY) -> dict[str, str]:
    """A package of one file as pip leaves it in ``folder``, and the environment that finds it."""
    (folder / "toy_regions.py").write_text(module)
    about = folder / "toy_regions-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-regions\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(entry)
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


def test_a_method_of_another_package(process: Run, features: Path, tmp_path: Path) -> None:
    env = install(tmp_path)
    text = process("ovs-cluster", "--help", env=env).stdout.decode()
    assert re.search(r"^  +toy +The two halves of every image\.$", text, re.M)
    assert re.search(r"^  toy +--cut-at$", text, re.M)
    text = process("ovs-cluster", "--help", "toy", env=env).stdout.decode()
    for word in ("--cut-at SHARE", "--set halves=N", "from 0.1 to 0.9"):
        assert word in text
    assert "--thresholds" not in text
    done = process("ovs-cluster", "--method", "toy", "--cut-at", "0.25", features, env=env)
    assert done.returncode == 0, done.stderr.decode()
    document = json.loads(done.stdout)
    widths = {image["id"]: image["width"] for image in document["images"]}
    assert len(document["annotations"]) == 2 * len(widths)
    for annotation in document["annotations"]:
        whole = widths[annotation["image_id"]]
        assert annotation["bbox"][2] in (round(whole / 4), whole - round(whole / 4))
    assert "ovs-cluster --method toy --cut-at 0.25" in document["info"]["ovskit"]["pg"][-1]["command"]
    one = process("ovs-cluster", "--method", "toy", "--set", "halves=1", features, env=env)
    assert len(json.loads(one.stdout)["annotations"]) == len(widths)
    several = process("ovs-cluster", "--method", "toy", "--cut-at", "0.25", "-j", 3, features, env=env)
    assert several.stdout == done.stdout


def test_its_options_are_checked_as_ours(process: Run, features: Path, tmp_path: Path) -> None:
    env = install(tmp_path)
    for words, said in (
        (["--cut-at", "2"], "--cut-at 2: give a number from 0.1 to 0.9"),
        (["--set", "halves=3"], "--set halves=3: give a whole number from 1 to 2"),
        (["--set", "halves=x"], "--set halves=x: give a whole number"),
        (["--set", "nothing=1"], "--set nothing=1: choose from where, halves"),
        (["--nms", "0.5"], "--nms has no effect with --method toy"),
    ):
        done = process("ovs-cluster", "--method", "toy", *words, features, env=env)
        assert done.returncode == 2
        one_line(done, said)
    done = process("ovs-cluster", "--cut-at", "0.5", features, env=env)
    one_line(done, "--cut-at has no effect with --method sohes")
    done = process("ovs-cluster", "--method", "toy", features)
    assert done.returncode == 2
    one_line(done, "--method toy: choose from sohes, kmeans, lightcluster")


def test_the_manual_has_it(tmp_path: Path) -> None:
    env = {**os.environ, **install(tmp_path)}
    code = "import sys; sys.path.insert(0, 'man'); import generate; print(generate.page('cluster'))"
    root = Path(__file__).parents[2]
    text = subprocess.run([sys.executable, "-c", code], cwd=root, env=env, capture_output=True, text=True, check=True).stdout
    for word in (".SS Method toy", "cut\\-at SHARE", "halves=N"):
        assert word in text


@pytest.mark.parametrize(
    ("module", "entry", "said"),
    [
        ("import nothing_like_it", ENTRY, "cannot be loaded: ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("METHOD = 3", ENTRY, "is not a Method called toy"),
        (TOY, ENTRY.replace("cluster.toy", "cluster.kmeans"), "has a name that another method has"),
    ],
)
def test_a_broken_package_is_named_and_ours_go_on(process: Run, features: Path, tmp_path: Path, module: str, entry: str, said: str) -> None:
    env = install(tmp_path, module, entry)
    done = process("ovs-cluster", features, env=env)
    assert done.returncode == 0
    one_line(done, said)
    done = process("ovs-cluster", "--method", "toy", features, env=env)
    assert done.returncode == 2
    if "cluster.toy" in entry:
        one_line(done, f"--method toy: toy_regions:METHOD (entry point cluster.toy) {said}")


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ('seed: str = option("x", "Seed.", flag=True)', "--seed"),  # ours is a whole number
        ('cut: float = option(0.5, "Cut.", flag="--nms")', "--nms"),
        ('output: str = option("x", "Output.", flag="--toy-output")', "--toy-output"),  # the name of what every command has
    ],
)
def test_an_option_that_is_another_one_here(process: Run, features: Path, tmp_path: Path, options: str, flag: str) -> None:
    begin, end = TOY.index("    where: float"), TOY.index("\n\n\ndef halves")
    env = install(tmp_path, TOY[:begin] + f"    {options}" + TOY[end:])
    done = process("ovs-cluster", features, env=env)
    assert done.returncode == 0
    one_line(done, f"toy of another package: its option {flag} is another one here")
    done = process("ovs-cluster", "--method", "toy", features, env=env)
    assert done.returncode == 2
    one_line(done, f"--method toy: toy of another package: its option {flag}")
