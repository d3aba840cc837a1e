// What plain float rows are finished with once their tops and sums are known: the numbers that their entries are multiplied
// or shifted by, for eight rows at a time. The operations are those of Softmax, lane by lane. No entry is looked at here.
#pragma once

#include "softmax.h"

namespace softplex::SOFTPLEX_ISA {

// To even at ties, as rint.
INLINE Doubles nearest_integers(const Doubles& v) {
    const Doubles magic = all(ExpOf<double>::magic);
    return (v + magic) - magic;
}

struct PlainRows {
    static constexpr int COUNT = 8;
    static constexpr unsigned ALL = 0xff;
    using C = ExpOf<float>;

    Doubles tops, origins, residues;

    explicit INLINE PlainRows(const Doubles& the_tops) : tops(the_tops) {
        origins = nearest_integers(tops * all(static_cast<double>(C::log2e)));
        residues = (tops - origins * all(LN2_HEAD)) - origins * all(LN2_REST);
    }
    // What is known of others, row by row, but for the `kept` rows.
    INLINE void take_others(const PlainRows& others, unsigned kept) {
        double own[COUNT], found[COUNT];
        store(own, tops);
        store(found, others.tops);
        for (int r = 0; r < COUNT; ++r)
            if ((kept >> r & 1u) == 0) own[r] = found[r];
        *this = PlainRows(load(own));
    }
    // What Powers knows of each row.
    INLINE void put_powers(float* magic, float* floor) const {
        store_eight(magic, all(static_cast<double>(C::magic + C::bias)) - origins);
        store_eight(floor, origins * all(static_cast<double>(C::ln2)) + all(static_cast<double>(C::faint)));
    }
    // Of which rows of n entries no term is out of range that is to these origins.
    INLINE DoubleMask reached_from(const Doubles& guessed, Index n) const {
        const Doubles apart = tops - guessed * all(static_cast<double>(C::ln2));
        return (all(-C::reach) <= apart) & (apart <= all(Powers::reach_above(n)));
    }
    INLINE bool are_reached_from(const Doubles& guessed, Index n) const { return bits(reached_from(guessed, n)) == ALL; }
    // 2^(guessed - origin), by which terms to the guessed origins are to be multiplied.
    INLINE Doubles factors(const Doubles& guessed) const {
        return times_power_of_two(all(1.0), (guessed - origins) + all(ExpOf<double>::magic));
    }
    // Rows of which the leading term is so small a part that it is taken as it was rounded.
    static INLINE unsigned crowded(const Doubles& sums) {
        return bits(all(Softmax<float>::CROWDED) <= sums * all(UNBIASED<float>));
    }
    // factor / sum as two floats, and the weight of a leading entry. `ties` is 0 for crowded rows.
    INLINE void put_scales(const Pair<Doubles>& sums, const Doubles& leading, const Doubles& ties, const Doubles& factors, float* hi,
                           float* lo, float* top) const {
        const Doubles unit = units();
        Pair<Doubles> exact = two_sum(sums.hi, ties * (unit - leading));
        exact.lo = sums.lo + exact.lo;
        const Pair<Doubles> scales = Softmax<float>::Scale::quotients(factors, exact);
        store_eight(hi, scales.hi);
        store_eight(lo, scales.lo);
        store_eight(top, unit / (exact.hi + exact.lo));
    }
    // What the exact terms of the tops would be.
    INLINE Doubles units() const { return exp(residues) * all(1.0 / UNBIASED<float>); }
    // The sums of exp(x - top) over all but the leading entry.
    INLINE Doubles others(const Pair<Doubles>& sums, const Doubles& leading) const {
        const Pair<Doubles> rest = two_sum(sums.hi, -leading);
        return (rest.hi + (sums.lo + rest.lo)) * all(UNBIASED<float>) / exp(residues);
    }
    // Rows of which such a sum has kept its digits. Of the rest it has to be found again without the leading term.
    static INLINE unsigned clear(const Doubles& others) { return bits(all(Softmax<float>::CLEAR) <= others); }
    static INLINE Doubles log1p_of_others(const Doubles& others) {
        const Doubles usual = short_log1p(others);
        return clear(others) == ALL ? usual : select(all(Softmax<float>::CLEAR) <= others, usual, log1p(others));
    }
    // log sum exp(x - top) as two floats.
    static INLINE void put_shifts(const Doubles& others, float* hi, float* lo) {
        const Doubles shift = log1p_of_others(others), head = widened(narrowed(shift, shift)).low;
        store_eight(hi, head);
        store_eight(lo, shift - head);
    }
};

}  // namespace softplex::SOFTPLEX_ISA
