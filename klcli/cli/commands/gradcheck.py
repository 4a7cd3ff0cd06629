"""`klcli gradcheck`: compare the engine's gradients with numerical differences."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from klcli.cli.invocation import ALWAYS, Invocation, invoked
from klcli.cli.options import is_typed, takes, typed_settings
from klcli.errors import ConfigError, GradientCheckFailed
from klcli.report.words import counted, network_name
from klcli.settings.procedures import ALL, EXPORT, EXPORT_IMAGES, IN_GRADIENT, MEASURES, CheckSettings, measures_of
from klcli.settings.setting import Role, require, setting
from klcli.settings.train_config import TrainConfig
from klcli.text import command_text, path_text

if TYPE_CHECKING:
    from klcli.store.records import GradientCheck

OWN = "Your own program"  # panel of --help
USED = {  # the options that --export and --against use
    "--export": {"export", "preset", *IN_GRADIENT, "seed", "images", "dims", "data", "db", *ALWAYS},
    "--against": {"against", "reference", "atol", "rtol", "db", *ALWAYS},
}


@takes(TrainConfig, only=("preset", *IN_GRADIENT, "seed"))
@takes(CheckSettings)
@invoked("data", "db")
def gradcheck(
    ctx: typer.Context,
    config: TrainConfig,
    settings: CheckSettings,
    measures: tuple[str, ...] = setting(
        MEASURES[:1], Role.CHECK, "Show these columns: errors (the default), ratios, decimals (as numpy's "
        "assert_almost_equal), moments, or all.", choices=(*MEASURES, ALL), metavar="NAME..."),
    *,
    export: Path | None = setting(
        None, OWN, "Write a network with its images, scores and gradients to this file, in float64.", metavar="FILE"),
    against: Path | None = setting(
        None, OWN, "Compare the gradients that your program saved here, and name the likely mistake.", metavar="FILE"),
    reference: Path = setting(
        Path(EXPORT), OWN, "The file of --export that your program has read.", metavar="FILE"),
    invocation: Invocation,
) -> None:  # fmt: skip
    """Check the engine's gradients against numerical differences, in float64, on real images.

    Without network options, check the set of the course: 2, 3 and 4 layers without and with batch
    normalisation, BN after ReLU, each with lambda 0 and above, and a stack of replicas with different
    lambdas. With network options, check that network, with lambda 0 and its own. Exit 5 for a wrong gradient.

    - `klcli gradcheck`
    - `klcli gradcheck --hidden 50 30 --bn --lambda 0.1`
    - `klcli gradcheck --hidden 50 --method forward --h 1e-7 --measures decimals moments`
    - `klcli gradcheck --export klcli.npz --hidden 50 50 --bn`, then `klcli gradcheck --against mine.npz` checks the
    gradients of your own program: `klcli help gradients`
    """
    option = "--against" if export is None else "--export"
    for one in ctx.command.params if export or against else ():
        if is_typed(ctx, one.name) and one.name not in USED[option]:
            raise ConfigError(f"{one.opts[0]}: {option} does not use it, omit it")
    if export is not None:
        settings = settings if is_typed(ctx, "images") else replace(settings, images=EXPORT_IMAGES)
        arrays = invocation.lab.export_gradients(export, config, settings)
        n, dims = arrays["X"].shape
        compare = ["klcli", "gradcheck", "--against", "mine.npz"]
        compare += ["--reference", str(export)] if str(export) != EXPORT else []
        images = f"{n} {counted(n, 'image')} of {dims} pixels"
        invocation.result(
            f"{path_text(export)}: {network_name(config)}, lambda {config.lam:g}, {images}",
            "compute the gradients, save them as dW1, db1, ... with numpy.savez (`klcli help gradients`), then:",
            command_text(compare),
        )
        shapes = {key: list(array.shape) for key, array in arrays.items()}
        invocation.document("gradcheck", {"export": export, "shapes": shapes})
        return
    if against is not None:
        from klcli.report.tables.compared_gradients import compared_document, compared_notes, compared_table

        found, name = invocation.lab.compare_gradients(against, reference, settings), path_text(against)
        invocation.result(compared_table(found, name), *compared_notes(found))
        invocation.document("gradcheck", {"against": against, **compared_document(found)})
        if found.failed:
            keys = ", ".join(one.key for one in found.failed)
            raise GradientCheckFailed(f"{name}: not equal to the reference: {keys}")
        return
    require(not is_typed(ctx, "reference"), f"--reference {reference}: belongs to --against, which is missing")
    names_network = bool(set(typed_settings(ctx, TrainConfig)) - {"seed"})
    checks = invocation.lab.check_gradients(config if names_network else None, settings, seed=config.seed)
    _show(invocation, checks, measures_of(measures))


def _show(invocation: Invocation, checks: "Sequence[GradientCheck]", measures: Sequence[str]) -> None:
    """Show a suite with its picture. Raises GradientCheckFailed where a tensor failed."""
    from klcli.report.plots.studies import gradient_errors
    from klcli.report.views import gradients_view

    found = gradients_view(invocation.lab.store, checks, measures=measures)
    invocation.result(*found.tables, *found.notes)
    picture = invocation.picture(f"gradcheck-{checks[0].suite:06d}.png", lambda: gradient_errors(checks))
    sound = all(error.passed for check in checks for error in check.errors)
    then = ("gradcheck --export klcli.npz --hidden 50 50 --bn", "train --hidden 50 50 --bn") if sound else ()
    invocation.places(*then, picture=picture)
    invocation.document("gradcheck", found.document | {"notes": [*found.notes], "picture": picture})
    raise_for_failed(checks)


def raise_for_failed(checks: "Sequence[GradientCheck]") -> None:
    """Raise GradientCheckFailed, which names the tensors, if one failed."""
    if failed := dict.fromkeys(error.tensor for check in checks for error in check.errors if not error.passed):
        raise GradientCheckFailed(f"wrong gradient: {', '.join(failed)}, see the rows marked FAIL")
