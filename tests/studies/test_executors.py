"""Where stacks are trained changes no bit: this process, spawned processes, a real Dask cluster; also when some die."""

import contextlib
import gc
import os
import pickle
import random
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from dask_cluster import Cluster, cluster
from light import LIGHT

import klcli
from klcli.errors import ConfigError, DataError
from klcli.studies import executors
from klcli.studies.execution import ImagesReference, StackOutcome, StackTask, WorkerChannel, execute, train_stack
from klcli.studies.executors import ProcessesExecutor, WorkersLost, open_executor

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")

Tasks = Callable[..., list[StackTask]]
LONG = 150  # updates for about half a second


def trained(tasks: list[StackTask], jobs: int, address: str | None = None, **callbacks: Any) -> list[StackOutcome]:
    with open_executor(jobs, address, len(tasks)) as executor:
        return list(execute(tasks, executor, **callbacks))


@pytest.mark.parametrize("seconds", [0, 0.05, pytest.param(2, marks=pytest.mark.slow)])
def test_workers_end_at_once_whatever_they_do(seconds: float) -> None:
    with open_executor(2, None, 2) as executor:
        assert isinstance(executor, ProcessesExecutor)
        futures = [executor.submit(time.sleep, 600) for _ in range(2)]
        time.sleep(seconds)
        executor.kill()
        for future in futures:
            assert isinstance(future.exception(timeout=60), BrokenExecutor)


def test_workers_import_nothing_from_the_current_folder(tmp_path: Path) -> None:
    """Files of a student, such as random.py or signal.py, are no modules of Python."""
    script, folder = tmp_path / "script.py", tmp_path / "student"
    script.write_text(
        "import os\nfrom klcli.studies.executors import open_executor\n"
        "with open_executor(2, None, 2) as executor:\n"
        "    print(executor.submit(os.getcwd).result(), os.environ.get('PYTHONSAFEPATH'))\n"
    )
    folder.mkdir()
    for name in sys.stdlib_module_names:
        (folder / f"{name}.py").write_text("raise ImportError(__file__)\n")
    command = [sys.executable, str(script)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{folder} None\n", "")


def test_a_worker_that_cannot_be_started_is_named_with_the_cure() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    gc.collect()  # a file that was closed later would be free for the worker
    with open_executor(2, None, 2) as executor:
        numbers = [int(one.name) for one in Path("/dev/fd").iterdir()]  # with that of the folder, which is closed now
        top = max(numbers) + 1
        held = [os.open(os.devnull, os.O_RDONLY) for _ in range(top - len(numbers) + 1)]  # all free ones below the top
        resource.setrlimit(resource.RLIMIT_NOFILE, (top, hard))
        try:
            error = executor.submit(os.getpid).exception(timeout=60)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for number in held:
                os.close(number)
        assert isinstance(error, WorkersLost)
        # A module that is imported only now is named as the file that cannot be opened.
        assert re.search(
            r"no worker can be started \(\[Errno 24\] Too many open files.*\), give fewer --jobs", str(error)
        )


def killed_while_it_sends(size: int) -> bytes:
    """A large result, whose process dies after a part of it has been written to the pipe."""
    main = threading.main_thread().ident

    def die() -> None:
        while sys._current_frames()[main or 0].f_code.co_name != "_send":
            time.sleep(1e-4)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=die, daemon=True).start()
    return bytes(size)


@pytest.mark.slow
def test_a_worker_that_is_killed_while_it_sends_its_result_is_noticed() -> None:
    """Nobody else may hold the pipe open: the rest of the result would be waited for without end."""
    executor = ProcessesExecutor(1)
    try:
        for _ in range(2):  # the pool of the dead worker is replaced
            with pytest.raises(BrokenExecutor):
                executor.submit(killed_while_it_sends, 100_000_000).result(30)
        assert executor.submit(len, "abc").result(30) == 3
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def bits(outcomes: list[StackOutcome]) -> dict[int, tuple[Any, ...]]:
    """All that must not depend on the place: metrics and weights of every position, without the clock."""
    return {
        position: (
            [(e.epoch, e.step, e.learning_rate, e.train, e.validation) for e in result.epochs],
            result.test,
            result.diverged_at,
            {name: array.tobytes() for name, array in result.network.state().items()},
        )
        for outcome in outcomes
        for position, result in zip(outcome.positions, outcome.results, strict=True)
    }


def workers() -> list[int]:
    """The processes that this one has spawned to train."""
    found = []
    for child in psutil.Process().children():
        try:
            if "multiprocessing.spawn" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def gone(pids: list[int], seconds: float) -> bool:
    """Whether all of these processes end in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(_alive(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# --- the same bits everywhere


@pytest.mark.slow
def test_processes_and_dask_give_the_bits_of_a_single_process(tasks: Tasks, dask: Cluster) -> None:
    plan = tasks()
    alone = bits(trained(plan, jobs=1))
    assert sorted(alone) == list(range(8))
    assert bits(trained(plan, jobs=2)) == alone
    assert bits(trained(plan, jobs=1, address=dask.address)) == alone
    assert pickle.dumps(alone[0]) != pickle.dumps(alone[1])  # the replicas themselves differ


def test_one_job_starts_no_process(tasks: Tasks) -> None:
    seen: list[int] = []
    trained(tasks(), jobs=1, check=lambda: seen.extend(workers()))
    assert seen == []


def test_no_more_processes_than_stacks(tasks: Tasks) -> None:
    seen: set[int] = set()
    trained(tasks()[:1], jobs=16, check=lambda: seen.update(workers()))
    assert seen == set()
    assert workers() == []


# --- workers that die


def kill_one(pids: Callable[[], list[int]]) -> tuple[Callable[[int, int, float], None], list[int]]:
    """Return an on_progress that kills a worker once training is on its way, and the list of those killed."""
    killed: list[int] = []

    def on_progress(index: int, step: int, best: float) -> None:
        if step > 0 and not killed:
            killed.append(pids()[0])
            os.kill(killed[0], signal.SIGKILL)

    return on_progress, killed


@pytest.mark.slow
def test_a_killed_process_changes_nothing(tasks: Tasks) -> None:
    plan = tasks(updates=LONG, evaluations_per_cycle=2)
    before = bits(trained(plan, jobs=1))
    on_progress, killed = kill_one(workers)
    outcomes = trained(plan, jobs=2, on_progress=on_progress)
    assert len(killed) == 1
    assert bits(outcomes) == before
    assert sorted(outcome.positions for outcome in outcomes) == [(0, 1, 2, 3), (4, 5, 6, 7)]


@pytest.mark.slow
def test_a_killed_dask_worker_changes_nothing(tasks: Tasks, dask: Cluster) -> None:
    plan = tasks(updates=LONG, evaluations_per_cycle=2)
    on_progress, killed = kill_one(dask.worker_pids)
    outcomes = trained(plan, jobs=1, address=dask.address, on_progress=on_progress)
    assert len(killed) == 1
    assert bits(outcomes) == bits(trained(plan, jobs=1))


@pytest.mark.slow
def test_three_deaths_over_one_stack_end_the_study(tasks: Tasks) -> None:
    killed: set[int] = set()
    over = threading.Event()

    def reaper() -> None:
        while not over.wait(0.02):
            for pid in workers():
                with contextlib.suppress(ProcessLookupError):  # killed in the round before, and gone by now
                    os.kill(pid, signal.SIGKILL)
                killed.add(pid)

    # The stacks of one job train in this process; three jobs for two stacks start two.
    thread = threading.Thread(target=reaper)
    thread.start()
    try:
        with pytest.raises(WorkersLost, match="3 workers died"):
            trained(tasks(updates=1_000_000, evaluations_per_cycle=0), jobs=3)
    finally:
        over.set()
        thread.join()
    assert len(killed) >= 3


# --- the end of workers


@pytest.mark.slow
def test_an_interruption_ends_the_processes_within_seconds(tasks: Tasks) -> None:
    seen: set[int] = set()
    interrupted: list[float] = []

    def check() -> None:
        seen.update(workers())
        if interrupted:
            raise KeyboardInterrupt

    def on_progress(index: int, step: int, best: float) -> None:
        if step > 0:
            interrupted.append(time.monotonic())

    with pytest.raises(KeyboardInterrupt):
        trained(tasks(updates=1_000_000, evaluations_per_cycle=0), jobs=2, check=check, on_progress=on_progress)
    assert time.monotonic() - interrupted[0] < 5
    assert len(seen) == 2
    assert gone(list(seen), 1)


@pytest.mark.slow
def test_an_interruption_frees_the_dask_workers(tasks: Tasks, dask: Cluster) -> None:
    interrupted: list[float] = []

    def on_progress(index: int, step: int, best: float) -> None:
        if step > 0:
            interrupted.append(time.monotonic())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(
            tasks(updates=1_000_000, evaluations_per_cycle=0), jobs=1, address=dask.address, on_progress=on_progress
        )
    trained(tasks(updates=2), jobs=1, address=dask.address)  # both workers take new stacks
    assert time.monotonic() - interrupted[0] < 15


@pytest.mark.slow
def test_a_dask_worker_on_another_host_is_interrupted_by_dask(tasks: Tasks, dask: Cluster) -> None:
    """It does not see the folder of the parent, and would continue a training that no process waits for."""
    elsewhere = WorkerChannel(Path("/on another host"), 0)
    with open_executor(1, dask.address, 2) as executor:
        for task in tasks(updates=1_000_000, evaluations_per_cycle=0):
            executor.submit(train_stack, task, elsewhere)
        time.sleep(2)
    started = time.monotonic()
    trained(tasks(updates=2), jobs=1, address=dask.address)
    assert time.monotonic() - started < 10


@pytest.mark.slow
def test_ctrl_c_reaches_workers_and_is_left_to_the_parent(tasks: Tasks) -> None:
    """The terminal sends it to every process, also to one that is just being started."""
    sent: set[int] = set()
    over = threading.Event()

    def interrupter() -> None:
        while not over.wait(0.01):
            for pid in workers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)
                sent.add(pid)

    thread = threading.Thread(target=interrupter)
    thread.start()
    try:
        outcomes = trained(tasks(updates=LONG, evaluations_per_cycle=0), jobs=2)
    finally:
        over.set()
        thread.join()
    assert len(outcomes) == 2
    assert len(sent) == 2  # none of them died and was replaced


PARENT = """
import sys, pickle, time
from klcli.studies.execution import execute
from klcli.studies.executors import ProcessesExecutor, open_executor

if __name__ == "__main__":
    tasks = pickle.loads(sys.stdin.buffer.read())
    with open_executor(2, None, len(tasks)) as executor:
        def on_progress(index, step, best):
            if step:
                print("training", flush=True)
        for _ in execute(tasks, executor, on_progress=on_progress):
            pass
        print("idle", flush=True)
        time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("updates", "word"), [(1_000_000, "training"), (2, "idle")])
def test_workers_end_with_a_parent_that_was_killed(tasks: Tasks, tmp_path: Path, updates: int, word: str) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(pickle.dumps(tasks(updates=updates, evaluations_per_cycle=0)))
        parent.stdin.close()
        for line in parent.stdout:
            if line.decode().strip() == word:
                break
        children = [child.pid for child in psutil.Process(parent.pid).children(recursive=True)]
        assert len(children) >= 2
    finally:
        parent.kill()
        parent.wait()
    assert gone(children, 5)


# --- what cannot be executed


@pytest.mark.slow
def test_a_refusal_travels_from_a_process_and_from_dask(tasks: Tasks, dask: Cluster) -> None:
    plan = [
        StackTask(t.positions, t.configs, ImagesReference("synthetic", "synthetic", "f" * 64), True, 1) for t in tasks()
    ]
    for address in (None, dask.address):
        with pytest.raises(DataError, match="ffffffff"):
            trained(plan, jobs=2, address=address)
    other = [StackTask(t.positions, t.configs, t.images, True, 1, version="0.0.1") for t in tasks()]
    for address in (None, dask.address):
        with pytest.raises(ConfigError, match=r"0\.0\.1"):
            trained(other, jobs=2, address=address)


@pytest.mark.slow
def test_a_defect_travels_from_a_process(tasks: Tasks) -> None:
    [first, second] = tasks(updates=2)
    broken = StackTask(first.positions, (first.configs[0], second.configs[0].__class__()), first.images, True, 1)
    with pytest.raises(ValueError, match="replicas may differ"):
        trained([broken, second], jobs=2)


@pytest.mark.slow
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "127.0.0.1:9", "foo:1", "tcp://no-such-host.invalid:8786"])
def test_a_scheduler_that_does_not_answer_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(executors, "ANSWER_SECONDS", 0.5)
    with pytest.raises(ConfigError, match=f"--executor {address}: no Dask scheduler answers") as error:
        trained([], jobs=1, address=address)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "address",
    """, nonsense, localhost, localhost:, http://localhost:8786, inproc://1/2, xyz://a:1, tcp://:8786, tcp://localhost,
    tcp://localhost:port, tcp://localhost:99999, tcp://[::1, tcp://a:1/b, ://, :8786""".replace("\n   ", "").split(
        ", "
    ),
)
def test_what_is_no_address_is_named_with_the_cure(address: str) -> None:
    with pytest.raises(ConfigError) as error:
        trained([], jobs=1, address=address)
    assert str(error.value).startswith(f"--executor {address}: no Dask scheduler answers there")
    assert str(error.value).endswith("such as tcp://localhost:8786")


def _says(*parts: bytes) -> Callable[[socket.socket], None]:
    """Return a server that sends these bytes to whoever connects, and then nothing."""

    def serve(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)
            time.sleep(0.1)
        time.sleep(60)

    return serve


def _hangs_up(connection: socket.socket) -> None:
    connection.close()


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve every connection to a port of this machine; yields its address."""

    def accept() -> None:
        with contextlib.suppress(OSError):  # closed at the end
            while True:
                connection, _ = server.accept()
                threading.Thread(target=_quietly, args=(serve, connection), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


def _quietly(serve: Callable[[socket.socket], None], connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        serve(connection)


SERVERS = {
    "silence": _says(),
    "a closed door": _hangs_up,
    "a web server": _says(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "a shell": _says(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "a frame of 3 EiB": _says(struct.pack("<Q", 3 << 60)),
    "a frame of 3 GiB": _says(struct.pack("<Q", 3 << 30), bytes(1000)),
    "no frame": _says(struct.pack("<QQQ", 16, 1, 0)),
    "random bytes": _says(struct.pack("<Q", 1000) + random.Random(0).randbytes(1000)),
    "one byte at a time": _says(struct.pack("<Q", 1000), *[b"x"] * 100),
}


@pytest.mark.slow
@pytest.mark.parametrize("serve", SERVERS.values(), ids=SERVERS)
def test_another_program_that_answers_is_named(
    serve: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(executors, "ANSWER_SECONDS", 1)
    started = time.monotonic()
    with listening(serve) as address, pytest.raises(ConfigError) as error:
        trained([], jobs=1, address=address)
    assert time.monotonic() - started < 6
    assert str(error.value).startswith(f"--executor {address}: no Dask scheduler answers there (")
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_while_a_scheduler_is_waited_for(name: str, tmp_path: Path, shared_cache: Path) -> None:
    pytest.importorskip("distributed")
    connected = threading.Event()

    def serve(connection: socket.socket) -> None:
        connected.set()
        time.sleep(60)

    with listening(serve) as address:
        process = subprocess.Popen(
            [sys.executable, "-m", "klcli", "search-lambda", "--data", "synthetic", "--executor", address, "-q"],
            cwd=tmp_path,
            env=os.environ | {"KLCLI_CACHE": str(shared_cache)},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert connected.wait(30)
        sent = time.monotonic()
        process.send_signal(getattr(signal, name))
        _, err = process.communicate(timeout=30)
    assert time.monotonic() - sent < executors.ANSWER_SECONDS - 1  # within 1 s where a core is free
    assert process.returncode == 128 + getattr(signal, name)
    assert err.startswith("klcli: ")
    assert err.count("\n") == 1


READ_ONLY = "mount --bind /dev/shm /dev/shm && mount -o remount,ro,bind /dev/shm"
MISSING = "mount -t tmpfs tmpfs /dev && mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9"


@pytest.mark.slow
@pytest.mark.parametrize("mount", [READ_ONLY, MISSING], ids=["read-only", "missing"])
def test_a_study_without_shared_memory(mount: str, tmp_path: Path, shared_cache: Path) -> None:
    """Semaphores need /dev/shm: without them the runs are trained in one process, to the same bits."""
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")
    settings = "search-lambda --data synthetic --subset 300 --hidden 20 --trials 6 --step-size 3 --jobs 2"
    command, environment = f"{shlex.join(LIGHT)} {settings}", os.environ | {"KLCLI_CACHE": str(shared_cache)}
    outputs = []
    for folder, line in (("usual", command), ("without", f"{mount} && {command}")):
        (tmp_path / folder).mkdir()
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", line],
            cwd=tmp_path / folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert ("one after the other" in done.stderr) == (folder == "without")
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "everywhere", "found"),
    [("__version__ = '0.0.1'", True, "klcli 0.0.1 "), ("raise ModuleNotFoundError('No klcli')", False, "No klcli ")],
)
def test_a_cluster_without_this_klcli_is_named(
    tasks: Tasks, tmp_path: Path, content: str, everywhere: bool, found: str
) -> None:
    """A worker cannot read its first task, and ends: the study would wait for another one without end."""
    folder = tmp_path / "installed"
    folder.mkdir()
    (folder / "klcli.py").write_text(content)
    (tmp_path / "install.py").write_text(f"import sys; sys.path.insert(0, {str(folder)!r})")
    how = (
        {"PYTHONPATH": str(folder)}
        if everywhere
        else {"DASK_DISTRIBUTED__WORKER__PRELOAD": str([str(tmp_path / "install.py")])}
    )
    with cluster(tmp_path, os.environ | how, workers=1) as other, pytest.raises(ConfigError) as error:
        trained(tasks(), jobs=1, address=other.address)
    where = "on its scheduler or a worker"
    assert str(error.value).startswith(
        f"--executor {other.address}: {found}{where}, klcli {klcli.__version__} here: install"
    )


@pytest.mark.slow
def test_a_scheduler_without_workers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(executors, "ANSWER_SECONDS", 1)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty,
        pytest.raises(ConfigError, match=r"has no worker.*dask worker tcp://"),
    ):
        trained([], jobs=1, address=empty.scheduler_address)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificate")
def test_a_scheduler_with_encryption_trains(tasks: Tasks, tmp_path: Path) -> None:
    """With the certificate that the settings of Dask name, as for any client of Dask."""
    distributed, dask = pytest.importorskip("distributed"), pytest.importorskip("dask")
    key, cert = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", key, "-out", cert], capture_output=True, check=True)
    names = {f"{role}.{name}": path for role in ("scheduler", "worker", "client")
             for name, path in (("key", key), ("cert", cert))}  # fmt: skip
    settings = {f"distributed.comm.tls.{name}": path for name, path in {**names, "ca-file": cert}.items()}
    where = {"n_workers": 1, "processes": False, "dashboard_address": ":0", "protocol": "tls"}
    with dask.config.set(settings), distributed.LocalCluster(**where, security=distributed.Security()) as one:
        address = one.scheduler_address
        assert address.startswith("tls://")
        assert len(trained(tasks(updates=2), jobs=1, address=address)) == 2
        with dask.config.set({"distributed.comm.tls.ca-file": None}), pytest.raises(ConfigError, match="configuration"):
            trained([], jobs=1, address=address)


def test_dask_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"pip install 'klcli\[dask\]'"):
        trained([], jobs=1, address="tcp://127.0.0.1:8786")
