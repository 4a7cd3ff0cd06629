"""`--preset` and `--list-presets` on the command line, and the preset's name in the database."""

import json

import pytest
from command import Klcli, Refused, Rows, succeeded

from klcli.settings.presets import presets

pytestmark = pytest.mark.usefixtures("unrendered")


TINY = ("--data", "synthetic", "--subset", "300", "--epochs", "0", "--quiet")


def test_the_list(here: Klcli) -> None:
    done = succeeded(here("train", "--list-presets"))
    document = json.loads(here("train", "--list-presets", "--json").stdout)
    assert [one["name"] for one in document["presets"]] == list(presets())
    assert document["presets"][0]["config"]["hidden"] == [50, 50]
    for one in document["presets"]:
        assert one["name"] in done.stdout and one["description"] in done.stdout


def test_its_name_and_all_settings_are_in_the_database(here: Klcli, rows: Rows) -> None:
    assert here("train", *TINY).returncode == 0
    assert here("train", *TINY, "--preset", "course", "--lambda", "0.01", "--bn").returncode == 0
    plain, named = (json.loads(run["config"]) for run in rows("runs"))
    assert plain["preset"] is None
    assert named == plain | {"preset": "course", "lam": 0.01, "batch_norm": True}
    assert "course" in here("report", "--run", "2").stdout
    assert here("train", *TINY, "--preset", "course", "--repeats", "2", "--jobs", "1").returncode == 0
    assert {json.loads(run["config"])["preset"] for run in rows("runs")[2:]} == {"course"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(one.name, marks=pytest.mark.slow if one.config.whitening else ()) for one in presets().values()],
)
def test_every_preset_trains(here: Klcli, rows: Rows, name: str) -> None:
    done = here("train", *TINY, "--subset", "600", "--preset", name, "--hidden", "8")  # best has minibatches of 512
    assert done.returncode == 0, done.stderr
    assert rows("runs")[0]["hidden"] == "8"


def test_a_name_is_no_setting(here: Klcli) -> None:
    for options in ((), ("--preset", "course")):
        assert here("train", *TINY, *options).returncode == 0
    assert "Not counted" in here("report", "--group-by", "hidden").stdout  # the same training twice


def test_gradcheck_takes_it(here: Klcli, rows: Rows) -> None:
    done = here(
        "gradcheck", "--preset", "course", "--data", "synthetic", "--images", "4", "--dims", "3", "--hidden", "4"
    )
    assert done.returncode == 0, done.stderr
    assert [row["hidden"] for row in rows("gradient_checks")] == ["4", "4"]  # without and with L2, not the course's set


def test_a_name_that_is_none(here: Klcli, refused: Refused) -> None:
    refused(here("train", *TINY, "--preset", "bst"), 2, "'bst'", "course")
