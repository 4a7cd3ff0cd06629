"""`klcli assignment`: what it finds, trains and writes, and that LaTeX compiles it."""

import csv
import json
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from command import Klcli, Rows, change, read, succeeded
from PIL import Image

from klcli import Lab
from klcli.errors import Interrupted
from klcli.procedures.assignment import STUDY_SECONDS, _Work
from klcli.procedures.observer import Observer
from klcli.procedures.setup import Setup
from klcli.procedures.study_runner import StudyRunner
from klcli.report.assignment import require_own, sections
from klcli.report.plots.curves import BAND
from klcli.settings.editions import AssignmentSettings, Edition
from klcli.settings.procedures import SearchSettings
from klcli.settings.train_config import TrainConfig
from klcli.training.budget import budget_of
from klcli.training.cores import cores
from klcli.training.result import TrainResult
from klcli.training.trainer import train

FEW = ("--data", "synthetic", "--subset", "200", "--epochs", "1", "--trials", "2", "--jobs", "1")
FIGURES = ("curves-1", "curves-2", "lambda", "final", "sigma")
TABLES = ("gradients", "networks", "lambda-best", "sigma-results")


def budget(config: TrainConfig) -> tuple[int, int]:
    """n_s and the number of updates."""
    found = budget_of(config, config.split.sizes()[0])
    return found.step_size, found.total_updates


@pytest.mark.parametrize(
    ("edition", "curves", "search", "final", "sweep"),
    [
        ("a3", (2250, 9000), (900, 3600), (2250, 13500), (2250, 9000)),
        ("a2-2019", (500, 1000), (900, 3600), (980, 5880), None),
        ("a3-2021", (2250, 9000), (900, 3600), (2250, 13500), (900, 9000)),
        ("a3-2022", (2250, 9000), (2250, 9000), (2250, 9000), (900, 9000)),
        ("a3-2024", (2250, 9000), (2250, 9000), (2250, 9000), (2250, 9000)),
    ],
)
def test_half_cycles_and_updates_are_those_of_the_course(
    edition: str, curves: Any, search: Any, final: Any, sweep: Any
) -> None:
    asked: Edition = AssignmentSettings(edition=edition).chosen
    assert budget(asked.curves[0][0]) == curves
    assert (budget(asked.search), budget(asked.final)) == (search, final)
    assert (asked.sweep and budget(asked.sweep)) == sweep
    weights = [
        sum(a * b for a, b in zip((3072, *one[0].hidden), (*one[0].hidden, 10), strict=True)) for one in asked.curves
    ]
    assert weights == ([3072 * 50 + 500] * 2 if edition == "a2-2019" else [156_600, 156_700])


def test_a_rehearsal_keeps_the_cycles() -> None:
    one = AssignmentSettings(epochs=3, subset=4500, seed=7).chosen
    assert [budget(config) for config in (one.search, one.final)] == [(34, 136), (22, 132)]
    assert {config.seed for configs in one.curves for config in configs} == {7}


class Speeds(dict[Any, float]):
    """A millisecond per update and network."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: tuple[int, Any, int, int]) -> float:
        return key[0] / 1000


def test_the_estimate_gives_each_stack_to_the_worker_that_is_free_first() -> None:
    settings = AssignmentSettings(trials=10)
    setup = Setup(db=Path("none.db"), data=None, threads=1, jobs=2, executor=None, observer=Observer())
    work = _Work(setup, settings.chosen, 1, cast(StudyRunner, None), Speeds())
    lambdas = [replace(settings.chosen.search, lam=0.001 * n) for n in range(10)]  # in stacks of 4, 3 and 3
    assert work._together(lambdas) == pytest.approx(STUDY_SECONDS + (3 + 3) / 1000 * 3600)
    assert work._together(lambdas[:8]) == pytest.approx(STUDY_SECONDS + 4 / 1000 * 3600)
    assert work._together([]) == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--jobs", "4"], {(1, 2), (4, 2)}),  # 8 lambdas are 2 stacks of 4, and each has a core that is free
        (["--jobs", "3"], {(1, 2), (4, 1), (4, 2)}),
        (["--jobs", "2"], {(1, 2), (4, 1)}),
        (["--jobs", "4", "--threads", "2"], {(1, 1), (4, 1)}),
    ],
)
def test_a_speed_is_measured_on_the_cores_of_the_training(
    here: Klcli, monkeypatch: pytest.MonkeyPatch, options: list[str], expected: set[tuple[int, int]]
) -> None:
    measured = set[tuple[int, int]]()  # networks in a trial, and its cores

    def recording(configs: Sequence[TrainConfig], *images: Any, cores: int, **how: Any) -> list[TrainResult]:
        measured.add((len(configs), cores))
        return train(configs, *images, cores=cores, **how)

    monkeypatch.setattr("klcli.procedures.assignment.train", recording)
    monkeypatch.setattr("klcli.procedures.assignment.cores", lambda: 2)
    succeeded(here("assignment", "--dry-run", *FEW[:-4], "--trials", "8", "--edition", "a2-2019", *options))
    assert measured == expected


def test_a_folder_with_other_files_is_refused_before_any_work(here: Klcli, refused: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/thesis.tex").touch()
    refused(here("assignment", "thesis", *FEW), 2, "thesis", "other files")
    refused(here("assignment", "thesis/thesis.tex", *FEW), 2, "thesis.tex", "Not a directory")
    refused(here("assignment", "--edition", "a4"), 2, "--edition 'a4'", "a3-2024")
    refused(here("assignment", "--subset", "50"), 2, "--subset 50", "at least 100")


@pytest.mark.parametrize(
    ("db", "folder"), [("klcli.db", "assignment"), ("a.db", "a-assignment"), ("b.db", "b-assignment")]
)
def test_each_database_has_a_folder_of_its_own(here: Klcli, refused: Any, tmp_path: Path, db: str, folder: str) -> None:
    """Two databases in one folder replaced each other's figures."""
    for name in ("assignment", "a-assignment", "b-assignment"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").touch()
    line = refused(here("assignment", *FEW, "--db", db), 2, "other files")
    assert line.startswith(f"klcli: {folder}: ")


@pytest.mark.parametrize(("db", "folder"), [("klcli.db", "assignment"), ("ada.db", "ada-assignment")])
def test_the_folder_of_a_linked_database_is_beside_the_file_itself(
    here: Klcli, refused: Any, tmp_path: Path, db: str, folder: str
) -> None:
    """As its checkpoints and pictures are."""
    own = tmp_path / "course" / folder
    own.mkdir(parents=True)
    (own / "thesis.tex").touch()
    (tmp_path / "link.db").symlink_to(f"course/{db}")
    line = refused(here("assignment", *FEW, "--db", "link.db"), 2, "other files")
    assert line.startswith(f"klcli: {own.resolve()}: ")


def test_the_editions_name_their_reports(here: Klcli) -> None:
    listed = json.loads(here("assignment", "--editions", "--json").stdout)["editions"]
    dates = {one["name"]: (one["report"], one["date"]) for one in listed}
    assert dates["a3-2021"] == ("000", "July 2021")
    assert dates["a2-2019"] == ("002", "October 2019")
    assert "a3-2024" in here("assignment", "--editions").stdout


@pytest.fixture(scope="module")
def done(fill: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the whole assignment was called, after `klcli train` had trained one of its networks."""
    folder = tmp_path_factory.mktemp("assignment")
    first = ("train", *FEW[:4], "--step-epochs", "0.25", "--bn", "--hidden", "50", "50")
    assert fill(folder, [first, ("assignment", *FEW)], drawn=True) == [0, 0]
    return folder


@pytest.fixture
def copied(done: Path, tmp_path: Path) -> Path:
    """The same, in the folder in which a test runs."""
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    return tmp_path / "results/assignment"


@pytest.mark.slow
def test_it_trains_what_is_missing_and_nothing_twice(here: Klcli, copied: Path, rows: Rows) -> None:
    runs = rows("runs")
    assert len(runs) == 4 + 2 + 2 + 1 + 6
    assert runs[0]["command"].startswith("klcli train --data synthetic")
    assert {run["state"] for run in runs} == {"complete"}
    again = json.loads(here("assignment", "--dry-run", *FEW, "--json").stdout)
    assert again["seconds"] == 0
    assert {part["missing"] for part in again["parts"]} == {0}
    repeated = here("assignment", *FEW)
    assert repeated.returncode == 0
    assert "is edited" not in repeated.stderr
    assert len(rows("runs")) == len(runs)
    assert len(rows("gradient_checks")) == 12
    other = json.loads(here("assignment", "--dry-run", *FEW, "--seed", "1", "--json").stdout)
    assert [part["missing"] for part in other["parts"]] == [12, 2, 2, 2, 2, 1, 6]
    assert other["seconds"] > 0
    assert len(rows("runs")) == len(runs)
    many = here("assignment", "--dry-run", *FEW, "--seed", "1", "--jobs", "1000").stdout
    assert f" on {cores()} core" in many
    another = here("assignment", *FEW, "--trials", "1")
    assert "a new one begins" in another.stderr
    assert "--resume" not in another.stderr  # which is no option of this command


@pytest.mark.slow
def test_a_part_of_which_every_network_diverged_is_the_exit_code(here: Klcli, copied: Path, tmp_path: Path) -> None:
    """The document said it, and a script took it for done."""
    parts = {
        "every network of the curves": "study_id IS NULL AND lambda = 0.005",
        "the final training": "study_id IS NULL AND lambda <> 0.005",
        "every network of the sweep": "sigma IS NOT NULL",
    }
    for part, runs in parts.items():
        [last] = read(tmp_path, f"SELECT max(id) AS id, count(*) AS n FROM runs WHERE {runs}")
        change(tmp_path, f"UPDATE runs SET state = 'diverged' WHERE {runs} AND id < {last['id']}")
        assert here("assignment", *FEW).returncode == (0 if part == "every network of the curves" else 6)
        change(tmp_path, f"UPDATE runs SET state = 'diverged' WHERE {runs}")
        done = here("assignment", *FEW)
        named = " and ".join([*parts][: [*parts].index(part) + 1])
        assert done.returncode == 6
        assert done.stderr.splitlines()[-1] == f"klcli: {named} diverged: `klcli report --list` shows the runs"
        assert "document" in done.stdout


@pytest.mark.slow
def test_each_run_has_a_command_that_finds_it_again(here: Klcli, copied: Path, rows: Rows) -> None:
    """The commands beside the figures are those of the same trainings: with --resume, they train nothing."""
    text = (copied / "assignment.md").read_text(encoding="utf-8")
    commands = [line for line in text.splitlines() if line.startswith("klcli ")]
    before = rows("runs")
    for command in dict.fromkeys(commands):
        args = command.split()[1:]
        if args[0] in ("search-lambda", "sigma-sweep"):
            assert here(*args, "--resume", "--jobs", "1").returncode == 0
        if args[0] == "report":
            assert here(*args).returncode == 0, command
    assert rows("runs") == before
    drawn = dict.fromkeys(command for command in commands if " --to " in command)
    assert len({command.split(" --to ")[1].split()[0] for command in drawn}) == len(drawn) == 5
    assert {command.split()[1] for command in commands} == {
        "gradcheck", "train", "search-lambda", "sigma-sweep", "report",
    }  # fmt: skip


@pytest.mark.slow
def test_figures_have_the_width_of_the_page_and_their_numbers(copied: Path, rows: Rows) -> None:
    epochs = rows("epochs")
    for name in FIGURES:
        box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+)", (copied / f"figures/{name}.pdf").read_bytes())
        assert box
        assert float(box[1]) == pytest.approx(16 / 2.54 * 72, abs=0.5)
        assert Image.open(copied / f"figures/{name}.png").width == pytest.approx(16 / 2.54 * 200, abs=2)
        with (copied / f"figures/{name}.csv").open(encoding="utf-8") as file:
            numbers = list(csv.DictReader(file))
        if name != "lambda":
            mine = [one for one in epochs if one["run_id"] in {int(row["run_id"]) for row in numbers}]
            key = "validation_cost"
            assert sorted(float(row[key]) for row in numbers) == sorted(one[key] for one in mine)
    for name in TABLES:
        assert (copied / f"tables/{name}.md").read_text(encoding="utf-8").count("|") > 10


class Stopping(Observer):
    """Interrupts the second evaluation of a training, and then the first message about lambda."""

    def __init__(self) -> None:
        self.evaluations, self.searches = 0, 0

    def on_evaluation(self, result: TrainResult) -> None:
        self.evaluations += 1
        if self.evaluations == 2:
            raise Interrupted("interrupted", signal.SIGINT)

    def say(self, message: str) -> None:
        self.searches += message.startswith("fine:")
        if message.startswith("fine:") and self.searches == 1:
            raise Interrupted("interrupted", signal.SIGINT)


@pytest.mark.slow
def test_after_an_interruption_the_same_call_continues(tmp_path: Path, rows: Rows) -> None:
    settings = AssignmentSettings(epochs=1, subset=200, trials=2)
    lab = Lab(tmp_path / "results/klcli.db", data="synthetic", observer=Stopping())
    with pytest.raises(Interrupted, match="or repeat this command"):
        lab.assignment(settings)
    assert [run["state"] for run in rows("runs")] == ["interrupted"]
    with pytest.raises(Interrupted, match="or repeat this command"):
        lab.assignment(settings)
    before = rows("runs")
    assert {run["state"] for run in before} == {"complete"}
    assert len(before) == 4 + 2
    found = lab.assignment(settings)
    assert rows("runs")[:6] == before
    assert len(rows("runs")) == 4 + 2 + 2 + 1 + 6
    assert found.final[0].test_accuracy is not None


@pytest.mark.slow
def test_repeats_become_means_and_bands(tmp_path: Path, rows: Rows) -> None:
    db = tmp_path / "results/klcli.db"
    lab, settings = Lab(db, data="synthetic"), AssignmentSettings(epochs=1, subset=200, trials=1, repeats=2)
    assert [part.missing for part in lab.plan_assignment(settings)] == [12, 4, 4, 2, 2, 2, 12]
    found = lab.assignment(settings)
    assert len(rows("runs")) == 4 + 4 + 2 + 2 + 2 + 12
    assert [(part.missing, part.seconds) for part in lab.plan_assignment(settings)] == [(0, 0.0)] * 7
    exhibits = {one.name: one for section in sections(found, lab.epochs) for one in section.exhibits}
    for name in ("curves-1", "curves-2", "final"):
        chart = exhibits[name].chart
        assert chart
        assert BAND in chart.caption
        assert any(line.spread for panels in chart.panels for panel in panels for line in panel.lines)
    gradients = exhibits["gradients"].table
    assert "relative: its ratio to max(|ga| + |gn|, 1e-6)" in gradients.title
    assert [row["ratio_of_maxima"] for row in gradients.rows] == [
        max(error.ratio_of_maxima for error in check.errors) for check in found.checks
    ]
    table = exhibits["networks"].table
    assert len(table.rows) == 4
    accuracies = [run.test_accuracy or 0.0 for run in found.curves[0][:2]]
    [first, *_] = table.cells()
    assert f"{np.mean(accuracies):.4f} ± {np.std(accuracies, ddof=1):.4f}" in first
    for name in ("lambda", "sigma"):
        assert "--repeats 2" in exhibits[name].commands[0]
    _, networks, search, sigma = sections(found, lab.epochs)
    assert all("(mean ± standard deviation over 2 seeds): " in one.sentence for one in (networks, search))
    assert f"{100 * np.mean(accuracies):.2f} ± {100 * np.std(accuracies, ddof=1):.2f}" in networks.sentence
    assert sigma.sentence.endswith("one of 0.1, 0.001, 0.0001.")
    assert exhibits["sigma-results"].table.title.startswith("Test accuracy over the repeats")


@pytest.mark.slow
def test_networks_that_python_has_trained_have_commands_of_the_shell(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "course.db", data="synthetic", jobs=1)
    settings = AssignmentSettings(edition="a2-2019", epochs=1, subset=200, trials=1)
    run = lab.train(settings.chosen.curves[0][0])
    found = lab.assignment(settings)
    assert found.curves[0][0].id == run.id
    written = [*sections(found, lab.epochs)]
    commands = {command for section in written for one in section.exhibits for command in one.commands}
    assert all(shlex.split(command)[0] == "klcli" for command in commands)
    assert all(f"--db {tmp_path / 'course.db'}" in command for command in commands)
    assert written[1].question.startswith("What do n_s and the number of cycles change")


@pytest.mark.slow
def test_studies_whose_repeats_vary_something_else_are_not_in_its_way(tmp_path: Path) -> None:
    """It asked for an option that this command does not have, whenever it was called."""
    lab = Lab(tmp_path / "klcli.db", data="synthetic", jobs=1)
    settings = AssignmentSettings(epochs=1, subset=200, trials=1, repeats=2)
    edition = settings.chosen
    assert edition.sweep
    swept = lab.sigma_sweep(edition.sweep, repeats=2, vary="init")
    searched = lab.search_lambda(edition.search, SearchSettings(coarse=True, trials=1), repeats=2, vary="order")
    assert [part.missing for part in lab.plan_assignment(settings)] == [12, 4, 4, 2, 2, 2, 12]
    found = lab.assignment(settings)
    assert {run.study_id for run in found.sweep}.isdisjoint({swept.id, *searched.studies})
    assert {(run.config.seed, run.config.order_seed) for run in found.sweep} == {(0, None), (1, None)}
    assert set(found.search.studies).isdisjoint({swept.id, *searched.studies})


@pytest.mark.slow
def test_an_edited_document_stays(here: Klcli, copied: Path, tmp_path: Path) -> None:
    document = copied / "report.tex"
    assert "SYNTHETIC IMAGES" in document.read_text(encoding="utf-8")
    edited = document.read_text(encoding="utf-8").replace("Gradients", "My gradients")
    document.write_text(edited, encoding="utf-8")
    (looked_at := tmp_path / "seen").mkdir()
    (looked_at / ".DS_Store").touch()
    require_own(looked_at)
    figure, index = copied / "figures/sigma.csv", copied / "assignment.md"
    figure.unlink()
    index.unlink()
    assert "report.tex is edited" in here("assignment", *FEW).stderr
    assert document.read_text(encoding="utf-8") == edited
    assert figure.exists()
    assert index.exists()


@pytest.mark.slow
def test_an_edited_document_gets_no_figures_of_another_assignment(
    here: Klcli, refused: Any, copied: Path, rows: Rows
) -> None:
    """Its sentences and captions stay: they would be about other numbers than the figures below them."""
    document, index = copied / "report.tex", copied / "assignment.md"
    document.write_text(document.read_text(encoding="utf-8") + "% mine\n", encoding="utf-8")

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}

    before, runs = contents(), rows("runs")
    for other in (["--epochs", "2"], ["--edition", "a2-2019"], ["--repeats", "3"], ["--seed", "1"], ["--trials", "3"]):
        refused(here("assignment", *FEW, *other), 2, str(Path("assignment/report.tex")), "edited", "another FOLDER")
    assert contents() == before
    assert rows("runs") == runs
    # The image set of yesterday is not there today.
    text = index.read_text(encoding="utf-8")
    index.write_text(text.replace("synthetic images", "cifar10 images", 1), encoding="utf-8")
    refused(here("assignment", *FEW), 2, "report.tex", "cifar10 images")
    index.write_text(text.replace("The assignment of", "Of", 1), encoding="utf-8")  # of an older klcli
    assert "with the old numbers in its sentences" in here("assignment", *FEW).stderr
    assert index.read_text(encoding="utf-8") == text
    document.unlink()
    assert here("assignment", "--dry-run", *FEW, "--epochs", "2", "--edition", "a2-2019").returncode == 0


@pytest.mark.slow
def test_latex_compiles_the_document_without_a_complaint(copied: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    for _ in range(2):
        args = ("pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex")
        process = subprocess.run(args, cwd=copied, capture_output=True, text=True, timeout=120, check=False)
        assert process.returncode == 0, process.stdout[-2000:]
    log = (copied / "report.log").read_text(encoding="latin-1")
    assert not re.findall(r"Overfull|Undefined|undefined|Missing|LaTeX Warning", log), log
    assert (copied / "report.pdf").stat().st_size > 50_000


def test_two_trainings_of_one_network_are_told_apart_by_n_s(here: Klcli) -> None:
    planned = here("assignment", "--dry-run", *FEW, "--epochs", "6", "--edition", "a2-2019", "--json")
    assert planned.stderr.count("SYNTHETIC IMAGES") == 1
    names = [part["name"] for part in json.loads(planned.stdout)["parts"]]
    assert names[1:3] == ["2 layers, n_s 6", "2 layers, n_s 2"]  # 6 epochs of 2 updates are 1 cycle or 3
