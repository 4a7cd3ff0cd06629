"""`klcli data` as a user calls it: what goes to stdout, what to stderr, and the exit code."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Klcli, Refused, Rows, succeeded

from klcli import Lab, TrainConfig
from klcli.errors import Interrupted
from klcli.settings.split_config import SplitConfig


@pytest.fixture
def data(here: Klcli, tmp_path: Path) -> Klcli:
    """Run `klcli data` on a machine without CIFAR-10."""
    return lambda *args, **environment: here("data", *args, **{"HOME": str(tmp_path)} | environment)


def test_info_describes_the_built_in_set(data: Klcli) -> None:
    shown = succeeded(data("info"))
    assert "synthetic" in shown.stdout
    assert "built in" in shown.stdout
    assert "`klcli data fetch` downloads CIFAR-10, --data PATH names it" in shown.stdout
    assert shown.stdout.count("5000") >= 10
    described = data("info", "--json")
    document = json.loads(described.stdout)
    assert document["command"] == "data info"
    assert document["name"] == "synthetic"
    assert document["images"] == {"train": 50_000, "test": 10_000}
    assert document["bytes"] == 60_000 * 3072
    assert [(row["train"], row["test"]) for row in document["classes"]] == [(5000, 1000)] * 10
    assert document["sha256"] in shown.stdout
    # The hash is that of the bytes, not a constant.
    content = Path(document["prepared"]).read_bytes()
    assert document["sha256"] == hashlib.sha256(content).hexdigest()
    assert document["prepared_bytes"] == len(content) == 60_000 * 3073
    assert f"{document['prepared']}, 184 MB" in shown.stdout


@pytest.mark.parametrize(
    ("args", "environment", "named"),
    [
        (("--data", "cifar10"), {}, "klcli data fetch"),
        (("--data", "no/such/folder"), {}, "'no/such/folder'"),
        ((), {"KLCLI_DATA": "/no/such"}, "KLCLI_DATA '/no/such'"),
        (("--data", "."), {}, "holds no CIFAR-10"),
    ],
)
def test_missing_data_ends_with_3_and_one_line(
    data: Klcli, args: tuple[str, ...], environment: dict[str, str], named: str
) -> None:
    shown = data("info", *args, **environment)
    assert shown.returncode == 3
    assert shown.stdout == ""
    assert named in shown.stderr
    assert shown.stderr.count("\n") == 1
    assert "Traceback" not in shown.stderr


def test_fetch_tells_what_is_wrong(data: Klcli, tmp_path: Path) -> None:
    page = tmp_path / "cifar-10-binary.tar.gz"
    page.write_text("<html>")
    for args, code, named in (
        (("--url", page.as_uri()), 3, "login page"),
        (("--url", (tmp_path / "gone.tar.gz").as_uri()), 3, "cannot be reached"),
        (("--url", str(page)), 2, "https://"),
        (("--url", page.as_uri(), "--md5", "12"), 2, "'12'"),
        (("--url", page.as_uri(), "--md5", ""), 2, "--md5 ''"),
        (("--url", ""), 2, "--url ''"),
        (("--url", page.as_uri(), "--md5", "0" * 32, "--no-verify"), 2, "--no-verify"),
    ):
        shown = data("fetch", "-q", *args)
        assert shown.returncode == code, shown.stderr
        assert named in shown.stderr
        assert shown.stderr.count("\n") == 1
        assert shown.stdout == ""


@pytest.mark.slow
def test_fetch_puts_an_archive_into_the_cache(data: Klcli, tmp_path: Path) -> None:
    """A file of this machine stands for the one in Toronto: black images of two classes, so that it is small."""
    import io
    import tarfile

    archive, cache = tmp_path / "[draft].tar.gz", tmp_path / "cache"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = 10_000 * 3073
            tar.addfile(member, io.BytesIO(b"\1" + bytes(member.size - 1)))
    refused = data("fetch", "--url", archive.as_uri(), KLCLI_CACHE=str(cache))
    assert refused.returncode == 3
    assert "--no-verify" in refused.stderr
    fetched = succeeded(data("fetch", "--url", archive.as_uri(), "--no-verify", "--json", KLCLI_CACHE=str(cache)))
    document = json.loads(fetched.stdout)
    assert document["path"] == str(cache / "cifar-10-binary.tar.gz")
    assert document["md5"] == hashlib.md5(archive.read_bytes()).hexdigest()
    assert document["official"] is False
    assert fetched.stderr.startswith(f"from {archive.as_uri()} to {cache}")  # not on stdout
    # From now on it is what the commands use.
    info = json.loads(data("info", "--data", "cifar10", "--json", KLCLI_CACHE=str(cache)).stdout)
    assert info["source"] == document["path"]
    assert info["classes"][0] == {"name": "airplane", "train": 49_995, "test": 9_999}
    # The commands it names use the database that KLCLI_DB has chosen, and `data info` has no --db.
    again = ("fetch", "--url", archive.as_uri(), "--no-verify")
    named = succeeded(data(*again, KLCLI_CACHE=str(cache), KLCLI_DB="course.db")).stderr.splitlines()[-2:]
    assert named == [f"next        klcli {words}" for words in ("data info", "train --hidden 50 30 20 --bn")]


# --- what a path may be


@pytest.fixture
def strange(tmp_path: Path) -> Iterator[Path]:
    """A folder with a pipe, a link to a device and a socket."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device.tar.gz").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as one, contextlib.chdir(tmp_path):
        one.bind("socket")
        yield tmp_path


@pytest.mark.timeout(60)
@pytest.mark.skipif(os.name != "posix", reason="pipes, devices and sockets with names are POSIX's")
@pytest.mark.parametrize("name", ["pipe", "device.tar.gz", "socket"])
def test_what_is_no_regular_file_is_refused_at_once(here: Klcli, refused: Refused, strange: Path, name: str) -> None:
    kind = name.removesuffix(".tar.gz")
    for process in (
        here("data", "info", "--data", name),
        here("data", "info", KLCLI_DATA=name),
        here("train", "--data", name),
        here("data", "fetch", "-q", "--no-verify", "--url", (strange / name).as_uri(), KLCLI_CACHE=str(strange / "c")),
    ):
        refused(process, 3, f"{strange / name}: this is a {kind}, give a regular file")
    assert not list((strange / "c").rglob("*.part"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read every file")
def test_what_may_not_be_read_is_refused(here: Klcli, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "closed.tar").touch(mode=0)
    for name in ("closed", "closed/below", "closed.tar"):
        refused(here("data", "info", "--data", name), 3, name, "Permission denied")


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    "command",
    [
        "train --subset 200 --hidden 5 --epochs 1", "gradcheck --hidden 5 --dims 5", "data info",
        pytest.param("sigma-sweep --sigmas 0.1 --subset 200 --hidden 5 --cycles 1 -j 2", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_half_filled_folder_is_named_once_and_the_command_goes_on(
    here: Klcli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    half = tmp_path / "datasets" / "cifar-10-batches-bin"
    half.mkdir(parents=True)
    for number in (1, 2, 5):
        (half / f"data_batch_{number}.bin").write_bytes(b"x")
    lacks = f"{half} lacks data_batch_3.bin, data_batch_4.bin, test_batch.bin"
    done = succeeded(here(*command.split()))
    if command == "data info":
        assert lacks in done.stdout
        assert json.loads(here("data", "info", "--json").stdout)["passed_over"][0].startswith(lacks)
    else:
        [line] = [line for line in done.stderr.splitlines() if line.startswith("passed over")]
        assert line.count(lacks) == done.stderr.count(lacks) == 1


# --- a set of the true size


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the binary layout: 10 000 images in a file, random in their first row, else black."""
    folder, rng = tmp_path_factory.mktemp("whole") / "cifar-10-batches-bin", np.random.default_rng(3)
    folder.mkdir()
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        records = np.zeros((10_000, 3073), np.uint8)
        records[:, :100] = rng.integers(0, 10, (10_000, 100))
        records.tofile(folder / name)
    return folder


def invert_200_images(cache: Path) -> None:
    """In the prepared copy, whose size and time stay as they were."""
    [copy] = (cache / "prepared").glob("*.images")
    state = copy.stat()
    with copy.open("r+b") as file:
        file.seek(60_000)
        images = file.read(200 * 3072)
        file.seek(60_000)
        file.write(bytes(255 - byte for byte in images))
    os.utime(copy, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KLCLI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.slow
def test_a_run_is_resumed_on_its_own_images_whatever_happened_to_the_copy(
    whole: Path, cache: Path, tmp_path: Path
) -> None:
    config = TrainConfig(hidden=(5,), epochs=2, split=SplitConfig(subset=500))
    lab = Lab(tmp_path / "klcli.db", data=whole)
    expected = lab.train(config)
    with pytest.raises(Interrupted):
        lab.train(config, on_evaluation=lambda epoch: os.kill(os.getpid(), signal.SIGINT))
    invert_200_images(cache)
    resumed = Lab(tmp_path / "klcli.db").resume("last")
    assert resumed.state == "complete"
    assert (resumed.test_loss, resumed.train_loss) == (expected.test_loss, expected.train_loss)


@pytest.mark.slow
def test_images_in_another_place_beside_the_synthetic_ones(
    here: Klcli, refused: Refused, whole: Path, tmp_path: Path, rows: Rows
) -> None:
    """No `--data` names the images of both runs, of which only the first ones can be in another place."""
    before, now = tmp_path / "before", tmp_path / "now"
    shutil.copytree(whole, before)
    for data in (str(before), "synthetic"):
        succeeded(here("train", "--data", data, "--subset", "200", "--hidden", "5", "--epochs", "1"))
    before.rename(now)
    succeeded(here("evaluate", "1", "2", "--data", str(now)))
    for row, run in zip(rows("evaluations"), rows("runs"), strict=True):
        assert (row["test_accuracy"], row["test_loss"]) == (run["test_accuracy"], pytest.approx(run["test_loss"]))
    succeeded(here("report", "--run", "1", "2", "--plot", "confusion", "--data", str(now)))
    for run in ("1", "2"):
        done = succeeded(here("runs", "rerun", run, "--data", str(now)))
        assert done.stdout.endswith(f" has the same bits as run {run}\n")
    assert [row["command"].partition("--data ")[2] for row in rows("runs")[2:]] == [str(now), "synthetic"]
    for command in (("evaluate", "1", "2"), ("report", "--run", "1", "2", "--plot", "confusion")):
        done = here(*command, "--data", "synthetic", "--quiet")
        assert done.returncode == 3
        assert "run 1: its images had sha256 " in done.stderr


@pytest.mark.slow
def test_no_command_uses_a_damaged_copy(here: Klcli, refused: Refused, whole: Path, cache: Path, rows: Rows) -> None:
    folder = cache.parent / "set"
    shutil.copytree(whole, folder)
    tiny = ("--data", str(folder), "--subset", "500", "--hidden", "5")
    commands = [
        ("train", *tiny, "--epochs", "1"),
        ("sigma-sweep", *tiny, "--sigmas", "0.1", "0.2", "--cycles", "1", "--step-epochs", "1", "-j", "2"),
        ("evaluate", "1"),
        ("report", "--run", "1", "--plot", "confusion"),
    ]

    def results() -> list[tuple[Any, ...]]:
        found = [(run["test_loss"], run["train_loss"]) for run in rows("runs")]
        return found[len(found) // 2 :] if len(found) > 5 else found

    first = [here(*command) for command in commands]
    expected = results()
    for command, before in zip(commands, first, strict=True):
        invert_200_images(cache)
        again = here(*command)
        assert (before.returncode, again.returncode) == (0, 0), again.stderr
        assert ("preparing" in again.stderr) is (command[0] != "report")  # which says nothing but its result
    assert results() == expected
    invert_200_images(cache)
    (folder / "data_batch_3.bin").unlink()
    for command in commands[:-1]:
        refused(here(*command), 3, f"{folder} lacks data_batch_3.bin")
    without_picture = here(*commands[-1])  # the table comes first
    assert without_picture.returncode == 3
    assert f"{folder} lacks data_batch_3.bin" in without_picture.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="other systems refuse such a name")
def test_a_path_of_any_bytes_is_recorded_and_found_again(
    here: Klcli, whole: Path, cache: Path, tmp_path: Path, rows: Rows
) -> None:
    strange = os.fsdecode(b"caf\xe9\n\x1b[31m/real")
    (tmp_path / strange).parent.mkdir()
    (tmp_path / strange).symlink_to(whole)
    tiny = ("--subset", "500", "--hidden", "5", "--epochs", "1")
    shown = {"info": here("data", "info", "--data", strange), "train": here("train", "--data", strange, *tiny)}
    source = f"{tmp_path}/caf\\xe9\\x0a\\x1b[31m/real"
    assert [run["dataset_source"] for run in rows("runs")] == [source]
    shown |= {
        "json": here("data", "info", "--json", "--data", strange),
        "evaluate": here("evaluate", "1"),
        "variable": here("data", "info", KLCLI_DATA=strange),
    }
    for process in shown.values():
        assert process.returncode == 0, process.stderr
        (process.stdout + process.stderr).encode()  # raises if it is no text
    assert json.loads(shown["json"].stdout)["source"] == source
    assert source in shown["info"].stdout
    assert source in shown["variable"].stdout
