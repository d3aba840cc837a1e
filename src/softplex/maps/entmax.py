"""entmax: sparse weights, softmax at alpha = 1, sparsemax at 2 and sparser beyond (Peters, Niculae & Martins 2019).

omega(p) = (p^alpha - p) / (alpha (alpha - 1)), so with a = alpha - 1 and up to constants omega'(p) = p^a / a: an
entry whose score is d higher than one of weight p weighs (p^a + a d)_+^(1/a). Up to alpha = 2 this is taken from the
largest score by log1p, which has its limit p exp(d) at alpha = 1; above, where the link is steep at 0, from the
smallest supported score. alpha = inf weighs the maxima evenly. entmax15 is the case alpha = 1.5, where roots and
squares are enough.
"""

from __future__ import annotations

from softplex.core.arrays import Array, Namespace, Number, Terms, choose_terms, each, total
from softplex.core.formula import Hyper, Parameter, ratio
from softplex.core.map import Map
from softplex.core.rows import Rows
from softplex.core.separable import Separable, powers_of, weights_from_top
from softplex.core.threshold import last_supported, newton, shortfall
from softplex.maps.sparsemax import ranked as ranked2


def finite(xp: Namespace, number: Number) -> Number:
    """A hyper-parameter with infinity replaced by a number to compute with; the results are chosen elsewhere."""
    if isinstance(number, float):
        return number if number < xp.inf else 2.0
    return xp.where(number < xp.inf, number, 2.0)


def nonzero(xp: Namespace, number: Number) -> Number:
    """A divisor with 0 replaced by 1; the results are chosen elsewhere."""
    if isinstance(number, float):
        return number if number != 0.0 else 1.0
    return xp.where(number != 0.0, number, 1.0)


def omega(xp: Namespace, p: Array, alpha: Number) -> Array:
    """p (p^a - 1) / (a (a + 1)), which is p log p at alpha = 1; 0 at infinity."""
    a = finite(xp, alpha) - 1.0
    logarithm = xp.log(xp.where(p > 0.0, p, 1.0))
    general = p * logarithm * mean_power(xp, a * logarithm) / (a + 1.0)
    b = nonzero(xp, a)
    general = xp.choose(p < 0.0, lambda: (xp.pow(p, b + 1.0) - p) / (b * (b + 1.0)), lambda: general)
    return xp.choose(alpha == xp.inf, lambda: xp.zeros_like(p), lambda: general)


def mean_power(xp: Namespace, y: Array) -> Array:
    """(e^y - 1) / y, by its series sum_j y^j / (j + 1)! near 0, where its derivatives would cancel."""
    near, series = xp.clip(y, -1.0, 1.0), xp.zeros_like(y)
    for j in range(20, 0, -1):
        series = (1.0 + series) * near / (j + 1)
    far = xp.where(xp.abs(y) > 1.0, y, 1.0)
    return xp.where(xp.abs(y) > 1.0, xp.expm1(far) / far, 1.0 + series)


def moved(xp: Namespace, p: Array, d: Array, alpha: Number) -> Array:
    """(p^a + a d)_+^(1/a) for alpha up to 2, written p (1 + a d / p^a)_+^(1/a)."""
    a = nonzero(xp, alpha - 1.0)

    def deformed() -> Array:
        base = a * d * xp.pow(p, -a)
        inside = base > -1.0
        return xp.where(inside, p * xp.exp(xp.log1p(xp.where(inside, base, 0.0)) / a), 0.0)

    return xp.choose(alpha == 1.0, lambda: p * xp.exp(d), deformed)


def slope(xp: Namespace, p: Array, alpha: Number) -> Array:
    """p^(2 - alpha) on the support; 0 everywhere at alpha = inf, where the weights are locally constant."""
    power = xp.minimum(powers_of(xp, p, 2.0 - finite(xp, alpha)), xp.steepest)
    return xp.choose(alpha == xp.inf, lambda: xp.zeros_like(p), lambda: power)


def growth(xp: Namespace, y: Array) -> Array:
    """(y e^y - e^y + 1) / y^2 for y <= 0, by its series sum_j y^j / (j! (j + 2)) where that cancels."""
    series = xp.zeros_like(y)
    near = xp.maximum(y, -1.0)
    for j in range(20, 0, -1):
        series = (1.0 / (j + 2) + series) * near / j
    series = series + 0.5
    far = xp.minimum(y, -1.0)
    direct = (far * xp.exp(far) - xp.expm1(far)) / (far * far)
    return xp.where(y > -1.0, series, direct)


def partials(xp: Namespace, p: Array, alpha: Number) -> dict[str, Array]:
    """-slope(p) d omega'(p) / d alpha = -p^(2 - alpha) log^2 p growth(a log p) (Correia, Niculae & Martins 2019)."""
    positive = p > 0.0
    logarithm = xp.log(xp.where(positive, p, 1.0))
    a = finite(xp, alpha) - 1.0
    derivative = -slope(xp, p, alpha) * logarithm * logarithm * growth(xp, a * logarithm)
    return {"alpha": xp.where(positive, derivative, 0.0)}


def weights_from_last(rows: Rows, hyper: Hyper) -> Terms:
    """The weights for alpha > 2, where the smallest one decides: p_i = (v^a + a gap_i)^(1/a) over the smallest, v."""
    xp, a = rows.xp, hyper["alpha"] - 1.0

    def weights_over(gaps: Terms, v: Array) -> Terms:
        power = xp.pow(v, a)

        def weight(gap: Array) -> Array:
            above = xp.pow(power + a * xp.maximum(gap, 0.0), 1.0 / a)
            # The anchor's ties weigh v itself, for v^a may underflow.
            return xp.where(gap > 0.0, above, xp.where(gap == 0.0, v, 0.0))

        return each(weight, gaps)

    def is_supported(score: Array) -> Array:
        return total(xp, weights_over(rows.gaps_from(score), xp.zeros_like(score))) < 1.0

    def rates(v: Array, p: Terms) -> Terms:
        return each(lambda w: xp.where(w > 0.0, xp.pow(v / xp.where(w > 0.0, w, 1.0), a - 1.0), 0.0), p)

    last = last_supported(xp, rows.scores, rows.top, rows.temperature / a, is_supported)
    gaps = rows.gaps_from(last)
    start = xp.clip(shortfall(xp, 1.0, weights_over(gaps, xp.zeros_like(last))), 0.0, 1.0)
    return weights_over(gaps, newton(xp, 1.0, start, lambda v: weights_over(gaps, v), rates))


def maxima(rows: Rows) -> Terms:
    """Uniform weights on the largest scores."""
    xp = rows.xp
    is_top = each(lambda gap: xp.astype(gap == 0.0, xp.working), rows.gaps)
    ties = total(xp, is_top)
    return each(lambda flag: ratio(xp, flag, ties), is_top)


def weights(rows: Rows, hyper: Hyper) -> Terms:
    """By alpha: from the top up to 2, from the last supported score above, the maxima at infinity."""
    xp, alpha = rows.xp, hyper["alpha"]
    # A backend that cannot look computes every case, each with an alpha that it can take.
    if isinstance(alpha, float):
        low, high = min(alpha, 2.0), max(finite(xp, alpha), 2.0)
    else:
        low, high = xp.minimum(alpha, 2.0), xp.maximum(finite(xp, alpha), 2.0)
    return choose_terms(
        xp,
        alpha <= 2.0,
        lambda: weights_from_top(ENTMAX, rows, {"alpha": low}),
        lambda: choose_terms(
            xp, alpha == xp.inf, lambda: maxima(rows), lambda: weights_from_last(rows, {"alpha": high})
        ),
    )


ALPHA = Parameter("alpha", 1.5, 1.0, float("inf"))


def reach(hyper: Hyper) -> Number:
    """1 / a: there (p^a + a d) is 0 even for p = 1."""
    a = hyper["alpha"] - 1.0
    return 1.0 / a if not isinstance(a, float) or a > 0.0 else float("inf")


def ranked15(xp: Namespace, gaps: Array, counts: Array) -> Array:
    """Of the k largest the root of a quadratic; it is right for the last k of which none lies below 0."""
    halves = 0.5 * gaps
    mean = xp.cumulative_sum(halves) / counts
    spread = xp.cumulative_sum(halves * halves) - counts * mean * mean
    root = xp.sqrt(xp.maximum(1.0 - spread, 0.0) / counts) - mean
    right = xp.min(xp.where(root + halves >= 0.0, root, 1.0), axis=-1, keepdims=True)
    return right * right


def ranked(xp: Namespace, gaps: Array, counts: Array, alpha: Number) -> Array | None:
    """Where the weights are straight lines or squares of the scores."""
    if not isinstance(alpha, float) or alpha not in (1.5, 2.0):
        return None
    return ranked15(xp, gaps, counts) if alpha == 1.5 else ranked2(xp, gaps, counts)


ENTMAX = Separable(omega, moved, slope, partials, weights=weights, ranked=ranked, parameters=(ALPHA,), reach=reach)

entmax = Map(
    "entmax",
    ENTMAX,
    summary="Sparse weights between softmax (alpha = 1) and sparsemax (alpha = 2), and sparser beyond.",
    equation="p_i = ((alpha - 1) (x_i - tau))_+^(1 / (alpha - 1)) with sum p = 1;  "
    "Omega(p) = sum (p^alpha - p) / (alpha (alpha - 1))",
    source="Peters, Niculae & Martins 2019, Sparse Sequence-to-Sequence Models, arXiv:1905.05702",
    example="""
    >>> entmax([-2.0, 0.0, 0.5], alpha=2.0).round(4)
    array([0.  , 0.25, 0.75])
    """,
)


def reach15(hyper: Hyper) -> Number:
    """1 / 0.5."""
    return 2.0


def omega15(xp: Namespace, p: Array) -> Array:
    """(p^1.5 - p) / 0.75."""
    return p * (xp.sqrt(p) - 1.0) / 0.75


def moved15(xp: Namespace, p: Array, d: Array) -> Array:
    """(sqrt(p) + d / 2)_+^2."""
    root = xp.maximum(xp.sqrt(p) + 0.5 * d, 0.0)
    return root * root


def slope15(xp: Namespace, p: Array) -> Array:
    """sqrt(p)."""
    return xp.sqrt(p)


entmax15 = Map(
    "entmax15",
    Separable(omega15, moved15, slope15, ranked=ranked15, reach=reach15),
    summary="entmax at alpha = 1.5, with roots and squares alone.",
    equation="p_i = (x_i / 2 - tau)_+^2 with sum p = 1;  Omega(p) = sum (p^1.5 - p) / 0.75",
    source="Peters, Niculae & Martins 2019, Sparse Sequence-to-Sequence Models, arXiv:1905.05702",
    example="""
    >>> entmax15([-2.0, 0.0, 0.5]).round(4)
    array([0.   , 0.326, 0.674])
    """,
)
