"""Tables: all digits of the format, a dash for a missing value, and no truncated cell."""

import json
from typing import Any

import pytest
import records
from records import printed

from klcli.report.tables.runs import comparison_table, list_table, ranking_table, splits_table, summary_table
from klcli.report.tables.table import Column, Table, duration, fraction, signed, significant
from klcli.report.words import network_name
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Evaluation, ImageSet, Run


def run(id: int = 12, settings: dict[str, Any] | None = None, **values: Any) -> Run:
    """A complete run as the store gives it back."""
    usual = {
        "epochs_done": 20.0, "seconds": 24.31,
        "train_loss": 1.23456, "train_cost": 1.5, "train_accuracy": 0.61234,
        "validation_loss": 1.4, "validation_cost": 1.6, "validation_accuracy": 0.5412,
    }  # fmt: skip
    network: dict[str, Any] = {"hidden": (50, 30, 20), "batch_norm": True, "seed": 7}
    return records.run(id, TrainConfig(**network | (settings or {})), **usual | values)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"hidden": (50, 30, 20)}, "4-layer 50-30-20"),
        ({"hidden": (50,)}, "2-layer 50"),
        ({"batch_norm": True}, "3-layer 50-50 with BN"),
        ({"batch_norm": True, "bn_position": "after"}, "3-layer 50-50 with BN after ReLU"),
        ({"activation": "silu"}, "3-layer 50-50 SiLU"),
        ({"activation": "silu", "batch_norm": True, "bn_position": "after"}, "3-layer 50-50 SiLU with BN after SiLU"),
        ({"hidden": (50,), "batch_norm": True, "bn_statistics": "precise"}, "2-layer 50 with BN (precise statistics)"),
        (
            {"hidden": (50,), "batch_norm": True, "bn_position": "after", "bn_statistics": "adaptive"},
            "2-layer 50 with BN after ReLU (adaptive statistics, transductive)",
        ),
    ],
)
def test_the_name_of_a_network_counts_its_linear_layers(settings: dict[str, Any], name: str) -> None:
    assert network_name(TrainConfig(**settings)) == name


def test_numbers_keep_the_digits_that_were_promised() -> None:
    assert fraction(0.5) == "0.5000"
    assert fraction(0.54125001) == "0.5413"
    assert significant(1e-4) == "0.0001"
    assert significant(0.0031234567) == "0.003123"
    assert significant(1.2345678e-9) == "1.235e-09"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04, "0.0 s"),
        (24.31, "24.3 s"),
        (59.96, "1 min 0 s"),
        (725.4, "12 min 5 s"),
        (3599.6, "1 h 0 min"),
        (7384, "2 h 3 min"),
    ],
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
    normal = {"initializer": "normal", "sigma": 1e-4, "batch_norm": False}
    runs = [run(), run(3, normal, test_accuracy=0.53, epochs_done=2.5)]
    table = ranking_table(runs, "validation_accuracy")
    assert "cifar10" in table.title
    assert [column.title for column in table.columns] == [
        "run", "network", "lambda", "init", "seed", "epochs", "train", "validation", "test", "seconds", "sigma",
    ]  # fmt: skip
    assert table.cells() == [
        ["12", "4-layer 50-30-20 with BN", "0.005", "he", "7", "20", "0.6123", "0.5412", "-", "24.3", "-"],
        ["3", "4-layer 50-30-20", "0.005", "normal", "7", "2.5", "0.6123", "0.5412", "0.5300", "24.3", "0.0001"],
    ]


def test_the_ranking_names_the_settings_that_have_no_column() -> None:
    adam = {"optimizer": "adam", "eta_max": 0.001, "schedule": "one-cycle", "flip": True, "bn_eps": 1e-5}
    orders = [run(4, {"order_seed": 7}), run(5, {"order_seed": 0})]
    table = ranking_table([run(), run(3, adam), *orders, run(6, {"activation": "silu"})], "id")
    assert table.columns[-1].title == "settings"
    assert [cells[-1] for cells in table.cells()] == [
        "-", "BN eps 1e-05, optimizer adam, schedule one-cycle, eta max 0.001, flips", "-", "order seed 0",
        "-",  # the name of the network says it: 4-layer 50-30-20 SiLU with BN
    ]  # fmt: skip


def test_a_run_on_a_subset_is_named_as_such() -> None:
    small = run(3, {"split": SplitConfig(subset=4500)})
    images = [dict(zip([c.key for c in list_table([], "").columns], cells, strict=False))["dataset"]
              for cells in list_table([run(), small], "Runs").cells()]  # fmt: skip
    assert images == ["cifar10", "cifar10, 4500 images train, 500 validate, 1000 test (subset of 4500)"]
    assert "subset of 4500" in ranking_table([small], "id").title
    found = ImageSet(dataset="cifar10", dataset_sha256="a" * 64, split_json=small.split_json, runs=2, latest=3)
    [cells] = summary_table([found], [small]).cells()
    assert cells == [
        "cifar10, 4500 images train, 500 validate, 1000 test (subset of 4500)",
        "2",
        "3",
        "4-layer 50-30-20 with BN",
        "0.5412",
        "-",
    ]
    assert dict(row[:2] for row in comparison_table([small], False).cells())["split"] == (
        "4500 train, 500 validate, 1000 test"
    )


def test_side_by_side_has_every_setting_the_results_and_later_evaluations() -> None:
    later = {"bn_samples": None, "snapshots": False, "flips": True, "shifts": 0, "seed": None, "transductive": False}
    one = Evaluation(
        id=1, created_at="", command="", bn_statistics="precise", validation_loss=1.0, validation_accuracy=0.55,
        test_loss=1.0, test_accuracy=0.54, seconds=1.0, runs=[3], **later,
    )  # fmt: skip
    table = comparison_table([run(), run(3, {"lam": 0.1, "batch_size": 50}, state="diverged")], False, [one])
    rows = {cells[0]: tuple(cells[1:]) for cells in table.cells()}
    assert len(rows) == len(table.rows)  # no title twice
    assert rows["lambda"] == ("0.005", "0.1")
    assert rows["hidden"] == ("50 30 20", "50 30 20")
    assert rows["BN"] == ("yes", "yes")
    assert rows["n_s"] == ("2250", "4500")  # 5 epochs of 45 000 images
    assert rows["evaluations per cycle"] == ("-", "-")
    assert rows["validation accuracy"] == ("0.5412", "0.5412")
    assert rows["test accuracy, precise statistics, flips"] == ("-", "0.5400")
    [huge] = [
        cells for cells in comparison_table([run(train_loss=9.645e13)], False).cells() if cells[0] == "train loss"
    ]
    assert huge[1] == "9.645e+13"
    differing = comparison_table([run(), run(3, {"lam": 0.1, "batch_size": 50}, state="diverged")], diff_only=True)
    assert [cells[0] for cells in differing.cells()] == ["lambda", "n_s", "n_batch", "state"]


def test_versions_side_by_side_are_those_that_changed_each_with_its_epoch() -> None:
    first = {"engine": "numba 0.68.1", "numpy": "2.4.6", "blas": "openblas 0.3.31 Haswell"}
    kernel = first | {"blas": "openblas 0.3.31 SkylakeX"}
    later = [{"epoch": 2.0} | kernel, {"epoch": 5.5} | kernel | {"engine": "NumPy"}]
    runs = [run(1, versions_json=json.dumps(first)), run(2, versions_json=json.dumps(first | {"later": later}))]
    rows = {title: values for title, *values in comparison_table(runs, diff_only=False).cells()}
    assert rows["engine"] == ["numba 0.68.1", "numba 0.68.1, after epoch 5.5 NumPy"]
    assert rows["BLAS"] == [
        "openblas 0.3.31 Haswell",
        "openblas 0.3.31 Haswell, after epoch 2 openblas 0.3.31 SkylakeX",
    ]
    assert rows["NumPy"] == ["2.4.6", "2.4.6"]
    assert {"engine", "BLAS"} == {title for title, *_ in comparison_table(runs, diff_only=True).cells()}
    old = comparison_table([run(versions_json=json.dumps({"numpy": "2.4.6", "later": later}))], diff_only=False)
    assert dict(row[:2] for row in old.cells())["NumPy"] == "2.4.6"
    assert "engine" not in dict(row[:2] for row in old.cells())


def test_a_pipe_gets_one_line_per_row() -> None:
    table = ranking_table([run(i, {"hidden": (512,) * 9}) for i in range(100, 150)], "validation_accuracy")
    lines = printed(table, 10_000).splitlines()
    for cells in table.cells():
        [line] = [line for line in lines if line.split()[:1] == [cells[0]]]
        assert all(cell in line for cell in cells)


def test_an_empty_ranking_has_its_titles() -> None:
    text = printed(list_table([], "All runs"), 200)
    assert "All runs" in text
    assert "validation" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "+0.0123"), (-1.5, "-1.5000"), (-1e308, "-1e+308"), (3.25e7, "+3.25e+07"), (-4e-5, "0.0000")],
)
def test_a_difference_has_at_most_four_digits_of_a_huge_number(value: float, text: str) -> None:
    assert signed(value) == text
