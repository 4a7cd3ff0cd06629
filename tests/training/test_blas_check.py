"""The check of BLAS: a right one passes, each wrong kind of product is named, and the verdict is kept."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import Klcli

from klcli.training.blas_check import wrong_products

TRAIN = ("train", "--data", "synthetic", "--subset", "200", "--hidden", "5", "--epochs", "1", "--quiet")
NOTHING = "void scipy_cblas_{}64_(int order, int uplo, int trans, long n, long k, {} a, const void *A) {{}}"
ZERO = (
    "void scipy_cblas_{}64_(int order, int a, int b, long m, long n, long k, {} alpha, const void *A, long lda, "
    "const void *B, long ldb, {} beta, {} *C, long ldc) {{ for (long i = 0; i < m; i++) C[i * ldc] = 0; }}"
)


def test_the_blas_in_use_is_right() -> None:
    assert wrong_products() == []


def is_symmetric(A: np.ndarray, B: np.ndarray) -> bool:
    """Whether NumPy calls syrk: one factor is the transpose of the other."""
    return A.ndim == 2 and np.shares_memory(A, B) and A.shape == B.shape[::-1] and A.strides == B.strides[::-1]


def spoiled(when: Callable[[np.ndarray, np.ndarray], bool], error: float) -> Callable[..., np.ndarray]:
    """A product that is wrong for some factors, in its last entry and by this share of its largest one."""

    def multiply(A: np.ndarray, B: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        Y = np.matmul(A, B, out=out)
        if when(A, B):
            Y[..., -1] += error * abs(Y).max()
        return Y

    return multiply


@pytest.mark.parametrize(
    ("when", "named"),
    [
        (is_symmetric, "A @ A.T"),
        (lambda A, B: A.dtype == np.float32, "float32"),
        (lambda A, B: A.dtype == np.float64, "float64"),
        (lambda A, B: A.ndim == 3, "stacks"),
        (lambda A, B: A.ndim == 2 and B.ndim == 3, "a stack on one X"),
        (lambda A, B: B.ndim == 1, "X @ v"),
        (lambda A, B: len(A) == 1, "v @ W"),
        (lambda A, B: A.shape[-1] > 700 and B.flags.f_contiguous and not B.flags.c_contiguous, "X @ W"),
        (lambda A, B: A.shape[-1] > 700 and B.flags.c_contiguous and B.ndim == 2, "C order"),
        (lambda A, B: A.flags.f_contiguous and A.ndim == 2 and B.flags.c_contiguous, "X.T @ G"),
        (lambda A, B: not A.flags.forc, "half of"),
    ],
)
@pytest.mark.parametrize("error", [1e-3, float("nan")])
def test_a_wrong_product_is_named(when: Callable[[np.ndarray, np.ndarray], bool], named: str, error: float) -> None:
    assert any(named in one for one in wrong_products(spoiled(when, error)))


def test_products_of_less_precision_are_wrong() -> None:
    """As with factors rounded to bfloat16 or TF32, which some accelerators do by themselves."""

    def rounded(A: np.ndarray, B: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        if A.dtype == np.float32:
            A, B = (np.asarray(one.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32) for one in (A, B))
        return np.matmul(A, B, out=out)

    wrong = wrong_products(rounded)
    assert len(wrong) >= 10
    assert all(one.endswith("float32") for one in wrong)


def test_the_check_is_quick() -> None:
    times = []
    for _ in range(5):
        started = time.thread_time()  # other programs do not count
        wrong_products()
        times.append(time.thread_time() - started)
    A, ones = np.ones((101, 101)), []
    for _ in range(5):
        started = time.thread_time()
        np.einsum("ij,jk->ik", A, A)
        ones.append(time.thread_time() - started)
    assert min(times) < max(0.05, 50 * min(ones))  # some nine such sums, on a slow machine too


@pytest.fixture
def shim(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Make a BLAS function wrong in a process, by a library that is loaded before NumPy's; returns its environment."""
    compiler = shutil.which("cc")
    library = next(Path(np.__file__).parent.parent.glob("numpy.libs/libscipy_openblas64_*"), None)
    if sys.platform != "linux" or compiler is None or library is None:
        pytest.skip("needs a C compiler, and the wheel of NumPy for Linux")

    def load(code: str) -> dict[str, str]:
        (tmp_path / "shim.c").write_text(code)
        subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", "shim.so", "shim.c"], cwd=tmp_path, check=True)
        return {"LD_PRELOAD": str(tmp_path / "shim.so"), "KLCLI_CACHE": str(tmp_path / "cache")}

    return load


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "named"),
    [
        (NOTHING.format("ssyrk", "float"), "A @ A.T in float32"),
        (NOTHING.format("dsyrk", "double"), "A @ A.T in float64"),
        (ZERO.format("sgemm", *["float"] * 3), "X @ W in float32"),
        (ZERO.format("dgemm", *["double"] * 3), "X.T @ G in float64"),
    ],
)
def test_a_wrong_blas_stops_every_command_before_its_first_number(
    light: Klcli, shim: Callable[[str], dict[str, str]], tmp_path: Path, code: str, named: str
) -> None:
    environment = shim(code)
    for command in (
        TRAIN, (*TRAIN, "--repeats", "2"), ("search-lambda", *TRAIN[1:]), ("gradcheck", "--data", "synthetic"),
    ):  # fmt: skip
        done = light(*command, **environment)
        assert (done.returncode, done.stdout) == (1, "")
        *_, line = done.stderr.splitlines()
        assert line.startswith(f"klcli: NumPy {np.__version__} with BLAS openblas ")
        assert named in line
        assert "install another version of NumPy" in line
        assert "Traceback" not in done.stderr
    assert not list((tmp_path / "cache").glob("blas/*"))  # a wrong verdict is not kept
    del environment["LD_PRELOAD"]
    assert light(*TRAIN, **environment).returncode == 0


@pytest.mark.slow
def test_the_verdict_is_kept_for_each_kernel_and_not_believed_if_damaged(light: Klcli, tmp_path: Path) -> None:
    cache = {"KLCLI_CACHE": str(tmp_path / "cache")}

    def verdicts(**environment: str) -> list[Path]:
        assert light(*TRAIN, **cache, **environment).returncode == 0
        return sorted((tmp_path / "cache/blas").iterdir())

    [first] = verdicts()
    text = first.read_text()
    first.write_text("")
    assert verdicts() == [first]
    assert first.read_text() == text
    found = " ".join(np.show_config(mode="dicts")["SIMD Extensions"].get("found", ()))  # type: ignore[call-overload,index]
    assert len(verdicts(NPY_DISABLE_CPU_FEATURES=found)) == 1 + bool(found)
    before = len(verdicts())
    if "SkylakeX" in text or "Haswell" in text:
        assert len(verdicts(OPENBLAS_CORETYPE="Nehalem")) == before + 1


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="a file in the place of a folder, as everywhere, but by another error")
def test_a_cache_that_cannot_be_written_only_costs_the_check(klcli: Klcli, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "blas").write_text("no folder")
    assert klcli(*TRAIN, KLCLI_CACHE=str(cache)).returncode == 0
