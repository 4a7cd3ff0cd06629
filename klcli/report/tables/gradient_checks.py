"""Tables of gradient checks: the tensors of a network or of a suite, and the verdict as a sentence."""

from collections.abc import Sequence
from dataclasses import replace

from klcli.report.tables.table import Row, Table, numbers, scientific, texts
from klcli.report.words import IN_NAME, counted, network_name, options_words
from klcli.settings.sameness import SETTINGS
from klcli.settings.setting import Role
from klcli.store.records import GradientCheck

NO_PART = (Role.OPTIMISATION, Role.EVALUATION, Role.RANDOMNESS)  # settings that change a gradient, except lambda
_OMITTED = (*IN_NAME, *(one.key for one in SETTINGS.values() if one.role in NO_PART))
_COLUMNS = (
    *texts("tensor"),
    *numbers(str, "entries", "kinks"),
    *numbers(scientific, max_absolute="max abs", relative_to_sum="rel to sum", relative_to_maximum="rel to max"),
    *numbers(scientific, ratio_of_maxima="of maxima", gradient_mean="mean", gradient_std="std"),
)


def gradient_check_table(check: GradientCheck) -> Table:
    """The tensors of one checked network, in the order of its layers."""
    return Table(gradient_check_title(check), (*_COLUMNS, *texts(verdict="")), _rows(check))


def suite_table(checks: Sequence[GradientCheck]) -> Table:
    """The tensors of all networks of a suite, each row with its network."""
    rows = [row | {"network": gradient_check_title(check)} for check in checks for row in _rows(check)]
    return Table(f"Gradient check, suite {checks[0].suite}", (*texts("network"), *_COLUMNS, *texts("verdict")), rows)


def limited(checks: Sequence[GradientCheck], limit: int | None) -> list[GradientCheck]:
    """Return the first checks with at most `limit` tensors together."""
    found, left = [], sum(len(check.errors) for check in checks) if limit is None else limit
    for check in checks:
        if left > 0:
            found.append(replace(check, errors=check.errors[:left]))
            left -= len(check.errors)
    return found


def _rows(check: GradientCheck) -> list[Row]:
    return [vars(error) | {"verdict": "pass" if error.passed else "FAIL"} for error in check.errors]


def gradient_check_title(check: GradientCheck) -> str:
    """`3-layer 50-50 with BN, dropout 0.1, lambda 0.01`, or the lambdas of a stack."""
    first, n = check.configs[0], len(check.configs)
    name = ", ".join(filter(None, [network_name(first), options_words(first, _OMITTED)]))
    lambdas = ", ".join(f"{config.lam:g}" for config in check.configs)
    return f"{name}, lambda {lambdas}" if n == 1 else f"{name}, {n} replicas with lambda {lambdas}"


def gradient_verdict(checks: Sequence[GradientCheck]) -> str:
    """State the number of tensors that pass, the rule, and the largest error."""
    tensors = [error for check in checks for error in check.errors]
    passed, kinks = sum(error.passed for error in tensors), sum(error.kinks for error in tensors)
    atol, rtol = checks[0].atol, checks[0].rtol
    near = f"{kinks} {counted(kinks, 'kink')}"
    networks = f"{len(checks)} {counted(len(checks), 'network')}"
    return (
        f"{'PASS' if passed == len(tensors) else 'FAIL'}: {passed} of {len(tensors)} tensors of {networks} "
        f"have rel to sum < {rtol:g}, or max abs < {atol:g} and < {atol:g} of the largest entry, "
        f"or by the complex step an error < {atol:g} of the largest entry; "
        f"largest max abs {max(error.max_absolute for error in tensors):.1e}, {near}"
    )


def gradient_method(check: GradientCheck) -> str:
    """State the method and the images of a suite."""
    return (
        f"{check.method} differences with h {check.h:g} in float64, "
        f"on {check.images} {check.dataset} images of {check.dims} pixels"
    )
