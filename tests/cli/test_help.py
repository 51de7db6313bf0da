"""Help, start-up, man pages and packaging: what is written once stays true."""

import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from .conftest import Run

ROOT = Path(__file__).parents[2]
COMMANDS = ("ovs-extract", "ovs-cluster", "ovs-refine", "ovs-hier", "ovs-label", "ovs-curate", "ovs-train", "ovs-predict", "ovs-eval", "ovs-show")


def app_of(tool: str) -> Any:
    return importlib.import_module(f"ovskit.cli.{tool.removeprefix('ovs-')}").app


# Every command and subcommand, as it is typed.
LEAVES = [leaf.name for tool in COMMANDS for leaf in app_of(tool).leaves()]


def leaf_of(name: str) -> Any:
    return next(leaf for leaf in app_of(name.split()[0]).leaves() if leaf.name == name)


@pytest.mark.parametrize("name", LEAVES)
def test_help_is_complete(process: Run, name: str) -> None:
    done = process(*name.split(), "--help")
    assert done.returncode == 0
    assert done.stderr == b""
    text = done.stdout.decode()
    assert "Examples:" in text
    assert name in text.split("Examples:")[1]
    whole = process(*name.split(), "--help", "all").stdout.decode()
    for title in ("Output:", "Common:"):
        assert re.search(rf"^{title}$", whole, re.M)
    parser = leaf_of(name).click
    for parameter in parser.get_params(parser.make_context(name, [], resilient_parsing=True)):  # --help among them
        assert getattr(parameter, "help", None), f"{name}: {parameter.name} has no help"
        if parameter.param_type_name == "option":
            assert max(parameter.opts, key=len) in text
            for flag in (*parameter.opts, *parameter.secondary_opts):
                assert re.search(rf"^ +(.*[ ,/])?{re.escape(flag)}([ ,]|$)", whole, re.M), flag


def test_a_group_lists_its_subcommands(process: Run) -> None:
    for arguments in (["--help"], ["-h"]):
        done = process("ovs-train", *arguments)
        assert (done.returncode, done.stderr) == (0, b"")
        for leaf in app_of("ovs-train").leaves():
            assert re.search(rf"^  {leaf.name.split()[1]} +\S.*$", done.stdout.decode(), re.M)


@pytest.mark.parametrize("name", LEAVES)
def test_examples_parse(name: str) -> None:
    """Every use of the command in its own examples is one that its parser accepts."""
    import shlex

    leaf = leaf_of(name)
    start = name.split()
    parsed = 0
    for _, line in leaf.examples:
        for stage in re.split(r"[|;]", line):
            words = shlex.split(stage.split(">")[0])
            if start[0] in words:
                words = words[words.index(start[0]) :]
            if words[: len(start)] == start:
                leaf.click.make_context(name, words[len(start) :], resilient_parsing=False)
                parsed += 1
    assert parsed >= 3


@pytest.mark.parametrize("tool", COMMANDS)
def test_help_imports_nothing_heavy(tool: str) -> None:
    module = f"ovskit.cli.{tool.removeprefix('ovs-')}"
    heavy = "{'torch', 'timm', 'transformers', 'open_clip', 'numba', 'cv2', 'numpy', 'PIL', 'rich'}"
    code = f"import sys, {module} as m; m.app.click_command(); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [*LEAVES, "ovs-train"])
def test_version(process: Run, name: str) -> None:
    from ovskit.core import __version__

    assert process(*name.split(), "--version").stdout.decode().strip() == f"ovskit {__version__}"


def test_models_are_listed(process: Run) -> None:
    text = process("ovs-extract", "--list-models").stdout.decode()
    for name in ("builtin", "dino-vitb8", "dinov2-vitb14", "clip:ARCH/TAG", "timm:NAME"):
        assert re.search(rf"^{re.escape(name)} ", text, re.M)


def test_man_pages_are_what_the_commands_say() -> None:
    done = subprocess.run([sys.executable, ROOT / "man" / "generate.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
@pytest.mark.parametrize("tool", COMMANDS)
def test_man_pages_are_lint_clean(tool: str) -> None:
    done = subprocess.run(["mandoc", "-Tlint", ROOT / "man" / f"{tool}.1"], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


def test_every_folder_is_packaged_and_every_command_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    folders = {
        "ovskit." + ".".join(path.parent.relative_to(ROOT).parts) for top in ("core", "cli") for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(settings["tool"]["setuptools"]["packages"]) == folders
    scripts = settings["project"]["scripts"]
    assert set(scripts) == set(COMMANDS)
    assert {path.name for path in (ROOT / "man").glob("*.1")} == {f"{tool}.1" for tool in COMMANDS}
