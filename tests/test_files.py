"""Files that are written as a whole or not at all."""

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from klcli.data.cifar10.prepared import cache_folder
from klcli.errors import StoreError
from klcli.files import irregular, make_folder, replacing, replacing_all, require_file_name, temporary_folder
from klcli.store.checkpoints import write_atomically


def test_a_file_is_replaced_and_the_previous_one_kept(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "table.csv"
    for content in (b"one", b"two"):
        with replacing(path, previous=path.with_name("before.csv")) as file:
            file.write(content)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == {
        "table.csv": b"two",
        "before.csv": b"one",
    }


def test_a_drive_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, where no folder above a file has to be there, not even the last one."""
    monkeypatch.setattr(Path, "is_dir", lambda self: False)
    monkeypatch.setattr(Path, "exists", lambda self: False)
    with pytest.raises(
        StoreError, match=r"^/nowhere/a\.csv: cannot be written \(/ is not there\), choose another folder$"
    ):
        require_file_name(Path("/nowhere/a.csv"), "--to")
    monkeypatch.setattr(Path, "mkdir", lambda self, **how: (_ for _ in ()).throw(FileNotFoundError(2, str(self))))
    with pytest.raises(FileNotFoundError, match="/nowhere"):
        make_folder(Path("/nowhere/results"))


@pytest.mark.parametrize("user", [lambda: temporary_folder().__enter__(), cache_folder])
def test_the_cure_is_named_where_no_temporary_folder_can_be_written(
    user: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk, or in a container whose folders are all read-only."""
    monkeypatch.setattr("os.open", lambda path, *how: (_ for _ in ()).throw(OSError(errno.ENOSPC, os.strerror(28))))
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: Path("~"))  # as without a home folder
    monkeypatch.delenv("KLCLI_CACHE", raising=False)
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(StoreError, match=r"^No usable temporary directory found in .*'/tmp'.* TMPDIR$"):
        user()


WRITES_FOR_EVER = """
import sys, time
from contextlib import suppress
from pathlib import Path
from klcli.files import replacing
from klcli.termination import at_the_end, obey
obey()
with at_the_end(lambda: time.sleep(0.2)):  # comes after the removal, while the main thread goes on
    print(flush=True)
    while True:
        with suppress(FileNotFoundError), replacing(Path(sys.argv[1], "table.csv")) as file:
            file.write(b"new")
            time.sleep(0.1)
"""


@pytest.mark.skipif(os.name != "posix", reason="a process ends itself by a signal on POSIX alone")
def test_a_signal_leaves_no_temporary_file_that_is_made_while_the_process_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITES_FOR_EVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    assert {file.name for file in tmp_path.iterdir()} <= {"table.csv"}


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


def test_of_several_files_a_message_names_which_were_replaced(tmp_path: Path) -> None:
    """A folder that comes in the way of the second; on Windows, a program that has the file open."""
    paths = [tmp_path / f"{name}.csv" for name in "abc"]
    for path in paths:
        path.write_bytes(b"old")
    with pytest.raises(StoreError) as caught, replacing_all(paths) as temporaries:
        for temporary in temporaries:
            temporary.write_bytes(b"new")
        paths[1].unlink()
        (paths[1] / "full").mkdir(parents=True)
    [line] = str(caught.value).splitlines()
    assert line.startswith(f"{paths[1]}: cannot be replaced (")
    assert line.endswith("(new: a.csv; as before: b.csv, c.csv)")
    assert (paths[0].read_bytes(), paths[2].read_bytes()) == (b"new", b"old")
    assert {file.name for file in tmp_path.iterdir()} == {"a.csv", "b.csv", "c.csv"}


def test_several_files_stay_as_they_are_if_one_cannot_be_written(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.csv" for name in "ab"]
    with pytest.raises(OSError), replacing_all(paths) as temporaries:
        temporaries[0].write_bytes(b"new")
        raise OSError
    assert list(tmp_path.iterdir()) == []


WORD = "0123456789abcdef"


def test_only_what_was_left_of_this_file_long_ago_is_removed(tmp_path: Path) -> None:
    kept = [f".other.csv.{WORD}", ".[1].csv.notes", f".1.csv.{WORD}"]
    for name in [*kept, f".[1].csv.{WORD}"]:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    recent = f".[1].csv.{WORD[::-1]}"  # another process may be writing it now
    (tmp_path / recent).touch()
    with replacing(tmp_path / "[1].csv"):
        pass
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*kept, recent, "[1].csv"])
    with replacing(tmp_path / "[1].csv", previous=tmp_path / "[0].csv"):
        pass
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*kept, "[0].csv", "[1].csv"])


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system does not name open files")
def test_the_folder_is_flushed_after_the_renaming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reached the disk, in order: new folders, the bytes of the file, and then its name."""
    flushed: list[str] = []
    fsync = os.fsync

    def watching(descriptor: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        flushed.append(f"{target.name} with {len(list(target.iterdir()))}" if target.is_dir() else target.suffix[:1])
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watching)
    with replacing(tmp_path / "new" / "a.npz") as file:
        file.write(b"x")
    assert flushed == [f"{tmp_path.name} with 1", ".", "new with 1"]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, None),
        (lambda path: path.write_text("x"), None),
        (lambda path: path.mkdir(), "a folder"),
        (os.mkfifo, "a pipe"),
        (lambda path: path.symlink_to("/dev/null"), "a device"),
        (lambda path: socket.socket(socket.AF_UNIX).bind(str(path)), "a socket"),
    ],
    ids=["missing", "file", "folder", "pipe", "device", "socket"],
)
def test_what_is_no_regular_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object], expected: str | None
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    make(Path("x"))
    assert irregular(Path("x")) == expected
    if expected:
        kind = Path("x").lstat().st_mode
        with pytest.raises(StoreError, match=expected):
            write_atomically(Path("x"), b"content")
        assert Path("x").lstat().st_mode == kind


WITHOUT_PERMISSIONS = """
import os, sys
from pathlib import Path
from klcli.files import require_file_name
if os.geteuid() == 0:
    os.setuid(65534)
try:
    require_file_name(Path("/usr/none/deep/page.md"), "--markdown")
except Exception as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_place_without_permission_is_refused_before_anything_is_computed() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_PERMISSIONS], capture_output=True, text=True, check=True)
    assert done.stdout == "/usr/none/deep/page.md: cannot be written (/usr is read-only), choose another folder\n"


def test_a_folder_whose_removal_had_begun_is_removed() -> None:
    """A second signal ends the process while the first one's removal has come as far as the new name."""
    with temporary_folder() as folder:
        (folder / "file").touch()
        ended = folder.rename(f"{folder}-ended")
    assert not ended.exists()
