// The way back of backward.h for float rows that lie across the memory, sixteen side by side: from where weights and cotangents
// lie, however long the rows are. The operations are those of backward.h, in the same order.
#pragma once

#include "backward.h"
#include "columns.h"

namespace softplex::SOFTPLEX_ISA {

struct ColumnsBackward {
    static constexpr int COUNT = Strip::COUNT, HALF = Strip::HALF, STRIPS = Lines::STRIPS, STRIPS_AHEAD = 4;

    // A sum or mean of each of sixteen rows, and its outer factor.
    struct Multipliers {
        Floats number, outer;
    };

    Lines lines;
    TilePlace weights, operand, result;
    // Room for all entries of each, where they are not read where they lie.
    float *terms, *cotangents;
    // The operand's rows do not lie across.
    bool turns_operand;
    alignas(64) double outer[Lines::MOST];
    bool streams;

    // False, and nothing written but the terms, if one of the rows needs more care.
    template <class Slopes>
    APART bool run() const {
        constexpr int SUMS = Slopes::sum_to_one ? 1 : 2;
        const auto pair = [](const Floats& p, const Floats& q, const Floats& g, const Floats& h, Floats (&found)[SUMS]) BODY {
            const Floats s = Slopes::of(p), t = Slopes::of(q);
            found[0] = fma(t, h, s * g);
            if constexpr (!Slopes::sum_to_one) found[1] = s + t;
        };
        const auto mean = [](const Wide (&sums)[SUMS]) BODY {
            if constexpr (Slopes::sum_to_one) return sums[0];
            return Wide{{sums[0].part[0] / sums[1].part[0], sums[0].part[1] / sums[1].part[1]}};
        };
        return go_back<SUMS>(all(0.0f), pair, mean, [](const Floats& p, const Floats& g, const Multipliers& by) BODY {
            return PlainBackward<Slopes>::template result<true>(p, g, by.number, by.outer);
        });
    }
    APART bool run_log() const {
        using Log = LogBackward<float>;
        auto bad = unordered(all(0.0f), all(0.0f));
        const auto pair = [&bad](const Floats& l, const Floats& m, const Floats& g, const Floats& h, Floats (&found)[1]) BODY {
            bad = bad | unordered(l, m);
            found[0] = Log::where_weighed(l, g) + Log::where_weighed(m, h);
        };
        const auto sum = [&bad](const Wide (&sums)[1]) BODY {
            const Doubles none = all(__builtin_nan(""));
            return any(bad) ? Wide{{none, none}} : sums[0];
        };
        const Powers power = Log::powers();
        return go_back<1>(all(-INFINITE<float>), pair, sum, [&](const Floats& l, const Floats& g, const Multipliers& by) BODY {
            return Log::result(power, l, g, by.number, by.outer);
        });
    }

  private:
    // Of sixteen rows, those of whatever `pair` makes of two vectors of entries; what is past the end weighs `nothing`.
    template <int SUMS>
    struct Sums {
        Wide of[STRIPS][SUMS];
    };

    template <int SUMS, class Pair, class Mean, class Result>
    INLINE bool go_back(const Floats& nothing, const Pair& pair, const Mean& mean, const Result& result_of) const {
        const Field p = lines.field(weights, terms), g = turns_operand ? lines.packed(cotangents) : lines.field(operand, cotangents);
        if (turns_operand) lines.turn_rows(operand, cotangents);
        if (p.is_plain && g.is_plain)
            return go_back<SUMS>(FloatField(p), FloatField(g), nothing, pair, mean, result_of);
        return go_back<SUMS>(p, g, nothing, pair, mean, result_of);
    }
    template <int SUMS, class AnyField, class Pair, class Mean, class Result>
    INLINE bool go_back(const AnyField& p, const AnyField& g, const Floats& nothing, const Pair& pair, const Mean& mean, const Result& result_of) const {
        Sums<SUMS> sums;
        if (lines.n <= 4)
            add_few<4>(p, g, nothing, pair, sums);
        else if (lines.n <= COUNT)
            add_few<COUNT>(p, g, nothing, pair, sums);
        else
            add_many(p, g, nothing, pair, sums);
        Multipliers by[STRIPS];
        for (int s = 0; s < lines.strips; ++s)
            if (!set_multipliers(mean(sums.of[s]), outer + s * COUNT, by[s])) return false;
        lines.write(result, streams, p, g, [&, p, g](int s, Index i) BODY { return result_of(p.at(s, i), g.at(s, i), by[s]); });
        return true;
    }
    // Of rows with at most so many entries, none of which has a second to be added to.
    template <int MOST, int SUMS, class AnyField, class Pair>
    INLINE void add_few(const AnyField& p, const AnyField& g, const Floats& nothing, const Pair& pair, Sums<SUMS>& sums) const {
        for (int s = 0; s < lines.strips; ++s) {
            Wide lanes[SUMS][MOST];
            for (int i = 0; i < MOST; ++i) {
                Floats found[SUMS];
                for (Floats& each : found) each = all(0.0f);
                if (i < lines.n) pair(p.at(s, i), nothing, g.at(s, i), all(0.0f), found);
                for (int k = 0; k < SUMS; ++k) {
                    const Halves wide = widened(found[k]);
                    lanes[k][i] = {{wide.low, wide.high}};
                }
            }
            for (int k = 0; k < SUMS; ++k) sums.of[s][k] = sum_of_lanes(lanes[k]);
        }
    }
    // Of any rows, block by block.
    template <int SUMS, class AnyField, class Pair>
    INLINE void add_many(const AnyField& p, const AnyField& g, const Floats& nothing, const Pair& pair, Sums<SUMS>& sums) const {
        alignas(64) Wide lanes[STRIPS][SUMS][COUNT];
        for (Index block = 0; block < lines.n; block += BLOCK) {
            const Index end = block + BLOCK < lines.n ? block + BLOCK : lines.n;
            for (int s = 0; s < lines.strips; ++s)
                for (int k = 0; k < SUMS; ++k)
                    for (Wide& lane : lanes[s][k]) lane = {{all(0.0), all(0.0)}};
            for (Index begin = block; begin < end; begin += 2 * COUNT)
                for (int s = 0; s < lines.strips; ++s) add_pairs(p, g, s, begin, end, nothing, pair, lanes[s]);
            for (int s = 0; s < lines.strips; ++s)
                for (int k = 0; k < SUMS; ++k) {
                    const Wide found = sum_of_lanes(lanes[s][k]);
                    sums.of[s][k] = block == 0 ? found : sum_of_two(sums.of[s][k], found);
                }
        }
    }
    // From an entry to what is read some strips later: beside it, or where there are no more strips, of the next lines.
    INLINE Index ahead_of(const Field& from, int s, bool is_last) const {
        const bool is_beside = s + STRIPS_AHEAD < lines.strips || is_last;
        return STRIPS_AHEAD * from.strip + (is_beside ? 0 : 2 * COUNT * from.line - lines.strips * from.strip);
    }
    // Of two entries a lane from `begin` on.
    template <int SUMS, class AnyField, class Pair>
    INLINE void add_pairs(const AnyField& p, const AnyField& g, int s, Index begin, Index end, const Floats& nothing, const Pair& pair,
                          Wide (&lanes)[SUMS][COUNT]) const {
        const Index left = end - begin, to_other = COUNT * p.line, to_its = COUNT * g.line;
        const Index ahead = ahead_of(p, s, left <= 2 * COUNT), beside = ahead_of(g, s, left <= 2 * COUNT);
        const char *one = p.place(s, begin), *its = g.place(s, begin);
        for (int lane = 0; lane < COUNT && lane < left; ++lane, one += p.line, its += g.line) {
            __builtin_prefetch(one + ahead);
            __builtin_prefetch(one + ahead + to_other);
            __builtin_prefetch(its + beside);
            __builtin_prefetch(its + beside + to_its);
            Floats found[SUMS];
            if (lane + COUNT < left)
                pair(p.at(one), p.at(one + to_other), g.at(its), g.at(its + to_its), found);
            else
                pair(p.at(one), nothing, g.at(its), all(0.0f), found);
            for (int k = 0; k < SUMS; ++k) lanes[k][lane].add(found[k]);
        }
    }
    static INLINE bool set_multipliers(const Wide& numbers, const double* outer_of, Multipliers& by) {
        const Doubles most = all(0x1p100), least = all(0x1p-100);
        bool is_good = true;
        for (int half = 0; half < 2; ++half) {
            const Doubles size = magnitude(load(outer_of + half * HALF));
            is_good &= bits((magnitude(numbers.part[half]) < most) & (size < most) & (least < size)) == PlainRows::ALL;
        }
        by = {narrowed(numbers.part[0], numbers.part[1]), narrowed(load(outer_of), load(outer_of + HALF))};
        return is_good;
    }
};

}  // namespace softplex::SOFTPLEX_ISA
