"""Tables of a reproduction: every line of a published report with our result."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from klcli.published.comparison import INCOMPARABLE, Comparison, counts, counts_of_variants, explained
from klcli.published.planning import planned
from klcli.published.report import ERRORS, Report
from klcli.published.reproduction import Reproduction, Terms
from klcli.report.tables.formats import to_markdown
from klcli.report.tables.table import Row, Table, columns, fraction, scientific, show
from klcli.report.words import counted
from klcli.text import storable, visible

HEAD = columns(
    "row; what; quantity=number; published:; ours:; half:=95 % ±; n:; difference:; standard_errors:=in s.e.; "
    "verdict; why="
)
_SEEDS_OF = {
    "all": "", "init": "of the weights alone ", "order": "of all but the weights ",
    "split": "of everything, with validation images of its own each, ",
}  # fmt: skip
LIST_HEAD = columns("name; report; course; date; rows:; numbers:; trainings:; summary=")


Section = tuple[Report, Table, list[str], list[tuple[str, Path]]]  # its notes; its pictures, each with its caption


def reproduction_table(found: Reproduction) -> Table:
    """Every line of a report: published, ours, their difference, the verdict."""
    title = f"{found.report.name}: {found.report.title}, on {found.terms.dataset}{found.terms.brackets}"
    return Table(title, HEAD, [_row(one, found.terms) for one in found.comparisons])


def _row(one: Comparison, terms: Terms) -> Row:
    line, ours = one.line, one.ours
    is_quick = terms.quick and line.config is not None and one.verdict != INCOMPARABLE
    row = {"row": line.row, "what": line.what, "verdict": one.verdict + " (quick)" * is_quick, "why": one.why}
    if line.quantity is None:
        return row
    form = scientific if line.quantity in ERRORS else fraction
    is_accuracy = line.quantity.endswith("accuracy")
    return row | {
        "quantity": line.quantity.replace("_", " "),
        "n": ours.n if ours else None,
        "published": show(line.published, form),
        "ours": show(ours.mean if ours else None, form),
        "half": show(ours.half_interval if ours else None, form),
        "difference": show(one.difference, lambda by: f"{100 * by:+.2f} points" if is_accuracy else f"{by:+.4f}"),
        "standard_errors": show(one.standard_errors, "{:+.1f}".format),
    }


def reproduction_notes(found: Reproduction) -> list[str]:
    """Return the notes of the table: marks, counts, conditions, and the reasons for differences."""
    comparisons, terms = found.comparisons, found.terms
    seeds = f"{terms.repeats} {counted(terms.repeats, 'seed')} {_SEEDS_OF[terms.vary]}for every setting"
    verdicts = _verdicts(counts(comparisons))
    notes = [*terms.marks, f"{verdicts}; {seeds}, on {terms.images}"]
    apart = counts_of_variants(comparisons).items()
    notes += [f"besides, {name}, {_verdicts(own)}" for name, own in apart]
    whole = any(one.line.config and one.line.config.split.validation_batches for one in comparisons)
    notes += ["validation on whole batch files is the same for every seed"] * (whole and terms.vary == "split")
    if found.report.conditions:
        notes.append(f"what runs: {found.report.conditions}")
    if any(one.line.config for one in comparisons):
        interval = "the 95 % prediction interval of one more run of ours, mean ± t s sqrt(1 + 1/n)"
        notes.append(f"reproduced: the published single run is inside {interval}; differences are ours minus published")
    if any(one.line.check for one in comparisons):
        rule = "our error is of the published order of magnitude or below it, or passes klcli's own check"
        notes.append(f"reproduced, of a gradient: {rule}")
    return notes + [f"{', '.join(rows)}: {why}" for why, rows in explained(comparisons).items()]


def _verdicts(counted_by: Mapping[str, int]) -> str:
    total = sum(counted_by.values())
    return f"{total} lines: {', '.join(f'{n} {verdict}' for verdict, n in counted_by.items())}"


def list_table(reports: Sequence[Report], repeats: int) -> Table:
    """The reports that can be reproduced."""
    rows = []
    for one in reports:
        published = sum(line.published is not None and line.variant is None for line in one.lines)
        trainings = sum(len(study.configs) for study in planned(one, repeats))
        own = {"report": one.number, "rows": len(one.rows), "numbers": published, "trainings": trainings}
        rows.append(vars(one) | own)
    return Table(f"Published reports, with {repeats} {counted(repeats, 'seed')} for every setting", LIST_HEAD, rows)


def reproduction_document(found: Reproduction, notes: Sequence[str], paths: Sequence[Path]) -> dict[str, Any]:
    """Return a reproduced report as a JSON object."""
    own = {key: getattr(found.report, key) for key in ("name", "number", "course", "date", "conditions")}
    return {
        "report": own | {"rows": list(found.report.rows)},
        "terms": asdict(found.terms),
        "marks": found.terms.marks,
        "counts": counts(found.comparisons),
        "lines": [_line_document(one, found) for one in found.comparisons],
        "notes": list(notes),
        "studies": list(found.studies),
        "pictures": list(paths),
    }


def _line_document(one: Comparison, found: Reproduction) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "row what quantity tensor published": one.line,
        "mean std n half_interval": one.ours,
        "standard_error margin difference standard_errors diverged verdict why": one,
    }
    line = {key: getattr(part, key, None) for keys, part in parts.items() for key in keys.split()}
    return line | {"n": line["n"] or 0, "runs": [run.id for run in found.runs_of(one.line.config, one.line.method)]}


def markdown_page(command: str, terms: Terms, sections: Sequence[Section]) -> str:
    """Return the page of reproduced reports, each with its table, notes and links to its picture files."""
    images = f"Images: {terms.dataset}, sha256 {terms.sha256[:8]}. {terms.origin}"
    parts = ["# Published reports, and what really happens", f"Made by `{visible(command)}`.", images]
    parts += [storable(terms.note)] if terms.note else []
    for report, table, notes, pictures in sections:
        parts += [f"## {report.name}", to_markdown(table, notes)]
        parts += [f"![{words}]({quote(os.fsencode(path.name))})" for words, path in pictures]
    return "\n\n".join(parts) + "\n"
