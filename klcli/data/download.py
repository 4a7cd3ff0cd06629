"""Downloading one file over HTTP, continued where an earlier attempt ended. The only code that uses the network."""

import contextlib
import http
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from klcli import __version__
from klcli.errors import ConfigError, DataError

PIECE = 2**18  # bytes read at once: progress several times a second on a slow line
SILENCE = 60  # seconds without a byte after which a server counts as gone

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Part:
    """An unfinished download, and beside it a note of what it is the beginning of."""

    file: Path

    @property
    def note(self) -> Path:
        """The address of the download and the server's validator, so that two files are never mixed."""
        return self.file.with_name(f"{self.file.name}.json")

    def resumable(self, url: str) -> tuple[int, str]:
        """How many bytes of `url` are here, and the validator they came with; 0 and "" where none can be used."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            if note["url"] == url and note["validator"]:
                return self.file.stat().st_size, str(note["validator"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return 0, ""

    def begin(self, url: str, validator: str) -> None:
        """Note where the bytes will come from, before the first of them arrives."""
        self.file.unlink(missing_ok=True)
        self.note.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")

    def remove(self) -> None:
        """Forget the download: it is finished, or worthless."""
        self.file.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def download(url: str, part: Part, progress: Progress) -> None:
    """Bring `part` to the whole file at `url` (http, https or file); `progress(done, total)` counts bytes.

    total is None where the server does not tell. What has arrived stays in `part` whatever happens. Raises
    ConfigError for another kind of address, DataError where the network or the server fails; an OSError is the disk's.
    """
    if urlsplit(url).scheme not in ("http", "https", "file"):
        raise ConfigError(f"--url {url!r} is no address: start it with https://, http:// or file://")
    done, validator = part.resumable(url)
    response = _open(url, done, validator)
    if response is None:
        return progress(done, done)
    with contextlib.closing(response):
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            done = 0  # a server that knows no ranges, or has another file by now
            part.begin(url, _validator(response))
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdigit() else None
        with part.file.open("ab") as file:
            progress(done, total)
            for piece in _pieces(url, response):
                file.write(piece)
                done += len(piece)
                progress(done, total)
    if total is not None and done < total:
        raise _interrupted(url, f"the connection ended after {done} of {total} bytes")
    return None


def _open(url: str, done: int, validator: str) -> Any:
    """The answer of the server, from byte `done` on if it can; None where `done` bytes are all there are."""
    headers = {"User-Agent": f"klcli/{__version__}", "Accept-Encoding": "identity"}
    if done:
        headers |= {"Range": f"bytes={done}-", "If-Range": validator}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SILENCE)
    except urllib.error.HTTPError as error:
        if done and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return None if error.headers.get("Content-Range") == f"bytes */{done}" else _open(url, 0, "")
        reason = f"{error.code} {error.reason}".strip()
        raise DataError(f"{url} answers {reason}: check the address, or give another one with --url") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise DataError(
            f"{url} cannot be reached ({cause}): check the connection and run it again, or give an archive that you "
            "have with --data PATH"
        ) from None
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        continues = str(response.headers.get("Content-Range", "")).startswith(f"bytes {done}-")
        if not continues or _validator(response) not in ("", validator):
            response.close()
            return _open(url, 0, "")
    return response


def _pieces(url: str, response: Any) -> Iterator[bytes]:
    while True:
        try:
            piece = response.read(PIECE)
        except (OSError, http.client.HTTPException) as error:
            raise _interrupted(url, str(error) or type(error).__name__) from None
        if not piece:
            return
        yield piece


def _validator(response: Any) -> str:
    """What changes when the file does. A weak ETag promises the meaning, not the bytes: it cannot join two halves."""
    etag = response.headers.get("ETag") or ""
    if etag and not etag.startswith("W/"):
        return str(etag)
    return str(response.headers.get("Last-Modified") or "")


def _interrupted(url: str, reason: str) -> DataError:
    return DataError(f"the download of {url} was interrupted ({reason}): run it again, it continues where it stopped")
