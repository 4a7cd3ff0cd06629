"""Download CIFAR-10 into klcli's cache. This is the only code that uses the network."""

import contextlib
import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from klcli import __version__
from klcli.data.cifar10 import layouts
from klcli.data.cifar10.archives import LARGEST_ARCHIVE
from klcli.data.cifar10.reading import locate, read
from klcli.errors import ConfigError, DataError, StoreError
from klcli.files import open_regular, replace, unheld
from klcli.termination import at_the_end
from klcli.text import path_text

URL = f"https://www.cs.toronto.edu/~kriz/{layouts.BINARY.archive}"
OFFICIAL = "official"  # accepts the checksum of any official archive
PIECE = 2**18  # bytes read at once: progress several times a second on a slow connection
TIMEOUT = 60  # seconds without a byte after which the connection counts as lost
BUSY = http.HTTPStatus.REQUEST_TIMEOUT, http.HTTPStatus.TOO_MANY_REQUESTS

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Fetched:
    """An archive in the cache."""

    path: Path
    layout: str  # "python", "binary" or "matlab"
    md5: str
    official: bool  # whether it holds the official images


def fetch(url: str, destination: Path, progress: Progress, expected_md5: str | None = OFFICIAL) -> Fetched:
    """Download the archive at `url` (http, https or file) into `destination`; `progress(done, total)` counts bytes.

    `total` is None if unknown. `expected_md5` is in hexadecimal digits, OFFICIAL for any official archive, None for no
    check. An interrupted download is kept as `<name>.part` and resumed. Raises DataError if the network or the archive
    fails, StoreError if the disk fails, ConfigError for an invalid address or checksum.
    """
    digits = (expected_md5 or "").strip().lower()
    if expected_md5 not in (None, OFFICIAL) and not re.fullmatch("[0-9a-f]{32}", digits):
        raise ConfigError(f"--md5 {expected_md5!r} is not an MD5 checksum: give 32 hexadecimal digits")
    expected = {layout.archive_md5 for layout in layouts.LAYOUTS} if expected_md5 == OFFICIAL else {digits}
    scheme, path = _split(url)
    if scheme == "file":
        with contextlib.suppress(OSError), open_regular(Path(url2pathname(path))):
            pass  # the check is that it is a regular file; other problems are found below
    part = destination / f"{_file_name(url) or 'archive'}.part"
    try:
        destination.mkdir(parents=True, exist_ok=True)
        with _alone(part):
            _download(url, part, progress)
            try:
                if part.stat().st_size > LARGEST_ARCHIVE:
                    raise DataError(f"{url} has more than {LARGEST_ARCHIVE} bytes: this is no archive of CIFAR-10")
                md5 = _md5_of(part)
                if expected_md5 and md5 not in expected:
                    wrong = f"{url} has the MD5 {md5} instead of {' or '.join(sorted(expected))} and was removed"
                    why = "it was damaged in transfer, is another archive, or is the login page of a network"
                    cure = "run it again, give another address with --url, or accept it with --no-verify"
                    raise DataError(f"{wrong}: {why}; {cure}")
                dataset = read(locate(part, part.stem))
            except DataError as error:
                with contextlib.suppress(OSError):
                    part.write_bytes(b"")  # resuming it would fail again
                raise DataError(str(error).replace(path_text(part), url)) from None
            layout = next(layout for layout in layouts.LAYOUTS if dataset.layout.startswith(layout.name))
            return Fetched(replace(part, destination / layout.archive), layout.name, md5, bool(dataset.official))
    except OSError as error:  # network errors have already become DataError
        cure = "free 400 MB there, or set KLCLI_CACHE to a folder on another disk"
        raise StoreError(f"{path_text(destination)} cannot be written ({error.strerror or error}): {cure}") from None


@contextlib.contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Keep other processes from downloading into `part`, which may be renamed; it is removed if it ends up empty."""

    def remove_empty() -> None:
        with contextlib.suppress(OSError):
            if part.stat().st_size == 0:
                part.unlink()

    part.touch()  # what is not there cannot be locked
    with unheld(part) as is_free:
        if is_free is False or not part.exists():  # the other one has renamed it a moment ago
            raise StoreError(f"{path_text(part)}: another `klcli data fetch` downloads it, wait for its end")
        with at_the_end(remove_empty):
            try:
                yield
            except BaseException:
                remove_empty()
                raise


def fetched_before(url: str, destination: Path) -> Fetched | None:
    """Return the official archive of an earlier download of `url` if its checksum is correct, else None.

    It becomes the one fetched last.
    """
    path = destination / _file_name(url)
    with contextlib.suppress(OSError):
        for layout in layouts.LAYOUTS:
            if path.name == layout.archive and _md5_of(path) == layout.archive_md5:
                if path != layouts.fetched(destination)[0]:
                    path.touch()
                return Fetched(path, layout.name, layout.archive_md5, True)
    return None


def _split(url: str) -> tuple[str, str]:
    """Return scheme and path of an address. Raises ConfigError unless it can be downloaded."""
    with contextlib.suppress(ValueError):  # of half an IPv6 address in brackets
        parts = urlsplit(url)
        is_file = parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path
        if (is_file or parts.scheme in ("http", "https")) and url.isprintable():
            return parts.scheme, parts.path
    raise ConfigError(f"--url '{path_text(url)}' is not a URL: start it with https://, http:// or file:///")


def _file_name(url: str) -> str:
    name = PurePosixPath(unquote(_split(url)[1])).name
    return re.sub(r'[\\:*?"<>|\x00-\x1f]', "_", name)  # which Windows does not allow, or takes for a path


def _md5_of(path: Path) -> str:
    """Return the MD5, by which CIFAR-10 is published: it detects damage, not forgery."""
    with path.open("rb") as file:
        # usedforsecurity: FIPS systems refuse it otherwise
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _download(url: str, part: Path, progress: Progress) -> None:
    """Download the rest of `url` into `part`, which keeps the bytes so far; the checksum detects any mismatch."""
    done = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": f"klcli/{__version__}", "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={done}-"} if done else {}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if done and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if error.headers.get("Content-Range") == f"bytes */{done}":
                return progress(done, done)  # it is complete
            part.write_bytes(b"")  # not removed: it is locked
            return _download(url, part, progress)
        reason = f"{error.code} {error.reason}".strip()
        cure = "run it again later" if error.code in BUSY or error.code >= 500 else "check the address"
        raise DataError(f"{url} answers {reason}: {cure}, or give another one with --url") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = getattr(error, "reason", None) or str(error) or type(error).__name__
        cure = "check the connection and run it again, or name an archive that you have with --url file:///PATH"
        raise DataError(f"{url} cannot be reached ({cause}): {cure}") from None
    continues = response.status == http.HTTPStatus.PARTIAL_CONTENT
    again = "run it again, it continues where it stopped"
    if done and not continues and response.headers.get_content_type() == "text/html":  # of a network's login
        response.close()
        raise DataError(f"{url} answers with a web page: open it in a browser, then {again}")
    done = done if continues else 0
    length = response.headers.get("Content-Length", "")
    total = done + int(length) if length.isdigit() else None
    failure = ""
    with contextlib.closing(response), part.open("ab" if continues else "wb") as file:
        progress(done, total)
        while done <= LARGEST_ARCHIVE:  # a server may send without end
            try:
                piece = response.read(PIECE)
            except (OSError, http.client.HTTPException) as error:
                piece, failure = b"", str(error) or type(error).__name__
            if not piece:
                ended = f"the connection ended after {done} of {total} bytes" if done < (total or 0) else ""
                failure = failure or ended
                break
            done += file.write(piece)
            progress(done, total)
    if failure:
        raise DataError(f"the download of {url} was interrupted ({failure}): {again}")
    return None
