"""`klcli help`: the pages that ship with klcli."""

import re
import sys
from difflib import get_close_matches
from importlib.resources import files
from typing import Annotated

from klcli.cli.invocation import Invocation, invoked
from klcli.cli.options import argument
from klcli.errors import ConfigError

PAGES_OF_COMMANDS = {
    "train": "training", "search-lambda": "studies", "sigma-sweep": "studies", "evaluate": "evaluation",
    "predict": "evaluation",
}  # fmt: skip
MOST_WRAPPED = 3  # columns of a table whose cells may be wrapped


@invoked()
def help_on(
    *,
    topic: Annotated[str | None, argument("TOPIC", "For example reproduce; all are listed if omitted.")] = None,
    invocation: Invocation,
) -> None:
    """Show a page of the documentation, or the list of pages.

    - `klcli help`
    - `klcli help reproduce`
    """
    found = sorted(files("klcli").joinpath("docs").iterdir(), key=lambda one: one.name)
    pages = {one.name.removesuffix(".md"): one.read_text(encoding="utf-8") for one in found if one.name.endswith(".md")}
    if topic is None:
        titles = {name: text.partition("\n")[0].removeprefix("# ") for name, text in pages.items()}
        invocation.result(*(f"{name:<17}{title}" for name, title in titles.items()))
        invocation.document("help", {"topics": titles})
        return
    text = pages.get(PAGES_OF_COMMANDS.get(topic, topic))
    if text is None:
        nearest = "".join(f"the nearest is {one}, " for one in get_close_matches(topic, pages, n=1, cutoff=0.0))
        raise ConfigError(f"help {topic!r}: {nearest}`klcli help` lists all, `klcli COMMAND --help` shows options")
    invocation.document("help", {"topic": topic, "text": text})
    if sys.stdout.isatty() and not invocation.as_json:  # in a pipe, the page stays as it is
        from rich.markdown import Markdown

        invocation.out.print(Markdown(_for_terminal(text, invocation.out.width), hyperlinks=False))
    elif not invocation.as_json:
        print(text, end="")


def _for_terminal(text: str, width: int) -> str:
    """Return a page whose links are commands or names of files, and whose wide tables are lists."""
    text = re.sub(r"\[[^]]+\]\((\w+)\.md(#[\w-]+)?\)", r"`klcli help \1`", text)
    text = re.sub(r"\[([^]]+)\]\(\.\./[^)]+\)", r"\1", text)
    text = re.sub(r"(?ms)^```console\n.*?^```$", lambda shown: _cut(shown[0], width - 2), text)
    return re.sub(r"(?m)(?:^\|.*\n)+", lambda table: _narrow(table[0], width), text)


def _cut(shown: str, width: int) -> str:
    """Return output whose tables are cut at the right, since wrapped rows cannot be read."""
    if max(map(len, re.findall(r"(?m)^ .*$", shown)), default=0) <= width:
        return shown
    return re.sub(rf"(?m)^(.{{{width - 1}}}).{{2,}}$", r"\1…", re.sub(r"(?m)^ ", "", shown))


def _narrow(table: str, width: int) -> str:
    """Return a table as it is if a terminal shows it with whole words, and at most three columns wrapped; or a list."""
    head, _, *rows = ([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines())
    columns = [[cell.replace("`", "") for cell in column] for column in zip(head, *rows, strict=True)]
    widest = [max(map(len, column)) for column in columns]
    left = width - 3 * len(head)
    # As rich does: the widest columns are narrowed first.
    limit = next(n for n in range(left, -1, -1) if sum(min(one, n) for one in widest) <= left)
    breaks = any(len(word) > limit for column in columns for cell in column for word in cell.split())
    if sum(widest) <= left or (len(head) <= MOST_WRAPPED and not breaks):
        return table
    listed = []
    for name, *facts, meaning in rows:
        pairs = [f"{key} {fact}" for key, fact in zip(head[1:-1], facts, strict=True) if fact not in ("", "-")]
        listed.append(f"- {name}: {meaning}" + (f"\\\n  {'; '.join(pairs)}\n" if pairs else "\n"))
    return "".join(listed)
