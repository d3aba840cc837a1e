// Sixteen rows of floats side by side, each in a lane of every vector: their tops, sums and weights. How they lie in an array stands in
// columns.h. The operations are those of softmax.h and short_rows.h, in the same order.
#pragma once

#include "faint.h"
#include "lists.h"
#include "plain_rows.h"
#include "short_rows.h"

namespace softplex::SOFTPLEX_ISA {

// A vector of doubles for each half of sixteen rows.
struct Wide {
    Doubles part[2];
    INLINE void add(const Floats& v) { add(widened(v)); }
    INLINE void add(const Halves& halves) {
        part[0] = part[0] + halves.low;
        part[1] = part[1] + halves.high;
    }
};
INLINE Wide sum_of_two(const Wide& a, const Wide& b) { return {{a.part[0] + b.part[0], a.part[1] + b.part[1]}}; }
// What Sum<float> makes of its lanes: of sixteen, or of the first ones where the others are 0.
template <int LANES>
INLINE Wide sum_of_lanes(const Wide (&lanes)[LANES]) {
    if constexpr (LANES == 4) {
        return sum_of_two(sum_of_two(lanes[0], lanes[2]), sum_of_two(lanes[1], lanes[3]));
    } else {
        Wide halves[LANES / 2];
        for (int j = 0; j < LANES / 2; ++j) halves[j] = sum_of_two(lanes[j], lanes[j + LANES / 2]);
        return sum_of_lanes(halves);
    }
}

// The terms of their sinks, if they have some, and those of sinks that do not lead.
struct Sunk {
    Wide terms{{all(0.0), all(0.0)}}, beside{{all(0.0), all(0.0)}};
};

// What the entries of sixteen rows are finished with, a number a row each.
struct Numbers {
    Floats hi, lo, top, leading;
};

// Sixteen rows: their scores, entry by entry, where their terms then are.
struct Strip {
    static constexpr int COUNT = Lanes<float>::count, HALF = COUNT / 2;
    static constexpr unsigned ALL = (1u << COUNT) - 1u;
    // Entries of a row, and those that one word has marks for.
    static constexpr Index LONGEST = BLOCK - 1, MARKED = 64;

    using Reciprocals = TemperedExponential::Constants<Floats>;

    float* terms;
    Index n;

    INLINE bool is_short() const { return n <= Softmax<float>::SHORT; }

    // Terms from scores unless it is for their logarithms, and what these are finished with, as ShortRows.
    template <bool LOG>
    INLINE void prepare_short(const Floats& tops, Numbers& numbers, const Sunk& sunk = {}) const {
        const NearExponential exponential{NearExponential::Constants<Floats>(tops)};
        const Wide sums = sum_of_two(sum<!LOG>([&](const auto& scores) BODY { return exponential(scores); }), sunk.terms);
        if constexpr (LOG)
            set_shifts(tops, sums, numbers, [] {}, sunk);
        else
            set_scales(sums, numbers);
    }
    // The same for rows with temperatures, of any length, as Softmax: logarithms are gaps that are shifted.
    template <bool LOG>
    INLINE void prepare_tempered(const Reciprocals& at, Numbers& numbers, const Sunk& sunk) const {
        const TemperedExponential exponential(at);
        const Wide sums = sum_of_two(sum<!LOG>([&](const auto& scores) BODY { return exponential(scores); }), sunk.terms);
        if constexpr (!LOG) return set_scales(sums, numbers);
        Doubles others[2] = {ShortRows::sums_but_one(sums.part[0]), ShortRows::sums_but_one(sums.part[1])};
        if (!are_clear(others)) put_tails(at.top, exponential, {all(1.0 / UNBIASED<float>), all(1.0 / UNBIASED<float>)}, others, sunk);
        float hi[COUNT], lo[COUNT];
        for (int half = 0; half < 2; ++half) PlainRows::put_shifts(others[half], hi + half * HALF, lo + half * HALF);
        numbers = {load(hi), load(lo), at.top, at.top};
    }
    // False if a temperature is out of the ordinary.
    static INLINE bool temper(const Floats& tops, const double* temperatures, Reciprocals& at) {
        const Doubles first = load(temperatures), last = load(temperatures + HALF);
        const Doubles low = all(1.0) / first, high = all(1.0) / last;
        const Floats heads = narrowed(low, high);
        const Halves wide = widened(heads);
        at = {tops, heads, narrowed(low - wide.low, high - wide.high)};
        return are_tempered(temperatures);
    }
    static INLINE bool are_all_one(const double* temperatures) {
        return bits((load(temperatures) == all(1.0)) & (load(temperatures + HALF) == all(1.0))) == PlainRows::ALL;
    }
    // Sinks among the scores; false if one of them leads and is no float, far from 0, or no number.
    static INLINE bool sink(const double* sinks, const double* temperatures, Floats& tops, Sunk& sunk) {
        const Halves wide = widened(tops);
        const Doubles own[2] = {load(sinks), load(sinks + HALF)}, before[2] = {wide.low, wide.high};
        const Floats narrow = narrowed(own[0], own[1]);
        const Halves again = widened(narrow);
        const unsigned low = bits((own[0] <= before[0]) | (own[0] == again.low)), high = bits((own[1] <= before[1]) | (own[1] == again.high));
        tops = larger(narrow, tops) + all(0.0f);
        if ((low & high) != PlainRows::ALL || bits(larger(tops, -tops) < all(512.0f)) != ALL) return false;
        const Halves raised = widened(tops);
        const Doubles leads[2] = {raised.low, raised.high};
        for (int half = 0; half < 2; ++half) {
            sunk.terms.part[half] = sink_terms(own[half], leads[half], load(temperatures + half * HALF));
            sunk.beside.part[half] = select(own[half] < leads[half], sunk.terms.part[half], all(0.0));
        }
        return true;
    }
    static INLINE bool are_tempered(const double* temperatures) {
        const unsigned first = bits(TemperedExponential::serves(load(temperatures))), last = bits(TemperedExponential::serves(load(temperatures + HALF)));
        return (first & last) == PlainRows::ALL;
    }
    // What scores are shifted by to be logarithms of weights. The strip is there after `bring`, should it be needed.
    template <class Bring>
    INLINE void set_shifts(const Floats& tops, const Wide& sums, Numbers& numbers, const Bring& bring, const Sunk& sunk = {}) const {
        const Halves wide = widened(tops);
        Doubles others[2] = {ShortRows::sums_but_one(sums.part[0]), ShortRows::sums_but_one(sums.part[1])};
        if (!are_clear(others)) {
            bring();
            put_tails(tops, NearExponential(NearExponential::Constants<Floats>(tops)), {all(1.0 / UNBIASED<float>), all(1.0 / UNBIASED<float>)}, others, sunk);
        }
        const Pair<Doubles> first = ShortRows::shift_of(wide.low, others[0]), last = ShortRows::shift_of(wide.high, others[1]);
        numbers = {narrowed(first.hi, last.hi), narrowed(first.lo, last.lo), tops, tops};
    }
    static INLINE bool are_clear(const Doubles (&others)[2]) {
        return (PlainRows::clear(others[0]) & PlainRows::clear(others[1])) == PlainRows::ALL;
    }
    // The sums of exp(x - top) over all but the leading entries, where they are not clear: of the terms of the scores, of which
    // that of a top would be `units`.
    template <class Exponential>
    APART void put_tails(const Floats& tops, const Exponential& exponential, const Wide& units, Doubles (&others)[2], const Sunk& sunk = {}) const {
        const Wide tails = sum<false>([&](const auto& scores) BODY {
            auto e = exponential(scores);
            for (int j = 0; j < static_cast<int>(sizeof(e) / sizeof(Floats)); ++j)
                set_one_of(e, j, select(one_of(scores, j) == tops, all(0.0f), one_of(e, j)));
            return e;
        });
        for (int half = 0; half < 2; ++half)
            others[half] = select(all(Softmax<float>::CLEAR) <= others[half], others[half], (tails.part[half] + sunk.beside.part[half]) / units.part[half]);
    }
    template <bool LOG, bool IS_SHORT>
    static INLINE Floats finished(const Floats& v, const Numbers& by) {
        if constexpr (LOG && IS_SHORT) return (v - by.hi) - by.lo;
        if constexpr (LOG) return ((v - by.top) - by.hi) + (all(0.0f) - by.lo);
        return weighed<IS_SHORT>(v, by, weight_of(v, by.hi, by.lo));
    }
    template <bool IS_SHORT>
    static INLINE Floats weighed(const Floats& e, const Numbers& by, const Floats& weight) {
        if constexpr (IS_SHORT) return weight;
        return select(e == by.leading, by.top, weight);
    }
    // Whether faint weights are met.
    INLINE bool is_faint(const Numbers& by) const {
        return Faint(by.hi, by.lo).is_met(0, n * COUNT, [&](Index i, int) BODY { return load(terms + i); });
    }

    // The weights of a sparse map, as ShortRows; false if one of the rows needs more care.
    template <class Pieces, bool IS_TEMPERED>
    APART bool solve(const Floats& tops, const double* temperatures) const {
        Listed lists;
        const Floats cuts = IS_TEMPERED ? Sparse<Pieces, float>::cut_below(tops, temperatures) : Sparse<Pieces, float>::cut_below(tops);
        Marks marks[LONGEST / MARKED + 1];
        const bool are_listed = n <= COUNT || (n <= ShortRows::CANDIDATES && are_all_above(cuts));
        if (are_listed)
            take_all(tops, lists);
        else if (!list_candidates(cuts, tops, lists, marks))
            return false;
        if constexpr (IS_TEMPERED) lists.temper(temperatures);
        lists.template solve<Pieces>(COUNT);
        const Doubles first = load(lists.unknowns), last = load(lists.unknowns + HALF);
        const Halves wide_tops = widened(tops);
        const auto weights = [&](const Floats& scores) BODY {
            const Halves wide = widened(scores);
            Doubles low = wide.low - wide_tops.low, high = wide.high - wide_tops.high;
            if constexpr (IS_TEMPERED) low = low / load(temperatures), high = high / load(temperatures + HALF);
            return narrowed(Pieces::weight(first, low), Pieces::weight(last, high));
        };
        if (are_listed)
            for (Index i = 0; i < n * COUNT; i += COUNT) store(terms + i, weights(load(terms + i)));
        else
            put_marked(marks, weights);
        return true;
    }

    // As `prepare`, for s (g - <s, g> / sum s), g being the cotangents, entry by entry.
    INLINE bool prepare_derivative(const Floats& tops, const float* g, Numbers& numbers) const {
        if (is_short()) {
            const NearExponential exponential{NearExponential::Constants<Floats>(tops)};
            return prepare_by([&](const auto& scores) BODY { return exponential(scores); }, g, numbers);
        }
        const Floats guess = top_of(COUNT);
        if (bits(guess < all(512.0f)) != ALL) return false;
        const Halves guessed = widened(select(all(-512.0f) < guess, guess, all(0.0f))), wide = widened(tops);
        PlainRows plain[2] = {PlainRows(guessed.low), PlainRows(guessed.high)};
        const PlainRows found[2] = {PlainRows(wide.low), PlainRows(wide.high)};
        for (int half = 0; half < 2; ++half) plain[half].take_others(found[half], bits(found[half].reached_from(plain[half].origins, n)));
        const Powers powers = powers_of(plain);
        return prepare_by([&](const auto& scores) BODY { return powers(scores); }, g, numbers);
    }

    // The same of short rows with temperatures, or sinks.
    INLINE bool prepare_tempered_derivative(const Reciprocals& at, const float* g, Numbers& numbers, const Sunk& sunk) const {
        const TemperedExponential exponential(at);
        return prepare_by([&](const auto& scores) BODY { return exponential(scores); }, g, numbers, sunk);
    }
    INLINE bool prepare_sunk_derivative(const Floats& tops, const float* g, Numbers& numbers, const Sunk& sunk) const {
        const NearExponential exponential{NearExponential::Constants<Floats>(tops)};
        return prepare_by([&](const auto& scores) BODY { return exponential(scores); }, g, numbers, sunk);
    }

    static INLINE Floats differentiated(const Floats& e, const Floats& g, const Numbers& by, const Floats& factor) {
        return select(all(0.0f) < e, (weight_of(e, by.hi, by.lo) * (g - by.top)) * factor, all(0.0f));
    }

    // The strip as rows, which have room for a multiple of sixteen, and from rows.
    INLINE void to_rows(float* rows, Index pitch) const {
        for (Index i = 0; i < n; i += COUNT) {
            Floats part[COUNT];
            for (int j = 0; j < COUNT; ++j) part[j] = i + j < n ? load(terms + (i + j) * COUNT) : all(0.0f);
            turn(part);
            for (int j = 0; j < COUNT; ++j) store(rows + j * pitch + i, part[j]);
        }
    }
    INLINE void from_rows(const float* rows, Index pitch) const {
        for (Index i = 0; i < n; i += COUNT) {
            Floats part[COUNT];
            const int count = static_cast<int>(n - i < COUNT ? n - i : COUNT);
            for (int j = 0; j < COUNT; ++j) part[j] = take<float>(rows + j * pitch + i, count, 0.0f);
            turn(part);
            for (int j = 0; j < COUNT && i + j < n; ++j) store(terms + (i + j) * COUNT, part[j]);
        }
    }

    static INLINE Powers powers_of(const PlainRows (&plain)[2]) {
        float magic[COUNT], floor[COUNT];
        for (int half = 0; half < 2; ++half) plain[half].put_powers(magic + half * HALF, floor + half * HALF);
        return Powers(load(magic), load(floor));
    }
    // How many entries of each row are `wanted`.
    APART Floats count_of(const Floats& wanted) const {
        Floats found = all(0.0f);
        for (Index i = 0; i < n; ++i) found = found + select(load(terms + i * COUNT) == wanted, all(1.0f), all(0.0f));
        return found;
    }

  private:
    using Listed = Lists<COUNT, ShortRows::CANDIDATES>;

    INLINE bool are_all_above(const Floats& cuts) const {
        for (Index i = 0; i < n; ++i)
            if (bits(cuts < load(terms + i * COUNT)) != ALL) return false;
        return true;
    }
    INLINE void take_all(const Floats& tops, Listed& lists) const {
        const Halves top = widened(tops);
        for (Index i = 0; i < n; ++i) {
            const Halves wide = widened(load(terms + i * COUNT));
            lists.gaps[0][i] = wide.low - top.low;
            lists.gaps[1][i] = wide.high - top.high;
        }
        for (Index i = n; i < Listed::whole_groups(n); ++i) lists.gaps[0][i] = lists.gaps[1][i] = all(-__builtin_inf());
        lists.longest[0] = lists.longest[1] = n;
    }
    // Entries of which one or more are candidates have their marks. Most have none: branches for each would be guessed wrong.
    // False if a row has too many.
    INLINE bool list_candidates(const Floats& cuts, const Floats& tops, Listed& lists, Marks* marks) const {
        for (Index begin = 0; begin < n; begin += MARKED) {
            const Index count = n - begin < MARKED ? n - begin : MARKED;
            Marks mark = 0;
            for (Index i = 0; i < count; ++i) mark |= static_cast<Marks>(any(cuts < load(terms + (begin + i) * COUNT))) << i;
            marks[begin / MARKED] = mark;
            for (; mark != 0; mark &= mark - 1) {
                const float* const entries = terms + (begin + __builtin_ctzll(mark)) * COUNT;
                bool have_room = true;
                for (unsigned left = bits(cuts < load(entries)); left != 0; left &= left - 1) {
                    const int r = __builtin_ctz(left);
                    lists.of(r)[lists.listed[r]++] = entries[r];
                    have_room &= lists.listed[r] <= ShortRows::CANDIDATES;
                }
                if (!have_room) return false;
            }
        }
        float top[COUNT];
        store(top, tops);
        for (int r = 0; r < COUNT; ++r) Listed::end(lists.of(r) + lists.listed[r]);
        lists.turn_all(COUNT, top);
        return true;
    }
    // Each entry that is marked becomes body(entry), all others 0.
    template <class Body>
    INLINE void put_marked(const Marks* marks, const Body& body) const {
        float found[MARKED * COUNT];
        for (Index begin = 0; begin < n; begin += MARKED) {
            float *const entries = terms + begin * COUNT, *place = found;
            const Index count = n - begin < MARKED ? n - begin : MARKED;
            for (Marks left = marks[begin / MARKED]; left != 0; left &= left - 1, place += COUNT)
                store(place, body(load(entries + __builtin_ctzll(left) * COUNT)));
            for (Index i = 0; i < count; ++i) store(entries + i * COUNT, all(0.0f));
            place = found;
            for (Marks left = marks[begin / MARKED]; left != 0; left &= left - 1, place += COUNT)
                store(entries + __builtin_ctzll(left) * COUNT, load(place));
        }
    }

    // The largest of the first entries.
    INLINE Floats top_of(Index entries) const {
        Floats top = load(terms);
        for (Index i = 1; i < entries; ++i) top = larger(load(terms + i * COUNT), top);
        return top;
    }

    static constexpr Index AT_ONCE = 4 * COUNT;

    // The sums of exponential(scores), each in the order of Sum<float>; the exponentials may take the place of the scores.
    template <bool KEEPS, class Exponential>
    INLINE Wide sum(const Exponential& exponential) const {
        Wide sums[COUNT];
        for (Wide& each : sums) each = {{all(0.0), all(0.0)}};
        alignas(64) float room[KEEPS ? 1 : AT_ONCE * COUNT];
        for (Index begin = 0; begin < n; begin += AT_ONCE) {
            const Index rows = n - begin < AT_ONCE ? n - begin : AT_ONCE;
            const float* const from = terms + begin * COUNT;
            float* const to = KEEPS ? terms + begin * COUNT : room;
            Index i = 0;
            for (; i + SEVERAL <= rows; i += SEVERAL)
                store(to + i * COUNT, exponential(load_as<SeveralOf<float>>(from + i * COUNT)));
            for (; i < rows; ++i) store(to + i * COUNT, exponential(load(from + i * COUNT)));
            for (Index lane = 0; lane < COUNT && lane < rows; ++lane) {
                Wide own = sums[lane];
                if (rows == AT_ONCE) {
                    for (int k = 0; k < 4; ++k) own.add(widened_at(to + (lane + k * COUNT) * COUNT));
                } else {
                    for (Index at = lane; at < rows; at += COUNT) own.add(widened_at(to + at * COUNT));
                }
                sums[lane] = own;
            }
        }
        return sum_of_lanes(sums);
    }

  public:
    // factor / sum of each row.
    static INLINE void set_scales(const Wide& sums, Numbers& numbers, double factor = 1.0) {
        const Pair<Doubles> first = Softmax<float>::Scale::quotients(all(factor), {sums.part[0], all(0.0)});
        const Pair<Doubles> last = Softmax<float>::Scale::quotients(all(factor), {sums.part[1], all(0.0)});
        numbers = {narrowed(first.hi, last.hi), narrowed(first.lo, last.lo), all(0.0f), all(-1.0f)};
    }

  private:
    template <class Exponential>
    INLINE bool prepare_by(const Exponential& exponential, const float* g, Numbers& numbers, const Sunk& sunk = {}) const {
        const Wide sums = sum_of_two(sum<true>(exponential), sunk.terms), products = sum_of_products(g);
        float means[COUNT];
        for (int half = 0; half < 2; ++half) {
            const Doubles found = products.part[half] / sums.part[half];
            if (!Softmax<float>::are_moderate(found)) return false;
            store_eight(means + half * HALF, found);
        }
        set_scales(sums, numbers, Softmax<float>::LIFT);
        numbers.top = load(means);
        return true;
    }
    // Two products are added as floats where there are two.
    INLINE Wide sum_of_products(const float* g) const {
        const Index paired = n / (2 * COUNT) * (2 * COUNT);
        const auto weighed = [&](const Floats& e, Index i) BODY { return select(all(0.0f) < e, load(g + i * COUNT), all(0.0f)); };
        Wide sums[COUNT];
        for (int lane = 0; lane < COUNT; ++lane) {
            Wide own = {{all(0.0), all(0.0)}};
            for (Index i = lane; i < paired; i += 2 * COUNT) {
                const Floats e = load(terms + i * COUNT), f = load(terms + (i + COUNT) * COUNT);
                own.add(fma(f, weighed(f, i + COUNT), e * weighed(e, i)));
            }
            for (Index i = paired + lane; i < n; i += COUNT) {
                const Floats e = load(terms + i * COUNT);
                own.add(e * weighed(e, i));
            }
            sums[lane] = own;
        }
        return sum_of_lanes(sums);
    }
};

// What is found of sixteen plain rows while their scores are read and become terms, as Softmax finds it of one: the origins
// of the powers are guessed.
struct WalkedStrip {
    static constexpr int COUNT = Strip::COUNT, HALF = Strip::HALF;

    Doubles origins[2];
    Floats magic, floor;
    // Those of a block, entry by entry, and those of all blocks with what rounding took.
    Wide sums[COUNT], whole, rest;
    // The largest scores, the largest terms, and how many terms are as large.
    Floats top, most, ties;

    // False if there is nothing to be guessed from these scores.
    INLINE bool start(const Floats& guess) {
        const Halves wide = widened(select(all(-512.0f) < guess, guess, all(0.0f)));
        const PlainRows plain[2] = {PlainRows(wide.low), PlainRows(wide.high)};
        const Powers powers = Strip::powers_of(plain);
        magic = powers.magic;
        floor = powers.floor;
        for (int half = 0; half < 2; ++half) origins[half] = plain[half].origins;
        for (Wide& each : sums) each = {{all(0.0), all(0.0)}};
        whole = rest = sums[0];
        top = all(-INFINITE<float>);
        most = all(-1.0f);
        ties = all(0.0f);
        return bits(guess < all(512.0f)) == Strip::ALL;
    }
    // Adds `count` terms from the entry `at` on.
    INLINE void add(const float* terms, Index at, Index count) {
        for (Index i = 0; i < count; ++i) sums[(at + i) % COUNT].add(widened_at(terms + i * COUNT));
    }
    INLINE void add(const Halves& e, Index at) { sums[at % COUNT].add(e); }
    // As Team adds them up.
    INLINE void end_block() {
        const Wide block = sum_of_lanes(sums);
        for (int half = 0; half < 2; ++half) {
            const Pair<Doubles> sum = two_sum(whole.part[half], block.part[half]);
            whole.part[half] = sum.hi;
            rest.part[half] = rest.part[half] + sum.lo;
        }
        for (Wide& each : sums) each = {{all(0.0), all(0.0)}};
    }
    INLINE void look_for_most(const Floats& e) {
        ties = select(most < e, all(1.0f), ties + select(e == most, all(1.0f), all(0.0f)));
        most = larger(e, most);
    }

    // What the terms are finished with, or the scores for their logarithms, after the last block. A strip can be asked about all
    // of its entries.
    template <bool LOG, class AnyStrip>
    INLINE void finish(const AnyStrip& strip, Numbers& numbers) const {
        const Halves wide = widened(top);
        const PlainRows plain[2] = {PlainRows(wide.low), PlainRows(wide.high)};
        const Floats leading = Strip::powers_of(plain)(top);
        Doubles factors[2];
        Pair<Doubles> totals[2];
        for (int half = 0; half < 2; ++half) {
            factors[half] = plain[half].factors(origins[half]);
            totals[half] = {whole.part[half] * factors[half], rest.part[half] * factors[half]};
        }
        if constexpr (LOG)
            set_shifts(strip, plain, totals, leading, numbers);
        else
            set_weights(strip, plain, totals, factors, leading, numbers);
    }
    // Whether no term is out of range.
    INLINE bool is_reached(Index n) const {
        const Halves wide = widened(top);
        return PlainRows(wide.low).are_reached_from(origins[0], n) && PlainRows(wide.high).are_reached_from(origins[1], n);
    }

  private:
    // As MiddleRows: a leading term that is a large part of the sum is taken as it is.
    template <class AnyStrip>
    INLINE void set_weights(const AnyStrip& strip, const PlainRows (&plain)[2], const Pair<Doubles> (&totals)[2],
                            const Doubles (&factors)[2], const Floats& leading, Numbers& numbers) const {
        const Doubles first = totals[0].hi + totals[0].lo, last = totals[1].hi + totals[1].lo;
        const unsigned crowded = PlainRows::crowded(first) | PlainRows::crowded(last) << HALF;
        const Halves led = widened(leading);
        float own[COUNT], counts[COUNT], hi[COUNT], lo[COUNT], tops[COUNT];
        store_eight(own, led.low / factors[0]);
        store_eight(own + HALF, led.high / factors[1]);
        // The exponential of a smaller score may be rounded to a larger term.
        const bool are_counted = (bits(most == load(own)) | crowded) == Strip::ALL;
        store(counts, are_counted ? ties : strip.count_of(load(own)));
        for (int c = 0; c < COUNT; ++c)
            if ((crowded >> c & 1u) != 0) {
                own[c] = -1.0f;  // which no term equals
                counts[c] = 0.0f;
            }
        const Halves tied = widened(load(counts));
        plain[0].put_scales(totals[0], led.low, tied.low, factors[0], hi, lo, tops);
        plain[1].put_scales(totals[1], led.high, tied.high, factors[1], hi + HALF, lo + HALF, tops + HALF);
        numbers = {load(hi), load(lo), load(tops), load(own)};
    }
    // As Softmax::shifted.
    template <class AnyStrip>
    INLINE void set_shifts(const AnyStrip& strip, const PlainRows (&plain)[2], const Pair<Doubles> (&totals)[2], const Floats& leading,
                           Numbers& numbers) const {
        const Halves led = widened(leading);
        float hi[COUNT], lo[COUNT];
        Doubles others[2] = {plain[0].others(totals[0], led.low), plain[1].others(totals[1], led.high)};
        if (!Strip::are_clear(others)) strip.put_tails(top, Strip::powers_of(plain), {plain[0].units(), plain[1].units()}, others);
        PlainRows::put_shifts(others[0], hi, lo);
        PlainRows::put_shifts(others[1], hi + HALF, lo + HALF);
        numbers = {load(hi), load(lo), top, top};
    }
};

}  // namespace softplex::SOFTPLEX_ISA
