"""README.md and the pages of klcli/docs as the tests read them: blocks, commands, tables."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "klcli/docs").glob("*.md"))}
ALL = "\n".join([README, *PAGES.values()])

# What differs between images, machines and runs, and what stands for it in `shape`.
VARYING = (
    (r"\d+-layer [\d-]+( with BN)?", "NETWORK"),
    (r", \d+ images train, \d+ validate", ""),
    (r"(, subset of \d+ with \d+ test images|, \d+ test \(subset of \d+\)| \(subset of \d+\)| \[.*\]$)", ""),
    (r"[0-9a-f]{8,}", "1"),
    (r", the official files", ""),
    (r"\b(cifar10|synthetic)\b", "DATA"),
    (r"\b(airplane|automobile|deer|horse|ship|truck|class \d)\b(?!\.)", "CLASS"),
    (r"[-+]?\d[\d.]*(e[-+]?\d+)?", "#"),
    (r"(?<= )-(?= |$)", "#"),
    (r"─+", "─"),
    (r"\b(pass|chosen|in # s\.e\.|reproduced|differs|cannot be compared)( .*)?$", ""),
)


def blocks(language: str, text: str = ALL) -> list[str]:
    """The fenced blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def examples() -> dict[str, list[str]]:
    """The lines below each command that is shown with its output."""
    shown = {}
    for block in blocks("console"):
        first, *lines = block.splitlines()
        assert first.startswith("$ klcli "), first
        shown[first.removeprefix("$ ")] = lines
    return shown


def commands(text: str = ALL) -> list[str]:
    """Every call of klcli in the blocks of a shell, from `klcli` on."""
    lines = [line for block in blocks("sh", text) for line in block.splitlines()]
    calls = [part.strip().removeprefix(".venv/bin/") for line in lines for part in line.split("&&")]
    return [call for call in dict.fromkeys(calls) if call.startswith("klcli ")]


def section(title: str, text: str = README) -> str:
    """The text below a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert found, f"there is no section {title!r}"
    return found[1]


def first_column(text: str) -> list[str]:
    """The first cell of every row of the Markdown tables in `text`, without their heads."""
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [line.split("|")[1].strip() for table in tables for line in table.splitlines()[2:]]


def shape(line: str) -> str:
    """What a line of output has in common with that of other images: its words, without numbers and verdicts."""
    for pattern, word in VARYING:
        line = re.sub(pattern, word, line)
    return " ".join(line.split())


@cache
def texts_of_klcli() -> list[str]:
    """Every text in the source of klcli, with `…` where an f-string inserts a value."""
    found = []
    for path in (ROOT / "klcli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(one.value if isinstance(one, ast.Constant) else "…" for one in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value.replace("{}", "…"))
    return found
