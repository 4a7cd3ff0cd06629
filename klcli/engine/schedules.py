"""Learning rates as pure functions of the update step t, counted from 0."""


def constant(step: int, *, eta: float) -> float:
    """Return eta, whatever the step."""
    return eta


def cyclical(step: int, *, eta_min: float, eta_max: float, step_size: int, decay: float = 1.0) -> float:
    """Return the triangular cyclical learning rate (Smith 2017, arXiv 1506.01186).

    From eta_min up to eta_max over `step_size` updates (n_s) and back over the next: one cycle is
    `2 * step_size` updates. In cycle c the peak is `eta_max * decay**c`, never below eta_min.
    """
    cycle, position = divmod(step, 2 * step_size)
    peak = max(eta_min, eta_max * decay**cycle)
    rise = 1 - abs(position / step_size - 1)
    return eta_min + rise * (peak - eta_min)
