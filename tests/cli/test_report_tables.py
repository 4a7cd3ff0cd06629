"""`klcli report`: its views, formats and filters, compared with the csv and json modules and SQLite."""

import csv
import io
import json
import re
import shlex
import signal
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from command import Klcli, Refused, Rows, change, read, succeeded
from scipy import stats
from thinning import mostly_slow

from klcli.errors import Interrupted
from klcli.lab import Lab
from klcli.settings.selection import Selection
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.training.result import EpochMetrics


@pytest.fixture
def mixed(trained: Path) -> Path:
    """Run 1 diverged without an epoch, run 2 complete, run 3 interrupted after its epoch."""
    change(
        trained,
        "DELETE FROM epochs WHERE run_id = 1",
        "UPDATE runs SET state = 'diverged', error = 'not finite', epochs_done = 0, checkpoint = NULL,"
        " train_loss = NULL, train_cost = NULL, train_accuracy = NULL, validation_loss = NULL, validation_cost = NULL,"
        " validation_accuracy = NULL, test_loss = NULL, test_cost = NULL, test_accuracy = NULL, finished_at = NULL,"
        " best_validation_accuracy = NULL, seconds = NULL WHERE id = 1",
        "UPDATE runs SET state = 'interrupted', error = 'Ctrl-C', test_loss = NULL, test_cost = NULL,"
        " test_accuracy = NULL WHERE id = 3",
    )
    return trained


def numbers(process: "CompletedProcess[str]") -> list[int]:
    """The first column of a CSV."""
    assert process.returncode == 0, process.stderr
    return [int(next(iter(row.values()))) for row in csv.DictReader(io.StringIO(process.stdout))]


def test_every_format_shows_the_same_numbers(here: Klcli, trained: Path, rows: Rows) -> None:
    stored = {run["id"]: run for run in rows("runs")}
    found = list(csv.DictReader(io.StringIO(here("report", "--format", "csv").stdout)))
    document = json.loads(here("report", "--format", "json").stdout)
    assert len(found) == len(document["rows"]) == 3
    for in_csv, in_json in zip(found, document["rows"], strict=True):
        run = stored[in_json["id"]]
        for key in ("validation_accuracy", "test_accuracy", "train_accuracy", "lambda", "seconds"):
            assert float(in_csv[key]) == in_json[key] == run[key]
    for name in ("table", "markdown", "latex"):
        text = here("report", "--format", name).stdout
        assert "…" not in text
        for run in stored.values():
            assert f"{run['validation_accuracy']:.4f}" in text
            assert f"{run['test_accuracy']:.4f}" in text


def test_the_list_has_all_states_the_newest_first(here: Klcli, mixed: Path) -> None:
    assert numbers(here("report", "--list", "--format", "csv")) == [3, 2, 1]
    text = here("report", "--list").stdout
    for word in ("diverged", "interrupted", "complete", "not finite", "Ctrl-C"):
        assert word in text
    assert numbers(here("report", "--state", "diverged", "--format", "csv")) == [1]
    assert numbers(here("report", "--list", "--limit", "2", "--format", "csv")) == [3, 2]
    assert numbers(here("report", "--list", "--sort", "lambda", "--format", "csv")) == [3, 2, 1]
    assert numbers(here("report", "--list", "--sort", "lambda:desc", "--format", "csv")) == [1, 2, 3]


def test_a_column_to_sort_by_is_shown_once_and_as_in_other_tables(here: Klcli, trained: Path) -> None:
    """An optional one was there twice, and losses that differ in the third decimal were equal."""
    change(trained, "UPDATE runs SET test_loss = 1.3097 + 0.0006 * (id - 1), sigma = 0.1, tags = 'a', note = 'b',"
           " origin = 'c', origin_run = 7")  # fmt: skip

    def columns(*options: str) -> dict[str, tuple[str, ...]]:
        text = succeeded(here("report", "--format", "markdown", *options)).stdout
        lines = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("|")]
        found = [tuple(map(str.strip, column)) for column in zip(*lines, strict=True)]
        assert len({title for title, *_ in found}) == len(found)
        return {title: tuple(cells) for title, _, *cells in found}

    usual = {*columns()}
    for name in ("sigma", "tags", "note", "origin", "origin_run", "lambda", "seconds", "hidden"):
        assert {*columns("--sort", name)} - usual == ({"hidden"} if name == "hidden" else set())
    assert columns("--sort", "test_loss")["test loss"] == ("1.3097", "1.3103", "1.3109")
    assert columns("--sort", "eta_max")["eta max"] == ("0.1", "0.1", "0.1")


def test_a_list_has_the_runs_on_all_images_of_a_name(here: Klcli, trained: Path) -> None:
    """Those on a changed copy have the same name; a list ranks nothing."""

    def listed(dataset: str) -> list[int]:
        return numbers(here("report", "--list", "--dataset", dataset, "--format", "csv"))

    change(trained, "UPDATE runs SET dataset_sha256 = 'a' || id || 'b' WHERE id < 3")
    change(trained, "UPDATE runs SET dataset = 'cifar10' WHERE id = 1")
    assert listed("synthetic") == [3, 2]
    assert (listed("cifar10"), listed("a2")) == ([1], [2])
    assert listed("a") == [2, 1]
    assert json.loads(here("report", "--list", "--dataset", "a", "--limit", "1", "--json").stdout)["total"] == 2


def test_the_title_of_a_list_is_about_its_own_runs(here: Klcli, mixed: Path) -> None:
    """It counted the runs of the database beside the images of those in the list, or named a subset twice."""
    found = {
        args: here("report", "--list", *args.split()).stdout
        for args in ("--state diverged", "--limit 2", "--sort test")
    }
    titles = {args: text.partition("\n")[0] for args, text in found.items()}
    assert titles["--state diverged"].startswith("Runs in results/klcli.db: 1 diverged, subset of ")
    assert titles["--limit 2"].startswith("Runs in results/klcli.db: 1 complete, 1 interrupted, subset of ")
    assert titles["--sort test"].startswith("Runs on synthetic, ") and titles["--sort test"].count("subset") == 1


def test_filters(here: Klcli, trained: Path) -> None:
    change(trained, "UPDATE runs SET started_at = '2020-01-01T00:00:00+00:00', tags = 'old kept' WHERE id = 1")
    change(trained, "UPDATE runs SET batch_norm = 0 WHERE id = 2")

    def of(*args: str) -> list[int]:
        return sorted(numbers(here("report", *args, "--format", "csv")))

    assert of("--bn") == [1, 3]
    assert of("--no-bn") == [2]
    assert of("--since", "2020-06-01") == [2, 3]
    assert of("--since", "7d") == [2, 3]
    assert of("--tagged", "kept") == [1]
    assert of("--where", "lambda < 0.01 AND epochs_done > 1") == [2]
    nothing = here("report", "--where", "seed = 99")
    assert (nothing.returncode, nothing.stdout) == (0, "no run matches these filters\n")
    assert here("report", "--list", "--state", "failed").stdout == nothing.stdout
    # Sorted by a result, a list is a ranking as well.
    assert here("report", "--state", "diverged", "--sort", "validation").stdout == nothing.stdout


@pytest.mark.parametrize(
    "view", ["--where 'seed = 99'", "--list --tagged x", "--group-by bn --bn --where 0", "--gradchecks"]
)
def test_json_without_a_match_is_json(here: Klcli, trained: Path, view: str) -> None:
    """It was an empty text, which no program can parse."""
    done = succeeded(here("report", *shlex.split(view), "--format", "json"))
    document = json.loads(done.stdout)
    assert document["rows"] == []
    assert document["notes"] == here("report", *shlex.split(view)).stdout.splitlines() != []


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--where", "lambda <"], "--where 'lambda <'"),
        (["--where", "1; DROP TABLE runs"], "--where"),
        (["--where", "no_such = 1"], "no_such"),
        (["--where", "1) OR (1"], "--where"),  # it would rank runs on other images together
        (["--sort", "colour"], "colour"),
        (["--sort", "seed:down"], "asc or desc"),
        (["--sort", ""], "--sort '': give a column"),
        (["--sort", ":desc"], "--sort ':desc': give a column"),
        (["--state", "asleep"], "'asleep'"),
        (["--since", "yesterday"], "'yesterday'"),
        (["--format", "xml"], "'xml'"),
        (["--format", "csv", "--json"], "--json"),
        (["--best", "3", "--list"], "--best and --list"),
        (["--best", "3", "--state", "diverged"], "--list"),
        (["--run", "1", "--diff-only"], "--diff-only"),
        (["--group-by", "seed"], "seed"),
        (["--plot", "tea"], "tea"),
        (["--plot", "curves", "--to", "x.gif"], "x.gif"),
        (["--to", "x.png"], "--plot"),
        (["--run", "one"], "'one'"),
        (["--run", "3-1"], "the range descends, give 1-3"),
        (["--run", ""], "--run"),
    ],
)
def test_what_cannot_be_shown(here: Klcli, trained: Path, refused: Refused, args: list[str], named: str) -> None:
    refused(here("report", *args), 2, named)


@pytest.mark.slow
def test_bad_sql_as_a_process(klcli: Klcli, trained: Path, refused: Refused, rows: Rows) -> None:
    refused(klcli("report", "--where", "1); DELETE FROM runs; --"), 2, "--where")
    assert len(rows("runs")) == 3


@pytest.mark.parametrize("args", [["--run", "99"], ["--run", "7-9"], ["--study", "9"], ["--images-of", "-4"]])
def test_what_is_not_there(here: Klcli, trained: Path, refused: Refused, args: list[str]) -> None:
    refused(here("report", *args), 4, args[1])


def test_runs_side_by_side(here: Klcli, trained: Path) -> None:
    text = here("report", "--run", "1", "2", "--format", "csv").stdout
    table = {row["setting"]: (row["run_1"], row["run_2"]) for row in csv.DictReader(io.StringIO(text))}
    assert table["lambda"] == ("0.5", "0.0001")
    assert table["n_batch"] == ("100", "100")
    differing = here("report", "--run", "1", "2", "--diff-only", "--format", "csv").stdout
    names = [row["setting"] for row in csv.DictReader(io.StringIO(differing))]
    assert set(names) == {name for name, (a, b) in table.items() if a != b} - {"started (UTC)", "seconds"}
    assert "lambda" in names
    document = json.loads(here("report", "--run", "2", "--json").stdout)
    assert [epoch["epoch"] for epoch in document["runs"][0]["epochs_measured"]] == [0, 1, 2]


def test_images_divided_differently_are_not_ranked_together(here: Klcli, trained: Path) -> None:
    change(
        trained,
        "UPDATE runs SET config = json_set(config, '$.split.subset', 900), validation_accuracy = 1 WHERE id = 1",
    )
    done = here("report", "--format", "csv")
    assert sorted(numbers(done)) == [2, 3]
    hint = "1 more with 900 images train, 100 validate, 200 test (subset of 900): klcli report --images-of 1\n"
    assert hint in done.stderr
    more = here("report", "--limit", "20", "--format", "csv").stderr  # as many rows of the others
    assert "klcli report --images-of 1 --limit 20\n" in more
    assert numbers(here("report", "--images-of", "1", "--format", "csv")) == [1]
    # The command keeps the view, the filters and the database: it shows as many runs as it announces.
    change(trained, "UPDATE runs SET note = 'kept' WHERE id < 3")
    elsewhere = (trained / "results/klcli.db").rename(trained / "it's elsewhere.db")
    for view in (["--best", "5"], ["--list", "--sort", "test"], ["--group-by", "hidden", "lambda"], ["--limit", "7"]):
        where = ["--where", "note = 'kept'", "--since", "30d"]
        done = here("report", *view, *where, "--db", str(elsewhere), "--format", "csv")
        hint = re.search(r"1 more with .*: klcli (report .*)", done.stderr)
        assert hint, done.stderr
        other = here(*shlex.split(hint[1]), "--format", "csv")
        assert len(other.stdout.splitlines()) == 2, hint[0]
    assert (
        Selection(bn=False, images_of="1", format="csv").command(best=3)
        == "klcli report --best 3 --images-of 1 --no-bn"
    )
    elsewhere.rename(trained / "results/klcli.db")
    # A list in the order of a result is a ranking as well.
    assert sorted(numbers(here("report", "--list", "--sort", "test", "--format", "csv"))) == [2, 3]


@pytest.mark.usefixtures("unrendered")
def test_a_gradient_check_has_every_format(here: Klcli, trained: Path, rows: Rows) -> None:
    assert here("gradcheck", "--hidden", "5", "--data", "synthetic").returncode == 0
    table = list(csv.DictReader(io.StringIO(here("report", "--gradchecks", "--format", "csv").stdout)))
    errors = rows("gradient_errors")
    assert [row["tensor"] for row in table] == [error["tensor"] for error in errors]
    assert [float(row["max_absolute"]) for row in table] == [error["max_absolute"] for error in errors]
    for name in ("markdown", "latex"):
        text = here("report", "--gradchecks", "--format", name).stdout
        assert "linear1.W" in text.replace("\\", "")
        assert "PASS" in text


@pytest.mark.usefixtures("unrendered")
def test_a_study_has_at_most_as_many_rows_as_asked_for(here: Klcli, tmp_path: Path) -> None:
    search = ("search-lambda", "--values", "0.1", "0.01", "0.001", "--subset", "200", "--epochs", "0", "--jobs", "1")
    assert here(*search, "--data", "synthetic").returncode == 0
    whole = here("report", "--study", "1", "--format", "csv").stdout.splitlines()
    limited = here("report", "--study", "1", "--limit", "2", "--format", "csv")
    assert limited.stdout.splitlines() == whole[:3]
    assert "Only the first 2 of 3 rows: `--limit 3` shows all." in limited.stderr
    assert len(whole) == 4


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ("--list", "Only the newest 1 of 3 runs: `--limit 3` shows all."),
        ("--group-by lambda", "Only the best 1 of 3 groups: `--limit 3` shows all."),
        ("--run 1-2 --diff-only", "Only the first 1 of "),
    ],
)
def test_a_table_that_is_cut_says_so(here: Klcli, trained: Path, view: str, words: str) -> None:
    """Its title counts the runs that it shows."""
    assert words in here("report", *view.split(), "--limit", "1").stdout
    assert "Only the" not in here("report", *view.split(), "--limit", "99").stdout
    assert "Only the" not in here("report", *view.split()).stdout


def test_a_study_is_named_as_a_run_is(here: Klcli, trained: Path, refused: Refused) -> None:
    """`last` is the newest complete one, -1 the newest, -2 the one before it."""
    refused(here("report", "--study", "last"), 2, "--study last: results/klcli.db holds no complete study")
    small = ("train", "--repeats", "2", "--subset", "200", "--epochs", "0", "--jobs", "1", "--data", "synthetic")
    for seed in "1", "2", "3":
        assert here(*small, "--seed", seed).returncode == 0
    change(trained, "UPDATE studies SET state = 'interrupted' WHERE id = 3")
    shown = {name: here("report", "--study", name).stdout for name in ("1", "2", "3", "last", "-1", "-2", "-3")}
    names = {"last": "2", "-1": "3", "-2": "2", "-3": "1"}
    assert all(shown[name] == shown[number] for name, number in names.items())
    assert len(set(shown.values())) == 3
    refused(here("report", "--study", "-4"), 4, "there is no study -4, the latest is 3")
    for wrong in "best", "1-2", "1.5", "", "9" * 30:
        refused(here("report", "--study", wrong), 2, f"--study {wrong!r}: give the number of a study")


def test_groups(here: Klcli, trained: Path, rows: Rows) -> None:
    change(trained, "UPDATE runs SET hidden = '7', config = json_set(config, '$.hidden', json('[7]')) WHERE id = 1")
    [one, two] = json.loads(here("report", "--group-by", "hidden,bn", "--json").stdout)["groups"]
    both = sorted([one, two], key=lambda row: row["hidden"])
    accuracies = [run["validation_accuracy"] for run in rows("runs")]
    assert both[0]["validation_accuracy_mean"] == pytest.approx(sum(accuracies[1:]) / 2)
    assert both[0]["validation_accuracy_std"] == pytest.approx(abs(accuracies[1] - accuracies[2]) / 2**0.5)
    assert (both[1]["validation_accuracy_mean"], both[1]["validation_accuracy_std"]) == (accuracies[0], None)
    assert "mixes runs with different lambda, " in here("report", "--group-by", "hidden", "bn").stdout


@pytest.mark.usefixtures("unrendered")
def test_a_limit_changes_the_rows_and_no_conclusion(here: Klcli, tmp_path: Path) -> None:
    """By itself, the p of the best two is 0.014, the smallest of the six; Holm's correction multiplies it by six."""
    search = ("search-lambda", "--values", "1", "2", "3", "4", "--repeats", "3", "--subset", "200", "--epochs", "0")
    assert here(*search, "--data", "synthetic", "--jobs", "1").returncode == 0
    samples = ((0.50, 0.51, 0.52), (0.47, 0.48, 0.485), (0.30, 0.40, 0.50), (0.25, 0.40, 0.45))
    for number, accuracy in enumerate((one for sample in samples for one in sample), start=1):
        change(tmp_path, f"UPDATE runs SET validation_accuracy = {accuracy} WHERE id = {number}")
    groups = ("report", "--group-by", "lambda")
    whole = "No two rows differ significantly (all p >= 0.05); two-sided Welch test of the validation accuracy, "
    assert f"{whole}corrected by Holm for 6 comparisons." in here(*groups).stdout
    p = 6 * stats.ttest_ind(*samples[:2], equal_var=False).pvalue
    cut, words = here(*groups, "--limit", "2").stdout, "two-sided Welch test of the validation accuracy"
    assert f"(p >= 0.05): rows 1 and 2 (p {p:.3g}); {words}, corrected by Holm for 6 comparisons." in cut
    assert "Holm" not in here(*groups, "--limit", "1").stdout
    change(tmp_path, "UPDATE runs SET config = json_set(config, '$.eta_max', 0.2), eta_max = 0.2 WHERE id = 12")
    assert "Row 4 of the table mixes" in here(*groups).stdout
    cut = here(*groups, "--limit", "3").stdout
    assert "mixes" not in cut and f"rows 1 and 2 (p {p / 2:.3g}); {words}, corrected by Holm for 3" in cut


def test_formats_for_programs_have_the_number_of_every_run_of_a_group(here: Klcli, trained: Path, rows: Rows) -> None:
    [one, *_] = rows("runs")
    names = [row["name"] for row in read(trained, "SELECT name FROM pragma_table_info('runs')")]
    names = ", ".join(f'"{name}"' for name in names if name not in ("id", "identity", "config", "seed"))
    for number in range(10, 40, 2):
        config = json.dumps(json.loads(one["config"]) | {"seed": number})
        change(trained, f"INSERT INTO runs (id, config, seed, {names}) SELECT {number}, ?, {number}, {names} FROM runs"
               " WHERE id = 1", values=[config])  # fmt: skip
    view = ("report", "--group-by", "lambda", "--where", "id = 1 OR id > 9")
    expected = ", ".join(map(str, [1, *range(10, 40, 2)]))
    assert expected not in here(*view).stdout and "and 8 more" in here(*view).stdout
    [row] = csv.DictReader(io.StringIO(here(*view, "--format", "csv").stdout))
    [same] = json.loads(here(*view, "--format", "json").stdout)["rows"]
    [again] = json.loads(here(*view, "--json").stdout)["groups"]
    assert row["runs"] == same["runs"] == again["runs"] == expected


@pytest.mark.parametrize(
    "args",
    [[], ["--list"], ["--run", "1", "2", "3"], ["--group-by", "bn"], ["--run", "1"],
     ["--run", "1", "--plot", "curves", "rate"], ["--run", "1", "3", "--plot", "curves"],
     ["--run", "1", "2", "3", "--plot", "curves"]],
)  # fmt: skip
def test_runs_that_did_not_complete_break_nothing(
    here: Klcli, mixed: Path, request: pytest.FixtureRequest, args: list[str]
) -> None:
    for form in ("table", "markdown", "latex", "csv", "json"):
        succeeded(here("report", *args, "--format", form))
        if "--plot" in args:
            break
    request.getfixturevalue("unrendered")  # --json has the same pictures
    assert here("report", *args, "--json").returncode == 0


def test_a_picture_that_needs_a_checkpoint_says_so(here: Klcli, mixed: Path, refused: Refused) -> None:
    refused(here("report", "--run", "1", "--plot", "weights"), 4, "run 1", "no checkpoint")


@pytest.mark.slow
def test_pictures_are_written_under_names_that_sort(here: Klcli, trained: Path) -> None:
    done = succeeded(here("report", "--run", "1", "2", "--plot", "curves", "weights", "--quiet"))
    plots = trained / "results/plots"
    for name in ("run-000001-000002-curves", "run-000001-weights", "run-000002-weights"):
        assert (plots / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert f"results/plots/{name}.png" in done.stdout
    assert here("report", "--plot", "confusion", "--to", "c.svg").returncode == 0
    assert "<svg" in (trained / "c.svg").read_text()
    assert here("report", "--plot", "curves", "--to", "deep/c.pdf").returncode == 0
    assert (trained / "deep/c.pdf").read_bytes()[:5] == b"%PDF-"
    first = (trained / "c.svg").read_bytes()
    assert here("report", "--plot", "confusion", "--to", "c.svg").returncode == 0
    assert (trained / "c.svg").read_bytes() == first


@pytest.mark.parametrize("split", mostly_slow(["test", "validation", "train"], 3))
def test_a_confusion_has_the_accuracy_of_the_run(here: Klcli, rows: Rows, split: str) -> None:
    training = ["train", "--hidden", "8", "--bn", "--bn-statistics", "batch", "--bn-momentum", "0.99", "--epochs", "1"]
    assert here(*training, "--data", "synthetic", "--subset", "500").returncode == 0
    [run] = rows("runs")
    assert here("report", "--plot", "confusion", "--split", split, "--to", "c.svg").returncode == 0
    caption = " ".join(re.findall("<!-- (.*?) -->", Path("c.svg").read_text()))
    assert f"{split} images, accuracy {run[f'{split}_accuracy']:.4f}" in caption


@pytest.mark.parametrize("args", [["--list"], ["--group-by", "bn"], ["--html", "x.html"]])
def test_an_empty_database(here: Klcli, trained: Path, args: list[str]) -> None:
    change(trained, "DELETE FROM epochs", "DELETE FROM runs")
    done = succeeded(here("report", *args))
    assert "klcli train --hidden 50 30 20 --bn" in done.stdout


@pytest.mark.parametrize("name", ["x" * 300, ".", "file/x"])
@pytest.mark.parametrize(
    "command", ["report --html", "reproduce a3-2021 --markdown", "assignment --dry-run --data synthetic"]
)
def test_a_name_that_no_file_can_have_is_refused(
    here: Klcli, refused: Refused, tmp_path: Path, command: str, name: str
) -> None:
    (tmp_path / "file").touch()
    refused(here(*command.split(), name), 2, name)


@pytest.mark.parametrize("args", [["report", "--list"], ["report", "--html", "x.html"], ["runs", "check"]])
def test_a_database_that_cannot_be_used(here: Klcli, trained: Path, refused: Refused, args: list[str]) -> None:
    refused(here(*args, "--db", "elsewhere.db"), 4, "elsewhere.db")
    change(trained, "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('klcli', 'm999', 'now')")
    refused(here(*args), 4, "newer klcli")
    (trained / "results/klcli.db").rename(trained / "other.db")
    (trained / "other.db").write_bytes(b"no database at all, but long enough to be read as one" * 100)
    refused(here(*args, "--db", "other.db"), 4, "other.db", "not an SQLite database")


def test_the_runs_that_means_over_seeds_lack_because_they_diverged_are_named(
    here: Klcli, trained: Path, unrendered: None
) -> None:
    """The mean of the others favours a setting with which some seeds diverge."""
    here("report", "--html", "page.html")
    assert "Not included" not in here("report", "--group-by", "bn").stdout + (trained / "page.html").read_text()
    change(trained, "UPDATE runs SET state = 'diverged' WHERE id = 2")
    assert "\nNot included: run 2 (diverged).\n" in here("report", "--group-by", "bn").stdout
    assert "Not included" not in here("report", "--group-by", "bn", "--where", "id <> 2").stdout
    change(trained, "UPDATE runs SET lambda = 0, epochs = 1, seed = id, config = (SELECT json_set(config, '$.seed', id)"
           " FROM runs AS one WHERE one.id = 3) WHERE id = 1")  # fmt: skip
    here("report", "--html", "page.html")
    assert "Not included: run 2 (diverged)." in (trained / "page.html").read_text()


@pytest.mark.usefixtures("unrendered")
def test_a_json_document_has_the_lines_below_its_table(here: Klcli, trained: Path) -> None:
    """A program got accuracies that cannot be compared, and means without runs, and no word of it."""
    small = ("--subset", "200", "--hidden", "5", "--epochs", "0", "--jobs", "1", "--quiet", "--repeats", "2")
    tiny = ("--data", "synthetic", *small)
    train, search, sweep = "train", "search-lambda --values 0.1 --final", "sigma-sweep --sigmas 1"
    for command in (train, search, sweep):  # studies 1, 2 and 3, 4
        succeeded(here(*command.split(), *tiny))
    succeeded(here("gradcheck", "--hidden", "5", "--data", "synthetic"))
    change(trained, "UPDATE runs SET config = json_set(config, '$.split.subset', 900) WHERE id = 1",
           "UPDATE runs SET state = 'diverged' WHERE id = 2 OR study_id IS NOT NULL AND member = 1",
           "UPDATE runs SET config = json_set(config, '$.colour', 'red') WHERE id = 3")  # fmt: skip
    said = {
        "--run 1-2": "These runs saw different images: their accuracies cannot be compared.",
        "--group-by bn --where id<4": "left out: ",
        "--best 9": "left out: ",
        "--list --limit 1": "Only the newest 1 of ",
        "--list --tagged x": "no run matches these filters",
        "--study 1": "Not included: run 5 (diverged).",
        "--study 2": "chosen lambda 0.1",
        "--study 3": "Not included: run 9 (diverged).",
        "--study 4": "Not included: run 11 (diverged).",
        "--gradchecks": "centred differences with h 1e-05",
    }
    for view, words in said.items():
        shown = here("report", *view.split()).stdout.splitlines()
        notes = json.loads(here("report", *view.split(), "--json").stdout)["notes"]
        assert [line for line in notes if line in shown] == notes and words in "".join(notes), view
    for command, run in ((f"{train} --resume last", 5), (f"{search} --resume", 9), (f"{sweep} --resume", 11)):
        document = json.loads(here(*command.split(), *tiny, "--json").stdout)
        assert f"Not included: run {run} (diverged)." in document["notes"]


@pytest.mark.parametrize("schedule", mostly_slow(["cyclical", "range"], 2))
def test_each_picture_of_an_unfinished_run_says_so(here: Klcli, tmp_path: Path, schedule: str) -> None:
    def interrupt(one: EpochMetrics) -> None:
        if one.epoch == 2:
            raise Interrupted("interrupted", signal.SIGINT)

    split = SplitConfig(subset=500)
    config = TrainConfig(hidden=(8,), batch_norm=True, bn_statistics="adaptive", split=split, schedule=schedule)
    with pytest.raises(Interrupted):
        Lab(tmp_path / "results/klcli.db", data="synthetic").train(config, on_evaluation=interrupt)
    for kind in ("training", "rate", "weights", "confusion"):
        succeeded(here("report", "--run", "1", "--plot", kind, "--to", "c.svg"))
        words = " ".join(re.findall("<!-- (.*?) -->", Path("c.svg").read_text()))
        assert "not complete: run 1 (interrupted)" in words, kind
    assert "adaptive" not in words  # the confusion: statistics of the test images are drawn after the last update
