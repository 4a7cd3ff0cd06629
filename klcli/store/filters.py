"""Filters and orders of runs, as SQL."""

from dataclasses import dataclass, replace
from typing import Any

from klcli.store.records import ImageSet, Run


@dataclass(frozen=True, kw_only=True)
class RunFilter:
    """Conditions on runs; None is no condition."""

    dataset_sha256: str | None = None
    split: str | None = None  # JSON, as in the column
    state: str | None = None
    batch_norm: bool | None = None
    since: str | None = None  # UTC, ISO 8601, as in the column
    tag: str | None = None
    where: str | None = None  # an SQL condition of the user on the columns of runs

    def on_images_of(self, one: ImageSet | Run) -> "RunFilter":
        return replace(self, dataset_sha256=one.dataset_sha256, split=one.split_json)

    def conditions(self) -> tuple[str, list[Any]]:
        """The SQL after WHERE and its parameters."""
        terms = {f"{name} = ?": getattr(self, name) for name in ("dataset_sha256", "split", "state", "batch_norm")}
        terms |= {"started_at >= ?": self.since, "instr(' ' || tags || ' ', ' ' || ? || ' ') > 0": self.tag}
        given = {term: value for term, value in terms.items() if value is not None}
        own = [f"({self.where}\n)"] if self.where is not None else []  # the new line ends a comment in the condition
        return " AND ".join([*given, *own]) or "1", list(given.values())


@dataclass(frozen=True)
class Order:
    """A column of runs to sort by; runs without a value come last."""

    column: str
    descending: bool

    def sql(self) -> str:
        # In descending order, SQLite already puts NULL last and can use an index.
        return f'"{self.column}" ' + ("DESC" if self.descending else "ASC NULLS LAST")


BEST_FIRST = Order("validation_accuracy", descending=True)
