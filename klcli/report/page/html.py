"""HTML: elements as values, so that no text of a user can be taken for markup.

The standard library's `html.escape` is all that a page of tables and pictures needs; a template
language would be a dependency for one file.
"""

import html as standard
from typing import Self


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()

    @classmethod
    def joined(cls, parts: "list[str]", between: str = "") -> Self:
        """Return parts one after another, escaping those that are plain text."""
        return cls(between.join(escape(part) for part in parts))


def escape(text: str) -> str:
    """Return text in which nothing is markup; Markup stays what it is."""
    return text if isinstance(text, Markup) else standard.escape(text)


def element(name: str, /, *children: str, **attributes: str) -> Markup:
    """Return one element. `class_` and `data_value` become class and data-value; children are escaped unless Markup."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{standard.escape(str(value))}"' for key, value in attributes.items()
    )
    if name in ("img", "meta", "link"):
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{Markup.joined(list(children))}</{name}>")
