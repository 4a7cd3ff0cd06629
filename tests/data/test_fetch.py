"""Downloads from a server on this machine: whole, broken off and continued, wrong in every way."""

import errno
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from lookalike import BINARY as BINARY_FILES
from lookalike import Cifar, tar_gz

from klcli.data.cifar10 import fetch, layouts
from klcli.data.cifar10.layouts import BINARY, PYTHON
from klcli.data.sources import open_dataset
from klcli.errors import ConfigError, DataError, StoreError

NAME = BINARY.archive


@dataclass
class Site:
    """A web site with one file, and how it behaves."""

    content: bytes
    ranges: bool = True
    stop_after: int | None = None  # bytes of an answer, after which the connection is closed
    status: int = 200
    url: str = ""
    asked: list[str | None] = field(default_factory=list)  # the Range header of each request

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.asked.append(wanted)
        if self.status != 200:
            request.send_error(self.status)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if not self.ranges:
            start = 0
        if start >= len(self.content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body = self.content[start:]
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: self.stop_after])


@pytest.fixture
def site(cifar: Cifar) -> Iterator[Site]:
    served = Site(cifar.binary_archive.read_bytes())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *about: None  # a client that hangs up is part of the tests
        threading.Thread(target=server.serve_forever, daemon=True).start()
        served.url = f"http://127.0.0.1:{server.server_port}/kriz/{NAME}"
        yield served
        server.shutdown()


@pytest.fixture
def official(site: Site, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the archive of the site be the official one. Returns its MD5."""
    md5 = hashlib.md5(site.content).hexdigest()
    monkeypatch.setattr(layouts, "LAYOUTS", (PYTHON, replace(BINARY, archive_md5=md5)))
    return md5


def quiet(done: int, total: int | None) -> None:
    pass


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(call: Callable[[], object], kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_official_archive_is_put_into_the_cache(
    cifar: Cifar, site: Site, official: str, empty_machine: Path
) -> None:
    told: list[tuple[int, int | None]] = []
    fetched = fetch.fetch(site.url, empty_machine, lambda done, total: told.append((done, total)))
    size = len(site.content)
    assert fetched == fetch.Fetched(empty_machine / NAME, "binary", official, False, size)  # other images
    assert left_in(empty_machine) == [NAME]
    assert told[0] == (0, size)
    assert told[-1] == (size, size)
    dones = [done for done, _ in told]
    assert dones == sorted(dones)
    dataset = open_dataset("cifar10")
    assert dataset.source == str(fetched.path)
    assert np.array_equal(dataset.images, cifar.pixels)

    assert fetch.fetched_before(site.url, empty_machine) == replace(fetched, official=True)
    assert fetch.fetched_before(site.url + "2", empty_machine) is None
    with fetched.path.open("r+b") as file:
        file.seek(-9, 2)
        file.write(b"\x09\x09")
    assert fetch.fetched_before(site.url, empty_machine) is None


def test_a_broken_download_is_continued(site: Site, official: str, empty_machine: Path) -> None:
    site.stop_after = len(site.content) // 3
    message = refusal(lambda: fetch.fetch(site.url, empty_machine, quiet))
    assert f"after {site.stop_after} of {len(site.content)} bytes" in message
    assert "run it again, it continues" in message
    assert left_in(empty_machine) == [f"{NAME}.part"]
    assert (empty_machine / f"{NAME}.part").read_bytes() == site.content[: site.stop_after]

    told: list[tuple[int, int | None]] = []
    first, site.stop_after = site.stop_after, None
    fetched = fetch.fetch(site.url, empty_machine, lambda done, total: told.append((done, total)))
    assert site.asked == [None, f"bytes={first}-"]
    assert told[0] == (first, len(site.content))
    assert fetched.md5 == official
    assert left_in(empty_machine) == [NAME]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_download_is_continued(
    site: Site, official: str, empty_machine: Path, interruption: type[BaseException]
) -> None:
    def interrupt(done: int, total: int | None) -> None:
        if done:
            raise interruption

    with pytest.raises(interruption):
        fetch.fetch(site.url, empty_machine, interrupt)
    assert (empty_machine / f"{NAME}.part").stat().st_size > 0
    assert fetch.fetch(site.url, empty_machine, quiet).md5 == official
    assert site.asked[1] is not None


def test_a_server_without_ranges_sends_all_again(site: Site, official: str, empty_machine: Path) -> None:
    site.ranges, site.stop_after = False, 1000
    refusal(lambda: fetch.fetch(site.url, empty_machine, quiet))
    site.stop_after = None
    assert fetch.fetch(site.url, empty_machine, quiet).md5 == official
    assert left_in(empty_machine) == [NAME]


@pytest.mark.parametrize("expected", [fetch.OFFICIAL, None])
def test_the_beginning_of_another_file_is_noticed(
    site: Site, official: str, empty_machine: Path, expected: str | None
) -> None:
    """By the checksum, or by that of gzip; the next call starts over."""
    empty_machine.mkdir()
    (empty_machine / f"{NAME}.part").write_bytes(bytes(5000) if expected else site.content[:4000] + bytes(1000))
    refusal(lambda: fetch.fetch(site.url, empty_machine, quiet, expected))
    assert left_in(empty_machine) == []
    assert fetch.fetch(site.url, empty_machine, quiet).md5 == official


@pytest.mark.parametrize(("more", "requests"), [(b"", 1), (b"more", 2)])
def test_a_download_that_only_lacked_its_check(
    site: Site, official: str, empty_machine: Path, more: bytes, requests: int
) -> None:
    """Killed between the last byte and the check: nothing is sent again. More bytes than there are start over."""
    empty_machine.mkdir()
    (empty_machine / f"{NAME}.part").write_bytes(site.content + more)
    assert fetch.fetch(site.url, empty_machine, quiet).md5 == official
    assert len(site.asked) == requests


def test_a_wrong_checksum_removes_the_file(site: Site, empty_machine: Path) -> None:
    found = hashlib.md5(site.content).hexdigest()
    message = refusal(lambda: fetch.fetch(site.url, empty_machine, quiet))
    assert found in message
    assert BINARY.archive_md5 in message
    assert "was removed" in message
    assert "web page" in message  # the usual cause
    assert left_in(empty_machine) == []
    message = refusal(lambda: fetch.fetch(site.url, empty_machine, quiet, "0" * 32))
    assert "0" * 32 in message
    assert BINARY.archive_md5 not in message


def test_another_archive_can_be_accepted(cifar: Cifar, site: Site, empty_machine: Path) -> None:
    md5 = hashlib.md5(site.content).hexdigest()
    for expected in (None, md5.upper()):
        fetched = fetch.fetch(site.url, empty_machine, quiet, expected)
        assert (fetched.md5, fetched.official) == (md5, False)
        assert left_in(empty_machine) == [NAME]
    assert fetch.fetched_before(site.url, empty_machine) is None
    # The python layout, from a file: address.
    fetched = fetch.fetch(cifar.python_archive.as_uri(), empty_machine, quiet, None)
    assert (fetched.layout, fetched.path) == ("python", empty_machine / PYTHON.archive)
    assert np.array_equal(open_dataset(str(fetched.path)).labels, cifar.labels)


def test_what_is_no_data_set_leaves_the_old_one(cifar: Cifar, empty_machine: Path, tmp_path: Path) -> None:
    empty_machine.mkdir()
    (empty_machine / NAME).write_text("mine")
    archive = tmp_path / "evil.tar.gz"
    for files, named in (
        ({"../../evil": b"", "/abs/evil": b""}, "no batch file"),
        ({"x/data_batch_1.bin": (cifar.binary / "data_batch_1.bin").read_bytes()}, "lacks data_batch_2.bin"),
        ({"x/data_batch_1.bin": b"short"}, "data_batch_1.bin in file://"),
        ({f"../{name}": b"short" for name in BINARY_FILES}, "has 5 bytes"),
        (None, "is no .tar.gz archive"),
    ):
        if files is None:
            archive.write_text("<html>Welcome to the hotel, please log in")
        else:
            tar_gz(archive, files)
        message = refusal(lambda: fetch.fetch(archive.as_uri(), empty_machine, quiet, None))
        assert named in message
        assert ".part" not in message
        assert left_in(empty_machine) == [NAME]
        assert (empty_machine / NAME).read_text() == "mine"


def test_servers_that_do_not_answer(site: Site, empty_machine: Path) -> None:
    site.status = 404
    assert "answers 404" in refusal(lambda: fetch.fetch(site.url, empty_machine, quiet))
    closed = "http://127.0.0.1:9/x.tar.gz"  # the discard port: nothing listens
    assert "cannot be reached (" in refusal(lambda: fetch.fetch(closed, empty_machine, quiet))
    assert "cannot be reached (" in refusal(lambda: fetch.fetch("file:///nowhere/x.tar.gz", empty_machine, quiet))
    assert "cannot be reached (" in refusal(lambda: fetch.fetch("http://", empty_machine, quiet))


def test_addresses_and_checksums_that_are_none(empty_machine: Path) -> None:
    for url in ("/tmp/x.tar.gz", "ftp://host/x.tar.gz", ""):
        assert "https://" in refusal(lambda url=url: fetch.fetch(url, empty_machine, quiet), ConfigError)
    for md5 in ("", "abc", "g" * 32, "official "):
        message = refusal(lambda md5=md5: fetch.fetch("http://x/y", empty_machine, quiet, md5), ConfigError)
        assert repr(md5) in message


def test_a_full_disk_and_one_that_may_not_be_written(
    site: Site, empty_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(done: int, total: int | None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    message = refusal(lambda: fetch.fetch(site.url, empty_machine, full), StoreError)
    assert "No space left" in message
    assert "KLCLI_CACHE" in message
    blocked = empty_machine / "file"
    blocked.touch()
    assert "cannot be written" in refusal(lambda: fetch.fetch(site.url, blocked, quiet), StoreError)
