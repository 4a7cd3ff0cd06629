"""Schema: every table and key that the document of a report may have, and what its values may be.

A new key is one line here, and the code that uses it; `klcli help reproduce` has the same tables, compared by a test.
"""

import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from klcli.published.report import CONCLUSIONS, ERRORS, PANELS, RESULTS
from klcli.settings.procedures import PIXELS

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


KINDS: dict[str, Callable[[Any], bool]] = {
    "a text of one line": _is_text,
    "a name of letters, digits, `.`, `-` and `_`": _is_name,
    "a fraction from 0 to 1": lambda value: _is_number(value, high=1),
    "a number, at least 0": _is_number,
    "a finite number": lambda value: _is_number(value, low=-math.inf),
    f"a whole number from 1 to {MAX_REPEATS}": _is_whole(MAX_REPEATS),
    f"a whole number from 1 to {PIXELS}": _is_whole(PIXELS),
    "a list of numbers, each at least 0": _are(_is_number),
    "a list of names": _are(_is_text),
    "a list of rows, as 7-T1": _are(_is_name),
    "true or false": lambda value: isinstance(value, bool),
    f"one of {', '.join(CONCLUSIONS)}": lambda value: isinstance(value, str) and value in CONCLUSIONS,
    "a number of a training, as test_accuracy": lambda value: isinstance(value, str) and value in RESULTS,
    "a table of settings": lambda value: isinstance(value, dict),
    "a list of tables": lambda value: isinstance(value, list) and bool(value),
    f"one of {', '.join(PANELS)}": lambda value: value in PANELS,
}
TEXT, NAME, FRACTION, NUMBER, FINITE, COUNT, SIZE, NUMBERS, NAMES, ROW_NAMES, *_MORE = KINDS
FLAG, CONCLUSION, QUANTITY, SETTINGS_TABLE, TABLES_LIST, PANEL = _MORE

REMARKS = {
    "reason": Key(TEXT, "why the number cannot be compared, or why there is none"),
    "note": Key(TEXT, "a remark that the reader needs"),
    "if_differs": Key(TEXT, "the known difference from our training; shown if the numbers differ"),
}
_ROW = {"row": Key(NAME, "the table or figure of the report, as 7-T1; begins with the number of the report", True)}


_TOLERANCE = Key(NUMBER, "the smallest difference that matters, if not klcli's own")
_MEANINGS = {
    "max_absolute": "largest absolute error",
    "relative_to_sum": "largest relative error, of the sum of both magnitudes",
    "relative_to_maximum": "largest relative error, of the larger of both magnitudes",
    "ratio_of_maxima": "largest absolute error, divided by the largest sum of both magnitudes",
    "gradient_mean": "mean of the entries",
    "gradient_std": "standard deviation of the entries",
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
    "same_validation_images": Key(FLAG, "whether its validation images are those of its settings; true if omitted"),
    "common": Key(SETTINGS_TABLE, "settings of every training and gradient check"),
    "experiments": Key(TABLES_LIST, "trainings"),
    "gradient_checks": Key(TABLES_LIST, "gradient checks"),
    "commentary": Key(TABLES_LIST, "statements without a number"),
    "conclusions": Key(TABLES_LIST, "statements about several trainings, which a number decides"),
    "figures": Key(TABLES_LIST, "figures, drawn from our runs"),
}
TABLES: dict[str, dict[str, Key]] = {
    "experiments": {
        "name": Key(TEXT, "of one experiment alone", True),
        "config": Key(SETTINGS_TABLE, "settings of its trainings, instead of the common ones"),
        "rows": Key(TABLES_LIST, "its published numbers", True),
        "repeats": Key(COUNT, "train at least this many seeds"),
        "same_validation_images": Key(FLAG, "the same, of this experiment"),
        "tolerance": _TOLERANCE,
        "other_lambdas": Key(NUMBERS, "more values of lambda to train, of which no number is published"),
        "as_published": Key(SETTINGS_TABLE, "settings of the mistake behind the numbers, for `--as-published`: "
                            "each training begins with the weights of the one before"),
        **REMARKS,
    },
    "gradient_checks": {
        "name": Key(TEXT, "of one check alone", True),
        "config": Key(SETTINGS_TABLE, "settings of the network, instead of the common ones", True),
        "lambdas": Key(NUMBERS, "values of lambda; the largest error of all of them counts", True),
        "rows": Key(TABLES_LIST, "its published numbers", True),
        "images": Key(SIZE, "use the first N training images"),
        "dims": Key(SIZE, "use the first N pixels of each"),
        "as_published": Key(SETTINGS_TABLE, "`images` and `lambdas` of the mistake, for `--as-published`"),
        **REMARKS,
    },
    "commentary": {
        **_ROW,
        "what": Key(TEXT, "the statement", True),
        "reason": Key(TEXT, "why there is no number to compare", True),
    },
    "conclusions": {
        **_ROW,
        "what": Key(TEXT, "the statement", True),
        "kind": Key(CONCLUSION, "the chosen lambda; training minus evaluated accuracy; the first minus the second; "
                    "spread over settings without and with BN; epochs until the first is ahead for good", True),
        "experiments": Key(NAMES, "the names of its experiments", True),
        "quantity": Key(QUANTITY, "what is compared; validation_accuracy if omitted"),
        "published": Key(FINITE, "the published number; or one of the next two"),
        "above": Key(FINITE, "the statement holds if ours is above it"),
        "below": Key(FINITE, "the statement holds if ours is below it"),
        "tolerance": _TOLERANCE,
        **REMARKS,
    },
    "figures": {
        "rows": Key(ROW_NAMES, "the rows that it shows, or its own name, with a reason", True),
        "panels": Key(PANEL, "curves of one experiment; of two, without and with BN; lambda; every sigma", True),
        "experiments": Key(NAMES, "the names of the experiments that it shows", True),
        "reason": Key(TEXT, "why no number of the report belongs to it"),
    },
}  # fmt: skip
ROWS: dict[str, dict[str, Key]] = {
    "experiments": {**_ROW, "tolerance": _TOLERANCE, **{name: _quantity(name) for name in RESULTS}, **REMARKS},
    "gradient_checks": {
        **_ROW,
        "tolerance": _TOLERANCE,
        "tensor": Key(TEXT, "W1, b1, gamma1, beta1, ...; without it, the largest error of all tensors"),
        **{name: _quantity(name) for name in ERRORS},
        **REMARKS,
    },
}
EXPERIMENTS_OF: Mapping[str, int] = {"training": 1, "bn": 2, "lambda": 1}  # the number that a figure's panels show
