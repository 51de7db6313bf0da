"""Options that would have no effect are refused, or said to have none."""

from pathlib import Path

import pytest

from ovskit.cli.settings import declared_of, flag_of, options_of

from .conftest import Run, one_line
from .test_neutral import CLICKS

REFUSED: list[tuple[str, list[str]]] = [
    ("ovs-hier --skip-existing x", ["--skip-existing", "-o"]),
    ("ovs-extract -0 x", ["--null", "stdin"]),
    ("ovs-predict --checkpoint x -0 x", ["--null", "stdin"]),
    ("ovs-extract --facet value x", ["--facet", "builtin"]),
    ("ovs-extract --model handmade --layer 3 x", ["--layer", "handmade"]),
    ("ovs-cluster --method kmeans --batch 3 x", ["--batch", "--scope batch"]),
    *(
        (f"ovs-cluster --no-local {flag} x", [flag.split()[0], "--no-local"])
        for flag in ("--small 1/9", "--local-size 64", "--min-local 2", "--context 3", "--min-crop 9", "--share 0.3", "--weights x")
    ),
    ("ovs-refine --weights x x", ["--weights has no effect with --method snap,guided"]),
    ("ovs-cluster --root x --grid 3x4 x", ["--grid", "NumPy"]),
    ("ovs-label --from x --seed 1 x", ["--seed", "--clusters"]),
    ("ovs-label --names x --save c.npz x", ["--save", "--clusters"]),
    *(
        (f"ovs-label --clusters 3 {words} x", [words.split()[0], "--names"])
        for words in ("--top-k 3", "--min-prob 0.1", "--drop", "--score label")
    ),
    ("ovs-curate --caption-rows x --pairs x x", ["--caption-rows", "--expansion language"]),
    ("ovs-curate --sampling naive --temperature 2 --pairs x x", ["--temperature", "--sampling naive"]),
    ("ovs-curate --expansion language --caption-rows x --from x --pairs x x", ["--from", "--expansion language"]),
    ("ovs-curate --ranking naive --score code --pairs x x", ["--score", "--ranking guided"]),
    ("ovs-curate --expansion language --caption-rows x --near-duplicates 1 --pairs x x", ["--near-duplicates", "--expansion language"]),
    ("ovs-curate --min-count 2 --pairs x x", ["--min-count", "--mine"]),
    ("ovs-curate --from-pairs x --pairs x x", ["--from-pairs", "--from"]),
    ("ovs-curate --concept-rows x --template {}s --pairs x x", ["--template", "--concept-rows"]),
    ("ovs-label --names x --restarts 1 x", ["--restarts", "--clusters"]),
    ("ovs-label --names x --iterations 1 x", ["--iterations", "--clusters"]),
    ("ovs-predict --checkpoint x --hier none --ancestor-threshold 0.3 x", ["--ancestor-threshold", "--hier head"]),
    ("ovs-predict --checkpoint x --scales 1,2 --ancestor-threshold 0.3 x", ["--ancestor-threshold", "--hier head"]),
    ("ovs-predict --checkpoint x --model run:x x", ["--model", "--checkpoint"]),
    ("ovs-predict --checkpoint x --weights x x", ["--weights", "--model"]),
    *(
        (f"ovs-predict --model run:x --names x {words} x", [flag, needed])
        for words, flag, needed in (
            ("--no-correct", "--correct", "--masks"),
            ("--as masks", "--as", "--masks"),
            ("--top-k 3", "--top-k", "--as masks"),
            ("--layout voc", "--layout", "--sweep"),
            ("--masks m --as masks --maps d", "--maps", "--as masks"),
        )
    ),
    ("ovs-eval --gt x --confidence 0.9 x", ["--confidence", "--bootstrap"]),
    ("ovs-eval --gt x --seed 1 x", ["--seed", "--bootstrap"]),
    ("ovs-eval --gt x --metric miou --max 5 x", ["--max", "miou"]),
    ("ovs-eval --gt x --metric hierarchy --max 5 x", ["--max", "hierarchy"]),
    ("ovs-show --match-iou 0.7 x -o p.html", ["--match-iou", "--gt"]),
    ("ovs-show --title T x -o d/", ["--title", "page"]),
    ("ovs-show --max-side 100 x -o d/", ["--max-side", "overlays"]),
    ("ovs-show --opacity 0.1 x", ["--opacity", "--sheet"]),
    ("ovs-show --no-legend x", ["--no-legend", "--sheet"]),
    ("ovs-show --view all x -o p.html", ["--view", "--sheet"]),
    ("ovs-train backbone x -o r --eval-root x", ["--eval-root", "--eval GT"]),
    ("ovs-train segment x -o r --eval-limit 3", ["--eval-limit", "--eval GT"]),
    ("ovs-train segment x -o r --scratch --weights x", ["--scratch", "--weights"]),
]


@pytest.mark.parametrize(("line", "words"), REFUSED)
def test_refused(ovs: Run, tmp_path: Path, line: str, words: list[str]) -> None:
    tool, *arguments = line.split()
    done = ovs(tool, *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    one_line(done, *words)
    assert list(tmp_path.iterdir()) == []


def test_every_option_that_may_have_no_effect_is_tried() -> None:
    declared = {(flag_of(option), declared_of(option)) for click in CLICKS.values() for option in options_of(click)}
    flags = {flag for flag, one in declared if one is not None and one.effect is not None}
    assert flags <= {said[0].split()[0] for _, said in REFUSED}


def test_what_is_set_beforehand_is_meant_for_whatever_it_fits(ovs: Run, masks: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[eval]\nconfidence = 0.5\n")
    done = ovs("ovs-eval", "--gt", masks, masks, "--config", tmp_path / "c.toml", env={"OVS_SEED": "3"})
    assert (done.returncode, done.stderr) == (0, b"")


def test_thresholds_beside_counts(ovs: Run, features: Path) -> None:
    both = ("ovs-cluster", features, "--thresholds", "0.6,0.3", "--counts", "10,5")
    for more in ((), ("--no-local",)):
        done = ovs(*both, *more)
        assert done.returncode == 2
        one_line(done, "--counts", "--thresholds", "leave one")
    assert ovs(*both, "--local", "--local-size", 32).returncode == 0
    by_counts = ovs("ovs-cluster", features, "--counts", "10,5", "--no-pg")
    done = ovs("ovs-cluster", features, "--counts", "10,5", "--no-pg", env={"OVS_THRESHOLDS": "0.6,0.3"})
    assert (done.returncode, done.stdout, done.stderr) == (0, by_counts.stdout, b"")
    done = ovs("ovs-cluster", features, "--thresholds", "0.6,0.3", env={"OVS_COUNTS": "10,5"})
    assert done.returncode == 2
    one_line(done, "--counts is from OVS_COUNTS")


def test_options_of_crops_without_crops(ovs: Run, features: Path) -> None:
    """The model may have decided that there are none, so that it is told under -v only."""
    done = ovs("ovs-cluster", features, "--local-size", 32, "--no-pg", "-v")
    assert (done.returncode, done.stdout) == (0, ovs("ovs-cluster", features, "--no-pg").stdout)
    one_line(done, "--local-size has no effect here", "--local")


def test_weight_decay_is_of_both_optimizers(ovs: Run) -> None:
    for name in ("segment", "backbone"):
        line = next(line for line in ovs("ovs-train", name, "--help").stdout.decode().splitlines() if "--weight-decay" in line)
        assert "AdamW" not in line
