"""Tables of reproductions: the printed interval is the one that decides, and the last lines count all reports."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from records import run

from klcli.published.comparison import compare
from klcli.published.planning import planned
from klcli.published.report import Figure, parse
from klcli.published.reproduction import Reproduction, Terms
from klcli.report.plots.reproductions import pictures
from klcli.report.tables.reproductions import (
    headline,
    markdown_page,
    reproduction_document,
    reproduction_notes,
    reproduction_table,
)
from tests.published.evidence import evidence

ONE = """
report = "NAME"
course = "c"
date = "d"
summary = "s"
[[experiments]]
name = "curves"
rows = [
  { row = "NAME-1", test_accuracy = 0.501 },
  { row = "NAME-2", test_accuracy = 0.56, if_differs = "a slip" },
  { row = "NAME-2", test_loss = 1.0 },
  { row = "NAME-3", test_accuracy = 0.501, tolerance = 0.001 },
]
VARIANT
[[conclusions]]
row = "NAME-4"
what = "it does not learn by heart"
kind = "gap"
experiments = ["curves"]
quantity = "test_accuracy"
below = 0.3
[[commentary]]
row = "NAME-5"
what = "a picture"
reason = "no number"
"""


VARIANT = """
[experiments.variant]
name = "as the text says"
config = { lam = 0.1 }
"""


def reproduced(name: str, head: str = "", variant: str = "", **terms: Any) -> Reproduction:
    """Test accuracies of .497 to .503, losses of .99 to 1.01, gaps of about .1."""
    document = parse(name, head + ONE.replace("NAME", name).replace("VARIANT", variant))
    [configs] = [study.configs for study in planned(document, 3)]
    numbers = [{"test_accuracy": 0.497 + i * 0.003, "test_loss": 0.99 + i * 0.01} for i in range(3)]
    runs = {one: run(i, one, train_accuracy=0.6, **numbers[i % 3]) for i, one in enumerate(configs)}
    conditions = Terms("cifar10", "a" * 64, 3, **terms)
    of_runs = evidence({"": runs})
    return Reproduction(document, conditions, compare(document, of_runs, conditions.incomparable), of_runs, [1])


def test_the_printed_interval_decides() -> None:
    found = reproduced("009")
    table = reproduction_table(found)
    titles = [one.title or one.key for one in table.columns]
    assert titles == [
        "row", "what", "number", "published", "ours", "95 % ±", "n", "difference", "verdict", "why"
    ]  # fmt: skip
    cells = [dict(zip(titles, row, strict=True)) for row in table.cells()]
    assert [row["verdict"] for row in cells] == [
        "reproduced", "differs", "reproduced", "undecided", "cannot be compared", "reproduced"
    ]  # fmt: skip
    for row, line in zip(cells[:4], found.comparisons[:4], strict=True):
        outside = abs(float(row["published"]) - float(row["ours"])) > float(row["95 % ±"])
        assert outside == (row["verdict"] == "differs")
        assert line.margin is not None
        assert row["95 % ±"] == f"{line.margin:.4f}"
    assert (cells[1]["difference"], cells[1]["why"]) == ("-6.00 points", "a slip")
    assert "seeds would decide: single runs scatter this much, and the report has one; ours have 0." in cells[3]["why"]
    assert (cells[5]["number"], cells[5]["published"], cells[5]["ours"]) == ("gap", "< 0.3000", "0.1000")


CHAINS = """
report = "009"
course = "c"
date = "d"
summary = "s"
[[experiments]]
name = "coarse"
study = "search"
is_chain = true
rows = [{ row = "009-1", lam = 0.1, test_accuracy = 0.5 }]
[[experiments]]
name = "fine"
study = "search"
is_chain = true
rows = [{ row = "009-2", lam = 0.2, test_accuracy = 0.5 }]
"""


def test_the_first_search_of_a_chain_begins_with_fresh_weights() -> None:
    document = parse("009", CHAINS)
    [study] = planned(document, 1)
    runs = {one: run(i, one, test_accuracy=0.5) for i, one in enumerate(study.configs)}
    of_runs = evidence({study.method: runs})
    conditions = Terms("cifar10", "a" * 64, 1)
    found = Reproduction(document, conditions, compare(document, of_runs, None), of_runs, [1])
    captions = [chart().caption for _, _, chart in pictures(found, lambda run: ())]
    assert [caption.rpartition("; ")[2] for caption in captions] == [
        "only the first lambda starts from fresh weights", "no lambda starts from fresh weights"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("quantity", "splits", "chains"),
    [
        ("test_accuracy", (), ["coarse", "fine"]),
        ("test_accuracy", ("train", "test"), ["coarse", "fine"]),
        ("test_accuracy", ("train",), ["fine"]),
        ("test_loss", (), ["fine"]),
        ("best_validation_accuracy", (), ["fine"]),
    ],
)
def test_a_chain_without_an_accuracy_of_the_split_has_no_picture(
    quantity: str, splits: tuple[str, ...], chains: list[str]
) -> None:
    other = CHAINS.replace("lam = 0.1, test_accuracy", f"lam = 0.1, {quantity}")
    document = parse("009", other.replace("lam = 0.2", "lam = 0.2, train_accuracy = 0.5"))
    [study] = planned(document, 1)
    measured = dict.fromkeys((quantity, "train_accuracy", "test_accuracy"), 0.5)
    runs = {one: run(i, one, **measured) for i, one in enumerate(study.configs)}
    of_runs = evidence({study.method: runs})
    found = Reproduction(document, Terms("cifar10", "a" * 64, 1), compare(document, of_runs, None), of_runs, [1])
    drawn = [(words, gather().panels[0][0].lines) for _, words, gather in pictures(found, lambda run: (), None, splits)]
    assert [words.partition(": ")[2] for words, _ in drawn] == chains
    assert all(lines for _, lines in drawn)


def test_what_cannot_vary_is_said() -> None:
    rest = "where nothing but the weights is random, the seeds are those of the weights"
    for order, is_said in (("true", False), ("false", True)):
        notes = reproduction_notes(reproduced("009", f"common = {{ shuffle = {order} }}\n", vary="order"))
        assert "3 seeds of all but the weights for every setting" in notes[0]
        assert (rest in notes) is is_said


def test_figures_that_begin_with_one_row_have_files_of_their_own() -> None:
    found = reproduced("009")
    name = found.report.experiments[0].name
    same = [Figure(("009-1", "009-2"), panels, (name,)) for panels in ("training", "bn", "training")]
    found = replace(found, report=replace(found.report, figures=tuple(same)))
    names = [stem for stem, *_ in pictures(found, lambda run: ())]
    assert names == ["009-009-1", "009-009-1-figure-2", "009-009-1-figure-3"]
    assert [stem for stem, *_ in pictures(found, lambda run: (), "bn")] == names[1:2]  # the same with --plot bn


def test_the_document_tells_a_claim_from_a_number() -> None:
    lines = reproduction_document(reproduced("009"), [], [])["lines"]
    assert [(one["claim"], one["published"]) for one in lines if one["claim"]] == [("below", 0.3)]


def test_a_line_names_a_tolerance_of_its_own() -> None:
    found = reproduced("009")
    [first, *rest] = found.comparisons
    own = replace(first, line=replace(first.line, tolerance=0.05), tolerance=0.05)
    [line, other, *_] = reproduction_table(replace(found, comparisons=[own, *rest])).rows
    assert line["why"].endswith("tolerance 5.00 points")
    assert "tolerance" not in other["why"]
    assert "or of the line's own tolerance" in "\n".join(reproduction_notes(found))
    without = [replace(one, line=replace(one.line, tolerance=None)) for one in found.comparisons]
    assert "own tolerance" not in "\n".join(reproduction_notes(replace(found, comparisons=without)))


def test_gradients_alone_have_no_seeds_of_settings() -> None:
    found = reproduced("009")
    none = [one for one in found.comparisons if not (one.line.config or one.line.conclusion)]
    assert none
    assert "seed" not in reproduction_notes(replace(found, comparisons=none))[0]


def test_the_notes_explain_what_a_part_of_a_report_shows() -> None:
    """Conclusions are about trainings, also without the lines of these; a gradient has no split and no interval."""
    found = reproduced("009", "same_validation_images = false\ncommon = { shuffle = false }\n", vary="order")
    about = {
        "trainings": [one for one in found.comparisons if one.line.config],
        "conclusions": [one for one in found.comparisons if one.line.conclusion],
        "gradients": [one for one in found.comparisons if not (one.line.config or one.line.conclusion)],
    }
    parts = {name: "\n".join(reproduction_notes(replace(found, comparisons=own))) for name, own in about.items()}
    for words in ("95 % ±: of 100 more runs", "reproduced: inside an interval", "the luck of both splits"):
        assert {name for name, notes in parts.items() if words in notes} == {"trainings", "conclusions"}, words
    assert "where nothing but the weights is random" in parts["conclusions"]


def test_a_notebook_shows_a_reproduction_in_a_line() -> None:
    assert repr(reproduced("009")).startswith("Reproduction(terms=Terms(dataset='cifar10', ")
    assert len(repr(reproduced("009"))) < 300


def test_notes_explain_what_is_there() -> None:
    notes = "\n".join(reproduction_notes(reproduced("009")))
    assert "6 lines: 3 reproduced, 1 differs, 1 undecided, 1 cannot be compared; 3 seeds" in notes
    assert "at most 2 points of accuracy or 0.06 of loss and cost" in notes
    assert "009-2: a slip" in notes
    assert "luck of both splits" not in notes
    assert "gradient" not in notes
    assert "luck of both splits" in "\n".join(reproduction_notes(reproduced("009", "same_validation_images = false\n")))
    assert "share the luck of the first" not in notes
    found = reproduced("009")
    fewer = replace(found, terms=replace(found.terms, repeats=2))
    assert "; at least 2 seeds for every" in reproduction_notes(fewer)[0]
    chains = tuple(replace(one, is_chain=True) for one in found.report.experiments)
    chained = replace(found, report=replace(found.report, experiments=chains))
    assert "share the luck of the first" in "\n".join(reproduction_notes(chained))


def test_the_headline_counts_all_reports() -> None:
    both = [reproduced("008"), reproduced("009")]
    found = headline(both)
    assert found["accuracies"] == {
        "comparable": 6, "reproduced": 2, "differs": 2, "undecided": 2, "cannot be compared": 0
    }  # fmt: skip
    assert found["all"] == {"comparable": 10, "reproduced": 6, "differs": 2, "undecided": 2, "cannot be compared": 0}
    assert found["lines"] == [
        "all 2 reports: of 6 comparable accuracies, 2 reproduced (33.3%), 2 differ, 2 are undecided",
        "all 2 reports: of 10 comparable numbers and conclusions, 6 reproduced (60.0%), 2 differ, 2 are undecided",
        "of 10 with an interval, 1 of 20 differs by bad luck alone: 0.5",
        "differs: 008-2, 009-2",
        "undecided: 008-3, 009-3",
    ]
    page = markdown_page("klcli reproduce all", both[0].terms, [], found["lines"])
    assert page.endswith("\n\n".join(found["lines"]) + "\n")
    assert headline(both[:1])["lines"] == []
    of_the_text = reproduced("009", variant=VARIANT)
    assert len(of_the_text.comparisons) == 10
    assert headline([both[0], of_the_text]) == found
    quick = headline([reproduced("008", quick=True), reproduced("009", quick=True)])["lines"]
    assert quick[0].startswith("all 2 reports [QUICK]: of 6 comparable accuracies, 2 reproduced")
    # Neither differs if it cannot be compared: a subset is no CIFAR-10.
    assert headline([reproduced("008", subset=200), reproduced("009", subset=200)])["lines"] == []


def test_the_words_of_a_picture_are_no_markup_of_the_page() -> None:
    found = reproduced("009")
    section = (found.report, reproduction_table(found), [], [("009-1: width [5] ] of `a` <b>", Path("a b.png"))])
    page = markdown_page("klcli reproduce x.toml", found.terms, [section])
    assert page.endswith("\n\n![009-1: width \\[5\\] \\] of \\`a\\` \\<b\\>](a%20b.png)\n")


def test_a_line_as_a_json_object() -> None:
    line = reproduction_document(reproduced("009"), [], [])["lines"][3]
    assert line | {"margin": 0, "why": ""} == {
        "row": "009-3", "what": "curves", "quantity": "test_accuracy", "tensor": None, "published": 0.501,
        "mean": 0.5, "std": line["std"], "n": 3, "margin": 0, "tolerance": 0.001, "difference": line["difference"],
        "claim": None, "diverged": 0, "verdict": "undecided", "why": "", "runs": [0, 1, 2],
    }  # fmt: skip
