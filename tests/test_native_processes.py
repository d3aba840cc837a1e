"""The kernels and the process around them: fork, Ctrl-C, memory that is refused, the interpreter's lock, leaks.

Each test runs a script in a process of its own, which prints what it found.
"""

import os
import re
import subprocess
import sys

import pytest

from softplex.native import cpu, reason

pytestmark = [
    pytest.mark.skipif(cpu is None, reason=reason),
    pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="sanitizers have limits and threads of their own"),
]

LONG = """
import numpy as np, os, signal, softplex as sx, sys, threading, time
sx.set_num_threads(2)

def long_call(rows):
    '''Many entries in few bytes.'''
    x = np.broadcast_to((np.arange(10_000) % 100).astype(np.float32) / 1e4, (rows, 10_000))
    return sx.entmax.support_size(x, alpha=1.3)
"""


def printed(script, *, after="", **more):
    """What a script prints that ends well and complains of nothing; `after` is a script that it begins with."""
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more}
    command = [sys.executable, "-c", after + script]
    done = subprocess.run(command, env=here, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), f"{done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------

INTERRUPTED = """
sent = []
def press():
    time.sleep(0.5)
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=press).start()
try:
    CALL
    print("not interrupted")
except KeyboardInterrupt:
    waited = time.perf_counter() - sent[0]
    print("at once" if waited < 5 else f"after {waited} s")
np.testing.assert_allclose(sx.softmax(np.zeros((500, 500))), 1 / 500)
"""


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(
    "call",
    [
        "long_call(500_000)",
        "sx.softmax.loss(np.broadcast_to(np.float32(0.5), (5_000_000, 10_000)), np.zeros(5_000_000, int))",
        "sx.sparsemax.support_size(np.broadcast_to(np.float32(0.5), (4_000, 1_100_000)))",
        "sx.softmax(np.full((12_000_000, 16), 600, np.float16), axis=0)",
    ],
    ids=["many rows", "a loss", "huge rows", "rows that lie across and need care"],
)
def test_ctrl_c_ends_a_single_call(call, n):
    """The promise is a second; a machine under load gets five."""
    script = INTERRUPTED.replace("CALL", f"sx.set_num_threads({n}); {call}")
    assert printed(script, after=LONG) == "at once"


HANDLED = """
seen = []
signal.signal(signal.SIGINT, lambda *_: seen.append(1))
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
while not seen:
    wanted = long_call(4_000)
print(np.unique(wanted).size, len(seen))
"""


def test_a_handler_that_does_not_raise_lets_the_call_go_on():
    assert printed(HANDLED, after=LONG) == "1 1"


OTHER_THREAD = """
found = []
worker = threading.Thread(target=lambda: found.append(long_call(8_000)))
worker.start()
time.sleep(0.05)
try:
    os.kill(os.getpid(), signal.SIGINT)
    worker.join()
except KeyboardInterrupt:
    print("raised in the main thread")
worker.join()
print(np.array_equal(found[0][:10], long_call(10)), found[0].size)
"""


def test_ctrl_c_concerns_the_main_thread_alone():
    assert printed(OTHER_THREAD, after=LONG).split("\n") == ["raised in the main thread", "True 8000"]


# -- fork -------------------------------------------------------------------------------------------------------------

FORKED = """
import numpy as np, os, softplex as sx, sys, threading
x = np.random.default_rng(0).normal(size=(3000, 200)).astype(np.float32)

def work():
    return sx.softmax(x).tobytes() + sx.entmax(x, alpha=1.3).tobytes() + sx.sparsemax(x.reshape(-1)).tobytes()

def child(depth):
    '''Whether children and their children compute what their parents did.'''
    pid = os.fork()
    if pid == 0:
        good = work() == wanted and (depth == 0 or child(depth - 1))
        os._exit(0 if good else 1)
    return os.waitpid(pid, 0)[1] == 0

sx.set_num_threads(3)
wanted = work()
"""

WHILE_IDLE = """
print(all(child(2) for _ in range(5)), work() == wanted)
"""

WHILE_BUSY = """
stopped = threading.Event()
def call():
    while not stopped.is_set():
        work()
callers = [threading.Thread(target=call) for _ in range(2)]
for caller in callers:
    caller.start()
good = all(child(0) for _ in range(20))
stopped.set()
for caller in callers:
    caller.join()
print(good, work() == wanted)
"""

IN_A_POOL = """
import multiprocessing
with multiprocessing.get_context("fork").Pool(3) as pool:
    found = pool.starmap(work, [()] * 6)
print(all(each == wanted for each in found), work() == wanted)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("script", [WHILE_IDLE, WHILE_BUSY, IN_A_POOL], ids=["idle", "busy", "pool"])
def test_a_forked_child_computes(script):
    """After the parent has used threads, and while other threads of it are within a call."""
    assert printed(script, after=FORKED, PYTHONWARNINGS="ignore") == "True True"


# -- memory -----------------------------------------------------------------------------------------------------------

REFUSED = """
import numpy as np, resource, softplex as sx

def allowed(more):
    '''Some bytes beyond those that the process has.'''
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))

soft, hard = resource.getrlimit(resource.RLIMIT_AS)
sx.set_num_threads(THREADS)
x = np.resize(np.arange(1000, dtype=np.float16) / 1000, 1 << 26)
y, out, before = x[::2], np.empty_like(x[::2]), x[:100_000].copy()
calls = [
    lambda: sx.softmax(y, out=out),
    lambda: sx.sparsemax(y.reshape(1, -1), sink=0.0, out=out.reshape(1, -1)),
    lambda: sx.softmax.loss(y, 5),
    lambda: sx.entmax.support_size(y, alpha=1.3),
    lambda: sx.log_softmax(x),
]
for call in calls:
    allowed(32 << 20)
    try:
        call()
        print("no error")
    except MemoryError:
        print("MemoryError")
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert np.array_equal(x[:100_000], before)
print(np.count_nonzero(sx.softmax(y, out=out)) > 0)
"""


@pytest.mark.skipif(
    not os.path.exists("/proc/self/statm"), reason="this system does not tell how much memory is in use"
)
@pytest.mark.parametrize("n", [1, 3])
def test_want_of_memory_is_an_error(n):
    found = printed(REFUSED.replace("THREADS", str(n)))
    assert found.split("\n") == ["MemoryError"] * 5 + ["True"]


LEAKING = """
import numpy as np, resource, softplex as sx
sx.set_num_threads(2)
rng = np.random.default_rng(0)
x, g = (rng.normal(size=(500, 400)).astype(np.float32) for _ in range(2))
narrow, y, mask = x.astype(np.float16), rng.integers(0, 400, 500), x > 0

def use(times):
    for _ in range(times):
        sx.softmax(x), sx.sparsemax(x.T, 0), sx.entmax(narrow, alpha=1.3), sx.entmax15.vjp(x, g, where=mask)
        sx.log_softmax(x, temperature=2.0), sx.softmax.loss(x, y), sx.softmax.residual(x, y), sx.maxout(x)
        for _ in range(20):
            sx.softmax(x[0]), sx.sparsemax(x[:2, :5], sink=0.0)

def used():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20

use(20)
before = used()
use(200)
print(used() - before)
"""


@pytest.mark.skipif(
    not os.path.exists("/proc/self/statm"), reason="this system does not tell how much memory is in use"
)
def test_no_memory_is_lost():
    """A result that leaked would cost 160 MB, a row of scratch memory some 3."""
    assert float(printed(LEAKING)) < 2


# -- the interpreter's lock -------------------------------------------------------------------------------------------

UNLOCKED = """
ticks, is_over = 0, False
def tick():
    global ticks
    while not is_over:
        time.sleep(0.002)
        ticks += 1
clock = threading.Thread(target=tick)
clock.start()
rows, found = 1_000, 0
while found < 20 and rows < 2_000_000:
    before = ticks
    CALL
    found = ticks - before
    rows *= 2
is_over = True
clock.join()
print(found >= 20)
"""


@pytest.mark.parametrize("call", ["long_call(rows)", "sx.softmax(np.broadcast_to(np.float32(1), (rows, 1000)))"])
def test_other_threads_go_on_during_a_call(call):
    """With the lock held a thread gets no further than one tick."""
    assert printed(UNLOCKED.replace("CALL", call), after=LONG) == "True"


# -- instruction sets -------------------------------------------------------------------------------------------------

NAMED = "from softplex.native import cpu; print(cpu.instruction_set())"


def test_the_environment_chooses_the_instruction_set():
    here = printed(NAMED)
    assert printed(NAMED, SOFTPLEX_INSTRUCTIONS=here) == printed(NAMED, SOFTPLEX_INSTRUCTIONS="") == here
    if here.startswith("x86"):
        assert printed(NAMED, SOFTPLEX_INSTRUCTIONS="x86-64-v2") == "x86-64-v2"


def test_an_instruction_set_that_is_not_there_is_refused():
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SOFTPLEX_INSTRUCTIONS": "z80"}
    done = subprocess.run([sys.executable, "-c", NAMED], env=here, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and re.search(rf"'z80'; this machine takes .*{cpu.instruction_set()}", done.stderr)


DAEMONS = """
import numpy as np, softplex as sx, threading, time
x = np.random.default_rng(0).normal(size=(300, 1000)).astype(np.float32)
alpha = np.full((300, 1), 1.3)
def work():
    while True:
        sx.softmax(x)
        sx.entmax(x, alpha=alpha)
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
"""


def test_daemon_threads_do_not_crash_the_end_of_a_program():
    for _ in range(4):
        assert printed(DAEMONS) == ""
