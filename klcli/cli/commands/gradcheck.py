"""`klcli gradcheck`: numerical differences against the engine's gradients."""

from typing import TYPE_CHECKING, Annotated

import typer

from klcli.cli.config_options import takes_config, typed_fields
from klcli.cli.options import (
    DEFAULT_DATABASE,
    DatabasePath,
    DataSource,
    Debug,
    Json,
    Quiet,
    decimal_option,
    integer_option,
    option,
)
from klcli.cli.session import Session
from klcli.cli.variadic import many_valued
from klcli.errors import GradientCheckFailed
from klcli.procedures.preflight import typed_command, warn_of_data
from klcli.settings.train_config import TrainConfig

if TYPE_CHECKING:
    from klcli.store.store import Store

CHECK = "The check"
NETWORK_FIELDS = (
    "hidden", "batch_norm", "bn_position", "bn_eps", "initializer", "sigma", "lam", "dropout", "label_smoothing",
    "standardise",
)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("gradcheck", cls=many_valued("--hidden", "-H"))(gradcheck)


@takes_config(only=("preset", *NETWORK_FIELDS, "seed"))
def gradcheck(
    ctx: typer.Context,
    config: TrainConfig,
    images: Annotated[int, integer_option("--images", panel=CHECK, help="The first so many training images.")] = 10,
    dims: Annotated[int, integer_option("--dims", panel=CHECK, help="The first so many pixels of each.")] = 30,
    method: Annotated[
        str, option("--method", panel=CHECK, metavar="centred|forward", help="Which difference quotient.")
    ] = "centred",
    h: Annotated[float, decimal_option("--h", panel=CHECK, help="The step of the difference.")] = 1e-5,
    atol: Annotated[
        float | None,
        decimal_option("--atol", panel=CHECK, help="A tensor passes below this max absolute error; 1e-8 if centred,"),
    ] = None,
    rtol: Annotated[
        float | None,
        decimal_option("--rtol", panel=CHECK, help="or below this max relative error; 1e-6 if centred."),
    ] = None,
    data: DataSource = None,
    db: DatabasePath = DEFAULT_DATABASE,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Check the engine's gradients against numerical differences, in float64, on real images.

    Without options of the network, the course's whole set: 2, 3 and 4 layers without and with batch
    normalisation, BN after ReLU, each with lambda 0 and above, and a group of members with different
    lambdas. With some, that network, with lambda 0 and with its own. Exit code 5 where a gradient is wrong.

    - `klcli gradcheck`

    - `klcli gradcheck --hidden 50 30 --bn --lambda 0.1`
    """
    session = Session(as_json=as_json, quiet=quiet)

    from klcli.data.dataset import split
    from klcli.data.sources import open_dataset
    from klcli.store.store import Store
    from klcli.studies.gradient_checks import (
        CheckSettings,
        check_networks,
        course_set,
        entries,
        with_and_without_l2,
    )

    settings = CheckSettings(images=images, dims=dims, method=method, h=h, atol=atol, rtol=rtol)
    named = bool(set(typed_fields(ctx)) - {"seed"})
    networks = with_and_without_l2(config) if named else course_set(config.seed)
    dataset = open_dataset(data)
    warn_of_data(session, dataset)
    train = split(dataset, config.split).train
    store = Store(db)
    with session.progress("checking entries", sum(entries(members, dims) for members in networks)) as advance:
        checks = list(check_networks(networks, train, settings, on_entries=advance))
    suite = store.gradient_checks.record(checks, dataset, typed_command())
    show(session, store, suite)


def show(session: Session, store: "Store", suite: int | None) -> None:
    """Show a stored suite with its picture. Raises GradientCheckFailed, which names the tensors, where one failed."""
    from klcli.report.plots.gradient_checks import draw_gradient_checks, gradient_errors
    from klcli.report.tables.table import gradient_check_table, gradient_method, gradient_verdict
    from klcli.store.checkpoints import write_atomically

    checks = store.gradient_checks.suite(suite)
    if not checks:
        session.result(f"{store.path} holds no gradient check yet: begin with `klcli gradcheck`")
        session.document("gradcheck", {"checks": []})
        return
    picture = store.folder("plots") / f"gradcheck-{checks[0]['suite']:06d}.png"
    write_atomically(picture, draw_gradient_checks(gradient_errors(checks)))
    session.result(*(gradient_check_table(check) for check in checks))
    verdict = gradient_verdict(checks)
    session.result(verdict, gradient_method(checks[0]), f"database    {store.path}", f"picture     {picture}")
    session.document(
        "gradcheck", {"verdict": verdict, "checks": [dict(check) for check in checks], "picture": str(picture)}
    )
    failed = [error["tensor"] for check in checks for error in check["errors"] if not error["passed"]]
    if failed:
        raise GradientCheckFailed(f"wrong gradient: {', '.join(dict.fromkeys(failed))}, see the rows marked FAIL")
