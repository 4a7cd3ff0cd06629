"""`klcli train --lr-range-test`: a stored run, its picture, its suggestion, and its end where eta is too large."""

import json
import re
from pathlib import Path

import pytest
from command import Klcli, Refused, Rows, change, succeeded

from klcli.report.plots.curves import training_curves
from klcli.store.store import Store

TINY = ("train", "--data", "synthetic", "--subset", "1000", "--hidden", "20", "--lr-range-test", "--batch-size", "20")


@pytest.mark.usefixtures("unrendered")
def test_a_range_test_is_a_run_that_never_saw_the_test_images(here: Klcli, rows: Rows, tmp_path: Path) -> None:
    done = succeeded(here(*TINY, "--bn", "--evaluations-per-cycle", "10"))
    [run] = rows("runs")
    assert (run["state"], run["schedule"], run["eta_min"], run["eta_max"]) == ("complete", "range", 1e-5, 1.0)
    assert run["test_accuracy"] is None
    stored = rows("epochs")
    assert [row["step"] for row in stored] == list(range(5, 51, 5))
    # Update t of 50 has eta 1e-5 * (1e5)^(t / 49); the one before an evaluation at step s is t = s - 1.
    assert [row["learning_rate"] for row in stored] == pytest.approx(
        [1e-5 * 1e5 ** ((s - 1) / 49) for s in range(5, 51, 5)]
    )
    assert "suggest" in done.stdout
    assert (tmp_path / "results/plots/run-000001.png").read_bytes()[:4] == b"\x89PNG"

    [line] = [line for line in done.stdout.splitlines() if "suggest" in line]
    shown = here("report", "--run", "1", "--plot", "curves")
    assert f"run 1, {line}" in shown.stdout
    assert (tmp_path / "results/plots/run-000001-curves.png").exists()
    store = Store.existing(tmp_path / "results/klcli.db")
    chart = training_curves([store.runs.get(1)], {1: store.runs.epochs(1)})
    _, accuracy = chart.panels[0]
    [curve] = [line for line in accuracy.lines if line.label == "validation"]
    assert curve.x == [row["learning_rate"] for row in stored]
    assert curve.y == [row["validation_accuracy"] for row in stored]


@pytest.mark.usefixtures("unrendered")
def test_one_that_diverges_has_found_the_end_of_the_range(here: Klcli, rows: Rows) -> None:
    done = succeeded(here(*TINY, "--eta-max", "1e6", "--lambda", "1", "--json", "--quiet"))
    [run] = rows("runs")
    assert run["state"] == "diverged" and run["epochs_done"] > 0
    [note] = json.loads(done.stdout)["notes"]
    assert "suggest" in note


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("state", ["interrupted", "failed"])
def test_one_that_did_not_end_suggests_nothing(here: Klcli, tmp_path: Path, state: str) -> None:
    """The accuracy still rose where it was cut off: that place says nothing about the largest eta."""
    succeeded(here(*TINY, "--evaluations-per-cycle", "10", "--quiet"))
    change(tmp_path, "UPDATE epochs SET validation_accuracy = 0.1 + step / 100.0")
    assert "run 1, suggested: --eta-min " in here("report", "--run", "1").stdout
    cut = "UPDATE runs SET epochs_done = (SELECT max(epoch) FROM epochs)"
    change(tmp_path, "DELETE FROM epochs WHERE step > 30", cut, f"UPDATE runs SET state = '{state}'")
    shown = here("report", "--run", "1").stdout
    assert f"run 1, no suggestion: eta has not reached 1, the end of the range ({state})\n" in shown
    assert "suggested" not in shown
    store = Store.existing(tmp_path / "results/klcli.db")
    chart = training_curves([store.runs.get(1)], {1: store.runs.epochs(1)})
    assert [panel.limits for panel in chart.panels[0]] == [{}, {}]
    change(tmp_path, "DELETE FROM epochs WHERE step > 10")  # too few for a median: more of them are not the cure
    assert f"({state})\n" in here("report", "--run", "1").stdout


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    ("options", "n"),
    [
        (("--evaluations-per-cycle", "2"), 2),  # few were asked for
        (("--batch-size", "500"), 2),  # there are no more updates
        (("--eta-max", "1e30", "--lambda", "1", "--evaluations-per-cycle", "5"), 1),  # the others diverge
    ],
)
def test_too_few_evaluations_are_no_lack_of_a_rise(here: Klcli, rows: Rows, options: tuple[str, ...], n: int) -> None:
    done = succeeded(here(*TINY, *options, "--json"))
    assert len(rows("epochs")) == n
    [note] = json.loads(done.stdout)["notes"]
    assert note.startswith(f"no suggestion: a median of three needs more than {n} evaluation")
    assert "--epochs" in note and "--evaluations-per-cycle" in note and "chance" not in note
    assert f"run 1, {note}" in here("report", "--run", "1").stdout


def test_members_can_test_ranges_too(here: Klcli, rows: Rows, tmp_path: Path) -> None:
    """Each has limits of its own, so that a picture of their mean could show none."""
    done = succeeded(here(*TINY, "--repeats", "2", "--jobs", "1", "--evaluations-per-cycle", "2"))
    assert [(run["schedule"], run["test_accuracy"]) for run in rows("runs")] == [("range", None)] * 2
    [following] = re.findall(r"^next +klcli (.*)$", done.stderr, re.MULTILINE)
    assert following == "report --study 1 --plot curves"  # no ranking has them
    succeeded(here("report", "--study", "1", "--plot", "training", "--to", "t.svg"))
    drawn = sorted(tmp_path.glob("*.svg"))
    assert [path.stem for path in drawn] == ["t-run-000001-training", "t-run-000002-training"]
    titles = [re.findall("<!-- Learning-rate range test, run ([0-9]+):", path.read_text()) for path in drawn]
    assert titles == [["1"], ["2"]]


@pytest.mark.slow
@pytest.mark.usefixtures("unrendered")
def test_its_accuracy_is_no_result(here: Klcli, tmp_path: Path) -> None:
    """The last eta of a range test is too large on purpose: no ranking, group or best run has it."""
    succeeded(here(*TINY, "--eta-max", "0.1", "--quiet"))
    hint = "1 more not ranked, range tests or with quirks of a published report: klcli report --list"
    for view in ((), ("--best", "3"), ("--group-by", "hidden")):
        shown = here("report", *view)
        assert (shown.returncode, hint in shown.stderr, "no run to rank" in shown.stdout) == (0, True, True)
    assert "no run to draw" in here("report", "--plot", "curves").stderr
    assert "holds no run to rank yet" in here("evaluate", "best").stderr

    subset = ("--data", "synthetic", "--subset", "500", "--hidden", "20", "--batch-size", "20", "--quiet")
    for seed in ("0", "1"):  # on fewer images, which do not hide behind a range test on more
        succeeded(here("train", *subset, "--epochs", "1", "--seed", seed))
    succeeded(here(*TINY, "--subset", "500", "--eta-max", "0.1", "--quiet"))
    [row] = json.loads(here("report", "--group-by", "schedule", "--json").stdout)["groups"]
    assert (row["schedule"], row["validation_accuracy_n"]) == ("cyclical", 2)
    best = here("report", "--best", "9", "--json")
    assert {run["id"] for run in json.loads(best.stdout)["runs"]} == {2, 3}
    assert Store.existing(tmp_path / "results/klcli.db").runs.get(4).config.schedule == "range"
    for named in (("--run", "4"), ("--list",)):
        assert "range" in here("report", *named).stdout


def test_each_of_several_range_tests_suggests_its_limits(here: Klcli) -> None:
    """A cost that becomes infinite is where the range ends, as in a single test."""
    options = ("--eta-max", "1e6", "--lambda", "1", "--repeats", "2", "--jobs", "1")
    done = succeeded(here(*TINY, *options))
    side_by_side = here("report", "--run", "1", "2").stdout.splitlines()
    suggestions = [line for line in side_by_side if line.startswith(("run 1, ", "run 2, ")) and "suggest" in line]
    assert len(suggestions) == 2
    assert suggestions == done.stdout.splitlines()[1:3]  # below the title, as no run is complete
    again = succeeded(here(*TINY, *options, "--resume", "last", "--json"))
    assert json.loads(again.stdout)["notes"] == suggestions


@pytest.mark.usefixtures("unrendered")
def test_repeats_continue_by_their_own_command(here: Klcli, rows: Rows, tmp_path: Path) -> None:
    command = (*TINY, "--repeats", "2", "--jobs", "1", "--evaluations-per-cycle", "2")
    succeeded(here(*command))
    change(tmp_path, "UPDATE runs SET state = 'interrupted' WHERE id = 2", "UPDATE studies SET state = 'interrupted'")
    line = here("train", "--resume", "2").stderr.splitlines()[-1]
    printed = line[line.index("`klcli ") + 7 : line.rindex("`")]
    assert printed == " ".join((*command, "--resume last"))
    succeeded(here(*printed.split()))
    assert [(run["schedule"], run["state"]) for run in rows("runs")] == [("range", "complete")] * 2


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--schedule", "constant"), ("--schedule constant",)),
        (("--cycles", "2"), ("--cycles", "--epochs")),
        (("--snapshots",), ("--snapshots", "--lr-range-test has no cycles", "omit it")),
        (("--eta-decay", "0.6"), ("--eta-decay", "--lr-range-test has no cycles", "omit it")),
        (("--resume", "last"), ("--resume last", "--lr-range-test")),
        (("--eta-min", "0"), ("--eta-min 0",)),
        (("--eta-max", "1e-6"), ("--eta-min", "--eta-max 1e-06")),
    ],
)
def test_contradictions(here: Klcli, refused: Refused, options: tuple[str, ...], named: tuple[str, ...]) -> None:
    refused(here(*TINY, *options), 2, *named)
