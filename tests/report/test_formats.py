"""Formats: the same numbers everywhere, every digit in CSV and JSON, and no text interpreted as markup."""

import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from klcli.report.tables.formats import FORMATS, to_csv, to_json, to_latex, to_markdown
from klcli.report.tables.table import Column, Shown, Table, fraction, significant

AWKWARD = 'a|b & 50 % of $x_1$ #2 {~^} \\ <b>"bold"</b>\nnext'
ROWS = [
    {"id": 7, "validation_accuracy": 0.54123456789012345, "lambda": 1 / 300, "note": AWKWARD, "kept": 1},
    {"id": 12, "validation_accuracy": 0.1 + 0.2, "lambda": 1e-05, "note": None},
]
TABLE = Table(
    "Best runs, 100 % of them",
    (
        Column("id", "run"),
        Column("validation_accuracy", "validation", fraction),
        Column("lambda", "lambda", significant),
        Column("note", "note", is_number=False),
    ),
    ROWS,
)


def test_csv_reads_back_to_the_stored_values() -> None:
    found = list(csv.DictReader(io.StringIO(to_csv(TABLE))))
    assert list(found[0]) == ["id", "validation_accuracy", "lambda", "note"]
    for row, stored in zip(found, ROWS, strict=True):
        assert int(row["id"]) == stored["id"]
        assert float(row["validation_accuracy"]) == stored["validation_accuracy"]
        assert float(row["lambda"]) == stored["lambda"]
        assert (row["note"] or None) == stored["note"]


def test_json_reads_back_to_the_stored_values() -> None:
    document = json.loads(to_json(TABLE, ["a note"]))
    assert document["title"] == TABLE.title
    assert document["notes"] == ["a note"]
    keys = [column.key for column in TABLE.columns]
    assert document["rows"] == [{key: row[key] for key in keys} for row in ROWS]


@pytest.mark.parametrize("hyphens", [2, 3, 4, 5])
def test_no_hyphens_become_a_dash_in_latex(hyphens: int) -> None:
    row = ROWS[0] | {"note": f"a{'-' * hyphens}b"}
    [line] = [line for line in to_latex(replace(TABLE, rows=[row])).splitlines() if "{}" in line]
    assert "--" not in line
    assert line.count("-") == hyphens


def test_markdown_is_one_line_per_row_with_as_many_cells() -> None:
    lines = to_markdown(TABLE, ["rows 1 and 2"]).splitlines()
    assert lines[0] == "**Best runs, 100 % of them**"
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(ROWS)
    for line in table:
        assert len(re.split(r"(?<!\\)\|", line)) == len(TABLE.columns) + 2
    assert re.fullmatch(r"\| -+: \| -+: \| -+: \| -+ \|", table[1])
    assert [cell.strip() for cell in table[3].strip("|").split("|")] == ["12", "0.3000", "1e-05", "-"]
    assert lines[-1] == "rows 1 and 2"


def test_latex_has_the_rules_of_booktabs_and_escapes_what_it_would_execute() -> None:
    text = to_latex(TABLE, ["50 % & more"])
    assert text.count("\\toprule") == text.count("\\midrule") == text.count("\\bottomrule") == 1
    assert r"\begin{tabular}{rrrl}" in text
    assert r"\caption{Best runs, 100 \% of them}" in text
    assert r"12 & 0.3000 & 1e-05 & -- \\" in text
    assert r"50 \% \& more" in text
    [row] = [line for line in text.splitlines() if line.strip().startswith("7 &")]
    body = row.strip().removesuffix(r"\\")
    assert len(re.findall(r"(?<!\\)&", body)) == len(TABLE.columns) - 1
    assert not re.search(r"(?<!\\)[%$#_]", body)
    assert r"\textbackslash{}" in body


@pytest.mark.parametrize("engine", ["pdflatex", "lualatex"])
def test_latex_sets_every_character_and_wide_tables(engine: str, tmp_path: Path) -> None:
    if shutil.which(engine) is None:
        pytest.skip(f"{engine} is not installed")
    words = 'caf\u00e9 "\U0001f600\u4f60\u597d" \u03b1\u2212\u0142\u0105 \u201equoted\u201c e\u0301 \u00ab\u00bb \u00b1'
    wide = Table(words, tuple(Column(f"c{n}", "validation") for n in range(8)), [{f"c{n}": 0.5 for n in range(8)}])
    noted = Table("t", (Column("note", "note"),), [{"note": words[4:8]}])
    tables = "\n".join(to_latex(one, [words]) for one in (wide, noted))
    head = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}"
    (tmp_path / "t.tex").write_text(f"{head}\n{tables}\n\\end{{document}}\n", encoding="utf-8")
    args = (engine, "-interaction=nonstopmode", "-halt-on-error", "t.tex")
    done = subprocess.run(args, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout
    assert "Overfull" not in done.stdout


@pytest.mark.parametrize("name", ["markdown", "latex"])
def test_the_rounded_numbers_are_those_of_the_terminal(name: str) -> None:
    text = FORMATS[name](TABLE, [])
    for cells in TABLE.cells():
        for cell in cells[:3]:
            assert cell in text
    assert "…" not in text


def test_a_mean_becomes_columns_of_its_own() -> None:
    cell = Shown(0.5312, "0.5312 ± 0.0041", {"std": 0.0041, "half_interval": 0.01, "n": 3})
    table = Table(
        "t", (Column("accuracy", "accuracy"), Column("x", "x")), [{"accuracy": cell, "x": Shown(0.25, "1/4")}]
    )
    assert json.loads(to_json(table))["rows"] == [
        {"accuracy": 0.5312, "accuracy_std": 0.0041, "accuracy_half_interval": 0.01, "accuracy_n": 3, "x": 0.25}
    ]
    assert "0.5312 ± 0.0041" in to_markdown(table)
    assert r"0.5312 $\pm$ 0.0041" in to_latex(table)
    assert "1/4" in to_markdown(table)


def test_values_are_those_of_the_database() -> None:
    rows = [{"hidden": (50, 50), "batch_norm": True, "flip": Shown(False, "no")}]
    table = Table("t", (Column("hidden", "hidden"), Column("batch_norm", "BN"), Column("flip", "flips")), rows)
    assert to_csv(table).splitlines()[1] == "50 50,1,0"


def test_a_table_without_rows_keeps_its_head() -> None:
    empty = Table("t", TABLE.columns, [])
    assert to_csv(empty) == "id,validation_accuracy,lambda,note"
    for render in FORMATS.values():
        assert render(empty, [])
