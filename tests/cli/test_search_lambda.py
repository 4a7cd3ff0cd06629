"""`klcli search-lambda`: stages, what they print and store, and what is refused."""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from command import Klcli, Refused, Rows, cells, change, succeeded

from klcli.store.locks import Locks

pytestmark = pytest.mark.usefixtures("unrendered")


TINY = ("--data", "synthetic", "--subset", "300", "--hidden", "20", "--step-size", "3", "--cycles", "1")
LISTED = ("search-lambda", *TINY, "--jobs", "1")
SEARCH = (*LISTED, "--trials", "4")


def stages(rows: Rows) -> list[tuple[str, int | None, str]]:
    return [(study["stage"], study["parent"], study["state"]) for study in rows("studies")]


@pytest.mark.slow
def test_coarse_fine_and_final_as_a_person_calls_them(klcli: Klcli, rows: Rows, tmp_path: Path) -> None:
    done = succeeded(klcli("search-lambda", "--coarse", "--fine", "--final", *TINY, "--jobs", "2"))
    assert stages(rows) == [("coarse", None, "complete"), ("fine", 1, "complete"), ("final", 2, "complete")]
    runs = rows("runs")
    assert Counter(run["study_id"] for run in runs) == {1: 8, 2: 8, 3: 1}
    assert {run["state"] for run in runs} == {"complete"}
    assert {run["member"] for run in runs if run["study_id"] == 2} == set(range(8))
    for run in runs:
        final = run["study_id"] == 3
        assert run["batch_norm"] == 1
        assert (run["test_accuracy"] is not None) == final
        assert run["cycles"] == (3 if final else 1)
        assert run["step_size"] == (15 if final else 3)  # 5 floor(300 / 100)
        assert (tmp_path / "results" / run["checkpoint"]).exists()

    # The fine stage lies within half the way, in the logarithm, to the neighbours of the three best.
    coarse = sorted(((run["lambda"], run["validation_accuracy"]) for run in runs[:8]), key=lambda pair: pair[0])
    best = sorted(sorted(coarse, key=lambda pair: -pair[1])[:3])
    lambdas = [1e-5, *(lam for lam, _ in coarse), 1e-1]
    low = math.sqrt(best[0][0] * max(lam for lam in lambdas if lam < best[0][0]))
    high = math.sqrt(best[2][0] * min(lam for lam in lambdas if lam > best[2][0]))
    assert all(low <= run["lambda"] <= high for run in runs[8:16])
    assert f"fine: lambda from {low:.4g} to {high:.4g}" in done.stderr

    # The table: all 16, the best first, with the accuracies of the database.
    printed = cells(done)
    accuracies = [float(row[2]) for row in printed]
    assert accuracies == sorted(accuracies, reverse=True)
    assert Counter(row[1] for row in printed) == {"coarse": 8, "fine": 8}
    stored = Counter((f"{run['lambda']:.4g}", f"{run['validation_accuracy']:.4f}") for run in runs[:16])
    assert Counter((row[0], row[2]) for row in printed) == stored

    [sentence] = [line for line in done.stdout.splitlines() if line.startswith("chosen lambda")]
    assert f"chosen lambda {runs[16]['lambda']:.6g}, validation {max(accuracies):.4f}" in sentence
    assert "within one standard error" in sentence
    [chosen] = [row for row in printed if row[-1] == "chosen"]
    assert float(chosen[2]) == max(accuracies)
    assert (
        f"Final: lambda {runs[16]['lambda']:.6g}, 3 cycles, subset of 300 with 66 test images (study 3)" in done.stdout
    )
    assert f"{runs[16]['test_accuracy']:.4f}" in done.stdout
    for picture in ("study-000002-lambda", "study-000003-training"):
        assert (tmp_path / f"results/plots/{picture}.png").read_bytes()[:4] == b"\x89PNG"
    assert "\x1b" not in done.stdout + done.stderr


def test_the_fine_stage_goes_on_from_the_latest_coarse_one_or_from_any_other(here: Klcli, rows: Rows) -> None:
    assert here(*SEARCH, "--coarse").returncode == 0
    assert here(*SEARCH, "--coarse", "--range", "1e-3", "1e-2").returncode == 0
    assert here(*SEARCH, "--fine").returncode == 0
    assert here(*SEARCH, "--fine", "--from", "1").returncode == 0
    assert here(*SEARCH, "--fine", "--from", "3").returncode == 0
    assert [(stage, parent) for stage, parent, _ in stages(rows)] == [
        ("coarse", None), ("coarse", None), ("fine", 2), ("fine", 1), ("fine 2", 3),
    ]  # fmt: skip
    lambdas = {study: [run["lambda"] for run in rows("runs") if run["study_id"] == study] for study in (1, 2, 3, 4, 5)}
    assert all(1e-3 <= lam <= 1e-2 for lam in lambdas[3] + lambdas[5])
    assert not set(lambdas[3]) & set(lambdas[5])
    assert lambdas[3] != lambdas[4]


def test_the_fine_stage_goes_on_from_the_latest_coarse_one_of_the_same_settings(
    here: Klcli, rows: Rows, tmp_path: Path
) -> None:
    """A later search of another network, or a trial on few images, does not come between; the same network does."""
    others = (("--hidden", "9", "8"), ("--subset", "200"), ("--cycles", "2"))
    for other in ((), ("--seed", "5"), *others):
        succeeded(here(*SEARCH, "--coarse", *other))
    expected = [((), 2), (("--subset", "200"), 4), (("--hidden", "9", "8"), 3), (("--seed", "7"), 2)]
    for options, _ in expected:
        assert "cannot be compared" not in succeeded(here(*SEARCH, "--fine", *options)).stderr
    done = succeeded(here(*SEARCH, "--fine", "--hidden", "9", "8", "--cycles", "3"))
    assert "study 3 was trained with cycles 1 (here 3): its accuracies cannot be compared" in done.stderr
    change(tmp_path, "UPDATE studies SET settings = json_set(settings, '$.plan[0].colour', 'red') WHERE id = 2")
    succeeded(here(*SEARCH, "--fine"))  # a newer klcli wrote study 2
    parents = [parent for stage, parent, _ in stages(rows) if stage == "fine"]
    assert parents == [*(study for _, study in expected), 3, 1]


def test_a_study_to_go_on_from_has_names(here: Klcli, refused: Refused, rows: Rows) -> None:
    """The stored command has the number: these names are those of other studies later."""
    few = ("--data", "synthetic", "--subset", "200", "--epochs", "1", "--hidden", "5", "--repeats", "2")
    succeeded(here("train", *few))  # a study, too, but none to go on from
    for name in ("last", "-1"):
        done = here(*SEARCH, "--quiet", "--fine", "--from", name)
        refused(done, 2, f"--from {name}: there is no such coarse or fine search yet")
    succeeded(here(*SEARCH, "--coarse"))
    for name in ("last", "-1", "-3"):
        succeeded(here(*SEARCH, "--fine", "--from", name))
    assert [parent for _, parent, _ in stages(rows)] == [None, None, 2, 3, 2]
    commands = [row["command"].rpartition("--from ")[2] for row in rows("studies")[2:]]
    assert commands == ["2", "3", "2"]
    succeeded(here("train", *few, "--seed", "9"))
    for name in ("last", "-1"):
        succeeded(here(*SEARCH, "--fine", "--from", name))
    assert [parent for _, parent, _ in stages(rows) if parent] == [2, 3, 2, 5, 7]


def test_rounds_are_as_many_fine_stages_each_within_the_one_before(here: Klcli, rows: Rows) -> None:
    done = here(*SEARCH, "--coarse", "--rounds", "2")
    assert done.returncode == 0
    assert [stage for stage, _, _ in stages(rows)] == ["coarse", "fine", "fine 2"]
    ranges = [json.loads(study["settings"]) for study in rows("studies")]
    for wide, narrow in pairwise(ranges):
        assert wide["low"] <= narrow["low"] < narrow["high"] <= wide["high"]
    assert Counter(row[1] for row in cells(done)) == {"coarse": 4, "fine": 4, "fine 2": 4}
    again = here(*SEARCH, "--coarse", "--fine", "--fine", "--resume")
    assert len(rows("studies")) == 3  # the same search in other words
    assert cells(again) == cells(done)


@pytest.mark.parametrize("stage", [("--fine",), ("--fine", "--final"), ("--fine", "--fine")], ids=" ".join)
def test_a_fine_stage_is_resumed_though_a_newer_coarse_one_is_there(
    here: Klcli, rows: Rows, tmp_path: Path, stage: tuple[str, ...]
) -> None:
    few = (*LISTED, "--trials", "3")
    succeeded(here(*few, "--coarse"))
    succeeded(here(*few, *stage))
    last = len(rows("studies"))
    for table, number in (("studies", "id"), ("runs", "study_id")):
        change(tmp_path, f"UPDATE {table} SET state = 'interrupted' WHERE {number} = {last}")
    succeeded(here(*few, "--coarse"))
    succeeded(here(*few, "--coarse", "--seed", "5"))
    said = succeeded(here(*few, *stage, "--seed", "5", "--resume")).stderr  # of another seed: a new one on the newest
    assert said.count("a new one begins") == len(stage)
    assert rows("studies")[last + 2]["parent"] == last + 2
    before = len(rows("studies"))
    said = succeeded(here(*few, *stage, "--resume")).stderr
    assert "a new one begins" not in said
    assert {state for _, _, state in stages(rows)} == {"complete"} and len(rows("studies")) == before


def test_a_stage_of_two_values_is_not_said_to_bracket_three(here: Klcli) -> None:
    for trials, which in (("2", "best"), ("3", "three best")):
        assert f"brackets the {which}\n" in here(*LISTED, "--coarse", "--fine", "--trials", trials).stderr


def test_a_list_of_values_is_tried_as_it_is(here: Klcli, rows: Rows) -> None:
    done = succeeded(here(*LISTED, "--values", "0.003", "0.001,0.002", "0.003"))
    assert stages(rows) == [("values", None, "complete")]
    assert [run["lambda"] for run in rows("runs")] == [0.001, 0.002, 0.003]
    assert len(cells(done)) == 3


@pytest.mark.slow
def test_a_linear_scale_draws_and_narrows_linearly(here: Klcli, rows: Rows) -> None:
    succeeded(here(*SEARCH, "--coarse", "--fine", "--scale", "linear", "--range", "0", "0.1", "--trials", "12"))
    lambdas = [run["lambda"] for run in rows("runs")]
    assert sum(lam > 0.01 for lam in lambdas[:12]) >= 8  # on a logarithmic scale 1e-5 to 0.1, a quarter of them
    assert [json.loads(study["settings"])["scale"] for study in rows("studies")] == ["linear", "linear"]


def test_repeats_are_a_mean_with_its_spread(here: Klcli, rows: Rows) -> None:
    done = succeeded(here(*LISTED, "--values", "0.001", "0.01", "--repeats", "2", "--seed", "5", "--final"))
    runs = rows("runs")
    assert [(run["lambda"], run["seed"]) for run in runs[:4]] == [(0.001, 5), (0.001, 6), (0.01, 5), (0.01, 6)]
    assert len(runs) == 6
    printed = {row[0]: row for row in cells(done)}
    for lam, mine in (("0.001", runs[:2]), ("0.01", runs[2:4])):
        a, b = (run["validation_accuracy"] for run in mine)
        mean, std = (a + b) / 2, abs(a - b) / math.sqrt(2)
        assert printed[lam][2] == f"{mean:.4f} ± {std:.4f}"
        assert float(printed[lam][3]) == pytest.approx(12.706 * std / math.sqrt(2), abs=1e-3)  # Student's t, n = 2
        assert printed[lam][4] == "2"
    assert "95 % from" in done.stdout  # of the final one
    [title, *_] = here("report", "--study", "2").stdout.splitlines()
    final = runs[4]
    assert title.startswith("Final training: ") and title.endswith(", he, seeds 5, 6 (study 2)")
    assert f", lambda {final['lambda']:g}, " in title and f", {final['cycles']:g} cycles of 2 n_s, " in title


@pytest.mark.parametrize(
    ("coarse", "fine", "seeds"),
    [("1", ("2",), ["2"]), ("2", ("1",), ["2"]), ("2", ("2", "--seed", "7"), ["2"]), ("2", ("3",), ["2", "3"])],
)
def test_a_deviation_is_explained_whichever_stage_has_it(
    here: Klcli, coarse: str, fine: Sequence[str], seeds: Sequence[str]
) -> None:
    few = ("search-lambda", *TINY, "--jobs", "1", "--trials", "2")
    succeeded(here(*few, "--coarse", "--repeats", coarse))
    shown = succeeded(here(*few, "--fine", "--repeats", *fine)).stdout.partition("database ")[0]
    assert re.findall(r"^Standard deviations .* are over (\d) seeds", shown, re.MULTILINE) == seeds
    assert succeeded(here("report", "--study", "2")).stdout == shown


def test_the_json_document(here: Klcli, rows: Rows) -> None:
    done = here(*SEARCH, "--coarse", "--fine", "--final", "--json")
    document = json.loads(done.stdout)
    assert (document["schema"], document["command"]) == (2, "search-lambda")
    assert [(one["study"], one["stage"]) for one in document["studies"]] == [(1, "coarse"), (2, "fine")]
    runs = rows("runs")
    for study in document["studies"]:
        for run in study["runs"]:
            stored = runs[run["id"] - 1]
            assert {name: run[name] for name in ("lambda", "validation_accuracy", "seed", "state")} == {
                name: stored[name] for name in ("lambda", "validation_accuracy", "seed", "state")
            }
            assert run["config"] == json.loads(stored["config"])
    choice = document["choice"]
    assert choice["chosen"]["accuracies"] == [max(run["validation_accuracy"] for run in runs[:8])]
    assert choice["chosen"]["lam"] == runs[8]["lambda"]
    floor = choice["best"]["accuracies"][0] - choice["standard_error"]
    assert {one["lam"] for one in choice["plateau"]} == {
        run["lambda"] for run in runs[:8] if run["validation_accuracy"] >= floor
    }
    assert document["final"]["runs"][0]["test_accuracy"] == runs[8]["test_accuracy"]
    assert Path(document["picture"]).exists()


# --- divergence


def test_a_value_that_diverges_is_a_row_that_says_so(here: Klcli, rows: Rows) -> None:
    done = succeeded(here(*LISTED, "--values", "0.001", "1e6", "0.01", "--step-size", "30", "--final"))
    assert [run["state"] for run in rows("runs")] == ["complete", "complete", "diverged", "complete"]
    assert stages(rows) == [("values", None, "complete"), ("final", 1, "complete")]
    last = cells(done)[-1]
    assert (last[0], last[2], last[-1]) == ("1e+06", "-", "diverged")
    assert "not finite after update" in rows("runs")[2]["error"]
    assert rows("runs")[2]["checkpoint"] is None


@pytest.mark.parametrize("stage", ["--coarse", "--fine"])
def test_a_search_in_which_everything_diverges_says_so_and_is_kept(here: Klcli, rows: Rows, stage: str) -> None:
    done = here(*SEARCH, stage, "--coarse", "--eta-max", "1e30", "--final")
    assert done.returncode == 6
    assert "every lambda diverged" in done.stderr.splitlines()[-1]
    assert stages(rows) == [("coarse", None, "complete")]
    assert [row[-1] for row in cells(done)] == ["diverged"] * 4
    assert "next " not in done.stderr  # there is no picture of it
    assert json.loads(here(*SEARCH, "--eta-max", "1e30", "--json").stdout)["choice"] is None


def test_a_final_training_that_diverged_is_named_below_the_means(here: Klcli, tmp_path: Path) -> None:
    """And it has no network for the next command."""
    command = (*LISTED, "--values", "0.001", "--repeats", "2", "--final")
    assert "Not included" not in here(*command).stdout
    for number, code, evaluated in ((3, 0, ["4"]), (4, 6, [])):
        change(tmp_path, f"UPDATE runs SET state = 'diverged' WHERE id = {number}")
        done = here(*command, "--resume")
        assert done.returncode == code
        assert ("Not included: run 3 (diverged)." in done.stdout.splitlines()) is (number == 3)
        assert re.findall(r"^next +klcli evaluate (\d+) --flips$", done.stderr, re.MULTILINE) == evaluated


# --- what is refused


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--trials", "0"], ["trials", "0"]),
        (["--trials", "many"], ["many"]),
        (["--range", "1e-1", "1e-5"], ["0.1", "1e-05"]),
        (["--range", "1e-5", "1e-3", "1e-1"], ["--range 1e-05 0.001 0.1"]),
        (["--range", "1e-5"], ["--range 1e-05"]),
        (["--range", "0", "1"], ["0", "--scale linear"]),
        (["--range", "low", "1"], ["'low'"]),
        (["--scale", "cubic"], ["'cubic'"]),
        (["--values", "0.1", "--coarse"], ["--values 0.1", "--coarse"]),
        (["--values", "0.1", "--fine"], ["--values 0.1", "--fine"]),
        (["--values", "0.1", "-3"], ["--values -3"]),
        (["--values", "nan"], ["--values nan"]),
        (["--values", "a"], ["'a'"]),
        (["--rounds", "-1"], ["--rounds -1"]),
        (["--repeats", "0"], ["--repeats 0"]),
        (["--jobs", "0"], ["--jobs", "0"]),
        (["--jobs", "-2"], ["--jobs", "-2"]),
        (["--from", "1"], ["--from 1", "--fine"]),
        (["--fine", "--from", "first"], ["--from 'first': give the number of a study"]),
        (["--from", "1", "--coarse", "--fine"], ["--from 1"]),
        (["--executor", "nonsense"], ["--executor nonsense"]),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_value(
    here: Klcli, refused: Refused, rows: Rows, tmp_path: Path, options: list[str], named: list[str]
) -> None:
    done = here("search-lambda", *TINY, "--quiet", *options)
    refused(done, 2, *named)
    if (tmp_path / "results/klcli.db").exists():
        assert rows("studies") == []


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer_leaves_no_trace(klcli: Klcli, refused: Refused, rows: Rows) -> None:
    """As a process, because Dask's own threads and messages only show there."""
    done = klcli("search-lambda", *TINY, "--quiet", "--executor", "tcp://127.0.0.1:9", timeout=60)
    refused(done, 2, "--executor tcp://127.0.0.1:9", "no Dask scheduler answers")
    assert rows("studies") == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--values", "0.1", "--trials", "3"], ["--trials 3", "--values"]),
        (["--values", "0.1", "--range", "1e-3", "1e-1"], ["--range 0.001 0.1", "--values"]),
        (["--values", "0.1", "--scale", "linear"], ["--scale linear", "--values"]),
        (["--fine", "--range", "1e-3", "1e-1"], ["--range 0.001 0.1", "add --coarse"]),
        (["--range", "1", "1"], ["--range 1 1", "the smaller first"]),
        (["--range", "0", "1"], ["--range from 0", "--scale linear"]),
    ],
    ids=" ".join,
)
def test_what_a_search_cannot_use_is_refused_before_the_images_are_opened(
    here: Klcli, refused: Refused, options: list[str], named: list[str]
) -> None:
    refused(here("search-lambda", "--data", "nowhere", *options), 2, *named)


@pytest.mark.slow
def test_a_study_that_fine_cannot_go_on_from(here: Klcli, refused: Refused, tmp_path: Path) -> None:
    quiet = (*SEARCH, "--quiet")
    refused(here(*quiet, "--fine"), 2, "--coarse")
    refused(here(*quiet, "--fine", "--from", "7"), 4, "no study 7")
    assert here("sigma-sweep", *TINY, "--jobs", "1", "--sigmas", "0.1").returncode == 0
    refused(here(*quiet, "--fine", "--from", "1"), 2, "--from 1")
    assert here(*LISTED, "--values", "0.1", "--final").returncode == 0
    for study in ("2", "3"):
        refused(here(*quiet, "--fine", "--from", study), 2, f"--from {study}", "not a coarse or fine lambda search")
    refused(here(*quiet, "--fine"), 2, "--coarse")  # there is still no coarse one
    assert here(*SEARCH, "--coarse").returncode == 0
    refused(here(*quiet, "--fine", "--hidden", "10"), 2, "study 4", "hidden 20 (here 20 10)")
    change(tmp_path, "UPDATE studies SET state = 'interrupted' WHERE id = 4")
    refused(here(*quiet, "--fine", "--from", "4"), 2, "--from 4", "interrupted", "with --resume first")
    locks = Locks(tmp_path / "results/locks")
    owner = locks.take()  # of a process that trains it
    change(tmp_path, "UPDATE studies SET state = 'running' WHERE id = 4")
    change(tmp_path, "UPDATE runs SET state = 'running', owner = ? WHERE study_id = 4", values=[owner])
    done = here(*quiet, "--fine", "--from", "4")
    cure = "wait for its end or, if its process has ended, repeat its command with --resume"
    assert (done.returncode, done.stderr) == (2, f"klcli: --from 4: this study is running, {cure} first\n")
    locks.release(owner)


def test_stages_that_were_trained_otherwise_are_not_mixed_in_silence(here: Klcli) -> None:
    assert here(*SEARCH, "--coarse").returncode == 0
    done = here(*SEARCH, "--fine", "--cycles", "2")
    assert done.returncode == 0
    assert "study 1 was trained with cycles 1 (here 2)" in done.stderr
    note = "The stages differ in cycles: their accuracies cannot be compared."
    assert note in done.stdout.splitlines()
    assert note in here("report", "--study", "2").stdout.splitlines()
    assert "The stages differ" not in here("report", "--study", "1").stdout


@pytest.mark.slow
def test_a_stage_on_other_validation_images_is_not_ranked_with_the_next(here: Klcli) -> None:
    """The fine stage narrows the range of the coarse one, but its lambdas are compared with one another alone."""
    assert here(*SEARCH, "--coarse", "--repeats", "2", "--vary", "split").returncode == 0
    done = succeeded(here(*SEARCH, "--fine", "--fine"))
    assert "study 1 was trained with split seed 0 (here -): its accuracies cannot be compared" in done.stderr
    assert {row[1] for row in cells(done)} == {"fine", "fine 2"}
    assert "(studies 2, 3)" in done.stdout
    assert "split seed" not in done.stdout
    assert here("report", "--study", "3").stdout.startswith(done.stdout.partition("\n")[0])
    assert here("report", "--html", "page.html").returncode == 0
    titles = re.findall(r"Study \d: lambda [a-z 0-9]+", Path("page.html").read_text())
    assert [*dict.fromkeys(titles)] == ["Study 1: lambda coarse", "Study 3: lambda fine 2"]


@pytest.mark.parametrize(("coarse", "words"), [(True, None), (False, "split seed - (here 0)")])
def test_a_stage_warns_of_other_validation_images_where_there_are_others(
    here: Klcli, coarse: bool, words: str | None
) -> None:
    """It compared with a single training, which has no split seed."""
    own = ("--repeats", "2", "--vary", "split")
    succeeded(here(*SEARCH, "--coarse", *own[: 4 * coarse]))
    done = succeeded(here(*SEARCH, "--fine", *own))
    warned = f"study 1 was trained with {words}: its accuracies cannot be compared"
    assert [line for line in done.stderr.splitlines() if "cannot be compared" in line] == [warned] * bool(words)
    assert {row[1] for row in cells(done)} == ({"coarse", "fine"} if coarse else {"fine"})
