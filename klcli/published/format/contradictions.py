"""Contradictions: what a report cannot have although each of its keys is sound.

They are no part of `parse`, which also opens the reports that are stored with studies of an older klcli.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from klcli.published.format.places import Path
from klcli.published.format.schema import RESULTS
from klcli.published.quirks import impossible
from klcli.published.report import Experiment, Report, Row
from klcli.settings.train_config import TrainConfig

PERCENT = "accuracies are fractions from 0 to 1 (a percentage divided by 100)"
BEST, AT_THE_END = "best_validation_accuracy", "needs curves, evaluations_per_cycle = 0 evaluates at the end alone"
_ACCURACIES = [one for one in RESULTS if one.endswith("accuracy")]
# The quantities of a conclusion, where not every one has a meaning.
_QUANTITIES = {
    "lambda": _ACCURACIES,  # the highest is the best
    "gap": [one for one in RESULTS if not one.startswith("train")],
    "epochs": [one for one in RESULTS if one.startswith(("train", "validation"))],  # measured during the training
}


def contradictions(document: Row, report: Report) -> Iterator[tuple[Path, str]]:
    """Yield the place and the words of each contradiction in the document of a parsed report."""
    experiments = {one.name: one for one in report.experiments}
    yield from _of_methods(document, report)
    for place, table in _tables(document, "gradient_checks"):
        if table.get("repeats", 1) > 1 and len(table["lambdas"]) > 1:
            yield place, f"{table['name']}: repeats draw weights for one lambda, give one"
    about = [*_tables(document, "conclusions"), *_tables(document, "figures")]
    if lost := [(place, one) for place, table in about for one in table["experiments"] if one not in experiments]:
        cure = "a row without a number is not trained, give its experiment `lambdas`"
        yield from (((*place, "experiments"), f"no training of {one}: {cure}") for place, one in lost)
        return
    for place, table in _tables(document, "conclusions"):
        kind, quantity = table["kind"], table.get("quantity", "validation_accuracy")
        if words := _of_conclusion(table, experiments):
            yield place, f"conclusion {table['row']}: {words}"
            continue
        if quantity not in (known := _QUANTITIES.get(kind, RESULTS)):
            yield (*place, "quantity"), f"quantity {quantity!r}: {kind} is of one of {', '.join(known)}"
        is_share = quantity in _ACCURACIES and kind in ("gap", "difference", "spread")
        keys = [key for key in ("published", "above", "below", "tolerance") if is_share and abs(table.get(key, 0)) > 1]
        yield from (((*place, key), f"{key} = {table[key]:g}: {PERCENT}") for key in keys)
        if kind == "lambda":
            yield from _of_searches((*place, "experiments"), [experiments[one] for one in table["experiments"]])
    for place, table in _tables(document, "figures"):
        shown = [experiments[one] for one in table["experiments"]]
        if table["panels"] == "lambda":
            yield from _of_searches((*place, "experiments"), shown)
        if table["panels"] == "sigma":
            for one in (one for one in shown if any(config.sigma is None for config in one.configs)):
                yield (*place, "experiments"), f"panels sigma: {one.name!r} has no `sigma` in every row"


def _of_conclusion(table: Row, experiments: Mapping[str, Experiment]) -> str | None:
    """Return why these experiments cannot have a conclusion, None if they can."""
    kind, names = table["kind"], table["experiments"]
    numbers = [table[key] for key in ("published", "above", "below") if key in table]
    if len(numbers) != 1:
        return f"give one of published, above and below, not {len(numbers)} of them"
    configs = [config for name in names for config in experiments[name].configs]
    n = {"lambda": (1,), "gap": (1, 2), "difference": (2,), "epochs": (2,)}.get(kind, (len(names),))
    measured = kind if kind == "epochs" else table.get("quantity")
    is_tried = any(one.lam == table.get("published") for one in configs)
    cases = [  # the first that is true
        (len(names) not in n, f"{kind} is of {' or '.join(map(str, n))} experiments, {len(names)} are named"),
        (kind not in ("lambda", "spread") and len(configs) != len(names),
         f"{kind} is of experiments with one setting each, these have {len(configs)}"),
        (kind == "lambda" and not is_tried,
         f"{names[0]} does not try the lambda {numbers[0]:g}, name a published one of it"),
        (kind == "spread" and len({one.batch_norm for one in configs}) == 1,
         "a spread compares settings without and with BN, these have only one of them"),
        (kind == "epochs" and "published" in table and "tolerance" not in table,
         "a published number of epochs needs a tolerance, in epochs"),
        (measured in ("epochs", BEST) and any(one.evaluations_per_cycle == 0 for one in configs),
         f"{measured} {AT_THE_END}"),
    ]  # fmt: skip
    return next((words for is_true, words in cases if is_true), None)


def _of_searches(place: Path, experiments: Sequence[Experiment]) -> Iterator[tuple[Path, str]]:
    for one in experiments:
        if len({replace(config, lam=0.0) for config in one.configs}) > 1:
            cure = "make the others an experiment of their own"
            yield place, f"the trainings of {one.name!r} differ in more than `lam`: {cure}"


def _of_methods(document: Row, report: Report) -> Iterator[tuple[Path, str]]:
    """Yield the quirks and chains that cannot be trained as the document says, and tolerances of more than all."""
    tables = dict[str, tuple[Path, Row]]()
    for place, table in _tables(document, "experiments"):
        own = {table["name"]: (place, table)}
        if variant := table.get("variant"):
            own[f"{table['name']}, {variant['name']}"] = (*place, "variant"), table | variant
        for name in own.keys() & tables.keys():
            yield (*own[name][0], "name"), f"a second {name!r}, as a variant is called with its experiment: rename one"
        tables |= own
        for index, row in enumerate(table["rows"]):
            if (tolerance := row.get("tolerance", table.get("tolerance", 0))) > 1 and {*_ACCURACIES} & row.keys():
                yield (*place, "rows", index), f"tolerance = {tolerance:g}: {PERCENT}"
    seen = dict[tuple[str, TrainConfig], str]()  # the trainings of the chains, with their experiments
    networks = dict[str, tuple[Any, ...]]()  # of the chains of a method
    for one in report.experiments:
        place, table = tables[one.name]
        yield from (((*place, "quirks"), words) for words in impossible(one.quirks, one.configs))
        if not one.is_chain:
            continue
        lambdas, chain = table.get("lambdas", []), one.method
        again = [lam for index, lam in enumerate(lambdas) if lam in lambdas[:index]]
        again += [config.lam for config in one.configs if seen.setdefault((chain, config), one.name) != one.name]
        if again:
            yield place, f"lam {again[0]:g} is trained twice in one chain, its lines could not be told apart"
        parts = [(config.hidden, config.batch_norm, config.whitening, config.split) for config in one.configs]
        if any(networks.setdefault(chain, part) != part for part in parts):
            yield place, "a chain keeps its network and images, one `hidden`, `batch_norm`, `whitening` and `split`"


def _tables(document: Row, kind: str) -> Iterator[tuple[Path, Row]]:
    for index, table in enumerate(document.get(kind, [])):
        yield (kind, index), table
