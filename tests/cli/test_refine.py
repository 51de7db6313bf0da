"""ovs-refine as users run it."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from pycocotools import mask as coco_mask

from ovskit.core.refine.methods import REFINE

from .conftest import Run, one_line


def annotations(path: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(path.read_bytes())["annotations"]
    return found


# The scenes are small: at the usual distances most of their masks would be spread thin.
SETTINGS = {"pamr": "--set pamr.dilations=1,2"}


@pytest.mark.parametrize("method", ["snap", "guided", "convcrf", "crf", "pamr", "snap,guided", "none"])
def test_every_method_through_the_pipe(shell: Run, masks: Path, images: Path, tmp_path: Path, method: str) -> None:
    how = f"--method {method} {SETTINGS.get(method, '')}"
    done = shell(f"cat {masks} | ovs-refine {how} -j 2 --root {images} | tee r.json | ovs-hier -o f.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    before, after = annotations(masks), annotations(tmp_path / "r.json")
    assert 0.7 * len(before) <= len(after) <= len(before)
    where = {(a["file_name"], a["score"], a["threshold"]): a for a in before}
    changed = 0
    for annotation in after:
        old = where[annotation["file_name"], annotation["score"], annotation["threshold"]]
        changed += annotation["segmentation"] != old["segmentation"]
    assert (changed > len(after) // 4) == (method != "none")
    entry = json.loads((tmp_path / "f.json").read_bytes())["info"]["ovskit"]["pg"][-2]
    assert entry["tool"] == "ovs-refine"
    assert f"--method {method}" in entry["command"]
    assert "supervised" not in entry


@pytest.mark.parametrize("method", ["snap", "convcrf", "pamr"])
def test_any_number_of_workers(shell: Run, masks: Path, method: str) -> None:
    command = f"ovs-refine --method {method} --no-pg {masks}"
    done = shell(f"{command} -j 1 | cmp - <({command} -j 3)")
    assert done.returncode == 0, done.stdout


def test_the_default_is_unsupervised_and_counts_what_it_drops(ovs: Run, masks: Path, tmp_path: Path) -> None:
    done = ovs("ovs-refine", masks, "-o", tmp_path / "r.json", "--max-area", "0.3")
    assert done.returncode == 0
    gone = len(annotations(masks)) - len(annotations(tmp_path / "r.json"))
    assert gone > 0
    one_line(done, f"dropped {gone} of {len(annotations(masks))} masks", "larger than 0.3 of the image")


def test_a_killed_run_goes_on_where_it_was(ovs: Run, masks: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.json", tmp_path / "out.json"
    assert ovs("ovs-refine", masks, "-o", whole).returncode == 0
    lines = whole.read_bytes().splitlines(keepends=True)
    (tmp_path / "out.json.part").write_bytes(b"".join(lines[: len(lines) // 2]))
    done = ovs("ovs-refine", masks, "-o", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == whole.read_bytes()


def test_without_photographs_nothing_needs_them(ovs: Run, masks: Path, tmp_path: Path) -> None:
    away = tmp_path / "m.json"
    away.write_bytes(masks.read_bytes().replace(b'"root":"', b'"root":"/nowhere', 1))
    assert ovs("ovs-refine", away, "--method", "none").returncode == 0
    done = ovs("ovs-refine", away)
    assert done.returncode == 66
    one_line(done, "scene-0.png")


def test_a_photograph_that_has_changed(ovs: Run, masks: Path, images: Path, tmp_path: Path) -> None:
    root = tmp_path / "imgs"
    root.mkdir()
    for path in images.iterdir():
        (root / path.name).write_bytes(path.read_bytes())
    Pillow.new("RGB", (50, 40)).save(root / "scene-1.png")
    done = ovs("ovs-refine", masks, "--root", root, "-o", tmp_path / "out.json")
    assert done.returncode == 65
    one_line(done, "scene-1.png", "50×40")
    assert not (tmp_path / "out.json").exists()
    done = ovs("ovs-refine", masks, "--root", root, "-o", tmp_path / "out.json", "--on-error", "skip")
    assert done.returncode == 3
    assert "scene-1.png" in done.stderr.decode()
    assert {a["file_name"] for a in annotations(tmp_path / "out.json")} == {f"scene-{k}.png" for k in (0, 2, 3, 4)}


def test_masks_that_do_not_say_where(ovs: Run, masks: Path, tmp_path: Path) -> None:
    document = json.loads(masks.read_bytes())
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps({"images": document["images"], "annotations": document["annotations"]}))
    done = ovs("ovs-refine", plain)
    assert done.returncode == 2
    one_line(done, "--root")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "magic"], ["magic", "snap, guided, convcrf, crf, cascadepsp, pamr"]),
        (["--method", "snap,magic"], ["magic"]),
        (["--joint"], ["--joint has no effect with --method snap,guided"]),
        (["--method", "none", "--joint"], ["--joint has no effect with --method none"]),
        (["--min-iou", "2"], ["--min-iou"]),
        (["--min-component", "-1"], ["--min-component"]),
        (["--set", "radius=8"], ["METHOD.NAME=VALUE"]),
        (["--method", "guided", "--set", "guided.size=8"], ["guided has radius, eps, share"]),
        (["--method", "guided", "--set", "guided.radius=big"], ["a whole number"]),
        (["--method", "guided", "--set", "guided.eps=nan"], ["a number"]),
        (["--method", "guided", "--set", "guided.radius=-3"], ["radius=-3", "a whole number from 1 to 90"]),
        (["--method", "guided", "--set", "guided.eps=inf"], ["a number from 1e-06 up"]),
        (["--method", "convcrf", "--set", "convcrf.window=4"], ["an odd one from 3 up"]),
        (["--method", "guided", "--set", "crf.margin=3"], ["--method has guided"]),
        (["--method", "none", "--set", "crf.margin=3"], ["none has no settings"]),
        (["--resume"], ["--resume", "-o"]),
        (["--resume", "--no-pg", "-o", "x.json"], ["--resume", "--no-pg"]),
    ],
)
def test_options_that_make_no_sense(ovs: Run, masks: Path, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    done = ovs("ovs-refine", masks, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    one_line(done, *words)
    assert list(tmp_path.iterdir()) == []


def test_settings_reach_the_method(shell: Run, masks: Path) -> None:
    same = shell(f"cmp <(ovs-refine --method guided --no-pg {masks}) <(ovs-refine --method guided --set guided.radius=16 --no-pg {masks})")
    other = shell(f"cmp <(ovs-refine --method guided --no-pg {masks}) <(ovs-refine --method guided --set guided.radius=3 --no-pg {masks})")
    assert (same.returncode, other.returncode) == (0, 1)


def test_cascadepsp_without_its_weights(shell: Run, masks: Path, tmp_path: Path) -> None:
    done = shell(f"HOME={tmp_path} ovs-refine --method cascadepsp {masks} -o out.json", cwd=tmp_path)
    assert done.returncode == 69
    one_line(done, "cascadepsp", "--weights")
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("method", [method.name for method in REFINE])
def test_help_of_a_method_has_every_option_and_its_default(ovs: Run, method: str) -> None:
    done = ovs("ovs-refine", "--help", method)
    assert done.returncode == 0
    text = " ".join(done.stdout.decode().split())
    own = text.partition(f"Method {method}: ")[2]
    for field in dataclasses.fields(REFINE.get(method).options):
        if field.default is None or field.default is False:
            assert f"{method}.{field.name}=" in own or f"--{field.name}" in own
            continue
        said = re.search(rf"--set {method}\.{field.name}=\S+ [^\[]*\[default ([^;\]]*)", own)
        assert said, field.name
        if isinstance(field.default, tuple):
            assert tuple(map(float, said[1].split(","))) == field.default
        elif isinstance(field.default, str):
            assert said[1] == field.default
        else:
            assert said[1] == "true" if field.default is True else float(said[1]) == field.default


TOY = """
from ovskit.core.runtime.methods import Method
from ovskit.core.runtime.settings import Options, option


class ToyOptions(Options):
    rows: int = option(1, "How far masks fall, in pixels.", low=0, flag="--toy-rows")


def run(job, options):
    import numpy as np

    from ovskit.core.masks.rle import decode, encode
    from ovskit.core.refine.refiner import Refiner

    def refine(pixels, masks, table):
        assert len(table) == len(masks)
        assert all(pixels.shape[:2] == (mask.rle.height, mask.rle.width) for mask in masks)
        fallen = []
        for mask in masks:
            before = decode(mask.rle)
            after = np.zeros_like(before)
            after[options.rows :] = before[: len(before) - options.rows]
            fallen.append(encode(after))
        return fallen

    return Refiner("toy", refine)


METHOD = Method("toy", "masks fall.", ToyOptions, run)
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with a package of somebody else's that adds a refiner."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy_refiner.py").write_text(TOY)
    about = folder / "toy_refiner-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-refiner\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[ovskit.methods]\nrefine.toy = toy_refiner:METHOD\n")
    return {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize("given", [("--set", "toy.rows=3"), ("--toy-rows", 3)])
def test_a_refiner_of_somebody_else(ovs: Run, masks: Path, tmp_path: Path, toy: dict[str, str], given: tuple[object, ...]) -> None:
    out = tmp_path / "out.json"
    everything = ("--min-iou", 0, "--max-area", 1, "--min-component", 0)
    done = ovs("ovs-refine", masks, "--method", "toy,toy", *given, *everything, "-o", out, env=toy)
    assert done.returncode == 0, done.stderr
    before = [coco_mask.decode(a["segmentation"]) for a in annotations(masks)]
    after = [coco_mask.decode(a["segmentation"]) for a in annotations(out)]
    left = [one for one in before if one[:-6].any()]
    assert len(after) == len(left) > 20
    for one, other in zip(left, after, strict=True):
        assert not other[:6].any()
        np.testing.assert_array_equal(other[6:], one[:-6])
    entry = json.loads(out.read_bytes())["info"]["ovskit"]["pg"][-1]
    assert "--method toy,toy" in entry["command"]
    assert " ".join(map(str, given)) in entry["command"]


def test_a_refiner_of_somebody_else_is_in_the_help(ovs: Run, masks: Path, toy: dict[str, str]) -> None:
    assert re.search(r"^ +toy +masks fall\.$", ovs("ovs-refine", "--help", env=toy).stdout.decode(), re.M)
    assert "--toy-rows" in ovs("ovs-refine", "--help", "toy", env=toy).stdout.decode()
    one_line(ovs("ovs-refine", masks, "--method", "magic", env=toy), "magic", "pamr, toy")
    assert "toy" not in ovs("ovs-refine", "--help").stdout.decode()
