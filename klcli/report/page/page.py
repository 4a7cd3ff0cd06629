"""The page: sections of text, tables and pictures in one self-contained HTML file."""

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

from klcli.report.tables.formats import exact_rows
from klcli.report.tables.table import Column, Table, joined_groups
from klcli.text import visible

LONG = 40  # characters above which a cell may wrap
FOLDED = 40  # rows above which a table is folded


class Markup(str):
    """Text that is already HTML; all other text, for example a name from a user, is escaped."""

    __slots__ = ()


def joined(*parts: str) -> Markup:
    """Concatenate parts, escaping those that are plain text."""
    escaped = (part if isinstance(part, Markup) else html.escape(visible(part, keep="\n")) for part in parts)
    return Markup("".join(escaped))


def element(name: str, /, *children: str, **attributes: str) -> Markup:
    """Return an element. `class_` and `data_value` become class and data-value; children are escaped unless Markup."""
    names = {key: key.rstrip("_").replace("_", "-") for key in attributes}
    given = "".join(f' {names[key]}="{joined(value)}"' for key, value in attributes.items())
    end = "" if name in ("img", "meta", "link") else f"{joined(*children)}</{name}>"
    return Markup(f"<{name}{given}>{end}")


@dataclass(frozen=True)
class Section:
    """A heading with its content."""

    title: str
    parts: Sequence[Markup]

    @property
    def anchor(self) -> str:
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Return the page, with embedded pictures, style and script; it loads no other file."""
    links = [element("li", element("a", section.title, href=f"#{section.anchor}")) for section in sections]
    nav = element("nav", element("ul", *links))
    header = element("header", element("h1", title), element("p", subtitle, class_="note"), nav)
    main = [element("section", element("h2", one.title), *one.parts, id=one.anchor) for one in sections]
    sentence = "Accuracies are fractions from 0 to 1. Click a column header to sort its table."
    footer = element("footer", element("p", sentence, class_="screen"))
    here, names = files("klcli.report.page"), {"style": "page.css", "script": "page.js"}
    texts = {tag: here.joinpath(name).read_text(encoding="utf-8") for tag, name in names.items()}
    style, script = (Markup(f"<{tag}>\n{text}</{tag}>") for tag, text in texts.items())
    charset = element("meta", charset="utf-8")
    viewport = element("meta", name="viewport", content="width=device-width, initial-scale=1")
    icon = element("link", rel="icon", href="data:,")  # without it, a browser requests one from the server or the disk
    head = element("head", charset, viewport, element("title", title), icon, style)
    page = element("html", head, element("body", header, element("main", *main), footer, script), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def picture(words: str, suffix: str, content: bytes) -> Markup:
    """Return a drawn picture, PNG or SVG, with a text alternative for screen readers."""
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    if suffix == "svg":  # without comments and line breaks, with five digits: a hundredth of a point
        drop = r"(?s)<!--.*?-->|<metadata>.*?</metadata>|<!DOCTYPE[^>]*>|<\?xml[^>]*>"
        svg = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.5g}", re.sub(drop, "", content.decode()))
        svg = re.sub(r">\s+<", "><", re.sub(r"\s+", " ", svg)).strip()
        source = f"data:image/svg+xml,{svg.translate(_IN_ADDRESS)}"  # two thirds of its length in base64
    return element("figure", element("img", src=source, alt=words, loading="lazy"))


_IN_ADDRESS = str.maketrans({character: f"%{ord(character):02X}" for character in "%#\"'<>&"})


def folded(summary: str, *content: Markup) -> Markup:
    """Return content that a click on its summary shows; a closed one is not printed."""
    return element("details", element("summary", summary), *content)


def notes(sentences: Sequence[str], is_warning: bool = False) -> Markup:
    """Return the notes below a table, with code between backticks."""
    split = [enumerate(sentence.split("`")) for sentence in sentences]
    paragraphs = [[element("code", piece) if i % 2 else piece for i, piece in pieces] for pieces in split]
    return joined(*(element("p", *own, class_="note warning" if is_warning else "note") for own in paragraphs))


def table(content: Table, folds: bool = True) -> Markup:
    """Return a table under its title, which is outside the scrolling box, because a phone would truncate it there.

    Its accuracies come first, for a phone, and a long table is folded.
    """
    content = replace(content, columns=_accuracies_first(content.columns))
    sortable = len(content.rows) > 1
    heads, rows = [], []
    kinds = {one.key: "number" if one.is_number else "word" for one in content.columns}
    for one in content.columns:
        title = one.title or one.key
        head = element("button", title, type="button") if sortable else title
        heads.append(element("th", head, scope="col", class_=kinds[one.key]))
    for texts, exact in zip(content.cells(), exact_rows(content), strict=True):
        values = ["" if exact[key] is None else str(exact[key]) for key in kinds]
        cells = zip(texts, kinds.values(), values, strict=True)
        own = [element("td", text, class_="text" if len(text) > LONG else k, data_value=v) for text, k, v in cells]
        rows.append(element("tr", *own))
    parts = element("thead", element("tr", *heads)), element("tbody", *rows)
    whole = element("table", *parts, class_="sortable" if sortable else "plain")
    box = element("div", whole, class_="scroll", tabindex="0", role="region", aria_label=content.title)
    if folds and len(rows) > FOLDED:
        return folded(f"{content.title} ({len(rows)} rows)", box)
    return joined(element("h3", content.title), box)


def _accuracies_first(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Return the keys of the rows, the accuracies with what is joined to them, and the other columns."""
    keys = [i for i, one in enumerate(columns) if one.is_key] or [0]
    ranks = [0 if i in keys else 1 if "accuracy" in one.key else 2 for i, one in enumerate(columns)]
    ordered = sorted(joined_groups(columns, range(len(columns))), key=lambda own: ranks[own[0]])
    return tuple(columns[i] for own in ordered for i in own)
