"""Explanations: which mistakes of the catalogue explain the gradients of a program.

The gradients of every mistake are computed in all layers and in each layer alone, then those of every two mistakes;
the one that equals the given gradients is named.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from klcli.studies import gradient_mistakes as known
from klcli.studies.gradient_mistakes import Arrays, Formulas, Mistake, Problem, kind_of, number_of

ROUNDING, SINGLE = 1e-9, 1e-4  # gradients are equal, in float64 and in float32, below this relative distance
FLOOR = 1e-2  # minimum denominator of that distance, in parts of the largest gradient: a tensor may be rounding alone


@dataclass(frozen=True)
class Explanation:
    """Mistakes, in one layer alone unless that is None, with the distance of their gradients from the given ones."""

    mistakes: tuple[Mistake, ...]
    layer: int | None
    distance: float
    more: str = ""

    def __str__(self) -> str:
        names = "; ".join(one.name for one in self.mistakes)
        where = "" if self.layer is None else f" in layer {self.layer} alone"
        is_near = self.distance >= ROUNDING and self.mistakes != (known.ROUNDED,)
        return f"{names}{self.more}{where}{' (to the precision of float32)' if is_near else ''}"


def explanations(problem: Problem, mine: Arrays, say: Callable[[str], None]) -> list[Explanation]:
    """Return the mistakes whose gradients equal all given ones to rounding, none if there is no such mistake.

    One mistake in all layers is preferred to one in a single layer, and that to two mistakes in all layers.
    """
    right, found = problem.gradients(), list[Explanation]()
    simple = [one for one in known.CATALOGUE if one.formulas]
    floor = FLOOR * max(np.abs(one).max(initial=0.0) for one in right.values())

    def distance(theirs: Arrays) -> float:
        sizes = {key: max(np.abs(theirs[key]).max(initial=0.0), floor) for key in mine}
        return float(np.max([np.abs(mine[key] - theirs[key]).max(initial=0.0) / sizes[key] for key in mine]))

    def explained(limit: float) -> list[Explanation]:
        if found[0].distance < limit:  # then every mistake without an effect is as near
            return found[:1]
        best = min(one.distance for one in found)
        return [one for one in found if one.distance < max(ROUNDING, 2 * best)] if best < limit else []

    def explanation(*mistakes: Mistake, layer: int | None = None) -> Explanation:
        formulas = {name: formula for one in mistakes for name, formula in one.formulas.items()}
        return Explanation(mistakes, layer, distance(problem.gradients(formulas, layer)))

    with np.errstate(all="ignore"):  # a wrong formula may divide by 0
        in_reverse = Explanation((known.REVERSED,), None, distance(_reversed(right)))
        everywhere = [*map(explanation, (known.ROUNDED, *simple)), in_reverse]
        last = max(map(number_of, right))
        linear = [key for key in mine if number_of(key) == last - 1]  # gradients that are linear in eta
        parameters = (
            (known.UPDATED, ", eta", _with_updated_weights, 0.0, 1.0, linear),
            (known.OTHER_EPS, "", _with_eps, 1e-8, 1e-9, [*mine]),
        )
        fitted = (
            Explanation((mistake,), None, distance(problem.gradients(formulas(value))), f"{words} {value:.4g}")
            for mistake, words, formulas, *start, keys in parameters
            for value in _fitted(problem, mine, keys, formulas, *start)
        )
        layers, pairs = range(1, last + 1), combinations(simple, 2)
        in_one_layer = (explanation(one, layer=layer) for layer in layers for one in simple)
        factors = (
            Explanation((known.FACTOR,), None, distance(theirs), f", {factor:.6g}, of {what}")
            for what, factor, theirs in _with_a_factor(problem, mine, right)
        )
        in_pairs = (explanation(*pair) for pair in pairs if not pair[0].formulas.keys() & pair[1].formulas.keys())
        later = in_one_layer, factors, in_pairs
        for stage, limit in ((everywhere, ROUNDING), (fitted, ROUNDING), *((stage, SINGLE) for stage in later)):
            if stage is in_pairs:
                say(f"no single mistake explains {len(mine)} of these gradients: trying every two")
            found += [one for one in stage if np.isfinite(one.distance)]
            if best := explained(ROUNDING) or explained(limit):
                return best
    return []


def _with_updated_weights(eta: float) -> Formulas:
    return {"dX": lambda at: at.G @ (at.W - eta * at.gradient).T}


def _with_eps(eps: float) -> Formulas:
    return {"std": lambda at: np.sqrt(at.v + eps)}


def _reversed(right: Arrays) -> Arrays:
    """Return gradients stored in the reversed order of layers, where the shapes allow it."""
    found = dict(right)
    for kind in {*map(kind_of, right)}:
        keys = sorted((key for key in right if kind_of(key) == kind), key=number_of)
        if (shapes := [right[key].shape for key in keys]) == shapes[::-1]:
            found |= {key: right[other] for key, other in zip(keys, reversed(keys), strict=True)}
    return found


def _with_a_factor(problem: Problem, mine: Arrays, right: Arrays) -> Iterator[tuple[str, float, Arrays]]:
    """Yield what may have a factor, the factor by least squares, and the gradients with it."""
    keys, no_l2 = [*mine], problem.gradients({"l2": lambda at: 0.0})
    groups = {tuple(key for key in keys if kind_of(key) == kind): f"every {kind}" for kind in map(kind_of, keys)}
    groups |= {tuple(key for key in keys if number_of(key) == n): f"layer {n} alone" for n in map(number_of, keys)}
    groups |= {(key,): f"{key} alone" for key in keys} | {tuple(keys): "every gradient"}
    parts = [(own, words, right) for own, words in groups.items()]
    parts += [(tuple(keys), "the gradient of the loss", no_l2)] * (problem.lam > 0)  # without L2, that of J
    for own, words, part in parts:
        unit, given = (np.concatenate([one[key].ravel() for key in own]) for one in (part, mine))
        rest = np.concatenate([(right[key] - part[key]).ravel() for key in own])
        factor = float(unit @ (given - rest) / (unit @ unit))
        if given.size > 1 and np.isfinite(factor) and factor != 0:  # a single number is proportional to any
            yield words, factor, right | {key: right[key] + (factor - 1) * part[key] for key in own}


def _fitted(
    problem: Problem, mine: Arrays, keys: list[str], formulas: Callable[[float], Formulas], value: float, step: float
) -> Iterator[float]:
    """Yield the parameter, at least 0, whose wrong formulas fit these gradients best, by Gauss-Newton; none if none."""
    for _ in range(12):
        here, there = (problem.gradients(formulas(one)) for one in (value, value + step))
        slope, rest = (np.concatenate([[0.0], *((a[key] - here[key]).ravel() for key in keys)]) for a in (there, mine))
        if not slope @ slope > 0:
            return
        value = max(0.0, value + step * float(slope @ rest / (slope @ slope)))
    yield round(value, 12)  # smaller ones change nothing
