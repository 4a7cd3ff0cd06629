"""Schema: every table and key that the document of a report may have, and what its values may be.

A new key is one line here, and the code that uses it; `klcli help reproduce` has the same tables, compared by a test.
"""

import math
import re
import sys
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from klcli.published.quirks import QUIRKS
from klcli.settings.procedures import TOLERANCES
from klcli.settings.train_config import PIXELS

MAX_REPEATS = 1000
CONCLUSIONS = ("lambda", "gap", "difference", "spread", "epochs")  # kinds; conclusions.py defines them
PANELS = ("training", "bn", "lambda", "sigma")
_NAME = re.compile(r"[^\W_][\w.-]*")  # also part of the name of a picture's file


class Kind(NamedTuple):
    """What a value may be: in the words of the page, and as a test."""

    words: str
    accepts: Callable[[Any], bool]


class Key(NamedTuple):
    """One key, with its meaning on the page."""

    kind: Kind
    meaning: str
    is_required: bool = False


def _is_number(value: Any, low: float = 0.0, high: float = math.inf) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < sys.float_info.max and low <= value <= high


def _whole(high: int) -> Kind:
    return Kind(f"a whole number from 1 to {high}", lambda value: isinstance(value, int) and _is_number(value, 1, high))


def _one_of(known: Collection[str]) -> Kind:
    return Kind(f"one of {', '.join(known)}", lambda value: isinstance(value, str) and value in known)


def _list(words: str, kind: Kind) -> Kind:
    return Kind(words, lambda value: isinstance(value, list) and bool(value) and all(map(kind.accepts, value)))


TEXT = Kind("a text of one line", lambda value: isinstance(value, str) and value.isprintable() and bool(value.strip()))
NAME = Kind(
    "a name of letters, digits, `.`, `-` and `_`", lambda value: isinstance(value, str) and bool(_NAME.fullmatch(value))
)
FRACTION = Kind("a fraction from 0 to 1", lambda value: _is_number(value, high=1))
NUMBER = Kind("a number, at least 0", _is_number)
POSITIVE = Kind("a number above 0", lambda value: _is_number(value) and value > 0)
STEP = Kind("a number above 0 and below 1", lambda value: _is_number(value) and 0 < value < 1)
FINITE = Kind("a finite number", lambda value: _is_number(value, low=-math.inf))
TRUTH = Kind("true or false", lambda value: isinstance(value, bool))
TABLE = Kind("a table", lambda value: isinstance(value, dict))
SETTINGS_TABLE = Kind("a table of settings", TABLE.accepts)
TABLES_LIST = Kind("a list of tables", lambda value: isinstance(value, list) and bool(value))
NUMBERS = _list("a list of numbers, each at least 0", NUMBER)
NAMES = _list("a list of names", TEXT)
ROW_NAMES = _list("a list of rows, as 7-T1", NAME)
QUIRK_NAMES = Kind(
    f"a list, of {', '.join(QUIRKS)}",
    lambda value: isinstance(value, list) and all(map(_one_of(QUIRKS).accepts, value)),
)

# About a number; the remarks of a row replace those of its experiment.
REMARKS = {
    "reason": Key(TEXT, "why there is no number, or why ours may be another"),
    "note": Key(TEXT, "a remark that the reader needs"),
    "if_differs": Key(TEXT, "the known difference from our training; shown if the numbers differ"),
}
_ROW = {"row": Key(NAME, "the table or figure of the report, as 7-T1; begins with the number of the report", True)}

# Published quantities of a training: fields of Run. `best` is the highest of all evaluations.
RESULTS = {
    f"{split}_{measure}": Key(
        FRACTION if measure == "accuracy" else NUMBER, f"{measure} on the {images} images, after the last update"
    )
    for split, images in (("train", "training"), ("validation", "validation"), ("test", "test"))
    for measure in ("accuracy", "loss", "cost")
} | {"best_validation_accuracy": Key(FRACTION, "highest of all evaluations")}
# Published quantities of a checked tensor: fields of GradientError.
ERRORS = {
    "max_absolute": Key(NUMBER, "largest absolute error"),
    "relative_to_sum": Key(NUMBER, "largest relative error, of the sum of both magnitudes"),
    "relative_to_maximum": Key(NUMBER, "largest relative error, of the larger of both magnitudes"),
    "ratio_of_maxima": Key(NUMBER, "largest absolute error, divided by the largest sum of both magnitudes"),
    "gradient_mean": Key(FINITE, "mean of the entries"),
    "gradient_std": Key(NUMBER, "standard deviation of the entries"),
    "equal_decimals": Key(NUMBER, "decimals to which all entries agree"),
    "mismatches": Key(FRACTION, "share of the entries that do not agree to six decimals"),
    "ratio_of_sums": Key(NUMBER, "sum of the absolute errors, divided by that of the sums of both gradients"),
    "numerical_mean": Key(FINITE, "mean of the entries of the difference quotient"),
    "numerical_std": Key(NUMBER, "standard deviation of the entries of the difference quotient"),
    "difference_mean": Key(FINITE, "mean of the differences"),
    "difference_std": Key(NUMBER, "standard deviation of the differences"),
    "difference_max": Key(FINITE, "largest difference, with its sign"),
}
DOCUMENT = {
    "report": Key(NAME, "number or short name of the report", True),
    "course": Key(TEXT, "where it was handed in or published", True),
    "date": Key(TEXT, "when", True),
    "summary": Key(TEXT, "its content in a line", True),
    "conditions": Key(TEXT, "the version that runs, if text and code of the report differ"),
    "same_validation_images": Key(TRUTH, "whether the report validated on the images that the settings give; true"),
    "common": Key(SETTINGS_TABLE, "settings of every training and gradient check"),
    "experiments": Key(TABLES_LIST, "trainings"),
    "gradient_checks": Key(TABLES_LIST, "gradient checks"),
    "conclusions": Key(TABLES_LIST, "what the report says about several trainings"),
    "commentary": Key(TABLES_LIST, "statements without a number"),
    "figures": Key(TABLES_LIST, "figures, drawn from our runs"),
}
_TOLERANCE = Key(POSITIVE, "the smallest difference that matters")
TABLES: dict[str, dict[str, Key]] = {
    "experiments": {
        "name": Key(TEXT, "of one experiment alone", True),
        "config": Key(SETTINGS_TABLE, "settings of its trainings, instead of the common ones"),
        "rows": Key(TABLES_LIST, "its published numbers", True),
        "repeats": Key(_whole(MAX_REPEATS), "train at least this many seeds"),
        "lambdas": Key(NUMBERS, "values of lambda to train, in this order, also those without a published number"),
        "tolerance": _TOLERANCE,
        "is_chain": Key(TRUTH, "whether each training begins with the weights of the one before"),
        "study": Key(TEXT, "a study of its own that trains it; chains of one study continue each other"),
        "quirks": Key(QUIRK_NAMES, "what the code of the report does and klcli does not"),
        "variant": Key(TABLE, "trains the same rows otherwise; its lines are shown and counted apart; keys: `name`, "
                       "as `as the text says`, and those of the experiment but `rows` and `tolerance`"),
        **REMARKS,
    },
    "gradient_checks": {
        "name": Key(TEXT, "of one check alone", True),
        "config": Key(SETTINGS_TABLE, "settings of the network, instead of the common ones", True),
        "lambdas": Key(NUMBERS, "values of lambda; the largest error of all of them counts", True),
        "rows": Key(TABLES_LIST, "its published numbers", True),
        "repeats": Key(_whole(MAX_REPEATS),
                       "draw the weights this many times, for a single lambda; 39 or more give an interval"),
        "images": Key(_whole(PIXELS), "use the first N training images"),
        "dims": Key(_whole(PIXELS), "use the first N pixels of each"),
        "h": Key(STEP, "step of the difference quotients"),
        "method": Key(_one_of(TOLERANCES), "kind of the difference quotients"),
        **REMARKS,
    },
    "conclusions": {
        **_ROW,
        "what": Key(TEXT, "the conclusion", True),
        "kind": Key(_one_of(CONCLUSIONS),
                    "lambda: the chosen one; gap: training minus evaluated accuracy, loss or cost; difference: the "
                    "first experiment minus the second; spread: that over settings without BN minus that with BN; "
                    "epochs: until the first is ahead of the second for good", True),
        "experiments": Key(NAMES, "the names of the experiments that it is about", True),
        "quantity": Key(_one_of(RESULTS), "what is compared; validation_accuracy"),
        "published": Key(FINITE, "the number of the report; or one of the next two"),
        "above": Key(FINITE, "the statement holds if ours is above it"),
        "below": Key(FINITE, "the statement holds if ours is below it"),
        "tolerance": _TOLERANCE,
        **REMARKS,
    },
    "commentary": {
        **_ROW,
        "what": Key(TEXT, "the statement", True),
        "reason": Key(TEXT, "why there is no number to compare", True),
    },
    "figures": {
        "rows": Key(ROW_NAMES, "the rows that it shows, or its own name, with a reason", True),
        "panels": Key(_one_of(PANELS),
                      "curves of one experiment; of two, without and with BN; lambda; every sigma", True),
        "experiments": Key(NAMES, "the names of the experiments that it shows", True),
        "reason": Key(TEXT, "why no number of the report belongs to it"),
    },
}  # fmt: skip
# A variant replaces these keys of its experiment.
VARIANT = {"name": Key(TEXT, "`as the text says`", True)} | {
    key: one for key, one in TABLES["experiments"].items() if key not in ("name", "rows", "tolerance", "variant")
}
ROWS: dict[str, dict[str, Key]] = {
    "experiments": {**_ROW, **RESULTS, "tolerance": _TOLERANCE, **REMARKS},
    "gradient_checks": {
        **_ROW,
        "tensor": Key(TEXT, "W1, b1, gamma1, beta1, ...; without it, the largest error of all tensors"),
        **ERRORS,
        **REMARKS,
    },
}
