"""One walk for every folder: hidden entries left out, links followed, nothing read twice, and no way round in circles."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from ovskit.core.formats.walk import files_below, folders_below, leads_above
from ovskit.core.runtime.errors import MissingInputError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def below(folder: Path) -> list[str]:
    return sorted(os.path.relpath(path, folder) for path in files_below(str(folder)))


def test_hidden_entries_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "s/b.png", "._a.png", "s/.c.png", ".ipynb_checkpoints/a.png", "s/.git/x/d.png")
    assert below(tmp_path) == ["a.png", "s/b.png"]


def test_a_hidden_folder_that_is_named_is_read(tmp_path: Path) -> None:
    touch(tmp_path, ".cache/a.png")
    assert below(tmp_path / ".cache") == ["a.png"]


def test_links_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png", "out/b.png", "out/deep/c.png")
    (tmp_path / "in" / "more").symlink_to("../out")
    (tmp_path / "in" / "d.png").symlink_to("../out/b.png")
    (tmp_path / "in" / "gone.png").symlink_to("nowhere.png")
    assert below(tmp_path / "in") == ["a.png", "d.png", "gone.png", "more/b.png", "more/deep/c.png"]
    (tmp_path / "door").symlink_to("in")
    assert below(tmp_path / "door") == below(tmp_path / "in")


@pytest.mark.parametrize("target", [".", "..", "../..", "../../in"])
def test_a_link_to_what_holds_it_is_passed_over_and_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture, target: str) -> None:
    touch(tmp_path, "in/a.png", "in/s/b.png", "beside.png")
    for name in ("one", "two", "three"):
        (tmp_path / "in" / "s" / name).symlink_to(target)
    with caplog.at_level(logging.WARNING, "ovskit"):
        assert below(tmp_path / "in") == ["a.png", "s/b.png"]
    assert len(caplog.records) == 1
    assert "in/s/one and 2 more" in caplog.text
    assert leads_above(str(tmp_path / "in" / "s" / "one"))
    assert not leads_above(str(tmp_path / "in" / "s"))


def test_folders_that_lead_to_each_other_are_read_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As many ways through them as there are orders of ten folders."""
    for k in range(10):
        touch(tmp_path, f"{k}/a.png")
        for other in range(10):
            (tmp_path / str(k) / f"to-{other}").symlink_to(tmp_path / str(other))
    with caplog.at_level(logging.WARNING, "ovskit"):
        assert below(tmp_path) == [f"{k}/a.png" for k in range(10)]
    assert "99 more" in caplog.text


def test_of_two_links_to_a_folder_the_first_counts_and_of_a_link_and_itself_the_folder(tmp_path: Path) -> None:
    touch(tmp_path, "in/z/a.png", "out/b.png")
    (tmp_path / "in" / "also").symlink_to("z")
    (tmp_path / "in" / "first").symlink_to("../out")
    (tmp_path / "in" / "second").symlink_to("../out")
    assert below(tmp_path / "in") == ["first/b.png", "z/a.png"]
    assert sorted(map(os.path.basename, folders_below(str(tmp_path / "in")))) == ["first", "in", "z"]


def test_a_folder_outside_that_leads_up_there(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png", "out/x/b.png", "out/c.png")
    (tmp_path / "in" / "x").symlink_to("../out/x")
    (tmp_path / "out" / "x" / "up").symlink_to("..")
    assert below(tmp_path / "in") == ["a.png", "x/b.png"]


def test_links_round_in_circles_are_no_folders(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    (tmp_path / "b").symlink_to("c")
    (tmp_path / "c").symlink_to("b")
    assert [name for name in below(tmp_path) if name.endswith(".png")] == ["a.png"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="absent"):
        list(files_below(str(tmp_path / "absent")))


def test_a_file_system_without_inodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.png", "s/b.png", "t/c.png")
    (tmp_path / "s" / "up").symlink_to("..")
    stat = os.stat

    def without(path: object, **options: Any) -> os.stat_result:
        mode, _, *rest = stat(path, **options)  # type: ignore[call-overload]
        return os.stat_result([mode, 0, *rest])

    monkeypatch.setattr(os, "stat", without)
    assert below(tmp_path) == ["a.png", "s/b.png", "t/c.png"]
