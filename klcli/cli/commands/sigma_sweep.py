"""`klcli sigma-sweep`: the effect of the scale of the initial weights, with and without BN."""

from klcli.cli.invocation import Invocation, invoked
from klcli.cli.options import takes
from klcli.cli.pictures import place, write_beside
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
    lab = invocation.lab()
    study = lab.sigma_sweep(config, sigmas, repeats=invocation.repeats, vary=invocation.vary, resume=invocation.resume)

    from klcli.report.documents import run_document
    from klcli.report.plots.studies import sigma_curves
    from klcli.report.tables.studies import interval_table, sigma_table, sigma_title
    from klcli.report.words import images_words, repeats_note

    runs = lab.runs_of(study)
    invocation.result(sigma_table(sigma_title(runs, images_words(runs[0])), runs))
    if invocation.repeats > 1:
        invocation.result(interval_table("Test accuracy over the repeats, with the 95 % interval of its mean", runs))
        invocation.result(repeats_note(runs))
    name, epochs = f"study-{study.id:06d}-sigma.png", {run.id: lab.epochs(run) for run in runs}
    picture = write_beside(invocation, lab.store.write_picture, name, lambda: sigma_curves(runs, epochs))
    invocation.result(f"database    {lab.store.path}", *place(picture))
    documents = [run_document(run) for run in runs]
    invocation.document("sigma-sweep", {"study": study.id, "runs": documents, "picture": picture and str(picture)})
