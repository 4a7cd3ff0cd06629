"""The door of compiled code: what happens where numba, a cache or the right BLAS is missing."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from klcli import compiled
from klcli.compiled import blas
from klcli.compiled.team import Team

TRAIN = ("train", "--data", "synthetic", "--subset", "1000", "--bn", "--hidden", "20", "--epochs", "1")

pytestmark = pytest.mark.slow


def engine_of(folder: Path, run: int) -> str:
    connection = sqlite3.connect(folder / "results/klcli.db")
    [[versions]] = connection.execute("SELECT versions FROM runs WHERE id = ?", [run])
    connection.close()
    return str(json.loads(versions)["engine"])


def test_a_run_records_the_engine_and_a_resumed_one_says_that_it_changed(klcli: Callable, tmp_path: Path) -> None:
    first = klcli(*TRAIN)
    assert first.returncode == 0, first.stderr
    assert engine_of(tmp_path, 1).startswith("numba ")
    plain = klcli(*TRAIN, NUMBA_DISABLE_JIT="1", NUMBA_CACHE_DIR="", KLCLI_CACHE=str(tmp_path / "empty"))
    assert plain.returncode == 0, plain.stderr
    assert "compiling" not in plain.stderr
    assert engine_of(tmp_path, 2) == "NumPy"
    assert plain.stderr.count("no compiled code (NUMBA_DISABLE_JIT is set): NumPy does the work") == 1
    connection = sqlite3.connect(tmp_path / "results/klcli.db")
    losses = [row[0] for row in connection.execute("SELECT train_loss FROM runs ORDER BY id")]
    connection.execute("UPDATE runs SET state = 'interrupted', finished_at = NULL WHERE id = 2")
    connection.commit()
    connection.close()
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    again = klcli("train", "--resume", "2")
    assert "run 2 was trained with the engine NumPy, now numba" in again.stderr, again.stderr


@pytest.mark.parametrize("missing", ["numba", "llvmlite", "llvmlite.binding"])
def test_without_numba_or_its_llvmlite_training_goes_on(klcli: Callable, tmp_path: Path, missing: str) -> None:
    shadow = tmp_path / f"{missing.partition('.')[0]}.py"
    shadow.write_text(f"raise ModuleNotFoundError('No module named {missing}', name='{missing}')\n")
    done = klcli(*TRAIN, PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert done.returncode == 0, done.stderr
    assert f"no compiled code ({missing} is not installed): NumPy does the work" in done.stderr
    assert engine_of(tmp_path, 1) == "NumPy"


BESIDE_THE_SOURCES = Path(compiled.__file__).with_name("__pycache__")


@pytest.fixture
def nothing_beside_the_sources() -> Iterator[None]:
    before = {file: file.stat().st_mtime_ns for file in BESIDE_THE_SOURCES.glob("*.nb?")}
    yield
    assert {file: file.stat().st_mtime_ns for file in BESIDE_THE_SOURCES.glob("*.nb?")} == before


@pytest.mark.parametrize("what", ["a file", "read-only"])
def test_a_cache_that_cannot_be_used_stops_no_training(
    klcli: Callable, tmp_path: Path, what: str, nothing_beside_the_sources: None
) -> None:
    cache = tmp_path / "code"
    if what == "a file":
        cache.write_text("")
    else:
        cache.mkdir(mode=0o500)
    done = klcli(*TRAIN, NUMBA_CACHE_DIR=str(cache), KLCLI_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if what == "a file" or os.geteuid():  # the superuser may write a read-only folder
        assert len([*(tmp_path / "cache/compiled").rglob("*.nbc")]) > 10


AS_ANOTHER_USER = """
import os, sys
from klcli import compiled
if os.geteuid() == 0:
    os.setuid(65534)
print(compiled.is_new(), repr(compiled.writable(sys.argv[1])))
"""


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_cache_below_another_users_folder_stops_nothing(tmp_path: Path) -> None:
    """As with `sudo -u`, which keeps HOME."""
    (closed := tmp_path / "closed").mkdir(mode=0)
    for code, cache in (str(closed / "code"), str(tmp_path / "cache")), ("", str(closed / "cache")):
        own = {"NUMBA_CACHE_DIR": code, "KLCLI_CACHE": cache}
        command = [sys.executable, "-c", AS_ANOTHER_USER, str(closed / "code")]
        done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == ("True ''\n", "")


def test_without_any_cache_the_code_is_compiled_at_every_start(
    klcli: Callable, tmp_path: Path, nothing_beside_the_sources: None
) -> None:
    (tmp_path / "cache").write_text("")
    done = klcli(*TRAIN, NUMBA_CACHE_DIR="", KLCLI_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert engine_of(tmp_path, 1).startswith("numba ")
    assert f"at every start: about 8 s ({tmp_path}/cache/compiled/" in done.stderr
    assert "processor, once" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="other systems have no limit of the size of files")
def test_a_disk_that_fills_up_while_the_code_is_compiled_stops_nothing(
    tmp_path: Path, nothing_beside_the_sources: None
) -> None:
    """The code of float64 was compiled in the middle of a training, which ended."""
    program = """
import resource
import numpy as np
from klcli import compiled
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
for precision in (np.float32, np.float64):
    with compiled.open_team(precision) as team:
        print(compiled.why_not() or type(team).__name__)
"""
    own = {"NUMBA_CACHE_DIR": "", "KLCLI_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("Team\nTeam\n", "")
    assert all(file.stat().st_size <= 2000 for file in (tmp_path / "cache").rglob("*") if file.is_file())


def test_a_new_cache_is_filled_once_and_with_the_same_code_and_may_be_damaged(klcli: Callable, tmp_path: Path) -> None:
    own = {"NUMBA_CACHE_DIR": "", "KLCLI_CACHE": str(tmp_path / "cache")}
    first, second = klcli(*TRAIN, **own), klcli(*TRAIN, **own)
    assert ["compiling the arithmetic" in done.stderr for done in (first, second)] == [True, False]
    assert (first.returncode, second.returncode) == (0, 0), (first.stderr, second.stderr)
    files = [file for file in (tmp_path / "cache/compiled").rglob("*") if file.is_file()]
    assert len(files) > 10
    sizes = {file: file.stat().st_size for file in files}
    for file in files:
        os.truncate(file, sizes[file] // 2)
    done = klcli(*TRAIN, **own)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert engine_of(tmp_path, 3).startswith("numba ")
    assert {file: file.stat().st_size for file in files} == sizes
    connection = sqlite3.connect(tmp_path / "results/klcli.db")
    results = [*connection.execute("SELECT train_loss, test_loss FROM runs ORDER BY id")]
    connection.close()
    assert results[0] == results[1] == results[2]


def test_the_code_of_either_precision_is_in_the_cache(klcli: Callable, tmp_path: Path) -> None:
    """That of float64 was beside the sources, where numba does not notice a change of another file."""
    done = klcli(*TRAIN, "--dtype", "float64", NUMBA_CACHE_DIR="", KLCLI_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert len([*(tmp_path / "cache/compiled").rglob("*half_of_operation*.nbc")]) == 2


@pytest.mark.parametrize("command", [["report", "--best", "3"], ["--help"], ["data", "info", "--data", "synthetic"]])
def test_commands_that_do_not_train_load_no_numba(
    light: Callable, tmp_path: Path, shared_cache: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KLCLI_CACHE", str(shared_cache))
    assert "report" not in command or light(*TRAIN).returncode == 0
    program = (
        f"import sys\nfrom klcli.cli.app import app\ntry: app({command!r})\nfinally: print('numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("False\n"), done.stderr


def test_a_blas_without_a_known_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert blas.address_of_gemm("s")[0] != blas.address_of_gemm("d")[0]
    monkeypatch.setattr(blas, "NAMES", {"no_such_{}gemm": 64})
    with pytest.raises(LookupError, match="BLAS"):
        blas.address_of_gemm("s")


def test_code_of_other_sources_or_another_blas_is_in_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user may install another klcli or NumPy beside a cache that stays, with integers of another size."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    names = [compiled.code_name.__wrapped__()]
    assert compiled.code_folder() == tmp_path / names[0]
    assert compiled.is_new()
    with monkeypatch.context() as patch:
        other = {"Build Dependencies": {"blas": {"name": "another"}}}
        patch.setattr(np, "show_config", lambda mode: other)
        names.append(compiled.code_name.__wrapped__())
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "__init__.py"))
    names.append(compiled.code_name.__wrapped__())
    assert len({*names}) == 3


def test_the_door_gives_numpys_own_where_there_is_no_team() -> None:
    assert not isinstance(compiled.NUMPY, Team)
    with compiled.open_team(np.float32) as team:
        assert team is not compiled.NUMPY
    assert sys.modules["numba"]


def test_scipys_blas_is_imported_by_what_uses_it_alone() -> None:
    """numba imports it for functions like np.dot, 0.15 s; those of a user must find it all the same."""
    program = """
import sys
from klcli.compiled import why_not
print(why_not() or "compiled", "scipy.linalg" in sys.modules)
import numba, numpy
print(numba.njit(lambda A: numpy.dot(A, A.T))(numpy.array([[3.0, 4.0]])), "scipy.linalg" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "compiled False\n[[25.]] True\n"
