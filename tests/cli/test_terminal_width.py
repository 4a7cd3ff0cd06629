"""A table in a real terminal fits into it; in a pipe it is complete, whatever COLUMNS says."""

import os
import subprocess
from pathlib import Path

import pytest
from light import LIGHT
from terminal import in_terminal

pytestmark = pytest.mark.slow


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
