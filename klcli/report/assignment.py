"""The folder of an assignment: figures, tables, and a LaTeX document that includes them."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from itertools import chain
from pathlib import Path

from klcli.errors import ConfigError
from klcli.procedures.assignment import Assignment, Part
from klcli.procedures.searches import tried_values
from klcli.report.plots.chart import Chart, Look
from klcli.report.plots.curves import Epochs, bn_overlay, bn_pairs, repeats, training_curves
from klcli.report.plots.studies import lambda_search, sigma_curves
from klcli.report.tables import studies
from klcli.report.tables.formats import latex_text, to_csv, to_latex, to_markdown
from klcli.report.tables.later_checks import gradient_check_title, gradient_method
from klcli.report.tables.table import Row, Table, columns
from klcli.report.words import counted, images_words, layers_name, network_name
from klcli.settings.editions import EDITIONS, AssignmentSettings
from klcli.settings.run_command import database_option, run_command
from klcli.settings.run_names import names_of
from klcli.settings.setting import require
from klcli.store.checkpoints import write_atomically
from klcli.store.records import Epoch, Run
from klcli.text import command_text, path_text
from klcli.training.budget import budget_of

LOOK = Look(width=16, title=False)  # \textwidth of the document, 455 points
INDEX, DOCUMENT = "assignment.md", "report.tex"
HEAD = "# Figures and tables of an assignment"  # of the index, by which the folder is known
PREAMBLE = r"""\documentclass[a4paper]{article}
\usepackage[a4paper, textwidth=16cm, textheight=24cm]{geometry}
\usepackage{booktabs}
\usepackage{graphicx}
\emergencystretch=1em
\setlength{\belowcaptionskip}{6pt}
\renewcommand{\topfraction}{.9}\renewcommand{\textfraction}{.1}\renewcommand{\floatpagefraction}{.8}"""
ABOUT = "The assignment of "  # begins the line of the index that tells assignments apart
UNEDITED = "% klcli replaces this file as long as it is not edited: "
BEST = 3  # lambdas of each stage in a table of their own


@dataclass(frozen=True)
class Exhibit:
    """A table, or a figure with its numbers."""

    name: str  # of its files and its label
    table: Table
    commands: Sequence[str]  # that repeat it
    chart: Chart | None = None

    @property
    def reference(self) -> str:
        return rf"Figure~\ref{{fig:{self.name}}}" if self.chart else rf"Table~\ref{{tab:{self.name}}}"


@dataclass(frozen=True)
class Section:
    """A section of the document: its exhibits, a sentence about them, and what is left to say."""

    title: str
    exhibits: Sequence[Exhibit]
    sentence: str  # after the references
    question: str


def require_own(folder: Path) -> None:
    """Raise ConfigError if a folder has files that are not those of an assignment."""
    try:
        is_free = all(one.name == ".DS_Store" for one in folder.iterdir())  # which Finder leaves where it has looked
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{path_text(folder)}: {error.strerror}, name another folder") from None
    heads = ((folder / INDEX, HEAD), (folder / DOCUMENT, UNEDITED))  # either may be edited
    is_own = any(one.is_file() and one.read_text("utf-8", "replace").startswith(head) for one, head in heads)
    require(is_own or is_free, f"{path_text(folder)}: this folder holds other files, name a new one")


def require_same(folder: Path, settings: AssignmentSettings, dataset: str) -> None:
    """Raise ConfigError if a document is edited whose sentences have the numbers of another assignment."""
    index = folder / INDEX
    text = index.read_text("utf-8", "replace") if index.is_file() else ""
    about = "".join(text.split("\n\n")[1:2])
    is_same = not about.startswith(ABOUT) or about == _about(settings, dataset)  # an older klcli has not written it
    old = " ".join(about.removeprefix(ABOUT).split()).rstrip(".")
    words = f"is edited, and its sentences are about {old}: repeat the command with another FOLDER"
    require(is_same or not _is_edited(folder), f"{path_text(folder / DOCUMENT)}: {words}")


def _about(settings: AssignmentSettings, dataset: str) -> str:
    values = asdict(settings) | {"trials": settings.chosen.trials}
    given = [f"{key} {value}" for key, value in values.items() if value is not None]
    return f"{ABOUT}{', '.join(given)}, {dataset} images."


def plan_table(parts: Sequence[Part], edition: str) -> Table:
    """What is there, and what will be trained."""
    rows = [vars(part) | {"missing": part.missing or None, "minutes": part.seconds / 60 or None} for part in parts]
    head = columns("*name=part; done=there already; missing:=missing; minutes:.1f")
    return Table(f"Assignment {edition}", head, rows)


def editions_table() -> Table:
    """What the editions of the course ask."""
    rows: list[Row] = []
    for one in EDITIONS.values():
        networks = dict.fromkeys(layers_name(config) for configs in one.curves for config in configs)
        row = {"networks": ", ".join(networks), "bn": "both" if one.curves[0][1:] else "without"}
        row["search"] = f"{network_name(one.search)}, {' + '.join([str(one.trials)] * (one.fine + 1))} values"
        row["chosen"] = f"{one.final.cycles} cycles, n_s {budget_of(one.final).step_size}"
        if one.sweep:
            n_s = budget_of(one.sweep).step_size
            row["swept"] = f"{layers_name(one.sweep)}, {one.sweep.cycles} cycles, n_s {n_s}"
        rows.append(vars(one) | row)
    head = "*name=edition; report; course; date; networks; bn=BN; search=lambda search; chosen=then; swept=sigma sweep"
    return Table("What the editions of the course ask", columns(head), rows)


def sections(found: Assignment, epochs_of: Callable[[int], Sequence[Epoch]]) -> Iterator[Section]:
    """Yield the sections of an assignment."""
    errors = [error for check in found.checks for error in check.errors]
    right, largest = sum(error.passed for error in errors), max(error.max_absolute for error in errors)
    sentence = f"Of {len(errors)} gradients, {right} are right; the largest absolute error is {largest:.1e}."
    if any(check.configs[0].batch_norm for check in found.checks):
        sentence += " Before batch normalisation the gradient of b is 0, and its relative error one of rounding."
    question = "Which formula did you differentiate, and how small must an error be?"
    checked = Exhibit("gradients", _gradients(found), [found.commands["gradients"]])
    yield Section("Gradients", [checked], sentence, question)

    every = [run for runs in found.curves for run in runs]
    epochs = {run.id: epochs_of(run.id) for run in (*every, *found.final, *found.sweep)}
    figures = [_curves(f"curves-{number}", runs, epochs, found) for number, runs in enumerate(found.curves, start=1)]
    networks = Exhibit("networks", _networks(every), _again(every, found))
    accuracies = [f"{network_name(own[0].config)}, n_s {own[0].step_size}: {_percent(own)}" for own in repeats(every)]
    varied = "depth and batch normalisation" if found.settings.chosen.curves[0][1:] else "n_s and the number of cycles"
    question = f"What do {varied} change, on training and on validation images?"
    means = f" (mean ± standard deviation over {n} seeds)" if (n := found.settings.repeats) > 1 else ""
    sentence = f"The accuracies on the test images{means}: {'; '.join(accuracies)}."
    yield Section("Networks", [*figures, networks], sentence, question)

    search, choice = found.search, found.search.choice
    assert choice is not None  # or there would be no final training
    again = [found.commands["lambda"], _drawn("lambda", ["--study", str(search.studies[-1])], "lambda", found)]
    shown = Exhibit("lambda", studies.search_table(search), again, lambda_search(search.stages, choice))
    best, final = Exhibit("lambda-best", _best(found), again[:1]), _curves("final", found.final, epochs, found)
    cycles = found.final[0].cycles
    sentence = f"{studies.choice_sentence(choice).capitalize()}. The accuracy on the test images after {cycles:g} "
    sentence += f"{counted(cycles, 'cycle')} with this lambda{means}: {_percent(found.final)}."
    question = "Are the best values further apart than chance puts them?"
    yield Section("The search for lambda", [shown, best, final], sentence, question)

    if runs := found.sweep:
        again = [found.commands["sigma"], _drawn("sigma", ["--study", str(runs[0].study_id)], "sigma", found)]
        curves = Exhibit("sigma", _numbers(runs, epochs), again, sigma_curves(runs, epochs))
        table = studies.interval_table(runs) if found.settings.repeats > 1 else studies.sigma_table(runs)
        results = Exhibit("sigma-results", table, again[:1])
        values = ", ".join(dict.fromkeys(f"{run.config.sigma:g}" for run in runs))
        sentence = f"The initial weights of every layer have the standard deviation sigma, one of {values}."
        question = "With which sigma does the network without BN stop learning, and why does the one with BN not?"
        yield Section("The scale of the initial weights", [curves, results], sentence, question)


def _percent(runs: Sequence[Run]) -> str:
    sample = studies.sample_of(runs, "test_accuracy")
    numbers = [f"{100 * value:.2f}" for value in (sample.mean, sample.std) if value is not None] if sample else []
    return f"{' ± '.join(numbers)}\xa0%" if numbers else "none, it diverged"


def _again(runs: Sequence[Run], found: Assignment) -> list[str]:
    """Return commands that train these networks into this database, whatever has trained them."""
    return [run_command(one.config, **found.where | {"threads": one.threads}) for one in runs]


def _curves(name: str, runs: Sequence[Run], epochs: Epochs, found: Assignment) -> Exhibit:
    pair = bn_pairs(runs)
    chart = bn_overlay(*pair[0], epochs) if pair else training_curves(runs, epochs)
    again = _drawn(name, ["--run", *names_of(run.id for run in runs)], "bn" if pair else "training", found)
    return Exhibit(name, _numbers(runs, epochs), [*_again(runs, found), again], chart)


def _drawn(name: str, which: Sequence[str], kind: str, found: Assignment) -> str:
    look = ["--width", f"{LOOK.width:g}", "--no-title", *database_option(found.where["db"])]
    return command_text(["klcli", "report", *which, "--plot", kind, "--to", f"{name}.pdf", *look])


def _numbers(runs: Sequence[Run], epochs: Epochs) -> Table:
    measures = (f"{split}_{name}:.4f" for name in ("loss", "cost", "accuracy") for split in ("train", "validation"))
    head = f"run_id:=run; network; lambda:.4g; sigma:.4g; epoch:g; step:; learning_rate:.4g; {'; '.join(measures)}"
    rows = []
    for run in runs:
        of_run = {"network": network_name(run.config), "lambda": run.config.lam, "sigma": run.config.sigma}
        rows += [vars(one) | of_run for one in epochs[run.id]]
    return Table("Evaluations", columns(head), rows)


def _networks(runs: Sequence[Run]) -> Table:
    names, rows = ("train_accuracy", "validation_accuracy", "test_accuracy", "test_loss", "test_cost"), []
    for own in repeats(runs):
        row: Row = {"network": network_name(own[0].config), "cycles": own[0].cycles}
        rows.append(row | {name: studies.cell(own, name) for name in names})
    accuracies, images = "validation_accuracy:=validation; test_accuracy:=test", images_words(runs[0])
    if len(rows) < len(runs):  # with deviations, no more fits into the width of the page
        title = f"Means and standard deviations of the accuracies over seeds: {images}"
        return Table(title, columns(f"*network; {accuracies}; cycles:g"), rows)
    head = columns(f"*network; train_accuracy:=train; {accuracies}; test_loss:=loss; test_cost:=cost; cycles:g")
    return Table(f"Accuracies, and loss and cost of the test images: {images}", head, rows)


def _gradients(found: Assignment) -> Table:
    rows = []
    for check in found.checks:
        row: Row = {"network": gradient_check_title(check), "tensors": len(check.errors)}
        row |= {key: max(getattr(one, key) for one in check.errors) for key in ("max_absolute", "ratio_of_maxima")}
        rows.append(row | {"verdict": "right" if check.passed else "WRONG"})
    head = columns("*network; tensors:; max_absolute:.1e=max abs; ratio_of_maxima:.1e=relative; verdict=")
    ratio = "relative: its ratio to max(|ga| + |gn|, 1e-6)"
    method = gradient_method(found.checks[0])
    title = f"Largest errors |ga - gn| of the gradients ga of all tensors; {ratio}; gn by {method}"
    return Table(title, head, rows)


def _best(found: Assignment) -> Table:
    rows = []
    for stage, runs in found.search.stages:
        best = sorted(tried_values(runs, stage), key=lambda one: one.order)[:BEST]
        rows += [{"stage": stage, "place": place, "lambda": one.lam, "accuracy": one.accuracy}
                 for place, one in enumerate(best, start=1) if one.accuracies]  # fmt: skip
    what = f"The {BEST} best lambdas of each stage, by the accuracy on validation images"
    return Table(what, columns("*stage; place:; lambda:.4g; accuracy:.4f=validation accuracy"), rows)


def write(
    folder: Path, found: Assignment, written: Sequence[Section], command: str, picture: Callable[..., Path | None]
) -> tuple[list[Path], bool]:
    """Write the files of an assignment and return them, and whether an edited document was kept as it is.

    `picture(path, chart, look)` draws a figure, and returns None if that fails.
    """
    files = {folder / INDEX: ""}  # written first: after an interruption, the folder is known by it
    about = _about(found.settings, found.dataset)
    index = [HEAD, about, f"Made by `{command}`.", *(f"**{mark}**" for mark in _marks(found))]
    for section in written:
        index.append(f"## {section.title}")
        for one in section.exhibits:
            path = folder / ("tables" if one.chart is None else "figures") / one.name
            files[path.with_suffix(".csv")] = f"{to_csv(one.table)}\n"
            if one.chart is None:
                latex = _symbols(to_latex(one.table, label=f"tab:{one.name}", width=455))
                files[path.with_suffix(".tex")] = "\n".join([*(f"% {line}" for line in one.commands), latex, ""])
                files[path.with_suffix(".md")] = f"{to_markdown(one.table)}\n"
                index.append(to_markdown(one.table))
            else:
                index += [f"![{one.chart.title}](figures/{one.name}.png)", one.chart.caption]
            index.append("\n".join(["```sh", *one.commands, "```"]))
    files[folder / INDEX] = "\n\n".join(index) + "\n"
    if not (is_edited := _is_edited(folder)):
        files[folder / DOCUMENT] = _signed(_document(found, written))
    for path, content in files.items():
        write_atomically(path, content.encode())
    figures = [one for section in written for one in section.exhibits if one.chart]
    paths = [(folder / "figures" / f"{one.name}.{kind}", one.chart) for one in figures for kind in ("pdf", "png")]
    drawn = [picture(path, partial(replace, chart), LOOK) for path, chart in paths]
    return [*files, *filter(None, drawn)], is_edited


def _is_edited(folder: Path) -> bool:
    document = folder / DOCUMENT
    old = document.read_text(encoding="utf-8", errors="replace") if document.exists() else ""
    return document.exists() and old != _signed(old.partition("\n")[2])


def _signed(text: str) -> str:
    """Return a document below a line with its checksum, by which an edited one is known."""
    return f"{UNEDITED}{sha256(text.encode()).hexdigest()[:16]}\n{text}"


def _marks(found: Assignment) -> list[str]:
    subset, one = found.settings.subset, found.settings.chosen
    shorter = []
    if found.settings.epochs:  # half a cycle is at least one update
        budgets = map(budget_of, (*chain(*one.curves), one.search, one.final, *filter(None, [one.sweep])))
        lengths = sorted(budget.epoch_at(budget.total_updates) for budget in budgets)
        words = " to ".join(dict.fromkeys(f"{epochs:.3g}" for epochs in (lengths[0], lengths[-1])))
        shorter = [f"{words} {counted(lengths[-1], 'epoch')} for every network"]
    shorter += [f"{subset} training images"] if subset else []
    synthetic = ["SYNTHETIC IMAGES, no CIFAR-10: these numbers say nothing about it."] * (found.dataset == "synthetic")
    return synthetic + ([f"A REHEARSAL, with {' and '.join(shorter)}."] if shorter else [])


def _document(found: Assignment, written: Sequence[Section]) -> str:
    lines = [
        PREAMBLE,
        rf"\title{{{latex_text(found.settings.chosen.course)}}}",
        *(r"\author{}", r"\date{}", r"\begin{document}", r"\maketitle", ""),
        *(rf"\noindent\textbf{{{latex_text(mark)}}}" + "\n" for mark in _marks(found)),
    ]
    for section in written:
        *first, last = [one.reference for one in section.exhibits]
        references = f"{', '.join(first)} and {last}" if first else last
        lines += [rf"\section{{{_symbols(latex_text(section.title))}}}", _symbols(latex_text(section.sentence))]
        lines += [f"The results are in {references}.", f"% {section.question}", ""]
        for one in section.exhibits:
            lines += _latex_figure(one) if one.chart else [rf"\input{{tables/{one.name}}}", ""]
    return "\n".join([*lines, r"\end{document}", ""])


def _latex_figure(one: Exhibit) -> list[str]:
    assert one.chart is not None
    caption = f"{one.chart.title}. {one.chart.caption}."
    return [
        f"% The numbers are in figures/{one.name}.csv; to repeat them:",
        *(f"%   {line}" for line in one.commands),
        *(r"\begin{figure}[htbp]", r"  \centering"),
        rf"  \includegraphics[width=\textwidth]{{figures/{one.name}}}",
        rf"  \caption{{{_symbols(latex_text(caption))}}}",
        *(rf"  \label{{fig:{one.name}}}", r"\end{figure}", ""),
    ]


def _symbols(text: str) -> str:
    """Return a LaTeX text with the symbols of the course: lambda, sigma, eta, n_s, n_batch; a label stays."""
    text = re.sub(r"(?<![:-])\b([Ll]ambda|sigma|eta)\b(?!-)", lambda found: rf"$\{found[1].lower()}$", text)
    return re.sub(r"n\\_(s|batch)\b", r"$n_{\\mathrm{\1}}$", text)
