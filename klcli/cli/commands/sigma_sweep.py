"""`klcli sigma-sweep`: the effect of the scale of the initial weights, with and without BN."""

from klcli.cli.commands.train import raise_for_lost
from klcli.cli.invocation import Invocation, invoked
from klcli.cli.options import takes
from klcli.settings.procedures import SIGMAS
from klcli.settings.setting import Role, setting
from klcli.settings.train_config import TrainConfig


@takes(TrainConfig, omit=("preset", "initializer", "sigma", "batch_norm"))
@invoked("repeats", "vary", "jobs", "executor", "resume", "data", "threads", "db")
def sigma_sweep(
    config: TrainConfig,
    sigmas: tuple[float, ...] = setting(SIGMAS, Role.NETWORK, "Standard deviations of the initial weights.", above=0),
    *,
    invocation: Invocation,
) -> None:
    """Train with every sigma, without and with batch normalisation, and compare the two.

    - `klcli sigma-sweep`
    - `klcli sigma-sweep --hidden 50 30 20 20 10 10 10 10 --step-epochs 2 --repeats 3`
    """
    lab = invocation.lab
    study = lab.sigma_sweep(config, sigmas, **invocation.seeds)

    from klcli.report.plots.studies import sigma_curves
    from klcli.report.views import study_view

    found = study_view(lab.store, study.id)
    runs = found.runs
    invocation.result(*found.tables, *found.notes)
    epochs, shown = {run.id: lab.epochs(run) for run in runs}, f"report --study {study.id} --plot"
    picture = invocation.picture(f"study-{study.id:06d}-sigma.png", lambda: sigma_curves(runs, epochs))
    invocation.places(f"{shown} sigma --to sigma.pdf", f"{shown} curves", picture=picture)
    document = {"study": study.id, "runs": found.document["runs"], "notes": [*found.notes], "picture": picture}
    invocation.document("sigma-sweep", document)
    raise_for_lost({"every network of the sweep": runs})
