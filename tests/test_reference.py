"""The reference against itself: definitions, optimality, and derivatives by two routes."""

import itertools
import math

import numpy as np
import pytest

import reference
from reference import exact, mpf

HYPER = {
    "entmax": [{"alpha": alpha} for alpha in (1, 1 + 1e-6, 1.3, 1.5, 2 - 1e-6, 2, 2 + 1e-6, 2.5, 5, 50, math.inf)],
    "normmax": [{"alpha": alpha} for alpha in (1.1, 2.0, 4.0)],
    "budget": [{"budget": budget} for budget in (0.5, 1, 2.0, 2.5)],
}
CASES = [(name, hyper) for name in reference.FAMILY for hyper in HYPER.get(name, [{}])]
SIMPLEX = [case for case in CASES if not reference.FAMILY[case[0]][2]]
SMOOTH = [case for case in CASES if not math.isinf(case[1].get("alpha", 0))]
SCORES = (0.3, -0.2, 0.9, 0.85, -3.0, 0.9)


def close(got, wanted, digits=25):
    return all(abs(a - b) <= mpf(10) ** -digits * (1 + abs(b)) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize(("name", "hyper"), SIMPLEX)
def test_weights_beat_every_other_point(name, hyper):
    """p maximises <z, p> - Omega(p): the definition, tried against points between p and every corner."""
    row = reference.Row(name, SCORES, temperature=0.7, sink=0.1, **hyper)
    best, total = row.conjugate(), reference.hyper_of(name, hyper).get("budget", 1)
    assert abs(exact.fsum(row.solved.weights) - total) < 1e-70
    assert min(row.solved.weights) >= 0
    size = len(row.competitors)
    corners = itertools.combinations(range(size), math.ceil(total))
    for corner, share in itertools.product(corners, (1e-6, 0.5, 1)):
        end = [mpf(total) / len(corner) if place in corner else mpf(0) for place in range(size)]
        other = [(1 - share) * p + share * e for p, e in zip(row.solved.weights, end, strict=True)]
        met = exact.fsum([a * b for a, b in zip(row.competitors, other, strict=True)])
        assert met - reference.regularizer(name, other, **hyper) <= best + mpf("1e-60")


def test_hardmax_has_no_derivatives():
    assert not any(map(any, reference.Row("entmax", SCORES, alpha=math.inf).jacobian()))


@pytest.mark.parametrize(("name", "hyper"), SMOOTH)
def test_jacobian_is_the_derivative(name, hyper):
    row = reference.Row(name, SCORES, temperature=0.7, sink=0.1, **hyper)
    step, jacobian = mpf("1e-30"), row.jacobian()
    for column in range(len(SCORES)):
        before, after = (
            reference.Row(
                name,
                [mpf(score) + sign * step * (place == column) for place, score in enumerate(SCORES)],
                temperature=0.7,
                sink=0.1,
                **hyper,
            ).values
            for sign in (-1, 1)
        )
        numeric = [(b - a) / (2 * step) for a, b in zip(before, after, strict=True)]
        assert close([jacobian[i][column] for i in range(len(SCORES))], numeric)


@pytest.mark.parametrize(("name", "hyper"), SMOOTH)
def test_products_and_parameters_fit_the_jacobian(name, hyper):
    row = reference.Row(name, SCORES, temperature=0.7, sink=0.1, **hyper)
    direction = (1.0, -0.5, 0.25, 2.0, -1.0, 3.0)
    jacobian, scale = row.jacobian(), range(len(SCORES))
    assert close(row.jvp(direction), [sum(jacobian[i][j] * direction[j] for j in scale) for i in scale])
    assert close(row.vjp(direction), [sum(jacobian[i][j] * direction[i] for i in scale) for j in scale])
    # p(x / T, s / T): along x and s together the temperature is a known direction, and the sink is one more column.
    toward = [-value / row.temperature for value in row.raw]
    along_sink = row.derivative("sink")
    together = [a - b * row.sink / row.temperature for a, b in zip(row.jvp(toward), along_sink, strict=True)]
    assert close(row.derivative("temperature"), together)
    assert abs(row.pull(direction)[-1] - row.parameter_vjp("sink", direction)) < 1e-30


@pytest.mark.parametrize(("name", "hyper"), [case for case in SIMPLEX if case in SMOOTH])
def test_loss_has_the_residual_for_gradient(name, hyper):
    row = reference.Row(name, SCORES, **hyper)
    total = reference.hyper_of(name, hyper).get("budget", 1)
    target = [mpf(total) / len(SCORES)] * len(SCORES)
    step, sign = mpf("1e-30"), -1 if name == "softmin" else 1
    for column, wanted in enumerate(row.residual(target)):
        before, after = (
            reference.Row(
                name,
                [mpf(score) + side * sign * step * (place == column) for place, score in enumerate(SCORES)],
                **hyper,
            ).loss(target)
            for side in (-1, 1)
        )
        assert close([(after - before) / (2 * step)], [wanted])
    assert row.loss(target) >= 0
    assert abs(row.loss(row.weights)) < 1e-60


def test_known_vectors():
    def of(name, scores, **hyper):
        return [float(value) for value in reference.Row(name, scores, **hyper).values]

    np.testing.assert_allclose(of("softmax", [5, 7, 10]), [0.0064, 0.0471, 0.9465], atol=5e-5)
    np.testing.assert_allclose(of("sparsemax", [0.1, 0.2, 0.3, 0.2]), [0.15, 0.25, 0.35, 0.25], rtol=1e-14)
    np.testing.assert_allclose(of("entmax15", [-2, 0, 0.5]), [0, 0.3260, 0.6740], atol=5e-5)
    np.testing.assert_allclose(of("log_softmax", [0, -40]), [-4.248354255291589e-18, -40], rtol=1e-14)
    assert of("entmax", [1, 1 - 2**-24], alpha=50) == pytest.approx([0.771, 0.229], abs=5e-4)


def test_steep_and_gentle_meet_at_two():
    """The two ways to solve entmax agree where both hold, and with sparsemax's sort between them."""
    scores = [mpf(score) for score in SCORES]
    tiny = mpf("1e-40")
    middle = reference.solve_sparsemax(scores).weights
    assert close(reference.solve_gentle(scores, 2 - tiny).weights, middle)
    assert close(reference.solve_steep(scores, 2 + tiny).weights, middle)


@pytest.mark.parametrize("long", ["softmax", "sparsemax"])
def test_long_rows_agree_with_short_ones(long):
    rng = np.random.default_rng(5)
    for scores in (rng.normal(size=40), rng.normal(size=40) / 100, np.full(7, 0.3)):
        wide = getattr(reference, f"long_{long}")(scores)
        for got, wanted in zip(wide, reference.Row(long, scores).weights, strict=True):
            assert abs(exact.mpf(float(got)) - wanted) <= 2e-16 * max(wanted, mpf("1e-300"))
