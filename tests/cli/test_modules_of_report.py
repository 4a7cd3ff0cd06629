"""A ranking reads the database without importing the modules that train or draw."""

import subprocess
import sys
from pathlib import Path

import pytest

MANY = 64  # modules of klcli; 94 before records came without the rooms that make them
CODE = """
import sys
from klcli.cli.app import main
try:
    main(["report", "--best", "3", "--quiet"])
finally:
    print("LOADED", *(name for name in sys.modules if name.partition(".")[0] in ("klcli", "matplotlib", "scipy")))
"""


@pytest.mark.slow
def test_a_ranking_loads_few_modules(trained: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=trained, capture_output=True, text=True, check=True)
    assert "Best runs on synthetic" in done.stdout
    loaded = done.stdout.splitlines()[-1].split()[1:]
    own = [name for name in loaded if name.partition(".")[0] == "klcli"]
    assert len(own) < MANY, own
    rooms = {name.split(".")[1] for name in own if "." in name}
    assert rooms & {"engine", "compiled", "training", "evaluation", "data", "studies", "published"} == set()
    assert {"matplotlib", "scipy"} & set(loaded) == set()
