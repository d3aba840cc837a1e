"""How near a kernel's result must come to the formulas', which are asked in float64 on rows that lie plainly.

Each may err within its bound of section 4, so both bounds are allowed. All is arrays (rows, n): thousands of calls are
judged in seconds.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

import softplex as sx
import tolerances
from frameworks import numpy_dtype
from native_samples import BY_ROW, LOSSES
from tolerances import MAX, ONE

WITH_SUPPORT = {sx.sparsemax: 2.0, sx.entmax15: 1.5, sx.entmax: 1.5}  # and the alpha of those not told theirs
WEIGHTS_OF = {sx.log_softmax: sx.softmax, sx.log_softmin: sx.softmin}


def ulps(dtype, values):
    """The distance between neighbours of a dtype at each of many float64 numbers."""
    least = tolerances.SMALLEST_EXPONENT[dtype]
    exponent = np.frexp(np.where(np.isfinite(values), values, 1.0))[1] - 1
    exponent = np.maximum(np.where(values == 0, least, exponent), least)
    return np.ldexp(1.0, exponent - tolerances.PRECISION[dtype] + 1)


def judged(sample, **more):
    """Call the library and hold what it makes of a sample to the formulas."""
    judge = Judge(sample)  # before x is written to
    judge.assert_near(sample.result(**more))


class Judge:
    """What the formulas make of a sample, and how far from it a result may lie."""

    def __init__(self, sample):
        self.sample, self.dtype, self.task = sample, sample.dtype, sample.task
        self.plain = sample.as_rows("float64")
        self.is_tempered = "temperature" in sample.arguments
        with sx.kernels("none"):
            self.wanted = np.asarray(self.plain.result())

    # -- the rows -----------------------------------------------------------------------------------------------------

    @functools.cached_property
    def temperature(self):
        return self.plain.arguments.get("temperature", np.ones((len(self.plain.x), 1)))

    @functools.cached_property
    def sink(self):
        return self.plain.arguments.get("sink", np.full((len(self.plain.x), 1), -self.sample.sign * np.inf))

    @functools.cached_property
    def alpha(self):
        sample = self.sample
        fixed = WITH_SUPPORT.get(sample.map, 1.0) if sample.bound_alpha is None else sample.bound_alpha
        return self.plain.arguments.get("alpha", np.full((len(self.plain.x), 1), fixed))

    @functools.cached_property
    def operand(self):
        return np.abs(np.nan_to_num(self.plain.operand))

    @functools.cached_property
    def entered(self):
        """The entries and, last, the sink; what is masked is lost."""
        lost = -self.sample.sign * np.inf
        where = self.plain.arguments.get("where", True)
        return np.concatenate([np.where(where, self.plain.x, lost), self.sink], axis=1)

    @functools.cached_property
    def weights(self):
        """Of the entries and, last, the sink; not a number in bad rows."""
        map_ = WEIGHTS_OF.get(self.sample.map, self.sample.map)
        with sx.kernels("none"):
            known = {"alpha": self.alpha} if map_ is sx.entmax else {}
            return map_(self.entered, temperature=self.temperature, **known)

    @functools.cached_property
    def top(self):
        return self.weights.max(axis=1, keepdims=True)

    @functools.cached_property
    def gaps(self):
        """(score - top) / temperature, the sink last."""
        z = self.sample.sign * self.entered
        top = z.max(axis=1, keepdims=True)
        return np.where(z == top, 0.0, (z - top) / self.temperature)

    @functools.cached_property
    def distances(self):
        """Of the entries and the sink from the threshold."""
        steepness = self.alpha - 1.0
        has_threshold = (steepness > 0) & np.isfinite(steepness)
        steepness = np.where(has_threshold, steepness, 1.0)
        return np.where(has_threshold, self.gaps + self.top**steepness / steepness, np.inf)

    @functools.cached_property
    def is_clear(self):
        """Whether no entry of a row lies at its threshold."""
        return np.min(np.abs(self.distances), axis=1, keepdims=True) > 2 * tolerances.boundary(self.dtype)

    @functools.cached_property
    def slopes(self):
        p, alpha = self.weights, np.where(np.isfinite(self.alpha), self.alpha, 1.0)
        return np.where((p > 0) & np.isfinite(self.alpha), np.where(p > 0, p, 1.0) ** (2.0 - alpha), 0.0)

    # -- bounds -------------------------------------------------------------------------------------------------------

    def reach(self, bound, sizes):
        """Both bounds around numbers of some size; 16-bit results are rounded from float32, which errs too."""
        total = bound("float64", temperature=self.is_tempered, formulas=True) * ulps("float64", sizes)
        for dtype in {self.dtype, tolerances.WORKING[self.dtype]}:
            total = total + bound(dtype, temperature=self.is_tempered, formulas=False) * ulps(dtype, sizes)
        return total

    def value_bound(self, dtype, *, formulas):
        """By rows: a bound in ULPs, and the size that they are of."""
        found = [
            tolerances.value_bound(
                self.sample.name, dtype, alpha=alpha, temperature=self.is_tempered, formulas=formulas
            )
            for alpha in self.alpha[:, 0].tolist()
        ]
        of = np.array([bound.of for bound in found])[:, None]
        sizes = np.select([of == ONE, of == MAX], [1.0, self.top], self.wanted if self.task == "value" else 1.0)
        return np.array([bound.ulps for bound in found])[:, None] * ulps(dtype, sizes)

    def reach_of_values(self):
        reach = self.value_bound(self.dtype, formulas=False) + self.value_bound("float64", formulas=True)
        if self.sample.map in WITH_SUPPORT:
            return reach
        return self.or_nearly_zero(reach, np.abs(self.wanted))

    def or_nearly_zero(self, reach, sizes):
        """Numbers below those that are promised."""
        small = sizes < tolerances.smallest_promised(self.dtype)
        return np.where(small, 4 * tolerances.smallest_normal(self.dtype), reach)

    def reach_of_products(self):
        """From the largest term of a VJP or JVP, and from how far the weights may lie."""
        g = np.where(np.isfinite(self.entered[:, :-1]), self.operand, 0.0)
        reach = self.reach(tolerances.linear_bound, self.largest_term(g) / self.temperature) + self.moved_slopes(g)
        return np.where(self.is_clear, reach, np.inf) + 4 * ulps(self.dtype, np.zeros(1))

    def largest_term(self, g):
        if self.sample.is_log:
            weighed = self.top * sums(g) if self.task == "vjp" else sums(self.weights[:, :-1] * g)
            return np.maximum(largest(g), weighed)
        terms = self.slopes[:, :-1] * g
        return np.maximum(largest(terms), largest(self.slopes) * sums(terms) / positive(sums(self.slopes)))

    def moved_slopes(self, g):
        """What a product gains when the weights move: for alpha > 1.5 those of both, below it those of the formulas."""
        if self.sample.map not in WITH_SUPPORT or np.all((self.alpha == 1) | (self.alpha == 2)):
            return 0.0
        p, s, power = self.weights, self.slopes, np.where(np.isfinite(self.alpha), 2.0 - self.alpha, 0.0)
        kernel = np.where(self.alpha > 1.5, self.value_bound(self.dtype, formulas=False), 0.0)
        reach = kernel + self.value_bound("float64", formulas=True)
        inside = np.where(p > 0, p, 1.0)
        sides = [np.maximum((inside + side) / inside, 0.0) ** power - 1.0 for side in (-reach, reach)]
        moved = s * np.max(np.abs(sides), axis=0)
        gained = 4 * largest(g) * (largest(moved) + largest(s) * sums(moved) / positive(sums(s)))
        unsure = (p > 0) & (p <= reach) & (self.alpha > 1.5) & (power != 0)
        return np.where(np.any(unsure, axis=1, keepdims=True), np.inf, gained) / self.temperature

    def reach_of_residuals(self):
        if self.task == "residual":
            sizes = np.maximum(self.operand, np.abs(self.wanted + self.operand))
        else:
            sizes = np.abs(self.wanted)
        if self.sample.map in WITH_SUPPORT:
            sizes = np.maximum(np.maximum(sizes, np.abs(self.wanted)), self.top)
            if self.sample.map is sx.entmax and self.dtype == "float64":
                sizes = np.where(self.alpha > 2, np.maximum(sizes, 1.0), sizes)
        return self.or_nearly_zero(self.reach(tolerances.residual_bound, sizes), sizes)

    def reach_of_losses(self):
        """From |x - max x| where p or y use it; and from the top, which counts where y does not sum to one."""
        if self.task.startswith("cross_entropy"):
            return self.reach(tolerances.cross_entropy_bound, np.abs(self.wanted))
        used, missing = self.weights[:, :-1] > 0, 0.0
        if self.sample.has_classes:
            used[np.arange(len(used)), self.plain.operand] = True
        else:
            used |= self.operand != 0
            top = np.max(self.sample.sign * self.entered, axis=1)
            missing = np.where(np.isfinite(top), top, 0.0) * (1.0 - self.operand.sum(axis=1)) / self.temperature[:, 0]
        gaps = np.where(used & np.isfinite(self.entered[:, :-1]), np.abs(self.gaps[:, :-1]), 1.0)
        sizes = np.maximum(np.maximum(1.0, gaps.max(axis=1)), np.abs(missing))
        return np.where(np.isinf(sizes), np.inf, self.reach(tolerances.linear_bound, sizes))

    def reach_of_maxima(self):
        """From the scores that are used, and the temperature, which multiplies what they add."""
        gaps = np.where((self.weights > 0) & np.isfinite(self.gaps), np.abs(self.gaps), 1.0).max(axis=1)
        with_top = np.abs(np.where(np.isfinite(self.wanted), self.wanted, 1.0))
        sizes = np.maximum(np.maximum(gaps, 1.0) * self.temperature[:, 0], with_top)
        return np.where(np.isinf(sizes), np.inf, self.reach(tolerances.linear_bound, sizes))

    # -- comparing ----------------------------------------------------------------------------------------------------

    def assert_near(self, got):
        sample = self.sample
        dtype = np.dtype(np.int64) if self.task == "support_size" else numpy_dtype(self.dtype)
        assert got.shape == self.shape(), f"{sample}: shape {got.shape}"
        assert got.dtype.newbyteorder("=") == dtype, f"{sample}: dtype {got.dtype}"
        with np.errstate(all="ignore"):
            if self.task == "support_size":
                self.assert_counted(got)
            elif self.task == "smooth_max":
                self.compare(np.asarray(got, np.float64).reshape(-1), self.wanted, self.reach_of_maxima())
            elif self.task in LOSSES:
                self.assert_losses(np.asarray(got, np.float64))
            else:
                self.assert_entries(sample.rows(got).astype(np.float64))

    def assert_counted(self, got):
        """A support size counts the weights that the kernel gives, which other samples hold to the formulas."""
        weights = replace(self.sample, task="value").result()
        wanted = np.count_nonzero(weights, axis=self.sample.axes)
        assert np.array_equal(got, wanted), f"{self.sample}: {got}, not {wanted}"

    def shape(self):
        if self.task in LOSSES and self.sample.arguments["reduction"] != "none":
            return ()
        return self.sample.batch if self.task in BY_ROW else self.sample.x.shape

    def assert_entries(self, got):
        reach = {"value": self.reach_of_values, "vjp": self.reach_of_products, "jvp": self.reach_of_products}
        self.compare(got, self.wanted, reach.get(self.task, self.reach_of_residuals)())
        if self.task == "value" and not self.sample.is_log:
            self.assert_support(got)

    def assert_support(self, got):
        far = np.abs(self.distances[:, :-1]) > 2 * tolerances.boundary(self.dtype)
        normal = self.wanted >= tolerances.smallest_normal(self.dtype)
        wrong = far & (((self.wanted == 0) & (got != 0)) | (normal & (got == 0))) & np.isfinite(self.wanted)
        assert not np.any(wrong), f"{self.sample}: the support, at {np.argwhere(wrong)[:3].tolist()}"

    def assert_losses(self, got):
        """By rows, or reduced. Where a term is beyond float64 there is nothing to compare with."""
        share = self.shares()
        reach = self.reach_of_losses() * np.where(share == 0, 1.0, share) + ulps(self.dtype, self.wanted)
        reduction = self.sample.arguments["reduction"]
        if reduction == "none":
            known = np.isfinite(reach)
            self.compare(got.reshape(-1)[known], self.wanted[known], reach[known])
        elif np.all(np.isfinite(reach)):
            divisor = self.divisor(share) if reduction == "mean" else 1.0
            noise = len(share) * 2.0**-52 * np.sum(np.abs(self.wanted))
            wanted, reach = np.sum(self.wanted) / divisor, (np.sum(reach) + noise) / divisor
            self.compare(got.reshape(1), wanted.reshape(1), reach + ulps(self.dtype, wanted))

    def divisor(self, share):
        if not self.sample.has_classes:
            return len(share)
        return share.sum() if np.any(share) else 1.0

    def shares(self):
        """How much the loss of each row counts."""
        given, classes = self.sample.arguments, self.plain.operand
        share = np.ones(len(self.wanted))
        if self.sample.has_classes and "weight" in given:
            share = given["weight"][classes]
        return share * (classes != given["ignore_index"]) if "ignore_index" in given else share

    def compare(self, got, wanted, reach):
        """NaN and infinities where they belong, numbers within reach; what the dtype cannot show may be either."""
        huge = tolerances.largest(self.dtype) / 2
        same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))
        too_large = (np.abs(wanted) > huge) & (np.abs(got) > huge) & (np.sign(got) == np.sign(wanted))
        bad = ~(same | too_large | (np.isfinite(wanted) & (np.abs(got - wanted) <= reach)))
        if np.any(bad):
            at = tuple(index[0] for index in np.nonzero(bad))
            times = np.abs(got - wanted)[at] / np.broadcast_to(reach, got.shape)[at]
            note = f"{np.float64(got[at])}, not {np.float64(wanted[at])}, {times:.3g} times the bound"
            raise AssertionError(f"{self.sample}: at {list(map(int, at))} {note}, {np.sum(bad)} such")


def largest(rows):
    return rows.max(axis=1, keepdims=True)


def sums(rows):
    return rows.sum(axis=1, keepdims=True)


def positive(numbers):
    return np.where(numbers > 0, numbers, 1.0)
