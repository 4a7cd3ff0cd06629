"""`klcli sigma-sweep`: every sigma without and with BN, side by side."""

import json
import math
import re
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from command import Klcli, Refused, Rows, cells, succeeded

pytestmark = pytest.mark.usefixtures("unrendered")


TINY = ("--data", "synthetic", "--subset", "300", "--step-size", "3", "--cycles", "1")
SWEEP = ("sigma-sweep", *TINY, "--jobs", "1", "--hidden", "20")
MEASURES = ("accuracy", "loss", "cost")


def table(done: "CompletedProcess[str]") -> dict[tuple[str, str], list[str]]:
    """The cells by sigma and split."""
    assert re.search(r"^ *sigma +split +accuracy +with BN +loss +with BN +cost +with BN *$", done.stdout, re.MULTILINE)
    return {(sigma, split): values for sigma, split, *values in cells(done)}


@pytest.mark.slow
def test_the_sweep_as_a_person_calls_it(klcli: Klcli, rows: Rows, tmp_path: Path) -> None:
    done = succeeded(klcli("sigma-sweep", *TINY, "--jobs", "2"))
    runs = rows("runs")
    assert {(run["sigma"], run["batch_norm"]) for run in runs} == {
        (sigma, bn) for sigma in (1e-1, 1e-3, 1e-4) for bn in (0, 1)
    }
    assert {(run["state"], run["hidden"], run["initializer"]) for run in runs} == {("complete", "50 50", "normal")}
    printed = table(done)
    assert len(printed) == 9
    for (sigma, split), values in printed.items():
        pair = [next(r for r in runs if r["sigma"] == float(sigma) and r["batch_norm"] == bn) for bn in (0, 1)]
        assert values == [f"{run[f'{split}_{name}']:.4f}" for name in MEASURES for run in pair]
    assert (tmp_path / "results/plots/study-000001-sigma.png").read_bytes()[:4] == b"\x89PNG"
    assert "3-layer 50-50" in done.stdout


def test_without_bn_a_tiny_sigma_learns_nothing_and_the_database_shows_it(here: Klcli, rows: Rows) -> None:
    """Chance: a loss of ln 10, whatever the seed."""
    assert here(*SWEEP, "--sigmas", "1e-4", "--hidden", "20", "20", "20").returncode == 0
    [without, _] = rows("runs")
    assert without["validation_loss"] == pytest.approx(math.log(10), abs=2e-3)


def test_a_sigma_that_float32_does_not_have_is_named(here: Klcli) -> None:
    done = succeeded(here(*SWEEP, "--sigmas", "0.1", "1e-300"))
    warning = "--sigma 1e-300 is 0 in float32, give a larger one, or --dtype float64"
    assert done.stderr.splitlines().count(warning) == 1
    alone = ("train", *TINY, "--init", "normal", "--sigma", "1e-300")
    assert warning in here(*alone).stderr.splitlines()
    assert "in float32" not in here(*alone, "--dtype", "float64").stderr


def test_sigmas_and_repeats(here: Klcli, rows: Rows) -> None:
    done = succeeded(here(*SWEEP, "--sigmas", "0.1,0.01", "0.1", "--repeats", "3", "--seed", "2", "--bn-eps", "1e-5"))
    runs = rows("runs")
    assert len(runs) == 12
    assert {run["seed"] for run in runs} == {2, 3, 4}
    assert {json.loads(run["config"])["bn_eps"] for run in runs} == {1e-5}
    accuracies = [run["test_accuracy"] for run in runs if run["sigma"] == 0.1 and run["batch_norm"]]
    mean = sum(accuracies) / 3
    std = math.sqrt(sum((value - mean) ** 2 for value in accuracies) / 2)
    assert table(done)["0.1", "test"][1] == f"{mean:.4f} ± {std:.4f}"
    half = 4.3027 * std / math.sqrt(3)  # Student's t of 2 degrees of freedom
    [line] = [line for line in done.stdout.splitlines() if re.match(r"\s*0\.1\s+yes", line)]
    assert [float(text) for text in line.split()[2:]] == pytest.approx(
        [mean, std, 3, mean - half, mean + half], abs=2e-4
    )


def test_a_repeated_sweep_is_shown_again_with_its_intervals(here: Klcli) -> None:
    done = succeeded(here(*SWEEP, "--sigmas", "0.1,0.01", "--repeats", "2"))
    title = "Test accuracy over the repeats, with the 95 % interval of its mean"
    shown, _, _ = done.stdout.partition("database ")
    assert title in shown
    assert succeeded(here("report", "--study", "1")).stdout == shown
    assert len(cells(here("report", "--study", "1", "--limit", "3"))) == 3
    for form, begin in (("markdown", "\n**"), ("latex", r"\caption{")):
        text = "\n" + succeeded(here("report", "--study", "1", "--format", form)).stdout
        _, sweep, intervals = text.split(begin)
        assert sweep.startswith("Sigma sweep") and intervals.startswith("Test accuracy over the repeats")
        assert "Standard deviations (std" in intervals and "Standard deviations (std" not in sweep
    succeeded(here("report", "--html", "page.html"))
    assert title in Path("page.html").read_text()
    succeeded(here(*SWEEP, "--sigmas", "0.1"))
    assert title not in here("report", "--study", "2").stdout


def test_the_json_document(here: Klcli, rows: Rows) -> None:
    document = json.loads(here(*SWEEP, "--sigmas", "0.1", "--json").stdout)
    assert (document["schema"], document["command"], document["study"]) == (2, "sigma-sweep", 1)
    assert [run["test_loss"] for run in document["runs"]] == [run["test_loss"] for run in rows("runs")]
    assert document["runs"][0]["config"]["sigma"] == 0.1


def test_a_sweep_that_diverges_is_a_table_that_says_so(here: Klcli, rows: Rows) -> None:
    done = here(*SWEEP, "--sigmas", "0.1", "--eta-max", "1e30")
    assert done.returncode == 6
    assert {run["state"] for run in rows("runs")} == {"diverged"}
    assert all(set(values) == {"diverged"} for values in table(done).values())
    line = "klcli: every network of the sweep diverged: try a smaller --eta-max than 1e+30"
    assert done.stderr.splitlines()[-1] == line
    again = here(*SWEEP, "--sigmas", "0.1", "--eta-max", "1e30", "--resume", "--json")
    assert (again.returncode, len(json.loads(again.stdout)["runs"])) == (6, 2)
    succeeded(here(*SWEEP, "--sigmas", "0.1", "1e30"))  # one of the two has a result


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--sigmas", "-1"], ["--sigmas -1"]),
        (["--sigmas", "0"], ["--sigmas 0"]),
        (["--sigmas", "0.1", "small"], ["'small'"]),
        (["--sigmas"], ["--sigmas"]),
        (["--repeats", "0"], ["--repeats 0"]),
        (["--jobs", "0"], ["--jobs", "0"]),
        (["--bn"], ["--bn"]),
        (["--executor", "nonsense"], ["--executor nonsense"]),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_value(
    here: Klcli, refused: Refused, options: list[str], named: list[str]
) -> None:
    refused(here("sigma-sweep", *TINY, "--quiet", *options), 2, *named)
