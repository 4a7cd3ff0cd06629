"""Databases from other people: whatever a row names and whatever is in its place, nothing outside is touched."""

import io
import os
import re
import resource
import shutil
import socket
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sabotage import Plan, sabotage
from stored import TRAIN, outcome, run_of
from trials import TIMEOUT, Trials
from warm import Laboratory, Warm

from klcli.store import checkpoints

SECONDS, MEMORY = 5, 300 * 2**20  # of the processor; more than the process has at its start
OWN = {1: "checkpoints/run-000001.npz", 2: "checkpoints/run-000002.npz"}  # run 1 is complete, run 2 was killed

FOLDERS = (
    *("", "../", "../../", "/", "./", "//", "~/", "checkpoints/", "checkpoints/../", "checkpoints/./", "plots/"),
    *("checkpoints\\", "x-checkpoints/", "../x/checkpoints/", "a/b-checkpoints/", "OUTSIDE/", "file:", "%s/", "$HOME/"),
)
NAMES = (
    *("precious.npz", "outside/precious.npz", "run-000001.npz", "run-000002.npz", "run-000001.previous.npz"),
    *("run-1.npz", "run-000001.npz\n", "run-000001.npz\x00", "", ".", "..", "checkpoints", "klcli.db", "dev/zero"),
    *("etc/passwd", "\x1b[2J", "\u202egnp.npz", "a" * 5000, "run-\uff10\uff10\uff10\uff10\uff10\uff11.npz"),
)

pytestmark = [
    pytest.mark.timeout(TIMEOUT),
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="pipes, devices and limits as POSIX has them"),
]


def limited(nothing: None) -> None:
    """Kill this process where it takes longer, and refuse it more memory."""
    status = Path("/proc/self/status")
    if status.exists():
        [used] = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmData"))
        resource.setrlimit(resource.RLIMIT_DATA, (int(used) * 1024 + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


def change(db: Path, sql: str, *parameters: object) -> None:
    with closing(sqlite3.connect(db)) as connection, connection:
        connection.execute(sql, parameters)


def put_socket(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as opened:
        short = Path("/tmp") / f"klcli-{os.getpid()}-{path.parent.parent.name}"
        opened.bind(str(short))
        shutil.move(short, path)


def put_device(path: Path) -> None:
    if os.geteuid():
        path.symlink_to("/dev/zero")
    else:
        os.mknod(path, 0o020666, os.makedev(1, 5))


def put_bomb(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("linear1.W.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(20):
            member.write(bytes(2**25))


def put_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def put_huge_header(path: Path) -> None:
    """An array that claims to have 10**12 numbers."""
    header = io.BytesIO()
    claim = {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
    np.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("linear1.W.npy", header.getvalue())


def put_many_members(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(5000):
            archive.writestr(f"{number}.npy", b"")


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path("/tmp/klcli-executed").touch, ()


def put_pickle(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, config=np.array([Harmful()], dtype=object), step=np.array(1), sha256=np.array("0"))


def forged(change_state: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Another network, with the right checksum in the file and in the row."""

    def put(path: Path) -> None:
        genuine = checkpoints.load(path.parents[2] / "genuine.npz")
        change_state(genuine.state)
        sha256 = checkpoints.save(path, genuine.state, genuine.config, genuine.step)
        change(
            path.parents[1] / "klcli.db", "UPDATE runs SET checkpoint_sha256 = ? WHERE id = ?", sha256, path.stem[-1]
        )

    return put


PLACES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a device": put_device,
    "a socket": put_socket,
    "a link to a file": lambda path: path.symlink_to("../../outside/precious.npz"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a bomb": put_bomb,
    "a sparse file": put_sparse,
    "a huge header": put_huge_header,
    "many members": put_many_members,
    "a pickle": put_pickle,
    "an empty file": Path.touch,
    "wrong shapes": forged(lambda state: state.update({"linear1.W": state["linear1.W"].T})),
    "a missing array": forged(lambda state: state.pop("linear2.b")),
    "integers": forged(lambda state: state.update({"linear1.b": np.zeros(10, np.int64)})),
    "NaN": forged(lambda state: np.put(state["linear1.W"], 7, np.nan)),
    "infinity": forged(lambda state: np.put(state["linear2.W"], 0, np.inf)),
}


def commands(run: int, folder: Path) -> dict[str, tuple[str, ...]]:
    found = {
        "report": ("report", "--run", str(run), "--format", "json"),
        "check": ("runs", "check"),
        "delete": ("runs", "delete", str(run), "--yes"),
        "evaluate": ("evaluate", str(run), "--data", "synthetic"),
        "predict": ("predict", str(folder / "picture.png"), "--run", str(run), "--data", "synthetic"),
        "resume": ("train", "--resume", str(run)),
    }
    return {name: (*command, "--db", str(folder / "inside" / "klcli.db")) for name, command in found.items()}


@pytest.fixture
def sample(lab: Laboratory, tmp_path: Path) -> Path:
    """A folder with a complete and a killed run, a picture, and what is outside."""
    sample = tmp_path / "sample"
    inside, outside = sample / "inside", sample / "outside"
    assert lab.run(*TRAIN, "--db", str(inside / "klcli.db")).code == 0
    lab.run(*TRAIN, "--seed", "1", "--db", str(inside / "klcli.db"), prepare=(sabotage, Plan(str(inside), 70)))
    assert (inside / OWN[2]).exists() and checkpoints.previous(inside / OWN[2]).exists()
    shutil.copy(inside / OWN[1], sample / "genuine.npz")
    outside.mkdir()
    shutil.copy(inside / OWN[1], outside / "precious.npz")
    figure = np.random.default_rng(1).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    from PIL import Image

    Image.fromarray(figure).save(sample / "picture.png")
    return sample


def outside(folder: Path) -> tuple[bytes, int, int]:
    """The content of the file outside, and when it was last read and changed."""
    file = folder / "outside" / "precious.npz"
    status = file.stat()
    content = file.read_bytes()
    os.utime(file, (0, 10**9))  # a time of access before that of the change: the next reading sets it, too
    return content, status.st_atime_ns, status.st_mtime_ns


def copied(sample: Path, folder: Path) -> tuple[bytes, int, int]:
    shutil.copytree(sample, folder)
    os.utime(folder / "outside" / "precious.npz", (0, 10**9))
    return (sample / "genuine.npz").read_bytes(), 0, 10**18


def refused(trials: Trials, name: str, process: Warm, codes: tuple[int, ...]) -> None:
    said = [line for line in process.stderr.splitlines() if line.startswith("klcli: ")]
    where = f"{name}: exit {process.code}"
    trials.expect(process.code in codes, f"{where}: {process.stdout[-200:]} {process.stderr[-300:]}")
    trials.expect("Traceback" not in process.stderr, f"{where}: {process.stderr[-500:]}")
    trials.expect(process.code == 0 or len(said) == 1 or "check" in name, f"{where}: {process.stderr[-300:]}")
    trials.expect(all(word.isprintable() for word in process.stderr.splitlines()), f"{where}: {process.stderr!r}")


def test_hostile_names(lab: Laboratory, row: Callable[[str, str], Trials], sample: Path, tmp_path: Path) -> None:
    trials = row(
        "hostile `checkpoint` values from a grammar: report, check, delete, evaluate, predict, --resume",
        f"exit 4 and one line, or a report; under {SECONDS} s and 300 MB; nothing outside is read, changed or removed",
    ).planned(18, 900)
    control = tmp_path / "control"
    shutil.copytree(sample, control)
    for run, name in ((1, "report"), (1, "check"), (1, "evaluate"), (1, "predict"), (2, "resume"), (1, "delete")):
        process = lab.run(*commands(run, control)[name], prepare=(limited, None))
        assert process.code == 0, f"{name}: a sound database: {process.stdout} {process.stderr}"

    def trial(number: int, rng: np.random.Generator) -> None:
        folder = tmp_path / f"trial {number}"
        before = copied(sample, folder)
        run = int(rng.integers(1, 3))
        value = "".join(str(rng.choice(words)) for words in (FOLDERS, NAMES)).replace(
            "OUTSIDE", str(folder / "outside")
        )
        value = OWN[3 - run] if value == OWN[run] else value
        change(folder / "inside" / "klcli.db", "UPDATE runs SET checkpoint = ? WHERE id = ?", value, run)
        for command, arguments in sorted(commands(run, folder).items(), key=lambda _: rng.random())[:2]:
            name = f"trial {number} ({command} {run} {value[:80]!r})"
            process = lab.run(*arguments, prepare=(limited, None))
            codes = {"report": (0,), "delete": (0, 4), "resume": (2, 4)}.get(command, (4,))
            if value == f"x-{OWN[run]}":  # its own file, in a folder that was renamed with the database
                codes = (2,) if (command, run) == ("resume", 1) else (0,)
            refused(trials, name, process, codes)
            trials.expect(outside(folder) == before, f"{name}: the file outside was read, changed or removed")
            trials.tried[f"{command}: exit {process.code}"] += 1
            if process.code == 0:
                break
        shutil.rmtree(folder)

    trials.two_at_a_time(trial)
    assert trials.lost == []


def test_hostile_files(lab: Laboratory, row: Callable[[str, str], Trials], sample: Path, tmp_path: Path) -> None:
    trials = row(
        f"{len(PLACES)} things in place of a checkpoint (pipe, device, link, bomb, sparse, other shapes, NaN, ...) "
        "with report, check, delete, evaluate, predict, --resume",
        f"exit 4 and one line, or the right result; under {SECONDS} s and 300 MB; nothing outside is touched",
    ).planned(20, 2 * 6 * len(PLACES))
    expected, sound = outcome_of(lab, tmp_path), {}
    for command in ("evaluate", "predict"):  # of the checkpoint that the killed run names, which may be the one before
        done = lab.run(*commands(2, sample)[command], prepare=(limited, None))
        sound[command] = shown(done)
        trials.expect(done.code == 0, f"{command}: a sound database: {done.stderr[-300:]}")

    def trial(number: int, rng: np.random.Generator) -> None:
        folder, db = tmp_path / f"trial {number}", tmp_path / f"trial {number}" / "inside" / "klcli.db"
        before = copied(sample, folder)
        what = list(PLACES)[number % len(PLACES)]
        run = 2 if (number // len(PLACES)) % 2 else 1
        path = folder / "inside" / OWN[run]
        path.unlink()
        PLACES[what](path)
        every = sorted(commands(run, folder))
        command = every[(number // len(PLACES) // 2 + number % len(PLACES)) % len(every)]
        name = f"trial {number} ({command} {run}, {what})"
        process = lab.run(*commands(run, folder)[command], prepare=(limited, None))
        codes = {"report": (0,), "delete": (0, 4), "resume": (2,) if run == 1 else (0, 4)}.get(command, (4,))
        if run == 2 and command in ("check", "evaluate", "predict"):
            codes = (0, 4)  # the one before is enough for a run that goes on
        refused(trials, name, process, codes)
        trials.tried[f"{command}: exit {process.code}"] += 1
        if run == 2 and command in sound and process.code == 0:
            trials.expect(shown(process) == sound[command], f"{name}: another result")
        if command == "resume" and process.code == 0:
            trials.expect(outcome(db, 2) == expected, f"{name}: other bits")
        trials.expect(outside(folder) == before, f"{name}: the file outside was read, changed or removed")
        trials.expect(not Path("/tmp/klcli-executed").exists(), f"{name}: a pickle was executed")
        shutil.rmtree(folder)

    trials.two_at_a_time(trial)
    assert trials.lost == []


def shown(process: Warm) -> list[str]:
    """The numbers of a result; its paths differ."""
    return re.findall(r"\d\.\d{4}", process.stdout)


def outcome_of(lab: Laboratory, tmp_path: Path) -> object:
    """What the killed run ends with when nothing happens to it."""
    db = tmp_path / "uninterrupted" / "klcli.db"
    assert lab.run(*TRAIN, "--seed", "1", "--db", str(db)).code == 0
    assert run_of(db) is not None
    return outcome(db)
