"""The configuration of NumPy during a training, and its reset afterwards."""

import multiprocessing
import os
import subprocess
import sys
import threading
import warnings
from contextlib import ExitStack

import numpy as np
import pytest
import threadpoolctl

from klcli.training.environment import arithmetic, pin_threads


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}


@pytest.mark.parametrize(
    ("ends", "left"),
    [
        ([2, 1, 0], [{2}, {1}, {3}]),  # nested, as by a callback that trains
        ([0, 1, 2], [{1}, {1}, {3}]),  # overlapping, as in several threads
        ([1, 2, 0], [{1}, {1}, {3}]),
    ],
)
def test_blocks_that_overlap_keep_their_blas_threads_and_the_last_restores_them(
    ends: list[int], left: list[set[int]]
) -> None:
    """The first to end gave the others the number from before it, and the last left its own behind."""
    with threadpoolctl.threadpool_limits(3, user_api="blas"):
        blocks, found = [ExitStack() for _ in range(3)], []
        for block, threads in zip(blocks, (1, 2, 1), strict=True):
            block.enter_context(pin_threads(threads))
            assert blas_threads() == {threads}
        for end in ends:
            blocks[end].close()
            found.append(blas_threads())
        assert found == left


def test_a_processor_without_numpys_later_instructions_can_train() -> None:
    """NumPy then names none, not even an empty list."""
    found = " ".join(np.show_config(mode="dicts")["SIMD Extensions"].get("found", ()))
    program = (
        "from klcli.training.environment import numpy_environment; print(repr(numpy_environment().versions['simd']))"
    )
    without = {**os.environ, "NPY_DISABLE_CPU_FEATURES": found}
    done = subprocess.run([sys.executable, "-c", program], env=without, capture_output=True, text=True, check=False)
    assert done.stdout == "''\n", done.stderr


def pin() -> None:
    with pin_threads(1):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a fork as POSIX has it")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_that_is_forked_while_other_threads_train_can_train() -> None:
    """It inherited their lock, and waited for it."""
    ended = threading.Event()

    def pin_again() -> None:
        while not ended.is_set():
            pin()

    thread = threading.Thread(target=pin_again)
    thread.start()
    try:
        children = [multiprocessing.get_context("fork").Process(target=pin) for _ in range(10)]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
            child.kill()
    finally:
        ended.set()
        thread.join()
    assert [child.exitcode for child in children] == [0] * 10


def test_a_diverging_replica_causes_no_warning() -> None:
    before = np.geterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with arithmetic():
            assert np.isnan(np.float32([3e38]) * np.float32([10]) - np.float32(np.inf)).all()
            assert (np.float32([1]) / np.float32([0]) == np.inf).all()
    assert np.geterr() == before
