"""A table in a terminal: texts wrap, columns are stacked, or dropped and named below it, and no word is broken."""

import re
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from klcli.report.tables.table import Column, Table, joined_groups
from klcli.text import visible

if TYPE_CHECKING:
    from rich.console import Console

GAP = 2  # between two columns of a table that was too wide, and as much around it
WRAPPED = 24  # characters above which a cell of a column of numbers is a text
NARROW, COMFORTABLE = 14, 30  # columns of a text that is longer
Block = dict[int, int]  # the positions of the columns beside one another, with their widths


def show(table: Table, console: "Console") -> None:
    """Print a table."""
    from rich.cells import cell_len

    # In visible characters; without markup, as all results: a name like [draft] has the width of its characters.
    texts = list(zip(*([visible(one.title) for one in table.columns], *table.cells()), strict=True))
    room = console.width
    console.print(wrapped(visible(table.title), room), style="bold", soft_wrap=True)
    widths = [max(map(cell_len, column)) for column in texts]
    if sum(widths) + 3 * len(widths) - 1 <= room:
        _draw(console, table.columns, texts, dict(enumerate(widths)), gap=3)
        return
    least = []
    for one, natural, column in zip(table.columns, widths, texts, strict=True):
        words = [[cell_len(word) for word in text.split()] for text in column]
        # The title of a column of numbers, which is the first text, may wrap; its numbers may not.
        needed = [least_width(own, one.is_number and i > 0) for i, own in enumerate(words)]
        least.append(min(natural, max(needed)))
    blocks, dropped = fitted(table.columns, widths, least, room)
    for block in blocks:
        _draw(console, table.columns, texts, block, GAP)
    if dropped:
        names = ", ".join(table.columns[i].title or table.columns[i].key for i in dropped)
        cure = f"a wider terminal{'' if sys.platform == 'win32' else ' or `| less -S`'} shows all"
        console.print(wrapped(f"not shown at {room} columns: {names}; {cure}", room), crop=False)


def wrapped(text: str, room: int) -> str:
    """Return a text with line breaks between words; a longer word, as a path, and a command in backticks stay whole."""
    if len(text) <= room:
        return text
    text = re.sub("`[^`\n]*`", lambda command: command[0].replace(" ", "\0"), text)
    lines = [textwrap.wrap(one, room, break_long_words=False, break_on_hyphens=False) for one in text.split("\n")]
    return "\n".join(line for own in lines for line in own or [""]).replace("\0", " ")


def least_width(words: Sequence[int], is_number: bool) -> int:
    """Return the narrowest width of a cell with words of these lengths, which takes no number apart."""
    longest, whole = max(words, default=0), sum(words) + len(words) - 1
    if is_number:
        return whole if words and whole <= WRAPPED else longest
    return max(longest, min(whole, NARROW))


def fitted(
    columns: Sequence[Column], natural: Sequence[int], least: Sequence[int], room: int
) -> tuple[list[Block], list[int]]:
    """Return the blocks of columns, one below the other, that fit into `room`, and the columns that are dropped.

    A column is `natural` wide on one line per row, `least` if wrapped between words. Columns of rank 1 are shown if
    the texts can get narrow enough, then those of a higher rank if no text has to. If the others do not fit beside
    one another, they continue in another block, with the keys repeated. A single column may be wider than `room`.
    """
    comfortable = [max(low, min(wide, COMFORTABLE)) for wide, low in zip(natural, least, strict=True)]

    def is_fit(widths: Sequence[int] | Block, own: Sequence[int]) -> bool:
        return sum(widths[i] for i in own) + GAP * len(own) <= room

    ranked = sorted(range(len(columns)), key=lambda i: (columns[i].rank, i))
    shown = [i for i in ranked if columns[i].rank == 0]
    is_stacked = not is_fit(least, shown)  # then dropping columns of rank 1 wins nothing
    for i in ranked[len(shown) :]:
        if columns[i].rank == 1:
            is_shown = is_stacked or is_fit(least, [*shown, i])
        else:
            is_shown = is_fit(comfortable, [*shown, i])
        shown += [i] * is_shown
    shown.sort()
    keys = [i for i in shown if columns[i].is_key] or shown[:1]
    blocks = [keys]
    for own in joined_groups(columns, [i for i in shown if i not in keys]):
        if blocks[-1] != keys and not is_fit(least, [*blocks[-1], *own]):
            blocks.append(keys)
        blocks[-1] = [*blocks[-1], *own]
    found = []
    for block in blocks:
        widths = {i: natural[i] for i in block}
        while not is_fit(widths, block) and (wide := [i for i in block if widths[i] > least[i]]):
            widths[max(wide, key=widths.__getitem__)] -= 1  # the widest ones are reduced
        found.append(widths)
    return found, [i for i in range(len(columns)) if i not in shown]


def _draw(
    console: "Console", columns: Sequence[Column], texts: Sequence[Sequence[str]], block: Block, gap: int
) -> None:
    from rich import box
    from rich.table import Table as RichTable

    width = sum(block.values()) + gap * len(block) - (gap - 2)
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, gap - 2), width=width)
    for i, width in block.items():
        justify: Any = "right" if columns[i].is_number else "left"
        table.add_column(texts[i][0], justify=justify, width=width, overflow="fold")
    for row in zip(*(texts[i][1:] for i in block), strict=True):
        table.add_row(*row)
    console.print(table, crop=False)
