"""The second core: the same results, wherever the work is done, and nothing lost when the other process is."""

import gc
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from klcli import second_core
from klcli.engine.products import multiply
from klcli.second_core import begin, empty, ended, left, tell, then
from klcli.second_core.partner import Partner, PartnerLost

pytestmark = pytest.mark.slow

MEGABYTE = 1 << 20


@pytest.fixture
def partner(use_cores: Callable[[int], None]) -> Iterator[Partner]:
    """The other process, ready, with 4 MB of memory."""
    use_cores(2)
    second_core.start(4 * MEGABYTE)
    begun = begin(os.getpid)
    assert begun is not None
    wait_for(begun)
    yield begun.partner
    second_core.stop()


def wait_for(begun: object) -> None:
    """Wait until the other process has begun, so that `ended` does not take the work back."""
    deadline = time.monotonic() + 30
    while begun.slot.offered.get_value():  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert ended(begun)  # type: ignore[arg-type]


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


# What the other process is asked to do; it finds them by their names.


def work_for(seconds: float, out: np.ndarray) -> None:
    time.sleep(seconds)
    out += 1


def set_after(seconds: float, out: np.ndarray) -> None:
    time.sleep(seconds)
    out[...] = 1


def fail(out: np.ndarray) -> None:
    raise ValueError("no")


def sign_after(seconds: float, part: tuple[int, int], out: np.ndarray) -> None:
    time.sleep(seconds)
    assert len(out) == part[1]
    assert out[part[0]] == 0, "nobody else has done it"
    out[part[0]] = os.getpid()


def fail_in_part(broken: int, part: tuple[int, int], out: np.ndarray) -> None:
    if part[0] == broken:
        raise ValueError("no")
    out[part[0]] = 1


def described(thing: dict[str, np.ndarray], number: float, text: str, nothing: None) -> list[object]:
    return [{key: array.sum() for key, array in thing.items()}, number, text, nothing]


def layout_of(arrays: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: array.strides for name, array in arrays.items()}


_kept: list[np.ndarray] = []


def keep(array: dict[str, np.ndarray]) -> None:
    _kept.append(array["kept"])


def sum_of_kept() -> float:
    return float(_kept[0].sum())


def is_mapped(array: np.ndarray) -> bool:
    return isinstance(array.base, np.memmap)


def test_the_other_process_does_it(partner: Partner) -> None:
    begun = begin(os.getpid)
    assert begun is not None
    wait_for(begun)
    assert begun.value == partner.pid != os.getpid()


@pytest.mark.parametrize("place", [np.empty, empty], ids=["out here", "out shared"])
def test_it_works_on_views_of_shared_arrays_and_on_copies_of_others(
    partner: Partner, place: Callable[..., np.ndarray]
) -> None:
    A, B, Y = empty((30, 40), "f8"), random(40, 25), place((30, 50), "f8")
    A[...], Y[...] = random(30, 40), 7
    wait_for(begin(multiply, A[:, 20:], B.T[:, 20:].T, out=Y[:, 25:]))
    np.testing.assert_allclose(Y[:, 25:], np.einsum("ij,jk->ik", A[:, 20:], B[20:]))
    assert (Y[:, :25] == 7).all()


def test_objects_are_sent_with_their_arrays(partner: Partner) -> None:
    shared = empty((5,), "f4")
    shared[...] = 2
    begun = begin(described, {"shared": shared, "here": np.arange(4)}, 0.1, "text", None)
    wait_for(begun)
    assert begun is not None
    assert begun.value == [{"shared": 10, "here": 6}, 0.1, "text", None]


def test_what_it_was_told_stays(partner: Partner) -> None:
    assert tell(keep, {"kept": np.ones(1000)})
    for _ in range(5):
        wait_for(begin(described, {"other": random(1000)}, 0, "", None))
    begun = begin(sum_of_kept)
    wait_for(begun)
    assert begun is not None
    assert begun.value == 1000


def test_a_mapped_file_is_not_copied(partner: Partner, tmp_path: Path) -> None:
    np.save(tmp_path / "large.npy", np.zeros((20, MEGABYTE), np.uint8))
    begun = begin(is_mapped, np.asarray(np.load(tmp_path / "large.npy", mmap_mode="r")))
    wait_for(begun)
    assert begun is not None
    assert begun.value


def test_what_nobody_begins_is_taken_back(partner: Partner) -> None:
    psutil.Process(partner.pid).suspend()
    Y = empty((1,), "f8")
    Y[...] = 0
    assert not ended(begin(work_for, 0.0, out=Y))
    psutil.Process(partner.pid).resume()
    wait_for(begin(os.getpid))
    assert Y == [0]


def unsigned(parts: int) -> np.ndarray:
    array = empty((parts,), "i8")
    array[...] = 0
    return array


def test_what_comes_then_waits_for_the_next(partner: Partner) -> None:
    Y = unsigned(3)
    later = then(sign_after, 0.0, out=Y, parts=3)
    time.sleep(0.05)
    assert Y.tolist() == [0, 0, 0]
    wait_for(begin(os.getpid))
    deadline = time.monotonic() + 30
    while 0 in Y:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert list(left(later)) == []
    assert Y.tolist() == [partner.pid] * 3


def test_nobody_does_it_where_nothing_follows(partner: Partner) -> None:
    Y = unsigned(4)
    assert list(left(then(sign_after, 0.0, out=Y, parts=4))) == [(0, 1)]
    wait_for(begin(os.getpid))
    assert Y.tolist() == [0, 0, 0, 0]


def test_both_do_what_the_other_has_not_begun(partner: Partner) -> None:
    for _ in range(2):
        Y = unsigned(10)
        begun = then(sign_after, 0.05, out=Y, parts=10)
        wait_for(begin(os.getpid))
        while begun.slot.offered.get_value() == 10:  # type: ignore[union-attr]
            time.sleep(0.001)
        for part in left(begun):
            sign_after(0.05, part, Y)
        count = Y.tolist().count(partner.pid)
        assert 1 <= count <= 9
        assert Y.tolist() == [partner.pid] * count + [os.getpid()] * (10 - count)
    wait_for(begin(os.getpid))


def test_what_is_waited_for_goes_before_the_parts_left(partner: Partner) -> None:
    Y = unsigned(10)
    begun = then(sign_after, 0.2, out=Y, parts=10)
    wait_for(begin(os.getpid))
    wait_for(begin(os.getpid))
    assert Y.tolist().count(0) > 5
    for part in left(begun):
        sign_after(0.0, part, Y)
    assert 0 not in Y


def test_the_parts_of_a_killed_process_are_done_here(partner: Partner) -> None:
    Y = unsigned(5)
    begun = then(sign_after, 0.2, out=Y, parts=5)
    wait_for(begin(os.getpid))
    while begun.slot.offered.get_value() > 3:  # type: ignore[union-attr]
        time.sleep(0.001)
    os.kill(partner.pid or 0, signal.SIGKILL)
    assert sorted({which for which, _ in left(begun)}) == [0, 1, 2, 3, 4]
    assert begin(os.getpid) is None


def test_the_parts_behind_one_that_fails_are_done_here(partner: Partner) -> None:
    Y = unsigned(4)
    begun = then(fail_in_part, 1, out=Y, parts=4)
    wait_for(begin(os.getpid))
    while begun.slot.offered.get_value():  # type: ignore[union-attr]
        time.sleep(0.001)
    assert list(left(begun)) == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert not psutil.pid_exists(partner.pid or 0)


def test_two_pieces_may_be_under_way(partner: Partner) -> None:
    Y, Z = np.zeros(1), np.zeros(1)
    first, second = begin(set_after, 0.05, out=Y), begin(set_after, 0.05, out=Z)
    assert begin(os.getpid) is None
    wait_for(first)
    wait_for(second)
    assert (Y, Z) == ([1], [1])


def test_there_is_only_so_much_room(partner: Partner) -> None:
    assert begin(work_for, 0.0, out=np.zeros(5 * MEGABYTE, np.uint8)) is None
    assert begin(described, {"large": np.zeros(5 * MEGABYTE, np.uint8)}, 0, "", None) is None
    assert begin(described, {}, 0, "long " * 20_000, None) is None
    array = empty((5 * MEGABYTE,), "u1")
    assert array.shape == (5 * MEGABYTE,)  # of this process alone
    wait_for(begin(os.getpid))


def test_a_new_array_lies_behind_the_copies_of_what_is_under_way(partner: Partner) -> None:
    psutil.Process(partner.pid).suspend()
    begun = begin(described, {"copied": np.arange(1000)}, 0, "", None)
    array = empty((2000,), "f8")
    array[...] = 7
    psutil.Process(partner.pid).resume()
    wait_for(begun)
    assert begun is not None
    assert begun.value[0] == {"copied": 499_500}


def test_after_a_failure_all_is_done_here(partner: Partner) -> None:
    begun = begin(fail, out=np.zeros(1))
    assert begun is not None
    while begun.slot.offered.get_value():
        time.sleep(0.001)
    assert not ended(begun)
    assert begin(os.getpid) is None
    assert not psutil.pid_exists(partner.pid or 0)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_killed_process_is_noticed(partner: Partner, in_place: bool) -> None:
    begun = begin(work_for, 60.0, out=empty((1,), "f8"), in_place=in_place)
    assert begun is not None
    while begun.slot.offered.get_value():
        time.sleep(0.001)
    os.kill(partner.pid or 0, signal.SIGKILL)
    if in_place:  # nobody knows how much of it is done
        with pytest.raises(PartnerLost, match=r"second core ended.*killed"):
            ended(begun)
    else:
        assert not ended(begun)
    assert begin(os.getpid) is None


@pytest.mark.skipif(os.name != "posix", reason="signals of a terminal")
def test_the_signals_of_a_terminal_are_for_the_parent(partner: Partner) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(partner.pid or 0, number)
    wait_for(begin(os.getpid))


PARENT = """
import os, signal, time
from klcli import second_core
if __name__ == "__main__":
    second_core.cores = lambda: 2  # whatever the machine has
    second_core.use()
    second_core.start(1000)
    begun = second_core.begin(os.getpid)
    while begun.slot.offered.get_value():
        time.sleep(0.001)
    assert second_core.ended(begun)
    print(begun.value, flush=True)
    {ending}
"""


@pytest.mark.parametrize("ending", ["os.kill(os.getpid(), signal.SIGKILL)", "pass", "raise SystemExit(3)"])
def test_it_ends_with_its_parent(tmp_path: Path, ending: str) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.replace("{ending}", ending))
    started = time.monotonic()
    done = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    pid = int(done.stdout)
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() - started < 30
        time.sleep(0.05)


def test_what_is_changed_in_place_must_be_shared(partner: Partner) -> None:
    """A copy would not hold what is there."""
    assert begin(work_for, 0.0, out=np.ones(3), in_place=True) is None
    assert then(sign_after, 0.0, out=np.ones(3), parts=3) is None


def test_what_is_sent_keeps_its_layout(partner: Partner) -> None:
    """BLAS has another product for a transposed matrix, with other last bits."""
    begun = begin(
        layout_of, {"rows": random(4, 5), "columns": random(4, 5).T, "members": random(2, 3, 4).swapaxes(1, 2)}
    )
    wait_for(begun)
    assert begun is not None
    assert begun.value == {"rows": (40, 8), "columns": (8, 40), "members": (96, 8, 32)}


def test_a_part_of_a_mapped_file_is_not_taken_for_the_whole(partner: Partner, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.arange(20))
    part = np.asarray(np.load(tmp_path / "rows.npy", mmap_mode="r")[10:15])
    begun = begin(described, {"part": part}, 0, "", None)
    wait_for(begun)
    assert begun is not None
    assert begun.value[0] == {"part": 60}


def test_its_memory_is_given_back_at_its_end(use_cores: Callable[[int], None]) -> None:
    """At once: what is left for the garbage collector may stay for a whole search."""
    use_cores(2)
    second_core.start(MEGABYTE)
    begun = begin(described, {"copied": np.arange(10)}, 0, "", None)
    assert begun is not None
    wait_for(begun)
    ended_one, collects = weakref.ref(begun.partner), gc.isenabled()
    del begun
    gc.disable()
    try:
        second_core.stop()
        assert ended_one() is None
    finally:
        if collects:
            gc.enable()


def test_arrays_of_an_earlier_process_are_arrays_like_others(partner: Partner) -> None:
    A = empty((3,), "f8")
    A[...] = 5
    second_core.start(MEGABYTE)
    begun = begin(described, {"A": A}, 0, "", None)
    wait_for(begun)
    assert begun is not None
    assert begun.value[0] == {"A": 15}
    assert begin(work_for, 0.0, out=A, in_place=True) is None


def test_numbers_of_numpy_are_numbers(partner: Partner) -> None:
    begun = begin(described, {}, np.float64(0.5), "", None)
    wait_for(begun)
    assert begun is not None
    assert begun.value[1] == 0.5


def test_what_is_too_large_to_tell_is_not_told(partner: Partner) -> None:
    assert not tell(keep, {"kept": np.ones(MEGABYTE)})
    wait_for(begin(os.getpid))
