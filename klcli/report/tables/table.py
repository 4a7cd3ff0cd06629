"""Tables: stored records gathered into rows, and how they look in a terminal."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from klcli.report.words import images_words
from klcli.settings.train_config import CYCLIC, TRANSDUCTIVE

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

Row = Any
UNLIMITED = 10_000  # columns


@dataclass(frozen=True)
class Column:
    """One column: which value of a row, under which title, in which form."""

    key: str
    title: str
    form: Callable[[Any], str] = str
    is_number: bool = True


@dataclass(frozen=True)
class Table:
    """What a person reads: rows of values that keep their full precision until they are shown."""

    title: str
    columns: tuple[Column, ...]
    rows: Sequence[Row]

    def cells(self) -> list[list[str]]:
        """Return the text of every cell; a value that is missing is a dash."""
        return [
            ["-" if row.get(column.key) is None else column.form(row[column.key]) for column in self.columns]
            for row in self.rows
        ]

    def show(self, console: "Console") -> None:
        """Print the table at its full width: a terminal that is narrower wraps it, but no digit is lost."""
        from rich.console import Console

        table = self.to_rich()
        console.print(self.title, style="bold", soft_wrap=True)
        # Without markup, as a session prints: a name like [draft] must be measured as it will stand there.
        table.width = Console(width=UNLIMITED, markup=False, emoji=False).measure(table).maximum
        console.print(table, crop=False)

    def to_rich(self) -> "RichTable":
        """Return the table without its title, for a Rich console."""
        from rich import box
        from rich.table import Table as RichTable

        table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in self.columns:
            table.add_column(column.title, justify="right" if column.is_number else "left", no_wrap=True)
        for cells in self.cells():
            table.add_row(*cells)
        return table


def fraction(value: float) -> str:
    """Four digits: an accuracy on 10 000 images, a loss or a cost."""
    return f"{value:.4f}"


def significant(value: float) -> str:
    """Four significant digits, for what spans decades: lambda, sigma, eta."""
    return f"{value:.4g}"


def seconds(value: float) -> str:
    """Seconds to a tenth."""
    return f"{value:.1f}"


def duration(value: float) -> str:
    """Seconds as a person says them: `24.3 s`, `12 min 5 s`."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def network_name(row: Row) -> str:
    """`3-layer 50-50 with BN`; k counts the linear layers."""
    widths = row["hidden"].split()
    name = f"{len(widths) + 1}-layer {'-'.join(widths)}"
    return f"{name} {bn_words(row)}" if row["batch_norm"] else name


def bn_words(row: Row) -> str:
    """`with BN after ReLU (adaptive statistics, transductive)`; what is the default is left away."""
    words = "with BN" + (" after ReLU" if row["bn_position"] == "after" else "")
    policy = row.get("bn_statistics")
    return words if policy in (None, "ema") else f"{words} ({policy} statistics{transductive_words(policy)})"


def statistics_words(runs: Sequence[Row]) -> str:
    """`, adaptive statistics, transductive` for the title of runs with and without BN."""
    policy = next((run.get("bn_statistics") for run in runs if run["batch_norm"]), None)
    return "" if policy in (None, "ema") else f", {policy} statistics{transductive_words(policy)}"


def transductive_words(policy: str | None) -> str:
    """`, transductive` where test images have had a part in their own classification."""
    return ", transductive" if policy in TRANSDUCTIVE else ""


def settings_line(run: Row, omit: tuple[str, ...] = (), together_with: Sequence[Row] = ()) -> str:
    """The settings of a run for the caption of a picture, without those that its axes show.

    The picture may show others as well, which differ in their seeds.
    """
    words = {
        "dataset": images_words(run) if run.get("split") else run["dataset"],
        "lambda": f"lambda {run['lambda']:g}",
        "eta": f"eta {run['eta_min']:g} to {run['eta_max']:g}"
        if run["schedule"] != "constant"
        else f"eta {run['eta_max']:g}",
        "cycles": f"{run['cycles']:g} cycles of 2 n_s"
        if run["schedule"] in CYCLIC
        else f"{run['schedule']} over {run['epochs']:g} epochs",
        "n_s": f"n_s {run['step_size']}",
        "n_batch": f"n_batch {run['batch_size']}",
        "options": options_words(run),
        "initializer": _initializer(run),
        "seed": _seeds_words({one["seed"] for one in (run, *together_with)}),
    }
    return ", ".join(word for key, word in words.items() if word and key not in omit)


def _seeds_words(seeds: set[int]) -> str:
    """`seed 0`, `seeds 0 to 2`, `seeds 1, 5`."""
    ordered = sorted(seeds)
    if len(seeds) > 2 and ordered[-1] - ordered[0] == len(seeds) - 1:
        return f"seeds {ordered[0]} to {ordered[-1]}"
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, ordered))}"


def options_words(run: Row) -> str:
    """`cosine, adam, weight decay 0.01`: how a run was trained, where that is not the default."""
    names = ("schedule", "cyclical"), ("optimizer", "sgd")
    words = [run[name] for name, usual in names if run.get(name, usual) != usual]
    if run.get("flip"):
        words.append("flips")
    for name, usual in _OPTIONS.items():
        value = run.get(name, usual)
        if value != usual:
            words.append(f"{name.replace('_', ' ')} {value:g}")
    config = json.loads(run.get("config") or "{}")
    if config.get("standardise", "pixel") != "pixel":
        words.append(f"standardised by {config['standardise']}")
    if not config.get("shuffle", True):
        words.append("not shuffled")
    return ", ".join(words)


_OPTIONS = {  # and what they are by default
    "momentum": 0.0, "weight_decay": 0.0, "eta_decay": 1.0, "shift": 0, "mixup": 0.0, "dropout": 0.0,
    "label_smoothing": 0.0, "weight_average": 0.0, "whitening": None,
}  # fmt: skip


def splits_table(title: str, row: Row) -> Table:
    """Loss, cost and accuracy of one run on its splits."""
    rows = [
        {"split": split} | {name: row[f"{split}_{name}"] for name in ("loss", "cost", "accuracy")}
        for split in ("train", "validation", "test")
    ]
    for split in ("validation", "test") if row.get("snapshots") else ():
        ensemble = {name: row[f"ensemble_{split}_{name}"] for name in ("loss", "accuracy")}
        rows.append({"split": f"{split}, mean of {row['snapshots']} snapshots"} | ensemble)
    columns = (
        Column("split", "", is_number=False),
        Column("loss", "loss", fraction),
        Column("cost", "cost", fraction),
        Column("accuracy", "accuracy", fraction),
    )
    return Table(title, columns, rows)


def gradient_check_table(check: Row) -> Table:
    """The tensors of one checked network, in the order of its layers."""
    columns = (
        Column("tensor", "tensor", is_number=False),
        Column("entries", "entries"),
        Column("kinks", "kinks"),
        Column("max_absolute", "max abs", scientific),
        Column("relative_to_sum", "rel to sum", scientific),
        Column("relative_to_maximum", "rel to max", scientific),
        Column("ratio_of_maxima", "of maxima", scientific),
        Column("gradient_mean", "mean", scientific),
        Column("gradient_std", "std", scientific),
        Column("verdict", "", is_number=False),
    )
    rows = [error | {"verdict": "pass" if error["passed"] else "FAIL"} for error in check["errors"]]
    return Table(gradient_check_title(check), columns, rows)


def gradient_check_title(check: Row) -> str:
    """`3-layer 50-50 with BN, lambda 0.01`, or the lambdas of a group of members."""
    lambdas = check["lambda"].split()
    config = json.loads(check["configs"])[0] if "configs" in check else {}
    options = [
        f"{name.replace('_', ' ')} {config[name]:g}" for name in ("dropout", "label_smoothing") if config.get(name)
    ]
    name = ", ".join([network_name(check), *options])
    if len(lambdas) == 1:
        return f"{name}, lambda {lambdas[0]}"
    return f"{name}, {len(lambdas)} members with lambda {', '.join(lambdas)}"


def gradient_verdict(checks: Sequence[Row]) -> str:
    """One line: how many tensors pass, by which rule, and how close it was."""
    first = checks[0]
    tensors = [error for check in checks for error in check["errors"]]
    passed = sum(error["passed"] for error in tensors)
    worst = max(error["max_absolute"] for error in tensors)
    kinks = sum(error["kinks"] for error in tensors)
    verdict = "PASS" if passed == len(tensors) else "FAIL"
    rule = f"max abs < {first['atol']:g} or rel to sum < {first['rtol']:g}"
    return (
        f"{verdict}: {passed} of {len(tensors)} tensors of {len(checks)} networks have {rule}; "
        f"largest max abs {worst:.1e}, {kinks} kinks"
    )


def gradient_method(check: Row) -> str:
    """How a suite was checked."""
    return (
        f"{check['method']} differences with h {check['h']:g} in float64, "
        f"on {check['images']} {check['dataset']} images of {check['dims']} pixels"
    )


def scientific(value: float) -> str:
    """Two digits and a power of ten: an error."""
    return f"{value:.1e}"


def _initializer(run: Row) -> str:
    return run["initializer"] if run["sigma"] is None else f"sigma {run['sigma']:g}"
