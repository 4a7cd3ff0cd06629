"""Tables in narrow terminals: no word broken, no line beyond the edge, and every column shown or named."""

from typing import Any

import pytest
import records
from records import printed

from klcli.report.tables.reproductions import HEAD
from klcli.report.tables.runs import comparison_table, list_table, ranking_table
from klcli.report.tables.studies import sigma_table
from klcli.report.tables.table import Column, Table, columns
from klcli.report.tables.terminal import Block, fitted, least_width, wrapped
from klcli.settings.train_config import TrainConfig
from klcli.store.records import Run

DEEP = (50, 30, 20, 20, 10, 10, 10, 10)


def run(id: int, **settings: Any) -> Run:
    measures = {f"{split}_{name}": 0.1234 for split in ("train", "validation", "test") for name in ("loss", "accuracy")}
    return records.run(id, TrainConfig(**settings), **measures, note="a note of several words", seconds=24.31)


RUNS = [run(7, hidden=(50, 50)), run(8, hidden=DEEP, batch_norm=True, flip=True, optimizer="adam", eta_max=0.01)]
SWEEP = [
    run(i, initializer="normal", sigma=0.01, batch_norm=i % 2 == 0, seed=i // 2) for i in range(10, 14)
]  # two seeds: cells as 0.1234 ± 0.0000
LINE = {
    "row": "003-T2a", "what": "9 layers without BN, validation on whole batch files", "quantity": "validation accuracy",
    "published": "0.5295", "ours": "0.5301", "margin": "0.0042", "n": 10, "difference": "+0.06 points",
    "verdict": "cannot be compared", "why": "the report validates on other images than we do",
}  # fmt: skip
TABLES = {
    "ranking": ranking_table(RUNS, "validation_accuracy"),
    "list": list_table(RUNS, "Runs"),
    "side by side": comparison_table([*RUNS, run(9)], diff_only=False),
    "sigma": sigma_table(SWEEP),
    "reproduction": Table("a3-2024", HEAD, [LINE]),
}


@pytest.mark.parametrize("width", [66, 80, 100, 120, 200, 10_000])
@pytest.mark.parametrize("name", TABLES)
def test_no_word_is_broken_and_no_column_is_lost(name: str, width: int) -> None:
    table = TABLES[name]
    assert table is not None
    text = printed(table, width)
    assert max(map(len, text.splitlines())) <= width
    body, _, dropped = text.partition(f"not shown at {width} columns: ")
    named = " ".join(dropped.split()).partition(";")[0].split(", ")
    tokens = set(body.split())
    for column, *cells in zip(table.columns, *table.cells(), strict=True):
        if (column.title or column.key) not in named:
            assert {*column.title.split(), *(word for cell in cells for word in cell.split())} <= tokens, column
    assert not dropped or "| less -S" in " ".join(dropped.split())
    assert not dropped or width < 10_000


def test_what_matters_is_shown_at_80_columns_and_a_reproduction_at_120() -> None:
    for name, titles in {
        "ranking": "run network lambda validation test",
        "reproduction": "row published ours verdict",
    }.items():
        head = next(line for line in printed(TABLES[name], 80).splitlines() if titles.split()[0] in line.split())  # type: ignore[arg-type]
        assert set(titles.split()) <= set(head.split())
    wide = printed(TABLES["reproduction"], 120)  # type: ignore[arg-type]
    assert {"difference", "verdict", "published", "ours", "±"} <= set(wide.split())
    assert wide.count("003-T2a") == 1
    why = "as the code: decay of W1 halved, each split standardised by its own statistics; " * 2
    long = printed(Table("a2-2019", HEAD, [LINE | {"why": why}]), 120)
    assert len(long.splitlines()) <= 9  # a reason in a narrow column made a row of 13 lines


def test_columns_continue_below_with_their_keys_and_pairs_stay_together() -> None:
    head = columns("*sigma:; *split; accuracy:; &with:=with BN; loss:; &also:=with BN")
    row = {one.key: text for one, text in zip(head, ("1", "train", *["0.1234567"] * 4), strict=True)}
    table = Table("t", head, [row])
    heads = [line.split() for line in printed(table, 40).splitlines() if "sigma" in line]
    assert heads == [["sigma", "split", "accuracy", "with", "BN"], ["sigma", "split", "loss", "with", "BN"]]


def fit(columns: list[tuple[int, int, int]], room: int) -> tuple[list[Block], list[int]]:
    """What of columns, given by natural width, least width and rank, fits; the first one is the key."""
    natural, least, ranks = zip(*columns, strict=True)
    head = [Column(str(i), "", rank=rank, is_key=i == 0) for i, rank in enumerate(ranks)]
    return fitted(head, natural, least, room)


def test_the_highest_rank_goes_first_and_texts_get_narrow_before_rank_one_goes() -> None:
    key, text = (5, 5, 0), (30, 10, 0)
    optional = [(10, 10, rank) for rank in (1, 2, 2)]
    assert fit([key, text, *optional], 75) == ([{0: 5, 1: 30, 2: 10, 3: 10, 4: 10}], [])  # 65 and 5 gaps of 2
    assert fit([key, text, *optional], 74) == ([{0: 5, 1: 30, 2: 10, 3: 10}], [4])
    assert fit([key, text, *optional], 40) == ([{0: 5, 1: 19, 2: 10}], [3, 4])
    assert fit([key, text, *optional], 30) == ([{0: 5, 1: 21}], [2, 3, 4])


def test_a_column_dropped_in_vain_returns() -> None:
    assert fit([(5, 5, 0), (30, 30, 2), (5, 5, 2)], 20) == ([{0: 5, 2: 5}], [1])


def test_what_must_be_stacked_anyway_keeps_its_columns() -> None:
    wide = [(5, 5, 0), (20, 20, 0), (20, 20, 0), (4, 4, 1)]
    assert fit(wide, 40) == ([{0: 5, 1: 20}, {0: 5, 2: 20, 3: 4}], [])  # 7 + 22, and 22 or 6 more


def test_numbers_are_never_taken_apart() -> None:
    assert least_width([6, 1, 6], is_number=True) == 15  # 0.1234 ± 0.0056
    assert least_width([6, 1, 6], is_number=False) == 14
    assert least_width([5, 6, 3, 8, 7], is_number=True) == 8  # 45000 train, 5000 validate: a text


def test_a_sentence_wraps_between_words_and_a_path_stays_whole() -> None:
    assert wrapped("one-cycle and /a/very/long/path/of/a/file", 12) == "one-cycle\nand\n/a/very/long/path/of/a/file"
    assert (
        wrapped("it is lost: `klcli train --resume 2` continues", 16)
        == "it is lost:\n`klcli train --resume 2`\ncontinues"
    )
    assert wrapped("database    results/klcli.db", 80) == "database    results/klcli.db"
