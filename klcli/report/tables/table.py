"""Table: rows of values under columns, and the formats of numbers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from klcli.text import visible

Row = dict[str, Any]  # values by the key of their column
Form = Callable[[Any], str]
SPLITS = ("train", "validation", "test")
significant = "{:.4g}".format  # quantities that span decades: lambda, sigma, eta
HUGE = 1e5  # a loss on its way to infinity: four decimals would be wider than its column


def fraction(value: float, sign: str = "") -> str:
    """Return an accuracy on 10 000 images, a loss or a cost with four decimals, from HUGE on with four digits."""
    return f"{value:{sign}.4f}" if abs(value) < HUGE else f"{value:{sign}.4g}"


def signed(value: float) -> str:
    """Return the difference of two such numbers with its sign; zero after rounding has none."""
    text = fraction(value, "+")
    return text[1:] if float(text) == 0 else text


_FORMS: dict[str, Form] = {".4f": fraction, "+.4f": signed}  # in place of Python's


@dataclass(frozen=True)
class Column:
    """One column: the key of its values in a row, its title and its format."""

    key: str
    title: str
    form: Form = str
    is_number: bool = True
    rank: int = 0  # of a column that a narrow terminal may drop, the highest first
    is_key: bool = False  # says what a row is about, so that a narrow terminal repeats it; the first column if none is
    is_joined: bool = False  # has a meaning only beside the column before it


def columns(text: str, **forms: Form) -> tuple[Column, ...]:
    """Return columns written as `id:d=run; network; seconds:.1f`: a key, the format of a number, and a title.

    Without a colon, the column is one of words; without a title, the key is the title. Formats are Python's, except
    `.4f`, which is `fraction`, `+.4f`, which is `signed`, and the `forms` by key. Marks before the key are for a narrow
    terminal: `?` for a column that it may drop, `??` before that and `???` first; `*` for a key of the rows; `&` for a
    column that stays beside the last one.
    """
    found = []
    for one in text.split(";"):
        marked, equals, title = one.strip().partition("=")
        given = marked.lstrip("?*&")
        marks = marked.removesuffix(given)
        key, colon, digits = given.partition(":")
        form = forms.get(key) or _FORMS.get(digits) or f"{{:{digits}}}".format
        words = title if equals else key.replace("_", " ")
        found.append(Column(key, words, form, bool(colon), marks.count("?"), "*" in marks, "&" in marks))
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


def joined_groups(columns: Sequence[Column], positions: Iterable[int]) -> list[list[int]]:
    """Return the positions of columns in groups: a joined column belongs to the one before it."""
    groups: list[list[int]] = []
    for i in positions:
        if columns[i].is_joined and groups:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def duration(value: float) -> str:
    """`24.3 s`, `12 min 5 s`, `2 h 3 min`."""
    if round(value, 1) < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
