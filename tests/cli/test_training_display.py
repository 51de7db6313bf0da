"""What a person sees of a training run on a terminal."""

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovskit.cli.training_display import Curve, Display, heights
from ovskit.core.train.engine.events import Stopped

from .conftest import command


def test_heights_go_from_the_lowest_to_the_highest() -> None:
    assert heights([3.0, 1.0, 2.0, 1.5]) == "█▁▅▃"
    assert heights([2.0, 2.0]) == "▄▄"
    assert heights([]) == ""


@given(st.lists(st.floats(-1e6, 1e6), max_size=300), st.integers(2, 9))
def test_a_curve_keeps_its_width_and_its_course(values: list[float], width: int) -> None:
    curve = Curve(width)
    for value in values:
        curve.add(value)
        assert curve.last == value
    shown = str(curve)
    assert len(shown) <= width
    assert len(values) < 1 or len(shown) >= 1
    if len(values) <= width:
        assert shown == heights(values)
    rising = Curve(width)
    for k in range(len(values)):
        rising.add(float(k))
    assert list(str(rising)) == sorted(str(rising))


def test_of_a_signal_only_the_last_line_tells(caplog: pytest.LogCaptureFixture) -> None:
    with Display() as display:
        display(Stopped(3, 5, "signal"))
    assert caplog.records == []


def test_a_terminal_shows_a_table_of_losses(images: Path, environment: dict[str, str], tmp_path: Path) -> None:
    host, terminal = pty.openpty()
    arguments = (
        f"backbone {images} -o {tmp_path / 'run'} --device cpu -j 1 --steps 3 --log-every 1 --warmup 1 --batch 2 "
        "--set widths=8,8,8,8 --set blocks=1,1,1,1 --set pyramid=8 --set embedding=8 --set crop=64 --set shorter_side=96 "
        "--set scales=250,1000 --set anchors=4 --set negatives=16 --set queue=16"
    ).split()
    env = {**environment, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "50"}
    process = subprocess.Popen([command("ovs-train"), *arguments], stdout=terminal, stderr=terminal, stdin=subprocess.DEVNULL, env=env)
    os.close(terminal)
    shown = b""
    while True:
        try:
            chunk = os.read(host, 1 << 16)
        except OSError:  # what Linux says when the other side is closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(host)
    assert process.wait(300) == 0, shown.decode()
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"loss +\d[\d.e+-]* +[▁▂▃▄▅▆▇█]{3}\s", text), text
    assert "3/3" in text
    assert "samples/s" in text
