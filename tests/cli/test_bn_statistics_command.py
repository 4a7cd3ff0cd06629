"""`--bn-statistics` on the command line: stored, equal in the replicas of a stack, and marked as transductive."""

import json
from pathlib import Path

import pytest
from command import Klcli, Rows, succeeded

pytestmark = pytest.mark.usefixtures("unrendered")


TINY = ("--data", "synthetic", "--subset", "300", "--epochs", "1", "--hidden", "8", "--bn")


@pytest.mark.parametrize(
    ("options", "column", "samples", "words"),
    [
        ((), "ema", None, None),
        (("--bn-statistics", "precise", "--bn-samples", "50"), "precise", 50, "(precise statistics)"),
        (("--bn-statistics", "adaptive"), "adaptive", None, "(adaptive statistics, transductive)"),
        (("--bn-statistics", "batch"), "batch", None, "(batch statistics, transductive)"),
        (("--no-bn",), None, None, None),
    ],
)
def test_the_policy_is_stored_and_shown(
    here: Klcli, rows: Rows, options: tuple[str, ...], column: str | None, samples: int | None, words: str | None
) -> None:
    done = succeeded(here("train", *TINY, *options, "--quiet"))
    [run] = rows("runs")
    assert run["bn_statistics"] == column
    assert json.loads(run["config"])["bn_samples"] == samples
    document = json.loads(here("report", "--run", "1", "--json").stdout)
    assert document["runs"][0]["transductive"] == (column in ("adaptive", "batch"))
    outputs = [done.stdout, here("report").stdout, here("report", "--run", "1").stdout]
    for output in outputs:
        assert ("statistics)" in output or "transductive" in output) == (words is not None)
        assert words is None or words in output
    [ranked] = rows("best_runs")
    assert ("transductive" in (ranked["bn_statistics"] or "")) is (column in ("adaptive", "batch"))


def test_members_get_the_statistics_of_a_run_alone(here: Klcli, rows: Rows) -> None:
    precise = (*TINY, "--bn-statistics", "precise", "--bn-samples", "80", "--dtype", "float64")
    assert here("train", *precise, "--repeats", "2", "--jobs", "1").returncode == 0
    assert here("train", *precise, "--seed", "1").returncode == 0
    *_, member, alone = rows("runs")
    assert (member["seed"], member["study_id"], alone["study_id"]) == (1, 1, None)
    for measure in ("train_loss", "validation_loss", "test_loss"):
        assert member[measure] == pytest.approx(alone[measure], rel=1e-9)


def test_groups_keep_policies_apart(here: Klcli) -> None:
    for policy in ("ema", "adaptive"):
        assert here("train", *TINY, "--bn-statistics", policy).returncode == 0
    table = here("report", "--group-by", "bn_statistics").stdout
    assert "adaptive, transductive" in table
    assert "transductive" not in table.partition("\n\n")[2]  # the column says it
    mixed = here("report", "--group-by", "hidden").stdout
    assert "mixes runs with different BN statistics" in mixed
    assert "\nRow 1: BN statistics of test images, transductive.\n" in mixed
    rows = here("report", "--where", "bn_statistics = 'adaptive'", "--group-by", "hidden,bn,lambda").stdout
    assert "\nRow 1: BN statistics of test images, transductive.\n" in rows
    assert "transductive" not in here("report", "--where", "bn_statistics = 'ema'", "--group-by", "hidden").stdout


def test_a_sweep_says_so_too(here: Klcli, tmp_path: Path) -> None:
    options = ("--data", "synthetic", "--subset", "300", "--epochs", "1", "--hidden", "8", "--bn-statistics", "batch")
    done = succeeded(here("sigma-sweep", "--sigmas", "0.1", "--jobs", "1", *options))
    assert "batch statistics, transductive" in done.stdout
    assert "batch statistics, transductive" in here("report", "--study", "1").stdout


def test_a_sweep_says_where_its_bn_is(here: Klcli, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = list[str]()
    monkeypatch.setattr("klcli.report.plots.figure.draw", lambda chart, *form: titles.append(chart.title) or b"png")
    options = ("--data", "synthetic", "--subset", "300", "--epochs", "1", "--hidden", "8", "--activation", "silu")
    for position in ("after", "before"):
        done = succeeded(here("sigma-sweep", "--sigmas", "0.1", "--jobs", "1", *options, "--bn-position", position))
        assert "2-layer 8 SiLU" in done.stdout
        assert ("with BN after SiLU" in done.stdout) is ("with BN after SiLU" in titles[-1]) is (position == "after")
    assert len(titles) == 2
    assert "2-layer 8 SiLU without and with BN after SiLU on synthetic, " in here("report", "--study", "1").stdout
