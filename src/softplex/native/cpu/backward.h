// The derivative of a loss in the scores from that in the weights, the weights being given: s (g - <s, g> / sum s) with s
// the slopes at p. It takes two walks, the second through the caches. No scores are looked at here, and no weight is
// computed.
//
// What weighs nothing gets nothing, and its cotangent counts for nothing, whatever it is. A weight that is NaN makes the
// row NaN.
#pragma once

#include "entmax.h"
#include "short_rows.h"
#include "softmax.h"

namespace softplex::SOFTPLEX_ISA {

// -- slopes from weights -------------------------------------------------------------------------------------------------

// NaN where p is.
struct WeightSlopes {
    static constexpr bool sum_to_one = true;
    template <class V>
    static INLINE V of(const V& p) {
        return p;
    }
};
struct UnitSlopes {
    static constexpr bool sum_to_one = false;
    template <class V>
    static INLINE V of(const V& p) {
        const V zero = every<V>(0);
        return select(zero < p, every<V>(1), larger(zero, p));
    }
};
struct RootSlopes {
    static constexpr bool sum_to_one = false;
    template <class V>
    static INLINE V of(const V& p) {
        return sqrt(larger(every<V>(0), p));
    }
};
template <class Pieces, class T>
struct SlopesOf {
    static constexpr bool sum_to_one = false;
    Pieces pieces;
    INLINE Doubles of(const Doubles& p) const { return select(unordered(p, p), p, pieces.template slope<T>(p)); }
};

// -- a row ---------------------------------------------------------------------------------------------------------------

// Floats may be multiplied without a look at each product.
INLINE bool is_moderate(double x) { return __builtin_fabs(x) < 0x1p100; }
INLINE bool is_plain(double mean, double outer) {
    return is_moderate(mean) && is_moderate(outer) && __builtin_fabs(outer) > 0x1p-100;
}

// What short rows are multiplied by, as floats: a sum or mean of each, and its outer factor.
struct Multipliers {
    static constexpr int ROWS = ShortRows::ROWS, FEW = ShortRows::FEW;
    float numbers[ROWS], outer[ROWS];
    bool is_scaled = false;

    // means(first) are those of eight rows. False if one of the rows needs more care.
    template <class Means>
    INLINE bool set(const ShortRows& rows, Means means) {
        const Doubles most = all(0x1p100), least = all(0x1p-100);
        unsigned bad = 0;
        for (int r = 0; r < rows.count; r += FEW) {
            const Doubles mean = means(r), factors = load(rows.outer + r), size = magnitude(factors);
            const unsigned plain = bits(magnitude(mean) < most) & bits(size < most) & bits(least < size);
            const int left = rows.count - r;
            bad |= ~plain & (left < FEW ? (1u << left) - 1u : 0xffu);
            is_scaled |= bits(factors == all(1.0)) != 0xffu;
            store_eight(numbers + r, mean);
            store_eight(outer + r, factors);
        }
        return bad == 0;
    }
};

// Asks the memory for what a walk over two vectors comes to next.
template <class T>
INLINE void ask_ahead_of(const T* place, bool is_far) {
    constexpr int AHEAD = 4096 / sizeof(T);
    if (!is_far) return;
    __builtin_prefetch(place + AHEAD);
    __builtin_prefetch(place + AHEAD + Lanes<T>::count);
}

template <class T>
INLINE bool is_all_zero(const Vector<T>& v) {
    return bits(v == all(T(0))) == (1u << Lanes<T>::count) - 1u;
}

// In double precision: any slopes, cotangents of any size.
template <class Slopes, class T>
struct CarefulBackward {
    using V = Vector<T>;
    static constexpr int GROUPS = sizeof(T) == 4 ? 2 : 1;
    const Row<T>& row;
    Team& team;
    const Slopes slopes;

    APART void run() const {
        const Totals sums = team.sum(row.n, [&](Index begin, Index end) APART { return sums_of(begin, end); });
        const double whole = Slopes::sum_to_one ? 1.0 : sums.first.value();
        if (whole == 0.0) return write_zeros(row, team);
        const Doubles mean = all(sums.second.value() / whole), outer = all(row.outer());
        team.each_block(row.n, [&](Index begin, Index end) APART {
            write<T>(row, begin, end, [&](Index i, int count) BODY {
                const V p = take<T>(row.x + i, count, T(0));
                if (is_all_zero<T>(p)) return p;
                Doubles weights[GROUPS], g[GROUPS];
                split(p, weights);
                split(take<T>(row.operand + i, count, T(0)), g);
                for (int j = 0; j < GROUPS; ++j) g[j] = (slopes.of(weights[j]) * (g[j] - mean)) * outer;
                return select(p == all(T(0)), all(T(0)), joined(g));
            });
        });
    }

  private:
    INLINE Totals sums_of(Index begin, Index end) const {
        Sum<T> whole, products;
        each_vector_once<T>(begin, end, [&](Index i, int count) BODY {
            const V p = take<T>(row.x + i, count, T(0));
            if (is_all_zero<T>(p)) return;
            Doubles weights[GROUPS], g[GROUPS];
            split(p, weights);
            split(select(p == all(T(0)), p, take<T>(row.operand + i, count, T(0))), g);
            for (int j = 0; j < GROUPS; ++j) {
                const Doubles s = slopes.of(weights[j]);
                whole.add(s);
                products.add_product(s, g[j]);
            }
        });
        return {whole.total(), products.total(), {}};
    }
};

// Float rows in floats but for the sums, of which two vectors are added before they are widened. Where nothing is weighed a
// cotangent that is no number makes the sum none: then the row needs more care.
template <class Slopes>
struct PlainBackward {
    static constexpr int LANES = 16;
    static constexpr Index SKIPPING = 512;

    struct Sums {
        Sum<float> whole, products;

        INLINE void add(const Floats& p, const Floats& q, const Floats& g, const Floats& h) {
            const Floats s = Slopes::of(p), t = Slopes::of(q);
            products.add(fma(t, h, s * g));
            if constexpr (!Slopes::sum_to_one) whole.add(s + t);
        }
        template <bool SKIPS>
        INLINE void add(const float* weights, const float* g, bool is_far) {
            ask_ahead_of(weights, is_far);
            const Floats p = load(weights), q = load(weights + LANES);
            if (SKIPS && is_all_zero<float>(p) && is_all_zero<float>(q)) return;
            if (!SKIPS) ask_ahead_of(g, is_far);
            add(p, q, load(g), load(g + LANES));
        }
        // At most two vectors that end the row.
        INLINE void add_last(const float* weights, const float* g, Index count) {
            const int first = static_cast<int>(count < LANES ? count : LANES), second = static_cast<int>(count) - first;
            add(take<float>(weights, first, 0.0f), load_some<float>(weights + first, second, 0.0f),
                take<float>(g, first, 0.0f), load_some<float>(g + first, second, 0.0f));
        }
        template <bool SKIPS>
        INLINE void add_all(const float* weights, const float* g, Index begin, Index end, bool is_far) {
            Index i = begin;
            for (; i + 2 * LANES <= end; i += 2 * LANES) add<SKIPS>(weights + i, g + i, is_far);
            if (i < end) add_last(weights + i, g + i, end - i);
        }
        template <int VECTORS>
        INLINE void add_short(const float* weights, const float* g, Index n, bool is_far) {
            if constexpr (VECTORS == 0) return add_all<false>(weights, g, 0, n, is_far);
            const int last = static_cast<int>(n) - (VECTORS - 1) * LANES;
            const Floats end = take<float>(weights + n - last, last, 0.0f), h = take<float>(g + n - last, last, 0.0f);
            if constexpr (VECTORS == 1) add(end, all(0.0f), h, all(0.0f));
            if constexpr (VECTORS == 2) add(load(weights), end, load(g), h);
        }
        INLINE Totals totals() const { return {whole.total(), products.total(), {}}; }
    };

    static INLINE double mean_of(const Totals& sums) {
        return Slopes::sum_to_one ? sums.second.hi : sums.second.hi / sums.first.hi;
    }
    // Nothing overflows where slopes are at most 1. Adding 0 takes the sign from zeros.
    template <bool SCALES>
    static INLINE Floats result(const Floats& p, const Floats& g, const Floats& mean, const Floats& outer) {
        const Floats s = Slopes::of(p), zero = all(0.0f);
        if constexpr (SCALES) return fma(s * (g - mean), outer, zero);
        return s * (g - mean) + zero;
    }
    template <bool SKIPS, bool SCALES>
    static INLINE Floats result_at(const float* weights, const float* g, int count, const Floats& mean, const Floats& outer) {
        const Floats p = take<float>(weights, count, 0.0f);
        if (SKIPS && is_all_zero<float>(p)) return p;
        const Floats found = result<SCALES>(p, take<float>(g, count, 0.0f), mean, outer);
        // Cotangents that the sums skipped may be no numbers.
        return SKIPS ? select(all(0.0f) < p, found, all(0.0f)) : found;
    }

    // False, and nothing done, if the row needs more care.
    static INLINE bool run(const Row<float>& row, Team& team) {
        // Of long sparse rows only what weighs something is fetched: in short ones a wrong guess costs more than it saves.
        const bool skips = !Slopes::sum_to_one && row.n >= SKIPPING;
        return skips ? run_row<!Slopes::sum_to_one>(row, team) : run_row<false>(row, team);
    }
    template <bool SKIPS>
    static APART bool run_row(const Row<float>& row, Team& team) {
        const Totals sums = team.sum(row.n, [&](Index begin, Index end) APART {
            Sums found;
            found.template add_all<SKIPS>(row.x, row.operand, begin, end, row.comes_from_afar);
            return found.totals();
        });
        const double middle = mean_of(sums);
        if (!is_plain(middle, row.outer())) return false;
        const Floats mean = all(static_cast<float>(middle)), outer = all(static_cast<float>(row.outer()));
        team.each_block(row.n, [&](Index begin, Index end) APART {
            // Own copies, which no store can change.
            const Row<float> own = row;
            const Floats own_mean = mean, own_outer = outer;
            write<float>(own, begin, end, [&](Index i, int count) BODY {
                return result_at<SKIPS, true>(own.x + i, own.operand + i, count, own_mean, own_outer);
            });
        });
        return true;
    }

    // The same for a few short rows.
    static INLINE bool run(const ShortRows& rows) {
        return rows.with_vectors([&](auto vectors) BODY { return run_short<decltype(vectors)::value>(rows); });
    }
    template <int VECTORS>
    static APART bool run_short(const ShortRows& rows) {
        constexpr int ROWS = ShortRows::ROWS;
        Doubles wholes[ROWS], products[ROWS];
        for (int r = 0; r < rows.count; ++r) {
            Sums found;
            found.template add_short<VECTORS>(rows.x[r], rows.operand[r], rows.n, rows.streams);
            products[r] = found.products.lanes();
            if constexpr (!Slopes::sum_to_one) wholes[r] = found.whole.lanes();
        }
        for (int r = rows.count; r % ShortRows::FEW != 0; ++r) products[r] = wholes[r] = all(1.0);
        Multipliers by;
        const bool is_plain = by.set(rows, [&](int r) BODY {
            return Slopes::sum_to_one ? sums_of(products + r) : sums_of(products + r) / sums_of(wholes + r);
        });
        if (!is_plain) return false;
        if (by.is_scaled)
            write_short<VECTORS, true>(rows, by);
        else
            write_short<VECTORS, false>(rows, by);
        return true;
    }
    template <int VECTORS, bool SCALES>
    static INLINE void write_short(const ShortRows& rows, const Multipliers& by) {
        for (int r = 0; r < rows.count; ++r) {
            const Floats mean = all(by.numbers[r]), outer = all(by.outer[r]);
            const float *const p = rows.x[r], *const g = rows.operand[r];
            rows.write<VECTORS>(r, [&](Index i, int count) BODY { return result_at<false, SCALES>(p + i, g + i, count, mean, outer); });
        }
    }
};

// -- the logarithm -------------------------------------------------------------------------------------------------------

// g - p sum g from the logarithms l of the weights, for l > -inf.
template <class T>
struct LogBackward {
    using V = Vector<T>;
    static constexpr int LANES = Lanes<T>::count, GROUPS = sizeof(T) == 4 ? 2 : 1;

    static INLINE V where_weighed(const V& l, const V& v) { return select(l == all(-INFINITE<T>), all(T(0)), v); }

    // Of the cotangents that count; NaN in l makes it NaN. Two vectors of floats are added before they are widened.
    struct Sums {
        Sum<T> sum;
        decltype(unordered(V(), V())) bad = unordered(all(T(0)), all(T(0)));

        INLINE void add(const V& l, const V& m, const V& g, const V& h) {
            bad = bad | unordered(l, m);
            if constexpr (sizeof(T) == 4) {
                sum.add(where_weighed(l, g) + where_weighed(m, h));
            } else {
                sum.add(where_weighed(l, g));
                sum.add(where_weighed(m, h));
            }
        }
        // keep(i, l, count) for each vector.
        template <class Keep>
        INLINE void add(const T* logarithms, const T* g, Index begin, Index end, bool is_far, Keep keep) {
            Index i = begin;
            for (; i + 2 * LANES <= end; i += 2 * LANES) {
                ask_ahead_of(logarithms + i, is_far);
                ask_ahead_of(g + i, is_far);
                const V l = load(logarithms + i), m = load(logarithms + i + LANES);
                add(l, m, load(g + i), load(g + i + LANES));
                keep(i, l, LANES);
                keep(i + LANES, m, LANES);
            }
            if (i >= end) return;
            add_last(logarithms + i, g + i, end - i);
            each_vector_once<T>(i, end, [&](Index at, int count) BODY {
                keep(at, take<T>(logarithms + at, count, -INFINITE<T>), count);
            });
        }
        INLINE void add_last(const T* logarithms, const T* g, Index count) {
            const int first = static_cast<int>(count < LANES ? count : LANES), second = static_cast<int>(count) - first;
            add(take<T>(logarithms, first, -INFINITE<T>), load_some<T>(logarithms + first, second, -INFINITE<T>),
                take<T>(g, first, T(0)), load_some<T>(g + first, second, T(0)));
        }
        template <int VECTORS>
        INLINE void add_short(const float* logarithms, const float* g, Index n, bool is_far) {
            if constexpr (VECTORS == 0) return add(logarithms, g, 0, n, is_far, [](Index, const V&, int) BODY {});
            const int last = static_cast<int>(n) - (VECTORS - 1) * LANES;
            const V end = take<T>(logarithms + n - last, last, -INFINITE<T>), h = take<T>(g + n - last, last, T(0));
            if constexpr (VECTORS == 1) add(end, all(-INFINITE<T>), h, all(T(0)));
            if constexpr (VECTORS == 2) add(load(logarithms), end, load(g), h);
        }
        INLINE Total total() const {
            if (any(bad)) return {__builtin_nan(""), 0.0};
            return sum.total();
        }
    };

    // exp(l), 0 where it would not be a normal float.
    static INLINE Powers powers() { return Powers(ExpOf<float>::bias * ExpOf<float>::ln2); }
    static INLINE Floats result_at(const Powers& power, const float* logarithms, const float* g, int count, const Floats& total,
                                   const Floats& outer) {
        return result(power, take<float>(logarithms, count, -INFINITE<float>), take<float>(g, count, 0.0f), total, outer);
    }
    static INLINE Floats result(const Powers& power, const Floats& l, const Floats& g, const Floats& total, const Floats& outer) {
        return where_weighed(l, fma(-power(l), total, g) * outer);
    }

    static void run(const Row<T>& row, Team& team) {
        if constexpr (sizeof(T) == 4)
            if (run_in_floats(row, team)) return;
        carefully(row, team);
    }

    // False, and nothing done, if the row needs more care.
    static INLINE bool run_in_floats(const Row<float>& row, Team& team) {
        return row.terms == nullptr || row.terms == row.result ? run_row<false>(row, team) : run_row<true>(row, team);
    }
    // What weighs nothing is kept as -1.
    static INLINE Floats weight_to_keep(const Powers& power, const Floats& l) {
        return select(l == all(-INFINITE<float>), all(-1.0f), power(l));
    }
    template <bool KEEPS>
    static APART bool run_row(const Row<float>& row, Team& team) {
        const Totals sums = team.sum(row.n, [&](Index begin, Index end) APART {
            const Powers power = powers();
            float* const kept = row.terms;
            Sums found;
            found.add(row.x, row.operand, begin, end, row.comes_from_afar, [&](Index i, const Floats& l, int count) BODY {
                if constexpr (KEEPS) put<float>(kept + i, weight_to_keep(power, l), count);
            });
            return Totals{found.total(), {}, {}};
        });
        const double sum = sums.first.hi;
        if (!is_plain(sum, row.outer())) return false;
        const Floats total = all(static_cast<float>(sum)), outer = all(static_cast<float>(row.outer()));
        team.each_block(row.n, [&](Index begin, Index end) APART {
            const Row<float> own = row;
            const Powers power = powers();
            const Floats own_total = total, own_outer = outer;
            write<float>(own, begin, end, [&](Index i, int count) BODY {
                if constexpr (!KEEPS) return result_at(power, own.x + i, own.operand + i, count, own_total, own_outer);
                const Floats p = take<float>(own.terms + i, count, -1.0f), g = take<float>(own.operand + i, count, 0.0f);
                return select(p < all(0.0f), all(0.0f), fma(-p, own_total, g) * own_outer);
            });
        });
        return true;
    }

    // The same for a few short rows.
    static INLINE bool run(const ShortRows& rows) {
        return rows.with_vectors([&](auto vectors) BODY { return run_short<decltype(vectors)::value>(rows); });
    }
    template <int VECTORS>
    static APART bool run_short(const ShortRows& rows) {
        constexpr int ROWS = ShortRows::ROWS;
        Doubles sums[ROWS];
        auto bad = unordered(all(0.0f), all(0.0f));
        for (int r = 0; r < rows.count; ++r) {
            Sums found;
            found.template add_short<VECTORS>(rows.x[r], rows.operand[r], rows.n, rows.streams);
            sums[r] = found.sum.lanes();
            bad = bad | found.bad;
        }
        Multipliers by;
        for (int r = rows.count; r % ShortRows::FEW != 0; ++r) sums[r] = all(0.0);
        if (any(bad) || !by.set(rows, [&](int r) BODY { return sums_of(sums + r); })) return false;
        const Powers power = powers();
        for (int r = 0; r < rows.count; ++r) {
            const Floats total = all(by.numbers[r]), outer = all(by.outer[r]);
            const float *const l = rows.x[r], *const g = rows.operand[r];
            rows.write<VECTORS>(r, [&](Index i, int count) BODY { return result_at(power, l + i, g + i, count, total, outer); });
        }
        return true;
    }

  private:
    // In double precision: cotangents of any size.
    static APART void carefully(const Row<T>& row, Team& team) {
        const Totals sums = team.sum(row.n, [&](Index begin, Index end) APART {
            Sum<T> sum;
            bool is_bad = false;
            each_vector_once<T>(begin, end, [&](Index i, int count) BODY {
                const V l = take<T>(row.x + i, count, -INFINITE<T>);
                is_bad |= any(unordered(l, l));
                sum.add(where_weighed(l, take<T>(row.operand + i, count, T(0))));
            });
            return Totals{is_bad ? Total{NAN_OF_ROW, 0.0} : sum.total(), {}, {}};
        });
        const Doubles total = all(sums.first.value()), outer = all(row.outer());
        team.each_block(row.n, [&](Index begin, Index end) APART {
            write<T>(row, begin, end, [&](Index i, int count) BODY {
                const V l = take<T>(row.x + i, count, -INFINITE<T>);
                Doubles logarithms[GROUPS], g[GROUPS];
                split(l, logarithms);
                split(take<T>(row.operand + i, count, T(0)), g);
                for (int j = 0; j < GROUPS; ++j) g[j] = fma(-exp(logarithms[j]), total, g[j]) * outer;
                return where_weighed(l, joined(g));
            });
        });
    }
    static constexpr double NAN_OF_ROW = __builtin_nan("");
};

// -- every map -----------------------------------------------------------------------------------------------------------

template <class T>
struct Backward {
    // Rows up to it come several at a time.
    static constexpr Index SHORT = sizeof(T) == 4 ? 128 : 0;

    template <class Slopes>
    static INLINE void from_weights(const Row<T>& row, Team& team, const Slopes& slopes) {
        CarefulBackward<Slopes, T>{row, team, slopes}.run();
    }
    template <class Slopes>
    static INLINE void from_plain_weights(const Row<T>& row, Team& team) {
        if constexpr (sizeof(T) == 4)
            if (PlainBackward<Slopes>::run(row, team)) return;
        from_weights(row, team, Slopes());
    }

    static void run(Map map, double alpha, const Row<T>& row, Team& team) {
        if (map == Map::log_softmax) return LogBackward<T>::run(row, team);
        if (map == Map::softmax || alpha == 1.0) return from_plain_weights<WeightSlopes>(row, team);
        if (alpha == 2.0) return from_plain_weights<UnitSlopes>(row, team);
        if (alpha == 1.5) return from_plain_weights<RootSlopes>(row, team);
        if (alpha < __builtin_inf()) return from_weights(row, team, SlopesOf<Entmax, T>{Entmax(alpha)});
        from_weights(row, team, SlopesOf<Maxima, T>{Maxima(alpha)});
    }

    static bool run(Map map, const ShortRows& rows) {
        if (map == Map::log_softmax) return LogBackward<float>::run(rows);
        if (map == Map::softmax) return PlainBackward<WeightSlopes>::run(rows);
        return map == Map::sparsemax ? PlainBackward<UnitSlopes>::run(rows) : PlainBackward<RootSlopes>::run(rows);
    }
};

}  // namespace softplex::SOFTPLEX_ISA
