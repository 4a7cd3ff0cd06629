"""What klcli keeps in its cache: what is shown, what is removed, and what never is."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from lookalike import Cifar

from klcli.compiled import COMPLETE, code_folder, is_new
from klcli.data.sources import open_dataset
from klcli.procedures.cache import BLAS, CODE, DOWNLOAD, IMAGES, Kept, clear, kept


def filled(cache: Path) -> list[Path]:
    """Put code of this and of another version, a check of BLAS, downloads and a stranger's files into the cache."""
    other = code_folder().with_name("0123456789abcdef")
    files = [code_folder() / "team.nbi", other / "deep/team.nbi", cache / "blas/0123456789abcdef.json"]
    files += [cache / "cifar-10-binary.tar.gz", cache / "cifar-10-python.tar.gz.part"]
    files += [cache / "compiled/mine/thesis.txt", cache / "prepared/thesis.images", cache / "blas/thesis.json"]
    for size, file in enumerate(files, 10):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(size))
    return files[3:]


@pytest.fixture(autouse=True)
def in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the code be in the cache of the test."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)


def states(found: list[Kept]) -> list[tuple[str, str]]:
    return [(one.kind, one.state.partition(",")[0]) for one in found]


def test_everything_is_shown_and_what_can_be_made_again_is_removed(
    cifar: Cifar, empty_machine: Path, tmp_path: Path
) -> None:
    assert code_folder().is_relative_to(empty_machine)  # else the developer's own would be removed
    assert kept() == []
    assert clear() == []
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    stay = [*filled(empty_machine), elsewhere / "thesis.txt"]
    stay[-1].write_text("mine")
    (empty_machine / "compiled/fedcba9876543210").symlink_to(elsewhere)
    twin = tmp_path / "twin"
    shutil.copytree(cifar.binary, twin)
    (twin / "test_batch.bin").write_bytes((cifar.binary / "data_batch_1.bin").read_bytes())
    for path in (cifar.binary, twin):
        open_dataset(str(path))
    shutil.rmtree(twin)
    found = kept()
    assert sorted(states(found)) == [
        (BLAS, "current"), (CODE, "current"), (CODE, "of another version"), (DOWNLOAD, "complete"),
        (DOWNLOAD, "incomplete"), (IMAGES, "current"), (IMAGES, "its source is gone or has changed"),
    ]  # fmt: skip
    [continued] = [one.state for one in found if one.path.suffix == ".part"]
    assert continued == "incomplete, the same `klcli data fetch` continues it"  # of its address alone
    images = {one.source: one for one in found if one.kind == IMAGES}
    assert images.keys() == {str(cifar.binary), str(twin)}
    assert all(one.bytes == one.path.stat().st_size == cifar.pixels.size + cifar.labels.size for one in images.values())
    assert [one.bytes for one in found if one.kind == DOWNLOAD] == [13, 14]

    removed = clear()
    assert {one.path for one in removed} == {one.path for one in found if one.kind != DOWNLOAD}
    assert states(kept()) == [(DOWNLOAD, "complete"), (DOWNLOAD, "incomplete")]
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file() and "cifar" not in path.parts) == sorted(stay)
    assert np.array_equal(open_dataset(str(cifar.binary)).images, cifar.pixels)  # it is made again


def test_what_a_process_uses_stays(cifar: Cifar, empty_machine: Path) -> None:
    filled(empty_machine)
    dataset = open_dataset(str(cifar.binary))
    images = dataset.images[5:7]  # as a split has it, long after the file was closed
    del dataset
    assert (IMAGES, "in use") in states(kept())
    assert sorted(states(clear())) == [(BLAS, "current"), (CODE, "current"), (CODE, "of another version")]
    assert np.array_equal(images, cifar.pixels[5:7])
    del images
    assert states(clear()) == [(IMAGES, "current")]


AS_ANOTHER_USER = """
import os
from contextlib import suppress
from klcli.cli.app import main
with suppress(SystemExit):
    main(["data", "cache"])  # imports what the other user may not read
os.setuid(65534)
print("as another user")
for command in (["data", "cache"], ["data", "cache", "--clear"]):
    try:
        main(command)
    except SystemExit as end:
        print("exit", end.code)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only the superuser becomes another user")
def test_the_cache_of_another_user_is_read_only_not_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was said to be in use by a running klcli; and one that may not be entered was said to be empty."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        monkeypatch.setenv("KLCLI_CACHE", folder)
        filled(cache)
        for mode, shown in ((0o755, ""), (0o700, f"{cache}/prepared cannot be used (Permission denied)")):
            cache.chmod(mode)
            done = subprocess.run([sys.executable, "-c", AS_ANOTHER_USER], capture_output=True, text=True, check=True)
            last = done.stderr.splitlines()[-1]
            assert last.startswith(f"klcli: {shown or f'{cache}: cannot be cleared (read-only)'}")
            found = done.stdout.partition("as another user\n")[2]
            assert found.endswith("exit 4\n")
            assert found.count("read-only") == (0 if shown else 3)
            assert "in use" not in found + done.stderr


def test_code_is_new_until_all_of_it_was_compiled(empty_machine: Path) -> None:
    """After an interrupted compilation, the folder is there, and the line that says why it takes seconds was not."""
    assert is_new()
    filled(empty_machine)
    assert is_new()
    (code_folder() / COMPLETE).touch()
    assert not is_new()
