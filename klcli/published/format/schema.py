"""Schema: every table and key that the document of a report may have, and what its values may be.

A new key is one line here, and the code that uses it; `klcli help reproduce` has the same tables, compared by a test.
"""

import math
import re
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from klcli.published.quirks import QUIRKS
from klcli.published.report import CONCLUSIONS, ERRORS, PANELS, RESULTS
from klcli.settings.procedures import TOLERANCES
from klcli.settings.train_config import PIXELS

MAX_REPEATS = 1000
_NAME = re.compile(r"[^\W_][\w.-]*")  # also part of the name of a picture's file


@dataclass(frozen=True)
class Key:
    """One key: the kind of its values, of KINDS, and its meaning on the page."""

    kind: str
    meaning: str
    is_required: bool = False


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and bool(value.strip())


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(_NAME.fullmatch(value))


def _is_number(value: Any, low: float = 0.0, high: float = math.inf) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < sys.float_info.max and low <= value <= high


def _is_whole(high: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and _is_number(value, 1, high)


def _are(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(map(check, value))


def _one_of(known: Collection[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in known


KINDS: dict[str, Callable[[Any], bool]] = {
    "a text of one line": _is_text,
    "a name of letters, digits, `.`, `-` and `_`": _is_name,
    "a fraction from 0 to 1": lambda value: _is_number(value, high=1),
    "a number, at least 0": _is_number,
    "a number above 0": lambda value: _is_number(value) and value > 0,
    "a number above 0 and below 1": lambda value: _is_number(value) and 0 < value < 1,
    "a finite number": lambda value: _is_number(value, low=-math.inf),
    f"a whole number from 1 to {MAX_REPEATS}": _is_whole(MAX_REPEATS),
    f"a whole number from 1 to {PIXELS}": _is_whole(PIXELS),
    "a list of numbers, each at least 0": _are(_is_number),
    "a list of names": _are(_is_text),
    "a list of rows, as 7-T1": _are(_is_name),
    "a table of settings": lambda value: isinstance(value, dict),
    "a list of tables": lambda value: isinstance(value, list) and bool(value),
    f"one of {', '.join(PANELS)}": _one_of(PANELS),
    f"one of {', '.join(CONCLUSIONS)}": _one_of(CONCLUSIONS),
    f"one of {', '.join(RESULTS)}": _one_of(RESULTS),
    f"one of {', '.join(TOLERANCES)}": _one_of(TOLERANCES),
    f"a list, of {', '.join(QUIRKS)}": lambda value: value == [] or _are(_one_of(QUIRKS))(value),
    "true or false": lambda value: isinstance(value, bool),
    "a table": lambda value: isinstance(value, dict),
}
(
    TEXT, NAME, FRACTION, NUMBER, POSITIVE, STEP, FINITE, COUNT, SIZE, NUMBERS, NAMES, ROW_NAMES, SETTINGS_TABLE,
    TABLES_LIST, PANEL, CONCLUSION, RESULT, DIFFERENCES, QUIRK_NAMES, TRUTH, TABLE,
) = KINDS  # fmt: skip

REMARKS = {
    "reason": Key(TEXT, "why there is no number, or why ours may be another"),
    "note": Key(TEXT, "a remark that the reader needs"),
    "if_differs": Key(TEXT, "the known difference from our training; shown if the numbers differ"),
}
_ROW = {"row": Key(NAME, "the table or figure of the report, as 7-T1; begins with the number of the report", True)}


_MEANINGS = {
    "max_absolute": "largest absolute error",
    "relative_to_sum": "largest relative error, of the sum of both magnitudes",
    "relative_to_maximum": "largest relative error, of the larger of both magnitudes",
    "ratio_of_maxima": "largest absolute error, divided by the largest sum of both magnitudes",
    "gradient_mean": "mean of the entries",
    "gradient_std": "standard deviation of the entries",
    "numerical_mean": "mean of the entries of the difference quotient",
    "numerical_std": "standard deviation of the entries of the difference quotient",
    "difference_mean": "mean of the differences",
    "difference_std": "standard deviation of the differences",
    "difference_max": "largest difference, with its sign",
    "ratio_of_sums": "sum of the absolute errors, divided by that of the sums of both gradients",
    "equal_decimals": "decimals to which all entries agree",
    "mismatches": "share of the entries that do not agree to six decimals",
    "best_validation_accuracy": "highest of all evaluations",
}


def _quantity(name: str) -> Key:
    split, _, measure = name.partition("_")
    after = f"{measure} on the {'training' if split == 'train' else split} images, after the last update"
    meaning = _MEANINGS.get(name, after if name in RESULTS else name.replace("_", " "))
    is_signed = name in ERRORS and name.endswith(("_mean", "difference_max"))
    return Key(FRACTION if name.endswith("accuracy") else FINITE if is_signed else NUMBER, meaning)


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
_METHOD = {
    "is_chain": Key(TRUTH, "whether each training begins with the weights of the one before"),
    "study": Key(TEXT, "a study of its own that trains it; chains of one study continue each other"),
    "quirks": Key(QUIRK_NAMES, "what the code of the report does and klcli does not"),
}
VARIANT = {
    "name": Key(TEXT, "`as the text says`", True),
    "config": Key(SETTINGS_TABLE, "settings instead of those of the experiment"),
    "repeats": Key(COUNT, "as that of the experiment, which it replaces"),
    "lambdas": Key(NUMBERS, "as those of the experiment, which it replaces"),
    **_METHOD,
    **REMARKS,
}
TABLES: dict[str, dict[str, Key]] = {
    "experiments": {
        "name": Key(TEXT, "of one experiment alone", True),
        "config": Key(SETTINGS_TABLE, "settings of its trainings, instead of the common ones"),
        "rows": Key(TABLES_LIST, "its published numbers", True),
        "repeats": Key(COUNT, "train at least this many seeds"),
        "lambdas": Key(NUMBERS, "values of lambda to train, in this order, also those without a published number"),
        "tolerance": _TOLERANCE,
        **_METHOD,
        "variant": Key(TABLE, "trains the same rows otherwise; its lines are shown and counted apart"),
        **REMARKS,
    },
    "gradient_checks": {
        "name": Key(TEXT, "of one check alone", True),
        "config": Key(SETTINGS_TABLE, "settings of the network, instead of the common ones", True),
        "lambdas": Key(NUMBERS, "values of lambda; the largest error of all of them counts", True),
        "rows": Key(TABLES_LIST, "its published numbers", True),
        "repeats": Key(COUNT, "draw the weights this many times, for a single lambda; 39 or more give an interval"),
        "images": Key(SIZE, "use the first N training images"),
        "dims": Key(SIZE, "use the first N pixels of each"),
        "h": Key(STEP, "step of the difference quotients"),
        "method": Key(DIFFERENCES, "kind of the difference quotients"),
        **REMARKS,
    },
    "conclusions": {
        **_ROW,
        "what": Key(TEXT, "the conclusion", True),
        "kind": Key(CONCLUSION,
                    "the chosen lambda; training minus evaluated accuracy, loss or cost; the first minus the "
                    "second; spread over settings without and with BN; epochs until the first is ahead for good", True),
        "experiments": Key(NAMES, "the names of the experiments that it is about", True),
        "quantity": Key(RESULT, "what is compared; validation_accuracy"),
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
        "panels": Key(PANEL, "curves of one experiment; of two, without and with BN; lambda; every sigma", True),
        "experiments": Key(NAMES, "the names of the experiments that it shows", True),
        "reason": Key(TEXT, "why no number of the report belongs to it"),
    },
}  # fmt: skip
ROWS: dict[str, dict[str, Key]] = {
    "experiments": {**_ROW, **{name: _quantity(name) for name in RESULTS}, "tolerance": _TOLERANCE, **REMARKS},
    "gradient_checks": {
        **_ROW,
        "tensor": Key(TEXT, "W1, b1, gamma1, beta1, ...; without it, the largest error of all tensors"),
        **{name: _quantity(name) for name in ERRORS},
        **REMARKS,
    },
}
