"""The commands that a result, a note or a refusal names: they open the database of the command that printed them."""

import html
import re
import shlex
import shutil
from pathlib import Path

import pytest
from command import Klcli, Refused, succeeded
from raw_sql import execute

DB = "course/klcli.db"


@pytest.fixture
def course(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs in another database than the default one, which is not there."""
    shutil.move(trained / "results", trained / "course")
    monkeypatch.delenv("KLCLI_DB", raising=False)
    return trained


def lose(course: Path, *numbers: int) -> None:
    for number in numbers:
        (course / f"course/checkpoints/run-{number:06d}.npz").unlink()


def named(here: Klcli, words: str, code: int = 0) -> list[list[str]]:
    """Return the commands between backticks that a command prints; all that have a database have its own."""
    done = here(*words.split(), "--db", DB)
    assert done.returncode == code, done.stderr
    found = [shlex.split(one) for one in re.findall("`klcli ((?:report|runs)[^`]*)`", done.stdout + done.stderr)]
    assert found and all(one[-2:] == ["--db", DB] for one in found), found
    return found


@pytest.mark.usefixtures("unrendered")
def test_runs_with_other_bits_are_compared_in_their_database(here: Klcli, course: Path) -> None:
    """The command without it compared the runs of these numbers in results/klcli.db."""
    lose(course, 3)
    execute(course / DB, "UPDATE runs SET checkpoint_sha256 = 'x' WHERE id = 3")
    [command] = named(here, "runs rerun 3 --quiet")
    assert command[:5] == ["report", "--run", "3", "4", "--diff-only"]
    assert "run 4" in succeeded(here(*command)).stdout


@pytest.mark.parametrize(
    ("words", "code", "shown"),
    [
        ("report --run 99", 4, "Runs in course/klcli.db: 3 complete"),
        ("report --where 0 --list --plot curves", 2, "Runs in course/klcli.db: 3 complete"),
        ("evaluate 1", 4, "run 1: klcli train"),
    ],
)
def test_a_command_that_is_the_cure_opens_the_database(
    here: Klcli, course: Path, words: str, code: int, shown: str
) -> None:
    lose(course, 1)
    [command] = named(here, words, code)
    assert shown in succeeded(here(*command)).stdout


def test_runs_to_average_are_chosen_in_their_database(here: Klcli, course: Path) -> None:
    execute(course / DB, "UPDATE runs SET dataset_sha256 = '0123' WHERE id = 2")
    [command] = named(here, "evaluate 1 2 --ensemble", 2)
    assert "Best runs on synthetic" in succeeded(here(*command)).stdout


def test_a_number_too_large_names_no_command(here: Klcli, course: Path, refused: Refused) -> None:
    """Whose database is not known where names of runs are read."""
    for command in (["evaluate", "9" * 20], ["report", "--run", "9" * 20]):
        line = refused(here(*command, "--db", DB), 2, f"{'9' * 20}: the number is too large, give that of a run")
        assert "klcli report" not in line


def test_damage_is_looked_for_and_deleted_in_its_database(
    here: Klcli, course: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("klcli.cli.commands.runs.NEWEST", 1)
    lose(course, 1)
    check, delete = named(here, "runs check", 4)
    assert check[:3] == ["runs", "check", "--contents"]
    assert "damaged  run 1" in here(*check).stdout
    assert "deleted run 1\n" in succeeded(here(*delete, "--yes")).stdout


def test_a_database_without_a_complete_run_lists_the_others(here: Klcli, course: Path) -> None:
    execute(course / DB, "UPDATE runs SET state = 'failed'")
    done = succeeded(here("report", "--db", DB)).stdout
    [first, second] = re.findall("`klcli ([^`]*)`", done)
    assert first == f"train --hidden 50 30 20 --bn --db {DB}"
    assert "3 failed" in succeeded(here(*shlex.split(second))).stdout


@pytest.mark.parametrize(
    ("words", "code", "first"),
    [
        ("report", 0, "train --hidden 50 30 20 --bn"), ("report --list", 0, "train --hidden 50 30 20 --bn"),
        ("report --gradchecks", 0, "gradcheck"), ("report --plot gradients", 2, "gradcheck"),
        ("report --plot lambda", 2, "search-lambda --coarse --fine"), ("report --plot sigma", 2, "sigma-sweep"),
        ("report --run 7", 4, "train"), ("evaluate last", 2, "train"), ("report --run best", 2, "train"),
    ],
)  # fmt: skip
def test_the_command_that_begins_writes_to_the_database_that_is_empty(
    here: Klcli, course: Path, words: str, code: int, first: str
) -> None:
    execute(course / DB, "DELETE FROM runs")
    done = here(*words.split(), "--db", DB)
    assert done.returncode == code, done.stderr
    assert re.findall("`klcli ([^`]*)`", done.stdout + done.stderr) == [f"{first} --db {DB}"]


def test_the_command_that_begins_a_database_creates_the_one_that_is_missing(here: Klcli, course: Path) -> None:
    for name in ("no such.db", "no  such .db"):
        done = here("report", "--db", name)
        assert done.returncode == 4
        assert re.findall("`klcli ([^`]*)`", done.stderr) == [f"train --db '{name}'"]
    assert "`klcli train` creates one" in here("report").stderr  # the default database needs no name


@pytest.mark.usefixtures("unrendered")
def test_the_commands_of_a_page_show_its_runs(here: Klcli, course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of runs on four sets of images, and of the filter of the page."""
    monkeypatch.setattr("klcli.report.page.sections.DRAWN", 1)
    execute(course / DB, "UPDATE runs SET dataset_sha256 = '0123' WHERE id < 3")
    execute(course / DB, "UPDATE runs SET note = 'kept' WHERE id > 1")
    succeeded(here("report", "--html", "p.html", "--where", "note = 'kept'", "--limit", "1", "--db", DB))
    text = html.unescape((course / "p.html").read_text(encoding="utf-8"))
    [pictures, every] = [shlex.split(one) for one in re.findall("<code>klcli (.*?)</code>", text)]
    assert pictures[-4:] == ["--plot", "curves", "--db", DB]
    assert re.findall(r"^ *(\d) ", succeeded(here(*pictures)).stdout, re.MULTILINE) == ["2"]
    assert "3 complete" in succeeded(here(*every)).stdout
