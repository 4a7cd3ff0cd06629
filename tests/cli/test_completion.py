"""Completion of values, through the protocol of each shell: the environment that Typer's scripts set."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Klcli, change, succeeded


@pytest.fixture
def offered(here: Klcli) -> Callable[..., list[str]]:
    """The values that bash offers at the end of a line."""

    def complete(line: str, **environment: str) -> list[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(f"{line}|".split()) - 1)}
        done = succeeded(here(_KLCLI_COMPLETE="complete_bash", **words, **environment))
        return done.stdout.split()

    return complete


Offered = Callable[..., list[str]]
STUDY = "id, kind, settings, state, created_at"


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("klcli train --schedule ", ["cyclical", "one-cycle", "cosine", "constant", "range"]),
        ("klcli train --schedule=cos", ["cosine"]),
        ("klcli train --preset q", ["quick"]),
        ("klcli train --data ", ["cifar10", "synthetic"]),
        ("klcli report --plot con", ["confusion"]),
        ("klcli report --plot curves w", ["weights"]),
        ("klcli report --plot curves --format la", ["latex"]),
        ("klcli report --group-by bn hid", ["hidden"]),
        ("klcli reproduce a3-20", ["a3-2021", "a3-2022", "a3-2024"]),
        ("klcli help repr", ["reproduce"]),
        ("klcli search-lambda --sca", ["--scale"]),
        ("klcli report --run ", ["last", "best"]),  # without a database
    ],
)
def test_values_are_offered(offered: Offered, line: str, values: list[str]) -> None:
    assert offered(line) == values


def test_runs_and_what_is_stored_with_them(offered: Offered, trained: Path) -> None:
    assert offered("klcli evaluate 1 ") == ["last", "best", "3", "2", "1"]
    assert offered("klcli predict x.png --run 2") == ["2"]
    assert offered("klcli train --resume ") == ["last"]
    change(trained, "UPDATE runs SET state = 'interrupted', tags = 'thesis draft' WHERE id = 2")
    assert offered("klcli train --resume ") == ["last", "2"]
    change(trained, f"INSERT INTO studies ({STUDY}) VALUES (1, 'repeats', '{{}}', 'interrupted', '2026')")
    change(trained, "UPDATE runs SET study_id = 1 WHERE id = 2")  # continued with its study: refused
    assert offered("klcli train --resume ") == ["last"]
    assert offered("klcli evaluate 2") == ["2"]
    assert offered("klcli report --tagged ") == ["draft", "thesis"]
    assert "validation_accuracy" in offered("klcli report --sort val")
    (trained / "results").rename(trained / "elsewhere")
    assert offered("klcli evaluate ", KLCLI_DB="elsewhere/klcli.db")[2:] == ["3", "2", "1"]
    assert offered("klcli report --db elsewhere/klcli.db --run ")[2:] == ["3", "2", "1"]
    assert offered("klcli report --db nowhere.db --run ")[2:] == []
    assert not (trained / "nowhere.db").exists()
    (trained / "text.db").write_text("no database")
    assert offered("klcli report --db text.db --run ")[2:] == []
    too_long = f"{'x' * 300}.db"  # the system refuses to look for it
    assert offered(f"klcli report --db {too_long} --run ") == ["last", "best"]


def test_other_shells_show_the_network_of_a_run(here: Klcli, trained: Path) -> None:
    line = "klcli evaluate 3"
    zsh = here(_KLCLI_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=line).stdout
    assert '"3":"2-layer 20 with BN on synthetic, validation 0.' in zsh
    how = {"_KLCLI_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    assert here(**how, _TYPER_COMPLETE_ARGS=line).stdout.startswith("3\t2-layer 20 with BN on synthetic, validation 0.")
    how = {"_KLCLI_COMPLETE": "complete_powershell", "_TYPER_COMPLETE_WORD_TO_COMPLETE": "3"}
    assert here(**how, _TYPER_COMPLETE_ARGS=line).stdout.startswith("3:::2-layer 20 with BN on synthetic, validation")
    change(trained, "UPDATE runs SET state = 'interrupted' WHERE id = 3")  # it keeps the numbers of its last evaluation
    assert here(**how, _TYPER_COMPLETE_ARGS=line).stdout.startswith("3:::2-layer 20 with BN on synthetic, interrupted")


def test_nothing_slow_is_imported_for_a_completion(trained: Path) -> None:
    code = (
        "import os, sys\nfrom klcli.cli.app import main\n"
        "os.environ |= {'_KLCLI_COMPLETE': 'complete_bash', 'COMP_WORDS': 'klcli evaluate ', 'COMP_CWORD': '2'}\n"
        "try:\n    main([])\nexcept SystemExit:\n"
        "    print(*({'numpy', 'matplotlib', 'sqlite_utils', 'scipy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=trained, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["last", "best", "3", "2", "1"]
