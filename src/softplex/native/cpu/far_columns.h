// Values of softmax and its logarithm for rows that lie across the memory and are so long that no terms of sixteen are kept: their
// entries are read twice where they lie, and terms computed twice. The operations are those of softmax.h, in the same order.
#pragma once

#include "columns.h"

namespace softplex::SOFTPLEX_ISA {

// Sixteen of these rows, to be asked about after they were walked.
struct FarStrip {
    const Scores& scores;
    int s;
    Index n;
    Powers powers;

    // How many terms of each row are `wanted`.
    APART Floats count_of(const Floats& wanted) const {
        Floats found = all(0.0f);
        for (Index i = 0; i < n; ++i) found = found + select(powers(scores.at(s, i)) == wanted, all(1.0f), all(0.0f));
        return found;
    }
    // As those of a Strip.
    APART void put_tails(const Floats& tops, const Powers& exponential, const Wide& units, Doubles (&others)[2]) const {
        WalkedStrip tails;
        tails.start(tops);
        for (Index i = 0; i < n; ++i) {
            if (i % BLOCK == 0 && i > 0) tails.end_block();
            const Floats x = scores.at(s, i);
            const Halves wide = widened(select(x == tops, all(0.0f), exponential(x)));
            tails.add(wide, i);
        }
        tails.end_block();
        for (int half = 0; half < 2; ++half) {
            const Doubles tail = tails.whole.part[half] + tails.rest.part[half];
            others[half] = select(all(Softmax<float>::CLEAR) <= others[half], others[half], tail / units.part[half]);
        }
    }
    INLINE bool is_faint(const Numbers& by) const {
        constexpr int COUNT = Strip::COUNT;
        return Faint(by.hi, by.lo).is_met(0, n * COUNT, [&](Index i, int) BODY { return powers(scores.at(s, i / COUNT)); });
    }
};

struct FarColumns {
    static constexpr int COUNT = Strip::COUNT, STRIPS = Lines::STRIPS;
    static constexpr Index AT_ONCE = Lines::AT_ONCE;
    // Of longer rows the top is guessed otherwise.
    static constexpr Index LONGEST = Softmax<float>::LONGEST;

    Lines lines;
    TilePlace x, result, mask;
    bool is_negated;
    bool streams;

    // False, and nothing written, if one of the rows needs more care.
    template <bool LOG>
    APART bool compute() const {
        if (!lines.is_at_hand(x, {}) || !Scores::knows(mask)) return false;
        const Scores scores{lines.in_place(x), mask, bits_of<Ints>(all(is_negated ? -0.0f : 0.0f))};
        Floats guesses[STRIPS];
        WalkedStrip walked[STRIPS];
        Numbers numbers[STRIPS];
        for (int s = 0; s < lines.strips; ++s) {
            guesses[s] = scores.at(s, 0);
            for (Index i = 1; i < COUNT; ++i) guesses[s] = larger(scores.at(s, i), guesses[s]);
        }
        if (!walk<LOG>(scores, guesses, walked)) return false;
        bool are_reached = true;
        for (int s = 0; s < lines.strips; ++s) {
            are_reached &= walked[s].is_reached(lines.n);
            guesses[s] = walked[s].top;
        }
        if (!are_reached && !walk<LOG>(scores, guesses, walked)) return false;
        for (int s = 0; s < lines.strips; ++s) walked[s].finish<LOG>(strip(scores, walked[s], s), numbers[s]);
        write<LOG>(scores, walked, numbers);
        return true;
    }

  private:
    INLINE FarStrip strip(const Scores& scores, const WalkedStrip& walked, int s) const {
        return {scores, s, lines.n, Powers(walked.magic, walked.floor)};
    }
    // False if a row is not near 0, or has NaN.
    template <bool LOG>
    INLINE bool walk(const Scores& scores, const Floats* guesses, WalkedStrip* walked) const {
        auto bad = unordered(all(0.0f), all(0.0f));
        for (int s = 0; s < lines.strips; ++s)
            if (!walked[s].start(guesses[s])) return false;
        for (Index begin = 0; begin < lines.n; begin += AT_ONCE) {
            const Index end = begin + AT_ONCE < lines.n ? begin + AT_ONCE : lines.n;
            for (int s = 0; s < lines.strips; ++s) bad = bad | walk_some<LOG>(scores, s, begin, end, walked[s]);
        }
        bool are_near = !any(bad);
        for (int s = 0; s < lines.strips; ++s) {
            walked[s].end_block();
            are_near &= Lines::is_near(walked[s].top);
        }
        return are_near;
    }
    // A few entries of sixteen rows; returns where there is NaN.
    template <bool LOG>
    INLINE auto walk_some(const Scores& scores, int s, Index begin, Index end, WalkedStrip& walked) const {
        const Powers powers(walked.magic, walked.floor);
        Floats top = walked.top;
        auto bad = unordered(all(0.0f), all(0.0f));
        if (begin % BLOCK == 0 && begin > 0) walked.end_block();
        for (Index i = begin; i < end; ++i) {
            __builtin_prefetch(scores.field.place(s, i + AT_ONCE));
            const Floats one = scores.at(s, i), e = powers(one);
            bad = bad | unordered(one, one);
            top = larger(one, top);
            walked.add(widened(e), i);
            if constexpr (!LOG) walked.look_for_most(e);
        }
        walked.top = top;
        return bad;
    }
    template <bool LOG>
    INLINE void write(const Scores& scores, const WalkedStrip* walked, const Numbers* numbers) const {
        if constexpr (LOG) {
            lines.write(result, streams, scores.field, {}, [&scores, numbers](int s, Index i) BODY {
                return Strip::finished<true, false>(scores.at(s, i), numbers[s]);
            });
        } else {
            const auto term = [&scores, walked](int s, Index i) BODY { return Powers(walked[s].magic, walked[s].floor)(scores.at(s, i)); };
            bool are_faint = false;
            for (int s = 0; s < lines.strips; ++s) are_faint |= strip(scores, walked[s], s).is_faint(numbers[s]);
            if (are_faint)
                return lines.write(result, streams, scores.field, {}, [&term, numbers](int s, Index i) BODY {
                    const Floats e = term(s, i);
                    return Strip::weighed<false>(e, numbers[s], Faint(numbers[s].hi, numbers[s].lo).weight(e));
                });
            lines.write(result, streams, scores.field, {}, [&term, numbers](int s, Index i) BODY {
                return Strip::finished<false, false>(term(s, i), numbers[s]);
            });
        }
    }
};

}  // namespace softplex::SOFTPLEX_ISA
