"""Threads, kernels, info: what they say, and that no result depends on them."""

import os
import subprocess
import sys

import numpy as np
import pytest

import softplex as sx
from frameworks import WITH_A_KERNEL, threads
from softplex.backends import numpy as blocks
from softplex.core import threads as workers
from tolerances import ulp, value_bound


@pytest.mark.parametrize("map_", sx.MAPS, ids=lambda each: each.name)
def test_the_bits_do_not_depend_on_the_number_of_threads(map_, monkeypatch):
    if map_.name not in WITH_A_KERNEL:  # formulas are slow: as many blocks, of an eighth of the rows
        monkeypatch.setattr(blocks, "SHARED_ENTRIES", blocks.SHARED_ENTRIES // 8)
        monkeypatch.setattr(blocks, "SHARED_FROM", blocks.SHARED_FROM // 8)
    x = np.random.default_rng(0).normal(size=(blocks.SHARED_FROM // 50 + 100, 50))
    hyper = dict.fromkeys(map_.parameters, 2.5)
    found = []
    for n in (1, 2, 3):
        with threads(n):
            assert sx.get_num_threads() == n
            found.append((map_(x, **hyper), map_.vjp(x, x, **hyper)))
    assert np.unique(found[0][0]).size > 1000
    for values, cotangents in found[1:]:
        np.testing.assert_array_equal(values, found[0][0])
        np.testing.assert_array_equal(cotangents, found[0][1])


def test_an_error_in_a_thread_reaches_the_caller():
    seen = []

    def work(start):
        seen.append(start)
        if start == 3:
            raise MemoryError(start)

    with pytest.raises(MemoryError):
        workers.for_each(work, range(100), 2)
    assert 3 in seen


def test_without_threads_to_be_had_the_caller_does_the_work(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(workers.threading.Thread, "start", refuse)
    seen = []
    workers.for_each(seen.append, range(50), 3)
    assert seen == list(range(50))


def test_every_item_is_worked_on_once():
    seen = []
    workers.for_each(seen.append, range(1000), 3)
    assert sorted(seen) == list(range(1000))


LATE = """
import atexit, numpy as np, softplex as sx
sx.set_num_threads(2)
atexit.register(lambda: print(sx.softmax(np.zeros((20000, 64))).sum()))
"""


def test_a_call_at_the_end_of_the_process_works():
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", LATE], env=here, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "20000.0", "")


STOPPED = """
import signal, threading, time, numpy as np, softplex as sx
sx.set_num_threads(2)
x = np.zeros(SHAPE) + np.arange(SHAPE[1]) / SHAPE[1]
sent = []
threading.Timer(0.7, lambda: (sent.append(time.perf_counter()), signal.raise_signal(signal.SIGINT))).start()
try:
    while True:
        sx.entmax(x, alpha=1.3)
except KeyboardInterrupt:
    print(time.perf_counter() - sent[0] < 5)
"""


@pytest.mark.parametrize("shape", [(6000, 400), (8, 2_000_000)])
def test_ctrl_c_ends_a_call(shape):
    """The promise is a second; a machine under load gets five before the test calls it hanging."""
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = STOPPED.replace("SHAPE", repr(shape))
    done = subprocess.run(
        [sys.executable, "-c", script], env=here, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "True", "")


@pytest.mark.parametrize(
    ("n", "error"), [(0, ValueError), (-2, ValueError), (2**31, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_bad_numbers_of_threads(n, error):
    with pytest.raises(error, match=str(n)):
        sx.set_num_threads(n)


def test_formulas_only_stays_within_the_bounds():
    x = np.random.default_rng(1).normal(size=(3, 5))
    with sx.kernels("none"):
        found = sx.entmax(x, alpha=1.3)
        with sx.kernels("auto"):
            again = sx.entmax(x, alpha=1.3)
    one, other = (value_bound("entmax", "float64", alpha=1.3, formulas=is_formula) for is_formula in (False, True))
    assert np.max(np.abs(found - again)) <= (one.ulps + other.ulps) * ulp("float64", float(again.max()))
    with pytest.raises(ValueError, match="'fast'.*'auto' or 'none'"), sx.kernels("fast"):
        pass


def test_info_says_what_is_in_use():
    found = sx.info()
    assert found["version"] == sx.__version__
    assert found["threads"] == sx.get_num_threads()
    assert found["frameworks"]["numpy"] == np.__version__
