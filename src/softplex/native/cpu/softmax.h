// Softmax and its logarithm (Bridle 1990): p_i = exp(x_i) / sum_j exp(x_j), Omega(p) = sum p log p.
//
// The rounding error of x - max never reaches the exponential: a float row is reduced by multiples of ln 2 before it is
// shifted (x = k ln 2 + r is exact, and so is the difference of two such r), a double row keeps the error beside the
// difference. The logarithm is (x - max) - log1p(sum over the others), both of one sign.
#pragma once

#include <type_traits>

#include "faint.h"
#include "row.h"
#include "unwritten.h"

namespace softplex::SOFTPLEX_ISA {

// -- 2^bias exp((x - top) / temperature) --------------------------------------------------------------------------------

// Float scores near 0: the multiples of ln 2 are taken from x and from the top, what is left is subtracted exactly. The
// term of the top is 2^bias exactly.
struct NearExponential {
    using C = ExpOf<float>;
    static constexpr bool FINDS_TOP = false;
    static constexpr double residue = 0.0;
    // One for all entries, or for each entry its own.
    template <class V>
    struct Constants {
        V top, floor, top_multiple, top_rest;

        explicit INLINE Constants(const V& scores) : top(scores) {
            const V magic = every<V>(C::magic);
            floor = top + every<V>(C::faint);
            top_multiple = fma(top, every<V>(C::log2e), magic) - magic;
            top_rest = less_ln2_times(top_multiple, top);
        }
        INLINE Constants(const V& a, const V& b, const V& c, const V& d) : top(a), floor(b), top_multiple(c), top_rest(d) {}
    };
    const Constants<Floats> own;

    explicit INLINE NearExponential(const Row<float>& row) : own(all(static_cast<float>(row.top))) {}
    explicit INLINE NearExponential(const Constants<Floats>& constants) : own(constants) {}
    template <class W>
    static INLINE W terms(const W& x, const Constants<W>& at) {
        const W magic = every<W>(C::magic + C::bias);
        const W shifted = fma(x - at.top, every<W>(C::log2e), magic);
        const W k = shifted - magic;
        const W r = less_ln2_times(k + at.top_multiple, x) - at.top_rest;
        // Zeros for what is too far below to be computed, or to be multiplied fast.
        return times_power_of_two_above(at.floor, x, reduced_exp(r, k), shifted);
    }
    template <class W>
    INLINE W operator()(const W& x) const {
        constexpr int COUNT = sizeof(W) / WIDTH;
        return terms(x, Constants<W>(spread<COUNT>(own.top), spread<COUNT>(own.floor), spread<COUNT>(own.top_multiple),
                                     spread<COUNT>(own.top_rest)));
    }
    INLINE Pair<Floats> gap(const Floats& x) const { return {x - own.top, all(0.0f)}; }
};

// The same where the top is not yet known: 2^bias exp(x) / 2^origin. The origin, an integer not far from the top's, changes
// no bit of what the power of 2 multiplies, so that it may be guessed. The term of the top is rounded as others are.
struct Powers {
    using C = ExpOf<float>;
    static constexpr bool FINDS_TOP = true;
    double origin = 0.0, residue = 0.0;
    Floats magic, floor, top;

    explicit INLINE Powers(double score) : origin(__builtin_rint(score * C::log2e)) {
        magic = all(static_cast<float>((C::magic + C::bias) - origin));
        floor = all(static_cast<float>(origin * C::ln2 + C::faint));
    }
    INLINE Powers(const Floats& the_magic, const Floats& the_floor) : magic(the_magic), floor(the_floor) {}
    INLINE Powers(float the_magic, float the_floor) : Powers(all(the_magic), all(the_floor)) {}
    // Whether no term of a row gets out of range, nor what its terms are multiplied by.
    INLINE bool reaches(double score, Index n) const {
        const double apart = score - origin * C::ln2;
        return -C::reach <= apart && apart <= reach_above(n);
    }
    // The longer the row, the larger a sum: up to some 2^98 it leaves digits to its reciprocal.
    static INLINE double reach_above(Index n) { return (C::octaves - bits_of_length(n)) * C::ln2; }
    static INLINE int bits_of_length(Index n) { return 64 - __builtin_clzll(static_cast<unsigned long long>(n | 1)); }
    static INLINE Powers at_top(double score) {
        Powers powers(score);
        powers.top = all(static_cast<float>(score));
        powers.residue = (score - powers.origin * LN2_HEAD) - powers.origin * LN2_REST;
        return powers;
    }
    template <class W>
    INLINE W operator()(const W& x) const {
        constexpr int COUNT = sizeof(W) / WIDTH;
        const W low = spread<COUNT>(floor), shift = spread<COUNT>(magic);
        const W shifted = fma(x, every<W>(C::log2e), shift);
        const W k = shifted - shift;
        return times_power_of_two_above(low, x, reduced_exp(less_ln2_times(k, x), k), shifted);
    }
    INLINE Pair<Floats> gap(const Floats& x) const { return {x - top, all(0.0f)}; }
};

// Float scores whose top is far from 0: where exp does not vanish x - top is exact.
struct FarExponential {
    using C = ExpOf<float>;
    static constexpr bool FINDS_TOP = false;
    static constexpr double residue = 0.0;
    Floats top;

    explicit INLINE FarExponential(const Row<float>& row) : top(all(static_cast<float>(row.top))) {}
    template <int COUNT>
    INLINE Pack<NativeFloats, COUNT> operator()(const Pack<NativeFloats, COUNT>& x) const {
        using V = Pack<NativeFloats, COUNT>;
        const V magic = every<V>(C::magic + C::bias);
        const V gap = x - spread<COUNT>(top), near = larger(every<V>(C::faint), gap);
        const V shifted = fma(near, every<V>(C::log2e), magic);
        const V k = shifted - magic;
        return times_power_of_two_above(every<V>(C::faint), gap, reduced_exp(less_ln2_times(k, near), k), shifted);
    }
    INLINE Pair<Floats> gap(const Floats& x) const { return {x - top, all(0.0f)}; }
};

// Float scores and a temperature, neither too large nor too small: the difference, times the reciprocal of the temperature,
// both with what rounding took.
struct TemperedExponential {
    using C = ExpOf<float>;
    static constexpr bool FINDS_TOP = false;
    static constexpr double residue = 0.0, OCTAVES = 0x1p60;
    // The top and the reciprocal of the temperature: one for all entries, or for each entry its own.
    template <class V>
    struct Constants {
        V top, hi, lo;
    };
    const Constants<Floats> own;

    explicit INLINE TemperedExponential(const Row<float>& row) : own(constants_of(row)) {}
    explicit INLINE TemperedExponential(const Constants<Floats>& constants) : own(constants) {}
    static INLINE bool serves(const Row<float>& row) {
        return __builtin_fabs(row.top) < OCTAVES && 1.0 / OCTAVES < row.temperature && row.temperature < OCTAVES;
    }
    // Of tempered rows: where it serves for these temperatures, if the tops are near 0.
    static INLINE DoubleMask serves(const Doubles& temperatures) {
        const DoubleMask are_other = (temperatures < all(1.0)) | (all(1.0) < temperatures);
        return are_other & (all(1.0 / OCTAVES) < temperatures) & (temperatures < all(OCTAVES));
    }
    template <class V>
    static INLINE Pair<V> quotient(const V& x, const Constants<V>& at) {
        return product(two_sum(x, -at.top), at.hi, at.lo);
    }
    template <class V>
    static INLINE V terms(const V& x, const Constants<V>& at) {
        const V magic = every<V>(C::magic + C::bias);
        const Pair<V> d = quotient(x, at);
        const V near = larger(every<V>(C::faint), d.hi);
        const V shifted = fma(near, every<V>(C::log2e), magic);
        const V k = shifted - magic, r = less_ln2_times(k, near);
        const Pair<V> whole = fast_two_sum(r, fma(k, every<V>(-C::ln2_rest), d.lo));
        const V value = every<V>(1) + reduced_expm1(whole.hi, whole.lo);
        return times_power_of_two_above(every<V>(C::faint), d.hi, value, shifted);
    }
    template <class V>
    INLINE V operator()(const V& x) const {
        constexpr int COUNT = sizeof(V) / WIDTH;
        return terms(x, Constants<V>{spread<COUNT>(own.top), spread<COUNT>(own.hi), spread<COUNT>(own.lo)});
    }
    INLINE Pair<Floats> gap(const Floats& x) const {
        const Pair<Floats> d = quotient(x, own);
        // Far from the top it may be no number.
        const Floats least = all(-0x1p100f);
        return {d.hi, select((least < d.hi) & (least < x - own.top), d.lo, all(0.0f))};
    }

  private:
    static INLINE Constants<Floats> constants_of(const Row<float>& row) {
        const double reciprocal = 1.0 / row.temperature;
        const float head = static_cast<float>(reciprocal);
        return {all(static_cast<float>(row.top)), all(head), all(static_cast<float>(reciprocal - static_cast<double>(head)))};
    }
    // d (head + rest).
    template <class V>
    static INLINE Pair<V> product(const Pair<V>& d, const V& head, const V& rest) {
        if constexpr (HAS_FMA) {
            const V whole = d.hi * head;
            return {whole, fma(d.hi, head, -whole) + fma(d.hi, rest, d.lo * head)};
        }
        const V splitter = every<V>(4097.0f);
        const V d_big = d.hi * splitter, head_big = head * splitter;
        const V d_high = d_big - (d_big - d.hi), head_high = head_big - (head_big - head);
        const V d_low = d.hi - d_high, head_low = head - head_high;
        const V whole = d.hi * head;
        const V error = ((d_high * head_high - whole) + d_high * head_low + d_low * head_high) + d_low * head_low;
        return {whole, error + (d.hi * rest + d.lo * head)};
    }
};

// Double scores: the difference and what rounding took from it, divided by the temperature if there is one.
template <bool TEMPERED>
struct DoubleExponential {
    using C = ExpOf<double>;
    static constexpr bool FINDS_TOP = false;
    static constexpr double residue = 0.0;
    Doubles top, floor, scale, temperature;

    explicit INLINE DoubleExponential(const Row<double>& row) {
        // Above 2^100 the differences of finite scores could overflow although their quotients do not.
        const double quarter = row.temperature > 0x1p100 ? 0.25 : 1.0;
        scale = all(quarter);
        top = all(row.top * quarter);
        // Far enough below the top to weigh nothing, and to differ from a top of any size.
        floor = all((row.top + C::faint) - __builtin_fabs(row.top) * 0x1p-50);
        temperature = all(row.temperature * quarter);
    }
    INLINE Pair<Doubles> gap(const Doubles& x) const {
        Pair<Doubles> d = two_sum(TEMPERED ? x * scale : x, -top);
        if constexpr (TEMPERED) {
            const Doubles quotient = d.hi / temperature;
            const Pair<Doubles> back = two_product(quotient, temperature);
            d = {quotient, (((d.hi - back.hi) - back.lo) + d.lo) / temperature};
        }
        // Far from the top and past the end there is no error worth keeping, and perhaps no number.
        return {d.hi, select(all(C::faint) < d.hi, d.lo, all(0.0))};
    }
    template <int COUNT>
    INLINE Pack<NativeDoubles, COUNT> operator()(const Pack<NativeDoubles, COUNT>& x) const {
        using V = Pack<NativeDoubles, COUNT>;
        if constexpr (!TEMPERED) {
            const Pair<V> d = two_sum(larger(spread<COUNT>(floor), x), spread<COUNT>(-top));
            return where_above(every<V>(C::faint), d.hi, biased_exp(larger(every<V>(C::faint), d.hi), d.lo));
        }
        V e;
        for (int j = 0; j < COUNT / PARTS; ++j) {
            const Pair<Doubles> d = gap(one_of(x, j));
            const Doubles one = where_above(all(C::faint), d.hi, biased_exp(larger(all(C::faint), d.hi), d.lo));
            set_one_of(e, j, one);
        }
        return e;
    }
};

INLINE bool is_near(double top) { return -512.0 < top && top < 512.0; }

// body(exponential) with one whose leading term is exact.
template <class Body>
INLINE auto with_exponential(const Row<float>& row, Body body) {
    if (row.is_tempered) return body(TemperedExponential(row));
    return is_near(row.top) ? body(NearExponential(row)) : body(FarExponential(row));
}
template <class Body>
INLINE auto with_exponential(const Row<double>& row, Body body) {
    // Below some tops there is no room for the floor.
    const bool is_simple = !row.is_tempered && row.top > -0x1p1000;
    return is_simple ? body(DoubleExponential<false>(row)) : body(DoubleExponential<true>(row));
}

// The same with Powers where they serve: what at_once computes without a look at the row.
template <class Body>
INLINE auto with_powers(const Row<float>& row, Body body) {
    if (row.is_tempered) return body(TemperedExponential(row));
    return is_near(row.top) ? body(Powers::at_top(row.top)) : body(FarExponential(row));
}
template <class Body>
INLINE auto with_powers(const Row<double>& row, Body body) {
    return with_exponential(row, body);
}

// (score - top) / temperature of one score in double precision, with its error.
template <class T>
INLINE Pair<Doubles> gap_of(const Row<T>& row, double score) {
    Row<double> one;
    one.temperature = row.temperature;
    one.top = row.top;
    return row.is_tempered ? DoubleExponential<true>(one).gap(all(score)) : DoubleExponential<false>(one).gap(all(score));
}

template <class T>
constexpr double UNBIASED = sizeof(T) == 4 ? 0x1p-50 : 0x1p-512;

// The term of the sink among those of the entries.
template <class T, class Exponential>
INLINE double sink_term(const Row<T>& row, const Exponential& exponential) {
    if (!row.has_sink || row.sink == -__builtin_inf()) return 0.0;
    const Pair<Doubles> gap = gap_of(row, row.sink);
    const Doubles power = biased_exp(larger(all(ExpOf<double>::faint), gap.hi), gap.lo);
    // exp(residue): what the others are multiplied by.
    return first_of(power) * (0x1p-512 / UNBIASED<T>) * exp_of(exponential.residue);
}

// The same of some float rows, one term each.
INLINE Doubles sink_terms(const Doubles& sinks, const Doubles& tops, const Doubles& temperatures) {
    const Pair<Doubles> d = two_sum(sinks, -tops);
    const Doubles gap = d.hi / temperatures, faint = all(ExpOf<double>::faint);
    const Pair<Doubles> back = two_product(gap, temperatures);
    const Doubles error = (((d.hi - back.hi) - back.lo) + d.lo) / temperatures;
    const DoubleMask counts = faint < gap;
    const Doubles power = biased_exp(larger(faint, gap), select(counts, error, all(0.0)));
    return select(counts, power * all(0x1p-512 / UNBIASED<float>), all(0.0));
}

// -- the map -------------------------------------------------------------------------------------------------------------

template <class T>
struct Softmax {
    using V = Vector<T>;
    // Rows up to it are computed by ShortRows, where nothing else is asked for.
    static constexpr Index SHORT = 8 * Lanes<T>::count;
    static constexpr Index STEP = SEVERAL * Lanes<T>::count;

    // 1 / sum as two numbers of the type: the product with either is exact enough.
    struct Scale {
        V hi, lo;
        INLINE Scale(const V& the_hi, const V& the_lo) : hi(the_hi), lo(the_lo) {}
        explicit INLINE Scale(const Total& sum, double factor = 1.0) {
            const Pair<Doubles> quotient = quotients(all(factor), {all(sum.hi), all(sum.lo)});
            hi = all(static_cast<T>(first_of(quotient.hi)));
            lo = all(static_cast<T>(first_of(quotient.lo)));
        }
        // factor / sum, the first rounded to the type.
        static INLINE Pair<Doubles> quotients(const Doubles& factor, const Pair<Doubles>& sum) {
            const Doubles whole = factor / (sum.hi + sum.lo);
            if constexpr (sizeof(T) == 4) {
                const Doubles head = widened(narrowed(whole, whole)).low;
                return {head, whole - head};
            } else {
                // factor - whole * sum, exactly, over the sum.
                const Pair<Doubles> back = two_product(whole, sum.hi);
                return {whole, (((factor - back.hi) - back.lo) - whole * sum.lo) / sum.hi};
            }
        }
        INLINE V operator()(const V& e) const { return weight_of(e, hi, lo); }
    };

    // The exponentials as a pass finds them: kept by the walk that sums them, or computed again.
    template <class Exponential>
    struct Terms {
        const Row<T> row;
        const Exponential exponential;
        const typename Row<T>::Whole sign = row.sign();

        INLINE V computed(Index i, int count) const { return exponential(scores(row, sign, i, count)); }
        INLINE V kept(Index i, int count) const {
            return row.terms != nullptr ? take<T>(row.terms + i, count, T(0)) : computed(i, count);
        }
    };

    // Adds terms to a sum one step after they were stored: from memory floats are widened with half the work.
    struct LateSum {
        const T* before = nullptr;
        alignas(64) T room[2 * STEP];

        INLINE void add(const SeveralOf<T>& e, T* kept, Sum<T>& sum) {
            T* const place = kept != nullptr ? kept : before == room ? room + STEP : room;
            store(place, e);
            finish(sum);
            before = place;
        }
        INLINE void finish(Sum<T>& sum) {
            if (before != nullptr)
                for (int j = 0; j < SEVERAL; ++j) sum.add(at(before + j * Lanes<T>::count));
        }
        static INLINE auto at(const T* place) {
            if constexpr (sizeof(T) == 4) return widened_at(place);
            if constexpr (sizeof(T) == 8) return load(place);
        }
    };

    // What a walk over some entries finds: the sum of their terms, what `Walk` sums beside it, their top, and whether there
    // is NaN.
    template <class Walk>
    struct Found {
        Sum<T> sum;
        Walk walk;
        V top;
        decltype(unordered(V(), V())) bad;
    };
    template <class Walk>
    static INLINE void add_two(Walk& walk, const V& e, const V& f, Index i) {
        if constexpr (Walk::PAIRS) return walk.add_pair(e, f, i);
        walk.add(e, i, Lanes<T>::count);
        walk.add(f, i + Lanes<T>::count, Lanes<T>::count);
    }
    template <class Walk, class Exponential>
    static INLINE Found<Walk> walk_over(const Row<T>& row, const Exponential& exponential, Index begin, Index end) {
        const Terms<Exponential> own{row, exponential};
        T* const kept = row.terms;
        Walk walk(row);
        Sum<T> sum;
        SeveralOf<T> tops = spread<SEVERAL * PARTS>(all(-INFINITE<T>));
        auto bad = unordered(one_of(tops, 0), one_of(tops, 0));
        LateSum late;
        Index i = begin;
        for (; i + STEP <= end; i += STEP) {
            ask_ahead(row, i, SEVERAL);
            if (kept == nullptr) ask_ahead_to_write(row, row.result + i, SEVERAL);
            const SeveralOf<T> x = several_scores_from<Walk::FROM>(row, own.sign, i);
            if constexpr (Exponential::FINDS_TOP) {
                tops = larger(x, tops);
                for (int j = 0; j < SEVERAL; j += 2) bad = bad | unordered(one_of(x, j), one_of(x, j + 1));
            }
            const SeveralOf<T> e = own.exponential(x);
            late.add(e, kept != nullptr ? kept + i : nullptr, sum);
            for (int j = 0; j < SEVERAL; j += 2) add_two(walk, one_of(e, j), one_of(e, j + 1), i + j * Lanes<T>::count);
        }
        late.finish(sum);
        V top = one_of(tops, 0);
        for (int j = 1; j < SEVERAL; ++j) top = larger(one_of(tops, j), top);
        // Pairs are the same whatever a step is.
        constexpr int LANES = Lanes<T>::count;
        for (; Walk::PAIRS && i + 2 * LANES <= end; i += 2 * LANES) {
            const V x = scores_from<Walk::FROM>(row, own.sign, i, LANES), y = scores_from<Walk::FROM>(row, own.sign, i + LANES, LANES);
            top = larger(x, larger(y, top));
            bad = bad | unordered(x, y);
            const V e = own.exponential(x), f = own.exponential(y);
            if (kept != nullptr) store(kept + i, e);
            if (kept != nullptr) store(kept + i + LANES, f);
            sum.add(e);
            sum.add(f);
            add_two(walk, e, f, i);
        }
        each_vector_once<T>(i, end, [&](Index at, int count) BODY {
            const V x = scores_from<Walk::FROM>(row, own.sign, at, count);
            top = larger(x, top);
            bad = bad | unordered(x, x);
            const V e = own.exponential(x);
            if (kept != nullptr) put<T>(kept + at, e, count);
            sum.add(e);
            walk.add(e, at, count);
        });
        return {sum, walk, top, bad};
    }
    // The same of a whole row: the sum of all terms, sink included, the other sum, how many blocks have NaN, and the top.
    template <class Exponential, class Walk>
    static INLINE Totals walked(const Row<T>& row, Team& team, const Exponential& exponential, Walk) {
        Totals sums = team.sum(row.n, [&](Index begin, Index end) APART {
            const Found<Walk> found = walk_over<Walk>(row, exponential, begin, end);
            const Total not_numbers{any(found.bad) ? 1.0 : 0.0, 0.0};
            return Totals{found.sum.total(), found.walk.total(), not_numbers, static_cast<double>(largest_of(found.top))};
        });
        sums.first.add(sink_term(row, exponential));
        return sums;
    }
    // Products of terms with numbers of any size are not to overflow; those of floats are taken in doubles.
    static INLINE V unbiased(const V& e) {
        if constexpr (sizeof(T) == 8) return e * all(UNBIASED<T>);
        return e;
    }
    static constexpr double OF_PRODUCTS = sizeof(T) == 8 ? UNBIASED<T> : 1.0;

    // Nothing but the terms is summed.
    struct TermsAlone {
        static constexpr Source FROM = Source::plain;
        static constexpr bool PAIRS = false;
        explicit INLINE TermsAlone(const Row<T>&) {}
        INLINE void add(const V&, Index, int) {}
        INLINE Total total() const { return {}; }
        INLINE Doubles lanes() const { return all(0.0); }
    };
    template <Source SOURCE>
    struct TermsFrom : TermsAlone {
        static constexpr Source FROM = SOURCE;
        using TermsAlone::TermsAlone;
    };
    // The same, while rows that were walked before are written.
    template <Source SOURCE, bool ARE_LOGARITHMS>
    struct TermsWhileWriting : TermsFrom<SOURCE> {
        static constexpr bool PAIRS = true;
        Unwritten<T>& unwritten;

        explicit INLINE TermsWhileWriting(const Row<T>& row) : TermsFrom<SOURCE>(row), unwritten(*row.unwritten) {}
        INLINE void add(const V&, Index, int) { unwritten.template go_on<ARE_LOGARITHMS, 1>(); }
        INLINE void add_pair(const V&, const V&, Index) { unwritten.template go_on<ARE_LOGARITHMS, 2>(); }
    };
    // What is summed beside the terms of plain scores, of which some walks add two at a time.
    struct Summing {
        static constexpr Source FROM = Source::plain;
        static constexpr bool PAIRS = false;
        Sum<T> sum;

        INLINE Total total() const { return sum.total(); }
        INLINE Doubles lanes() const { return sum.lanes(); }
    };
    // The terms times the operand. Entries that weigh nothing are not read.
    struct Products : Summing {
        const T* const operand;

        explicit INLINE Products(const Row<T>& row) : operand(row.operand) {}
        INLINE void add(const V& e, Index i, int count) {
            this->sum.add_product(unbiased(e), select(all(T(0)) < e, take<T>(operand + i, count, T(0)), all(T(0))));
        }
    };
    // The same in floats, of which two are added before they are widened. Out of their range the sum is not finite.
    struct FloatProducts : Summing {
        static constexpr bool PAIRS = true;
        const T* const operand;

        explicit INLINE FloatProducts(const Row<T>& row) : operand(row.operand) {}
        INLINE V weighed(const V& e, Index i, int count) const {
            return select(all(T(0)) < e, take<T>(operand + i, count, T(0)), all(T(0)));
        }
        INLINE void add(const V& e, Index i, int count) { this->sum.add(e * weighed(e, i, count)); }
        INLINE void add_pair(const V& e, const V& f, Index i) {
            constexpr int LANES = Lanes<T>::count;
            this->sum.add(fma(f, weighed(f, i + LANES, LANES), e * weighed(e, i, LANES)));
        }
    };

    // walk(powers) and finish(powers, what it found, factor) for a near row whose top is found on the way; false, and
    // nothing written that matters, if the row must be looked at first. The factor is what terms that were kept lack, the
    // guess having been another power of 2 than the top gives: all is multiplied exactly.
    template <Source FROM = Source::plain, class Walk, class Finish>
    static INLINE bool at_once(Row<T>& row, Walk walk, Finish finish) {
        const double guess = guess_of_top<FROM>(row);
        if (guess >= 512.0) return false;
        const Powers guessed(is_near(guess) ? guess : 0.0);
        Totals sums = walk(guessed);
        if (!is_near(sums.top) || sums.third.hi != 0.0) return false;
        row.top = sums.top + 0.0;
        const Powers powers = Powers::at_top(row.top);
        const double apart = guessed.origin - powers.origin;
        if (!guessed.reaches(row.top, row.n) || (row.n > LONGEST && __builtin_fabs(apart) > 6.0)) {
            finish(powers, walk(powers), 1.0);
            return true;
        }
        const double factor = power_of_two(static_cast<std::int64_t>(apart));
        sums.first.multiply(factor);
        finish(powers, sums, row.terms != nullptr ? factor : 1.0);
        return true;
    }
    template <Source FROM>
    static INLINE double guess_of_top(const Row<T>& row) {
        // Of so long a row a guess that is far off costs a second walk.
        const Index count = row.n > LONGEST ? BLOCK : row.n < Lanes<T>::count ? row.n : Lanes<T>::count;
        V top = all(-INFINITE<T>);
        each_vector_once<T>(0, count, [&](Index i, int some) BODY { top = larger(scores_from<FROM>(row, row.sign(), i, some), top); });
        return static_cast<double>(largest_of(top));
    }
    // The same for what shows terms that are no weights of the type: which of them vanish depends on the power of 2, so that
    // the guess stays what it was where it serves.
    template <class Walk, class Finish>
    static INLINE bool at_once_as_guessed(Row<T>& row, Walk walk, Finish finish) {
        const double guess = guess_of_top<Source::plain>(row);
        if (guess >= 512.0) return false;
        const Powers guessed(is_near(guess) ? guess : 0.0);
        Totals sums = walk(guessed);
        if (!is_near(sums.top) || sums.third.hi != 0.0) return false;
        if (row.n > LONGEST && __builtin_fabs(sums.top - guess) > 4.0) return false;
        const bool is_reached = guessed.reaches(sums.top, row.n);
        const Powers powers = is_reached ? guessed : Powers::at_top(sums.top + 0.0);
        if (!is_reached) sums = walk(powers);
        if (!(__builtin_fabs(sums.second.hi) < __builtin_inf())) return false;
        finish(powers, sums);
        return true;
    }
    // Beyond it the sum may be so large that what the weights are multiplied by gets subnormal.
    static constexpr Index LONGEST = Index(1) << 24;

    // The terms of a row that gets weights or their logarithms.
    template <Source FROM, bool ARE_LOGARITHMS>
    static INLINE Totals walked_alone(const Row<T>& row, Team& team, const Powers& powers) {
        if (row.unwritten == nullptr) return walked(row, team, powers, TermsFrom<FROM>(row));
        row.unwritten->start();
        return walked(row, team, powers, TermsWhileWriting<FROM, ARE_LOGARITHMS>(row));
    }

    // -- weights -----------------------------------------------------------------------------------------------------

    // Returns what the sink weighs.
    static INLINE double value(Row<T>& row, Team& team) {
        if constexpr (sizeof(T) == 4)
            if (is_plain(row) && is_near(row.top)) {
                const Powers powers = Powers::at_top(row.top);
                weighed(row, team, powers, walked(row, team, powers, TermsAlone(row)).first, 1.0);
                return 0.0;
            }
        return with_exponential(row, [&](const auto& exponential) BODY {
            const Total sum = walked(row, team, exponential, TermsAlone(row)).first;
            scaled(row, team, exponential, Scale(sum));
            return sink_term(row, exponential) / sum.value();
        });
    }
    // Terms are kept unless the scores are plain, and not where these are.
    template <Source FROM = Source::plain>
    static INLINE bool value_at_once(Row<T>& row, Team& team) {
        if (row.terms == nullptr ? FROM != Source::plain : row.terms == row.x) return false;
        return at_once<FROM>(
            row, [&](const Powers& powers) APART { return walked_alone<FROM, false>(row, team, powers); },
            [&](const Powers& powers, const Totals& sums, double factor) BODY {
                weighed(row, team, powers, sums.first, factor);
            });
    }
    // (p - y) times the row's scale, y being an index. The others' terms take the place of the label's: p_y - 1 is minus their
    // weight.
    static INLINE bool residual_at_once(Row<T>& row, Team& team) {
        const double scale = __builtin_fabs(row.scale);
        if (row.terms == row.x || row.terms == nullptr || row.n > LONGEST || !(0x1p-24 <= scale && scale <= 0x1p24)) return false;
        return at_once(
            row, [&](const Powers& powers) APART { return walked(row, team, powers, TermsAlone(row)); },
            [&](const Powers& powers, const Totals& sums, double factor) BODY {
                T& label = row.terms[row.label];
                const double others = sum_without_label(row, team, sums.first, factor);
                label = __builtin_fabs(row.x[row.label]) < INFINITE<T> ? static_cast<T>(-others) : T(0);
                scaled(row, team, powers, Scale(sums.first, factor * row.scale));
            });
    }
    // Of the terms as they were kept. The difference of sums has its digits unless the label has nearly all of the weight.
    static INLINE double sum_without_label(const Row<T>& row, Team& team, const Total& sum, double factor) {
        T& label = row.terms[row.label];
        Total others = sum;
        others.multiply(1.0 / factor);
        const double whole = others.value();
        others.add(-static_cast<double>(label));
        if (others.value() >= whole * 0x1p-16) return others.value();
        label = T(0);
        return sum_of_terms(row, team);
    }
    static APART double sum_of_terms(const Row<T>& row, Team& team) {
        const T* const terms = row.terms;
        const Totals found = team.sum(row.n, [&](Index begin, Index end) APART {
            Sum<T> sum;
            each_vector_once<T>(begin, end, [&](Index i, int count) BODY { sum.add(take<T>(terms + i, count, T(0))); });
            return Totals{sum.total(), {}, {}};
        });
        return found.first.value();
    }
    // Whether a row may be computed by Powers.
    static INLINE bool is_plain(const Row<T>& row) {
        return sizeof(T) == 4 && row.n > SHORT && !row.is_tempered && !(row.has_sink && row.sink != -__builtin_inf());
    }

    // The leading term was rounded as all others; where it is a large part of the sum all weights would bear its error, so
    // that it is taken as it is: in the sum, as often as it is there, and among the weights.
    static INLINE void weighed(const Row<T>& row, Team& team, const Powers& powers, const Total& sum, double factor) {
        if (sum.value() * UNBIASED<T> < CROWDED) return weighed_exactly(row, team, powers, sum, factor);
        const Scale scale(sum, factor);
        if (row.unwritten != nullptr) return leave_weights(row, all(static_cast<T>(__builtin_nan(""))), all(T(0)), scale);
        scaled(row, team, powers, scale);
    }
    static APART void weighed_exactly(const Row<T>& row, Team& team, const Powers& powers, Total sum, double factor) {
        const Terms<Powers> terms{row, powers};
        const double unit = unit_of(powers) / UNBIASED<T>;
        const double leading = static_cast<double>(first_of(powers(all(static_cast<float>(row.top)))));
        const V kept = all(static_cast<T>(leading / factor));
        const Totals found = team.sum(row.n, [&](Index begin, Index end) APART {
            Index ties = 0;
            each_vector<T>(begin, end, [&](Index i, int count) BODY { ties += __builtin_popcount(bits(terms.kept(i, count) == kept)); });
            return Totals{{static_cast<double>(ties), 0.0}, {}, {}};
        });
        sum.add(found.first.hi * (unit - leading));
        const Scale scale(sum, factor);
        const V top = all(static_cast<T>(unit / sum.value()));
        if (row.unwritten != nullptr) return leave_weights(row, kept, top, scale);
        team.each_block(row.n, [&](Index begin, Index end) APART {
            const Terms<Powers> own = terms;
            const Scale own_scale = scale;
            const V own_kept = kept, own_top = top;
            write_scaled(own.row, begin, end, own_scale, [&](Index i, int count) BODY { return own.kept(i, count); },
                         [&](const V& e, const V& weight) BODY { return select(e == own_kept, own_top, weight); });
        });
    }
    // Writes finish(e, weight) for each term e = kept(i, count).
    template <class Kept, class Finish>
    static INLINE void write_scaled(const Row<T>& row, Index begin, Index end, const Scale& scale, const Kept& kept, const Finish& finish) {
        if constexpr (sizeof(T) == 4) {
            const Faint faint(scale.hi, scale.lo);
            if (faint.is_met(begin, end, kept))
                return write_weights<T>(row, begin, end, [&, own = faint](Index i, int count) BODY {
                    const V e = kept(i, count);
                    return finish(e, own.weight(e));
                });
        }
        write_weights<T>(row, begin, end, [&](Index i, int count) BODY {
            const V e = kept(i, count);
            return finish(e, scale(e));
        });
    }
    static constexpr double CROWDED = 8.5;

    static INLINE void leave_weights(const Row<T>& row, const V& leading, const V& top, const Scale& scale) {
        row.unwritten->take_turns();
        row.unwritten->leave_weights(row.terms, row.result, leading, top, scale.hi, scale.lo);
    }
    template <class Exponential>
    static INLINE void scaled(const Row<T>& row, Team& team, const Exponential& exponential, const Scale& scale) {
        const Terms<Exponential> terms{row, exponential};
        team.each_block(row.n, [&](Index begin, Index end) APART {
            const Terms<Exponential> own = terms;
            const Scale own_scale = scale;
            const auto kept = [&](Index i, int count) BODY {
                if (own.row.terms == nullptr) ask_ahead(own.row, i, 1);
                return own.kept(i, count);
            };
            write_scaled(own.row, begin, end, own_scale, kept, [](const V&, const V& weight) BODY { return weight; });
        });
    }

    // The terms are kept unless the scores are where they would be.
    static INLINE bool vjp_at_once(Row<T>& row, Team& team) {
        const Row<T> own = row.terms == row.x ? without_terms(row) : row;
        return at_once_as_guessed(
            row, [&](const Powers& powers) APART { return walked(own, team, powers, FloatProducts(own)); },
            [&](const Powers& powers, const Totals& sums) BODY { differentiated(own, team, powers, sums); });
    }
    // s (g - <s, g> / sum s) with s = p.
    static INLINE void vjp(Row<T>& row, Team& team) {
        with_powers(row, [&](const auto& exponential) BODY {
            differentiated(row, team, exponential, walked(row, team, exponential, Products(row)));
        });
    }
    // A cotangent less such a mean may be out of range, and their product with a weight within.
    static constexpr double LARGE_MEAN = static_cast<double>(LARGEST<T>) * (sizeof(T) == 4 ? 0x1p-28 : 0x1p-57);
    // Weights are this many times too large until they are multiplied by what may make normal numbers of subnormal ones. Where
    // the products of terms and cotangents are floats, and the mean is moderate, no float is too small for that.
    static constexpr double LIFT = sizeof(T) == 4 ? 0x1p48 : 1.0, MODERATE_MEAN = 0x1p70;
    static INLINE bool are_moderate(const Doubles& means) { return bits(magnitude(means) < all(MODERATE_MEAN)) == 0xffu; }

    template <class Exponential>
    static INLINE void differentiated(const Row<T>& row, Team& team, const Exponential& exponential, const Totals& sums) {
        const double mean = sums.second.value() / (sums.first.value() * OF_PRODUCTS);
        if (__builtin_fabs(mean) >= LARGE_MEAN) return differentiated_by<true>(row, team, exponential, sums, mean);
        differentiated_by<false>(row, team, exponential, sums, mean);
    }
    template <bool IS_LARGE, class Exponential>
    static INLINE void differentiated_by(const Row<T>& row, Team& team, const Exponential& exponential, const Totals& sums, double middle) {
        const Terms<Exponential> terms{row, exponential};
        const V quarter = all(T(IS_LARGE ? 0.25 : 1.0)), mean = all(static_cast<T>(middle * (IS_LARGE ? 0.25 : 1.0)));
        // The outer factor takes two roundings less beside the sum, of which a double row may leave no room for it.
        const double folded = sizeof(T) == 4 ? row.outer() : 1.0;
        const Scale scale(sums.first, folded * LIFT);
        const V outer = all(static_cast<T>(row.outer() / (folded * LIFT)));
        team.each_block(row.n, [&](Index begin, Index end) APART {
            // Own copies, which no store can change.
            const Terms<Exponential> own = terms;
            const Scale own_scale = scale;
            const V own_mean = mean, own_outer = outer, own_quarter = quarter;
            write<T>(own.row, begin, end, [&](Index i, int count) BODY {
                const V e = own.kept(i, count);
                const V g = take<T>(own.row.operand + i, count, T(0));
                const V weight = own_scale(e), distance = IS_LARGE ? g * own_quarter - own_mean : g - own_mean;
                V moved = (weight * distance) * own_outer;
                // Beyond the type's range before it is brought down.
                if constexpr (LIFT != 1.0) moved = select(magnitude(moved) < all(INFINITE<T>), moved, (weight * own_outer) * distance);
                if constexpr (IS_LARGE) moved = moved * all(T(4));
                return select(all(T(0)) < e, moved, all(T(0)));
            });
        });
    }

    // -- the logarithm -----------------------------------------------------------------------------------------------

    // Below it the sum less 1 has lost digits.
    static constexpr double CLEAR = sizeof(T) == 4 ? 0x1p-26 : 0x1p-40;

    // The sum of exp(x - top) over all but one of the leading entries: log1p of it is log sum exp(x - top). A leading term is
    // taken from the sum as it was rounded.
    template <class Exponential>
    static INLINE double sum_but_one(const Row<T>& row, Team& team, const Exponential& exponential, const Total& sum) {
        const bool sink_leads = row.has_sink && row.sink == row.top;
        const double leading =
            sink_leads ? sink_term(row, exponential) : static_cast<double>(first_of(exponential(all(static_cast<T>(row.top)))));
        Total rest = sum;
        rest.add(-leading);
        const double clear = rest.value() * UNBIASED<T> / unit_of(exponential);
        return clear >= CLEAR ? clear : confident_tail(row, team, exponential);
    }
    template <class Exponential>
    static INLINE double log_sum(const Row<T>& row, Team& team, const Exponential& exponential, const Total& sum) {
        return log1p_of(sum_but_one(row, team, exponential, sum));
    }

    // What the exact term of a score at the top would be, unbiased.
    template <class Exponential>
    static INLINE double unit_of(const Exponential& exponential) {
        if constexpr (Exponential::FINDS_TOP) return exp_of(exponential.residue);
        return 1.0;
    }

    // The sum of exp(x - top) less one, where all but the leading terms are next to nothing.
    template <class Exponential>
    static APART double confident_tail(const Row<T>& row, Team& team, const Exponential& exponential) {
        const Terms<Exponential> terms{row, exponential};
        const V top = all(static_cast<T>(row.top));
        const Totals sums = team.sum(row.n, [&](Index begin, Index end) APART {
            Sum<T> sum;
            Index ties = 0;
            each_vector_once<T>(begin, end, [&](Index i, int count) BODY {
                const V x = scores(row, terms.sign, i, count);
                const auto is_top = x == top;
                ties += __builtin_popcount(bits(is_top));
                sum.add(select(is_top, all(T(0)), exponential(x)));
            });
            return Totals{sum.total(), {static_cast<double>(ties), 0.0}, {}};
        });
        const double ties = sums.second.value(), unit = unit_of(exponential) / UNBIASED<T>;
        Total rest = sums.first;
        // The sink may be the one that leads.
        if (ties == 0.0) return rest.value() / unit;
        rest.add(sink_term(row, exponential));
        return (ties - 1.0) + rest.value() / unit;
    }

    static INLINE Row<T> without_terms(const Row<T>& row) {
        Row<T> unkept = row;
        unkept.terms = nullptr;
        return unkept;
    }
    static INLINE double conjugate(Row<T>& row, Team& team) {
        const Row<T> unkept = without_terms(row);
        return with_exponential(row, [&](const auto& exponential) BODY {
            return log_sum(row, team, exponential, walked(unkept, team, exponential, TermsAlone(row)).first);
        });
    }

    static INLINE bool conjugate_at_once(Row<T>& row, Team& team, double& conjugate) {
        const Row<T> unkept = without_terms(row);
        return at_once(
            row, [&](const Powers& powers) APART { return walked(unkept, team, powers, TermsAlone(row)); },
            [&](const Powers& powers, const Totals& sums, double) BODY {
                conjugate = log_sum(row, team, powers, sums.first);
            });
    }

    // gap - shift, both in more digits than the type has.
    struct Shift {
        V hi, lo;
        explicit INLINE Shift(double shift) {
            const T head = static_cast<T>(shift);
            hi = all(head);
            lo = all(static_cast<T>(shift - static_cast<double>(head)));
        }
        INLINE V operator()(const Pair<V>& gap) const { return (gap.hi - hi) + (gap.lo - lo); }
    };

    static INLINE void log_value(Row<T>& row, Team& team) {
        const Row<T> unkept = without_terms(row);
        const auto compute = [&](const auto& exponential) BODY {
            shifted(row, team, exponential, walked(unkept, team, exponential, TermsAlone(row)).first);
        };
        if (row.n > SHORT)
            with_powers(row, compute);
        else
            with_exponential(row, compute);
    }
    static INLINE bool log_value_at_once(Row<T>& row, Team& team) {
        const Row<T> unkept = without_terms(row);
        return at_once(
            row, [&](const Powers& powers) APART { return walked_alone<Source::plain, true>(unkept, team, powers); },
            [&](const Powers& powers, const Totals& sums, double) BODY { shifted(row, team, powers, sums.first); });
    }
    template <class Exponential>
    static INLINE void shifted(const Row<T>& row, Team& team, const Exponential& exponential, const Total& sum) {
        const double rest = sum_but_one(row, team, exponential, sum);
        const Shift shift(sizeof(T) == 4 && rest >= CLEAR ? first_of(short_log1p(all(rest))) : log1p_of(rest));
        if (row.unwritten != nullptr) {
            row.unwritten->take_turns();
            return row.unwritten->leave_logarithms(row.x, row.result, all(static_cast<T>(row.top)), shift.hi, shift.lo);
        }
        team.each_block(row.n, [&](Index begin, Index end) APART {
            const Terms<Exponential> own{row, exponential};
            const Shift own_shift = shift;
            const bool asks = team.shares;
            write<T>(own.row, begin, end, [&](Index i, int count) BODY {
                if (asks) ask_ahead(own.row, i, 1);
                return own_shift(own.exponential.gap(scores(own.row, own.sign, i, count)));
            });
        });
    }

    // g - p sum g, or for a tangent t - <p, t>; 0 where no entry takes part.
    template <bool TANGENT>
    static INLINE void log_derivative(Row<T>& row, Team& team) {
        with_powers(row, [&](const auto& exponential) BODY {
            const Terms<std::decay_t<decltype(exponential)>> terms{row, exponential};
            const V dead = all(-INFINITE<T>), zero = all(T(0));
            const auto operand = [&](Index i, int count) BODY {
                const V x = scores(row, terms.sign, i, count);
                return select(dead < x, take<T>(row.operand + i, count, T(0)), zero);
            };
            Totals sums = team.sum(row.n, [&](Index begin, Index end) APART {
                Sum<T> sum, second;
                each_vector<T>(begin, end, [&](Index i, int count) BODY {
                    const V e = terms.computed(i, count), g = operand(i, count);
                    sum.add(e);
                    if constexpr (TANGENT)
                        second.add_product(unbiased(e), g);
                    else
                        second.add(g);
                });
                return Totals{sum.total(), second.total(), {}};
            });
            sums.first.add(sink_term(row, exponential));
            const V outer = all(static_cast<T>(row.outer()));
            const double mean = sums.second.value() / (sums.first.value() * OF_PRODUCTS);
            if constexpr (!TANGENT) return log_differentiated(row, team, exponential, sums);
            team.each_block(row.n, [&](Index begin, Index end) APART {
                write<T>(row, begin, end, [&](Index i, int count) BODY {
                    const V x = scores(row, terms.sign, i, count);
                    const V g = take<T>(row.operand + i, count, T(0));
                    return select(dead < x, (g - all(static_cast<T>(mean))) * outer, zero);
                });
            });
        });
    }

    // Beside the terms the cotangents of entries that take part.
    struct Cotangents : Summing {
        const Row<T>& row;

        explicit INLINE Cotangents(const Row<T>& the_row) : row(the_row) {}
        INLINE void add(const V&, Index i, int count) {
            const V dead = all(row.is_negated ? INFINITE<T> : -INFINITE<T>);
            this->sum.add(select(take<T>(row.x + i, count, T(0)) == dead, all(T(0)), take<T>(row.operand + i, count, T(0))));
        }
    };
    static INLINE bool log_vjp_at_once(Row<T>& row, Team& team) {
        const Row<T> unkept = without_terms(row);
        return at_once_as_guessed(
            row, [&](const Powers& powers) APART { return walked(unkept, team, powers, Cotangents(unkept)); },
            [&](const Powers& powers, const Totals& sums) BODY { log_differentiated(unkept, team, powers, sums); });
    }
    template <class Exponential>
    static INLINE void log_differentiated(const Row<T>& row, Team& team, const Exponential& exponential, const Totals& sums) {
        const Terms<Exponential> terms{row, exponential};
        const V total = all(static_cast<T>(sums.second.value())), outer = all(static_cast<T>(row.outer()));
        const Scale scale(sums.first);
        team.each_block(row.n, [&](Index begin, Index end) APART {
            const Terms<Exponential> own = terms;
            const Scale own_scale = scale;
            const V own_total = total, own_outer = outer;
            write<T>(own.row, begin, end, [&](Index i, int count) BODY {
                const V x = scores(own.row, own.sign, i, count), g = take<T>(own.row.operand + i, count, T(0));
                const V moved = fma(-own_scale(own.exponential(x)), own_total, g) * own_outer;
                return select(all(-INFINITE<T>) < x, moved, all(T(0)));
            });
        });
    }

    static INLINE Doubles omega(const Doubles& p) {
        const Doubles floor = all(0x1p-1022);
        // Subnormal weights are brought into range; their logarithm is what it is times 2^54.
        const Doubles logarithm = select(floor <= p, log(larger(p, floor)),
                                         log(larger(p * all(0x1p54), floor)) - all(37.429947750237048));
        return select(all(0.0) < p, p * logarithm, all(0.0));
    }
};

}  // namespace softplex::SOFTPLEX_ISA
