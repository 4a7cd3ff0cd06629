"""`klcli report`: ranking, separate data sets, and the messages for an empty database."""

import json
from pathlib import Path

import pytest
from command import Klcli, Refused, Rows, change, succeeded


def test_without_a_database(here: Klcli, refused: Refused, tmp_path: Path) -> None:
    refused(here("report", "--best", "3"), 4, "results/klcli.db", "klcli train")
    assert not (tmp_path / "results").exists()  # a report creates nothing


def test_an_empty_database(here: Klcli, trained: Path) -> None:
    change(trained, "DELETE FROM runs")
    done = here("report", "--best", "3")
    assert done.returncode == 0
    assert "klcli train --hidden 50 30 20 --bn" in done.stdout
    document = json.loads(here("report", "--json").stdout)
    assert (document["schema"], document["command"], document["runs"]) == (2, "report", [])


@pytest.mark.usefixtures("unrendered")
def test_a_database_of_a_gradient_check_has_no_images_to_choose_from(here: Klcli) -> None:
    succeeded(here("gradcheck", "--data", "synthetic", "--hidden", "3", "--dims", "5", "--images", "5"))
    for options in ((), ("--list",)):
        done = succeeded(here("report", "--dataset", "cifar10", *options))
        assert "yet: begin with `klcli train --hidden 50 30 20 --bn`" in done.stdout
    succeeded(here("report", "--dataset", "cifar10", "--html", "page.html"))
    assert "Gradient check" in Path("page.html").read_text()


def test_the_best_run_comes_first(klcli: Klcli, here: Klcli, trained: Path, rows: Rows) -> None:
    done = klcli("report", "--best", "2")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "Best runs on synthetic" in done.stdout
    expected = sorted(rows("runs"), key=lambda run: (-run["validation_accuracy"], run["id"]))[:2]
    table = [line.split() for line in done.stdout.splitlines() if line.split()[:1] and line.split()[0].isdigit()]
    assert [int(line[0]) for line in table] == [run["id"] for run in expected]
    for line, run in zip(table, expected, strict=True):
        for value in (f"{run['lambda']:.4g}", f"{run['validation_accuracy']:.4f}", f"{run['test_accuracy']:.4f}"):
            assert value in line

    document = json.loads(here("report", "--best", "2", "--json").stdout)
    assert [run["id"] for run in document["runs"]] == [run["id"] for run in expected]
    assert document["dataset"] == "synthetic"
    assert document["runs"][0]["config"]["batch_norm"] is True


def test_only_complete_runs_are_ranked(here: Klcli, trained: Path) -> None:
    change(trained, "UPDATE runs SET state = 'diverged', validation_accuracy = 1 WHERE id = 1")
    document = json.loads(here("report", "--json").stdout)
    assert sorted(run["id"] for run in document["runs"]) == [2, 3]


def test_runs_on_different_images_are_never_mixed(here: Klcli, trained: Path) -> None:
    # Two sets of the same name and different content are different data as well.
    for run, name, sha256 in ((1, "cifar10", "ab" * 32), (2, "other", "cd" * 32), (3, "other", "ef" * 32)):
        values = f"dataset = '{name}', dataset_sha256 = '{sha256}', validation_accuracy = {1 / run}"
        change(trained, f"UPDATE runs SET {values} WHERE id = {run}")
    done = here("report", "--best", "5")
    assert "Best runs on other" in done.stdout
    assert "--dataset abababab" in done.stderr
    assert "--dataset cdcdcdcd" in done.stderr

    document = json.loads(here("report", "--json").stdout)
    assert [run["id"] for run in document["runs"]] == [3]  # the data set used last
    for name in ("cifar10", "abab", "ab" * 32):
        document = json.loads(here("report", "--json", "--dataset", name).stdout)
        assert (document["dataset"], [run["id"] for run in document["runs"]]) == ("cifar10", [1])
    document = json.loads(here("report", "--json", "--dataset", "cdcd").stdout)
    assert [run["id"] for run in document["runs"]] == [2]
    assert here("report").stderr != ""
    assert here("report", "--quiet").stderr == ""


def test_an_unknown_data_set(here: Klcli, trained: Path, refused: Refused) -> None:
    for unknown in ("mnist", ""):
        refused(here("report", "--dataset", unknown), 2, repr(unknown), "synthetic")


@pytest.mark.parametrize("best", ["0", "-1", "three", "1.5", "99999999999999999999"])
def test_a_count_that_is_none(here: Klcli, trained: Path, refused: Refused, best: str) -> None:
    refused(here("report", "--best", best), 2, best, "--best")
