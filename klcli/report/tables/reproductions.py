"""Tables of a reproduction: every line of a published report beside ours."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from klcli.published.comparison import INCOMPARABLE, Comparison, counts, explained, plan
from klcli.published.report import ERRORS, Report
from klcli.published.reproduction import Reproduction
from klcli.published.terms import Terms
from klcli.report.tables.formats import to_markdown
from klcli.report.tables.table import Column, Shown, Table, fraction, scientific
from klcli.report.words import counted

HEAD = (
    Column("row", "row", is_number=False),
    Column("what", "what", is_number=False),
    Column("quantity", "number", is_number=False),
    Column("published", "published"),
    Column("ours", "ours"),
    Column("half", "95 % ±"),
    Column("n", "n"),
    Column("difference", "difference"),
    Column("standard_errors", "in s.e."),
    Column("verdict", "verdict", is_number=False),
    Column("why", "", is_number=False),
)
LIST_HEAD = (
    Column("name", "name", is_number=False),
    Column("report", "report", is_number=False),
    Column("course", "course", is_number=False),
    Column("date", "date", is_number=False),
    Column("rows", "rows"),
    Column("numbers", "numbers"),
    Column("trainings", "trainings"),
    Column("summary", "", is_number=False),
)


def reproduction_table(report: Report, comparisons: Sequence[Comparison], terms: Terms) -> Table:
    """Every line of a report: published, ours, their difference, the verdict."""
    marks = "".join(f" [{mark.partition(':')[0]}]" for mark in terms.marks)
    title = f"{report.name}: {report.title}, on {terms.dataset}{marks}"
    return Table(title, HEAD, [_row(one, terms) for one in comparisons])


def _row(one: Comparison, terms: Terms) -> dict[str, Any]:
    line, ours = one.line, one.ours
    is_quick = terms.quick and line.config is not None and one.verdict != INCOMPARABLE
    row = {"row": line.row, "what": line.what, "verdict": one.verdict + " (quick)" * is_quick, "why": one.why}
    if line.quantity is None:
        return row
    form = scientific if line.quantity in ERRORS else fraction
    in_points = line.quantity.endswith("accuracy")
    return row | {
        "quantity": line.quantity.replace("_", " "),
        "n": ours.n if ours else None,
        "published": _shown(line.published, form),
        "ours": _shown(ours.mean if ours else None, form),
        "half": _shown(ours.half_interval if ours else None, form),
        "difference": _shown(one.difference, points if in_points else "{:+.4f}".format),
        "standard_errors": _shown(one.standard_errors, "{:+.1f}".format),
    }


def _shown(value: float | None, form: Callable[[float], str]) -> Shown | None:
    return None if value is None else Shown(value, form(value))


def points(difference: float) -> str:
    """Return a difference of accuracies in percentage points: `+0.31 points`."""
    return f"{100 * difference:+.2f} points"


def reproduction_notes(report: Report, comparisons: Sequence[Comparison], terms: Terms) -> list[str]:
    """Return what a reader of the table must know: marks, counts, conditions, and why rows differ."""
    found = ", ".join(f"{n} {verdict}" for verdict, n in counts(comparisons).items())
    rules = []
    if any(one.line.config for one in comparisons):
        rules.append(
            "reproduced: the published single run is inside the 95 % prediction interval of one more run of ours, "
            "mean ± t s sqrt(1 + 1/n); differences are ours minus published"
        )
    if any(one.line.check for one in comparisons):
        rules.append(
            "reproduced, of a gradient: our error is of the published order of magnitude or below it, "
            "or passes klcli's own check"
        )
    seeds = f"{terms.repeats} {counted(terms.repeats, 'seed')} for every setting"
    return [
        *terms.marks,
        f"{len(comparisons)} lines: {found}; {seeds}, on {terms.images}",
        *([f"what runs: {report.conditions}"] if report.conditions else []),
        *rules,
        *(f"{', '.join(rows)}: {why}" for why, rows in explained(comparisons).items()),
    ]


def list_table(reports: Sequence[Report], repeats: int) -> Table:
    """The reports that can be reproduced."""
    rows = [
        {
            "name": one.name,
            "report": one.number,
            "course": one.course,
            "date": one.date,
            "rows": len(one.rows),
            "numbers": sum(line.published is not None for line in one.lines),
            "trainings": sum(map(len, plan(one, repeats).values())),
            "summary": one.summary,
        }
        for one in reports
    ]
    return Table(f"Published reports, with {repeats} {counted(repeats, 'seed')} for every setting", LIST_HEAD, rows)


def reproduction_document(found: Reproduction, notes: Sequence[str], paths: Sequence[Path]) -> dict[str, Any]:
    """Return a reproduced report as it appears in JSON."""
    report = found.report
    return {
        "report": {
            "name": report.name,
            "number": report.number,
            "course": report.course,
            "date": report.date,
            "conditions": report.conditions,
            "rows": list(report.rows),
        },
        "terms": asdict(found.terms),
        "marks": found.terms.marks,
        "counts": counts(found.comparisons),
        "lines": [_line_document(one, found) for one in found.comparisons],
        "notes": list(notes),
        "studies": list(found.studies),
        "pictures": [str(path) for path in paths],
    }


def _line_document(one: Comparison, found: Reproduction) -> dict[str, Any]:
    line, ours = one.line, one.ours
    return {
        "row": line.row,
        "what": line.what,
        "quantity": line.quantity,
        "tensor": line.tensor,
        "published": line.published,
        "mean": ours.mean if ours else None,
        "std": ours.std if ours else None,
        "n": ours.n if ours else 0,
        "half_interval": ours.half_interval if ours else None,
        "standard_error": one.standard_error,
        "margin": one.margin,
        "difference": one.difference,
        "standard_errors": one.standard_errors,
        "diverged": one.diverged,
        "verdict": one.verdict,
        "why": one.why,
        "runs": [run.id for run in found.runs_of(line.config)],
    }


def markdown_page(
    command: str, terms: Terms, sections: Sequence[tuple[Report, Table, Sequence[str], Sequence[tuple[str, Path]]]]
) -> str:
    """Return the page of reproduced reports, each with its table, notes and pictures, which are files beside it."""
    parts = [
        "# Published reports, and what really happens",
        f"Made by `{command}`.",
        f"Images: {terms.dataset}, sha256 {terms.sha256[:8]}. {terms.origin}",
        *([terms.note] if terms.note else []),
    ]
    for report, table, notes, pictures in sections:
        parts += [f"## {report.name}", to_markdown(table, notes)]
        parts += [f"![{words}]({quote(path.name)})" for words, path in pictures]
    return "\n\n".join(parts) + "\n"
