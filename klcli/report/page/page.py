"""The page: sections of text, tables and pictures in one HTML file that needs nothing else."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from klcli.report.page.html import Markup, element, joined
from klcli.report.tables.formats import exact_rows
from klcli.report.tables.table import Table

TYPES = {"png": "image/png", "svg": "image/svg+xml"}
LONG = 40  # letters from which on a cell may be broken into lines


@dataclass(frozen=True)
class Picture:
    """A drawn picture with what it shows in words, for those who do not see it."""

    words: str
    suffix: str
    content: bytes


@dataclass(frozen=True)
class Notes:
    """Sentences below a table."""

    sentences: Sequence[str]
    is_warning: bool = False


@dataclass(frozen=True)
class Details:
    """A run that can be unfolded: its settings and the command that repeats it."""

    summary: str
    command: str
    table: Table


Part = Table | Picture | Notes | Details


@dataclass(frozen=True)
class Section:
    """A heading with what belongs under it."""

    title: str
    parts: Sequence[Part]

    @property
    def anchor(self) -> str:
        """Its name in links."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Return the page. Pictures, style and script are inside; it loads nothing."""
    links = [element("li", element("a", section.title, href=f"#{section.anchor}")) for section in sections]
    nav = element("nav", element("ul", *links))
    header = element("header", element("h1", title), element("p", subtitle, class_="note"), nav)
    main = [element("section", element("h2", one.title), *map(_part, one.parts), id=one.anchor) for one in sections]
    sentence = "Accuracies are fractions from 0 to 1. Heads of tables sort them."
    footer = element("footer", element("p", sentence, class_="screen"))
    style, script = (
        Markup(f"<{tag}>\n{files('klcli.report.page').joinpath(name).read_text(encoding='utf-8')}</{tag}>")
        for tag, name in (("style", "page.css"), ("script", "page.js"))
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        # An icon of nothing: without it a browser asks the server, or the disk, for one.
        element("link", rel="icon", href="data:,"),
        style,
    )
    page = element("html", head, element("body", header, element("main", *main), footer, script), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def _part(part: Part) -> Markup:
    if isinstance(part, Table):
        # The title stands outside of the box that scrolls, or a phone would cut it.
        box = element("div", _table(part), class_="scroll", tabindex="0", role="region", aria_label=part.title)
        return joined(element("h3", part.title), box)
    if isinstance(part, Picture):
        source = f"data:{TYPES[part.suffix]};base64,{base64.b64encode(part.content).decode()}"
        return element("figure", element("img", src=source, alt=part.words, loading="lazy"))
    if isinstance(part, Details):
        return element("details", element("summary", part.summary), element("pre", part.command), _part(part.table))
    kind = "note warning" if part.is_warning else "note"
    return joined(*(element("p", _with_code(sentence), class_=kind) for sentence in part.sentences))


def _with_code(sentence: str) -> Markup:
    """Set what stands between backticks as code."""
    return joined(*(element("code", piece) if i % 2 else piece for i, piece in enumerate(sentence.split("`"))))


def _table(table: Table) -> Markup:
    sortable = len(table.rows) > 1
    kinds = ["number" if column.is_number else "word" for column in table.columns]
    heads = []
    for column, kind in zip(table.columns, kinds, strict=True):
        title = element("button", column.title or "remark", type="button") if sortable else column.title
        heads.append(element("th", title, scope="col", class_=kind))
    rows = []
    for texts, exact in zip(table.cells(), exact_rows(table), strict=True):
        cells = []
        for column, kind, text in zip(table.columns, kinds, texts, strict=True):
            value = "" if exact[column.key] is None else str(exact[column.key])
            cells.append(element("td", text, class_="text" if len(text) > LONG else kind, data_value=value))
        rows.append(element("tr", *cells))
    parts = element("thead", element("tr", *heads)), element("tbody", *rows)
    return element("table", *parts, class_="sortable" if sortable else "plain")
