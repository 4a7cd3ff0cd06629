"""Records that can still be read as rows by column name, until every room reads their fields."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

Row = Any


class RowLike(Mapping[str, Any]):
    """A record as the row of `SELECT *` from which it was made."""

    def _columns(self) -> dict[str, Any]:
        row: dict[str, Any] | None = self.__dict__.get("_row")
        if row is not None:
            return row
        return {field.name.removesuffix("_json"): getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def __getitem__(self, name: str) -> Any:
        return self._columns()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns())

    def __len__(self) -> int:
        return len(self._columns())

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return self._columns() | dict(other)
