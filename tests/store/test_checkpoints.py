"""Checkpoints: exact, complete or refused; a failed write leaves the old file."""

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from klcli.data.dataset import Inputs
from klcli.errors import ExitCode, StoreError
from klcli.settings.train_config import TrainConfig
from klcli.store.checkpoints import load, load_alone, previous, save, write_atomically
from klcli.training.networks import initialize

CONFIG = json.dumps({"hidden": [4], "note": 'quotes " and umlauts ü'})


def state() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "linear1.W": rng.standard_normal((3, 4)).astype(np.float32),
        "linear1.b": np.array([0.0, -0.0, 1e-45, 3.4e38], np.float32),
        "batch_norm1.running_mean": rng.standard_normal(4),
    }


def assert_same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(got) == set(expected)
    for name, array in expected.items():
        assert (got[name].dtype, got[name].shape, got[name].tobytes()) == (array.dtype, array.shape, array.tobytes())


def assert_refused(path: Path, *words: str) -> None:
    with pytest.raises(StoreError) as error:
        load(path)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    assert error.value.exit_code == ExitCode.STORE
    for word in words:
        assert word in message


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "run-000001.npz"
    save(path, state(), CONFIG, 450)
    return path


def test_a_checkpoint_comes_back_to_the_last_bit(checkpoint: Path) -> None:
    loaded = load(checkpoint)
    assert_same(loaded.state, state())
    assert (loaded.config, loaded.step) == (CONFIG, 450)
    assert loaded.sha256 == save(checkpoint, state(), CONFIG, 450)


def test_the_checksum_is_that_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "run.npz"
    first = save(path, state(), CONFIG, 450)
    assert save(tmp_path / "other.npz", state(), CONFIG, 450) == first
    changed = state()
    changed["linear1.W"].flat[0] = np.nextafter(changed["linear1.W"].flat[0], 9)
    renamed = {name.replace("linear1", "linear9"): array for name, array in state().items()}
    others = [
        save(path, changed, CONFIG, 450),
        save(path, renamed, CONFIG, 450),
        save(path, state(), CONFIG + " ", 450),
        save(path, state(), CONFIG, 451),
    ]
    assert len({first, *others}) == 5


def test_anybody_can_open_a_checkpoint_with_numpy_alone(checkpoint: Path) -> None:
    with np.load(checkpoint, allow_pickle=False) as archive:
        assert set(archive.files) >= {*state(), "config"}
        np.testing.assert_array_equal(archive["linear1.W"], state()["linear1.W"])
        assert json.loads(str(archive["config"])) == json.loads(CONFIG)


def test_a_new_checkpoint_replaces_the_old_one_and_leaves_no_other_file(checkpoint: Path) -> None:
    changed = state() | {"linear1.W": np.ones((3, 4), np.float32)}
    save(checkpoint, changed, CONFIG, 900)
    assert_same(load(checkpoint).state, changed)
    assert_same(load(previous(checkpoint)).state, state())
    assert sorted(checkpoint.parent.iterdir()) == sorted([checkpoint, previous(checkpoint)])


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    assert_refused(tmp_path / "run-000009.npz", "missing")


def test_a_checkpoint_that_was_cut_short_anywhere_is_refused(checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    for length in [*range(0, len(content), 37), len(content) - 1]:
        checkpoint.write_bytes(content[:length])
        assert_refused(checkpoint, "damaged")


@pytest.mark.slow
def test_a_damaged_byte_anywhere_is_refused_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    arrays = {"linear1.W": np.ones((2, 2), np.float32), "batch_norm1.running_mean": np.ones(2, np.float32)}
    save(path, arrays, "{}", 0)
    content = path.read_bytes()
    directory = content.index(b"PK\x01\x02")  # of the archive: it has no checksum of its own
    changes = [(position, 1 << position % 8) for position in range(len(content))]
    changes += [(position, mask) for position in range(directory, len(content)) for mask in (0x01, 0x20, 0xFF)]
    wrong = []
    refused = 0
    for position, mask in changes:
        damaged = bytearray(content)
        damaged[position] ^= mask
        path.write_bytes(damaged)
        try:
            loaded = load(path)
            got, config = loaded.state, loaded.config
            assert_same(got, arrays)
            assert config == "{}"
        except StoreError as error:
            refused += 1
            assert "\n" not in str(error)
        except Exception as error:
            wrong.append(f"byte {position} ^ {mask:#04x}: {type(error).__name__}: {str(error).splitlines()[0]}")
    assert wrong == []
    assert refused > len(changes) / 2


def write_single_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.ones(3))


def write_header_of_four_terabytes(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive, archive.open("linear1.W.npy", "w") as file:
        claim = {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
        np.lib.format.write_array_header_1_0(file, claim)


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_text("not a network"), id="text"),
        pytest.param(lambda path: path.write_bytes(bytes(4096)), id="zeros"),
        pytest.param(lambda path: path.mkdir(), id="folder"),
        pytest.param(lambda path: zipfile.ZipFile(path, "w").close(), id="empty archive"),
        pytest.param(lambda path: np.savez(path, W=np.ones(3)), id="arrays without a config"),
        pytest.param(lambda path: np.savez(path, config=np.array("{")), id="a config that is no JSON"),
        pytest.param(lambda path: np.savez(path, config=np.array([None])), id="a pickle"),
        pytest.param(write_single_array, id="a single array"),
        pytest.param(write_header_of_four_terabytes, id="a huge header"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, write: object) -> None:
    path = tmp_path / "run.npz"
    assert callable(write)
    write(path)
    assert_refused(path)


def test_an_archive_that_holds_other_files_than_arrays_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    np.savez(path, config=np.array("{}"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("linear1.W.npy", "not an array")
    assert_refused(path)


# --- checkpoints without their run


NAMES = tuple(f"class {i}" for i in range(10))
SETTINGS = TrainConfig(hidden=(4,), batch_norm=True)
INPUTS = Inputs(np.linspace(0, 255, 3072), np.full(3072, 64.25), NAMES)
NOT_OF_IMAGES = "damaged (its pixels.mean, pixels.std, class_names are not those of images)"
ORIGIN = {"dataset": "cifar10", "dataset_sha256": "a" * 64, "versions": '{"klcli": "9"}'}


def test_a_checkpoint_tells_what_its_inputs_and_outputs_are(tmp_path: Path) -> None:
    path, arrays = tmp_path / "run.npz", initialize(SETTINGS).state()
    sha256 = save(path, arrays, SETTINGS.to_json(), 450, INPUTS, ORIGIN)
    found, config, inputs = load_alone(path)
    assert_same(found.state, arrays)  # and nothing else, from which a training would continue
    assert (config, found.step, found.origin, inputs.class_names) == (SETTINGS, 450, ORIGIN, NAMES)
    assert (inputs.mean.tobytes(), inputs.std.tobytes()) == (INPUTS.mean.tobytes(), INPUTS.std.tobytes())
    elsewhere = save(path, arrays, SETTINGS.to_json(), 450, INPUTS, ORIGIN | {"versions": "{}"})
    moved = save(path, arrays, SETTINGS.to_json(), 450, replace(INPUTS, mean=INPUTS.mean[::-1]), ORIGIN)
    assert sha256 == elsewhere != moved
    (tmp_path / "link.npz").symlink_to(path)
    assert load_alone(tmp_path / "link.npz")[0].sha256 == moved


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"inputs": replace(INPUTS, mean=np.full(3072, np.nan))}, NOT_OF_IMAGES),
        ({"inputs": replace(INPUTS, std=np.zeros(3072))}, NOT_OF_IMAGES),
        ({"inputs": replace(INPUTS, std=np.ones(3071))}, NOT_OF_IMAGES),
        ({"inputs": replace(INPUTS, class_names=NAMES[:9])}, NOT_OF_IMAGES),
        ({"inputs": replace(INPUTS, class_names=("cat",) * 10)}, NOT_OF_IMAGES),
        ({"state": {"class_names": np.array([None] * 10)}}, "damaged"),
        ({"state": {"linear9.W": np.ones((2, 2))}}, "linear9.W"),
        ({"state": {"linear1.W": np.ones((3072, 5))}}, "linear1.W"),
        ({"state": {"linear1.b": np.full(4, np.inf)}}, "linear1.b"),
        ({"state": {"cycle1.linear1.W": np.ones((200_000,))}}, "cycle1.linear1.W"),
        ({"config": '{"hidden": [4], "colour": "red"}'}, "colour"),
        ({"config": '{"hidden": ' + "[" * 100_000}, "settings that cannot be read"),
        ({"config": " " * 300_000}, "settings that cannot be read"),
        ({"inputs": None}, "older klcli"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_checkpoint_that_does_not_fit_its_own_settings_is_refused(
    tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    path, arrays = tmp_path / "run.npz", initialize(SETTINGS).state() | changed.get("state", {})
    config = changed.get("config", SETTINGS.to_json())
    save(path, arrays, config, 450, changed.get("inputs", INPUTS if "class_names" not in arrays else None), ORIGIN)
    with pytest.raises(StoreError) as error:
        load_alone(path)
    assert str(error.value).startswith(f"{path}: ") and words in str(error.value) and "\n" not in str(error.value)


# --- writes that fail


def test_a_target_that_cannot_be_replaced_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "run.npz").mkdir()
    (tmp_path / "run.npz" / "kept").write_text("kept")
    with pytest.raises(StoreError, match=r"run\.npz") as error:
        write_atomically(tmp_path / "run.npz", b"content")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]
    assert (tmp_path / "run.npz" / "kept").read_text() == "kept"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="file"):
        save(tmp_path / "file" / "run.npz", state(), CONFIG, 0)


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from klcli.errors import StoreError
from klcli.store.checkpoints import save

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # a write beyond 4 kB fails, as on a full disk
try:
    save(Path(sys.argv[1]), {"W": np.zeros((100, 100))}, "{}", 0)
except StoreError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_write_that_fails_half_way_leaves_the_old_file_and_no_other(checkpoint: Path) -> None:
    pytest.importorskip("resource", reason="this system has no limit on the size of a file")
    before = checkpoint.read_bytes()
    process = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(checkpoint)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert len(process.stdout.splitlines()) == 1
    assert str(checkpoint) in process.stdout
    assert checkpoint.read_bytes() == before
    assert list(checkpoint.parent.iterdir()) == [checkpoint]
