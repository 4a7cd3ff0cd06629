"""A table in a real terminal fits into it; in a pipe it is complete, whatever COLUMNS says."""

import os
import re
import struct
import subprocess
from pathlib import Path

import pytest
from light import LIGHT

pytestmark = pytest.mark.slow


def in_terminal(folder: Path, width: int, *args: str) -> list[str]:
    """The lines that klcli writes to a terminal of this width, without colours."""
    pty, fcntl, termios = map(pytest.importorskip, ("pty", "fcntl", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    seen = b""
    with subprocess.Popen([*LIGHT, *args], stdout=theirs, env=os.environ | {"TERM": "xterm"}, cwd=folder) as process:
        os.close(theirs)
        try:
            while chunk := os.read(ours, 65536):
                seen += chunk
        except OSError:  # Linux ends a terminal so
            pass
    os.close(ours)
    assert process.returncode == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", seen.decode()).splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_lists_and_comparisons_fit(trained: Path, width: int) -> None:
    listed = in_terminal(trained, width, "report", "--list")
    assert max(map(len, listed)) <= width
    head = next(line for line in listed if "validation" in line)
    assert {"run", "state", "network", "lambda", "validation", "test"} <= set(head.split())
    assert f"not shown at {width} columns: " in " ".join(listed)
    compared = in_terminal(trained, width, "report", "--run", "1", "2", "3")
    table = [line for line in compared if " klcli train " not in line]  # a command stays in one piece
    assert max(map(len, table)) <= width
    titles = " ".join(line for line in table if "run" in line)
    assert all(f"run {number}" in titles for number in (1, 2, 3))


def test_a_pipe_gets_every_column(trained: Path) -> None:
    how = {"cwd": trained, "env": os.environ | {"COLUMNS": "40"}, "capture_output": True, "text": True}
    done = subprocess.run([*LIGHT, "report", "--list"], check=True, **how)
    head = next(line for line in done.stdout.splitlines() if "validation" in line)
    assert {"study", "images", "init", "seed", "epochs", "train", "seconds"} <= set(head.split())
    assert "not shown" not in done.stdout
