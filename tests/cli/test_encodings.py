"""Terminals that are not UTF-8: what they cannot show is replaced, and the command does what it does."""

import json
from pathlib import Path

import pytest

from ovskit.cli.plain_text import plain

from .conftest import Run, one_line
from .test_help import LEAVES

LATIN = {"PYTHONIOENCODING": "latin-1", "LC_ALL": "C"}
ASCII = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
UTF8 = {"PYTHONIOENCODING": "utf-8", "LC_ALL": "C"}


@pytest.mark.parametrize("env", [LATIN, ASCII], ids=["latin-1", "ascii"])
@pytest.mark.parametrize("name", [*LEAVES, "ovs-train"])
def test_help(process: Run, name: str, env: dict[str, str]) -> None:
    done = process(*name.split(), "--help", env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode(env["PYTHONIOENCODING"])
    assert "Examples:" in text
    assert "--help" in text


def test_what_an_encoding_lacks_is_replaced() -> None:
    assert plain("N×N, 0–1, θ … ✗", "ascii") == "NxN, 0-1, theta ... ?"
    assert plain("N×N, 0–1, θ … ✗", "latin-1") == "N×N, 0-1, theta ... ?"
    assert plain("N×N, 0–1, θ … ✗", "utf-8") == "N×N, 0–1, θ … ✗"


def test_tables_trees_lists_and_messages(process: Run, masks: Path, tmp_path: Path) -> None:
    document = json.loads(masks.read_bytes())
    for image in document["images"]:
        image["file_name"] = f"картина-{image['id']}.png"
    for annotation in document["annotations"]:
        annotation["file_name"] = f"картина-{annotation['image_id']}.png"
    named = tmp_path / "маски.json"
    named.write_text(json.dumps(document))
    for words in (["ovs-extract", "--list-models"], ["ovs-hier", "--tree", named], ["ovs-eval", "--gt", named, named]):
        text = {}
        for env in (LATIN, ASCII, UTF8):
            done = process(*words, env=env)  # type: ignore[arg-type]
            assert done.returncode == 0, done.stderr
            text[env["PYTHONIOENCODING"]] = done.stdout.decode(env["PYTHONIOENCODING"])
        assert len(text["ascii"].splitlines()) == len(text["utf-8"].splitlines())
        assert text["ascii"].isascii()
    for env in (LATIN, ASCII):
        done = process("ovs-hier", tmp_path / "нет.json", env=env)
        assert done.returncode == 66
        one_line(done, ".json")
    done = process("ovs-eval", "--gt", named, named, "-o", tmp_path / "table.txt", env=LATIN)
    assert done.returncode == 0
    assert (tmp_path / "table.txt").read_text("utf-8") == text["utf-8"]
