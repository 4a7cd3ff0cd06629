"""`klcli data` as a user calls it: what goes to stdout, what to stderr, and the exit code."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

Klcli = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def data(here: Klcli, tmp_path: Path) -> Klcli:
    """Run `klcli data` on a machine without CIFAR-10."""
    return lambda *args, **environment: here("data", *args, **{"HOME": str(tmp_path)} | environment)


def test_info_describes_the_built_in_set(data: Klcli) -> None:
    shown = data("info")
    assert shown.returncode == 0, shown.stderr
    assert "synthetic" in shown.stdout
    assert "built in" in shown.stdout
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
    images = np.load(document["prepared"], mmap_mode="r")
    labels = bytes.fromhex(json.loads(Path(document["prepared"]).with_suffix(".json").read_text())["labels"])
    assert document["sha256"] == hashlib.sha256(labels + images.tobytes()).hexdigest()


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
    fetched = data("fetch", "--url", archive.as_uri(), "--no-verify", "--json", KLCLI_CACHE=str(cache))
    assert fetched.returncode == 0, fetched.stderr
    document = json.loads(fetched.stdout)
    assert document["path"] == str(cache / "cifar-10-binary.tar.gz")
    assert document["md5"] == hashlib.md5(archive.read_bytes()).hexdigest()
    assert document["official"] is False
    assert "MB" in fetched.stderr  # progress, and not on stdout
    # From now on it is what the commands use.
    info = json.loads(data("info", "--data", "cifar10", "--json", KLCLI_CACHE=str(cache)).stdout)
    assert info["source"] == document["path"]
    assert info["classes"][0] == {"name": "airplane", "train": 49_995, "test": 9_999}
