"""What a person imports from ovskit.core: the examples of the guide, and the same masks as the commands make."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

import ovskit.core as ovs
from ovskit.core.runtime.errors import InputError, MissingInputError, UsageError
from tests.scenes import write_scenes

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "python.md"
README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with imgs/, instances.json, and the pipeline's own output by the commands."""
    folder = tmp_path_factory.mktemp("python")
    write_scenes(folder, range(1, 4), side=96)
    (folder / "images").rename(folder / "imgs")
    (folder / "truth.json").rename(folder / "instances.json")
    return folder


def blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text("utf-8"), flags=re.M | re.S)


def test_the_guide_runs(scenes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(scenes)
    first = sorted((scenes / "imgs").iterdir())[0].name
    names: dict[str, Any] = {}
    for block in blocks(GUIDE):
        exec(compile(ast.parse(block.replace("0001.png", first)), str(GUIDE), "exec"), names)
    said = capsys.readouterr().out
    assert "min_patches 0: give a whole number from 1 up" in said
    assert json.loads((scenes / "forest.json").read_text())["annotations"]


def test_the_readme_runs(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scenes)
    first = sorted((scenes / "imgs").iterdir())[0].name
    (block,) = blocks(README)
    exec(compile(ast.parse(block.replace("photo.jpg", f"imgs/{first}")), str(README), "exec"), {})


def test_importing_costs_nothing() -> None:
    code = "import sys, ovskit.core as o; print(sorted({'torch', 'numpy', 'numba', 'cv2', 'typer'} & set(sys.modules)), len(dir(o)) > 13)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"
    with pytest.raises(AttributeError, match="no_such_thing"):
        ovs.no_such_thing  # noqa: B018


def test_the_pipeline_is_the_commands(scenes: Path, tmp_path: Path) -> None:
    """The same annotations, byte for byte, as the commands write without provenance."""
    bin = Path(sys.executable).parent
    steps = "ovs-extract --no-pg imgs | ovs-cluster --no-pg | ovs-refine --no-pg | ovs-hier --no-pg"
    line = " | ".join(f"{bin}/{step}" for step in steps.split(" | "))
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], cwd=scenes, capture_output=True, check=True)
    theirs = json.loads(done.stdout)
    features = ovs.extract_features(scenes / "imgs")
    ovs.write_features(tmp_path / "f.npz", features)
    for given in (ovs.extract_features(scenes / "imgs"), ovs.read_features(tmp_path / "f.npz"), tmp_path / "f.npz"):
        ovs.write_masks(tmp_path / "m.json", ovs.grow_forest(ovs.refine_masks(ovs.cluster_features(given))))
        ours = json.loads((tmp_path / "m.json").read_text())
        assert ours["annotations"] == theirs["annotations"]
        assert ours["images"] == theirs["images"]

    path = sorted((scenes / "imgs").iterdir())[0]
    expected = [one for one in theirs["annotations"] if one["file_name"] == path.name]
    for image in (path, str(path), np.asarray(Pillow.open(path).convert("RGB"))):
        found = ovs.segment(image)
        assert [(one["area"], one["bbox"], one["level"]) for one in found] == [(e["area"], e["bbox"], e["level"]) for e in expected]
        assert [one["score"] for one in found] == pytest.approx([e["score"] for e in expected], abs=1e-6)
        ids = [e["id"] for e in expected]
        assert [one["parent"] for one in found] == [ids.index(e["parent_id"]) if "parent_id" in e else None for e in expected]
        for one in found:
            assert one["segmentation"].dtype == bool
            assert one["segmentation"].sum() == one["area"]


def test_scores_are_those_of_the_command(scenes: Path) -> None:
    found = ovs.evaluate_masks(scenes / "instances.json", scenes / "instances.json")
    assert found["AR@1000"] == pytest.approx(1)
    words = [str(Path(sys.executable).parent / "ovs-eval"), "--json", "--metric", "ap", "--gt", "instances.json", "instances.json"]
    done = subprocess.run(words, cwd=scenes, capture_output=True, check=True)
    theirs = json.loads(done.stdout)["metrics"]
    assert ovs.evaluate_masks(ovs.read_masks(scenes / "instances.json"), scenes / "instances.json", "ap") == theirs


def test_what_is_refused(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="radius is not an option here: choose from thresholds"):
        ovs.cluster_features(scenes / "f.npz", radius=3)
    with pytest.raises(UsageError, match="--method best: choose from sohes"):
        ovs.cluster_features(scenes / "f.npz", "best")
    with pytest.raises(UsageError, match="settings of crf: the methods are snap"):
        ovs.refine_masks(scenes / "instances.json", ["snap"], settings={"crf": {}})
    with pytest.raises(UsageError, match="give root"):
        list(ovs.refine_masks(scenes / "instances.json"))
    with pytest.raises(UsageError, match="stdin"):
        ovs.read_masks("-")
    with pytest.raises(MissingInputError):
        ovs.read_masks(tmp_path / "none.json")
    for array in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(InputError, match="is not an image"):
            ovs.segment(array)


def test_curated_pairs_are_read_and_drawn_from(tmp_path: Path) -> None:
    from ovskit.core.concepts.draws import draw_concepts
    from ovskit.core.formats.streams.curated import Concept, CuratedHeader, CuratedPair, CuratedWriter

    concepts = tuple(Concept(name, 1.0, 0.5, place, True, ()) for place, name in enumerate(("dog", "grass")))
    pairs = [CuratedPair(k, f"{k}", f"{k}.jpg", ("a dog",), concepts, ()) for k in (1, 2)]
    with (tmp_path / "curated.jsonl").open("wb") as file:
        writer = CuratedWriter(file, CuratedHeader("imgs", {}, {}, {"texts": 2}))
        for pair in pairs:
            writer.write(pair)
        writer.finish()
    curated = ovs.read_curated(tmp_path / "curated.jsonl")
    assert (list(curated), list(curated)) == (pairs, pairs)
    drawn = [draw_concepts(pair, seed=0, step=1, texts=curated.header.curation["texts"]) for pair in curated]
    assert drawn == [("dog", "grass")] * 2
    with pytest.raises(MissingInputError):
        ovs.read_curated(tmp_path / "none.jsonl")
