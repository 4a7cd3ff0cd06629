"""A picture never hides a result, and nothing of the user's own matplotlib reaches it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Klcli, succeeded

pytestmark = pytest.mark.slow


HOSTILE = "lines.linewidth: 20\nfigure.facecolor: red\ntext.usetex: True\nfont.size: 30\nbackend: nonsense\n"
TINY = ("--data", "synthetic", "--subset", "200", "--epochs", "0", "--jobs", "1")
# Commands, each with words of its result.
BY_PRODUCTS = {
    "train": (("train", "--hidden", "5", *TINY[:-2]), "validation"),
    "gradcheck": (("gradcheck", "--data", "synthetic", "--hidden", "4"), "PASS"),
    "search": (("search-lambda", "--values", "0.1", "0.2", *TINY), "chosen lambda"),
    "sweep": (("sigma-sweep", "--sigmas", "0.1", "--hidden", "5", *TINY), "with BN"),
}


def settings_of(kind: str, folder: Path) -> dict[str, str]:
    """Environments and files that a user may have, or that a server leaves behind."""
    own = folder / "own"
    own.mkdir()
    (own / "matplotlibrc").write_text(HOSTILE)
    (own / "binary").write_bytes(b"\xff\xfe\x00 broken")
    for version in ("330", "390", "400", "410", "420"):
        (own / f"fontlist-v{version}.json").write_text("{broken")
    if kind == "working folder":
        (folder / "matplotlibrc").write_text(HOSTILE)
    elif kind == "pipe in the working folder":
        os.mkfifo(folder / "matplotlibrc")
    elif kind == "binary in the working folder":
        (folder / "matplotlibrc").write_bytes(b"\xff\xfe\x00 broken")
    return {
        "inline": {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        "nonsense": {"MPLBACKEND": "nonsense"},
        "file": {"MATPLOTLIBRC": str(own / "matplotlibrc")},
        "binary": {"MATPLOTLIBRC": str(own / "binary")},
        "without end": {"MATPLOTLIBRC": "/dev/zero"},
        "config folder": {"MPLCONFIGDIR": str(own)},
        "no home": dict.fromkeys(("HOME", "MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), "/proc/nowhere"),
        "warnings": {"PYTHONWARNINGS": "error"},
    }.get(kind, {})


DRAW = ("report", "--quiet", "--run", "2", "--plot", "curves", "--to")
KINDS = (
    *("inline", "nonsense", "file", "binary", "without end", "config folder", "no home", "warnings"),
    *("working folder", "pipe in the working folder", "binary in the working folder"),
)


@pytest.fixture(scope="module")
def plain(fill: Callable[..., list[int]], three_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The picture where nobody has settings."""
    folder = tmp_path_factory.mktemp("plain")
    shutil.copytree(three_runs, folder / "results")
    assert fill(folder, [(*DRAW, "plain.png")], drawn=True) == [0]
    return (folder / "plain.png").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_the_users_own_settings_have_no_influence(klcli: Klcli, trained: Path, plain: bytes, kind: str) -> None:
    done = klcli(*DRAW, "other.png", **settings_of(kind, trained))
    assert (done.returncode, done.stderr) == (0, "")
    assert (trained / "other.png").read_bytes() == plain


NOTEBOOK = """
import matplotlib, sys
matplotlib.rcParams["lines.linewidth"] = 17
matplotlib.rcParams["text.usetex"] = True
matplotlib.rcParams["backend"] = "svg"
before = dict.copy(matplotlib.rcParams)
from klcli.cli.app import main
try:
    main(["report", "--run", "2", "--plot", "curves", "--to", "notebook.png", "--quiet"])
except SystemExit as ended:
    assert not ended.code, ended.code
assert dict.copy(matplotlib.rcParams) == before
assert "matplotlib.pyplot" not in sys.modules
import matplotlib.pyplot
assert matplotlib.pyplot.get_fignums() == []
"""

PLAIN = """
import sys
from klcli.report.plots import figure
assert "matplotlib.pyplot" not in sys.modules
"""

FIRST = """
import os
from klcli.report.plots import figure
import matplotlib
assert matplotlib.rcParams["lines.linewidth"] == 20
assert matplotlib.rcParams["backend"].lower() == "svg"
assert (os.environ["MPLBACKEND"], os.environ["MATPLOTLIBRC"]) == ("svg", "mine")
"""


def test_a_notebook_keeps_its_own_settings_and_figures(trained: Path, plain: bytes) -> None:
    python = {"cwd": trained, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", NOTEBOOK], check=False, **python)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    assert (trained / "notebook.png").read_bytes() == plain
    (trained / "mine").write_text("lines.linewidth: 20\n")
    done = subprocess.run([sys.executable, "-c", PLAIN], check=False, **python)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    environment = os.environ | {"MPLBACKEND": "svg", "MATPLOTLIBRC": "mine"}
    done = subprocess.run([sys.executable, "-c", FIRST], check=False, env=environment, **python)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("reason", ["plots is a file", "no matplotlib"])
def test_a_picture_beside_a_result_is_at_most_a_warning(klcli: Klcli, tmp_path: Path, reason: str) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "broken/matplotlib").mkdir(parents=True)
    (tmp_path / "broken/matplotlib/__init__.py").write_text("raise RuntimeError('broken \\x1b[31m here')")
    environment = {}
    if reason == "plots is a file":
        (tmp_path / "results/plots").write_text("")
    else:
        environment["PYTHONPATH"] = str(tmp_path / "broken")
    for args, words in [*BY_PRODUCTS.values()][: 2 if environment else None]:
        done = succeeded(klcli(*args, **environment))
        assert words in done.stdout
        assert "picture  " not in done.stdout
        [warning] = [line for line in done.stderr.splitlines() if line.startswith("no picture: ")]
        assert "\x1b" not in warning
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("args", [("--run", "2", "--plot", "curves"), ("--plot", "curves", "--format", "csv")])
def test_a_picture_that_was_asked_for_is_needed_but_comes_after_the_table(
    here: Klcli, trained: Path, args: tuple[str, ...]
) -> None:
    table = here("report", *(word for word in args if word not in ("--plot", "curves"))).stdout
    (trained / "results/plots").rename(trained / "results/old")
    (trained / "results/plots").write_text("")
    done = here("report", *args)
    assert done.returncode == 4
    assert done.stdout == table
    assert done.stderr.splitlines()[-1].startswith("klcli: results/plots/run-")
    assert here("report", *args, "--to", "results/plots/x.png").returncode == 4
    assert here("report", "--html", "results/plots/x.html").returncode == 2
