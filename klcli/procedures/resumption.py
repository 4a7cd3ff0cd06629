"""Resumption: what `klcli train --resume` needs to know before it goes on with a run."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from klcli.cli.session import Session
from klcli.errors import ConfigError
from klcli.procedures.run_lookup import LAST, images_of
from klcli.settings.train_config import TrainConfig

if TYPE_CHECKING:
    from klcli.data.dataset import Dataset
    from klcli.store.store import Store
    from klcli.store.transition import Row
    from klcli.training.result import EpochMetrics, Snapshot


@dataclass(frozen=True)
class Resumption:
    """A run that belongs to this process, with all that it goes on from; a new one begins at nothing."""

    run_id: int
    config: TrainConfig
    dataset: "Dataset"
    snapshot: "Snapshot | None" = None  # None where there is no checkpoint yet
    epochs: "list[EpochMetrics]" = field(default_factory=list)  # up to the snapshot
    seconds: float = 0.0  # of training so far


def resume(
    session: Session,
    store: "Store",
    which: str,
    *,
    data: str | None,
    threads: int | None,
    typed: TrainConfig,
    named: tuple[str, ...],
) -> Resumption:
    """Take a stored run over, or raise ConfigError or DataError, which name what differs.

    `named` are the fields of the config that the user typed again: they must be as they were, because
    the resumed run ends with the bits of an uninterrupted one or not at all.
    """
    from klcli.training.environment import pin_threads

    run = _find(store, which)
    config = TrainConfig.from_json(run["config"])
    for name in named:
        stored, wanted = _field(config, name), _field(typed, name)
        if stored != wanted:
            raise ConfigError(f"--resume {run['id']}: its {name} is {stored!r}, not {wanted!r}, leave that option away")
    if threads not in (None, run["threads"]):
        raise ConfigError(f"--resume {run['id']}: it used --threads {run['threads']}, not {threads}, leave it away")
    dataset = images_of(run, data, f"--resume {run['id']}")
    pin_threads(run["threads"])
    store.runs.claim(run["id"])
    snapshot, remark = store.runs.snapshot(run)
    if remark:
        session.warn(remark)
    step = snapshot.step if snapshot else 0
    epochs = [metrics for metrics in store.runs.metrics(run["id"]) if metrics.step <= step]
    session.say(f"run {run['id']} goes on after epoch {epochs[-1].epoch if epochs else 0:g}")
    return Resumption(run["id"], config, dataset, snapshot, epochs, sum(metrics.seconds for metrics in epochs))


def _find(store: "Store", which: str) -> "Row":
    """Return the run to resume. Raises ConfigError where it cannot be."""
    if which == LAST:
        run = store.runs.latest_unfinished()
        if run is None:
            raise ConfigError("--resume last: every run of this database is complete, there is nothing to go on with")
        return run
    try:
        run = store.runs.get(int(which))
    except ValueError:
        raise ConfigError(f"--resume {which!r}: give the number of a run, or `last`") from None
    if run["study_id"] is not None:
        again = f"{run['command']} --resume{' last' if run['command'].startswith('klcli train ') else ''}"
        raise ConfigError(
            f"--resume {which}: this run belongs to study {run['study_id']}, continue that with `{again}`"
        )
    reasons = {
        "complete": "it is complete, there is nothing to go on with",
        "diverged": "it diverged and would again, try a smaller --eta-max",
        "running": f"it is being trained by process {run['pid']} on {run['host']}",
    }
    if run["state"] in reasons:
        raise ConfigError(f"--resume {which}: {reasons[run['state']]}")
    return run


def _field(config: TrainConfig, name: str) -> object:
    owner: object = config.split if name.startswith("split.") else config
    return getattr(owner, name.removeprefix("split."))
