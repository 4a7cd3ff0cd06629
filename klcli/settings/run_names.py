"""Run names: `7`, `last`, `best`, `-1` for the newest run, `-2` for the one before it, `1-3` for a range."""

import re
from collections.abc import Iterable
from itertools import groupby

from klcli.errors import ConfigError
from klcli.settings.setting import MAX_INTEGER, require

LAST, BEST = "last", "best"
SHOWN_NAMES = 8  # more do not fit a line
NAMES_HELP = "Numbers as 7 or 1-3, -1 for the newest run, `last` complete one, or `best`."
NAME_HELP = "A number, -1 for the newest run, `last` complete one, or `best`."


def parsed(text: str, asked: str) -> str | tuple[int, int]:
    """Return `last`, `best`, or the first and the last number of a range; of a single run, its number twice.

    A negative number counts from the newest run. Raises ConfigError, which names the option or the word `asked`.
    """
    if text in (LAST, BEST):
        return text
    found = re.fullmatch(r"(-?[0-9]+)|([0-9]+)-([0-9]+)", text)
    if found is None:
        usage = "give the number of a run, as 7, a range, as 1-3, -1 for the newest one, `last`, or `best`"
        raise ConfigError(f"{asked} {text!r}: {usage}")
    numbers = [one for one in found.groups() if one is not None]
    is_large = any(len(one) > len(str(MAX_INTEGER)) + 1 or abs(int(one)) > MAX_INTEGER for one in numbers)
    require(not is_large, f"{asked} {text}: the number is too large, give that of a run")
    first, last = int(numbers[0]), int(numbers[-1])
    require(first <= last, f"{asked} {text}: the range descends, give {last}-{first}")
    return first, last


def parsed_study(text: str, asked: str) -> int:
    """Return the number of a study; a negative one counts from the newest, `last` is -1. Raises ConfigError."""
    usage = f"{asked} {text!r}: give the number of a study, as 3, -1 for the newest one, or `last`"
    require(text == LAST or re.fullmatch("-?[0-9]{1,18}", text) is not None, usage)
    return -1 if text == LAST else int(text)


def names_of(numbers: Iterable[int]) -> list[str]:
    """Return the shortest names of runs: `1`, `3-5`, `8`."""
    ordered = enumerate(sorted(numbers))  # consecutive numbers have one distance from their position
    ranges = [[number for _, number in own] for _, own in groupby(ordered, lambda pair: pair[1] - pair[0])]
    return [f"{own[0]}-{own[-1]}" if len(own) > 1 else str(own[0]) for own in ranges]


def ranges_words(numbers: Iterable[int]) -> str:
    """`1, 3-5, 8`; a long list ends with the number of runs left out."""
    numbers = sorted(numbers)
    names = names_of(numbers)[:SHOWN_NAMES]
    last = int(names[-1].rpartition("-")[2]) if names else 0
    more = sum(number > last for number in numbers)
    return ", ".join(names) + (f" and {more} more" if more else "")


def runs_words(numbers: Iterable[int]) -> str:
    """`run 3`, `runs 3-5, 8`; empty for none."""
    numbers = [*numbers]
    return f"run{'s' * (len(numbers) > 1)} {ranges_words(numbers)}" if numbers else ""
