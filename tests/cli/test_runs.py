"""`klcli runs`: notes, tags, deletion, export, check, merge and rerun, compared with SQLite and the files."""

import csv
import io
import json
import os
import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from command import Klcli, Refused, Rows, change, succeeded
from raw_sql import execute
from rich.console import Console

from klcli import Lab, SplitConfig, TrainConfig
from klcli.report.tables.runs import ranking_table
from klcli.report.tables.terminal import show
from klcli.store.checkpoints import save
from klcli.store.store import Store
from klcli.training.result import EpochMetrics


def test_notes_tags_export_and_deletion(here: Klcli, trained: Path, rows: Rows) -> None:
    assert here("runs", "note", "2", "the good one").returncode == 0
    assert here("runs", "tag", "2", "thesis").returncode == 0
    assert [(run["note"], run["tags"]) for run in rows("runs")][1] == ("the good one", "thesis")
    assert "the good one" in here("report", "--list").stdout
    assert here("runs", "untag", "2", "thesis").returncode == 0
    assert here("runs", "export", "--tables", "out").returncode == 0
    assert len(list(csv.DictReader((trained / "out/runs.csv").open(newline="")))) == 3
    assert "sound" in here("runs", "check").stdout
    done = here("runs", "delete", "1", "3", "--yes", "--json")
    assert json.loads(done.stdout)["deleted"] == [1, 3]
    assert [run["id"] for run in rows("runs")] == [2]
    assert sorted(path.name for path in (trained / "results/checkpoints").iterdir()) == ["run-000002.npz"]


@pytest.mark.slow
def test_a_study_without_runs_is_deleted_with_its_pictures(here: Klcli, tmp_path: Path, rows: Rows) -> None:
    tiny = ("--data", "synthetic", "--subset", "200", "--hidden", "5", "--epochs", "0", "--jobs", "1")
    for sigma in ("0.1", "0.01"):
        assert here("sigma-sweep", *tiny, "--sigmas", sigma).returncode == 0
    for study in (1, 2):
        (tmp_path / f"results/plots/study-{study:06d}-sigma.png").write_text("a picture")
    assert here("runs", "delete", "1-3", "--yes").returncode == 0
    assert [study["id"] for study in rows("studies")] == [2]
    assert [path.name for path in (tmp_path / "results/plots").iterdir()] == ["study-000002-sigma.png"]
    assert "0 orphans" in here("runs", "check").stdout


def test_runs_have_names(here: Klcli, trained: Path, rows: Rows) -> None:
    here("runs", "tag", "1-3", "all")
    assert [run["tags"] for run in rows("runs")] == ["all"] * 3
    here("runs", "untag", "-3,2-3", "all")
    assert [run["tags"] for run in rows("runs")] == [None] * 3
    here("runs", "tag", "1", "-1", "some")
    assert [run["tags"] for run in rows("runs")] == ["some", None, "some"]
    here("runs", "untag", "1", "3", "some")
    assert [run["tags"] for run in rows("runs")] == [None] * 3
    here("runs", "note", "-1", "-5")
    assert [run["note"] for run in rows("runs")] == [None, None, "-5"]
    here("runs", "note", "last", "newest", "-q")
    assert [run["note"] for run in rows("runs")] == [None, None, "newest"]
    for text in ("q", "h=1e-5 is too small"):  # letters of options
        here("runs", "note", "2", text)
        assert rows("runs")[1]["note"] == text
    document = json.loads(here("report", "--run", "-1", "1-2", "last", "best", "--json").stdout)
    assert [run["id"] for run in document["runs"]] == [3, 1, 2]
    assert "--resume -2: it is complete" in here("train", "--resume", "-2").stderr
    assert json.loads(here("runs", "delete", "-2", "-y", "--json").stdout)["deleted"] == [2]
    assert [run["id"] for run in rows("runs")] == [1, 3]


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["tag", "1", "two words"], "two words"),
        (["untag", "1-3", "x"], "untag 1 'x'"),
        (["note", "one", "x"], "note 'one': give the number of a run"),
        (["note", "2-1", "x"], "give 1-2"),
        (["delete", "1"], "--yes"),
        (["export"], "--tables FOLDER"),
        (["export", "--tables", "out", "--data", "none"], "--data none: --tables reads no images, omit it"),
        (["check", "--db", "a.db", "--db", "b c.db"], "`klcli runs merge a.db 'b c.db' --db all.db`"),
    ],
)
def test_what_is_refused(here: Klcli, trained: Path, refused: Refused, rows: Rows, args: list[str], named: str) -> None:
    before = rows("runs")
    refused(here("runs", *args), 2, named)
    assert rows("runs") == before


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("report --where seed=0 --where lambda<1", "--where is given 2 times: give one condition, --where '(seed=0)"),
        ("report --tagged a --tagged=b", "--tagged is given 2 times: give one of a, b"),
        ("report --study 1 --study 2", "--study is given 2 times: give one of 1, 2"),
        ("train --preset quick --preset best", "--preset is given 2 times: give one of quick, best"),
        ("predict x.png --run 1 --run 2", "--run is given 2 times: give one of 1, 2"),
        ("search-lambda --fine --from 1 --from 2", "--from is given 2 times: give one of 1, 2"),
    ],
)
def test_of_two_names_none_is_ignored(here: Klcli, trained: Path, refused: Refused, command: str, named: str) -> None:
    refused(here(*command.split()), 2, named)


@pytest.mark.parametrize(
    ("command", "option", "next_one"),
    [
        ("train --hidden 4 --db --bn", "--db", "--bn"),
        ("train --data --quiet", "--data", "--quiet"),
        ("train --lambda --hidden=4", "--lambda", "--hidden"),
        ("report --tagged --list", "--tagged", "--list"),
        ("report --sort -q", "--sort", "-q"),
        ("search-lambda -j --values 1", "-j", "--values is an option; as a value: --jobs=--values"),
        ("train --data --help", "--data", "--help"),
        ("reproduce a3-2024 --check --note --quick", "--note", "--quick"),
        ("runs export 1 --to --data synthetic", "--to", "--data"),
    ],
)
def test_an_option_is_no_value(
    here: Klcli, trained: Path, refused: Refused, command: str, option: str, next_one: str
) -> None:
    """`--db --bn` would train a network without BN and store it in a database of the name --bn."""
    before = sorted(trained.iterdir())
    refused(here(*command.split()), 2, f"{option} needs a value, and {next_one}")
    assert sorted(trained.iterdir()) == before


def test_of_two_numbers_the_last_one_counts(here: Klcli, trained: Path) -> None:
    """As in a script that adds `"$@"` to a command with numbers of its own."""
    both = here("report", "--best", "3", "--best", "1", "--json").stdout
    assert both == here("report", "--best", "1", "--json").stdout != here("report", "--best", "3", "--json").stdout


def test_the_same_name_twice_is_no_contradiction(here: Klcli, trained: Path) -> None:
    twice = here("report", "--where", "seed = 1", "--best", "1", "--where=seed = 1", "--json")
    assert twice.stdout == here("report", "--where", "seed = 1", "--best", "1", "--json").stdout


@pytest.mark.parametrize("text", ["1e3", "007", "nan", "2026-01-01", "true", "-5", "0x10"])
def test_a_text_that_looks_like_a_number_stays_the_text(here: Klcli, trained: Path, rows: Rows, text: str) -> None:
    for command in ("note", "tag"):
        succeeded(here("runs", command, "-q", "--", "2", text))
    execute(trained / "results/klcli.db", "UPDATE runs SET host = ? WHERE id = 2", text)
    succeeded(here("runs", "merge", "results/klcli.db", "--db", "all.db"))
    for database in ("results/klcli.db", "all.db"):
        assert [(run["note"], run["tags"], run["host"]) for run in rows("runs", database)][1] == (text,) * 3
        for chosen in (("--tagged", text), ("--where", f"note = '{text}'"), ("--where", f"host = '{text}'")):
            document = json.loads(here("report", "--db", database, "--json", *chosen).stdout)
            assert [(run["id"], run["tags"]) for run in document["runs"]] == [(2, text)]
    succeeded(here("runs", "export", "--tables", "tables"))
    with (trained / "tables/runs.csv").open() as file:
        assert [run["tags"] for run in csv.DictReader(file)][1] == text


def test_a_damaged_checkpoint_is_found(here: Klcli, trained: Path) -> None:
    (trained / "results/checkpoints/run-000002.npz").write_bytes(b"PK nothing")
    done = here("runs", "check")
    assert done.returncode == 4
    assert "damaged  run 2" in done.stdout
    assert here("runs", "check", "--json").stdout.startswith("{")
    assert done.stderr.startswith("klcli: ")


def test_the_command_that_a_check_prints_deletes_what_is_damaged(here: Klcli, trained: Path) -> None:
    (trained / "results/checkpoints/run-000001.npz").unlink()
    execute(trained / "results/klcli.db", "UPDATE epochs SET train_loss = -1 WHERE run_id = 3 AND epoch = 1")
    said = here("runs", "check").stderr
    [command] = re.findall("delete the runs: `klcli ([^`]*)`", said)
    assert command == "runs delete 1 3"
    succeeded(here(*command.split(), "--yes"))
    assert "1 run, the database and all checkpoints are sound" in succeeded(here("runs", "check")).stdout


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_no_deletion_of_runs_mends_has_another_cure(here: Klcli, trained: Path, is_folder: bool) -> None:
    if is_folder:
        (trained / "results/checkpoints").rename(trained / "run 1: moved")
    else:
        execute(trained / "results/klcli.db", "UPDATE runs SET study_id = 7 WHERE id = 2")
    done = here("runs", "check")
    assert done.returncode == 4 and done.stdout.startswith("damaged ")
    assert done.stderr.endswith("1 damaged, put back what is missing or restore a copy\n")


def test_a_check_says_what_it_has_read(here: Klcli, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klcli.cli.commands.runs.NEWEST", 1)
    (trained / "results/checkpoints/run-000002.npz").write_bytes(b"PK nothing")
    done = here("runs", "check")
    assert done.returncode == 0
    assert done.stdout.endswith(": 3 runs, the database and the newest 1 of 3 checkpoints are sound, 0 orphans\n")
    assert done.stderr == "only the newest 1 of 3 checkpoints were read: `klcli runs check --contents` reads all\n"
    assert json.loads(here("runs", "check", "--json").stdout).items() >= {"checkpoints": 3, "read": 1}.items()
    (trained / "results/checkpoints/run-000001.npz").unlink()
    done = here("runs", "check")
    assert done.returncode == 4
    assert done.stdout.startswith("damaged  run 1: ") and "missing" in done.stdout
    assert "only the newest 1 of 3 checkpoints were read" in done.stderr
    done = here("runs", "check", "--contents")
    assert done.returncode == 4
    assert [line[:14] for line in done.stdout.splitlines()] == ["damaged  run 1", "damaged  run 2"]
    assert "were read" not in done.stderr


def test_of_the_remarks_of_a_merge_only_missing_checkpoints_are_counted(
    here: Klcli, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that `klcli runs check` cannot name are all shown."""
    shutil.copytree(trained / "results", trained / "ada")
    with closing(sqlite3.connect(trained / "ada/klcli.db")) as db, db:
        db.execute("UPDATE runs SET checkpoint = 'elsewhere.npz' WHERE id < 3")
    shutil.rmtree(trained / "ada/checkpoints")
    monkeypatch.setattr("klcli.cli.commands.runs.FEW", 0)
    remarks = here("runs", "merge", "ada/klcli.db", "--db", "all.db").stderr.splitlines()
    assert ["elsewhere.npz" in line for line in remarks[:2]] == [True, True]
    assert remarks[2] == "ada/klcli.db: 1 more, `klcli runs check --db all.db` names every missing checkpoint"


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["note", "1"], "an argument is missing, give RUN... TEXT (`klcli runs note --help` shows all)"),
        (["tag"], "an argument is missing, give RUN... TAG (`klcli runs tag --help` shows all)"),
        (["delete"], "Missing argument 'RUN...'. (`klcli runs delete --help` shows all)"),
        (["rerun", "1", "--db"], "Option '--db' requires an argument. (`klcli runs rerun --help` shows all)"),
    ],
    ids=str,
)
def test_what_is_missing_is_named_with_its_command(here: Klcli, refused: Refused, args: list[str], named: str) -> None:
    refused(here("runs", *args), 2, named)


@pytest.mark.parametrize("args", [["check"], ["export", "--tables", "out"]])
def test_an_empty_database(here: Klcli, trained: Path, args: list[str]) -> None:
    assert here("runs", "delete", "1-3", "--yes").returncode == 0
    assert here("runs", *args).returncode == 0


@pytest.mark.parametrize("slash", ["/", "\\"])
def test_the_condition_of_the_page_selects_the_runs_of_one_hand_in(here: Klcli, trained: Path, slash: str) -> None:
    """It also selected those of adam and Nadar."""
    page = files("klcli").joinpath("docs", "teaching.md").read_text(encoding="utf-8")
    [condition] = re.findall(r"`--where\s+\"(origin.*?)\"`", page, re.DOTALL)
    for number, name in enumerate(("adam", "ada", "Nadar"), start=1):
        origin = slash.join(("hand-ins", name, "results", "klcli.db"))
        execute(trained / "results/klcli.db", f"UPDATE runs SET origin = '{origin}' WHERE id = {number}")
    table = here("report", "--list", "--where", " ".join(condition.split()), "--format", "csv").stdout
    assert [row["id"] for row in csv.DictReader(io.StringIO(table))] == ["2"]


def test_merged_runs_show_where_they_come_from(
    here: Klcli, trained: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ada", "bob"):
        shutil.copytree(trained / "results", trained / name)
    (trained / "bob/klcli.db").write_bytes(b"no database at all, but long enough to be read as one" * 100)
    done = here("runs", "merge", "ada/klcli.db", "bob/klcli.db", "--db", "all/klcli.db")
    assert done.returncode == 4
    assert done.stdout.endswith("all/klcli.db: 3 runs from 1 database\n")
    again = here("runs", "merge", "bob/klcli.db", "--db", "all/klcli.db")
    assert (again.returncode, again.stdout) == (4, "")
    assert done.stderr.endswith("bob/klcli.db: this is not an SQLite database, leave it out\n")
    assert done.stderr.startswith("klcli: 1 of 2 databases is left out: bob/klcli.db: this is not an SQLite database")
    document = json.loads(here("runs", "merge", "ada/klcli.db", "--db", "all/klcli.db", "--json").stdout)
    assert document["merged"][0].items() >= {"database": "ada/klcli.db", "runs": 0, "known": 3}.items()
    assert "nothing is new" in here("runs", "merge", "ada/klcli.db", "--db", "all/klcli.db").stdout
    shutil.rmtree(trained / "ada/checkpoints")
    with monkeypatch.context() as patch:
        patch.setattr("klcli.cli.commands.runs.FEW", 1)
        remarks = here("runs", "merge", "ada/klcli.db", "--db", "few/klcli.db").stderr.splitlines()
    assert "missing" in remarks[0]
    assert remarks[1] == "ada/klcli.db: 2 more, `klcli runs check --db few/klcli.db` names every missing checkpoint"
    for view in (["--best", "3"], ["--list"]):
        table = here("report", *view, "--format", "csv", "--db", "all/klcli.db").stdout
        found = [(row["origin"], row["id"]) for row in csv.DictReader(io.StringIO(table))]
        assert sorted(found) == [("ada/klcli.db", str(number)) for number in (1, 2, 3)]
        assert "origin" not in here("report", *view, "--format", "csv").stdout
    assert "ada/klcli.db" in here("report", "--run", "1", "--db", "all/klcli.db").stdout
    with closing(Store(trained / "all/klcli.db")) as store:
        runs = [replace(one, tags="graded", note="a note") for one in store.runs.where("state = 'complete'")]
    table = ranking_table(runs, "validation_accuracy")
    assert table is not None
    show(table, Console(width=80, file=(narrow := io.StringIO())))  # notes make room for whose run it is
    assert "ada/klcli.db" in narrow.getvalue() and "not shown at 80 columns" in narrow.getvalue()


@pytest.mark.parametrize(
    ("databases", "named"),
    [
        (["results/klcli.db"], "the database of --db"),
        (["no.db"], "merge no.db: there is no database here"),
        (["results"], "merge results: this is a folder, name a database"),
    ],
)
def test_what_cannot_be_merged(here: Klcli, trained: Path, refused: Refused, databases: list[str], named: str) -> None:
    refused(here("runs", "merge", *databases), 2, named)


def test_the_home_of_an_argument_is_expanded(
    here: Klcli, trained: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of an option: a shell leaves a quoted `~` as it is, and a folder of this name was made."""
    home = trained / "my home"
    shutil.copytree(trained / "results", home / "a b")
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(home))
    succeeded(here("runs", "merge", "~/a b/klcli.db", "results/klcli.db", "--db", "all.db"))
    succeeded(here("runs", "export", "1", "~/network.npz", "--to", "npz"))
    assert (home / "network.npz").is_file()
    refused(here("assignment", "~/a b", "--dry-run"), 2, f"{home / 'a b'}: this folder holds other files")
    refused(here("predict", "~/cat.png", "--run", "2"), 3, str(home / "cat.png"))
    succeeded(here("runs", "note", "1", "~/a b"))
    assert "note ~/a b," in here("runs", "tag", "1", "~").stdout
    assert not (trained / "~").exists()


def test_names_that_no_file_can_have(here: Klcli, trained: Path, refused: Refused) -> None:
    refused(here("runs", "merge", "x" * 300), 4, "xxx: cannot be read or written")
    refused(here("runs", "merge", "results/klcli.db", "--db", "y" * 300), 4, "yyy: cannot be read or written")


def test_a_run_with_unreadable_settings_is_deleted(here: Klcli, trained: Path, rows: Rows) -> None:
    """As the check recommends."""
    change(trained, 'UPDATE runs SET config = \'{"hidden": "no"}\' WHERE id = 2')
    assert here("runs", "check").returncode == 4
    assert "run 2: unreadable settings" in here("runs", "delete", "2", "--yes").stderr
    assert [run["id"] for run in rows("runs")] == [1, 3]
    assert here("runs", "check").returncode == 0


@pytest.mark.parametrize("name", ["mine.npz", "mine.safetensors"])
def test_an_export_replaces_exports_alone(here: Klcli, trained: Path, name: str) -> None:
    kind = name.partition(".")[2]
    if kind == "safetensors":
        pytest.importorskip("safetensors")
    export = "runs", "export", "1", "--to", kind
    for path, args in ((trained / name, [name]), (trained / f"network-000001.{kind}", [])):
        path.write_bytes(b"precious")
        done = here(*export, *args)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"klcli: {path.name}: this file is no export, choose another name" in done.stderr
        assert path.read_bytes() == b"precious"
        path.unlink()
        assert [here(*export, *args).returncode for _ in range(2)] == [0, 0]
    change(trained, "UPDATE runs SET state = 'interrupted' WHERE id = 1")
    assert "run 1 is interrupted, the file has its network of update 0" in here(*export, name).stderr


@pytest.mark.skipif(os.name != "posix", reason="links need a privilege on Windows")
@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("page.html", ("report", "--html")),
        ("figure.pdf", ("report", "--run", "2", "--plot", "curves", "--to")),
        ("network.npz", ("runs", "export", "1", "--to", "npz")),
        ("gradients.npz", ("gradcheck", "--hidden", "3", "--data", "synthetic", "--export")),
    ],
)
def test_the_file_that_a_link_names_is_written(here: Klcli, trained: Path, name: str, command: tuple[str, ...]) -> None:
    """The link itself was replaced, for the superuser even /dev/stdout."""
    (trained / "thesis").mkdir()
    (trained / name).symlink_to(f"thesis/{name}")
    for _ in range(2):  # a file that is not there yet, and one that is
        succeeded(here(*command, name))
        assert (trained / name).is_symlink() and (trained / "thesis" / name).stat().st_size > 1000


def test_a_folder_of_checkpoints_that_is_a_link_is_refused_before_anything_is_done(
    here: Klcli, trained: Path, rows: Rows
) -> None:
    """The run was trained, and then its checkpoint could not be read: a check advised to delete it."""
    shutil.copytree(trained / "results", trained / "other")
    (trained / "results/checkpoints").rename(trained / "big-disk")
    (trained / "results/checkpoints").symlink_to(trained / "big-disk")
    before = rows("runs"), rows("studies")
    network = ("--hidden", "3", "--data", "synthetic")
    merge, delete, export = ("runs merge other/klcli.db", "runs delete 1 --yes", "runs export 1 --to npz")
    for command in (("train", *network), ("search-lambda", *network), *map(str.split, (merge, delete, export))):
        done = here(*command)
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr.splitlines()[-1].startswith("klcli: results/checkpoints: this is a link to another folder")
    done = here("runs", "check")
    assert (done.returncode, len(done.stdout.splitlines())) == (4, 1)
    assert done.stdout.startswith("damaged  results/checkpoints: this is a link to another folder")
    assert (rows("runs"), rows("studies")) == before and not any((trained / "big-disk").glob("run-000004*"))


@pytest.mark.usefixtures("unrendered")
def test_a_run_is_trained_again(here: Klcli, trained: Path, refused: Refused, rows: Rows) -> None:
    done = succeeded(here("runs", "rerun", "-1"))
    [*_, old, new] = rows("runs")
    assert (new["id"], new["state"], new["config"], new["note"]) == (4, "complete", old["config"], None)
    assert new["checkpoint_sha256"] == old["checkpoint_sha256"]
    assert done.stdout.endswith("run 4 has the same bits as run 3\n")
    assert json.loads(succeeded(here("runs", "rerun", "3", "--json")).stdout)["same_bits"] is True
    command = "klcli train --hidden 20 --bn --lambda 0.0 --epochs 1 --subset 200 --data synthetic"
    assert sorted(new["command"].split()) == sorted(command.split())
    refused(here("runs", "rerun", "1-2"), 2, "run 1-2: give one run")


@pytest.mark.usefixtures("unrendered")
def test_a_diverged_run_that_is_trained_again_has_its_verdict(here: Klcli) -> None:
    assert here("train", "--data", "synthetic", "--subset", "200", "--eta-max", "1e6").returncode == 6
    done = here("runs", "rerun", "1")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (6, "run 2 has the same bits as run 1")
    assert done.stderr.splitlines()[-1].startswith("klcli: run 2 diverged")


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(("state", "error"), [("interrupted", KeyboardInterrupt), ("failed", ZeroDivisionError)])
def test_bits_cannot_be_compared_with_those_of_a_network_that_is_not_the_last(
    here: Klcli, state: str, error: type[BaseException]
) -> None:
    def stop(metrics: EpochMetrics) -> None:
        if metrics.epoch == 1:
            raise error

    with pytest.raises(error):
        Lab(data="synthetic").train(
            TrainConfig(hidden=(5,), epochs=2, split=SplitConfig(subset=200)), on_evaluation=stop
        )
    words = f"run 1 is {state} and has no final network to compare the bits with: `klcli report --run 1 2 --diff-only`"
    assert succeeded(here("runs", "rerun", "1")).stdout.splitlines()[-1] == f"{words} shows the differences"
    assert json.loads(succeeded(here("runs", "rerun", "1", "--json")).stdout)["same_bits"] is None


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    ("factor", "verdict"), [(1, "has the same bits as run 3"), (1.5, "has other bits than run 3: `klcli report --run")]
)
def test_a_run_of_an_older_klcli_is_compared_by_its_network(
    here: Klcli, trained: Path, factor: float, verdict: str
) -> None:
    """Its checkpoint has fewer settings and no pixels, and thereby another checksum."""
    with closing(Store(trained / "results/klcli.db")) as store:
        run = store.runs.get(3)
        found, path = store.runs.checkpoint(run), store.runs.file_of(run)
    config = json.loads(found.config)
    del config["split"]["split_seed"]
    state = {name: factor * array for name, array in found.state.items()}
    sha256 = save(path, state, json.dumps(config), found.step)
    assert sha256 != found.sha256
    change(trained, "UPDATE runs SET checkpoint_sha256 = ? WHERE id = 3", values=[sha256])
    assert verdict in succeeded(here("runs", "rerun", "3", "--quiet")).stdout


@pytest.mark.usefixtures("unrendered")
def test_bits_cannot_be_compared_with_those_of_a_lost_checkpoint(here: Klcli, trained: Path) -> None:
    (trained / "results/checkpoints/run-000003.npz").unlink()
    done = json.loads(succeeded(here("runs", "rerun", "3", "--json")).stdout)
    assert (done["run"]["id"], done["same_bits"]) == (4, True)  # the database has the checksum
    (trained / "results/checkpoints/run-000004.npz").unlink()
    change(trained, "UPDATE runs SET checkpoint_sha256 = 'x' WHERE id = 4")
    assert "run 4 has no readable checkpoint to compare" in succeeded(here("runs", "rerun", "4", "--quiet")).stdout
