"""``ovs-eval --metric accuracy`` as users run it."""

import json
from pathlib import Path

from ovskit.core.formats.streams.image_labels import ImageLabelsHeader, ImageLabelsWriter
from ovskit.core.records import Image, ImageLabel, ImageLabels

from .conftest import Run, one_line


def labels(path: Path, best: list[int]) -> bytes:
    with path.open("wb") as out:
        writer = ImageLabelsWriter(out, ImageLabelsHeader("imgs", [{"id": k, "name": name} for k, name in enumerate(("cat", "dog"))]))
        for number, k in enumerate(best, 1):
            both = (ImageLabel(k, ("cat", "dog")[k], 0.75), ImageLabel(1 - k, ("dog", "cat")[k], 0.25))
            writer.write(ImageLabels(Image(number, f"{number}.jpg", 4, 3), both))
        writer.finish()
    return path.read_bytes()


def test_accuracy_of_labels_by_a_pipe(ovs: Run, tmp_path: Path) -> None:
    (tmp_path / "gt.jsonl").write_text(
        "".join(f'{{"file_name":"{k}.jpg","label":"{name}"}}\n' for k, name in ((1, "Cat"), (2, "dog"), (3, "dog")))
    )
    data = labels(tmp_path / "p.jsonl", [0, 0, 1, 1])
    result = ovs("ovs-eval", "--metric", "accuracy", "--gt", tmp_path / "gt.jsonl", "--json", "--bootstrap", "10", stdin=data)
    assert result.returncode == 0
    found = json.loads(result.stdout)
    assert found["metrics"] == {"top1": 2 / 3, "top5": 1, "mean_class_top1": 0.75}
    assert found["unmatched"] == {"predictions": 1, "ground_truth": 0}
    assert b"4.jpg" in result.stderr
    table = ovs("ovs-eval", "--metric", "accuracy", "--names", "cat,dog", "--gt", tmp_path / "gt.jsonl", tmp_path / "p.jsonl")
    assert b"66.67" in table.stdout
    assert b"3 images with 2 classes" in table.stdout


def test_a_cut_file_and_strange_classes_are_one_line_each(ovs: Run, tmp_path: Path) -> None:
    (tmp_path / "gt.jsonl").write_text('{"file_name":"1.jpg","label":"fox"}\n')
    data = labels(tmp_path / "p.jsonl", [0])
    begin = ("ovs-eval", "--metric", "accuracy", "--gt", tmp_path / "gt.jsonl")
    strange = ovs(*begin, stdin=data)
    assert strange.returncode == 65
    assert "fox: not classes of" in one_line(strange)
    (tmp_path / "gt.jsonl").write_text('{"file_name":"1.jpg","label":"cat"}\n')
    cut = ovs(*begin, stdin=data[:-5])
    assert cut.returncode == 65
    assert "truncated" in one_line(cut)
    assert cut.stdout == b""
    missing = ovs(*begin, "--set", f"mapping={tmp_path / 'none.json'}", stdin=data)
    assert missing.returncode == 66
