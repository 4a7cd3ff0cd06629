"""Nobody runs these tests on Windows: klcli in processes without what Windows lacks, see `tests/windows.py`."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import numpy as np
import pytest
from command import Klcli
from PIL import Image

from klcli import files, text
from klcli.errors import StoreError
from klcli.store.checkpoints import write_atomically
from klcli.store.reading import read_only_uri
from tests.light import COMPILED

PROGRAM = (sys.executable, str(Path(__file__).resolve().parents[1] / "windows.py"))
IMAGES = "--data synthetic --subset 200 --hidden 20"
TRAIN = f"train {IMAGES} --bn --epochs 12"
SEARCH = f"search-lambda {IMAGES} --trials 5 --step-size 3"
BEYOND = "λ ━ — ± × é"  # the last three are in cp1252


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it makes a Linux look like Windows")
def test_the_laboratory_on_a_system_like_windows_gives_the_same_bits(tmp_path: Path, light: Klcli) -> None:
    """Trainings that are interrupted and resumed, a study in processes, and commands that read, write and remove."""
    db, temporary = tmp_path / "my results/klcli.db", tmp_path / "temporary"
    temporary.mkdir()
    at = ["--db", "my results/klcli.db"]
    own = {"PYTHONIOENCODING": "cp1252", "TMPDIR": str(temporary)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "cp1252"}
    command = [*PROGRAM, *TRAIN.split(), *at]
    with subprocess.Popen(command, cwd=tmp_path, env=os.environ | own, **streams) as process:  # type: ignore[call-overload]
        assert any(line.startswith("epoch 2/") for line in process.stderr)
        process.send_signal(signal.SIGUSR2)  # Ctrl-Break
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("klcli: interrupted: run 1 keeps its ")
    assert err.endswith('continue with `klcli train --resume 1 --db "my results/klcli.db"`\n')

    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 32), "navy").save(tmp_path / name)
    for name in ("0" * 16, "1" * 16):  # of processes that were killed
        (db.parent / f"locks/{name}.lock").touch()
    later = (
        ("train", "--resume", "last"), (*SEARCH.split(), "--jobs", "2"), ("runs", "note", "1", BEYOND),
        ("report", "--list"), ("predict", "*.png", "--run", "1"), ("runs", "check"), ("runs", "delete", "2", "--yes"),
    )  # fmt: skip
    words = [word for one in later for word in ("+", *one, *at)]
    done = subprocess.run([*PROGRAM, *words], cwd=tmp_path, env=os.environ | own, check=False, timeout=120, **streams)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "no processes beside this one" not in done.stderr
    assert r"\u03bb \u2501 — ± × é" in done.stdout
    assert "a.png" in done.stdout
    assert "b.png" in done.stdout
    assert "deleted run 2" in done.stdout
    left = [file.name for file in db.parent.rglob("*") if file.suffix not in (".db", ".npz", ".png")]
    assert sorted(left) == ["checkpoints", "locks", "plots"]
    assert list(temporary.iterdir()) == []

    for usual in (TRAIN, f"{SEARCH} --jobs 1"):
        assert light(*usual.split()).returncode == 0
    expected = tmp_path / "results/klcli.db"
    assert _checkpoints(db) == [one for one in _checkpoints(expected) if one != "run-000002.npz"] != []
    for name in _checkpoints(db):
        weights, wanted = (np.load(one.parent / "checkpoints" / name) for one in (db, expected))
        assert sorted(weights) == sorted(wanted)
        for key in set(weights) - {"versions"}:
            np.testing.assert_array_equal(weights[key], wanted[key])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it makes a Linux look like Windows")
def test_compiled_code_on_a_system_like_windows_gives_the_same_bits(tmp_path: Path, light: Klcli) -> None:
    """Compiled for an empty cache, whose files numba renames, and loaded in the processes of a study."""
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache"), **COMPILED}
    words = [*TRAIN.split(), "--db", "here.db", "+", *SEARCH.split(), "--jobs", "2", "--db", "here.db"]
    command, environment = [*PROGRAM, *words], os.environ | cache
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for usual in (TRAIN, f"{SEARCH} --jobs 1"):
        assert light(*usual.split(), "--db", "usual.db", **COMPILED).returncode == 0
    for number in range(1, 7):
        here, usual_one = (np.load(tmp_path / f"{name}-checkpoints/run-{number:06}.npz") for name in ("here", "usual"))
        assert str(here["versions"]).count("numba") == 1
        for key in here:
            np.testing.assert_array_equal(here[key], usual_one[key])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it makes a Linux look like Windows")
def test_downloads_on_a_system_like_windows(tmp_path: Path) -> None:
    """There are no locks: a file that is open cannot be renamed, nor one that a virus scanner looks at for a moment."""
    cache, page = tmp_path / "cache", tmp_path / "x.tar.gz"
    cache.mkdir()
    page.write_text("<html>")
    command = [*PROGRAM, "data", "fetch", "-q", "--no-verify", "--url", page.as_uri()]
    environment = os.environ | {"KLCLI_CACHE": str(cache)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "is not a .tar.gz archive but a web page" in done.stderr
    assert [*cache.iterdir()] == []
    second = "with open('x.tar.gz.part', 'ab'): sys.argv[1:] = words; light.main()"
    lines = (
        f"import sys; words = sys.argv[1:]; sys.path[:0] = {[str(Path(PROGRAM[1]).parent)]!r}; import windows, light"
    )
    command[1:2] = ["-c", f"{lines}\n{second}"]
    done = subprocess.run(command, env=environment, cwd=cache, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "another `klcli data fetch` downloads it, wait for its end" in done.stderr


def _checkpoints(db: Path) -> list[str]:
    return sorted(file.name for file in (db.parent / "checkpoints").iterdir())


@pytest.mark.parametrize("refusals", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_a_file_that_is_open_elsewhere_is_replaced_as_soon_as_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    replace, refused = os.replace, []

    def scanned(source: Path, target: Path) -> None:
        if len(refused) < refusals:
            refused.append(PermissionError(13, "Access is denied"))
            refused[-1].winerror = 5
            raise refused[-1]
        replace(source, target)

    monkeypatch.setattr(os, "replace", scanned)
    monkeypatch.setattr(files, "PAUSES", (0.001,) * len(files.PAUSES))
    path = tmp_path / "figure.pdf"
    path.write_bytes(b"old")
    if refusals == 2:
        write_atomically(path, b"new")
    else:
        cure = "close the program that has it open, or choose another name"
        with pytest.raises(StoreError, match=rf"figure.pdf: cannot be written \(Access is denied\), {cure}$"):
            write_atomically(path, b"new")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [
        ("figure.pdf", b"new" if refusals == 2 else b"old")
    ]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("klcli train --resume 1", "klcli train --resume 1"),
        (r"klcli --db C:\hand-ins\ada.db \\server\share\x.db", r"klcli --db C:\hand-ins\ada.db \\server\share\x.db"),
        (["--db", r"C:\my results" + "\\"], '--db "C:\\my results\\\\"'),  # or the last one would escape the quote
        (["--where", "lambda < 0.01 & run > 3"], '--where "lambda < 0.01 & run > 3"'),
        (["50,30", "@last", "it's", ""], '"50,30" "@last" "it\'s" ""'),  # PowerShell takes the first one for a list
        (["--lambda=0.5", "-0.5"], '"--lambda=0.5" "-0.5"'),
        (['the "best"'], r'"the \"best\""'),
        (["two\nlines", "\ud800"], r'"two\nlines" "\ud800"'),
    ],
)
def test_commands_are_quoted_for_cmd_and_powershell(
    monkeypatch: pytest.MonkeyPatch, words: list[str] | str, line: str
) -> None:
    monkeypatch.setattr(text, "sys", SimpleNamespace(platform="win32"))
    assert text.command_text(words.split() if isinstance(words, str) else words) == line


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        (r"C:\my results\klcli.db", "file:///C:/my%20results/klcli.db?mode=ro"),
        (r"\\server\share\klcli.db", "file:////server/share/klcli.db?mode=ro"),
    ],
)
def test_sqlite_reads_a_database_of_a_network_drive(path: str, uri: str) -> None:
    assert read_only_uri(PureWindowsPath(path)) == uri
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):  # and not `invalid uri authority`
        sqlite3.connect(uri, uri=True)
