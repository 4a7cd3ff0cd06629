"""Tables: every digit that was promised, a dash where nothing is known, and no cell ever cut."""

import io
from typing import Any

import pytest
from rich.console import Console

from klcli.report.tables.runs import list_table, ranking_table
from klcli.report.tables.table import (
    Column,
    Table,
    duration,
    fraction,
    network_name,
    seconds,
    significant,
    splits_table,
)


def run(**values: Any) -> dict[str, Any]:
    """A complete run as the store gives it back."""
    usual = {
        "id": 12, "hidden": "50 30 20", "batch_norm": 1, "bn_position": "before", "lambda": 0.005,
        "initializer": "he", "sigma": None, "seed": 7, "epochs_done": 20.0, "seconds": 24.31,
        "train_loss": 1.23456, "train_cost": 1.5, "train_accuracy": 0.61234,
        "validation_loss": 1.4, "validation_cost": 1.6, "validation_accuracy": 0.5412,
        "test_loss": None, "test_cost": None, "test_accuracy": None,
        "dataset": "cifar10", "schedule": "cyclical", "eta_min": 1e-5, "eta_max": 0.1, "step_size": 2250, "cycles": 2.0,
        "epochs": 20.0, "batch_size": 100, "optimizer": "sgd", "dtype": "float32", "threads": 1, "state": "complete",
        "study_id": None, "member": None, "note": None, "error": None, "split": "{}",
    }  # fmt: skip
    return usual | values


def rendered(table: Table, width: int) -> str:
    out = io.StringIO()
    table.show(Console(file=out, width=width, color_system=None))
    return out.getvalue()


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"hidden": "50 30 20", "batch_norm": 0, "bn_position": None}, "4-layer 50-30-20"),
        ({"hidden": "50", "batch_norm": 0, "bn_position": None}, "2-layer 50"),
        ({"hidden": "50 50", "batch_norm": 1, "bn_position": "before"}, "3-layer 50-50 with BN"),
        ({"hidden": "50 50", "batch_norm": 1, "bn_position": "after"}, "3-layer 50-50 with BN after ReLU"),
        (
            {"hidden": "50", "batch_norm": 1, "bn_position": "before", "bn_statistics": "precise"},
            "2-layer 50 with BN (precise statistics)",
        ),
        (
            {"hidden": "50", "batch_norm": 1, "bn_position": "after", "bn_statistics": "adaptive"},
            "2-layer 50 with BN after ReLU (adaptive statistics, transductive)",
        ),
    ],
)
def test_the_name_of_a_network_counts_its_linear_layers(row: dict[str, Any], name: str) -> None:
    assert network_name(row) == name


def test_numbers_keep_the_digits_that_were_promised() -> None:
    assert fraction(0.5) == "0.5000"
    assert fraction(0.54125001) == "0.5413"
    assert significant(1e-4) == "0.0001"
    assert significant(0.0031234567) == "0.003123"
    assert significant(1.2345678e-9) == "1.235e-09"
    assert seconds(24.31) == "24.3"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04, "0.0 s"), (24.31, "24.3 s"), (725.4, "12 min 5 s"), (3599.6, "1 h 0 min"), (7384, "2 h 3 min")],
)
def test_a_duration_is_said_as_a_person_says_it(value: float, text: str) -> None:
    assert duration(value) == text


def test_a_value_that_is_missing_is_a_dash_and_zero_is_not_missing() -> None:
    columns = (Column("a", "a", fraction), Column("b", "b"), Column("c", "c", is_number=False))
    table = Table("", columns, [{"a": None, "b": 0, "c": ""}, {"a": 0.0, "b": None}])
    assert table.cells() == [["-", "0", ""], ["0.0000", "-", "-"]]


def test_rows_keep_their_precision_until_they_are_shown() -> None:
    table = splits_table("Run 12", run())
    assert table.rows[0]["loss"] == 1.23456
    assert table.cells() == [
        ["train", "1.2346", "1.5000", "0.6123"],
        ["validation", "1.4000", "1.6000", "0.5412"],
        ["test", "-", "-", "-"],
    ]


def test_the_ranking_shows_what_tells_runs_apart() -> None:
    runs = [run(), run(id=3, initializer="normal", sigma=1e-4, test_accuracy=0.53, epochs_done=2.5, batch_norm=0)]
    table = ranking_table(runs, "validation_accuracy")
    assert "cifar10" in table.title
    assert [column.title for column in table.columns] == [
        "run", "network", "lambda", "init", "seed", "epochs", "train", "validation", "test", "seconds", "sigma",
    ]  # fmt: skip
    assert table.cells() == [
        ["12", "4-layer 50-30-20 with BN", "0.005", "he", "7", "20", "0.6123", "0.5412", "-", "24.3", "-"],
        ["3", "4-layer 50-30-20", "0.005", "normal", "7", "2.5", "0.6123", "0.5412", "0.5300", "24.3", "0.0001"],
    ]


@pytest.mark.parametrize("width", [10_000, 120, 60, 20])
def test_nothing_is_cut_however_narrow_the_terminal(width: int) -> None:
    deep = run(hidden=" ".join(["512"] * 9), seed=2**63 - 1)
    table = ranking_table([run(), deep], "validation_accuracy")
    text = rendered(table, width)
    assert "…" not in text
    for cells in table.cells():
        for cell in cells:
            assert cell in text


def test_a_pipe_gets_one_line_per_row() -> None:
    table = ranking_table([run(id=i, hidden=" ".join(["512"] * 9)) for i in range(100, 150)], "validation_accuracy")
    lines = rendered(table, 10_000).splitlines()
    for cells in table.cells():
        [line] = [line for line in lines if line.split()[:1] == [cells[0]]]
        assert all(cell in line for cell in cells)


def test_an_empty_ranking_has_its_titles() -> None:
    text = rendered(list_table([], "All runs"), 200)
    assert "All runs" in text
    assert "validation" in text
