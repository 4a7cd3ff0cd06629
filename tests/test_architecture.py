"""The dependency rule: the allowed imports between folders, checked in the source of every module."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import klcli

PACKAGE = Path(klcli.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# From the ground up: a room may import itself and every room before it.
FLOORS = (
    "errors", "text", "csv_text", "termination", "files", "settings", "arguments", "engine", "data", "compiled",
    "evaluation", "training", "studies",
    "store", "published", "procedures", "report", "lab", "cli",
)  # fmt: skip
APART = {("data", "engine"), ("engine", "data"), ("engine", "settings")}  # neighbours that ignore each other
MAY_IMPORT = {
    room: {other for other in FLOORS[: FLOORS.index(room) + 1] if (room, other) not in APART} for room in FLOORS
} | {"__init__": {"lab", "settings"}, "__main__": {"cli", "termination"}}

# Who alone may use a library: a layer, or one folder of it.
OWNERS = {
    "sqlite_utils": {"store"},
    "sqlite3": {"store"},
    "filelock": {"store/locks.py"},
    "orjson": {"csv_text.py"},
    "matplotlib": {"report/plots"},
    "rich": {"report", "cli"},
    "typer": {"cli"},
    "threadpoolctl": {"training", "compiled/blas.py"},
    "numba": {"compiled"},
    "llvmlite": {"compiled"},
    "platformdirs": {"data"},
    "PIL": {"data/pictures.py"},
    "safetensors": {"procedures/interchange.py"},
    # Student's t, a few eigenvectors of many, and Matlab's files
    "scipy": {"studies/statistics.py", "training/whitening.py", "data/cifar10/batches.py"},
}
SILENT = set(FLOORS) - {"cli"}  # only the command line speaks


def layer_of(path: str) -> str:
    """`engine` of `engine/layers.py`, `errors` of `errors.py`."""
    return path.partition("/")[0].removesuffix(".py")


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every import with its line: absolute, relative, at the top or inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "." * node.level
            else:
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def violations(path: str, source: str) -> list[str]:
    """What breaks the rules in a module, `path` being relative to the package."""
    tree, layer, found = ast.parse(source), layer_of(path), []
    for line, name in imported(tree):
        top, *rest = name.split(".")
        if name.startswith("."):
            found.append(f"{path}:{line} imports relatively, the rule reads absolute names")
        elif top == "klcli" and rest and rest[0] not in MAY_IMPORT[layer] | {"__version__"}:
            found.append(f"{path}:{line} {layer} may not import {rest[0]}")
        elif top in OWNERS and not any(path == owner or path.startswith(f"{owner}/") for owner in OWNERS[top]):
            found.append(f"{path}:{line} {top} belongs to {', '.join(sorted(OWNERS[top]))}")
        elif layer == "engine" and top not in {"klcli", "numpy"} | PURE:
            found.append(f"{path}:{line} the engine is NumPy and arithmetic, not {top}")
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"{path}:{node.lineno} a bare except hides every defect")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "print" and layer in SILENT:
                found.append(f"{path}:{node.lineno} {layer} may not print")
            if node.func.id == "open" and layer == "engine":
                found.append(f"{path}:{node.lineno} the engine opens no files")
    return found


PURE = {"__future__", "collections", "copy", "dataclasses", "enum", "functools", "itertools", "math", "typing"}


def test_every_layer_of_the_package_is_under_the_rule() -> None:
    assert len(MODULES) > 20
    assert {layer_of(str(path.relative_to(PACKAGE).as_posix())) for path in MODULES} <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_keeps_the_dependency_rule(path: Path) -> None:
    assert violations(path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("engine/layers.py", "from klcli.data.dataset import Split"),
        ("engine/layers.py", "import klcli.store.runs"),
        ("engine/layers.py", "import os"),
        ("engine/layers.py", "print(1)"),
        ("data/dataset.py", "def f():\n    from klcli.engine import layers"),
        ("training/trainer.py", "from klcli.store.runs import Runs"),
        ("studies/execution.py", "from klcli import report"),
        ("training/trainer.py", "import rich.progress"),
        ("store/runs.py", "from klcli.report import tables"),
        ("store/runs.py", "from ..report import tables"),
        ("published/report.py", "from klcli.cli.session import Session"),
        ("report/tables/runs.py", "import matplotlib.pyplot as plt"),
        ("report/tables/runs.py", "from sqlite3 import connect"),
        ("cli/commands/report.py", "import sqlite_utils"),
        ("cli/train.py", "try:\n    pass\nexcept:\n    pass"),
        ("errors.py", "from klcli.engine import layers"),
    ],
)
def test_the_rule_would_notice(path: str, source: str) -> None:
    assert len(violations(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("engine/layers.py", "import numpy as np\nfrom klcli.errors import KlcliError"),
        ("training/environment.py", "import klcli\nimport threadpoolctl"),
        ("report/plots/curves.py", "from matplotlib.figure import Figure\nfrom klcli.store import runs"),
        ("cli/train.py", "import typer\nfrom rich.console import Console\nprint(1)"),
    ],
)
def test_the_rule_lets_pass_what_is_allowed(path: str, source: str) -> None:
    assert violations(path, source) == []


def test_the_extra_of_the_benchmarks_has_all_that_they_import() -> None:
    root = PACKAGE.parent
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [*project["dependencies"], *project["optional-dependencies"]["bench"]]
    installed = {re.split(r"[<>=;\[ ]", one)[0].replace("scikit-learn", "sklearn") for one in listed}
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (root / "tests/benchmarks").glob("*.py")]
    names = {name.partition(".")[0] for tree in trees for _, name in imported(tree)}
    assert names > {"torch", "jax", "sklearn"}
    assert names - sys.stdlib_module_names - {"klcli", "tests"} <= installed


def loaded_after(statement: str) -> set[str]:
    """The top-level modules of a fresh interpreter after this statement."""
    code = f"{statement}; import sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(process.stdout.split())


def test_the_command_line_answers_without_the_slow_libraries() -> None:
    loaded = loaded_after("import klcli.cli.app")
    assert "typer" in loaded
    assert loaded & {"numpy", "matplotlib", "sqlite_utils", "sqlite3", "psutil"} == set()


def test_the_engine_loads_numpy_and_nothing_else_of_the_dependencies() -> None:
    loaded = loaded_after("import klcli.engine.network, klcli.engine.optimizers, klcli.engine.schedules")
    assert "numpy" in loaded
    assert loaded & set(OWNERS) == set()
