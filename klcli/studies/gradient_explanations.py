"""Explanations: which mistakes of the catalogue explain the gradients of a program.

The gradients of every mistake are computed in all layers and in each layer alone, then those of every two mistakes;
the one that equals the given gradients is named.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from klcli.studies import gradient_mistakes as known
from klcli.studies.gradient_mistakes import Arrays, Formulas, Mistake, Problem, kind_of, number_of

ROUNDING, SINGLE = 1e-9, 1e-4  # gradients are equal, in float64 and in float32, below this relative distance
FLOOR = 1e-2  # minimum denominator of that distance, in parts of the largest gradient: BN leaves rounding of a tensor
LEAST = 1e-300  # that minimum without BN: a gradient is known to nearly all digits, however small it is


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
    right, found, exact = problem.gradients(), list[Explanation](), set[str]()
    floor = FLOOR * max(np.abs(one).max(initial=0.0) for one in right.values()) if "dgamma1" in right else LEAST

    def explanation(theirs: Arrays, more: str, *mistakes: Mistake, layer: int | None = None) -> Explanation:
        sizes = {key: np.abs(theirs[key]).max(initial=0.0) for key in mine}
        errors = {key: np.abs(mine[key] - theirs[key]).max(initial=0.0) for key in mine}
        exact.update(key for key in mine if errors[key] < ROUNDING * sizes[key])
        distance = np.max([errors[key] / max(sizes[key], floor) for key in mine])
        return Explanation(mistakes, layer, float(distance), more)

    def of_formulas(*mistakes: Mistake, layer: int | None = None) -> Explanation:
        formulas = {name: formula for one in mistakes for name, formula in one.formulas.items()}
        return explanation(problem.gradients(formulas, layer), "", *mistakes, layer=layer)

    def stages() -> Iterator[Iterable[Explanation]]:
        simple = [one for one in known.CATALOGUE if one.formulas]
        yield [*map(of_formulas, (known.ROUNDED, *simple)), explanation(_reversed(right), "", known.REVERSED)]
        yield (explanation(*one) for one in _with_a_parameter(problem, mine))
        layers = range(1, max(map(number_of, right)) + 1)
        yield (of_formulas(one, layer=layer) for layer in layers for one in simple)
        yield (explanation(*one) for one in _with_a_factor(problem, mine, right))
        say(f"no single mistake explains {len(mine)} of these gradients: trying every two")
        pairs = combinations(simple, 2)
        yield (of_formulas(a, b) for a, b in pairs if not a.formulas.keys() & b.formulas.keys())

    with np.errstate(all="ignore"):  # a wrong formula may divide by 0
        for number, stage in enumerate(stages()):
            found += [one for one in stage if np.isfinite(one.distance)]
            best = min(one.distance for one in found)
            # Float32 anywhere in a program is in all of its gradients: if one is right in float64, others are wrong.
            for limit in (ROUNDING, SINGLE) if number > 1 and not exact else (ROUNDING,):
                if found[0].distance < limit:  # then every mistake without an effect is as near
                    return found[:1]
                if best < limit:
                    return [one for one in found if one.distance < max(ROUNDING, 2 * best)]
    return []


def _reversed(right: Arrays) -> Arrays:
    """Return gradients stored in the reversed order of layers, where the shapes allow it."""
    found = dict(right)
    for kind in {*map(kind_of, right)}:
        keys = sorted((key for key in right if kind_of(key) == kind), key=number_of)
        if (shapes := [right[key].shape for key in keys]) == shapes[::-1]:
            found |= {key: right[other] for key, other in zip(keys, reversed(keys), strict=True)}
    return found


def _with_a_factor(problem: Problem, mine: Arrays, right: Arrays) -> Iterator[tuple[Arrays, str, Mistake]]:
    """Yield the gradients of which some have a factor, by least squares, with the factor and what has it."""
    keys, no_l2 = [*mine], problem.gradients({"l2_of_W": lambda at: 0.0})
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
            theirs = right | {key: right[key] + (factor - 1) * part[key] for key in own}
            yield theirs, f", {factor:.6g}, of {words}", known.FACTOR


def _with_a_parameter(problem: Problem, mine: Arrays) -> Iterator[tuple[Arrays, str, Mistake]]:
    """Yield the gradients of wrong formulas whose parameter, at least 0, fits best, by Gauss-Newton, with its value."""
    last = max(map(number_of, problem.network.layers))
    linear = [key for key in mine if number_of(key) == last - 1]  # gradients that are linear in eta
    wrong: list[tuple[Mistake, str, list[str], Callable[[float], Formulas], float, float]] = [
        (known.UPDATED, ", eta", linear, lambda eta: {"dX": lambda at: at.G @ (at.W - eta * at.gradient).T}, 0.0, 1.0),
        (known.OTHER_EPS, "", [*mine], lambda eps: {"std": lambda at: np.sqrt(at.v + eps)}, 1e-8, 1e-9),
    ]
    for mistake, words, keys, formulas, value, step in wrong:
        for _ in range(12):
            here, there = (problem.gradients(formulas(one)) for one in (value, value + step))
            ways = ([(one[key] - here[key]).ravel() for key in keys] for one in (there, mine))
            slope, rest = (np.concatenate([[0.0], *way]) for way in ways)
            if not slope @ slope > 0:
                break
            value = max(0.0, value + step * float(slope @ rest / (slope @ slope)))
        else:
            value = round(value, 12)  # smaller ones change nothing
            yield problem.gradients(formulas(value)), f"{words} {value:.4g}", mistake
