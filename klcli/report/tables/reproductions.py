"""Tables of a reproduction: every line of a published report with our result."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from klcli.published.comparison import BAND, counts, counts_of_variants, explained
from klcli.published.format.schema import ERRORS
from klcli.published.intervals import ACCURACY_TOLERANCE, DIFFERS, INCOMPARABLE, LOSS_TOLERANCE, REPRODUCED, UNDECIDED
from klcli.published.planning import planned
from klcli.published.report import Comparison, Report
from klcli.published.reproduction import Reproduction, Terms
from klcli.report.tables.formats import markdown_text, to_markdown
from klcli.report.tables.table import Form, Row, Table, columns, fraction, show, signed, significant
from klcli.report.words import counted
from klcli.studies.plans import can_vary
from klcli.text import storable, visible

HEAD = columns("*row; what; quantity=number; published:; ours:; ?margin:=95 % ±; ???n:; ?difference:; verdict; ??why=")
_SEEDS_OF = {
    "all": "", "init": "of the weights alone ", "order": "of all but the weights ",
    "split": "of everything, with validation images of its own each, ",
}  # fmt: skip
_FIXED = {  # the note if the repeats of a training cannot vary as asked
    "order": "where nothing but the weights is random, the seeds are those of the weights",
    "split": "validation on whole batch files is the same for every seed",
}
# The formats of a number and of a difference between two, if it is no accuracy, loss or cost.
_FORMS: Mapping[str, tuple[Form, Form]] = dict.fromkeys(ERRORS, ("{:.1e}".format,) * 2) | {
    "equal_decimals": (significant, significant), "lambda": (significant, significant),
    "epochs": ("{:.1f}".format, "{:+.1f}".format),
}  # fmt: skip
LIST_HEAD = columns("*name; ?report; ??course; ???date; ??rows:; numbers:; trainings:; summary=")

Section = tuple[Report, Table, list[str], list[tuple[str, Path]]]  # its notes; its pictures, each with its caption


def reproduction_table(found: Reproduction) -> Table:
    """Every line of a report: published, ours, their difference, the verdict."""
    title = f"{found.report.name}: {found.report.title}, on {found.terms.dataset}{found.terms.brackets}"
    return Table(title, HEAD, [_row(one, found.terms) for one in found.comparisons])


def _row(one: Comparison, terms: Terms) -> Row:
    line, ours = one.line, one.ours
    is_quick = terms.quick and line.check is None and one.verdict != INCOMPARABLE
    row = {"row": line.row, "what": line.what, "verdict": one.verdict + " (quick)" * is_quick, "why": one.why}
    if line.quantity is None:
        return row
    measured = line.conclusion.quantity if line.conclusion else line.quantity
    points = (lambda difference: f"{100 * difference:+.2f} points") if measured.endswith("accuracy") else signed
    form, by = _FORMS.get(line.quantity, (fraction, points))
    if line.tolerance and one.tolerance:  # not that of the notes
        row["why"] = "; ".join(filter(None, (one.why, f"tolerance {by(one.tolerance).removeprefix('+')}")))
    sign = {"above": "> ", "below": "< "}.get((line.conclusion and line.conclusion.claim) or "", "")
    return row | {
        "quantity": line.quantity.replace("_", " "),
        "n": ours.n if ours else None,
        "published": show(line.published, lambda value: sign + form(value)),
        "ours": show(ours.mean if ours else None, form),
        "margin": show(one.margin, form),
        "difference": show(one.difference, by),
    }


def reproduction_notes(found: Reproduction, *, has_reasons: bool = True) -> list[str]:
    """Return the notes of the table: marks, counts, conditions, and the reasons for differences."""
    comparisons, terms = found.comparisons, found.terms
    has_more = any(one.ours.n > terms.repeats for one in comparisons if one.ours and not one.line.check)
    trains = any(one.line.config or one.line.conclusion for one in comparisons)
    seeds = f"{'at least ' * has_more}{terms.repeats} {counted(terms.repeats, 'seed')} {_SEEDS_OF[terms.vary]}"
    how = f"{seeds}for every setting, " if trains else ""
    notes = [*terms.marks, f"{_verdicts(counts(comparisons))}; {how}on {terms.images}"]
    notes += [f"besides, {name}, {_verdicts(own)}" for name, own in counts_of_variants(comparisons).items()]
    configs = [config for one in found.report.experiments for config in one.configs]
    if not all(can_vary(config, terms.vary) for config in configs):
        notes.append(_FIXED[terms.vary])
    notes += found.plan_notes
    if found.report.conditions:
        notes.append(f"what runs: {found.report.conditions}")
    if trains:
        tolerance = f"{100 * ACCURACY_TOLERANCE:g} points of accuracy or {LOSS_TOLERANCE:g} of loss and cost"
        own = ", or of the line's own tolerance" * any(one.line.tolerance is not None for one in comparisons)
        notes += [
            "95 % ±: of 100 more runs like ours, 95 would be this close to our mean. The report is one run: inside, it "
            "could be one of ours; outside, it differs, as 1 of 20 does by bad luck. Differences: ours minus published",
            f"reproduced: inside an interval of at most {tolerance} to either side{own}, the smallest difference that "
            "matters. undecided: inside a wider one, which could hide such a difference; more seeds may narrow it",
        ]
    checks = [one.line.check for one in comparisons if one.line.check]
    draws = any(check.repeats > 1 for check in checks)
    other_images = trains and any(not one.line.same_validation_images for one in comparisons)
    rules = {
        "trainings that go on with the weights of the one before share the luck of the first: their lines agree or "
        "differ together": any(one.is_chain for one in found.report.experiments),
        "the report validates on other images than we do: its interval includes the luck of both splits": other_images,
        f"a gradient is reproduced if our error is at most {BAND:g} times the published one, as rounding varies; "
        "more exact: less than a tenth of it": bool(checks),
        "the size of a gradient is published for one draw of the weights. It differs outside of the interval of "
        f"95 % of ours; inside, it is reproduced if its ends are at most a factor of {BAND:g} apart, or, for a "
        "mean of the entries, if half of it is at most their deviation, and undecided otherwise": draws,
    }
    notes += [rule for rule, applies in rules.items() if applies]
    reasons = explained(comparisons).items() if has_reasons else ()
    return notes + [f"{', '.join(rows)}: {why}" for why, rows in reasons]


def _verdicts(counted_by: Mapping[str, int]) -> str:
    total = sum(counted_by.values())
    return f"{total} {counted(total, 'line')}: {', '.join(f'{n} {verdict}' for verdict, n in counted_by.items())}"


def list_table(reports: Sequence[Report], repeats: int) -> Table:
    """The reports that can be reproduced."""
    rows = []
    for one in reports:
        published = sum(line.published is not None and line.variant is None for line in one.lines)
        trainings = sum(len(study.configs) for study in planned(one, repeats))
        own = {"report": one.number, "rows": len(one.rows), "numbers": published, "trainings": trainings}
        rows.append(vars(one) | own)
    seeds = f"at least {repeats} {counted(repeats, 'seed')}"
    return Table(f"Published reports, with {seeds} for every setting", LIST_HEAD, rows)


def reproduction_document(found: Reproduction, notes: Sequence[str], paths: Sequence[Path]) -> dict[str, Any]:
    """Return a reproduced report as a JSON object."""
    own = {key: getattr(found.report, key) for key in ("name", "number", "course", "date", "conditions")}
    return {
        "report": own | {"rows": list(found.report.rows)},
        "terms": asdict(found.terms) | {"official": found.terms.official},
        "marks": found.terms.marks, "counts": counts(found.comparisons),
        "lines": [_line_document(one, found) for one in found.comparisons],
        "notes": list(notes), "studies": list(found.studies), "pictures": list(paths),
    }  # fmt: skip


def _line_document(one: Comparison, found: Reproduction) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "row what quantity tensor published": one.line,
        "claim": one.line.conclusion,  # above or below the published number
        "mean std n": one.ours,
        "margin tolerance difference diverged verdict why": one,
    }
    line = {key: getattr(part, key, None) for keys, part in parts.items() for key in keys.split()}
    line["std"] = None if one.line.quantity == "lambda" else line["std"]  # all seeds make one choice
    runs = found.evidence.runs_of(one.line.config, one.line.method)
    return line | {"n": line["n"] or 0, "runs": [run.id for run in runs]}


def headline(found: Sequence[Reproduction]) -> dict[str, Any]:
    """Count the comparable lines of all reports, but not those of variants, as a JSON object.

    `lines` are its sentences, none for one report.
    """
    every = [one for report in found for one in report.comparisons if one.line.variant is None]
    compared = [one for one in every if one.verdict != INCOMPARABLE]
    accuracies = [one for one in compared if one.line.config and (one.line.quantity or "").endswith("accuracy")]
    parts = {"accuracies": accuracies, "all": compared}
    shares = {key: {"comparable": len(part)} | counts(part) for key, part in parts.items()}
    names: dict[str, list[str]] = {}
    for verdict in (DIFFERS, UNDECIDED):
        rows = Counter(one.line.row for one in compared if one.verdict == verdict)
        names[verdict] = [f"{row} ({n})" if n > 1 else row for row, n in rows.items()]  # with the number of lines
    lines = [
        f"all {len(found)} reports{found[0].terms.brackets}: of {own['comparable']} comparable {what}, "
        f"{own[REPRODUCED]} reproduced ({own[REPRODUCED] / own['comparable']:.1%}), {own[DIFFERS]} differ, "
        f"{own[UNDECIDED]} are undecided"
        for what, own in zip(("accuracies", "numbers and conclusions"), shares.values(), strict=True)
        if own["comparable"]
    ]
    if n := sum(one.margin is not None for one in compared):
        lines.append(f"of {n} with an interval, 1 of 20 differs by bad luck alone: {n / 20:.1f}")
    lines += [f"{verdict}: {', '.join(own)}" for verdict, own in names.items() if own]
    return shares | names | {"lines": lines if len(found) > 1 else []}


def markdown_page(command: str, terms: Terms, sections: Sequence[Section], headlines: Sequence[str] = ()) -> str:
    """Return the page of reproduced reports, each with its table, notes and links to its picture files."""
    images = f"Images: {terms.images}."
    parts = ["# Published reports, and what really happens", f"Made by `{visible(command)}`.", images]
    parts += [*filter(None, [storable(terms.note or "")]), *headlines]
    for report, table, notes, pictures in sections:
        numbered, remarks = _numbered(table)
        parts += [f"## {report.name}", to_markdown(numbered, [*notes, *remarks])]
        parts += [f"![{markdown_text(words)}]({quote(os.fsencode(path.name))})" for words, path in pictures]
    return "\n\n".join(parts) + "\n"


def _numbered(table: Table) -> tuple[Table, list[str]]:
    """Return a table with numbers in place of its remarks, of which hundreds of lines share a few, and the remarks."""
    found = dict.fromkeys(row["why"] for row in table.rows if row["why"])
    numbers = {why: f"({number})" for number, why in enumerate(found, 1)}
    titled = tuple(replace(one, title="remark") if one.key == "why" else one for one in table.columns)
    rows = [row | {"why": numbers.get(row["why"], "")} for row in table.rows]
    return replace(table, columns=titled, rows=rows), [f"{number} {why}" for why, number in numbers.items()]
