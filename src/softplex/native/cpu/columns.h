// Float rows that lie across the memory, sixteen side by side: each has a lane of every vector, and none is turned. The
// operations are those of softmax.h, short_rows.h and backward.h, in the same order.
#pragma once

#include "backward.h"
#include "memory.h"
#include "plain_rows.h"
#include "short_rows.h"

namespace softplex::SOFTPLEX_ISA {

// A vector of doubles for each half of sixteen rows.
struct Wide {
    Doubles part[2];
    INLINE void add(const Floats& v) {
        const Halves halves = widened(v);
        part[0] = part[0] + halves.low;
        part[1] = part[1] + halves.high;
    }
};
INLINE Wide sum_of_two(const Wide& a, const Wide& b) { return {{a.part[0] + b.part[0], a.part[1] + b.part[1]}}; }
// What Sum<float> makes of its lanes.
INLINE Wide sum_of_lanes(const Wide (&sums)[16]) {
    Wide lanes[8];
    for (int j = 0; j < 8; ++j) lanes[j] = sum_of_two(sums[j], sums[j + 8]);
    const Wide even = sum_of_two(sum_of_two(lanes[0], lanes[4]), sum_of_two(lanes[2], lanes[6]));
    return sum_of_two(even, sum_of_two(sum_of_two(lanes[1], lanes[5]), sum_of_two(lanes[3], lanes[7])));
}

// Sixteen rows: their scores, entry by entry, where the weights then are.
struct Strip {
    static constexpr int COUNT = Lanes<float>::count, HALF = COUNT / 2;

    float* terms;
    Index n;

    // False if one of the rows needs more care.
    template <bool LOG>
    INLINE bool compute(const Floats& tops) const {
        return n <= Softmax<float>::SHORT ? compute_short<LOG>(tops) : compute_long<LOG>(tops);
    }

    // The weights of a sparse map, as ShortRows; false if one of the rows needs more care.
    template <class Pieces>
    APART bool solve(const Floats& tops) const {
        Doubles gaps[2][ShortRows::CANDIDATES];
        const Floats cuts = Sparse<Pieces, float>::cut_below(tops);
        float top[COUNT];
        store(top, tops);
        const bool are_listed = n <= COUNT || (n <= ShortRows::CANDIDATES && are_all_above(cuts));
        const Index most = are_listed ? take_all(tops, gaps) : list_candidates(cuts, top, gaps);
        if (most > ShortRows::CANDIDATES) return false;
        alignas(64) double unknowns[COUNT];
        ShortRows::find_unknowns<Pieces>(gaps, most, COUNT, unknowns);
        const Doubles first = load(unknowns), last = load(unknowns + HALF);
        const Halves wide_tops = widened(tops);
        put([&](const Floats& scores) BODY {
            if (!any(cuts < scores)) return all(0.0f);
            const Halves wide = widened(scores);
            return narrowed(Pieces::weight(first, wide.low - wide_tops.low), Pieces::weight(last, wide.high - wide_tops.high));
        });
        return true;
    }

    // The strip as rows, which have room for a multiple of sixteen, and back.
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
            for (int j = 0; j < COUNT; ++j) part[j] = load(rows + j * pitch + i);
            turn(part);
            for (int j = 0; j < COUNT && i + j < n; ++j) store(terms + (i + j) * COUNT, part[j]);
        }
    }

  private:
    INLINE bool are_all_above(const Floats& cuts) const {
        constexpr unsigned ALL = (1u << COUNT) - 1u;
        for (Index i = 0; i < n; ++i)
            if (bits(cuts < load(terms + i * COUNT)) != ALL) return false;
        return true;
    }
    INLINE Index take_all(const Floats& tops, Doubles (&gaps)[2][ShortRows::CANDIDATES]) const {
        const Halves top = widened(tops);
        for (Index i = 0; i < n; ++i) {
            const Halves wide = widened(load(terms + i * COUNT));
            gaps[0][i] = wide.low - top.low;
            gaps[1][i] = wide.high - top.high;
        }
        return n;
    }
    INLINE Index list_candidates(const Floats& cuts, const float* tops, Doubles (&gaps)[2][ShortRows::CANDIDATES]) const {
        alignas(64) float list[COUNT * ShortRows::PITCH];
        Index listed[COUNT] = {}, most = 0;
        for (Index i = 0; i < n; ++i) {
            for (unsigned left = bits(cuts < load(terms + i * COUNT)); left != 0; left &= left - 1) {
                const int r = __builtin_ctz(left);
                list[r * ShortRows::PITCH + listed[r]++] = terms[i * COUNT + r];
                most = listed[r] > most ? listed[r] : most;
            }
            if (most > ShortRows::CANDIDATES) return most;
        }
        ShortRows::fill_lists(listed, most, list);
        ShortRows::turn_lists(list, most, tops, gaps);
        return most;
    }
    // Each entry becomes body(entry).
    template <class Body>
    INLINE void put(Body body) const {
        for (Index i = 0; i < n * COUNT; i += COUNT) store(terms + i, body(load(terms + i)));
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
                for (Index at = lane; at < rows; at += COUNT) own.add(load(to + at * COUNT));
                sums[lane] = own;
            }
        }
        return sum_of_lanes(sums);
    }

    // -- as ShortRows --------------------------------------------------------------------------------------------------

    template <bool LOG>
    INLINE bool compute_short(const Floats& tops) const {
        const NearExponential::Constants<Floats> constants(tops);
        const NearExponential exponential(constants);
        const Wide sums = sum<!LOG>([&](const auto& scores) BODY { return exponential(scores); });
        float hi[COUNT], lo[COUNT];
        if constexpr (LOG) {
            const Halves wide = widened(tops);
            if (!ShortRows::set_shifts(wide.low, sums.part[0], hi, lo)) return false;
            if (!ShortRows::set_shifts(wide.high, sums.part[1], hi + HALF, lo + HALF)) return false;
            const Floats high = load(hi), low = load(lo);
            put([&](const Floats& scores) BODY { return (scores - high) - low; });
        } else {
            for (int half = 0; half < 2; ++half) {
                const Pair<Doubles> scales = Softmax<float>::Scale::quotients(all(1.0), {sums.part[half], all(0.0)});
                store_eight(hi + half * HALF, scales.hi);
                store_eight(lo + half * HALF, scales.lo);
            }
            const Floats high = load(hi), low = load(lo);
            put([&](const Floats& e) BODY { return fma(e, high, e * low); });
        }
        return true;
    }

    // -- as Softmax where it is plain ------------------------------------------------------------------------------------

    template <bool LOG>
    INLINE bool compute_long(const Floats& tops) const {
        const Halves wide = widened(tops);
        const PlainRows plain[2] = {PlainRows(wide.low), PlainRows(wide.high)};
        float magic[COUNT], floor[COUNT];
        for (int half = 0; half < 2; ++half) plain[half].put_powers(magic + half * HALF, floor + half * HALF);
        const Powers powers(load(magic), load(floor));
        const Wide sums = sum<!LOG>([&](const auto& scores) BODY { return powers(scores); });
        const Floats leading = powers(tops);
        if constexpr (LOG) return put_logarithms(plain, tops, sums, leading);
        put_weights(plain, sums, leading);
        return true;
    }

    // As Softmax::weighed: a leading term that is a large part of the sum is taken as it is.
    INLINE void put_weights(const PlainRows (&plain)[2], const Wide& sums, const Floats& leading) const {
        const unsigned crowded = PlainRows::crowded(sums.part[0]) | PlainRows::crowded(sums.part[1]) << HALF;
        float own[COUNT], hi[COUNT], lo[COUNT], tops[COUNT];
        store(own, leading);
        for (int c = 0; c < COUNT; ++c)
            if ((crowded >> c & 1u) != 0) own[c] = -1.0f;  // which no term equals
        const bool is_crowded = crowded == (1u << COUNT) - 1u;
        const Floats led = load(own);
        const Halves wide = widened(leading), ties = widened(is_crowded ? all(0.0f) : count_of(led));
        plain[0].put_scales(sums.part[0], wide.low, ties.low, all(1.0), hi, lo, tops);
        plain[1].put_scales(sums.part[1], wide.high, ties.high, all(1.0), hi + HALF, lo + HALF, tops + HALF);
        const Floats high = load(hi), low = load(lo), top = load(tops);
        if (is_crowded)
            put([&](const Floats& e) BODY { return fma(e, high, e * low); });
        else
            put([&](const Floats& e) BODY { return select(e == led, top, fma(e, high, e * low)); });
    }
    INLINE Floats count_of(const Floats& wanted) const {
        Floats found = all(0.0f);
        for (Index i = 0; i < n; ++i) found = found + select(load(terms + i * COUNT) == wanted, all(1.0f), all(0.0f));
        return found;
    }

    // As Softmax::shifted.
    INLINE bool put_logarithms(const PlainRows (&plain)[2], const Floats& tops, const Wide& sums, const Floats& leading) const {
        const Halves wide = widened(leading);
        float hi[COUNT], lo[COUNT];
        if (!plain[0].put_shifts(sums.part[0], wide.low, hi, lo)) return false;
        if (!plain[1].put_shifts(sums.part[1], wide.high, hi + HALF, lo + HALF)) return false;
        const Floats high = load(hi), low = load(lo);
        put([&](const Floats& scores) BODY { return ((scores - tops) - high) + (all(0.0f) - low); });
        return true;
    }
};

// Strips of rows that lie side by side: what lies together in memory is read and written together.
struct Lines {
    static constexpr int STRIPS = 8, MOST = STRIPS * Strip::COUNT;
    static constexpr Index LONGEST = BLOCK - 1;
    static constexpr Index AHEAD = 8;

    Type type;
    Index n;
    int strips;

    // body(entry's place in a strip, which strip, entry of sixteen rows), `dead` where the mask, if there is one, says so.
    template <class Body>
    INLINE void read(const TilePlace& from, const TilePlace& mask, float dead, Body body) const {
        const Index size = size_of(type), count = strips * Strip::COUNT;
        const bool is_direct = mask.first == nullptr && is_whole<float>(type, from);
        float room[MOST];
        for (Index i = 0; i < n; ++i) {
            const char* const line = from.first + i * from.stride;
            if (mask.first != nullptr)
                read_masked_run<float>(type, line, size, mask.first + i * mask.stride, mask.step, dead, room, count);
            else if (!is_direct)
                read_run<float>(type, line, size, room, count);
            const float* const entries = is_direct ? reinterpret_cast<const float*>(line) : room;
            for (int s = 0; s < strips; ++s) {
                __builtin_prefetch(line + AHEAD * from.stride + s * 64);
                body(i * Strip::COUNT, s, load(entries + s * Strip::COUNT));
            }
        }
    }
    INLINE void write(const TilePlace& to, const float* terms, bool streams) const {
        const bool is_direct = is_whole<float>(type, to);
        const bool is_aligned = (reinterpret_cast<std::uintptr_t>(to.first) | static_cast<std::uintptr_t>(to.stride)) % 64 == 0;
        float room[MOST];
        for (Index i = 0; i < n; ++i) {
            char* const line = to.first + i * to.stride;
            float* const entries = is_direct ? reinterpret_cast<float*>(line) : room;
            for (int s = 0; s < strips; ++s) {
                const Floats p = load(terms + (s * n + i) * Strip::COUNT);
                if (streams && is_direct && is_aligned)
                    stream<float>(entries + s * Strip::COUNT, p);
                else
                    store(entries + s * Strip::COUNT, p);
            }
            if (!is_direct) write_run<float>(type, room, line, size_of(type), strips * Strip::COUNT);
        }
    }
};

// Values of softmax and its logarithm.
struct Columns {
    Lines lines;
    TilePlace x, result, mask;
    // Room for all entries.
    float* terms;
    bool is_negated;
    bool streams;

    // False, and nothing written but the terms, if one of the rows needs more care.
    template <bool LOG>
    APART bool compute() const {
        Floats tops[Lines::STRIPS];
        if (!copy_scores(tops)) return false;
        const Index n = lines.n;
        for (int s = 0; s < lines.strips; ++s)
            if (!Strip{terms + s * n * Strip::COUNT, n}.template compute<LOG>(tops[s])) return false;
        lines.write(result, terms, streams);
        return true;
    }

    // The same of a sparse map; careful(strip) sees to strips that need more care.
    template <class Pieces, class Careful>
    APART void solve(const Careful& careful) const {
        Floats tops[Lines::STRIPS];
        const bool are_near = copy_scores(tops);
        for (int s = 0; s < lines.strips; ++s) {
            const Strip strip{terms + s * lines.n * Strip::COUNT, lines.n};
            if (!are_near || !strip.template solve<Pieces>(tops[s])) careful(s, strip);
        }
        lines.write(result, terms, streams);
    }

  private:
    // The scores, and the largest; false if they are not near 0, or NaN.
    INLINE bool copy_scores(Floats* tops) const {
        const Ints sign = bits_of<Ints>(all(is_negated ? -0.0f : 0.0f));
        auto bad = unordered(all(0.0f), all(0.0f));
        for (int s = 0; s < lines.strips; ++s) tops[s] = all(-INFINITE<float>);
        const Index pitch = lines.n * Strip::COUNT;
        lines.read(x, mask, is_negated ? INFINITE<float> : -INFINITE<float>, [&](Index at, int s, const Floats& entries) BODY {
            const Floats scores = flipped(entries, sign);
            bad = bad | unordered(scores, scores);
            tops[s] = larger(scores, tops[s]);
            store(terms + s * pitch + at, scores);
        });
        bool are_near = !any(bad);
        for (int s = 0; s < lines.strips; ++s) {
            // -0 and 0 must not be told apart by the order of the entries.
            tops[s] = tops[s] + all(0.0f);
            are_near &= bits(larger(tops[s], -tops[s]) < all(512.0f)) == (1u << Strip::COUNT) - 1u;
        }
        return are_near;
    }
};

// The way back from weights or their logarithms.
struct ColumnsBackward {
    static constexpr int COUNT = Strip::COUNT, HALF = Strip::HALF;

    Lines lines;
    TilePlace weights, operand, result;
    // Room for all entries of each.
    float *terms, *cotangents;
    double outer[Lines::MOST];
    bool streams;

    // False, and nothing written but the terms, if one of the rows needs more care.
    template <class Slopes>
    APART bool run() const {
        copy();
        using Plain = PlainBackward<Slopes>;
        return each_strip([](float* p, const float* g, Index n, const double* outer_of) BODY {
            Wide mean = sum_of_pairs(n, [&](Index i, Index j) BODY {
                return fma(entry_of<Slopes>(p, j, n), j < n ? load(g + j * COUNT) : all(0.0f),
                           Slopes::of(load(p + i * COUNT)) * load(g + i * COUNT));
            });
            if constexpr (!Slopes::sum_to_one) {
                const Wide whole = sum_of_pairs(n, [&](Index i, Index j) BODY {
                    return Slopes::of(load(p + i * COUNT)) + entry_of<Slopes>(p, j, n);
                });
                for (int half = 0; half < 2; ++half) mean.part[half] = mean.part[half] / whole.part[half];
            }
            Floats means, factors;
            if (!set_multipliers(mean, outer_of, means, factors)) return false;
            for (Index i = 0; i < n * COUNT; i += COUNT)
                store(p + i, Plain::template result<true>(load(p + i), load(g + i), means, factors));
            return true;
        });
    }
    APART bool run_log() const {
        copy();
        using Log = LogBackward<float>;
        return each_strip([](float* l, const float* g, Index n, const double* outer_of) BODY {
            auto bad = unordered(all(0.0f), all(0.0f));
            const Wide sum = sum_of_pairs(n, [&](Index i, Index j) BODY {
                const Floats one = load(l + i * COUNT), other = j < n ? load(l + j * COUNT) : all(-INFINITE<float>);
                bad = bad | unordered(one, other);
                return Log::where_weighed(one, load(g + i * COUNT)) + Log::where_weighed(other, j < n ? load(g + j * COUNT) : all(0.0f));
            });
            Floats total, factors;
            if (any(bad) || !set_multipliers(sum, outer_of, total, factors)) return false;
            const Powers power = Log::powers();
            for (Index i = 0; i < n * COUNT; i += COUNT)
                store(l + i, Log::result_at(power, l + i, g + i, COUNT, total, factors));
            return true;
        });
    }

  private:
    INLINE void copy() const {
        const Index pitch = lines.n * COUNT;
        lines.read(weights, {}, 0.0f, [&](Index at, int s, const Floats& p) BODY { store(terms + s * pitch + at, p); });
        lines.read(operand, {}, 0.0f, [&](Index at, int s, const Floats& g) BODY { store(cotangents + s * pitch + at, g); });
    }
    // run(weights, where the results then are, cotangents, outer factors) for each strip.
    template <class Run>
    INLINE bool each_strip(Run run) const {
        const Index pitch = lines.n * COUNT;
        for (int s = 0; s < lines.strips; ++s)
            if (!run(terms + s * pitch, cotangents + s * pitch, lines.n, outer + s * COUNT)) return false;
        lines.write(result, terms, streams);
        return true;
    }
    template <class Slopes>
    static INLINE Floats entry_of(const float* p, Index i, Index n) {
        return i < n ? Slopes::of(load(p + i * COUNT)) : all(0.0f);
    }
    // The sum of body(i, i + 16): two entries are added as floats, the second of which may be past the end.
    template <class Body>
    static INLINE Wide sum_of_pairs(Index n, Body body) {
        Wide sums[COUNT];
        for (int lane = 0; lane < COUNT; ++lane) {
            Wide own = {{all(0.0), all(0.0)}};
            for (Index i = lane; i < n; i += 2 * COUNT) own.add(body(i, i + COUNT));
            sums[lane] = own;
        }
        return sum_of_lanes(sums);
    }
    static INLINE bool set_multipliers(const Wide& numbers, const double* outer_of, Floats& floats, Floats& factors) {
        double wide[COUNT];
        float some[COUNT], own[COUNT];
        store(wide, numbers.part[0]);
        store(wide + HALF, numbers.part[1]);
        bool is_good = true;
        for (int c = 0; c < COUNT; ++c) {
            is_good &= is_plain(wide[c], outer_of[c]);
            some[c] = static_cast<float>(wide[c]);
            own[c] = static_cast<float>(outer_of[c]);
        }
        floats = load(some);
        factors = load(own);
        return is_good;
    }
};

}  // namespace softplex::SOFTPLEX_ISA
