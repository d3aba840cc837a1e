// Float rows that lie across the memory, sixteen side by side: each has a lane of every vector, and is computed where it
// lies. The operations are those of softmax.h and short_rows.h, in the same order.
#pragma once

#include "memory.h"
#include "short_rows.h"
#include "softmax.h"

namespace softplex::SOFTPLEX_ISA {

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

  private:
    // A vector of doubles for each half of the rows.
    struct Wide {
        Doubles part[2];
        INLINE void add(const Floats& v) {
            const Halves halves = widened(v);
            part[0] = part[0] + halves.low;
            part[1] = part[1] + halves.high;
        }
    };
    static INLINE Wide sum_of_two(const Wide& a, const Wide& b) { return {{a.part[0] + b.part[0], a.part[1] + b.part[1]}}; }

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
        Wide lanes[HALF];
        for (int j = 0; j < HALF; ++j) lanes[j] = sum_of_two(sums[j], sums[j + HALF]);
        const Wide even = sum_of_two(sum_of_two(lanes[0], lanes[4]), sum_of_two(lanes[2], lanes[6]));
        return sum_of_two(even, sum_of_two(sum_of_two(lanes[1], lanes[5]), sum_of_two(lanes[3], lanes[7])));
    }

    // -- as ShortRows --------------------------------------------------------------------------------------------------

    template <bool LOG>
    INLINE bool compute_short(const Floats& tops) const {
        const NearExponential::Constants<Floats> constants(tops);
        const NearExponential exponential(constants);
        const Wide sums = sum<!LOG>([=](const auto& scores) BODY { return exponential(scores); });
        float hi[COUNT], lo[COUNT];
        if constexpr (LOG) {
            const Halves wide = widened(tops);
            if (!ShortRows::set_shifts(wide.low, sums.part[0], hi, lo)) return false;
            if (!ShortRows::set_shifts(wide.high, sums.part[1], hi + HALF, lo + HALF)) return false;
            const Floats high = load(hi), low = load(lo);
            put([=](const Floats& scores) BODY { return (scores - high) - low; });
        } else {
            for (int half = 0; half < 2; ++half) {
                const Pair<Doubles> scales = Softmax<float>::Scale::quotients(all(1.0), {sums.part[half], all(0.0)});
                store_eight(hi + half * HALF, scales.hi);
                store_eight(lo + half * HALF, scales.lo);
            }
            const Floats high = load(hi), low = load(lo);
            put([=](const Floats& e) BODY { return fma(e, high, e * low); });
        }
        return true;
    }

    // -- as Softmax where it is plain ------------------------------------------------------------------------------------

    template <bool LOG>
    INLINE bool compute_long(const Floats& tops) const {
        double residues[COUNT];
        const Powers powers = powers_at(tops, residues);
        const Wide sums = sum<!LOG>([=](const auto& scores) BODY { return powers(scores); });
        double totals[COUNT];
        float leading[COUNT];
        store(totals, sums.part[0]);
        store(totals + HALF, sums.part[1]);
        store(leading, powers(tops));
        if constexpr (LOG) return put_logarithms(tops, totals, leading, residues);
        put_weights(totals, leading, residues);
        return true;
    }
    // Each row's own.
    static INLINE Powers powers_at(const Floats& tops, double (&residues)[COUNT]) {
        float own[COUNT], magic[COUNT], floor[COUNT];
        store(own, tops);
        for (int c = 0; c < COUNT; ++c) {
            const Powers one = Powers::at_top(static_cast<double>(own[c]));
            magic[c] = first_of(one.magic);
            floor[c] = first_of(one.floor);
            residues[c] = one.residue;
        }
        Powers powers(0.0);
        powers.magic = load(magic);
        powers.floor = load(floor);
        powers.top = tops;
        return powers;
    }

    // As Softmax::weighed: a leading term that is a large part of the sum is taken as it is.
    INLINE void put_weights(const double* totals, const float* leading, const double* residues) const {
        using S = Softmax<float>;
        float crowded[COUNT], ties[COUNT], hi[COUNT], lo[COUNT], tops[COUNT];
        bool is_crowded = true;
        for (int c = 0; c < COUNT; ++c) {
            const bool is_so = totals[c] * UNBIASED<float> >= S::CROWDED;
            is_crowded &= is_so;
            crowded[c] = is_so ? -1.0f : leading[c];  // which no term equals
        }
        const Floats led = load(crowded);
        store(ties, is_crowded ? all(0.0f) : count_of(led));
        for (int c = 0; c < COUNT; ++c) {
            const double unit = exp_of(residues[c]) / UNBIASED<float>;
            Total sum{totals[c], 0.0};
            sum.add(0.0);
            if (crowded[c] > 0.0f) sum.add(static_cast<double>(ties[c]) * (unit - static_cast<double>(leading[c])));
            const S::Scale scale(sum);
            hi[c] = first_of(scale.hi);
            lo[c] = first_of(scale.lo);
            tops[c] = static_cast<float>(unit / sum.value());
        }
        const Floats high = load(hi), low = load(lo), top = load(tops);
        if (is_crowded)
            put([=](const Floats& e) BODY { return fma(e, high, e * low); });
        else
            put([=](const Floats& e) BODY { return select(e == led, top, fma(e, high, e * low)); });
    }
    INLINE Floats count_of(const Floats& wanted) const {
        Floats found = all(0.0f);
        for (Index i = 0; i < n; ++i) found = found + select(load(terms + i * COUNT) == wanted, all(1.0f), all(0.0f));
        return found;
    }

    // As Softmax::shifted.
    INLINE bool put_logarithms(const Floats& tops, const double* totals, const float* leading, const double* residues) const {
        double clear[COUNT];
        float hi[COUNT], lo[COUNT];
        for (int c = 0; c < COUNT; ++c) {
            Total rest{totals[c], 0.0};
            rest.add(-static_cast<double>(leading[c]));
            clear[c] = rest.value() * UNBIASED<float> / exp_of(residues[c]);
            if (!(clear[c] >= Softmax<float>::CLEAR)) return false;
        }
        for (int half = 0; half < 2; ++half) {
            const Doubles shift = short_log1p(load(clear + half * HALF)), head = widened(narrowed(shift, shift)).low;
            store_eight(hi + half * HALF, head);
            store_eight(lo + half * HALF, shift - head);
        }
        const Floats high = load(hi), low = load(lo);
        put([=](const Floats& scores) BODY { return ((scores - tops) - high) + (all(0.0f) - low); });
        return true;
    }
};

// Rows that lie across, several strips of them: what lies together in memory is read and written together.
struct Columns {
    static constexpr int STRIPS = 4, MOST = STRIPS * Strip::COUNT;
    static constexpr Index LONGEST = BLOCK;

    Type type;
    TilePlace x, result, mask;
    // Room for all entries.
    float* terms;
    Index n;
    int strips;
    bool is_negated;
    bool streams;

    // False, and nothing written but the terms, if one of the rows needs more care.
    template <bool LOG>
    APART bool compute() const {
        Floats tops[STRIPS];
        if (!copy_scores(tops)) return false;
        for (int s = 0; s < strips; ++s)
            if (!strip(s).template compute<LOG>(tops[s])) return false;
        write();
        return true;
    }

  private:
    INLINE Strip strip(int s) const { return {terms + s * n * Strip::COUNT, n}; }

    // The scores, and the largest; false if they are not near 0, or NaN.
    INLINE bool copy_scores(Floats* tops) const {
        const Ints sign = bits_of<Ints>(all(is_negated ? -0.0f : 0.0f));
        auto bad = unordered(all(0.0f), all(0.0f));
        for (int s = 0; s < strips; ++s) tops[s] = all(-INFINITE<float>);
        const float dead = is_negated ? INFINITE<float> : -INFINITE<float>;
        const bool is_direct = mask.first == nullptr && is_whole<float>(type, x);
        float room[MOST];
        for (Index i = 0; i < n; ++i) {
            const char* const line = x.first + i * x.stride;
            const float* const from = is_direct ? reinterpret_cast<const float*>(line) : room;
            if (mask.first != nullptr)
                read_masked_run<float>(type, line, size_of(type), mask.first + i * mask.stride, mask.step, dead, room, strips * Strip::COUNT);
            else if (!is_direct)
                read_run<float>(type, line, size_of(type), room, strips * Strip::COUNT);
            for (int s = 0; s < strips; ++s) {
                __builtin_prefetch(line + AHEAD * x.stride + s * 64);
                const Floats scores = flipped(load(from + s * Strip::COUNT), sign);
                bad = bad | unordered(scores, scores);
                tops[s] = larger(scores, tops[s]);
                store(strip(s).terms + i * Strip::COUNT, scores);
            }
        }
        bool are_near = !any(bad);
        for (int s = 0; s < strips; ++s) {
            // -0 and 0 must not be told apart by the order of the entries.
            tops[s] = tops[s] + all(0.0f);
            are_near &= bits(larger(tops[s], -tops[s]) < all(512.0f)) == (1u << Strip::COUNT) - 1u;
        }
        return are_near;
    }
    static constexpr Index AHEAD = 8;

    INLINE void write() const {
        const bool is_direct = is_whole<float>(type, result);
        const bool is_aligned = (reinterpret_cast<std::uintptr_t>(result.first) | static_cast<std::uintptr_t>(result.stride)) % 64 == 0;
        float room[MOST];
        for (Index i = 0; i < n; ++i) {
            char* const line = result.first + i * result.stride;
            float* const to = is_direct ? reinterpret_cast<float*>(line) : room;
            for (int s = 0; s < strips; ++s) {
                const Floats p = load(strip(s).terms + i * Strip::COUNT);
                if (streams && is_direct && is_aligned)
                    stream<float>(to + s * Strip::COUNT, p);
                else
                    store(to + s * Strip::COUNT, p);
            }
            if (!is_direct) write_run<float>(type, room, line, size_of(type), strips * Strip::COUNT);
        }
    }
};

}  // namespace softplex::SOFTPLEX_ISA
