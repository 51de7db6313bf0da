"""ovs-hier as users run it."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from ovskit.core.masks import rle

from .conftest import Run, one_line


@pytest.fixture(scope="module")
def forest(ovs: Run, masks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("forest") / "forest.json"
    done = ovs("ovs-hier", masks, "-o", path)
    assert done.returncode == 0, done.stderr
    return path


def test_the_forest_is_the_definition(forest: Path, masks: Path) -> None:
    before, after = json.loads(masks.read_bytes()), json.loads(forest.read_bytes())
    assert len(before["annotations"]) == len(after["annotations"])
    assert after["images"] == before["images"]
    parts = 0
    for image in after["images"]:
        own = [a for a in after["annotations"] if a["image_id"] == image["id"]]
        inside = np.asarray(coco_mask.iou([a["segmentation"] for a in own], [a["segmentation"] for a in own], [1] * len(own)))
        ancestor = (inside > 0.9) & (inside.T < 0.9)
        by_id = {a["id"]: a for a in own}
        for i, annotation in enumerate(own):
            candidates = [own[j] for j in np.flatnonzero(ancestor[i])]
            if "parent_id" in annotation:
                parts += 1
                assert annotation["parent_id"] in by_id
                assert by_id[annotation["parent_id"]]["area"] == min(c["area"] for c in candidates)
                assert annotation["level"] == by_id[annotation["parent_id"]]["level"] + 1
            else:
                assert not candidates
                assert annotation["level"] == 0
    assert parts > 5
    assert [entry["tool"] for entry in after["info"]["ovskit"]["pg"]][-1] == "ovs-hier"


def test_in_a_pipe_and_for_any_number_of_workers(shell: Run, forest: Path, masks: Path) -> None:
    by_pipe = shell(f"cat {masks} | ovs-hier -j 1 --no-pg | cmp - <(ovs-hier -j 4 --no-pg {masks})")
    assert by_pipe.returncode == 0, by_pipe.stdout
    again = shell(f"ovs-hier {forest} --no-pg | cmp - <(ovs-hier {masks} --no-pg)")
    assert again.returncode == 0, again.stdout


def test_a_killed_run_goes_on_where_it_was(ovs: Run, forest: Path, masks: Path, tmp_path: Path) -> None:
    out = tmp_path / "forest.json"
    lines = forest.read_bytes().splitlines(keepends=True)
    (tmp_path / "forest.json.part").write_bytes(b"".join(lines[: len(lines) * 2 // 3]) + b'{"id":9')
    done = ovs("ovs-hier", masks, "-o", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == forest.read_bytes()
    assert not (tmp_path / "forest.json.part").exists()


def test_the_tree_shows_every_mask_once(ovs: Run, masks: Path, forest: Path, tmp_path: Path) -> None:
    done = ovs("ovs-hier", "--tree", masks)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    document = json.loads(forest.read_bytes())
    assert len(lines) == len(document["annotations"]) + len(document["images"])
    for annotation in document["annotations"]:
        row = next(
            line for line in lines if line.replace("│", " ").replace("├─", "  ").replace("└─", "  ").split()[0] == str(annotation["id"])
        )
        depth = len(row) - len(row.lstrip("│├└─ ")) - 3
        assert depth == 3 * annotation["level"]
    both = ovs("ovs-hier", "--tree", masks, "-o", tmp_path / "f.json")
    assert both.stdout == done.stdout
    assert json.loads((tmp_path / "f.json").read_bytes())["annotations"] == document["annotations"]


def test_masks_of_two_sizes(ovs: Run, tmp_path: Path) -> None:
    def annotation(number: int, width: int) -> dict[str, object]:
        counts = rle.encode(np.ones((5, width), np.uint8)).counts.decode()
        return {"id": number, "image_id": 1, "category_id": 1, "segmentation": {"size": [5, width], "counts": counts}}

    image = {"id": 1, "file_name": "a.jpg", "width": 6, "height": 5}
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"images": [image], "annotations": [annotation(1, 6), annotation(2, 7)]}))
    done = ovs("ovs-hier", path, "-o", tmp_path / "out.json")
    assert done.returncode == 65
    one_line(done, "7×5", "6×5")
    assert [p.name for p in tmp_path.iterdir()] == ["m.json"]


@pytest.mark.parametrize(
    ("parents", "words"),
    [({2: 7}, ["annotation 2", "parent_id 7"]), ({1: 2, 2: 1}, ["its own ancestor"]), ({1: 1}, ["annotation 1", "its own ancestor"])],
)
def test_a_forest_that_is_none(ovs: Run, tmp_path: Path, parents: dict[int, int], words: list[str]) -> None:
    counts = rle.encode(np.ones((5, 6), np.uint8)).counts.decode()
    annotations = [
        {"id": k, "image_id": 1, "segmentation": {"size": [5, 6], "counts": counts}, **({"parent_id": parents[k]} if k in parents else {})}
        for k in (1, 2)
    ]
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.jpg", "width": 6, "height": 5}], "annotations": annotations}))
    done = ovs("ovs-hier", path)
    assert done.returncode == 65
    one_line(done, *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cover", "1.5"], ["--cover", "a number from 0 to 1"]),
        (["--tree", "--resume", "-o", "x.json"], ["--tree", "--resume"]),
        (["--resume"], ["--resume", "-o"]),
        (["--resume", "--no-pg", "-o", "x.json"], ["--resume", "--no-pg"]),
    ],
)
def test_options_that_make_no_sense(ovs: Run, masks: Path, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    done = ovs("ovs-hier", masks, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    one_line(done, *words)
    assert list(tmp_path.iterdir()) == []


def test_shards_joined_are_the_whole(shell: Run, images: Path, tmp_path: Path) -> None:
    pipe = "ovs-extract {} --size 128 | ovs-cluster --no-local --no-pg"
    whole = shell(f"{pipe.format(images)} | ovs-hier --no-pg > whole.json", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    for k in range(3):
        done = shell(f"{pipe.format(f'{images} --shard {k}/3')} > part-{k}.json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    joined = shell("ovs-hier --no-pg part-2.json part-0.json part-1.json | cmp - whole.json", cwd=tmp_path)
    assert joined.returncode == 0, joined.stdout
    twice = shell("ovs-hier part-0.json part-1.json part-0.json", cwd=tmp_path)
    assert twice.returncode == 65
    one_line(twice, "part-0.json", "both shard 0/3")
    stdin = shell("ovs-hier - - < part-0.json", cwd=tmp_path)
    assert stdin.returncode == 2
    one_line(stdin, "stdin", "once")


def test_files_of_two_runs_are_not_joined(ovs: Run, masks: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_bytes(masks.read_bytes().replace(b'"root":"', b'"root":"elsewhere', 1))
    done = ovs("ovs-hier", masks, other)
    assert done.returncode == 65
    one_line(done, "other.json", "elsewhere", "shards of one run")


def test_hassods_wholes_parts_and_subparts(ovs: Run, tmp_path: Path) -> None:
    """A part that lies in its whole by exactly 0.9 is one for HASSOD, whose levels end at 2."""
    columns = [range(90), range(9, 29), range(9, 19), [*range(9, 18), 40], [40]]
    annotations = []
    for number, stripe in enumerate(columns, 1):
        pixels = np.zeros((1, 100), np.uint8)
        pixels[0, list(stripe)] = 1
        counts = rle.encode(pixels).counts.decode()
        annotations.append({"id": number, "image_id": 1, "category_id": 1, "segmentation": {"size": [1, 100], "counts": counts}})
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 1}], "annotations": annotations}))

    def forest(*options: object) -> list[tuple[int | None, int]]:
        done = ovs("ovs-hier", path, *options)
        assert done.returncode == 0, done.stderr
        return [(one.get("parent_id"), one["level"]) for one in json.loads(done.stdout)["annotations"]]

    # The fourth lies by nine tenths in the second, and as much in the third, which is as large.
    assert forest() == [(None, 0), (1, 1), (2, 2), (1, 1), (4, 2)]
    assert forest("--inclusive") == [(None, 0), (1, 1), (2, 2), (2, 2), (4, 3)]
    assert forest("--inclusive", "--deepest", 2) == [(None, 0), (1, 1), (2, 2), (2, 2), (4, 2)]
    assert forest("--deepest", 0) == [(None, 0), (1, 0), (2, 0), (1, 0), (4, 0)]
