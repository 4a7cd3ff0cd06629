"""Tables of gradient checks: the tensors of a network, or of a whole suite, and the verdict in words."""

from collections.abc import Sequence
from dataclasses import asdict

from klcli.report.tables.table import Column, Row, Table, scientific
from klcli.report.words import IN_NAME, network_name, options_words
from klcli.settings.sameness import SETTINGS
from klcli.settings.setting import Role
from klcli.store.records import GradientCheck

NO_PART = (Role.OPTIMISATION, Role.EVALUATION, Role.RANDOMNESS)  # in a gradient, but for lambda
_OMITTED = (*IN_NAME, *(one.key for one in SETTINGS.values() if one.role in NO_PART))
_COLUMNS = (
    Column("tensor", "tensor", is_number=False),
    Column("entries", "entries"),
    Column("kinks", "kinks"),
    Column("max_absolute", "max abs", scientific),
    Column("relative_to_sum", "rel to sum", scientific),
    Column("relative_to_maximum", "rel to max", scientific),
    Column("ratio_of_maxima", "of maxima", scientific),
    Column("gradient_mean", "mean", scientific),
    Column("gradient_std", "std", scientific),
)


def gradient_check_table(check: GradientCheck) -> Table:
    """The tensors of one checked network, in the order of its layers."""
    columns = (*_COLUMNS, Column("verdict", "", is_number=False))
    return Table(gradient_check_title(check), columns, _rows(check))


def suite_table(checks: Sequence[GradientCheck]) -> Table:
    """The tensors of all networks of a suite, each row with its network."""
    rows = [row | {"network": gradient_check_title(check)} for check in checks for row in _rows(check)]
    columns = (Column("network", "network", is_number=False), *_COLUMNS, Column("verdict", "verdict", is_number=False))
    return Table(f"Gradient check, suite {checks[0].suite}", columns, rows)


def _rows(check: GradientCheck) -> list[Row]:
    return [asdict(error) | {"verdict": "pass" if error.passed else "FAIL"} for error in check.errors]


def gradient_check_title(check: GradientCheck) -> str:
    """`3-layer 50-50 with BN, dropout 0.1, lambda 0.01`, or the lambdas of a stack."""
    first = check.configs[0]
    name = ", ".join(filter(None, [network_name(first), options_words(first, _OMITTED)]))
    lambdas = [f"{config.lam:g}" for config in check.configs]
    if len(lambdas) == 1:
        return f"{name}, lambda {lambdas[0]}"
    return f"{name}, {len(lambdas)} replicas with lambda {', '.join(lambdas)}"


def gradient_verdict(checks: Sequence[GradientCheck]) -> str:
    """One line: how many tensors pass, by which rule, and the largest error."""
    first = checks[0]
    tensors = [error for check in checks for error in check.errors]
    passed = sum(error.passed for error in tensors)
    worst = max(error.max_absolute for error in tensors)
    kinks = sum(error.kinks for error in tensors)
    verdict = "PASS" if passed == len(tensors) else "FAIL"
    rule = f"max abs < {first.atol:g} or rel to sum < {first.rtol:g}"
    return (
        f"{verdict}: {passed} of {len(tensors)} tensors of {len(checks)} networks have {rule}; "
        f"largest max abs {worst:.1e}, {kinks} kinks"
    )


def gradient_method(check: GradientCheck) -> str:
    """How a suite was checked."""
    return (
        f"{check.method} differences with h {check.h:g} in float64, "
        f"on {check.images} {check.dataset} images of {check.dims} pixels"
    )
