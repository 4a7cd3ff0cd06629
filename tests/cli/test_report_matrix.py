"""Every view of `klcli report` in every format, with every option: what was asked for, or one line that refuses it."""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Klcli, Refused, change, succeeded

SMALL = ("--data", "synthetic", "--subset", "200", "--epochs", "1", "--hidden", "5", "--quiet")
COMMANDS = (
    ("search-lambda", "--values", "0.1", "0.01", "0.001", "--jobs", "1", *SMALL),  # runs 1 to 3, study 1
    ("sigma-sweep", "--sigmas", "0.1", "0.01", "--jobs", "1", *SMALL),  # runs 4 to 7, study 2
    ("train", *SMALL, "--note-is-set-below"),
    ("gradcheck", "--hidden", "4", "--data", "synthetic", "--quiet"),
)

# A view, a word of its table that no other view has, and the number of its rows.
VIEWS = {
    (): ("Best runs", 7),
    ("--best", "2"): ("Best runs", 2),
    ("--list",): ("Runs in", 8),
    ("--run", "1", "4"): ("images sha256", None),
    ("--run", "1", "4", "--diff-only"): ("Differences", None),
    ("--study", "1"): ("Lambda search", 3),
    ("--study", "2"): ("Sigma sweep", 6),
    ("--group-by", "lambda"): ("Mean accuracies over n seeds", 4),
    ("--gradchecks",): ("linear2.W", 8),
}


@pytest.fixture(scope="module")
def filled(fill: Callable[..., list[int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("matrix")
    fill(folder, [[word for word in command if word != "--note-is-set-below"] for command in COMMANDS])
    change(folder, "UPDATE runs SET state = 'failed', error = 'x' WHERE id = 8")
    return folder / "results"


@pytest.fixture
def matrix(filled: Path, tmp_path: Path) -> Path:
    shutil.copytree(filled, tmp_path / "results")
    return tmp_path


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("args", VIEWS, ids=" ".join)
def test_every_format_shows_the_view_that_was_asked_for(here: Klcli, matrix: Path, args: tuple[str, ...]) -> None:
    word, rows = VIEWS[args]
    for form in ("table", "markdown", "latex"):
        done = succeeded(here("report", *args, "--format", form))
        assert word in done.stdout.replace("\\", "")
    [whole, semicolon] = (here("report", *args, "--format", form).stdout for form in ("csv", "csv-semicolon"))
    found = list(csv.DictReader(io.StringIO(whole)))
    assert rows is None or len(found) == rows
    other = list(csv.DictReader(io.StringIO(semicolon.removeprefix("\ufeff")), delimiter=";"))
    assert semicolon.startswith("\ufeff")
    assert [list(row) for row in other] == [list(row) for row in found]
    for row, same in zip(found, other, strict=True):
        for key, value in row.items():
            assert same[key] in (value, value.replace(".", ","))
    exact = json.loads(here("report", *args, "--format", "json").stdout)
    assert len(exact["rows"]) == len(found)
    assert word in exact["title"] or word in str(exact["rows"])
    assert here("report", *args, "--json").returncode == 0
    limited = here("report", *args, "--limit", "1", "--format", "csv").stdout
    [row] = csv.DictReader(io.StringIO(limited))
    assert row.items() <= found[0].items()  # a column that only other rows fill is absent
    assert len(json.loads(here("report", *args, "--limit", "1", "--format", "json").stdout)["rows"]) == 1
    table = here("report", *args, "--limit", "1").stdout
    assert len(table.splitlines()) <= len(here("report", *args).stdout.splitlines())


# The labels of the tables of each view in LaTeX, by which a text refers to them.
LABELS = {
    (): ["best"], ("--best", "2"): ["best"], ("--list",): ["list"], ("--run", "1", "4"): ["runs-1-4"],
    ("--run", "4"): ["run-4"], ("--study", "1"): ["study-1"], ("--study", "last"): ["study-2"],
    ("--group-by", "lambda"): ["groups"], ("--gradchecks",): ["gradients", "gradients-2"],
}  # fmt: skip


@pytest.mark.parametrize("args", LABELS, ids=" ".join)
def test_each_table_of_latex_has_a_label(here: Klcli, matrix: Path, args: tuple[str, ...]) -> None:
    done = succeeded(here("report", *args, "--format", "latex"))
    assert re.findall(r"^  \\label\{(.*)\}$", done.stdout, re.MULTILINE) == [f"tab:{name}" for name in LABELS[args]]
    assert done.stdout.count(r"\begin{table}") == len(LABELS[args])


# Options that a view cannot obey.
RANKED = ["--dataset synthetic", "--images-of 1", "--bn", "--no-bn", "--since 7d", "--tagged x", "--where 1"]
IGNORED = {
    "--run 1": [*RANKED, "--state complete", "--sort seconds"],
    "--study 1": [*RANKED, "--state complete", "--sort seconds"],
    "--study 0": ["--bn"],
    "--gradchecks": [*RANKED, "--state complete", "--sort seconds"],
    "--group-by bn": ["--sort seconds", "--state failed"],
    "--best 2": ["--state failed"],
    "--diff-only": ["", "--best 2", "--run 1"],
    "--plot lambda": [*RANKED, "--sort seconds"],
    "--plot gradients": [*RANKED],
    "--html x.html": [
        "--sort seconds", "--format csv", "--plot curves", "--best 2", "--list", "--study 1",
        "--group-by bn", "--gradchecks",
    ],
}  # fmt: skip


@pytest.mark.parametrize("view", IGNORED)
def test_an_option_that_a_view_cannot_obey_is_refused(here: Klcli, matrix: Path, refused: Refused, view: str) -> None:
    for option in IGNORED[view]:
        refused(here("report", *view.split(), *option.split()), 2, view.partition(" ")[0])
    assert not (matrix / "x.html").exists()


# Pictures: the files that a view and a kind give, or None where they do not belong together.
PICTURES = {
    "--plot curves": ["run-{}-curves"],
    "--plot bn": ["run-{}-bn"],
    "--plot rate": ["run-{}-rate"],
    "--plot weights": ["run-{}-weights"],
    "--plot lambda": ["study-000001-lambda"],
    "--plot sigma": ["study-000002-sigma"],
    "--plot gradients": ["gradcheck-000001"],
    "--plot lambda sigma": None,
    "--plot curves lambda": None,
    "--plot gradients rate": None,
    "--best 2 --plot rate": ["run-{}-rate"] * 2,
    "--best 2 --plot lambda": None,
    "--list --plot weights": None,
    "--list --limit 1 --plot rate": ["run-000008-rate"],
    "--list --plot gradients": None,
    "--run 1 4 --plot curves": ["run-000001-000004-curves"],
    "--run 1 4 --plot rate weights": [f"run-00000{n}-{kind}" for kind in ("rate", "weights") for n in (1, 4)],
    "--run 4 6 --plot bn": ["run-000004-000006-bn"],
    "--run 4 5 --plot bn": None,  # both without BN
    "--run 4 5 6 --plot bn": None,  # which two?
    "--run 1 --plot lambda": None,
    "--run 1 --plot gradients": None,
    "--study 1 --plot lambda": ["study-000001-lambda"],
    "--study 2 --plot sigma curves": ["study-000002-sigma", "run-000004-000005-000006-000007-curves"],
    "--study 2 --plot bn": ["run-000004-000006-bn", "run-000005-000007-bn"],  # of each sigma
    "--study 2 --plot training": [f"run-00000{n}-training" for n in (4, 5, 6, 7)],
    "--study 1 --plot training": [f"run-00000{n}-training" for n in (1, 2, 3)],
    "--study 1 --plot bn": None,
    "--study 1 --plot sigma": None,
    "--plot training": ["run-{}-training"],
    "--best 2 --plot training": ["run-{}-training"] * 2,
    "--run 1 4 --plot training": ["run-000001-training", "run-000004-training"],
    "--list --plot training": None,
    "--study 2 --plot weights": None,
    "--study 2 --plot lambda": None,
    "--group-by bn --plot confusion": None,
    "--gradchecks --plot gradients": ["gradcheck-000001"],
    "--gradchecks --plot curves": None,
    "--run 1 --plot curves confusion --split validation": [
        f"run-000001-{k}-validation" for k in ("confusion", "curves")
    ],
    "--study 1 --plot lambda --split train --width 9 --no-title": ["study-000001-lambda-train"],
    "--study 1 --plot lambda --split test": None,  # a search does not look at the test set
    "--study 1 --plot lambda --split train test": None,
    "--run 1 --plot rate --split train": None,
    "--best 2 --no-title": None,
    "--plot tea": None,
}


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("asked", PICTURES)
def test_a_picture_shows_what_was_asked_for(here: Klcli, matrix: Path, refused: Refused, asked: str) -> None:
    shutil.rmtree(matrix / "results/plots")
    expected = PICTURES[asked]
    done = here("report", *asked.split())
    if expected is None:
        refused(done, 2, "--plot")
        assert not (matrix / "results/plots").exists()
        return
    assert done.returncode == 0, done.stderr
    names = sorted(path.stem for path in (matrix / "results/plots").iterdir())
    assert len(names) == len(expected)
    for name, wanted in zip(names, sorted(expected), strict=True):
        start, _, end = wanted.partition("{}")
        assert name.startswith(start) and name.endswith(end)


def test_a_kind_that_a_study_does_not_have_is_refused_with_those_that_it_has(
    here: Klcli, matrix: Path, refused: Refused
) -> None:
    words = refused(here("report", "--study", "1", "--plot", "sigma"), 2)
    assert words.endswith("study 1 is a lambda search (values); choose one of curves, training, lambda\n".strip())
    words = refused(here("report", "--study", "2", "--plot", "lambda"), 2)
    assert words.endswith("study 2 is a sigma sweep; choose one of curves, training, bn, sigma")


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("--run 1 --plot rate", ["x"]),
        ("--run 1 4 --plot rate", ["x-run-000001-rate", "x-run-000004-rate"]),
        ("--run 1 --plot curves rate", ["x-run-000001-curves", "x-run-000001-rate"]),
        ("--study 2 --plot bn", ["x-run-000004-000006-bn", "x-run-000005-000007-bn"]),
    ],
)
@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_named_file_is_one_picture_or_begins_the_names_of_several(
    here: Klcli, matrix: Path, asked: str, names: list[str], suffix: str
) -> None:
    succeeded(here("report", *asked.split(), "--to", f"x.{suffix}"))
    assert sorted(path.name for path in matrix.glob("x*")) == [f"{name}.{suffix}" for name in names]


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_a_named_file_has_the_format_of_its_name(here: Klcli, matrix: Path, suffix: str, magic: bytes) -> None:
    succeeded(here("report", "--run", "1", "--plot", "rate", "--to", f"x.{suffix}"))
    assert (matrix / f"x.{suffix}").read_bytes().startswith(magic)


@pytest.mark.usefixtures("unrendered")
def test_a_run_whose_settings_cannot_be_read_does_not_hide_the_others(here: Klcli, matrix: Path) -> None:
    change(matrix, "UPDATE runs SET config = json_set(config, '$.from_the_future', 1) WHERE id = 2")
    change(matrix, "UPDATE runs SET config = json_set(config, '$.split', 'half') WHERE id = 3")
    listed = list(csv.DictReader(io.StringIO(here("report", "--list", "--format", "csv").stdout)))
    assert [row["id"] for row in listed] == ["8", "7", "6", "5", "4", "3", "2", "1"]
    assert [row["id"] for row in listed if "UNREADABLE" in row["settings"]] == ["3", "2"]
    assert "from_the_future" in listed[-2]["settings"]
    ranked = here("report", "--format", "csv")
    assert ranked.returncode == 0
    assert {row["id"] for row in csv.DictReader(io.StringIO(ranked.stdout))} == {"1", "4", "5", "6", "7"}
    assert "left out: run 2" in ranked.stderr
    for args in (["--study", "1"], ["--group-by", "lambda"], ["--html", "x.html"], ["--list"], ["--list", "--json"]):
        succeeded(here("report", *args))
    assert here("report", "--run", "2").returncode == 4
    assert here("report", "--run", "1").returncode == 0


@pytest.mark.usefixtures("unrendered")
def test_quick_trials_come_after_the_runs_on_all_images(here: Klcli, trained: Path) -> None:
    # Run 1 on all images, with the lowest accuracy; runs 2 and 3, the newer and better ones, stay on a subset.
    whole = "config = json_remove(config, '$.split.subset')"
    change(trained, f"UPDATE runs SET {whole}, validation_accuracy = 0.01 WHERE id = 1")
    ranked = here("report", "--format", "csv")
    assert [row["id"] for row in csv.DictReader(io.StringIO(ranked.stdout))] == ["1"]
    assert "2 more with 200 images train, 22 validate, 44 test (subset of 200)" in ranked.stderr
    assert "45000 images train" in here("report", "--best", "3").stdout
    assert here("report", "--plot", "rate").returncode == 0
    assert (trained / "results/plots/run-000001-rate.png").exists()
    assert "run 1" in here("evaluate", "best", "--data", "synthetic", "--json").stdout.replace('"run": ', "run ")


def test_the_synthetic_set_comes_after_cifar10(here: Klcli, trained: Path) -> None:
    """A network that was trained to try a command, however recent, is no network for pictures."""
    change(trained, "UPDATE runs SET dataset = 'cifar10', validation_accuracy = 0.01 WHERE id = 1")
    change(trained, f"UPDATE runs SET dataset_sha256 = '{'ab' * 32}' WHERE id = 1")
    change(trained, "UPDATE runs SET config = json_remove(config, '$.split.subset') WHERE id = 2")
    ranked = here("report", "--format", "csv")
    assert [row["id"] for row in csv.DictReader(io.StringIO(ranked.stdout))] == ["1"]
    assert "2 more on synthetic" in ranked.stderr
    best = here("report", "--run", "best").stdout
    assert best.splitlines()[0].startswith("Run 1"), best


@pytest.mark.usefixtures("unrendered")
def test_a_subset_is_named_in_every_title(here: Klcli, matrix: Path) -> None:
    for args in ((), ("--list",), ("--run", "1"), ("--study", "1"), ("--study", "2"), ("--group-by", "bn")):
        title = here("report", *args).stdout.splitlines()[0]
        assert "subset of 200" in title, title
        assert "44 test" in title, title
    done = here("train", "--data", "synthetic", "--subset", "200", "--epochs", "0", "--hidden", "4")
    assert "subset of 200 with 44 test images" in done.stdout.splitlines()[0]
    done = here("evaluate", "1", "--flips")
    assert "subset of 200 with 44 test images" in done.stdout.splitlines()[0]
