"""The digits of eight odd trainings are those that were written down before the code was rearranged."""

import json
from typing import Any

import pytest

from tests.golden.trainings import FILE, kernel, measured

STORED = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def ours() -> dict[str, Any]:
    return measured()


def numbers(found: Any) -> list[float]:
    """Every number of a document in its order."""
    if isinstance(found, dict):
        return [number for value in found.values() for number in numbers(value)]
    if isinstance(found, list):
        return [number for value in found for number in numbers(value)]
    return [] if found is None else [float(found)]


@pytest.mark.parametrize("name", STORED["trainings"])
def test_a_training_keeps_its_digits(name: str, ours: dict[str, Any]) -> None:
    stored = STORED["trainings"][name]
    if kernel() == STORED["made_with"]:
        assert ours[name] == stored
    else:  # another BLAS kernel adds in another order
        exact = name.startswith("float64")
        assert numbers(ours[name]) == pytest.approx(
            numbers(stored), rel=1e-9 if exact else 0.05, abs=0.02 * (not exact)
        )
