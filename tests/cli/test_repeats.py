"""Repeats: a seed is the seed of all that is drawn, each run of a study is what its command gives alone."""

import json
import re
import shlex
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from command import Klcli, Refused, Rows, change, read, succeeded

from klcli.report.plots.chart import Chart
from klcli.store import checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unrendered")]


SMALL = ("--data", "synthetic", "--subset", "300", "--hidden", "12", "9", "--batch-size", "50", "--step-epochs", "1")
# All that a seed draws: weights, order, flips, shifts, mixup, dropout, and the images for the statistics of BN.
DRAWN = (
    *(*SMALL, "--bn", "--flip", "--shift", "2", "--mixup", "0.2", "--dropout", "0.2"),
    *("--bn-statistics", "adaptive", "--bn-samples", "20"),
)
OF_THE_MOMENT = {
    *("id", "study_id", "member", "started_at", "finished_at", "pid", "owner", "identity", "seconds", "command"),
    *("checkpoint", "checkpoint_sha256", "previous_sha256", "error", "config", "order_seed"),
}


def numbers(row: dict[str, Any]) -> dict[str, Any]:
    """What two runs of the same numbers have in common."""
    return {name: value for name, value in row.items() if name not in OF_THE_MOMENT}


def weights(folder: Path, run: dict[str, Any]) -> str:
    return checkpoints.load(folder / "results" / run["checkpoint"]).sha256


def seeds(run: dict[str, Any]) -> tuple[int, int]:
    """The seed of the weights, and that of all else."""
    order = json.loads(run["config"])["order_seed"]
    return run["seed"], run["seed"] if order is None else order


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_repeat_has_the_bits_of_the_training_with_its_seed(
    here: Klcli, rows: Rows, tmp_path: Path, dtype: str
) -> None:
    train = ("train", *DRAWN, "--dtype", dtype)
    assert here(*train, "--seed", "4", "--repeats", "3", "--jobs", "1").returncode == 0
    assert here(*train, "--seed", "5").returncode == 0
    *repeats, alone = rows("runs")
    assert [seeds(run) for run in repeats] == [(4, 4), (5, 5), (6, 6)]
    assert numbers(repeats[1]) == numbers(alone)
    assert weights(tmp_path, repeats[1]) == weights(tmp_path, alone)
    assert len({weights(tmp_path, run) for run in repeats}) == 3
    epochs = [{k: v for k, v in one.items() if k not in ("run_id", "seconds")} for one in rows("epochs")]
    assert epochs[5:10] == epochs[15:]


@pytest.mark.parametrize(
    ("study", "options"),
    [
        ("train", ("--repeats", "2", "--seed", "3", "--no-shuffle", "--threads", "1", "--bn")),
        ("train", ("--repeats", "2", "--vary", "init", "--order-seed", "9")),
        ("train", ("--repeats", "2", "--vary", "order", "--preset", "course", "--cycles", "1", "--epochs", "2")),
        ("search-lambda", ("--values", "0.01", "1e-7", "--repeats", "2", "--final")),
        ("sigma-sweep", ("--sigmas", "0.1", "0.003", "--optimizer", "adam", "--eta-max", "0.001", "--repeats", "2")),
        ("reproduce", ("a3-2024", "--only", "T2a", "--quick")),
    ],
)
def test_the_command_of_each_run_repeats_it(
    here: Klcli, rows: Rows, tmp_path: Path, study: str, options: tuple[str, ...]
) -> None:
    """In float64, a replica of a stack differs from the network that is trained alone by rounding only."""
    network = SMALL if study != "reproduce" else ("--data", "synthetic", "--subset", "300")
    dtype = () if study == "reproduce" else ("--dtype", "float64")
    succeeded(here(study, *network, *dtype, *options, "--jobs", "1", "--db", "a b/study.db"))
    runs = rows("runs", "a b/study.db")
    assert runs
    assert len({run["command"] for run in runs}) == len(runs)
    for run in (runs[0], runs[-1]):
        command = shlex.split(run["command"])
        assert command[:2] == ["klcli", "train"]
        assert here(*command[1:]).returncode == 0
        again = rows("runs", "a b/study.db")[-1]
        assert (again["study_id"], seeds(again)) == (None, seeds(run))
        assert again["dataset_sha256"] == run["dataset_sha256"]
        tolerance = {"rel": 1e-2} if study == "reproduce" else {"rel": 1e-9}
        for name in ("train_cost", "validation_loss", "epochs_done", "step_size"):
            assert again[name] == pytest.approx(run[name], **tolerance)
        if run["test_loss"] is not None:
            assert again["test_loss"] == pytest.approx(run["test_loss"], **tolerance)


def test_a_warm_started_run_names_the_command_of_its_study(here: Klcli, rows: Rows) -> None:
    """It begins with the weights of the run before: alone, it would be another network."""
    command = ("reproduce", "a2-2019", "--only", "S02", "--quick", "--repeats", "1", "--data", "synthetic")
    succeeded(here(*command, "--subset", "200", "--jobs", "1"))
    typed = shlex.join(["klcli", *command, "--subset", "200", "--jobs", "1"])
    first, second, fresh = rows("runs")  # of the chain S01, S02, and of S02 as the text says
    quirks = "decay of W1 halved; each split standardised by its own statistics"
    warm = f"{quirks}; begins with the weights of the training before it"
    for run, note in ((first, quirks), (second, warm)):
        assert run["command"] == typed  # no more: an interactive zsh takes a comment for arguments
        assert run["note"] == note
    assert fresh["command"].startswith("klcli train --hidden 50")
    assert fresh["note"] is None


@pytest.mark.parametrize(
    ("vary", "expected", "words"),
    [
        ("all", [(1, 1), (2, 2), (3, 3)], ["seeds 1 to 3\n", "everything: weights, order"]),
        ("init", [(1, 1), (2, 1), (3, 1)], ["seeds 1 to 3, order seed 1\n", "the weights alone"]),
        ("order", [(1, 1), (1, 2), (1, 3)], ["seed 1, order seeds 1 to 3\n", "initial weights being the same"]),
        ("split", [(1, 1), (2, 2), (3, 3)], ["seeds 1 to 3\n", "Each has validation images of its own"]),
    ],
)
def test_what_varies_is_recorded_and_said(
    here: Klcli, rows: Rows, vary: str, expected: list[tuple[int, int]], words: list[str]
) -> None:
    done = succeeded(here("train", *SMALL, "--seed", "1", "--repeats", "3", "--vary", vary, "--jobs", "1"))
    assert [seeds(run) for run in rows("runs")] == expected
    [study] = rows("studies")
    assert json.loads(study["settings"])["vary"] == vary
    stacks = json.loads(study["settings"])["groups"]
    assert stacks == ([[0, 1, 2]] if vary == "init" else [[0], [1], [2]])  # replicas share their minibatches
    for text in words:
        assert text in done.stdout
    own_splits = [run["split_seed"] for run in rows("runs")]
    assert own_splits == ([1, 2, 3] if vary == "split" else [None] * 3)
    assert "sampling error" in done.stdout
    for command in (found := re.findall(r"^next +klcli (.*)$", done.stderr, re.MULTILINE)):
        succeeded(here(*command.split()))
    [means] = json.loads(here("report", "--group-by", "hidden,bn,lambda", "--json").stdout)["groups"]
    is_of_all = means["validation_accuracy_n"] == 3  # runs on other validation images are not ranked together
    assert found == ["report --study 1 --plot curves", *["report --group-by hidden,bn,lambda"] * is_of_all]
    report = here("report", "--study", "1").stdout
    assert report.startswith("Repeats: ") and ", lambda 0.005, eta 1e-05 to 0.1, " in report.splitlines()[0]
    assert words[1] in report
    assert ("drawn with split seeds 1 to 3" in report) == (vary == "split")
    grouped = here("report", "--group-by", "hidden").stdout
    for what, text in (("init", "the weights alone, with one order"), ("order", "the order alone, with the same")):
        assert (text in grouped) == (vary == what)


@pytest.mark.parametrize(
    ("options", "added"),
    [
        (("--activation", "silu"), ",activation"),
        (("--optimizer", "adam", "--eta-max", "0.001"), ",eta-max,optimizer"),
        (("--dropout", "0.3"), ",dropout"),
        (("--lambda", "0.1"), ""),  # a row of its own
        (("--seed", "8"), ""),
        (("--seed", "8", "--evaluations-per-cycle", "0"), ""),
    ],
)
def test_the_ranking_named_next_does_not_pool_these_repeats_with_others(
    here: Klcli, options: tuple[str, ...], added: str
) -> None:
    train = ("train", *SMALL, "--epochs", "0", "--repeats", "2", "--jobs", "1")
    succeeded(here(*train))
    done = succeeded(here(*train, *options))
    [command] = re.findall(r"^next +klcli (report --group-by .*)$", done.stderr, re.MULTILINE)
    assert set(command.split()[2].split(",")) == {"hidden", "bn", "lambda", *added.split(",")} - {""}
    shown = json.loads(succeeded(here(*command.split(), "--json")).stdout)
    assert not [note for note in shown["notes"] if "mix" in note]
    assert sorted(row["runs"] for row in shown["groups"]) == (["1-4"] if "--seed" in options else ["1-2", "3-4"])


def test_repeats_leave_a_picture_of_their_means(here: Klcli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As every other training does."""
    charts = list[Chart]()
    monkeypatch.setattr("klcli.report.plots.figure.draw", lambda chart, *form: charts.append(chart) or b"drawn")
    train = ("train", *SMALL, "--epochs", "1", "--repeats", "2", "--jobs", "1")
    done = succeeded(here(*train))
    assert "picture     results/plots/study-000001-training.png" in done.stdout.splitlines()
    assert (tmp_path / "results/plots/study-000001-training.png").read_bytes() == b"drawn"
    panels = [panel for row in charts[0].panels for panel in row]
    lines = {(panel.title, line.label): line.y for panel in panels for line in panel.lines}
    for split in ("train", "validation"):
        means = read(tmp_path, f"SELECT avg({split}_loss) AS mean FROM epochs GROUP BY epoch ORDER BY epoch")
        assert lines["loss", split] == pytest.approx([one["mean"] for one in means])
    again = json.loads(here(*train, "--resume", "last", "--json").stdout)
    assert again["picture"] == "results/plots/study-000001-training.png"
    lost = here("train", *SMALL, "--init", "normal", "--sigma", "1e9", "--repeats", "2", "--jobs", "1", "--json")
    assert json.loads(lost.stdout)["picture"] is None  # there is no mean
    small = ("--data", "synthetic", "--subset", "300", "--hidden", "12", "--repeats", "2", "--jobs", "1")
    ranges = json.loads(here("train", *small, "--lr-range-test", "--json").stdout)
    assert ranges["picture"] is None  # each has limits of its own


def test_repeats_that_diverged_are_named_below_the_means(here: Klcli) -> None:
    done = here("train", *SMALL, "--init", "normal", "--sigma", "1e9", "--repeats", "2", "--jobs", "1")
    assert done.returncode == 6
    assert "Not included: runs 1-2 (diverged)." in here("report", "--study", "1").stdout


def test_a_search_says_which_of_its_stages_lacks_deleted_runs(here: Klcli) -> None:
    tiny = ("--data", "synthetic", "--subset", "100", "--hidden", "3", "--cycles", "1", "--step-epochs", "1")
    succeeded(here("search-lambda", "--coarse", "--fine", "--trials", "2", *tiny, "--jobs", "1"))
    succeeded(here("runs", "delete", "1", "--yes"))
    shown = here("report", "--study", "2").stdout
    assert shown.splitlines()[-1] == "1 run was deleted from study 1"


@pytest.mark.parametrize("command", ["train", "search-lambda", "sigma-sweep"])
@pytest.mark.parametrize("vary", ["init", "order", "split"])
def test_without_repeats_nothing_can_be_held(
    here: Klcli, refused: Refused, tmp_path: Path, command: str, vary: str
) -> None:
    refused(here(command, *SMALL, "--vary", vary), 2, f"--vary {vary}", "--repeats 2")
    assert not (tmp_path / "results").exists()


def test_repeats_continue_as_a_whole(here: Klcli, refused: Refused, tmp_path: Path) -> None:
    refused(here("train", *SMALL, "--repeats", "2", "--resume", "7"), 2, "--resume 7", "--resume last")
    assert not (tmp_path / "results").exists()


def older(folder: Path, command: str, **changes: object) -> None:
    """Make the only study one of an older klcli: without --vary and commands of runs, and interrupted."""
    [study] = read(folder, "SELECT settings FROM studies")
    settings = json.loads(study["settings"])
    del settings["vary"]
    settings["plan"] = [
        config | {key: config[str(value)] for key, value in changes.items()} for config in settings["plan"]
    ]
    text = json.dumps(settings, sort_keys=True)
    change(folder, "UPDATE studies SET state = 'interrupted', command = NULL, settings = ?", values=[text])
    change(folder, "UPDATE runs SET state = 'interrupted', test_loss = NULL, command = ?", values=[command])


def test_a_study_of_an_older_klcli_is_completed_where_its_one_order_is_asked_for(
    here: Klcli, rows: Rows, refused: Refused, tmp_path: Path
) -> None:
    command = ("train", *SMALL, "--repeats", "3", "--jobs", "1")
    assert here(*command, "--vary", "init").returncode == 0
    before = rows("runs")
    older(tmp_path, shlex.join(["klcli", *command]))
    done = here(*command, "--resume", "last")
    assert (done.returncode, done.stdout) == (2, "")
    assert "study 1 are those of --vary init: add --vary init to complete it, or omit --resume" in done.stderr
    assert len(rows("runs")) == 3
    line = refused(here("train", "--resume", "3"), 2, "study 1", shlex.join(["klcli", *command]))
    again = line[line.index("`klcli ") + 7 : line.rindex("`")]
    assert again.endswith("--vary init --resume last")
    assert here(*shlex.split(again)).returncode == 0
    assert [numbers(run) for run in rows("runs")] == [numbers(run) for run in before]
    assert [study["state"] for study in rows("studies")] == ["complete"]


def test_a_search_of_an_older_klcli_with_one_seed_is_completed(here: Klcli, rows: Rows, tmp_path: Path) -> None:
    """Its plan has the order seed written down; the numbers are the same."""
    command = ("search-lambda", *SMALL, "--trials", "3", "--jobs", "1", "--seed", "2")
    assert here(*command).returncode == 0
    before = rows("runs")
    older(tmp_path, shlex.join(["klcli", *command]), order_seed="seed")
    assert here(*command, "--resume").returncode == 0
    assert [numbers(run) for run in rows("runs")] == [numbers(run) for run in before]
    assert [study["state"] for study in rows("studies")] == ["complete"]


@pytest.mark.parametrize("seeds", [("--seed", "1"), ("--split-seed", "3")], ids=" ".join)
@pytest.mark.parametrize(("first", "then"), [*permutations(("all", "init", "order", "split"), 2)])
def test_repeats_that_vary_something_else_are_not_begun_where_others_are_continued(
    here: Klcli, rows: Rows, first: str, then: str, seeds: tuple[str, ...]
) -> None:
    command = ("train", *SMALL, *seeds, "--epochs", "0", "--repeats", "2", "--jobs", "1")
    succeeded(here(*command, "--vary", first))
    done = here(*command, "--vary", then, "--resume", "last")
    assert (done.returncode, done.stdout, len(rows("runs"))) == (2, "", 2)
    assert f"study 1 are those of --vary {first}: add --vary {first} to complete it, or omit --resume" in done.stderr
    succeeded(here(*command, "--vary", first, "--resume", "last"))
    assert len(rows("runs")) == 2


def test_repeats_with_other_seeds_that_vary_the_same_are_begun(here: Klcli, rows: Rows) -> None:
    command = ("train", *SMALL, "--epochs", "0", "--repeats", "2", "--jobs", "1")
    succeeded(here(*command))
    succeeded(here(*command, "--split-seed", "0", "--resume", "last"))  # the seed with which --vary split begins
    assert [run["split_seed"] for run in rows("runs")] == [None, None, 0, 0]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--subset", "199", "--no-shuffle"), "the last 99 of 199 training images are in no minibatch"),
        (("--subset", "199", "--no-shuffle", "--repeats", "2"), "the last 99 of 199 training images are"),
        (("--subset", "201", "--no-shuffle"), "the last of 201 training images is in no minibatch"),
        (("--subset", "300", "--batch-size", "70", "--no-shuffle"), "the last 20 of 300 training images are"),
        (("--subset", "200", "--no-shuffle"), None),
        (("--subset", "199"), None),
    ],
)
def test_images_that_are_never_used_are_counted(here: Klcli, options: tuple[str, ...], line: str | None) -> None:
    done = here("train", "--data", "synthetic", "--hidden", "5", "--cycles", "1", "--step-epochs", "1", *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("in no minibatch") == (line is not None)
    assert line is None or line in done.stderr
