"""Downloads from a server on this machine: whole, broken off and continued, wrong in every way."""

import errno
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from klcli.data import cifar10, fetch
from klcli.data.layouts import BINARY
from klcli.errors import ConfigError, DataError, StoreError

NAME = "cifar-10-binary.tar.gz"


@dataclass
class Site:
    """A web site with one file, and how it behaves."""

    content: bytes
    etag: str | None = '"one"'
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
        if not self.ranges or request.headers.get("If-Range") != self.etag:
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
        if self.etag:
            request.send_header("ETag", self.etag)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: self.stop_after])


@pytest.fixture
def site(cifar) -> Iterator[Site]:
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
    layouts = (cifar10.LAYOUTS[0], replace(BINARY, archive_md5=md5))
    monkeypatch.setattr(cifar10, "LAYOUTS", layouts)
    monkeypatch.setattr(fetch, "LAYOUTS", layouts)
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


def test_an_official_archive_is_put_into_the_cache(cifar, site: Site, official: str, empty_machine: Path) -> None:
    told: list[tuple[int, int | None]] = []
    fetched = fetch.fetch(site.url, empty_machine, lambda done, total: told.append((done, total)))
    size = len(site.content)
    assert fetched == fetch.Fetched(empty_machine / BINARY.folder, "binary", official, True, size)
    assert left_in(empty_machine) == [BINARY.folder]
    assert told[0] == (0, size)
    assert told[-1] == (size, size)
    dones = [done for done, _ in told]
    assert dones == sorted(dones)
    dataset = cifar10.read(cifar10.locate(empty_machine))
    assert np.array_equal(dataset.images, cifar.pixels)
    assert dataset.official is True

    assert fetch.fetched_before(site.url, empty_machine) == fetched
    assert fetch.fetched_before(site.url + "2", empty_machine) is None
    with (fetched.path / "test_batch.bin").open("r+b") as file:
        file.write(b"\x09\x09")
    assert fetch.fetched_before(site.url, empty_machine) is None


def test_a_broken_download_is_continued(site: Site, official: str, empty_machine: Path) -> None:
    site.stop_after = len(site.content) // 3
    message = refusal(lambda: fetch.fetch(site.url, empty_machine, quiet))
    assert f"after {site.stop_after} of {len(site.content)} bytes" in message
    assert "run it again, it continues" in message
    assert left_in(empty_machine) == [f"{NAME}.part", f"{NAME}.part.json"]
    assert (empty_machine / f"{NAME}.part").read_bytes() == site.content[: site.stop_after]

    told: list[tuple[int, int | None]] = []
    first, site.stop_after = site.stop_after, None
    fetched = fetch.fetch(site.url, empty_machine, lambda done, total: told.append((done, total)))
    assert site.asked == [None, f"bytes={first}-"]
    assert told[0] == (first, len(site.content))
    assert fetched.md5 == official
    assert left_in(empty_machine) == [BINARY.folder]


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
    assert fetch.fetch(site.url, empty_machine, quiet).official
    assert site.asked[1] is not None


@pytest.mark.parametrize("change", ["no ranges", "no validator", "weak validator", "other file", "other address"])
def test_what_cannot_be_continued_starts_over(site: Site, official: str, empty_machine: Path, change: str) -> None:
    if change == "no validator":
        site.etag = None
    if change == "weak validator":
        site.etag = 'W/"one"'
    whole = site.content
    if change == "other file":
        site.content, site.etag = bytes(reversed(whole)), '"zero"'
    site.stop_after = 1000
    refusal(lambda: fetch.fetch(site.url, empty_machine, quiet))
    site.content, site.stop_after = whole, None
    if change == "other file":
        site.etag = '"one"'
    if change == "no ranges":
        site.ranges = False
    url = site.url + ("?mirror=2" if change == "other address" else "")
    assert fetch.fetch(url, empty_machine, quiet).md5 == official


def test_a_download_that_only_lacked_its_end_is_not_repeated(site: Site, official: str, empty_machine: Path) -> None:
    """Killed between the last byte and the check: the server then has nothing more to send."""
    empty_machine.mkdir()
    (empty_machine / f"{NAME}.part").write_bytes(site.content)
    (empty_machine / f"{NAME}.part.json").write_text(json.dumps({"url": site.url, "validator": site.etag}))
    assert fetch.fetch(site.url, empty_machine, quiet).official
    assert site.asked == [f"bytes={len(site.content)}-"]


def test_more_bytes_than_the_server_has_start_over(site: Site, official: str, empty_machine: Path) -> None:
    empty_machine.mkdir()
    (empty_machine / f"{NAME}.part").write_bytes(site.content + b"more")
    (empty_machine / f"{NAME}.part.json").write_text(json.dumps({"url": site.url, "validator": site.etag}))
    assert fetch.fetch(site.url, empty_machine, quiet).official
    assert len(site.asked) == 2


def test_a_wrong_checksum_removes_the_file(site: Site, empty_machine: Path) -> None:
    found = hashlib.md5(site.content).hexdigest()
    message = refusal(lambda: fetch.fetch(site.url, empty_machine, quiet))
    assert found in message
    assert BINARY.archive_md5 in message
    assert "was removed" in message
    assert left_in(empty_machine) == []
    message = refusal(lambda: fetch.fetch(site.url, empty_machine, quiet, "0" * 32))
    assert "0" * 32 in message
    assert BINARY.archive_md5 not in message


def test_another_archive_can_be_accepted(cifar, site: Site, empty_machine: Path) -> None:
    md5 = hashlib.md5(site.content).hexdigest()
    for expected in (None, md5.upper()):
        fetched = fetch.fetch(site.url, empty_machine, quiet, expected)
        assert (fetched.md5, fetched.official) == (md5, False)
        assert left_in(empty_machine) == [BINARY.folder]
    assert fetch.fetched_before(site.url, empty_machine) is None
    # The python layout, from a file: address.
    fetched = fetch.fetch(cifar.python_archive.as_uri(), empty_machine, quiet, None)
    assert fetched.layout == "python"
    assert np.array_equal(cifar10.read(cifar10.locate(fetched.path)).labels, cifar.labels)


def test_an_archive_that_is_no_data_set_leaves_the_old_one(
    cifar, site: Site, empty_machine: Path, tmp_path: Path, writers
) -> None:
    old = empty_machine / BINARY.folder
    old.mkdir(parents=True)
    (old / "mine").touch()
    for members, named in (
        ({"../../evil": b"", "/abs/evil": b""}, "no batch file"),
        ({"x/data_batch_1.bin": (cifar.binary / "data_batch_1.bin").read_bytes()}, "lacks data_batch_2.bin"),
        ({"x/data_batch_1.bin": b"short"}, "data_batch_1.bin has 5 bytes"),
        ({f"../{name}": b"short" for name in BINARY.batch_files}, "data_batch_1.bin has 5 bytes"),
    ):
        archive = writers[2](tmp_path / "evil.tar.gz", members)
        message = refusal(lambda archive=archive: fetch.fetch(archive.as_uri(), empty_machine, quiet, None))
        assert named in message
        assert ".tmp" not in message
        assert left_in(empty_machine) == [BINARY.folder]
        assert left_in(old) == ["mine"]
    assert [path for path in tmp_path.rglob("*") if path.name in ("evil", *BINARY.batch_files)] == []


def test_a_web_page_instead_of_an_archive(site: Site, empty_machine: Path) -> None:
    site.content = b"<html>Welcome to the hotel, please log in"
    for expected in (fetch.OFFICIAL, None):
        message = refusal(lambda expected=expected: fetch.fetch(site.url, empty_machine, quiet, expected))
        assert "web page" in message
        assert left_in(empty_machine) == []


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
    assert "no space is left" in message
    assert "KLCLI_CACHE" in message
    blocked = empty_machine / "file"
    blocked.touch()
    assert "cannot be written" in refusal(lambda: fetch.fetch(site.url, blocked, quiet), StoreError)
