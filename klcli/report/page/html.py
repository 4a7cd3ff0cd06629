"""HTML: elements as values, so that no text of a user can be taken for markup.

The standard library's `html.escape` is all that a page of tables and pictures needs; a template
language would be a dependency for one file.
"""

import html as standard


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def joined(*parts: str) -> Markup:
    """Return parts one after another, escaping those that are plain text."""
    return Markup("".join(part if isinstance(part, Markup) else standard.escape(part) for part in parts))


def element(name: str, /, *children: str, **attributes: str) -> Markup:
    """Return one element. `class_` and `data_value` become class and data-value; children are escaped unless Markup."""
    values = {key.rstrip("_").replace("_", "-"): standard.escape(value) for key, value in attributes.items()}
    given = "".join(f' {key}="{value}"' for key, value in values.items())
    end = "" if name in ("img", "meta", "link") else f"{joined(*children)}</{name}>"
    return Markup(f"<{name}{given}>{end}")
