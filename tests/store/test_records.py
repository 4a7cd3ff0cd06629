"""Records: frozen, typed, made with and without a database; what cannot be read is one line."""

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from klcli.errors import ExitCode, StoreError
from klcli.settings.train_config import TrainConfig
from klcli.store.records import GradientCheck, Run

CONFIG = TrainConfig(hidden=(50, 30, 20), batch_norm=True, lam=0.003)


def run(**fields: Any) -> Run:
    given: dict[str, Any] = {
        "id": 7, "state": "complete", "started_at": "2026-01-01T00:00:00+00:00", "host": "here", "pid": 1,
        "command": "klcli train", "dataset": "small", "dataset_sha256": "a" * 64,
        "dataset_source": "built in", "step_size": 2250, "cycles": 2.0, "epochs": 20.0, "threads": 1,
        "config_json": CONFIG.to_json(), "versions_json": '{"numpy": "2"}',
    }  # fmt: skip
    return Run(**given | fields)


def test_a_record_is_frozen_and_a_misspelt_attribute_an_error() -> None:
    one: Any = run()
    with pytest.raises(FrozenInstanceError):
        one.state = "failed"
    with pytest.raises(AttributeError):
        one.validation_acuracy  # noqa: B018
    with pytest.raises(AttributeError):
        one.measure("validation", "acuracy")


def test_the_settings_of_a_run_are_those_of_its_config() -> None:
    assert run().config == CONFIG
    assert run(validation_accuracy=0.5, test_loss=1.5).measure("validation", "accuracy") == 0.5
    assert run(test_loss=1.5).measure("test", "loss") == 1.5
    assert run().measure("test", "accuracy") is None


UNREADABLE = (
    *("{", "[]", "null", '{"colour": "red"}', '{"lam": -1}', '{"hidden": 5}'),
    *(
        '{"split": {"colour": 1}}',
        '{"split": []}',
        f'{{"seed": {"1" * 5000}}}',
        f'{{"hidden": {"[" * 990}{"]" * 990}}}',
    ),
)


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_config_that_this_klcli_cannot_read_is_one_line(text: str) -> None:
    with pytest.raises(StoreError, match=r"run 7.*cannot be read") as error:
        _ = run(config_json=text).config
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", UNREADABLE[1:])  # SQLite refuses what is no JSON
def test_a_list_marks_one_run_with_unreadable_settings_and_shows_the_others(
    recorder: Any, text: str, answer: Any
) -> None:
    recorder.begin(), recorder.begin()
    with recorder.store._db.write() as db:
        db.execute("UPDATE runs SET config = ? WHERE id = 1", [text])
    code, out, err = answer("report", "--list", "--db", str(recorder.path))
    assert (code, err) == (0, "")
    [other, unreadable] = [line for line in out.splitlines() if line.lstrip().startswith(("1 ", "2 "))]
    assert "2-layer" in other or "3-layer" in other
    assert "UNREADABLE: run 1: settings that cannot be read" in unreadable
    code, out, err = answer("report", "--run", "1", "--db", str(recorder.path))
    assert (code, out, len(err.splitlines())) == (ExitCode.STORE, "", 1)
    assert err.startswith("klcli: run 1: ")
    assert answer("report", "--run", "2", "--db", str(recorder.path))[0] == 0


def test_a_gradient_check_has_one_config_for_each_network() -> None:
    configs = [CONFIG, replace(CONFIG, lam=0.1)]
    check = GradientCheck(
        id=1, suite=1, created_at="", command="", dataset="", dataset_sha256="", images=1, dims=1, method="", h=1.0,
        atol=1.0, rtol=1.0, passed=True, seconds=1.0,
        configs_json=json.dumps([json.loads(config.to_json()) for config in configs]),
    )  # fmt: skip
    assert list(check.configs) == configs


def test_a_run_that_was_stored_is_the_run_that_is_read(recorder: Any) -> None:
    first = recorder.store.runs.get(recorder.begin(hidden=(50, 30, 20)))
    second = recorder.store.runs.get(first.id)
    assert first == second
    assert first.config.hidden == (50, 30, 20)
    assert first.versions == {"numpy": "2"}
    assert json.loads(first.split_json) == json.loads(first.config_json)["split"]
