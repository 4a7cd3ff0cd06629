"""The names of runs, written in few words, and read again."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klcli.settings.run_names import names_of, parsed, ranges_words, runs_words


@pytest.mark.parametrize(
    ("words", "numbers", "expected"),
    [
        (ranges_words, (8, 1, 5, 3, 4), "1, 3-5, 8"),
        (ranges_words, range(0, 40, 2), "0, 2, 4, 6, 8, 10, 12, 14 and 12 more"),
        (runs_words, (3,), "run 3"),
        (runs_words, (4, 3), "runs 3-4"),
        (runs_words, (), ""),
    ],
)
def test_many_runs_are_named_in_few_words(words: Callable, numbers: tuple[int, ...], expected: str) -> None:
    assert words(numbers) == expected


@given(st.sets(st.integers(1, 60)))
def test_the_names_of_runs_are_read_as_these_runs(numbers: set[int]) -> None:
    read: set[int] = set()
    for name in names_of(numbers):
        found = parsed(name, "run")
        assert isinstance(found, tuple)
        read |= set(range(found[0], found[1] + 1))
    assert read == numbers
