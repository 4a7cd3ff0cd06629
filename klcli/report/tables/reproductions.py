"""Tables of a reproduction: every line of a published report beside ours."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from klcli.published.comparison import INCOMPARABLE, Comparison, counts, explained
from klcli.published.report import ERRORS, Report
from klcli.published.terms import Terms
from klcli.report.tables.formats import to_markdown
from klcli.report.tables.table import Column, Row, Table, fraction, scientific
from klcli.studies.repeats import repeat

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


@dataclass(frozen=True)
class Shown:
    """A number with the text that a person reads."""

    value: float
    text: str

    def __str__(self) -> str:
        """Return the text."""
        return self.text


def reproduction_table(report: Report, comparisons: Sequence[Comparison], terms: Terms) -> Table:
    """Every line of a report: published, ours, their difference, the verdict."""
    marks = "".join(f" [{mark.partition(':')[0]}]" for mark in terms.marks)
    title = f"{report.name}: {report.title}, on {terms.dataset}{marks}"
    return Table(title, HEAD, [_row(one, terms) for one in comparisons])


def _row(one: Comparison, terms: Terms) -> Row:
    line, ours = one.line, one.ours
    row: Row = {
        "row": line.row,
        "what": line.what,
        "verdict": one.verdict + (" (quick)" if terms.quick and line.config and one.verdict != INCOMPARABLE else ""),
        "why": one.why,
    }
    if line.quantity is None:
        return row
    form = scientific if line.quantity in ERRORS else fraction
    row["quantity"] = line.quantity.replace("_", " ")
    if line.published is not None:
        row["published"] = Shown(line.published, form(line.published))
    if ours is not None:
        row |= {"ours": Shown(ours.mean, form(ours.mean)), "n": ours.n}
        if ours.half_interval is not None:
            row["half"] = Shown(ours.half_interval, form(ours.half_interval))
    if one.difference is not None:
        row["difference"] = Shown(one.difference, difference_words(line.quantity, one.difference))
    if one.standard_errors is not None:
        row["standard_errors"] = Shown(one.standard_errors, f"{one.standard_errors:+.1f}")
    return row


def difference_words(quantity: str, difference: float) -> str:
    """`+0.31 points` of an accuracy, `+0.0123` of a cost."""
    return f"{100 * difference:+.2f} points" if quantity.endswith("accuracy") else f"{difference:+.4f}"


def reproduction_notes(report: Report, comparisons: Sequence[Comparison], terms: Terms) -> list[str]:
    """What a reader of the table must know: marks, counts, what runs, and each row that differs with its sentence."""
    found = ", ".join(f"{n} {verdict}" for verdict, n in counts(comparisons).items())
    rules = []
    if any(one.line.config for one in comparisons):
        rules.append(
            "reproduced: the published single run lies in the 95 % prediction interval of one more run of ours, "
            "mean ± t s sqrt(1 + 1/n); differences are ours minus published"
        )
    if any(one.line.check for one in comparisons):
        rules.append(
            "reproduced, of a gradient: our error is of the published order of magnitude or below it, "
            "or passes klcli's own check"
        )
    seeds = f"{terms.repeats} seed{'s' if terms.repeats > 1 else ''} for every setting"
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
            "trainings": len(
                {
                    config
                    for experiment in one.experiments
                    for base in experiment.configs
                    for config in repeat(base, max(repeats, experiment.repeats))
                }
            ),
            "summary": one.summary,
        }
        for one in reports
    ]
    columns = (
        Column("name", "name", is_number=False),
        Column("report", "report", is_number=False),
        Column("course", "course", is_number=False),
        Column("date", "date", is_number=False),
        Column("rows", "rows"),
        Column("numbers", "numbers"),
        Column("trainings", "trainings"),
        Column("summary", "", is_number=False),
    )
    return Table(f"Published reports, with {repeats} seeds for every setting", columns, rows)


def comparison_document(one: Comparison, runs: Sequence[int]) -> Row:
    """Return a line as it appears in JSON."""
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
        "runs": list(runs),
    }


def markdown_page(
    command: str, terms: Terms, sections: Sequence[tuple[Report, Table, Sequence[str], Sequence[tuple[str, Path]]]]
) -> str:
    """Return the page of reproduced reports, each with its table, notes and pictures, which lie beside the page."""
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


def report_document(report: Report, terms: Terms) -> Row:
    """Return which report was reproduced under which conditions, for JSON."""
    words: Mapping[str, Any] = {
        "name": report.name,
        "number": report.number,
        "course": report.course,
        "date": report.date,
        "conditions": report.conditions,
        "rows": list(report.rows),
    }
    return {"report": words, "terms": asdict(terms), "marks": terms.marks}
