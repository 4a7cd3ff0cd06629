"""Downloads from a local server: complete, interrupted and resumed, and every kind of failure."""

import errno
import hashlib
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from lookalike import Cifar, tar_gz

from klcli.data.cifar10 import fetch as fetching
from klcli.data.cifar10 import layouts
from klcli.data.cifar10.fetch import OFFICIAL, Fetched, fetch, fetched_before
from klcli.data.cifar10.layouts import BINARY, PYTHON
from klcli.data.sources import open_dataset
from klcli.errors import ConfigError, DataError, KlcliError, StoreError

NAME = BINARY.archive
PART = f"{NAME}.part"


@dataclass
class Site:
    """A web site with one file, and how it behaves."""

    content: bytes
    ranges: bool = True
    stop_after: int | None = None  # bytes of an answer, after which the connection is closed
    status: int = 200
    kind: str = "application/gzip"  # the Content-Type
    url: str = ""
    asked: list[str | None] = field(default_factory=list)  # the Range header of each request

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        body = self.content[start:]
        status = self.status if self.status != 200 else 416 if not body else 206 if start else 200
        request.send_response(status)
        request.send_header("Content-Type", self.kind)
        if start:
            given = f"{start}-{len(self.content) - 1}" if body else "*"
            request.send_header("Content-Range", f"bytes {given}/{len(self.content)}")
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
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
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


def refusal(
    url: str, folder: Path, expected: str | None = OFFICIAL, *, kind: type[KlcliError] = DataError, progress=quiet
) -> str:
    with pytest.raises(kind) as caught:
        fetch(url, folder, progress, expected)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_archive_is_put_into_the_cache_and_used(
    cifar: Cifar, site: Site, official: str, empty_machine: Path
) -> None:
    told: list[tuple[int, int | None]] = []
    fetched = fetch(site.url, empty_machine, lambda done, total: told.append((done, total)))
    size = len(site.content)
    assert fetched == Fetched(empty_machine / NAME, "binary", official, False)  # the images are other ones
    assert fetched.path.stat().st_size == size
    assert left_in(empty_machine) == [NAME]
    assert (told[0], told[-1]) == ((0, size), (size, size))
    assert told == sorted(told)
    dataset = open_dataset("cifar10")
    assert dataset.source == str(fetched.path)
    assert np.array_equal(dataset.images, cifar.pixels)

    assert fetched_before(site.url, empty_machine) == replace(fetched, official=True)
    assert fetched_before(site.url + "2", empty_machine) is None
    with fetched.path.open("r+b") as file:
        file.write(b"\x09\x09")
    assert fetched_before(site.url, empty_machine) is None


def test_an_archive_that_is_there_already_is_the_one_fetched_last(
    cifar: Cifar, site: Site, official: str, empty_machine: Path
) -> None:
    first = fetch(site.url, empty_machine, quiet).path
    other = fetch(cifar.python_archive.as_uri(), empty_machine, quiet, None).path
    os.utime(first, (1000, 1000))
    assert open_dataset(None).source == str(other)
    assert fetched_before(site.url, empty_machine) is not None
    assert open_dataset(None).source == str(first)
    changed = first.stat().st_mtime_ns
    assert fetched_before(site.url, empty_machine) is not None
    assert first.stat().st_mtime_ns == changed  # its prepared copy stays


def test_a_broken_download_is_continued(site: Site, official: str, empty_machine: Path) -> None:
    first = site.stop_after = len(site.content) // 3
    message = refusal(site.url, empty_machine)
    assert f"after {first} of {len(site.content)} bytes" in message
    assert "run it again, it continues" in message
    assert left_in(empty_machine) == [PART]
    assert (empty_machine / PART).read_bytes() == site.content[:first]

    told: list[tuple[int, int | None]] = []
    site.stop_after = None
    assert fetch(site.url, empty_machine, lambda done, total: told.append((done, total))).md5 == official
    assert site.asked == [None, f"bytes={first}-"]
    assert told[0] == (first, len(site.content))
    assert left_in(empty_machine) == [NAME]


def test_an_interrupted_download_is_continued(site: Site, official: str, empty_machine: Path) -> None:
    def interrupt(done: int, total: int | None) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(site.url, empty_machine, interrupt)
    assert (empty_machine / PART).stat().st_size > 0
    assert fetch(site.url, empty_machine, quiet).md5 == official
    assert site.asked[1] is not None


@pytest.mark.parametrize(
    ("ranges", "part", "requests"),
    [
        pytest.param(False, lambda whole: whole[:1000], 1, id="a server without ranges"),
        pytest.param(True, lambda whole: whole, 1, id="killed before the check: nothing is sent again"),
        pytest.param(True, lambda whole: whole + b"more", 2, id="more than there is"),
    ],
)
def test_any_part_is_completed(site: Site, official: str, empty_machine: Path, ranges, part, requests: int) -> None:
    site.ranges = ranges
    empty_machine.mkdir()
    (empty_machine / PART).write_bytes(part(site.content))
    assert fetch(site.url, empty_machine, quiet).md5 == official
    assert len(site.asked) == requests
    assert left_in(empty_machine) == [NAME]


def test_a_login_page_leaves_the_part(site: Site, official: str, empty_machine: Path) -> None:
    """As a network answers in the place of the server, until someone has logged in."""
    archive, begun = site.content, site.content[:1000]
    empty_machine.mkdir()
    (empty_machine / PART).write_bytes(begun)
    site.content, site.ranges, site.kind = b"<html>please log in</html>", False, "text/html; charset=utf-8"
    message = refusal(site.url, empty_machine)
    assert message.startswith(f"{site.url} answers with a web page: open it in a browser, then run it again")
    assert (empty_machine / PART).read_bytes() == begun
    site.content, site.ranges, site.kind = archive, True, "application/gzip"
    assert fetch(site.url, empty_machine, quiet).md5 == official
    assert site.asked == [f"bytes={len(begun)}-"] * 2


@pytest.mark.parametrize("before", [b"", b"the beginning of something else, longer than the archive"])
def test_a_second_download_is_refused_and_leaves_the_first_alone(
    site: Site, official: str, empty_machine: Path, before: bytes
) -> None:
    """It wrote into the part of the first one, and even into the archive that this became."""
    if before:
        empty_machine.mkdir()
        (empty_machine / PART).write_bytes(before.ljust(len(site.content) + 1))  # which starts over: 416
    told: list[str] = []

    def meanwhile(done: int, total: int | None) -> None:
        told.append(refusal(site.url, empty_machine, kind=StoreError))  # before, within and after the transfer

    assert fetch(site.url, empty_machine, meanwhile).md5 == official
    assert len(told) > 1
    assert {*told} == {f"{empty_machine / PART}: another `klcli data fetch` downloads it, wait for its end"}
    assert len(site.asked) == 1 + (before != b"")
    assert left_in(empty_machine) == [NAME]
    assert (empty_machine / NAME).read_bytes() == site.content


@pytest.mark.skipif(sys.platform == "win32", reason="the locks are POSIX's")
def test_a_file_system_without_locks(
    site: Site, official: str, empty_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(file: object, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", without)
    assert fetch(site.url, empty_machine, quiet).md5 == official
    assert left_in(empty_machine) == [NAME]


@pytest.mark.parametrize("expected", [OFFICIAL, None])
def test_the_beginning_of_another_file_is_noticed(
    site: Site, official: str, empty_machine: Path, expected: str | None
) -> None:
    """By the MD5, or without it by the checksum of gzip; the next call starts over."""
    empty_machine.mkdir()
    (empty_machine / PART).write_bytes(site.content[:4000] + bytes(1000))
    refusal(site.url, empty_machine, expected)
    assert left_in(empty_machine) == []
    assert fetch(site.url, empty_machine, quiet).md5 == official


def test_a_wrong_checksum_removes_the_file(site: Site, empty_machine: Path) -> None:
    message = refusal(site.url, empty_machine)
    for word in (hashlib.md5(site.content).hexdigest(), BINARY.archive_md5, "was removed", "login page", "--no-verify"):
        assert word in message
    assert left_in(empty_machine) == []
    message = refusal(site.url, empty_machine, "0" * 32)
    assert "0" * 32 in message
    assert BINARY.archive_md5 not in message


def test_another_archive_can_be_accepted(cifar: Cifar, site: Site, empty_machine: Path) -> None:
    md5 = hashlib.md5(site.content).hexdigest()
    for expected in (None, md5.upper()):
        fetched = fetch(site.url, empty_machine, quiet, expected)
        assert (fetched.md5, fetched.official) == (md5, False)
        assert left_in(empty_machine) == [NAME]
    assert fetched_before(site.url, empty_machine) is None
    # The python layout, from a file: address.
    fetched = fetch(cifar.python_archive.as_uri(), empty_machine, quiet, None)
    assert (fetched.layout, fetched.path) == ("python", empty_machine / PYTHON.archive)
    assert np.array_equal(open_dataset(str(fetched.path)).labels, cifar.labels)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"../../evil": b"", "/abs/evil": b""}, "holds no CIFAR-10"),
        ({"x/data_batch_1.bin": b"short"}, "data_batch_1.bin in file://"),
        ({f"../{name}": b"short" for name in BINARY.batch_files}, "has 5 bytes"),
        ("<html>Welcome to the hotel, please log in", "is not a .tar.gz archive but a web page"),
        ('{"error": "quota exceeded"}', "is not an archive that klcli can read, or a damaged one: "),
    ],
)
def test_what_is_no_data_set_leaves_the_old_one(
    empty_machine: Path, cifar: Cifar, files: dict[str, bytes] | str, named: str
) -> None:
    empty_machine.mkdir()
    (empty_machine / NAME).write_text("mine")
    archive = cifar.root / "evil.tar.gz"
    if isinstance(files, str):
        archive.write_text(files)
    else:
        tar_gz(archive, files)
    message = refusal(archive.as_uri(), empty_machine, None)
    assert named in message
    assert ".part" not in message
    assert left_in(empty_machine) == [NAME]
    assert (empty_machine / NAME).read_text() == "mine"


def test_addresses_and_checksums_that_are_none(site: Site, empty_machine: Path) -> None:
    for site.status, cure in (
        *((status, "check the address") for status in (403, 404, 410)),
        *((status, "run it again later") for status in (408, 429, 500, 502, 503, 504)),  # the address is right
    ):
        message = refusal(site.url, empty_machine)
        assert f"answers {site.status} " in message and f": {cure}, " in message
        assert left_in(empty_machine) == []
    # The discard port: nothing listens.
    for url in ("http://127.0.0.1:9/x.tar.gz", "file:///nowhere/x.tar.gz", "http://"):
        message = refusal(url, empty_machine)
        assert "cannot be reached (" in message
        assert "--url file:///PATH" in message  # `klcli data fetch` has no --data
    addresses = "/tmp/x.tar.gz", "ftp://host/x.tar.gz", "", "http://[bad", "https://[::1/x.tar.gz"
    for url in (*addresses, "file:", "file://x.tar.gz", "file://folder/x.tar.gz"):  # two slashes begin a host
        assert refusal(url, empty_machine, kind=ConfigError).endswith("with https://, http:// or file:///")
    for md5 in ("", "abc", "g" * 32, "official "):
        assert repr(md5) in refusal("http://x/y", empty_machine, md5, kind=ConfigError)


def test_a_server_that_sends_without_end(site: Site, empty_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "LARGEST_ARCHIVE", 1000)
    monkeypatch.setattr(fetching, "PIECE", 100)
    counts: list[int] = []
    message = refusal(site.url, empty_machine, None, progress=lambda done, total: counts.append(done))
    assert "more than 1000 bytes" in message
    assert max(counts) <= 1100
    assert left_in(empty_machine) == []


def test_a_full_disk_and_one_that_may_not_be_written(site: Site, empty_machine: Path) -> None:
    def full(done: int, total: int | None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    message = refusal(site.url, empty_machine, kind=StoreError, progress=full)
    assert "No space left" in message
    assert "KLCLI_CACHE" in message
    (empty_machine / "file").touch()
    assert "cannot be written" in refusal(site.url, empty_machine / "file", kind=StoreError)


def test_a_name_of_an_address_is_no_path_on_any_system() -> None:
    assert fetching._file_name("https://host/data/a.tar.gz?x=1") == "a.tar.gz"
    assert fetching._file_name("https://host/..%5C..%5Cstart%3Aup.tar") == ".._.._start_up.tar"
