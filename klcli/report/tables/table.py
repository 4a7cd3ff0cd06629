"""Table: rows of values under columns, its rendering in a terminal, and the formats of numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from klcli.text import visible

if TYPE_CHECKING:
    from rich.console import Console

Row = dict[str, Any]  # values by the key of their column
Form = Callable[[Any], str]
SPLITS = ("train", "validation", "test")
UNLIMITED = 10_000  # columns
fraction = "{:.4f}".format  # an accuracy on 10 000 images, a loss or a cost
significant = "{:.4g}".format  # quantities that span decades: lambda, sigma, eta
seconds = "{:.1f}".format
scientific = "{:.1e}".format  # an error


@dataclass(frozen=True)
class Column:
    """One column: the key of its values in a row, its title and its format."""

    key: str
    title: str
    form: Form = str
    is_number: bool = True


def columns(text: str, **forms: Form) -> tuple[Column, ...]:
    """Return columns written as `id:d=run; network; seconds:.1f`: a key, the format of a number, and a title.

    Without a colon, the column is one of words; without a title, the key is the title. `forms` are the formats, by
    key, that are not those of Python.
    """
    found = []
    for one in text.split(";"):
        given, equals, title = one.strip().partition("=")
        key, colon, digits = given.partition(":")
        form = forms.get(key) or (f"{{:{digits}}}".format if digits else str)
        found.append(Column(key, title if equals else key.replace("_", " "), form, bool(colon)))
    return tuple(found)


@dataclass(frozen=True)
class Shown:
    """A value with its text for the terminal; CSV and JSON have the value, and `more` in separate columns."""

    value: Any
    text: str
    more: Mapping[str, Any] = field(default_factory=dict)  # std, n

    def __str__(self) -> str:
        return self.text


def show(value: Any, form: Form) -> Shown | None:
    """Return a value with its text in the format of its row."""
    return None if value is None else Shown(value, form(value))


@dataclass(frozen=True)
class Table:
    """A title and rows of values, in full precision until they are shown."""

    title: str
    columns: tuple[Column, ...]
    rows: Sequence[Row]

    def cells(self) -> list[list[str]]:
        """Return the text of every cell, with visible control characters; a missing value is a dash."""
        forms = [(one.key, one.form) for one in self.columns]
        return [["-" if row.get(key) is None else visible(form(row[key])) for key, form in forms] for row in self.rows]

    def limited(self, rows: int | None) -> "Table":
        return replace(self, rows=self.rows[:rows])

    def show(self, console: "Console") -> None:
        """Print the table at its full width: a narrower terminal wraps its lines, and no cell is truncated."""
        from rich import box
        from rich.console import Console
        from rich.table import Table as RichTable

        table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in self.columns:
            table.add_column(visible(column.title), justify="right" if column.is_number else "left", no_wrap=True)
        for cells in self.cells():
            table.add_row(*cells)
        console.print(visible(self.title), style="bold", soft_wrap=True)
        # Without markup, like all results: a name like [draft] has the width of its characters.
        table.width = Console(width=UNLIMITED, markup=False, emoji=False).measure(table).maximum
        console.print(table, crop=False)


def duration(value: float) -> str:
    """`24.3 s`, `12 min 5 s`, `2 h 3 min`."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
