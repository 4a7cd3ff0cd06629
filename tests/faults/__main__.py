"""Run the fault harness and write its table: `python -m tests.faults [SHARE] [PYTEST ARGUMENTS]`.

SHARE of the full numbers, 1 by default. The table goes to results/reliability.md, or where KLCLI_FAULTS_TABLE says. A
run that is interrupted continues if KLCLI_FAULTS_RECORD names a file for it.
"""

import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TABLE = Path(os.environ.get("KLCLI_FAULTS_TABLE", HERE.parent.parent / "results" / "reliability.md"))


def main(arguments: list[str]) -> int:
    """Run all rows; the exit code is that of pytest."""
    scale = arguments.pop(0) if arguments and arguments[0].replace(".", "").isdecimal() else "full"
    scale = "full" if scale == "1" else scale
    with tempfile.TemporaryDirectory() as folder:
        record = Path(os.environ.get("KLCLI_FAULTS_RECORD") or f"{folder}/record")
        record.touch()
        environment = os.environ | {"KLCLI_FAULTS": scale, "KLCLI_FAULTS_RECORD": str(record)}
        command = [sys.executable, "-m", "pytest", str(HERE), "-q", "-m", "", "-p", "no:cacheprovider", *arguments]
        code = subprocess.run(command, env=environment, check=False).returncode
        lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
        rows = list({line["row"]: line for line in lines}.values())  # the latest line of each row
    if rows:  # none with --help or --collect-only
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text(document(rows, scale), encoding="utf-8")
        print(TABLE)
    return code


def document(rows: list[dict[str, Any]], scale: str) -> str:
    """The table of what was tried and what was lost, with all that is needed to try it again."""
    share = (
        "the full numbers" if scale == "full" else f"{float(scale):g} of the full numbers, and at least the small ones"
    )
    seeds = sorted({row["seed"] for row in rows})
    seconds = sum(row["seconds"] for row in rows)
    libraries = ", ".join(
        f"{name} {version(name)}" for name in ("klcli", "numpy", "sqlite-utils", "pytest", "hypothesis")
    )
    lines = [
        "# Reliability",
        "",
        "What was done to klcli, how often, and what was lost. Written by `python -m tests.faults`; each row is a test",
        "in tests/faults, whose small numbers run with the slow tests.",
        "",
        f"This run: {share}, seed {', '.join(map(str, seeds))}, {duration(seconds)}, {platform.platform()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {libraries}.",
        "",
        "| tried | trials (full) | must hold | lost | time |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['row']} | {row['trials']} ({row['full']}) | {row['holds']} | {len(row['lost']) or 'nothing'} "
        f"| {duration(row['seconds'])} |"
        for row in rows
    ]
    lines += ["", "## What happened in the trials", ""]
    for row in rows:
        happened = ", ".join(f"{what}: {times}" for what, times in sorted(row["tried"].items()))
        lines += [f"- {row['row']}. {happened}{'.' if happened else ''}"]
        lines += [f"  - Remark: {remark}." for remark in row["remarks"]]
        lines += [f"  - **Lost**: {' '.join(loss.split())}" for loss in row["lost"][:20]]
    lines += ["", LIMITS]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """`45 s` or `3.2 min`."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


LIMITS = """\
## How to read it

- The moments of signals come from the seed, what the process does at that moment depends on the machine: a repetition
  kills elsewhere. Crashes and errors at each operation are exact.
- Trainings are small (300 synthetic images, one hidden layer), so that kills often meet a write. Most of them run in
  processes that are forked from one with all imports done, without drawing the picture; studies and strange places
  run as `python -m klcli`.
- SIGKILL ends a process, not the machine. Power cuts are simulated: `strace` records every operation on the files of a
  real training, and a disk is built from those before the moment of the cut. Data are on it once their file has been
  synced, names once their folder has been. Without a sync, each write and each name is there or not whatever the
  others are, a write also in parts that end at borders of 512 or 4096 bytes, where a file grew also with bytes that
  nobody wrote. Disks that lie about a sync, and damage to synced data, are not covered.
- Host names and process numbers are those of real name spaces, media are read-only by a real mount: rows that need the
  superuser, strace or a second SQLite (KLCLI_TEST_CURRENT_SQLITE) are skipped, and missing above, where there is none.
- A copy is made file by file while a training writes. One that is torn is refused; `sqlite3 klcli.db ".backup copy.db"`
  makes one that never is.
- Hostile rows: a process has 5 s of a processor and 300 MB beyond its start, which the kernel enforces. That the file
  outside is not read shows in its time of access.
- A flip inside a number or a text of a damaged database gives another valid number or text. The database keeps no
  checksum of rows: such a file is read as it is. Checkpoints and data sets do have checksums.
- Pixels of the binary layout have no published checksum: flipped ones are read, and show in the sha256 of the data set.
"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
