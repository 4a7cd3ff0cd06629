"""Learning rates as pure functions of the update step t, counted from 0."""

import math

RISE = 0.3  # fraction of a one-cycle training with rising eta; the long decrease determines the accuracy


def cyclical(step: int, *, eta_min: float, eta_max: float, step_size: int, decay: float = 1.0) -> float:
    """Return the triangular cyclical learning rate (Smith 2017, arXiv 1506.01186).

    It rises from eta_min over `step_size` updates (n_s) to `eta_max * decay**c`, at least eta_min, and falls back.
    """
    cycle, position = divmod(step, 2 * step_size)
    peak = max(eta_min, eta_max * decay**cycle)
    return eta_min + (1 - abs(position / step_size - 1)) * (peak - eta_min)


def cosine(step: int, *, eta_min: float, eta_max: float, step_size: int, decay: float = 1.0) -> float:
    """Return the cosine with warm restarts (SGDR, Loshchilov and Hutter 2017, arXiv 1608.03983, equation 5).

    Cycle c starts at `eta_max * decay**c`, at least eta_min, and falls to eta_min in `2 * step_size` updates.
    """
    cycle, position = divmod(step, 2 * step_size)
    peak = max(eta_min, eta_max * decay**cycle)
    return _between(peak, eta_min, position / (2 * step_size))


def one_cycle(step: int, *, eta_min: float, eta_max: float, total: int) -> float:
    """Return the one-cycle rate of a training of `total` updates (after Smith and Topin 2018, arXiv 1708.07120).

    Linear from eta_min to eta_max over the first RISE of the updates, then half a cosine down to eta_min.
    """
    top = RISE * total
    if step < top:
        return eta_min + (eta_max - eta_min) * step / top
    return _between(eta_max, eta_min, (step - top) / (total - top) if total else 0.0)


def range_test(step: int, *, eta_min: float, eta_max: float, total: int) -> float:
    """Return the rate of a learning-rate range test of `total` updates (Smith 2017, arXiv 1506.01186, section 3.3).

    Geometric from eta_min to eta_max; the paper's linear rate passes the small decades in a few updates.
    """
    return eta_min * (eta_max / eta_min) ** (step / max(1, total - 1))


def _between(start: float, end: float, share: float) -> float:
    """Return half a cosine from `start` to `end` at a fraction of its length."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
