// Lists of those scores of a few float rows that can weigh anything, and the solver that takes its rounds for all of these rows:
// each has a lane. The operations are those of sparse.h, in the same order. Who lists, and what comes of it, lives elsewhere.
#pragma once

#include "sparse.h"

namespace softplex::SOFTPLEX_ISA {

// Of ROWS rows, each with at most ROOM candidates.
template <int ROWS, Index ROOM>
struct Lists {
    // FEW: rows that go through one vector of doubles.
    static constexpr int LANES = Lanes<float>::count, FEW = 8, EIGHTS = ROWS / FEW;
    // A list may be longer by a vector, and ends with one that weighs nothing.
    static constexpr Index PITCH = ROOM + 2 * LANES;
    // Entries whose sums are taken side by side, where there are registers for that.
    static constexpr int TOGETHER = PARTS == 1 ? 4 : 1;

    alignas(64) float scores[ROWS * PITCH];
    Index listed[ROWS] = {};
    Doubles gaps[EIGHTS][ROOM];
    // The longest list of each eight.
    Index longest[EIGHTS];
    alignas(64) double unknowns[ROWS];

    INLINE float* of(int r) { return scores + r * PITCH; }
    static INLINE void end(float* list) { store(list, all(-INFINITE<float>)); }
    // What is past the end of a list weighs nothing, up to a whole group of entries.
    static INLINE Index whole_groups(Index count) { return (count + TOGETHER - 1) / TOGETHER * TOGETHER; }

    // The lists of so many rows, entry by entry as gaps. Each list is full to the end of its vector, or has its end.
    INLINE void turn_all(int rows, const float* tops) {
        Index most = 0, least = ROOM;
        for (int j = 0; j < EIGHTS; ++j) {
            longest[j] = 0;
            for (int r = j * FEW; r < (j + 1) * FEW; ++r) longest[j] = listed[r] > longest[j] ? listed[r] : longest[j];
            most = longest[j] > most ? longest[j] : most;
        }
        for (int r = 0; r < rows; ++r) least = listed[r] < least ? listed[r] : least;
        const Index end_of_all = whole_groups(most);
        const bool are_absent = rows % LANES != 0, are_short = least + LANES < end_of_all;
        if (are_absent || are_short) lengthen(rows, end_of_all);
        for (int r = 0; r < rows; r += LANES) turn_some(r, most, tops + r);
    }

    // The unknowns of all rows, whose rounds go side by side: no eight of them waits for the quotients of another.
    template <class Pieces>
    INLINE void solve(int rows) {
        constexpr unsigned ALL_OF_FEW = (1u << FEW) - 1u;
        const int eights = (rows + FEW - 1) / FEW;
        Doubles unknown[EIGHTS], before[EIGHTS];
        DoubleMask is_done[EIGHTS];
        for (int j = 0; j < eights; ++j) {
            unknown[j] = all(1.0);
            before[j] = all(0.0);
            is_done[j] = before[j] < before[j];
        }
        bool are_done = false;
        for (int round = 0; round < Sparse<Pieces, float>::ROUNDS && !are_done; ++round) {
            are_done = true;
            for (int j = 0; j < eights; ++j) {
                Doubles sum, rates;
                add_up<Pieces>(gaps[j], longest[j], unknown[j], sum, rates);
                unknown[j] = select(is_done[j], unknown[j], Pieces::template next<true>(unknown[j], sum, rates));
                is_done[j] = is_done[j] | Pieces::template is_last<float>(sum, rates, before[j]);
                before[j] = rates;
                are_done &= bits(is_done[j]) == ALL_OF_FEW;
            }
        }
        for (int j = 0; j < eights; ++j) store(unknowns + j * FEW, unknown[j]);
    }

    // The gaps of rows with temperatures, of which there are as many as rows.
    INLINE void temper(const double* temperatures) {
        for (int j = 0; j < EIGHTS; ++j) {
            const Doubles own = load(temperatures + j * FEW);
            for (Index i = 0; i < whole_groups(longest[j]); ++i) gaps[j][i] = gaps[j][i] / own;
        }
    }

    // Each score in a row's list gives way to its weight.
    template <class Pieces, bool IS_TEMPERED>
    INLINE void weigh(int r, float top, double temperature) {
        const Doubles highest = all(static_cast<double>(top)), own = all(unknowns[r]), divisor = all(temperature);
        const auto weight = [&](const Doubles& score) BODY {
            const Doubles gap = score - highest;
            return Pieces::weight(own, IS_TEMPERED ? gap / divisor : gap);
        };
        for (Index i = 0; i < listed[r]; i += LANES) {
            const Halves wide = widened(load(of(r) + i));
            store(of(r) + i, narrowed(weight(wide.low), weight(wide.high)));
        }
    }

  private:
    INLINE void lengthen(int rows, Index end_of_all) {
        for (int r = 0; r < rows || r % LANES != 0; ++r)
            for (Index i = listed[r]; i < end_of_all; i += LANES) end(of(r) + i);
    }
    // What a list has past end_of_all becomes gaps that nobody reads.
    INLINE void turn_some(int first, Index most, const float* tops) {
        const Halves top = widened(load(tops));
        Doubles *const low = gaps[first / FEW], *const high = gaps[first / FEW + 1];
        for (Index i = 0; i < most; i += LANES) {
            Floats rows[LANES];
            for (int r = 0; r < LANES; ++r) rows[r] = load(of(first + r) + i);
            turn(rows);
            for (int j = 0; j < LANES; ++j) {
                const Halves wide = widened(rows[j]);
                low[i + j] = wide.low - top.low;
                high[i + j] = wide.high - top.high;
            }
        }
    }
    static INLINE Doubles sum_of_eight(const Doubles (&sums)[8]) {
        return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
    }
    // In the order of Sum<float>, each of whose lanes has every eighth.
    template <class Pieces>
    static INLINE void add_up(const Doubles* gaps, Index most, const Doubles& unknown, Doubles& sum, Doubles& rates) {
        Doubles sums[8], slopes[8];
        const auto add = [&](Doubles& own, Doubles& slope, Index i) BODY {
            const Doubles p = Pieces::weight(unknown, gaps[i]);
            own = own + p;
            slope = slope + Pieces::rate(unknown, gaps[i], p);
        };
        if constexpr (TOGETHER == 1) {
            for (int lane = 0; lane < 8; ++lane) {
                Doubles own = all(0.0), slope = own;
                for (Index i = lane; i < most; i += 8) add(own, slope, i);
                sums[lane] = own;
                slopes[lane] = slope;
            }
        } else {
            EACH_OF(8) sums[i] = slopes[i] = all(0.0);
            Index begin = 0;
            for (; begin + TOGETHER < most; begin += 8) {
                EACH_OF(8) add(sums[i], slopes[i], begin + i);
            }
            if (begin < most) {
                EACH_OF(TOGETHER) add(sums[i], slopes[i], begin + i);
            }
        }
        sum = sum_of_eight(sums);
        rates = sum_of_eight(slopes);
    }
};

}  // namespace softplex::SOFTPLEX_ISA
