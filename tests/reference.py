"""The exact answers: every map straight from its definition, one row at a time, in mpmath.

Nothing here is shared with the library. A row's threshold is found by sorting or by Newton's method on mpmath numbers
and checked by putting it back into the definition; derivatives with respect to scores come from the optimality
conditions, those with respect to parameters from differences of exact values, so a slip in one shows in the other
(`test_reference.py` holds them together). Scores are the exact values of the floats that are given.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import mpmath
import numpy as np

exact = mpmath.mp.clone()
exact.dps = 100
mpf = exact.mpf

ZERO, ONE = mpf(0), mpf(1)
NOTHING = mpf("1e-60")  # distances below this are zero: no row of floats comes so near to a threshold by chance
STEP = mpf("1e-30")  # for derivatives by differences: 100 digits leave some 40 right ones

# What each public name is made of: (the map it comes from, does it negate its scores, does it take logarithms).
FAMILY = {
    "softmax": ("entmax", False, False),
    "log_softmax": ("entmax", False, True),
    "softmin": ("entmax", True, False),
    "log_softmin": ("entmax", True, True),
    "sparsemax": ("entmax", False, False),
    "entmax": ("entmax", False, False),
    "entmax15": ("entmax", False, False),
    "normmax": ("normmax", False, False),
    "budget": ("budget", False, False),
}
FIXED = {"softmax": 1, "log_softmax": 1, "softmin": 1, "log_softmin": 1, "sparsemax": 2, "entmax15": 1.5}
DEFAULTS = {"entmax": {"alpha": 1.5}, "normmax": {"alpha": 2.0}}


def teach(name, *, alpha):
    """Make `name` known as entmax at a fixed alpha (for a map that a test adds to the family)."""
    FAMILY[name] = ("entmax", False, False)
    FIXED[name] = alpha


def hyper_of(name, hyper):
    """The hyper-parameters that the definition of `name` needs, from those that a caller gave."""
    if name in FIXED:
        return {"alpha": FIXED[name]}
    return DEFAULTS.get(name, {}) | dict(hyper)


# ---------------------------------------------------------------------------------------------------------------------
# Weights: scores (descending differences from the maximum do not matter here, digits abound) -> weights and distances
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Solved:
    """The weights of the competitors of a row, 1 / omega'' of each, and how far each score lies from a threshold."""

    weights: list
    slopes: list
    distances: list


def newton(start, gap, slope, *, rounds=400):
    """The root of a convex or concave monotone `gap`, by Newton's method: roughly first, then to all digits."""
    place = start
    for digits in (25, exact.dps):
        with exact.workdps(digits):
            for _ in range(rounds):
                step = gap(place) / slope(place)
                place = place - step
                if abs(step) <= abs(place) * mpf(10) ** (4 - digits) or not step:
                    break
            else:
                raise ArithmeticError("the reference did not converge")
    return place


def solve_softmax(scores):
    top = max(scores)
    raised = [exact.exp(score - top) for score in scores]
    total = exact.fsum(raised)
    weights = [value / total for value in raised]
    return Solved(weights, weights, [exact.inf] * len(scores))


def solve_hardmax(scores):
    top = max(scores)
    ties = sum(score == top for score in scores)
    weights = [ONE / ties if score == top else ZERO for score in scores]
    return Solved(weights, [ZERO] * len(scores), [exact.inf] * len(scores))


def solve_sparsemax(scores):
    """Held, Wolfe & Crowder 1974, as in Martins & Astudillo 2016, algorithm 1."""
    ranked, running, threshold = sorted(scores, reverse=True), ZERO, None
    for count, score in enumerate(ranked, 1):
        running += score
        if 1 + count * score > running:
            threshold = (running - 1) / count
    distances = [score - threshold for score in scores]
    weights = [max(distance, ZERO) for distance in distances]
    return Solved(weights, [ONE if weight > 0 else ZERO for weight in weights], distances)


def powers(distances, exponent):
    return [distance**exponent if distance > 0 else ZERO for distance in distances]


def gentle_threshold(z, counts, exponent):
    """tau of sum count [z - tau]_+^exponent = 1, from below the largest of the z, which is 0."""

    def total(tau, power):
        each = powers([value - tau for value in z], power)
        return exact.fsum(count * value for count, value in zip(counts, each, strict=True))

    return newton(-ONE, lambda tau: total(tau, exponent) - 1, lambda tau: -exponent * total(tau, exponent - 1))


def solve_gentle(scores, alpha):
    """entmax for 1 < alpha < 2 by its threshold, in units of (alpha - 1) scores: sum [z - tau]_+^(1/(alpha-1)) = 1."""
    top = max(scores)
    z = [(alpha - 1) * (score - top) for score in scores]
    exponent = 1 / (alpha - 1)
    tau = gentle_threshold(z, [1] * len(z), exponent)
    distances = [value - tau for value in z]
    weights = powers([distance if distance > NOTHING else ZERO for distance in distances], exponent)
    slopes = [weight ** (2 - alpha) if weight > 0 else ZERO for weight in weights]
    return Solved(weights, slopes, [distance / (alpha - 1) for distance in distances])


def tied_weights(scores, counts, alpha):
    """The same of a row that has each score so many times: one weight for each score."""
    top = max(scores)
    z = [(alpha - 1) * (score - top) for score in scores]
    exponent = 1 / (alpha - 1)
    tau = gentle_threshold(z, counts, exponent)
    return powers([value - tau for value in z], exponent)


def solve_steep(scores, alpha):
    """entmax for alpha > 2 by its smallest weight v; with a = alpha - 1 the others are (v^a + a (x - x_last))^(1/a)."""
    ranked, exponent = sorted(scores, reverse=True), 1 / (alpha - 1)
    count = 1
    while count < len(ranked):
        above = exact.fsum(powers([(alpha - 1) * (score - ranked[count]) for score in ranked[:count]], exponent))
        if above > 1 - NOTHING:
            break
        count += 1
    last = ranked[count - 1]
    lead = [(alpha - 1) * (score - last) for score in ranked[:count]]

    def gap(v):
        return exact.fsum(powers([v ** (alpha - 1) + value for value in lead], exponent)) - 1

    def slope(v):
        return exact.fsum([(v ** (alpha - 1) + value) ** ((2 - alpha) * exponent) for value in lead]) * v ** (alpha - 2)

    v = newton(ONE / count, gap, slope)
    base = v ** (alpha - 1)
    distances = [(score - last) * (alpha - 1) + base for score in scores]
    weights = [distance**exponent if score >= last else ZERO for score, distance in zip(scores, distances, strict=True)]
    slopes = [weight ** (2 - alpha) if weight > 0 else ZERO for weight in weights]
    return Solved(weights, slopes, [distance / (alpha - 1) for distance in distances])


def solve_entmax(scores, alpha):
    if alpha == 1:
        return solve_softmax(scores)
    if alpha == 2:
        return solve_sparsemax(scores)
    if exact.isinf(alpha):
        return solve_hardmax(scores)
    return (solve_gentle if alpha < 2 else solve_steep)(scores, alpha)


def solve_normmax(scores, alpha):
    """Blondel, Martins & Niculae 2020: with a = alpha - 1, (p / |p|_alpha)^a = x - tau; sum [x - tau]^(1 + 1/a) = 1."""
    top = max(scores)
    z = [score - top for score in scores]
    exponent = alpha / (alpha - 1)

    def gap(tau):
        return exact.fsum(powers([value - tau for value in z], exponent)) - 1

    def slope(tau):
        return -exponent * exact.fsum(powers([value - tau for value in z], exponent - 1))

    tau = newton(-ONE, gap, slope)
    distances = [value - tau for value in z]
    kept = [distance if distance > NOTHING else ZERO for distance in distances]
    raised = powers(kept, 1 / (alpha - 1))
    total = exact.fsum(raised)
    # d raised / d score over the total: the Jacobian is built from it in Row.push.
    slopes = [
        value / distance / (alpha - 1) / total if distance > 0 else ZERO
        for value, distance in zip(raised, kept, strict=True)
    ]
    return Solved([value / total for value in raised], slopes, distances)


def solve_budget(scores, total):
    """The projection onto 0 <= p <= 1, sum p = total, from the breakpoints of the sum as a function of tau."""
    size = len(scores)
    if total >= size or total == 0:
        return Solved([ONE if total else ZERO] * size, [ZERO] * size, [exact.inf] * size)

    def clipped(tau):
        return [min(max(score - tau, ZERO), ONE) for score in scores]

    corners = sorted(set(scores) | {score - 1 for score in scores})
    low = max(corner for corner in corners if exact.fsum(clipped(corner)) >= total)
    high = min(corner for corner in corners if exact.fsum(clipped(corner)) <= total)
    above, below = exact.fsum(clipped(low)), exact.fsum(clipped(high))
    if low >= high:
        tau = low
    elif above == below:
        tau = (low + high) / 2
    else:
        tau = low + (high - low) * (above - total) / (above - below)
    weights = clipped(tau)
    inner = [NOTHING < weight < 1 - NOTHING for weight in weights]
    distances = [min(score - tau, 1 - (score - tau), key=abs) for score in scores]
    return Solved(weights, [ONE if flag else ZERO for flag in inner], distances)


# ---------------------------------------------------------------------------------------------------------------------
# Regularisers
# ---------------------------------------------------------------------------------------------------------------------


def regularizer(name, weights, **hyper):
    """Omega(p) of one row, by the contract's table."""
    base, hyper = FAMILY[name][0], hyper_of(name, hyper)
    p = [mpf(weight) for weight in weights]
    if base == "budget":
        return exact.fsum([(value * value - value) / 2 for value in p])
    alpha = mpf(hyper["alpha"])
    if base == "normmax":
        return exact.fsum([value**alpha for value in p if value]) ** (1 / alpha) - 1
    if alpha == 1:
        return exact.fsum([value * exact.log(value) for value in p if value])
    if exact.isinf(alpha):
        return ZERO
    return exact.fsum([(value**alpha - value) / (alpha * (alpha - 1)) for value in p if value])


# ---------------------------------------------------------------------------------------------------------------------
# A row
# ---------------------------------------------------------------------------------------------------------------------


def number(value):
    """The exact value of a number of any of the dtypes; mpmath's own numbers pass."""
    return value if isinstance(value, exact.mpf) else mpf(float(value))


class Row:
    """One row of scores under one map: everything the contract says of it, exactly."""

    def __init__(self, name, scores, *, temperature=1.0, sink=None, where=None, **hyper):
        self.name = name
        self.base, self.negated, self.logarithmic = FAMILY[name]
        self.sign = -1 if self.negated else 1
        self.raw = [number(score) for score in scores]
        self.hyper = {key: number(value) for key, value in hyper_of(name, hyper).items()}
        self.temperature = number(temperature)
        self.sink = None if sink is None else number(sink)
        seen = [True] * len(self.raw) if where is None else [bool(flag) for flag in where]
        self.places = [place for place, score in enumerate(self.raw) if seen[place] and self.sign * score != -exact.inf]
        self.given = (tuple(self.raw), tuple(seen))
        self.digits = exact.dps
        if self.softmaxlike:  # a confident row's loss may be exp(-700): brute digits rather than a clever formula
            self.digits += int(min(self.spread, 800) / 2.3) + 1
        elif self.spread > 1e20:  # 1 must not drown beside scores of 1e307
            self.digits += int(exact.log10(self.spread))

    def __repr__(self):
        hyper = {key: float(value) for key, value in self.hyper.items()}
        given = [float(score) if seen else None for score, seen in zip(*self.given, strict=True)]
        sink = None if self.sink is None else float(self.sink)
        return f"{self.name}({given}, temperature={float(self.temperature)}, sink={sink}, {hyper})"

    @property
    def softmaxlike(self):
        return self.base == "entmax" and self.hyper["alpha"] == 1

    @functools.cached_property
    def spread(self):
        seen = self.compete()
        return max(seen) - min(seen) if seen else ZERO

    @property
    def has_sink(self):
        return self.sink is not None and self.sign * self.sink != -exact.inf

    @functools.cached_property
    def competitors(self):
        """The scores that the map sees: unmasked, finite, over the temperature, the sink as the last."""
        with exact.workdps(self.digits):
            return self.compete()

    def compete(self):
        seen = [self.sign * self.raw[place] / self.temperature for place in self.places]
        return seen + ([self.sign * self.sink / self.temperature] if self.has_sink else [])

    @functools.cached_property
    def solved(self):
        with exact.workdps(self.digits):
            if not self.competitors:
                return Solved([], [], [])
            top = max(self.competitors)
            lowered = [score - top for score in self.competitors]
            if self.base == "budget":
                return solve_budget(lowered, self.hyper["budget"])
            return (solve_normmax if self.base == "normmax" else solve_entmax)(lowered, self.hyper["alpha"])

    def spread_out(self, values, fill=ZERO):
        """Values of the competitors, put at their places in the row; the sink's is left out."""
        full = [fill] * len(self.raw)
        for place, value in zip(self.places, values, strict=False):
            full[place] = value
        return full

    @functools.cached_property
    def weights(self):
        return self.spread_out(self.solved.weights)

    @functools.cached_property
    def distances(self):
        """How far each score, as the map sees it, lies from a threshold (inf for maps without)."""
        return self.spread_out(self.solved.distances, exact.inf)

    @property
    def nearest(self):
        """The smallest distance from a threshold, the sink's included."""
        return min((abs(value) for value in self.solved.distances), default=exact.inf)

    @functools.cached_property
    def values(self):
        """What the map returns: the weights, or their logarithms."""
        if not self.logarithmic:
            return self.weights
        with exact.workdps(self.digits):
            return self.spread_out([exact.log(weight) for weight in self.solved.weights], -exact.inf)

    # -- derivatives --------------------------------------------------------------------------------------------------

    def gather(self, direction):
        """A direction's entries at the competitors, 0 at the sink; what lies at other places is not looked at."""
        return [number(direction[place]) for place in self.places] + [ZERO] * self.has_sink

    def push(self, tangent):
        """J t among the competitors, with respect to the scores that the map sees."""
        p, s = self.solved.weights, self.solved.slopes
        if self.base == "normmax":
            shift = exact.fsum([a * b for a, b in zip(p, tangent, strict=True)])
            moved = [a * (b - shift) for a, b in zip(s, tangent, strict=True)]
            total = exact.fsum(moved)
            return [a - b * total for a, b in zip(moved, p, strict=True)]
        total = exact.fsum(s)
        if not total:
            return [ZERO] * len(s)
        shift = exact.fsum([a * b for a, b in zip(s, tangent, strict=True)]) / total
        if self.logarithmic:
            return [b - shift for b in tangent]
        return [a * (b - shift) for a, b in zip(s, tangent, strict=True)]

    @functools.cached_property
    def matrix(self):
        """J among the competitors, row i, column j = d value_i / d score_j (of the scores that the map sees)."""
        size = len(self.competitors)
        with exact.workdps(self.digits):
            columns = [self.push([ONE if i == j else ZERO for i in range(size)]) for j in range(size)]
        return [[columns[j][i] for j in range(size)] for i in range(size)]

    def jacobian(self):
        """d value_i / d x_j over the whole row, zeros where nothing competes."""
        size = len(self.raw)
        full = [[ZERO] * size for _ in range(size)]
        for i, row in enumerate(self.places):
            for j, column in enumerate(self.places):
                full[row][column] = self.sign * self.matrix[i][j] / self.temperature
        return full

    def jvp(self, tangent):
        with exact.workdps(self.digits):
            pushed = self.push(self.gather(tangent))
            return self.spread_out([self.sign * value / self.temperature for value in pushed])

    def pull(self, cotangent):
        """g^T J at every competitor, the sink last, with respect to x and the sink."""
        size, g = len(self.competitors), self.gather(cotangent)
        with exact.workdps(self.digits):
            if self.logarithmic:
                columns = [exact.fsum([g[i] * self.matrix[i][j] for i in range(size)]) for j in range(size)]
            else:
                columns = self.push(g)  # symmetric, as the second derivative of Omega*; test_reference.py checks it
            return [self.sign * value / self.temperature for value in columns]

    def vjp(self, cotangent):
        return self.spread_out(self.pull(cotangent))

    def with_parameter(self, name, value):
        changed = {"temperature": self.temperature, "sink": self.sink} | self.hyper | {name: value}
        if self.name in FIXED:
            changed.pop("alpha")
        return Row(self.name, self.given[0], where=self.given[1], **changed)

    def parameter(self, name):
        return {"temperature": self.temperature, "sink": self.sink, **self.hyper}[name]

    @functools.cache  # noqa: B019 - rows live as long as their cache entry anyway
    def derivative(self, name):
        """d value / d parameter of every entry of the row, by differences of exact values."""
        here = self.parameter(name)
        if exact.isinf(here) or (name == "budget" and not any(self.solved.slopes)):
            return [ZERO] * len(self.raw)
        if name == "alpha" and here == 1:  # only one side exists: three points of it
            points = [self.with_parameter(name, here + count * STEP).values for count in range(3)]
            return [
                (4 * b - 3 * a - c) / (2 * STEP) if exact.isfinite(a) else ZERO for a, b, c in zip(*points, strict=True)
            ]
        step = STEP * max(abs(here), mpf("1e-3"))
        before, after = (self.with_parameter(name, here + side * step).values for side in (-1, 1))
        return [self.quotient(a, b, step) for a, b in zip(before, after, strict=True)]

    def quotient(self, before, after, step):
        """A central difference; what is left of a derivative of 0 is noise, but softmax has truly small ones."""
        if not exact.isfinite(before):
            return ZERO
        found = (after - before) / (2 * step)
        return found if self.softmaxlike or abs(found) > mpf("1e-45") else ZERO

    def parameter_vjp(self, name, cotangent):
        derivative = self.derivative(name)
        return exact.fsum([number(cotangent[place]) * derivative[place] for place in self.places])

    # -- losses -------------------------------------------------------------------------------------------------------

    def conjugate(self):
        """Omega* of the scores that the map sees."""
        with exact.workdps(self.digits):
            if self.softmaxlike:
                top = max(self.competitors)
                return top + exact.log(exact.fsum([exact.exp(score - top) for score in self.competitors]))
            p = self.solved.weights
            met = exact.fsum([a * b for a, b in zip(self.competitors, p, strict=True)])
            return met - regularizer(self.name, p, **self.hyper)

    def smooth_max(self):
        with exact.workdps(self.digits):
            return self.temperature * self.conjugate()

    def smoothed(self, target, smoothing):
        """An index or a distribution as a distribution over the row, some of it spread over what competes."""
        if isinstance(target, int | np.integer):
            target = [ONE if place == target else ZERO for place in range(len(self.raw))]
        smoothing = number(smoothing)
        target = [(1 - smoothing) * number(value) for value in target]
        for place in self.places:
            target[place] += smoothing / len(self.places)
        return target

    def loss(self, target, smoothing=0.0):
        """The Fenchel-Young loss Omega*(z) + Omega(y) - <z, y>."""
        with exact.workdps(self.digits):
            y = self.smoothed(target, smoothing)
            if any(value and place not in self.places for place, value in enumerate(y)):
                return exact.inf
            met = exact.fsum([y[place] * score for place, score in zip(self.places, self.competitors, strict=False)])
            return self.conjugate() + regularizer(self.name, y, **self.hyper) - met

    def cross_entropy(self, target, smoothing=0.0, weight=None):
        """- sum w y log p; for an index and no weights - log p_y."""
        with exact.workdps(self.digits):
            y = self.smoothed(target, smoothing)
            w = [ONE] * len(y) if weight is None else [number(value) for value in weight]
            if any(w[place] and value and place not in self.places for place, value in enumerate(y)):
                return exact.inf
            at, top = self.conjugate(), zip(self.places, self.competitors, strict=False)
            return exact.fsum([w[place] * y[place] * (at - score) for place, score in top])

    def residual(self, target, smoothing=0.0):
        """p - y."""
        with exact.workdps(self.digits):
            y = self.smoothed(target, smoothing)
            return [weight - value for weight, value in zip(self.weights, y, strict=True)]

    # -- the scales that section 4 measures by ------------------------------------------------------------------------

    def linear_scale(self, direction):
        """The largest term of a product: |s_i g_i| and s_i sum |s_j g_j| / sum s (log maps: |g_i|, p_i sum |g_j|)."""
        g, p, s = [abs(value) for value in self.gather(direction)], self.solved.weights, self.solved.slopes
        if not s or not any(s):
            return ZERO
        if self.logarithmic:
            terms = [*g, max(p) * exact.fsum(g)]
        else:
            terms = [a * b for a, b in zip(s, g, strict=True)]
            mean = exact.fsum(terms)
            if self.base == "normmax":  # J = (I - p 1^T) diag(s) (I - 1 p^T)
                met = exact.fsum([a * b for a, b in zip(p, g, strict=True)])
                terms += [max(p) * mean, max(s) * met]
            else:
                terms.append(max(s) * mean / exact.fsum(s))
        return max(terms) / self.temperature

    def loss_scale(self, target):
        """The largest term of a loss: |z_i - max z| over the entries that p or y uses, and 1."""
        y = self.smoothed(target, 0)
        top = max(self.competitors, default=ZERO)
        used = [
            abs(score - top)
            for place, score, weight in zip(self.places, self.competitors, self.solved.weights, strict=False)
            if weight or y[place]
        ]
        return max([ONE, *used])


@functools.lru_cache(maxsize=20000)
def cached_row(name, scores, temperature, sink, where, hyper):
    return Row(name, scores, temperature=temperature, sink=sink, where=where, **dict(hyper))


def row(name, scores, *, temperature=1.0, sink=None, where=None, **hyper):
    """The row of these scores, remembered: laws ask for the same rows again and again."""
    key = tuple(float(score) for score in scores)
    mask = None if where is None else tuple(bool(flag) for flag in where)
    return cached_row(
        name,
        key,
        float(temperature),
        None if sink is None else float(sink),
        mask,
        tuple(sorted((k, float(v)) for k, v in hyper.items())),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Long rows: wider floats instead of mpmath
# ---------------------------------------------------------------------------------------------------------------------

WIDE = np.longdouble if np.finfo(np.longdouble).nmant > 60 else np.float64


def long_softmax(scores):
    """softmax of a row of a million entries, right to about 1e-18 (1e-15 where longdouble is float64)."""
    wide = np.asarray(scores, WIDE)
    raised = np.exp(wide - wide.max())
    return raised / np.sort(raised).sum()


def long_sparsemax(scores):
    """sparsemax of a row of a million entries: only entries within 1 of the maximum matter; their sums are exact."""
    scores = np.asarray(scores, np.float64)
    ranked = np.sort(scores[scores > scores.max() - 1])[::-1].tolist()
    low, high = 1, len(ranked)
    while low < high:  # the largest count for which 1 + count * x_count > the sum of the count largest
        middle = (low + high + 1) // 2
        inside = math.fsum([1.0, *([ranked[middle - 1]] * middle), *[-value for value in ranked[:middle]]]) > 0
        low, high = (middle, high) if inside else (low, middle - 1)
    running = math.fsum(ranked[:low])
    rest = math.fsum([*ranked[:low], -running, -1.0])  # the sum in two floats, less 1
    threshold = (WIDE(running) + WIDE(rest)) / low
    return np.maximum(np.asarray(scores, WIDE) - threshold, 0)
