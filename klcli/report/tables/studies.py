"""Tables of studies, with error bars over repeats, and the suggestion of a range test."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING

from klcli.report.tables.table import SPLITS, Row, Shown, Table, columns, fraction
from klcli.report.words import counted, images_words, network_name, numbered, sweep_name
from klcli.store.records import Epoch, Run, RunResult
from klcli.studies.plans import Suggestion, suggest
from klcli.studies.statistics import Sample

if TYPE_CHECKING:
    from klcli.procedures.searches import LambdaSearch
    from klcli.studies.lambda_search import Choice

MEASURES = ("accuracy", "loss", "cost")
ENDED = "complete", "diverged"  # states of a range test that went on until eta, or the cost, was too large
_INTERVAL = "mean:.4f; &std:.4f; &n:; low:.4f=95 % from; &high:.4f=to"


def sample_of(runs: Sequence[Run | RunResult], column: str) -> Sample | None:
    """Return the values of a column of the complete runs: numbers from before a divergence are no results."""
    complete = (getattr(run, column) for run in runs if run.state == "complete")
    values = tuple(value for value in complete if value is not None)
    return Sample(values) if values else None


def spread(sample: Sample | None, prefix: str = "") -> Row:
    """Return mean, std, n and the 95 % interval from low to high under prefixed keys, without missing values."""
    if sample is None:
        return {f"{prefix}n": 0}
    values = {"mean": sample.mean, "std": sample.std, "n": sample.n}
    if (half := sample.half_interval) is not None:
        values |= {"low": sample.mean - half, "high": sample.mean + half}
    return {f"{prefix}{key}": value for key, value in values.items()}


def cell(runs: Sequence[Run], column: str) -> Shown | None:
    """Return the mean of a column with its spread; None if no complete run has a value."""
    if (sample := sample_of(runs, column)) is None:
        return None
    numbers = [value for value in (sample.mean, sample.std) if value is not None]
    text = " ± ".join(map(fraction, numbers))
    return Shown(sample.mean, text, {"std": sample.std, "half_interval": sample.half_interval, "n": sample.n})


def search_table(search: "LambdaSearch") -> Table:
    """Every lambda of a search, the best first, with its state if it is not complete. Fits into 80 columns."""
    rows, order = [], {(one.stage, one.lam): one.order for one in search.tried}
    for stage, runs in search.stages:
        for lam in dict.fromkeys(run.config.lam for run in runs):
            mine = [run for run in runs if run.config.lam == lam]
            row: Row = {"lambda": lam, "stage": stage, "runs": ", ".join(str(run.id) for run in mine)}
            row |= {f"{split}_{name}": cell(mine, f"{split}_{name}") for split, name in product(SPLITS, MEASURES)}
            more = row["validation_accuracy"].more if row["validation_accuracy"] else {"n": 0}
            row |= {"n": more["n"], "half": more.get("half_interval")}
            rows.append(row | {"remark": _remark(lam, stage, mine, search.choice)})
    rows.sort(key=lambda row: order[row["stage"], row["lambda"]])
    repeated = any(len(runs) > len({run.config.lam for run in runs}) for _, runs in search.stages)
    interval = "&half:.4f=95 % ±; &n:; " if repeated else ""
    others = "??validation_loss:=loss; ???validation_cost:=cost; ???train_accuracy:=train; ?runs:=run; remark="
    head = columns(f"*lambda:.4g; stage; validation_accuracy:=validation; {interval}{others}")
    runs = [run for _, stage in search.stages for run in stage]
    what = f"Lambda search: {network_name(runs[0].config)} on {images_words(*runs)}"
    shown = "by validation accuracy, with validation loss and cost, and train accuracy"  # as long heads would not fit
    return Table(f"{what}, {shown} ({numbered('study', search.studies)})", head, rows)


def _remark(lam: float, stage: str, runs: Sequence[Run], choice: "Choice | None") -> str:
    ended = sorted(Counter(run.state for run in runs if run.state != "complete").items())
    remarks = [state if n == len(runs) else f"{n} of {len(runs)} {state}" for state, n in ended]
    if choice and (lam, stage) == (choice.chosen.lam, choice.chosen.stage):
        remarks.append("chosen")
    elif choice and (lam, stage) in {(one.lam, one.stage) for one in choice.plateau}:
        remarks.append("in 1 s.e.")
    return ", ".join(remarks)


def choice_sentence(choice: "Choice") -> str:
    """State the chosen lambda and the uncertainty of the choice."""
    low, high, others = choice.plateau[0].lam, choice.plateau[-1].lam, len(choice.plateau) - 1
    chosen = f"chosen lambda {choice.chosen.lam:.6g}, validation {choice.chosen.accuracy:.4f}"
    within = f"within one standard error ({choice.standard_error:.4f})"
    return f"{chosen}; " + (f"{others} more {within}, from {low:.4g} to {high:.4g}" if others else f"no other {within}")


def stages_note(search: "LambdaSearch") -> str:
    """State in what the stages differ besides lambda; empty if they can be compared."""
    from klcli.procedures.searches import mixed

    labels = mixed([run for _, runs in search.stages for run in runs])
    return f"The stages differ in {labels}: their accuracies cannot be compared." if labels else ""


def sigma_table(runs: Sequence[Run]) -> Table:
    """Every sigma by split, without and with BN side by side; a run without a number shows its state."""
    rows: list[Row] = []
    for (sigma, pair), split in product(_by_sigma(runs).items(), SPLITS):
        rows.append({"sigma": sigma, "split": split})
        for (bn, mine), name in product(enumerate(pair), MEASURES):
            why = next((run.state for run in mine if run.state != "complete"), None)
            rows[-1][f"{name}_{bn}"] = cell(mine, f"{split}_{name}") or why
    measures = "; ".join(f"{name}_0:={name}; &{name}_1:=with BN" for name in MEASURES)
    title = f"Sigma sweep: {sweep_name(runs)} on {images_words(*runs)} (study {runs[0].study_id})"
    return Table(title, columns(f"*sigma:.4g; *split; {measures}"), rows)


def _by_sigma(runs: Sequence[Run]) -> dict[float | None, tuple[list[Run], list[Run]]]:
    found: dict[float | None, tuple[list[Run], list[Run]]] = {}
    for run in runs:
        found.setdefault(run.config.sigma, ([], []))[run.config.batch_norm].append(run)
    return found


def interval_table(runs: Sequence[Run]) -> Table:
    """The test accuracy of every sigma over its repeats, without and with BN."""
    rows = [
        {"sigma": sigma, "bn": bn} | spread(sample_of(mine, "test_accuracy"))
        for sigma, pair in _by_sigma(runs).items()
        for bn, mine in zip(("no", "yes"), pair, strict=True)
    ]
    title = "Test accuracy over the repeats, with the 95 % interval of its mean"
    return Table(title, columns(f"*sigma:.4g; *bn=BN; {_INTERVAL}"), rows)


def repeats_table(title: str, runs: Sequence[Run]) -> Table:
    """Mean, standard deviation and 95 % interval over the complete runs, by split and measure."""
    keys = [(split, name, f"{split}_{name}") for split, name in product(SPLITS, MEASURES)]
    if n := max((run.snapshots or 0 for run in runs), default=0):
        mean, measured = f"mean of {n} {counted(n, 'snapshot')}", product(SPLITS[1:], ("accuracy", "loss"))
        keys += [(f"{split}, {mean}", name, f"ensemble_{split}_{name}") for split, name in measured]
    rows = [{"split": split, "measure": name} | spread(sample_of(runs, key)) for split, name, key in keys]
    return Table(title, columns(f"*split; *measure=; {_INTERVAL}"), rows)


def suggestion_of(run: Run, epochs: Sequence[Epoch]) -> Suggestion | None:
    """Return the suggestion from the evaluations of a range test; None before it has reached its end."""
    if run.state not in ENDED:
        return None
    etas = [epoch.learning_rate for epoch in epochs]
    return suggest(etas, [epoch.validation_accuracy for epoch in epochs], run.split.sizes()[1])


def range_notes(runs: Iterable[Run], epochs: Callable[[Run], Sequence[Epoch]]) -> list[str]:
    """Return the suggestion of each range test among the runs."""
    ranges = [run for run in runs if run.config.schedule == "range"]
    return [f"run {run.id}, {suggestion_sentence(run, epochs(run))}" for run in ranges]


def suggestion_sentence(run: Run, epochs: Sequence[Epoch]) -> str:
    """State the suggested limits of a range test, as options, and the rule."""
    if run.state not in ENDED:
        return f"no suggestion: eta has not reached {run.config.eta_max:g}, the end of the range ({run.state})"
    if (n := len(epochs)) < 3:
        cure = "give more --epochs or --evaluations-per-cycle"
        return f"no suggestion: a median of three needs more than {n} {counted(n, 'evaluation')}, {cure}"
    found = suggestion_of(run, epochs)
    if found is None:
        between = f"between {run.config.eta_min:g} and {run.config.eta_max:g}"
        return f"no suggestion: with no eta {between} has the validation accuracy risen by more than chance"
    best = max(epochs, key=lambda epoch: epoch.validation_accuracy)
    return (
        f"suggested: --eta-min {found.eta_min:.2g} --eta-max {found.eta_max:.2g} (where the median of three "
        "evaluations of the validation accuracy begins to rise, and where that median is highest; the highest single "
        f"evaluation is {best.validation_accuracy:.4f} at eta {best.learning_rate:.2g})"
    )
