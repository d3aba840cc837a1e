"""The elementary functions behind the NumPy formulas: ULPs against mpmath, special values, bits nothing changes."""

import os
import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest
from mpmath import mpf

from softplex.backends import elementary
from softplex.backends.numpy import NUMPY
from softplex.core import twofold

RNG_SEED = 20240611
SMALLEST_NORMAL = 2.0**-1022


@pytest.fixture(autouse=True)
def floating_point_errors_are_not_reported():
    """The backend computes under the same setting: 0 and infinity are answers."""
    with np.errstate(all="ignore"):
        yield


def numbers(kind):
    rng = np.random.default_rng(RNG_SEED)
    return {
        "any": np.concatenate(
            [rng.uniform(-1, 1, 500), rng.uniform(-700, 700, 500), -(10.0 ** rng.uniform(-20, 0, 200))]
        ),
        "negative": -(10.0 ** rng.uniform(-18, 1.5, 1000)),
        "positive": np.concatenate(
            [10.0 ** rng.uniform(-300, 300, 500), rng.uniform(0.5, 2, 500), 1 + 1e-8 * rng.normal(size=99)]
        ),
        "above -1": np.concatenate(
            [-rng.random(500), 10.0 ** rng.uniform(-20, 10, 500), -(10.0 ** rng.uniform(-20, 0, 500))]
        ),
        "weights": np.concatenate([rng.random(400), 10.0 ** rng.uniform(-6, 0, 400)]),
    }[kind]


def worst_ulp(got, exact):
    worst = 0.0
    for found, wanted in zip(got, exact, strict=True):
        if abs(wanted) >= SMALLEST_NORMAL:
            unit = mpf(2) ** (mpmath.floor(mpmath.log(abs(wanted), 2)) - 52)
            worst = max(worst, float(abs(mpf(float(found)) - wanted) / unit))
    return worst


@pytest.mark.parametrize(
    ("name", "kind", "bound"),
    [("exp", "any", 0.85), ("expm1", "negative", 0.85), ("log", "positive", 0.85), ("log1p", "above -1", 0.85)],
)
def test_within_one_ulp(name, kind, bound):
    x = numbers(kind)
    with mpmath.workprec(200):
        exact = [getattr(mpmath, name)(mpf(float(value))) for value in x]
        worst = worst_ulp(getattr(elementary, name)(x), exact)
    assert 0.3 < worst < bound


@pytest.mark.parametrize("exponent", [0.37, -0.9, 2.0, 0.5, 1.0, 49.0, 1 / 49, -48.0])
def test_power_keeps_its_digits(exponent):
    x = numbers("weights")
    with mpmath.workprec(200):
        worst = worst_ulp(elementary.power(x, exponent), [mpf(float(value)) ** mpf(exponent) for value in x])
    assert worst < 1.5
    np.testing.assert_array_equal(elementary.power(x, exponent), elementary.power(x, np.full_like(x, exponent)))


def test_special_values():
    inf, nan = np.inf, np.nan
    np.testing.assert_array_equal(elementary.exp(np.array([-inf, -800, 0, 800, inf, nan])), [0, 0, 1, inf, inf, nan])
    np.testing.assert_array_equal(elementary.expm1(np.array([-inf, 0, nan])), [-1, 0, nan])
    np.testing.assert_array_equal(elementary.log(np.array([0, 1, inf, -1, nan])), [-inf, 0, inf, nan, nan])
    np.testing.assert_array_equal(elementary.log1p(np.array([-1, 0, inf, -2, nan])), [-inf, 0, inf, nan, nan])
    np.testing.assert_array_equal(elementary.power(np.array([0, 1, inf]), 0.3), [0, 1, inf])
    np.testing.assert_array_equal(elementary.power(np.array([0, 1, inf]), 0.0), [1, 1, 1])
    np.testing.assert_array_equal(elementary.power(np.array([0.0, 1]), -0.3), [inf, 1])
    np.testing.assert_array_equal(elementary.power(np.array([1.0]), 1.79e308), [1])
    np.testing.assert_array_equal(elementary.power(np.array([-2.0, -2, -2]), np.array([2.0, 3, 0.5])), [4, -8, nan])


def test_bits_do_not_depend_on_place_or_length():
    x = numbers("negative")
    for function in (elementary.exp, elementary.expm1, lambda part: elementary.power(-part, 0.37)):
        whole = function(x)
        np.testing.assert_array_equal(np.array([function(value[None])[0] for value in x[:200]]), whole[:200])
        np.testing.assert_array_equal(function(x[::-1])[::-1], whole)
    many = np.resize(x, 3 * elementary.CHUNK + 5)
    np.testing.assert_array_equal(elementary.exp(many), np.resize(elementary.exp(x), many.size))


DIGEST = """
import hashlib, numpy as np, softplex as sx
digest, rng = hashlib.sha256(), np.random.default_rng(0)
for dtype in (np.float64, np.float32):
    x, g = (rng.normal(size=(60, 33)) * 3).astype(dtype), rng.normal(size=(60, 33))
    for m in sx.MAPS:
        for value in (1.01, 1.5, 1.9, 2.5) if m.parameters else (None,):
            hyper = dict.fromkeys(m.parameters, value)
            digest.update(m(x, temperature=0.7, sink=0.1, **hyper).tobytes())
            digest.update(m.vjp(x, g, **hyper).tobytes())
print(digest.hexdigest())
"""


def test_bits_do_not_depend_on_the_instruction_set():
    """NumPy with its AVX-512 loops switched off, where there are any, gives the same bits."""
    features = np._core._multiarray_umath.__cpu_dispatch__
    off = " ".join(name for name in features if name.startswith(("AVX512", "X86_V4")))
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(elementary.__file__).parents[2]), *sys.path])}
    runs = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", DIGEST], env=env, capture_output=True, text=True, check=True
        )
        for env in (here, {**here, "NPY_DISABLE_CPU_FEATURES": off})
    ]
    assert len(runs[0].stdout) > 60
    assert runs[0].stdout == runs[1].stdout


def test_twofold_numbers_hold_twice_the_digits():
    xp = NUMPY.xp
    x = np.concatenate([numbers("weights"), [1.0, 1e-30]])
    with mpmath.workprec(300):
        logs = twofold.log(xp, twofold.Twofold(x, x * 1e-18))
        powers = twofold.exp(xp, logs)
        for place, value in enumerate(x):
            number = mpf(float(value)) + mpf(float(value * 1e-18))
            log = mpf(float(logs.high[place])) + mpf(float(logs.low[place]))
            power = mpf(float(powers.high[place])) + mpf(float(powers.low[place]))
            assert abs(log - mpmath.log(number)) <= mpf(2) ** -88 * max(1, abs(log))
            assert abs(power - number) <= mpf(2) ** -88  # of 1: that is what a sum of order 1 needs
