"""The page: sections of text, tables and pictures in one HTML file that needs nothing else."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from klcli.report.page.html import Markup, element
from klcli.report.tables.formats import exact_rows
from klcli.report.tables.table import Column, Table

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
    body = [
        element(
            "header", element("h1", title), element("p", subtitle, class_="note"), element("nav", element("ul", *links))
        ),
        element("main", *map(_section, sections)),
        element(
            "footer", element("p", "Accuracies are fractions from 0 to 1. Heads of tables sort them.", class_="screen")
        ),
    ]
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        # An icon of nothing: without it a browser asks the server, or the disk, for one.
        element("link", rel="icon", href="data:,"),
        Markup(f"<style>\n{_resource('page.css')}</style>"),
    ]
    script = Markup(f"<script>\n{_resource('page.js')}</script>")
    page = element("html", element("head", *head), element("body", *body, script), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def _section(section: Section) -> Markup:
    parts = [_part(part) for part in section.parts]
    return element("section", element("h2", section.title), *parts, id=section.anchor)


def _part(part: Part) -> Markup:
    if isinstance(part, Table):
        # The title stands outside of the box that scrolls, or a phone would cut it.
        box = element("div", _table(part), class_="scroll", tabindex="0", role="region", aria_label=part.title)
        return Markup.joined([element("h3", part.title), box])
    if isinstance(part, Picture):
        source = f"data:{TYPES[part.suffix]};base64,{base64.b64encode(part.content).decode()}"
        return element("figure", element("img", src=source, alt=part.words, loading="lazy"))
    if isinstance(part, Details):
        return element("details", element("summary", part.summary), element("pre", part.command), _part(part.table))
    kind = "note warning" if part.is_warning else "note"
    return Markup.joined([element("p", _with_code(sentence), class_=kind) for sentence in part.sentences])


def _with_code(sentence: str) -> Markup:
    """Set what stands between backticks as code."""
    pieces = sentence.split("`")
    return Markup.joined([element("code", piece) if i % 2 else piece for i, piece in enumerate(pieces)])


def _table(table: Table) -> Markup:
    sortable = len(table.rows) > 1
    heads = [
        element(
            "th",
            element("button", column.title or "remark", type="button") if sortable else column.title,
            scope="col",
            class_=_kind(column),
        )
        for column in table.columns
    ]
    rows = [
        element(
            "tr",
            *(
                _cell(*cell)
                for cell in zip(table.columns, texts, [exact.get(c.key) for c in table.columns], strict=True)
            ),
        )
        for texts, exact in zip(table.cells(), exact_rows(table), strict=True)
    ]
    return element(
        "table",
        element("thead", element("tr", *heads)),
        element("tbody", *rows),
        class_="sortable" if sortable else "plain",
    )


def _cell(column: Column, text: str, exact: object) -> Markup:
    kind = _kind(column) if len(text) <= LONG else "text"
    return element("td", text, class_=kind, data_value="" if exact is None else str(exact))


def _kind(column: Column) -> str:
    return "number" if column.is_number else "word"


def _resource(name: str) -> str:
    return files("klcli.report.page").joinpath(name).read_text(encoding="utf-8")
