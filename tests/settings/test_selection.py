"""The selection of `klcli report`: the times of --since."""

import time
from collections.abc import Iterator

import pytest

from klcli.settings.selection import Selection
from klcli.settings.setting import settings_of


@pytest.fixture
def in_kathmandu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the clock 5 h 45 min ahead of UTC."""
    if not hasattr(time, "tzset"):
        pytest.skip("Windows takes its time zone from the system alone")
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "NPT-5:45")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_kathmandu")
@pytest.mark.parametrize(
    ("since", "in_utc"),
    [
        ("2026-05-31T14:00Z", "2026-05-31T14:00:00+00:00"),
        ("2026-05-31T14:00", "2026-05-31T08:15:00+00:00"),
        ("2026-05-31", "2026-05-30T18:15:00+00:00"),
        ("2026-05-31T14:00+02:00", "2026-05-31T12:00:00+00:00"),
    ],
)
def test_since_is_in_local_time_unless_it_names_another(since: str, in_utc: str) -> None:
    assert Selection(since=since).started_since == in_utc


def test_the_help_of_since_says_so_as_tables_show_utc() -> None:
    words = settings_of(Selection)["since"].help
    assert "local time" in words and "UTC" in words and "Z" in words
