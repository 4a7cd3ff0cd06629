"""Files that are written as a whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from klcli.files import replacing


def test_a_file_is_replaced_and_the_previous_one_kept(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "table.csv"
    for content in (b"one", b"two"):
        with replacing(path, previous=path.with_name("before.csv")) as file:
            file.write(content)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == {
        "table.csv": b"two",
        "before.csv": b"one",
    }


@pytest.mark.parametrize("interruption", [OSError, ValueError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"old")
    with pytest.raises(interruption), replacing(path) as file:
        file.write(b"new")
        raise interruption
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]
    assert path.read_bytes() == b"old"


def test_only_what_ended_processes_left_of_this_file_is_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    kept = [f".[1].csv.aa.{os.getpid()}", f".other.csv.aa.{ended.pid}", ".[1].csv.notes", f".1.csv.aa.{ended.pid}"]
    for name in [*kept, f".[1].csv.aa.{ended.pid}"]:
        (tmp_path / name).touch()
    with replacing(tmp_path / "[1].csv"):
        pass
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*kept, "[1].csv"])
