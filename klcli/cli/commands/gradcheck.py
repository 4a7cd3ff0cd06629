"""`klcli gradcheck`: compare the engine's gradients with numerical differences."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from klcli.cli.invocation import Invocation, invoked
from klcli.cli.options import takes, typed_settings
from klcli.errors import GradientCheckFailed
from klcli.settings.procedures import ALL, MEASURES, CheckSettings, measures_of
from klcli.settings.setting import Role, setting
from klcli.settings.train_config import TrainConfig

if TYPE_CHECKING:
    from klcli.store.records import GradientCheck
    from klcli.store.store import Store

NETWORK_FIELDS = (
    "hidden", "activation", "silu_slope", "batch_norm", "bn_position", "bn_eps", "initializer", "sigma", "lam",
    "dropout", "label_smoothing", "standardise",
)  # fmt: skip


@takes(TrainConfig, only=("preset", *NETWORK_FIELDS, "seed"))
@takes(CheckSettings)
@invoked("data", "db")
def gradcheck(
    ctx: typer.Context,
    config: TrainConfig,
    settings: CheckSettings,
    measures: tuple[str, ...] = setting(
        MEASURES[:1],
        Role.CHECK,
        "Show these columns: errors (the default), ratios, decimals (as numpy's assert_almost_equal), moments, or all.",
        choices=(*MEASURES, ALL),
        metavar="NAME...",
    ),
    *,
    invocation: Invocation,
) -> None:
    """Check the engine's gradients against numerical differences, in float64, on real images.

    Without network options, check the set of the course: 2, 3 and 4 layers without and with batch
    normalisation, BN after ReLU, each with lambda 0 and above, and a stack of replicas with different
    lambdas. With network options, check that network, with lambda 0 and its own. Exit 5 for a wrong gradient.

    - `klcli gradcheck`

    - `klcli gradcheck --hidden 50 30 --bn --lambda 0.1`

    - `klcli gradcheck --hidden 50 --method forward --h 1e-7 --measures decimals moments`
    """
    names_network = bool(set(typed_settings(ctx, TrainConfig)) - {"seed"})
    checks = invocation.lab.check_gradients(config if names_network else None, settings, seed=config.seed)
    show(invocation, invocation.lab.store, checks, measures_of(measures))


def show(
    invocation: Invocation, store: "Store", checks: "Sequence[GradientCheck]", measures: Sequence[str],
    limit: int | None = None,
) -> None:  # fmt: skip
    """Show a suite, of at most `limit` tensors, with its picture. Raises GradientCheckFailed where a tensor failed."""
    from klcli.report.documents import check_document
    from klcli.report.plots.studies import gradient_errors
    from klcli.report.tables.later_checks import limited
    from klcli.report.views import gradients_view

    found = gradients_view(store, checks, limit, measures)
    content: dict[str, Any] = {"checks": [*map(check_document, limited(checks, limit))]}
    invocation.result(*found.tables, *found.notes)
    if checks:
        path = store.folder("plots") / f"gradcheck-{checks[0].suite:06d}.png"
        picture = invocation.picture(path, lambda: gradient_errors(checks))
        invocation.places(picture=picture)
        content |= {"verdict": found.notes[0], "picture": picture}
    invocation.document("gradcheck", content)
    raise_for_failed(checks)


def raise_for_failed(checks: "Sequence[GradientCheck]") -> None:
    """Raise GradientCheckFailed, which names the tensors, if one failed."""
    if failed := dict.fromkeys(error.tensor for check in checks for error in check.errors if not error.passed):
        raise GradientCheckFailed(f"wrong gradient: {', '.join(failed)}, see the rows marked FAIL")
