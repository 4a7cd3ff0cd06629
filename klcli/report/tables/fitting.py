"""Fitting: which columns of a table a terminal of a certain width shows, and how wide; never by breaking a word."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

GAP = 2  # between two columns of a table that was too wide, and as much around it
WRAPPED = 24  # characters above which a cell of a column of numbers is a text
NARROW, COMFORTABLE = 14, 30  # columns of a text that is longer


@dataclass(frozen=True)
class Extent:
    """The columns of a terminal that one column of a table takes.

    `natural`: on one line per row; `least`: wrapped between words. `rank`: columns of a higher one are dropped first,
    0 for never; a key is repeated beside the columns of every block; a joined one stays beside the one before it.
    """

    natural: int
    least: int
    rank: int = 0
    is_key: bool = False
    is_joined: bool = False

    @property
    def comfortable(self) -> int:
        return max(self.least, min(self.natural, COMFORTABLE))


Block = dict[int, int]  # the positions of the columns beside one another, with their widths


def wrapped(text: str, room: int) -> str:
    """Return a text with line breaks between words; a longer word, as a path, and a command in backticks stay whole."""
    if len(text) <= room:
        return text
    text = re.sub("`[^`\n]*`", lambda command: command[0].replace(" ", "\0"), text)
    lines = [textwrap.wrap(one, room, break_long_words=False, break_on_hyphens=False) for one in text.split("\n")]
    return "\n".join(line for own in lines for line in own or [""]).replace("\0", " ")


def least_width(lengths: Sequence[Sequence[int]], is_number: bool) -> int:
    """Return the narrowest width of cells, each given as the lengths of its words, which takes no number apart."""
    whole = [sum(words) + len(words) - 1 for words in lengths]
    longest = [
        length if is_number and length <= WRAPPED else max(words, default=0)
        for length, words in zip(whole, lengths, strict=True)
    ]
    return max(max(longest, default=0), 0 if is_number else min(max(whole, default=0), NARROW))


def fitted(columns: Sequence[Extent], room: int) -> tuple[list[Block], list[int]]:
    """Return the blocks of columns, one below the other, that fit into `room`, and the columns that are dropped.

    Texts wrap; of a high rank, columns are dropped before a text gets narrow, of rank 1 after that. If the others
    do not fit beside one another, they continue in another block. A single column may be wider than `room`.
    """
    shown = list(range(len(columns)))
    for rank in range(max((one.rank for one in columns), default=0), 0, -1):
        if rank == 1 and _total([columns[i].least for i in shown if columns[i].rank != 1]) > room:
            break  # it must be stacked anyway
        for i in [i for i in reversed(shown) if columns[i].rank == rank]:
            if _total([columns[j].least if rank == 1 else columns[j].comfortable for j in shown]) > room:
                shown.remove(i)
    for i in sorted(set(range(len(columns))) - set(shown), key=lambda i: (columns[i].rank, i)):
        if _total([columns[j].comfortable for j in (*shown, i)]) <= room:  # a wider one was dropped after it
            shown = sorted([*shown, i])
    groups: list[list[int]] = []
    keys = [i for i in shown if columns[i].is_key] or shown[:1]
    for i in (i for i in shown if i not in keys):
        if columns[i].is_joined and groups:
            groups[-1].append(i)
        else:
            groups.append([i])
    blocks = [keys]
    for own in groups:
        if blocks[-1] != keys and _total([columns[i].least for i in (*blocks[-1], *own)]) > room:
            blocks.append(keys)
        blocks[-1] = [*blocks[-1], *own]
    dropped = [i for i in range(len(columns)) if i not in shown]
    return [_widths({i: columns[i] for i in block}, room) for block in blocks], dropped


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * len(widths)


def _widths(block: dict[int, Extent], room: int) -> Block:
    """Return the natural widths, of which the widest are reduced until the block fits."""
    widths = {i: one.natural for i, one in block.items()}
    while _total([*widths.values()]) > room and (wide := [i for i, one in block.items() if widths[i] > one.least]):
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths
