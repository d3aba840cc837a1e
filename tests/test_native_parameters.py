"""What cotangents say of temperature, alpha and sink: kernels held to exact rows, to formulas and to the bits of a row.

No formula may stand in for a kernel here. Laws hold the same for every framework in laws_derivatives.py.
"""

import os
from functools import partial

import numpy as np
import pytest

import native_mutants
import reference
import softplex as sx
from frameworks import threads
from lawbook import same_bits
from native_samples import laid
from softplex.backends.numpy import NumpyBackend
from softplex.native import calls, cpu, reason

pytestmark = pytest.mark.skipif(cpu is None, reason=reason)

IS_SANITIZED = "ASAN_OPTIONS" in os.environ or "TSAN_OPTIONS" in os.environ
EXPONENTIAL = (sx.softmax, sx.softmin, sx.log_softmax, sx.log_softmin)
MAPS = (*EXPONENTIAL, sx.sparsemax, sx.entmax15, sx.entmax)
ALPHAS = (1.0, 1 + 1e-6, 1.3, 1.5, 1.9, 2.0, 2.5, 4.0, np.inf)
CLOSE = {"float64": 1e-12, "float32": 1e-5}
LENGTHS = (1, 2, 5, 16, 17) if IS_SANITIZED else (1, 2, 3, 5, 8, 16, 17, 33)
each_map = pytest.mark.parametrize("map_", MAPS, ids=lambda each: each.name)


@pytest.fixture
def no_formulas(monkeypatch):
    """Calls that kernels decline fail: they would agree with the formulas all too well."""

    def refuse(*_):
        raise NotImplementedError("a formula where there is a kernel")

    monkeypatch.setattr(NumpyBackend, "_by_formula", refuse)


def hypers(map_):
    return [{"alpha": alpha} for alpha in ALPHAS] if map_ is sx.entmax else [{}]


def sinks(map_):
    """Far below, among the scores, far above; sparse maps take formulas beside one."""
    return (None, -30.0, 0.5, 40.0) if map_ in EXPONENTIAL else (None,)


def drawn_rows(n, dtype, seed=0):
    """Scattered, near each other, confident, tied, spread over +-80, far from 0."""
    rng = np.random.default_rng((n, seed))
    rows = rng.normal(size=(6, n)) * np.array([2.0, 0.01, 1.0, 1.0, 1.0, 1.0])[:, None]
    rows[2, 0] += 45.0
    rows[3] = np.round(rows[3])
    rows[4] = rng.uniform(-80, 80, n)
    rows[5] += 1000.0
    return rows.astype(dtype), rng.normal(size=(6, n)).astype(dtype)


def asked(map_, x, g, **given):
    """What each parameter gets, by its name."""
    names = ("temperature", *(["alpha"] if "alpha" in given else []), *(["sink"] if "sink" in given else []))
    found = map_.vjp(x, g, wrt=("x", *names), **given)
    return dict(zip(names, found[1:], strict=True))


def largest_term(row, name, g):
    """What is summed: each entry's share, the shares being differences of these."""
    derivative = row.derivative(name)
    terms = [abs(reference.number(g[place]) * derivative[place]) for place in row.places]
    return float(max(terms, default=0.0))


# -- exact rows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", CLOSE)
@each_map
def test_exact_rows(map_, dtype, no_formulas):
    temperatures = np.array([1.0, 0.7, 3.0, 0.83, 0.5, 20.0])[:, None]  # no whole score is at a threshold
    for n in LENGTHS if map_ is not sx.entmax else LENGTHS[::3]:
        x, g = drawn_rows(n, dtype)
        for hyper in hypers(map_):
            for sink in sinks(map_):
                given = {**hyper, "temperature": temperatures, **({} if sink is None else {"sink": sink})}
                parameters = {key: np.broadcast_to(value, (6, 1)) for key, value in given.items()}
                found = asked(map_, x, g, **{key: np.array(value) for key, value in parameters.items()})
                for place in range(len(x)):
                    own = {key: value[place, 0] for key, value in parameters.items()}
                    row = reference.row(map_.name, x[place], **own)
                    for name, got in found.items():
                        exact = float(row.parameter_vjp(name, g[place]))
                        # Ties share evenly whatever alpha is: what is left of their terms is a double's rounding.
                        noise = 1e-15 * float(np.abs(g[place]).max())
                        reach = CLOSE[dtype] * largest_term(row, name, g[place]) + noise
                        assert abs(got[place, 0] - exact) <= reach, (row, name, got[place, 0], exact)


# -- formulas ---------------------------------------------------------------------------------------------------------


def by_formulas(map_, x, g, **given):
    with sx.kernels("none"):
        return asked(map_, x, g, **given)


def assert_close(got, wanted, dtype, note):
    """Within ten times the bound of the larger number of any row: sums of rows may be far below their terms."""
    for name in wanted:
        reach = 10 * CLOSE[dtype] * np.nanmax(np.abs(wanted[name]), initial=np.finfo(dtype).tiny)
        np.testing.assert_allclose(got[name], wanted[name], rtol=0, atol=reach, err_msg=f"{name}, {note}")


@pytest.mark.parametrize("dtype", CLOSE)
@each_map
def test_bad_masked_and_empty_rows(map_, dtype):
    x, g = drawn_rows(9, dtype)
    x[0, 3], x[1, 2], g[2, 4] = np.nan, np.inf, np.nan
    where = np.random.default_rng(1).random(x.shape) < 0.7
    where[3], where[2, 4], where[4] = False, False, True
    x[~where & (np.arange(9) % 2 == 0)] = np.nan
    for hyper in hypers(map_):
        for sink in (*sinks(map_), -np.inf, np.inf) if map_ in EXPONENTIAL else sinks(map_):
            for empty in ("zero", "nan"):
                given = {**hyper, "temperature": np.full((6, 1), 0.8), "where": where, "empty": empty}
                given |= {} if sink is None else {"sink": np.full((6, 1), sink)}
                given |= {"alpha": np.full((6, 1), hyper["alpha"])} if hyper else {}
                got, wanted = asked(map_, x, g, **given), by_formulas(map_, x, g, **given)
                for name in wanted:
                    assert np.array_equal(np.isnan(got[name]), np.isnan(wanted[name])), (name, hyper, sink, empty)
                assert_close(got, wanted, dtype, (hyper, sink, empty))


@pytest.mark.skipif(IS_SANITIZED, reason="says nothing that short rows do not")
@pytest.mark.parametrize("dtype", CLOSE)
@each_map
def test_long_rows_agree_with_formulas(map_, dtype):
    rng = np.random.default_rng(2)
    for shape in ((3, 1000), (2, 16_385), (1, 300_001)):
        x, g = (rng.normal(size=shape).astype(dtype) for _ in range(2))
        for hyper in hypers(map_)[::3]:
            given = {**hyper, "temperature": 0.9, **({"sink": 1.0} if map_ in EXPONENTIAL else {})}
            # Of many terms of either sign little may be left.
            got, wanted = asked(map_, x, g, **given), by_formulas(map_, x, g, **given)
            for name in wanted:
                terms = np.abs(g).max() * np.abs(x).max() / np.sqrt(shape[1])
                reach = CLOSE[dtype] * max(abs(float(wanted[name])), terms)
                assert abs(float(got[name]) - float(wanted[name])) <= reach, (name, shape, hyper)


# -- bits -------------------------------------------------------------------------------------------------------------


def bits_of(map_, x, g, axis=-1, **given):
    found = map_.vjp(x, g, axis=axis, wrt=tuple(given), **given)
    return [np.moveaxis(one, axis, -1)[..., 0].reshape(-1) for one in found]


@each_map
def test_a_row_has_its_bits_wherever_it_lies(map_, no_formulas):
    rng = np.random.default_rng(3)
    for dtype in CLOSE:
        for rows, n in ((7, 5), (40, 33), (3, 700)):
            x, g = (rng.normal(size=(rows, n)).astype(dtype) * 2 for _ in range(2))
            given = {"temperature": rng.uniform(0.5, 2, (rows, 1))}
            given |= {"alpha": rng.uniform(1, 3, (rows, 1))} if map_ is sx.entmax else {}
            given |= {"sink": rng.normal(size=(rows, 1))} if map_ in EXPONENTIAL else {}
            together = bits_of(map_, x, g, **given)
            alone = [
                bits_of(map_, x[r : r + 1], g[r : r + 1], **{key: value[r : r + 1] for key, value in given.items()})
                for r in range(rows)
            ]
            for place in range(len(together)):
                assert same_bits(np.concatenate([one[place] for one in alone]), together[place]), (dtype, rows, n)
            turned = {key: value.T for key, value in given.items()}
            across = bits_of(map_, np.ascontiguousarray(x.T), np.ascontiguousarray(g.T), axis=0, **turned)
            assert all(map(same_bits, across, together)), (dtype, rows, n)
            for layout in ("Fortran", "strided", "negative", "unaligned", "foreign"):
                assert all(map(same_bits, bits_of(map_, laid(x, layout), laid(g, layout), **given), together)), layout


@each_map
def test_the_bits_are_those_of_any_number_of_threads_and_of_both_instruction_sets(map_, no_formulas):
    rng = np.random.default_rng(4)
    shapes = [(3000, 17)] if IS_SANITIZED else [(3000, 17), (3, 40_000), (1, 300_001)]
    for shape in shapes:
        x, g = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
        given = {"temperature": np.full((shape[0], 1), 0.9)}
        given |= {"alpha": np.full((shape[0], 1), 1.3)} if map_ is sx.entmax else {}
        found = []
        for count in (1, 2, 3):
            with threads(count):
                found.append(bits_of(map_, x, g, **given))
        before = cpu.instruction_set()
        try:
            if cpu.choose_instruction_set("x86-64-v3") and before == "x86-64-v4":
                found.append(bits_of(map_, x, g, **given))
        finally:
            cpu.choose_instruction_set(before)
        assert all(all(map(same_bits, one, found[0])) for one in found[1:]), shape


# -- losses -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_graphs(monkeypatch):
    """PyTorch's way back fails through the graph of a formula, and from the scores anew, but where kernels are off."""
    eager = pytest.importorskip("softplex.backends.torch.eager")

    def refusing(true):
        def refuse(*given):
            assert cpu.formulas_only(), "a formula, or scores, where a kernel goes back from the weights"
            return true(*given)

        return refuse

    for name in ("differentiated", "pulled_back"):
        monkeypatch.setattr(eager, name, refusing(getattr(eager, name)))


def found_by(setting, function, tensors, wanted, g):
    """The cotangents of some of the tensors."""
    torch = pytest.importorskip("torch")
    moved = {name: one.clone().requires_grad_(name in wanted) for name, one in tensors.items()}
    with sx.kernels(setting):
        return torch.autograd.grad(function(**moved), [moved[name] for name in wanted], g)


def assert_as_formulas(function, tensors, g, dtype, note):
    """Of scores and parameters together, and of each parameter alone."""
    parameters = [name for name in tensors if name != "x"]
    for wanted in (list(tensors), *[[name] for name in parameters]):
        found = [found_by(setting, function, tensors, wanted, g) for setting in ("auto", "none")]
        for name, got, exact in zip(wanted, *found, strict=True):
            reach = 2 * CLOSE[dtype] * float(exact.abs().max())
            assert float((got - exact).abs().max()) <= reach, (note, wanted, name)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_losses_give_their_parameters_what_formulas_give(dtype, no_graphs):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    for map_ in (sx.softmax, sx.softmin, sx.sparsemax, sx.entmax15, sx.entmax, sx.log_softmax):
        for n in (5, 300):
            x, y = torch.tensor(rng.normal(size=(7, n)) * 2, dtype=getattr(torch, dtype)), torch.arange(7) % n
            where = torch.tensor(rng.random((7, n)) < 0.8) | (torch.arange(n) == y[:, None])
            for hyper in hypers(map_)[:-1:2] if map_ is sx.entmax else [{}]:
                numbers = {"temperature": 0.7, **hyper}
                tensors = {"x": x, **{name: torch.tensor(one, dtype=x.dtype) for name, one in numbers.items()}}
                for more in ({}, {"ignore_index": 2}, {"where": where}):

                    def losses(x, map_=map_, y=y, more=more, **learned):
                        loss = sx.cross_entropy if map_ is sx.log_softmax else map_.loss
                        return loss(x, y, reduction="none", **learned, **more)

                    g = torch.linspace(-1, 1.7, 7, dtype=x.dtype)
                    assert_as_formulas(losses, tensors, g, dtype, (map_.name, n, hyper, list(more)))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@each_map
def test_tensors_give_their_parameters_what_formulas_give(map_, dtype, no_graphs):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(6)
    x, g = (torch.tensor(rng.normal(size=(2, 3, 9)), dtype=getattr(torch, dtype)) for _ in range(2))
    for hyper in hypers(map_)[:-1]:
        numbers = {"temperature": 0.7, **hyper, **({"sink": 0.4} if map_ in EXPONENTIAL else {})}
        tensors = {"x": x, **{name: torch.full((2, 1, 1), one, dtype=x.dtype) for name, one in numbers.items()}}
        assert_as_formulas(map_, tensors, g, dtype, (map_.name, hyper))


def test_what_cannot_go_back_from_its_weights_may_be_changed():
    """Where kernels do not know the parameters the weights are not kept."""
    torch = pytest.importorskip("torch")
    x = torch.randn(4, 6, dtype=torch.float64)
    for map_, learned in ((sx.budget, "budget"), (sx.normmax, "alpha"), (sx.sparsemax, "sink")):
        number = torch.tensor(1.5, dtype=x.dtype, requires_grad=True)
        map_(x, **{learned: number}).mul_(2).sum().backward()
        assert torch.isfinite(number.grad)


# -- the ends of the range --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("map_", EXPONENTIAL, ids=lambda each: each.name)
def test_equal_scores_of_long_float_rows_are_rounded_alike(map_):
    """Where all that are equal err alike a sum of many shows it."""
    n, wide = 4000, np.longdouble
    x = np.where(np.arange(n) < n // 2, 0.0, 0.3).astype(np.float32)
    g = (np.ones(n) if map_ in EXPONENTIAL[2:] else np.arange(n) % 3).astype(np.float32)
    sign = -1 if map_ in (sx.softmin, sx.log_softmin) else 1
    for sink in (None, 0.1):
        given = {"temperature": 0.9} | ({} if sink is None else {"sink": sink})
        z = np.array([*x, *([] if sink is None else [sink])], wide) * sign
        p = np.exp(z / wide(0.9))
        p /= p.sum()
        moved = -z / wide(0.9) ** 2
        moved -= (p * moved).sum()
        rates = (moved if map_ in EXPONENTIAL[2:] else p * moved)[:n]
        found = map_.vjp(x, g, wrt=tuple(given), **given)
        terms = [np.abs(g * rates).max()]
        exact = [(g * rates).sum()]
        if sink is not None:
            own = -sign * p[n] / wide(0.9)
            rates = own if map_ in EXPONENTIAL[2:] else own * p[:n]
            exact.append((g * rates).sum())
            terms.append(np.abs(g * rates).max())
        for got, wanted, term in zip(found, exact, terms, strict=True):
            assert abs(float(got) - float(wanted)) <= 1e-5 * float(term), (sink, float(got), float(wanted))


@each_map
def test_differences_do_not_overflow(map_):
    x, g = np.array([1e308, -1e308, 0.0]), np.array([1.0, 2.0, 3.0])
    for temperature in (1e307, 1e308):
        got = map_.vjp(x, g, wrt="temperature", temperature=temperature)
        with sx.kernels("none"):
            wanted = map_.vjp(x, g, wrt="temperature", temperature=temperature)
        np.testing.assert_allclose(float(got) * 1e300, float(wanted) * 1e300, rtol=1e-6)


@pytest.mark.parametrize("map_", EXPONENTIAL, ids=lambda each: each.name)
def test_a_bad_sink_spoils_empty_rows_too(map_):
    x, where = np.zeros((2, 4)), np.array([[True] * 4, [False] * 4])
    sign = -1 if map_ in (sx.softmin, sx.log_softmin) else 1
    for sink in (np.nan, sign * np.inf):
        given = {"sink": np.full((2, 1), sink), "temperature": np.ones((2, 1)), "where": where}
        assert all(np.isnan(one).all() for one in map_.vjp(x, x, wrt=("sink", "temperature"), **given))


# -- wrong kernels ----------------------------------------------------------------------------------------------------

OF_TEMPERATURE, OF_ALPHA, OF_SINK, OF_TEMPERATURE_FROM_GRADIENT = 11, 12, 13, 14


def without_the_sink(run, given):
    run(**{**given, "sink": None} if given["method"] == OF_TEMPERATURE else given)


def weights_for_slopes(run, given):
    run(**{**given, "map": 0} if given["method"] == OF_TEMPERATURE else given)


def scores_of_the_first_row(run, given):
    if given["method"] in (OF_TEMPERATURE, OF_SINK):
        given = {**given, "scores": np.broadcast_to(given["scores"][:1], given["scores"].shape)}
    run(**given)


def one_alpha_for_all(run, given):
    run(**{**given, "alpha": 1.5} if given["method"] == OF_ALPHA else given)


def sign_of_the_user(run, given):
    run(**{**given, "negated": False} if given["method"] >= OF_TEMPERATURE else given)


def three_thousandths_of_a_percent_off(run, given):
    run(**given)
    if given["method"] >= OF_TEMPERATURE:
        given["result"] *= 1.00003


def losses_forgotten(run, given):
    run(**given)
    if given["method"] >= OF_TEMPERATURE_FROM_GRADIENT:
        given["result"][...] = 0


WRONG = (
    (without_the_sink, sx.softmax),
    (without_the_sink, sx.log_softmax),
    (weights_for_slopes, sx.entmax15),
    (scores_of_the_first_row, sx.log_softmin),
    (one_alpha_for_all, sx.entmax),
    (sign_of_the_user, sx.softmin),
    (three_thousandths_of_a_percent_off, sx.sparsemax),
)


@pytest.mark.skipif(IS_SANITIZED, reason="says nothing of the true kernels")
@pytest.mark.parametrize(("wrong", "map_"), WRONG, ids=lambda each: getattr(each, "__name__", None))
def test_exact_rows_see_a_wrong_kernel(wrong, map_, monkeypatch):
    monkeypatch.setattr(calls, "cpu", native_mutants.WrongKernel(cpu, wrong))
    compare = partial(test_exact_rows, map_, "float32", None)
    with pytest.raises(AssertionError):
        compare()


@pytest.mark.skipif(IS_SANITIZED, reason="says nothing of the true kernels")
def test_losses_see_a_wrong_kernel(monkeypatch, no_graphs):
    monkeypatch.setattr(calls, "cpu", native_mutants.WrongKernel(cpu, losses_forgotten))
    with pytest.raises(AssertionError):
        test_losses_give_their_parameters_what_formulas_give("float32", None)


# -- being called wrongly ---------------------------------------------------------------------------------------------


def test_what_the_kernels_do_not_know_is_refused():
    x = np.zeros((2, 3), np.float32)
    numbers = np.zeros(2)
    plain = [4, OF_ALPHA, 1, False, 1, 1, 0.0, x, x, None, None, numbers, 1.0, None, 1.5, 1.0, False, None]
    cpu.run(*plain)
    wrong = {
        "alpha of a map without one": {0: 2},
        "a sink of a sparse map": {13: 0.0},
        "a mask": {10: np.ones((2, 3), bool)},
        "scores that are not asked for": {17: x},
        "no scores": {1: OF_TEMPERATURE},
        "scores of another shape": {1: OF_TEMPERATURE, 17: x[:1]},
        "scores of another dtype": {1: OF_TEMPERATURE, 17: x.astype(np.float64)},
        "no cotangent": {8: None},
        "a method that there is not": {1: 16},
    }
    for changed in wrong.values():
        given = [changed.get(place, one) for place, one in enumerate(plain)]
        with pytest.raises((ValueError, TypeError)):
            cpu.run(*given)
