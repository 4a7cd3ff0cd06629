"""Selection: what `klcli report` was asked for, before the database is opened."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from klcli.errors import ConfigError

if TYPE_CHECKING:
    from klcli.store.runs import Order, RunFilter

STATES = ("complete", "diverged", "interrupted", "failed", "running")
HOURS = {"h": 1, "d": 24, "w": 168}
DESCENDING = ("started_at", "finished_at", "id")  # and every accuracy: the newest, the best first
SHORT = {
    "validation": "validation_accuracy",
    "test": "test_accuracy",
    "train": "train_accuracy",
    "run": "id",
    "bn": "batch_norm",
}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which view, of which runs, in which order. Raises ConfigError where the options contradict each other."""

    best: int | None = None
    list_all: bool = False
    runs: tuple[int, ...] = ()
    diff_only: bool = False
    study: int | None = None
    group_by: tuple[str, ...] = ()
    gradchecks: bool = False
    dataset: str | None = None
    images_of: int | None = None
    bn: bool | None = None
    state: str | None = None
    since: str | None = None
    tagged: str | None = None
    where: str | None = None
    sort: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be shown."""
        given = self._views()
        if len(given) > 1:
            raise ConfigError(f"{given[0]} and {given[1]}: one view at a time")
        if self.state is not None and self.state not in STATES:
            raise ConfigError(f"--state {self.state!r}: choose one of {', '.join(STATES)}")
        if self.state not in (None, "complete") and given and not self.list_all:
            raise ConfigError(f"{given[0]} shows complete runs, --state {self.state} goes with --list")
        if self.dataset is not None and self.images_of is not None:
            raise ConfigError(f"--dataset {self.dataset} and --images-of {self.images_of}: give one of them")
        if self.diff_only and len(self.runs) < 2:
            raise ConfigError("--diff-only: compares runs, give at least two with --run")
        self.order()
        self.filter()

    def _views(self) -> list[str]:
        views = {
            "--best": self.best,
            "--list": self.list_all,
            "--run": self.runs,
            "--study": self.study,
            "--group-by": self.group_by,
            "--gradchecks": self.gradchecks,
        }
        return [name for name, value in views.items() if value]

    @property
    def has_view(self) -> bool:
        """Whether a view was asked for by name."""
        return bool(self._views())

    @property
    def is_list(self) -> bool:
        """Whether runs of any state are listed instead of ranked."""
        return self.list_all or self.state not in (None, "complete")

    def order(self) -> "Order | None":
        """Return the column and direction of --sort."""
        from klcli.store.runs import Order

        if self.sort is None:
            return None
        name, _, direction = self.sort.partition(":")
        column = SHORT.get(name, name)
        if direction not in ("", "asc", "desc"):
            raise ConfigError(f"--sort {self.sort}: after the colon stands asc or desc")
        usual = column.endswith("accuracy") or column in DESCENDING
        return Order(column, usual if not direction else direction == "desc")

    def filter(self) -> "RunFilter":
        """Return the conditions, apart from the images."""
        from klcli.store.runs import RunFilter

        state = self.state if self.is_list else "complete"
        return RunFilter(
            state=state,
            batch_norm=self.bn,
            since=None if self.since is None else _since(self.since),
            tag=self.tagged,
            where=self.where,
        )


def _since(text: str) -> str:
    """Read a date, a time or an age as the database keeps times: UTC, to the second."""
    number, unit = text[:-1], text[-1:]
    try:
        if unit in HOURS and number.isdigit():
            moment = datetime.now(UTC) - timedelta(hours=int(number) * HOURS[unit])
        else:
            moment = datetime.fromisoformat(text).astimezone(UTC)  # without a zone, the one of this machine
    except (ValueError, OverflowError):
        raise ConfigError(f"--since {text!r}: give a date as 2026-05-31, a time as 2026-05-31T14:00, or 7d") from None
    return moment.isoformat(timespec="seconds")
