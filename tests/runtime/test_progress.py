"""Who draws a bar: the last stage of a pipe, on a terminal, and nobody else."""

import os
import pty
import subprocess
import sys

CODE = "from ovskit.core.runtime.progress import track; import sys; print(sum(track(iter(range(3)), 'counting', total=3)))"


def on_terminal(command: str) -> str:
    """What a terminal shows as stderr of ``command``, whose stdout is a file."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(["bash", "-c", command], stdout=subprocess.DEVNULL, stderr=theirs, stdin=subprocess.DEVNULL) as process:
        process.wait(60)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # the terminal is gone once it is read empty
        pass
    os.close(ours)
    return shown.decode()


def test_the_last_stage_draws_a_bar_with_a_rate() -> None:
    shown = on_terminal(f'{sys.executable} -c "{CODE}"')
    assert "counting" in shown
    assert "3/3" in shown
    assert "/s" in shown


def test_a_stage_before_the_last_is_silent() -> None:
    assert on_terminal(f'{sys.executable} -c "{CODE}" | cat') == ""


def test_a_log_file_gets_no_bar() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout == "3\n"
