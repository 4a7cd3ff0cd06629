"""Tables of studies: every number under its own title, means by hand, and no number from a diverged run."""

import json
import math
from dataclasses import asdict
from typing import Any

import pytest
import records
from scipy import stats

from klcli.procedures.searches import LambdaSearch, tried_values
from klcli.report.tables.studies import cell, choice_sentence, interval_table, repeats_table, search_table, sigma_table
from klcli.report.tables.table import Table
from klcli.settings.split_config import SplitConfig
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Run
from klcli.studies.lambda_search import Choice, Tried, choose

SPLITS, MEASURES = ("train", "validation", "test"), ("accuracy", "loss", "cost")


def run(
    number: int, validation: float | None = None, lam: float = 0.01, sigma: float = 0.1, bn: bool = False, **values: Any
) -> Run:
    """A run whose nine numbers all differ: validation accuracy v, the others v plus 0.01, 0.02, ..."""
    numbers = [(split, name) for split in SPLITS for name in MEASURES]
    metrics = {
        f"{split}_{name}": None if validation is None else round(validation + 0.01 * (index - 3), 6)
        for index, (split, name) in enumerate(numbers)
    }
    config = TrainConfig(lam=lam, batch_norm=bn, initializer="normal", sigma=sigma)
    return records.run(number, config, **metrics | values)


def printed(table: Table, *keys: str) -> list[tuple[str, ...]]:
    places = [next(i for i, column in enumerate(table.columns) if column.key == key) for key in keys]
    return [tuple(cells[place] for place in places) for cells in table.cells()]


# --- cells


def test_a_cell_is_a_mean_with_its_spread_over_complete_runs() -> None:
    runs = [run(1, 0.50), run(2, 0.54), run(3, 0.99, state="diverged"), run(4)]
    found = cell(runs, "validation_accuracy")
    assert found is not None
    assert (found.value, found.more["n"]) == (pytest.approx(0.52), 2)
    assert found.more["std"] == pytest.approx(0.04 / math.sqrt(2))
    low, high = stats.t.interval(0.95, 1, loc=0.52, scale=0.02)
    assert found.more["half_interval"] == pytest.approx((high - low) / 2)
    assert str(found) == "0.5200 ± 0.0283"


def test_a_cell_of_a_single_run_has_no_spread() -> None:
    assert str(cell([run(1, 0.5)], "test_accuracy")) == "0.5300"
    assert cell([run(1), run(2, 0.5, state="interrupted")], "validation_accuracy") is None


def test_a_loss_on_its_way_to_infinity_does_not_widen_the_table() -> None:
    assert str(cell([run(1, 0.5, train_loss=1.2345678e22)], "train_loss")) == "1.235e+22"
    assert str(cell([run(1, 0.5, train_loss=99999.0)], "train_loss")) == "99999.0000"


# --- the search

COARSE = [
    run(1, 0.50, lam=0.001),
    run(2, 0.54, lam=0.001),
    run(3, 0.55, lam=0.01),
    run(4, 0.90, lam=0.01, state="diverged"),
    run(5, lam=0.1, state="diverged"),
    run(6, lam=0.1, state="diverged"),
]
FINE = [run(7, 0.53, lam=0.002), run(8, 0.53, lam=0.002)]
STAGES = [("coarse", COARSE), ("fine", FINE)]


def tried() -> list[Tried]:
    return [one for stage, runs in STAGES for one in tried_values(runs, stage)]


def test_what_was_tried_are_the_complete_repeats_of_every_lambda() -> None:
    assert tried() == [
        Tried(0.001, "coarse", (0.50, 0.54)),
        Tried(0.01, "coarse", (0.55,), diverged=1),
        Tried(0.1, "coarse", (), diverged=2),
        Tried(0.002, "fine", (0.53, 0.53)),
    ]


def test_the_search_is_sorted_as_the_choice_and_says_what_became_of_every_value() -> None:
    table = search_table(LambdaSearch(STAGES, choose(tried(), 5000)))
    assert printed(table, "lambda", "stage", "validation_accuracy", "n", "runs", "remark") == [
        ("0.002", "fine", "0.5300 ± 0.0000", "2", "7, 8", "chosen"),
        ("0.001", "coarse", "0.5200 ± 0.0283", "2", "1, 2", ""),
        ("0.01", "coarse", "0.5500", "1", "3, 4", "1 of 2 diverged"),
        ("0.1", "coarse", "-", "0", "5, 6", "diverged"),
    ]
    assert printed(table, "train_accuracy", "validation_loss", "validation_cost")[2] == ("0.5200", "0.5600", "0.5700")
    assert printed(table, "half")[1] == (f"{stats.t.ppf(0.975, 1) * 0.02:.4f}",)


def test_a_value_without_a_result_comes_last_whatever_became_of_it() -> None:
    states = {0.1: "diverged", 0.2: "interrupted", 0.3: "running", 0.4: "diverged"}
    unfinished = [run(n, lam=lam, state=state) for n, (lam, state) in enumerate(states.items(), start=1)]
    lucky = [run(7, 0.9, lam=0.01), run(8, lam=0.01, state="diverged")]
    table = search_table(LambdaSearch([("coarse", [*unfinished, *lucky, run(9, 0.2, lam=0.02)])], None))
    assert [row[0] for row in printed(table, "lambda")] == ["0.02", "0.01", "0.1", "0.2", "0.3", "0.4"]


def test_a_search_without_repeats_has_no_columns_for_them() -> None:
    table = search_table(LambdaSearch([("coarse", [run(1, 0.5, lam=0.1), run(2, 0.4)])], None))
    assert {"n", "half"}.isdisjoint(column.key for column in table.columns)
    assert printed(table, "validation_accuracy", "remark") == [("0.5000", ""), ("0.4000", "")]


def test_the_plateau_is_marked_with_its_stage() -> None:
    """The same lambda in two stages is two rows."""
    stages = [("coarse", [run(1, 0.500)]), ("fine", [run(2, 0.499), run(3, 0.3, lam=0.1)])]
    values = [one for stage, runs in stages for one in tried_values(runs, stage)]
    table = search_table(LambdaSearch(stages, choose(values, 5000)))
    assert printed(table, "stage", "remark") == [("coarse", "chosen"), ("fine", "in 1 s.e."), ("fine", "")]


def test_the_sentence_of_the_choice() -> None:
    alone = choose([Tried(0.01, "coarse", (0.5,)), Tried(0.1, "coarse", (0.2,))], 2500)
    assert choice_sentence(alone) == (
        "chosen lambda 0.01, validation 0.5000; no other within one standard error (0.0100)"
    )
    values = [Tried(lam, "coarse", (accuracy,)) for lam, accuracy in ((1e-3, 0.495), (2e-3, 0.5), (8e-3, 0.492))]
    assert choice_sentence(choose(values, 2500)) == (
        "chosen lambda 0.002, validation 0.5000; 2 more within one standard error (0.0100), from 0.001 to 0.008"
    )


def test_titles_name_network_images_and_studies() -> None:
    config = TrainConfig(batch_norm=True)
    stages = [(stage, [records.run(study, config, study_id=study)]) for stage, study in (("coarse", 1), ("fine", 2))]
    images = "cifar10, 45000 images train, 5000 validate"
    assert search_table(LambdaSearch(stages, None)).title == (
        f"Lambda search: 3-layer 50-50 with BN on {images}, by validation accuracy, "
        "with validation loss and cost, and train accuracy (studies 1, 2)"
    )
    sweep = [
        records.run(number, TrainConfig(batch_norm=bn, bn_statistics="adaptive"), study_id=3)
        for number, bn in enumerate((False, True), start=1)
    ]
    assert sigma_table(sweep).title == (
        f"Sigma sweep: 3-layer 50-50 without and with BN (adaptive statistics, transductive) on {images} (study 3)"
    )
    assert sigma_table(sweep[:1]).title == f"Sigma sweep: 3-layer 50-50 on {images} (study 3)"


def test_titles_name_the_split_seeds_of_all_repeats() -> None:
    drawn = [records.run(n, TrainConfig(seed=n, split=SplitConfig(split_seed=n)), study_id=1) for n in (4, 5, 6)]
    for table in (search_table(LambdaSearch([("coarse", drawn)], None)), sigma_table(drawn)):
        assert "45000 images train, 5000 validate (drawn with split seeds 4 to 6)" in table.title


def test_the_choice_as_a_document() -> None:
    choice = choose(tried(), 5000)
    document = json.loads(json.dumps(asdict(choice), allow_nan=False))
    assert document["chosen"] == {"lam": 0.002, "stage": "fine", "accuracies": [0.53, 0.53], "diverged": 0}
    assert document["standard_error"] == choice.standard_error
    assert isinstance(choice, Choice)


# --- the sweep


def sweep() -> list[Run]:
    return [
        run(1, 0.10, sigma=0.1), run(2, 0.12, sigma=0.1),
        run(3, 0.50, sigma=0.1, bn=True), run(4, 0.54, sigma=0.1, bn=True),
        run(5, 0.20, sigma=1e-4, state="diverged"), run(6, 0.30, sigma=1e-4, bn=True),
    ]  # fmt: skip


def test_with_bn_stands_next_to_without() -> None:
    table = sigma_table(sweep())
    assert [column.title for column in table.columns] == [
        "sigma", "split", "accuracy", "with BN", "loss", "with BN", "cost", "with BN",
    ]  # fmt: skip
    cells = table.cells()
    assert [tuple(row[:2]) for row in cells] == [(s, split) for s in ("0.1", "0.0001") for split in SPLITS]
    std = ("± 0.0141", "± 0.0283")
    assert cells[1][2:] == [
        f"0.1100 {std[0]}", f"0.5200 {std[1]}", f"0.1200 {std[0]}", f"0.5300 {std[1]}", f"0.1300 {std[0]}",
        f"0.5400 {std[1]}",
    ]  # fmt: skip
    assert cells[5][2:] == ["diverged", "0.3300", "diverged", "0.3400", "diverged", "0.3500"]


def test_the_intervals_of_a_sweep() -> None:
    table = interval_table(sweep())
    rows = printed(table, "sigma", "bn", "n", "mean", "std", "low", "high")
    low, high = stats.t.interval(0.95, 1, loc=0.14, scale=0.01)
    assert rows[0] == ("0.1", "no", "2", "0.1400", "0.0141", f"{low:.4f}", f"{high:.4f}")
    assert rows[2] == ("0.0001", "no", "0", "-", "-", "-", "-")
    assert rows[3] == ("0.0001", "yes", "1", "0.3300", "-", "-", "-")


# --- repeats


def test_repeats_by_split_and_measure() -> None:
    values = (0.50, 0.51, 0.55)
    table = repeats_table("a title", [run(i, value) for i, value in enumerate(values)])
    rows = {cells[:2]: cells[2:] for cells in printed(table, "split", "measure", "mean", "std", "n", "low", "high")}
    assert len(rows) == 9
    for index, key in enumerate((split, name) for split in SPLITS for name in MEASURES):
        moved = [value + 0.01 * (index - 3) for value in values]
        mean, std = sum(moved) / 3, stats.tstd(moved)
        low, high = stats.t.interval(0.95, 2, loc=mean, scale=std / math.sqrt(3))
        assert rows[key] == (f"{mean:.4f}", f"{std:.4f}", "3", f"{low:.4f}", f"{high:.4f}")


def test_repeats_without_a_result_are_dashes() -> None:
    assert repeats_table("a title", []).cells()[0][2:] == ["-", "-", "0", "-", "-"]
