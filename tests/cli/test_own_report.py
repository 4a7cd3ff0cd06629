"""`klcli reproduce my-report.toml`: from `--check` to the page, the plan that is stored, and what deviates from it."""

import json
import re
import sqlite3
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from command import Klcli, Refused, Rows, change, succeeded

from klcli import Lab, SplitConfig, TrainConfig
from klcli.settings.procedures import CheckSettings
from tests.published.documentation import example

pytestmark = pytest.mark.usefixtures("unrendered")

LOOK = ("--data", "synthetic", "--subset", "200", "--quick", "--jobs", "1")

# Other widths than those of the course, two tables, one figure.
REPORT = """
report = "12"
course = "Machine learning, project"
date = "2026"
summary = "one hidden layer of 12 and of 24 units"
[common]
step_epochs = 1
[[experiments]]
name = "widths"
rows = [
  { row = "12-T1", hidden = [12], test_accuracy = 0.40 },
  { row = "12-T1", hidden = [24], test_accuracy = 0.45, note = "44.9 in the text" },
]
[[experiments]]
name = "Adam"
config = { hidden = [12], optimizer = "adam", eta_max = 1e-3 }
rows = [{ row = "12-T2", train_loss = 1.4, reason = "read off a figure" }]
[[figures]]
rows = ["12-T2"]
panels = "training"
experiments = ["Adam"]
"""


CHECKED = """
[[gradient_checks]]
name = "gradients"
config = { hidden = [4], split = { validation = 20000 } }
lambdas = [0.1]
images = 4
dims = 6
rows = [{ row = "12-G", tensor = "W1", gradient_std = 0.1 }]
"""


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "my report.toml"
    path.write_text(REPORT, encoding="utf-8")
    return path


def plan_notes(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(("plan: ", "deviates from"))]


@pytest.mark.slow
def test_a_gradient_check_has_its_own_division_of_the_images(here: Klcli, rows: Rows, report: Path) -> None:
    report.write_text(REPORT + CHECKED, encoding="utf-8")
    for only in ([], ["--only", "G"]):
        succeeded(here("reproduce", report.name, *LOOK, *only))
    of_report, alone = (
        [row["gradient_std"] for row in rows("gradient_errors") if row["check_id"] == number] for number in (1, 2)
    )
    assert of_report == alone
    config = TrainConfig(hidden=(4,), lam=0.1, split=SplitConfig(validation=20000))
    *_, check = Lab(data="synthetic").check_gradients(config, CheckSettings(images=4, dims=6))
    assert of_report == [error.gradient_std for error in check.errors]


@pytest.mark.slow
def test_resume_checks_the_gradients_again(here: Klcli, rows: Rows, report: Path) -> None:
    """Nothing shows on which images an older klcli made the stored checks."""
    report.write_text(REPORT + CHECKED, encoding="utf-8")
    trained = json.loads(succeeded(here("reproduce", report.name, *LOOK, "--json")).stdout)
    with sqlite3.connect("results/klcli.db") as db:
        db.execute("UPDATE gradient_errors SET gradient_std = 7")
    resumed = json.loads(succeeded(here("reproduce", report.name, *LOOK, "--json", "--resume")).stdout)
    assert [one["lines"] for one in resumed["reports"]] == [one["lines"] for one in trained["reports"]]
    assert {row["gradient_std"] for row in rows("gradient_errors") if row["check_id"] == 1} == {7}


@pytest.mark.slow
def test_a_reproduction_says_how_many_of_its_runs_are_deleted(here: Klcli, report: Path) -> None:
    succeeded(here("reproduce", report.name, *LOOK))
    assert "deleted" not in here("report", "--study", "1").stdout
    succeeded(here("runs", "delete", "1", "4", "--yes"))
    assert "\n2 runs were deleted from study 1\n" in here("report", "--study", "1").stdout
    assert "deleted" not in succeeded(here("reproduce", report.name, *LOOK, "--resume")).stdout


STACKS = """
report = "12"
course = "Machine learning, project"
date = "2026"
summary = "stacks and a chain"
[common]
hidden = [12]
step_size = 5
cycles = 1
[[experiments]]
name = "lambdas"
rows = [{ row = "12-T1", lam = 0.1, test_accuracy = 0.4 }, { row = "12-T1", lam = 0.2, test_accuracy = 0.4 }]
[[experiments]]
name = "chain"
is_chain = true
rows = [{ row = "12-T2", lam = 0.1, test_accuracy = 0.4 }, { row = "12-T2", cycles = 3, test_accuracy = 0.4 }]
"""


@pytest.mark.parametrize(("vary", "updates"), [("all", 100), ("init", 90)])
def test_the_check_and_the_run_count_the_same_updates(here: Klcli, report: Path, vary: str, updates: int) -> None:
    """Two seeds. The lambdas share the 10 updates of each stack, one stack for each order of the images, and each
    chain has 10 + 30.
    """
    report.write_text(STACKS, encoding="utf-8")
    how = ("--repeats", "2", "--vary", vary)
    checked = json.loads(here("reproduce", "--check", report.name, "--json", *how).stdout)["checked"]
    assert [one["holds"]["updates"] for one in checked] == [updates]
    done = succeeded(here("reproduce", report.name, "--data", "synthetic", "--subset", "200", "--jobs", "1", *how))
    assert sum(map(int, re.findall(r"stacks?, (\d+) updates", done.stderr))) == updates


def test_from_the_check_to_the_page(here: Klcli, rows: Rows, report: Path, tmp_path: Path) -> None:
    checked = here("reproduce", "--check", report.name)
    assert checked.returncode == 0
    # n_s = 450, 2 cycles: 1800 updates, for 3 settings with 3 seeds
    held = "2 rows, 3 numbers; 9 trainings with at least 3 seeds, 0 gradient checks, about 16200 updates"
    assert checked.stdout == f"my report.toml: {held}\n"
    # At most two seeds, of one cycle each: 900 updates.
    for repeats, words in (("3", "6 trainings with 2 seeds"), ("1", "3 trainings with 1 seed")):
        quick = here("reproduce", "--check", report.name, "--quick", "--repeats", repeats)
        assert f"; {words}, 0 gradient checks, about {int(words[0]) * 900} updates" in quick.stdout
    done = succeeded(here("reproduce", report.name, *LOOK, "--markdown", "page.md"))
    name = f"my-report-{sha256(REPORT.encode()).hexdigest()[:8]}"
    assert done.stdout.startswith(f"{name}: report 12, Machine learning, project, 2026, on synthetic")
    assert [(run["hidden"], run["optimizer"]) for run in rows("runs")][::2] == [
        ("12", "sgd"), ("24", "sgd"), ("12", "adam")
    ]  # fmt: skip
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert page.count("| 12-T1") == 2
    assert page.count("| 12-T2") == 1
    assert f"## {name}" in page
    assert plan_notes(page) == plan_notes(done.stdout)
    [(words, picture)] = re.findall(r"!\[(.*)\]\((.*)\)", page)
    assert words.startswith("12-T2: Adam")
    assert (tmp_path / picture).read_bytes()[:4] == b"\x89PNG"
    report.unlink()
    shown = succeeded(here("report", "--study", "1"))
    assert plan_notes(shown.stdout) == plan_notes(done.stdout)
    table = [line.rstrip() for line in done.stdout.splitlines() if " 12-T" in line]
    assert [line.rstrip() for line in shown.stdout.splitlines() if " 12-T" in line] == table


def test_a_report_on_a_part_of_the_images_is_compared_in_every_view(here: Klcli, report: Path) -> None:
    """Two experiments on other numbers of images; the option --subset instead makes any report incomparable."""
    text = REPORT.replace("step_epochs = 1", "step_epochs = 1\nsplit = { subset = 200 }")
    report.write_text(text.replace("config = { hidden = [12]", "config = { split = { subset = 300 }, hidden = [12]"))
    options = ("--data", "synthetic", "--quick", "--jobs", "1")
    done = succeeded(here("reproduce", report.name, *options))
    for number in ("1", "2"):
        shown = here("report", "--study", number)
        tables = [[line.rstrip() for line in one.stdout.splitlines() if " 12-T" in line] for one in (done, shown)]
        assert len(tables[0]) == 3 and tables[0] == tables[1]
        assert "SUBSET" not in done.stderr + done.stdout + shown.stderr + shown.stdout
    assert here("reproduce", report.name, *options, "--subset", "250", "--only", "T1").returncode == 0
    assert "SUBSET of 250 training images: no training can be compared" in here("report", "--study", "3").stdout


DIVIDED = """
report = "7"
course = "c"
date = "d"
summary = "one network on two divisions of the images"
[common]
hidden = [5]
step_epochs = 1
cycles = 1
[[experiments]]
name = "last"
rows = [{ row = "7-T1", validation_accuracy = 0.4 }]
[[experiments]]
name = "drawn"
config = { split = { split_seed = 0 } }
rows = [{ row = "7-T2", validation_accuracy = 0.4 }]
"""


def test_experiments_on_other_divisions_have_their_own_runs(here: Klcli, rows: Rows, report: Path) -> None:
    """The seed of a division is a setting of an experiment, unlike those of its repeats."""
    report.write_text(DIVIDED, encoding="utf-8")
    options = ("--data", "synthetic", "--subset", "200", "--jobs", "1", "--repeats", "2")
    [document] = json.loads(succeeded(here("reproduce", report.name, *options, "--json")).stdout)["reports"]
    last, drawn = (
        [run["validation_accuracy"] for run in rows("runs") if json.loads(run["config"])["split"]["split_seed"] == seed]
        for seed in (None, 0)
    )
    lines = [(line["row"], line["n"], line["mean"]) for line in document["lines"]]
    assert lines == [("7-T1", 2, pytest.approx(np.mean(last))), ("7-T2", 2, pytest.approx(np.mean(drawn)))]


def test_a_study_of_its_own_trains_as_configured(here: Klcli, rows: Rows, report: Path, tmp_path: Path) -> None:
    """It sets the runs of an experiment apart within the report; any training with these settings has their bits."""
    text = DIVIDED.replace("config = { split = { split_seed = 0 } }", 'study = "apart"')
    report.write_text(text, encoding="utf-8")
    options = ("--data", "synthetic", "--subset", "200", "--jobs", "1", "--repeats", "2")
    done = succeeded(here("reproduce", report.name, *options))
    first, second, *apart = [run["validation_accuracy"] for run in rows("runs")]
    assert [study["stage"].partition(", ")[2] for study in rows("studies")] == ["", "apart"]
    assert apart == [first, second]
    assert json.loads(succeeded(here("runs", "rerun", "3", "--json")).stdout)["same_bits"] is True
    ranked = json.loads(succeeded(here("report", "--best", "9", "--json")).stdout)["runs"]
    assert sorted(run["id"] for run in ranked) == [1, 2, 3, 4, 5]
    assert {run["method"] for run in ranked} == {None}
    resumed = [here("reproduce", report.name, *options, "--resume")]
    older = "json_set(json_remove(settings, '$.study'), '$.method', 'apart')"  # as klcli stored it before
    change(tmp_path, f"UPDATE studies SET settings = {older} WHERE id = 2")
    resumed += [here("reproduce", report.name, *options, "--resume")]
    assert [succeeded(one).stdout for one in resumed] == [done.stdout] * 2
    assert (len(rows("studies")), len(rows("runs"))) == (2, 5)


def test_the_plan_is_stored_with_its_hash(here: Klcli, rows: Rows, report: Path) -> None:
    first = here("reproduce", report.name, "--only", "T1", *LOOK)
    [study], runs = rows("studies"), rows("runs")
    settings = json.loads(study["settings"])
    assert min(run["started_at"] for run in runs) >= study["created_at"]
    assert settings["text"] == REPORT
    whole = {
        "report": REPORT, "rows": ["12-T1"], "trainings": settings["plan"], "dataset_sha256": settings["dataset_sha256"]
    }  # fmt: skip
    digest = sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
    notes = [f"plan: sha256 {digest}, stored in study 1 before the first training"]
    assert plan_notes(first.stdout) == notes
    assert plan_notes(here("reproduce", report.name, "--only", "T1", *LOOK, "--resume").stdout) == notes


@pytest.mark.slow
def test_what_deviates_is_said(here: Klcli, report: Path) -> None:
    def deviation(old: str = "", new: str = "", *args: str) -> list[str]:
        report.write_text(REPORT.replace(old, new), encoding="utf-8")
        done = succeeded(here("reproduce", report.name, "--only", "T1", *LOOK, *args))
        return [line.partition(": ")[2] for line in plan_notes(done.stdout)[1:]]

    assert deviation() == []
    assert deviation() == []  # the same plan again
    assert deviation("", "", "--repeats", "1") == ["seeds: 1, not 2"]
    assert deviation("", "", "--vary", "init") == ["other seeds: --vary init, not all"]
    assert deviation("[24]", "[25]", "--repeats", "1") == ["seeds: 1, not 2; hidden 25, not 24"]
    assert deviation("step_epochs = 1", "step_epochs = 1\ndropout = 0.5") == ["dropout 0.5, not 0"]
    assert deviation("0.45", "0.46") == ["numbers, remarks or checks of 12-T1"]
    assert deviation("1.4", "1.5") == ["its text"]  # of another row
    assert deviation() == []  # the first plan once more
    report.rename(report.with_name("other.toml"))
    assert plan_notes(here("reproduce", "other.toml", "--only", "T1", *LOOK).stdout)[1:] == []


def test_mistakes_are_listed_and_refused(here: Klcli, refused: Refused, report: Path) -> None:
    report.write_text(REPORT.replace("hidden = [24]", "hiden = [24]").replace("= 1\n", "= 0\n"), encoding="utf-8")
    done = here("reproduce", "--check", report.name, "a3-2024")
    assert done.stdout.splitlines()[:2] == [
        "my report.toml:7: common: step_epochs 0: must be a finite number, above 0",
        "my report.toml:12: experiments 1, row 2: no setting or number `hiden`, did you mean `hidden`?",
    ]
    sound = (
        r"a3-2024: \d+ rows, \d+ numbers; \d+ trainings with at least 3 seeds, \d+ gradient checks, about \d+ updates"
    )
    assert re.fullmatch(sound, done.stdout.splitlines()[2])
    assert done.returncode == 2
    assert done.stderr == "klcli: --check: 2 mistakes in my report.toml, a3-2024\n"
    document = json.loads(here("reproduce", "--check", report.name, "--json").stdout)
    [checked] = document["checked"]
    assert [one["line"] for one in checked["mistakes"]] == [7, 12]
    assert checked["holds"] is None
    refused(here("reproduce", report.name), 2, "my report.toml:7: common: step_epochs 0", "--check 'my report.toml'")
    refused(here("reproduce", "--check"), 2, "reproduce: name a report, one of a2-2019")
    refused(here("reproduce", "none.toml"), 2, "none.toml: there is no such file")


@pytest.mark.slow
def test_the_example_of_the_page_runs(here: Klcli, tmp_path: Path) -> None:
    (tmp_path / "example.toml").write_text(example(), encoding="utf-8")
    done = succeeded(here("reproduce", "example.toml", *LOOK, "--json"))
    [document] = json.loads(done.stdout)["reports"]
    assert len(document["pictures"]) == 2
    assert [line["n"] for line in document["lines"]] == [1, 2, 2, 2, 0, 2, 2, 2, 0, 0]
