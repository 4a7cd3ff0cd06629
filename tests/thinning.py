"""Long lists of parameters, of which the quick tests run a part and the slow ones the rest."""

from collections.abc import Iterable
from typing import Any

import pytest


def mostly_slow(cases: Iterable[Any], every: int) -> list[Any]:
    """Return the cases as parameters, of which the first, the one `every` cases later, and so on stay quick."""
    values = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*one, marks=[pytest.mark.slow] * (k % every > 0)) for k, one in enumerate(values)]
