"""`klcli gradcheck`: compare the engine's gradients with numerical differences."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from klcli.cli.invocation import Invocation, invoked
from klcli.cli.options import takes, typed_settings
from klcli.cli.pictures import place, write_beside
from klcli.errors import GradientCheckFailed
from klcli.settings.procedures import CheckSettings
from klcli.settings.train_config import TrainConfig

if TYPE_CHECKING:
    from klcli.store.records import GradientCheck
    from klcli.store.store import Store

NETWORK_FIELDS = (
    "hidden", "batch_norm", "bn_position", "bn_eps", "initializer", "sigma", "lam", "dropout", "label_smoothing",
    "standardise",
)  # fmt: skip


@takes(TrainConfig, only=("preset", *NETWORK_FIELDS, "seed"))
@takes(CheckSettings)
@invoked("data", "db")
def gradcheck(ctx: typer.Context, config: TrainConfig, settings: CheckSettings, *, invocation: Invocation) -> None:
    """Check the engine's gradients against numerical differences, in float64, on real images.

    Without network options, check the set of the course: 2, 3 and 4 layers without and with batch
    normalisation, BN after ReLU, each with lambda 0 and above, and a stack of replicas with different
    lambdas. With network options, check that network, with lambda 0 and its own. Exit 5 for a wrong gradient.

    - `klcli gradcheck`

    - `klcli gradcheck --hidden 50 30 --bn --lambda 0.1`
    """
    lab = invocation.lab()
    names_network = bool(set(typed_settings(ctx, TrainConfig)) - {"seed"})
    checks = lab.check_gradients(config if names_network else None, settings, seed=config.seed)
    show(invocation, lab.store, checks)


def show(invocation: Invocation, store: "Store", checks: "Sequence[GradientCheck]", limit: int | None = None) -> None:
    """Show a suite, of at most `limit` tensors, with its picture. Raises GradientCheckFailed where a tensor failed."""
    from klcli.report.documents import check_document
    from klcli.report.plots.gradient_checks import gradient_errors
    from klcli.report.tables.gradient_checks import gradient_check_table, gradient_method, gradient_verdict, limited

    if not checks:
        invocation.result(f"{store.path} holds no gradient check yet: begin with `klcli gradcheck`")
        invocation.document("gradcheck", {"checks": []})
        return
    shown = limited(checks, limit)
    invocation.result(*(gradient_check_table(check) for check in shown))
    verdict, method = gradient_verdict(checks), gradient_method(checks[0])
    invocation.result(verdict, method, f"database    {store.path}")
    name = f"gradcheck-{checks[0].suite:06d}.png"
    picture = write_beside(invocation, store.write_picture, name, lambda: gradient_errors(checks))
    invocation.result(*place(picture))
    documents = [check_document(check) for check in shown]
    content = {"verdict": verdict, "checks": documents, "picture": picture and str(picture)}
    invocation.document("gradcheck", content)
    raise_for_failed(checks)


def raise_for_failed(checks: "Sequence[GradientCheck]") -> None:
    """Raise GradientCheckFailed, which names the tensors, if one failed."""
    failed = [error.tensor for check in checks for error in check.errors if not error.passed]
    if failed:
        raise GradientCheckFailed(f"wrong gradient: {', '.join(dict.fromkeys(failed))}, see the rows marked FAIL")
