// Float rows that fit into a few vectors, eight at a time: what is one number a row (a sum, its logarithm) is computed for
// all eight at once, or in turn. The operations are those of softmax.h and sparse.h, in the same order.
#pragma once

#include "softmax.h"
#include "sparse.h"

namespace softplex::SOFTPLEX_ISA {

struct ShortRows {
    using Eight = double[8];
    static constexpr int ROWS = 8, VECTORS = Softmax<float>::SHORT / 16, LANES = 16;

    const float* x[ROWS];
    const float* operand[ROWS];
    float* result[ROWS];
    alignas(64) Eight outer;
    int count;
    Index n;
    bool is_negated;
    bool streams;

    // False, and nothing done, if one of the rows needs more care.
    template <bool LOG>
    APART bool compute() const {
        const int vectors = static_cast<int>((n + LANES - 1) / LANES);
        alignas(64) float terms[(ROWS + 1) * VECTORS * LANES];
        float tops[ROWS];
        Eight high = {1, 1, 1, 1, 1, 1, 1, 1};
        if (!find_tops(vectors, terms, tops)) return false;
        exponentiate(vectors, terms, tops);
        sum(vectors, terms, high);
        if constexpr (LOG) return put_logarithms(vectors, tops, load(high));
        put_weights(vectors, terms, load(high));
        return true;
    }

    // The same for a sparse map, whose solver takes its rounds for all rows in turn: none waits for another's sums.
    template <class Pieces>
    APART bool solve() const {
        static constexpr int MOST = static_cast<int>(Sparse<Pieces, float>::SHORT);
        const int vectors = static_cast<int>((n + LANES - 1) / LANES);
        double gaps[ROWS][MOST];
        float terms[ROWS * MOST + SEVERAL * LANES], tops[ROWS];
        if (!find_tops(vectors, terms, tops)) return false;
        for (int r = 0; r < count; ++r)
            for (int v = 0; v < vectors; ++v) {
                const Halves wide = widened(load(terms + (r * vectors + v) * LANES));
                store(gaps[r] + v * LANES, wide.low - all(static_cast<double>(tops[r])));
                store(gaps[r] + v * LANES + 8, wide.high - all(static_cast<double>(tops[r])));
            }
        Pieces pieces[ROWS] = {Pieces(0), Pieces(0), Pieces(0), Pieces(0), Pieces(0), Pieces(0), Pieces(0), Pieces(0)};
        for (Pieces& piece : pieces) piece.begin();
        unsigned left = (1u << count) - 1u;
        for (int round = 0; round < Sparse<Pieces, float>::ROUNDS && left != 0; ++round)
            for (int r = 0; r < count; ++r)
                if ((left >> r & 1u) != 0 && is_last_step(pieces[r], gaps[r], vectors)) left &= ~(1u << r);
        for (int r = 0; r < count; ++r)
            for (int v = 0; v < vectors; ++v)
                put(r, v, narrowed(pieces[r].weight(load(gaps[r] + v * LANES)), pieces[r].weight(load(gaps[r] + v * LANES + 8))));
        return true;
    }

    INLINE int lanes_of(int v) const { return static_cast<int>(n - v * LANES < LANES ? n - v * LANES : LANES); }
    INLINE void put(int r, int v, const Floats& part) const {
        float* const to = result[r] + v * LANES;
        if (streams && lanes_of(v) == LANES && reinterpret_cast<std::uintptr_t>(to) % 64 == 0)
            stream<float>(to, part);
        else
            softplex::SOFTPLEX_ISA::put<float>(to, part, lanes_of(v));
    }
    // body(the vectors of a row as a constant): 1, 2, or 0 for any number.
    template <class Body>
    INLINE bool with_vectors(Body body) const {
        if (streams) return body(std::integral_constant<int, 0>());
        if (n <= LANES) return body(std::integral_constant<int, 1>());
        if (n <= 2 * LANES) return body(std::integral_constant<int, 2>());
        return body(std::integral_constant<int, 0>());
    }
    // Writes body(i, count) to a row.
    template <int VECTORS, class Body>
    INLINE void write(int r, Body body) const {
        float* const to = result[r];
        if constexpr (VECTORS > 0) {
            const int last = static_cast<int>(n) - (VECTORS - 1) * LANES;
            const Floats end = body(n - last, last);
            if constexpr (VECTORS == 2) store(to, body(0, LANES));
            softplex::SOFTPLEX_ISA::put<float>(to + n - last, end, last);
        } else if (streams && reinterpret_cast<std::uintptr_t>(to) % 64 == 0) {
            each_vector<float>(0, n, [=](Index i, int lanes) BODY {
                if (lanes == LANES)
                    stream<float>(to + i, body(i, lanes));
                else
                    store_some<float>(to + i, body(i, lanes), lanes);
            });
        } else {
            each_vector<float>(0, n, [=](Index i, int lanes) BODY { softplex::SOFTPLEX_ISA::put<float>(to + i, body(i, lanes), lanes); });
        }
    }

  private:
    template <class Pieces>
    static INLINE bool is_last_step(Pieces& pieces, const double* gaps, int vectors) {
        Sum<float> sums[2], rates[2];
        for (int i = 0; i < vectors * LANES; i += LANES)
            for (int j = 0; j < 2; ++j) {
                const Doubles gap = load(gaps + i + 8 * j), p = pieces.weight(gap);
                sums[j].add(p);
                rates[j].add(pieces.rate(gap, p));
            }
        sums[0].absorb(sums[1]);
        rates[0].absorb(rates[1]);
        return pieces.template step<float>(sums[0].total().hi, rates[0].total().hi);
    }

    INLINE Floats scores_of(int r, int v) const {
        const Ints sign = bits_of<Ints>(all(is_negated ? -0.0f : 0.0f));
        const float beyond = is_negated ? INFINITE<float> : -INFINITE<float>;
        return flipped(take<float>(x[r] + v * LANES, lanes_of(v), beyond), sign);
    }

    // Copies the scores, -inf past their end.
    INLINE bool find_tops(int vectors, float* scores, float (&tops)[ROWS]) const {
        auto bad = unordered(all(0.0f), all(0.0f));
        for (int r = 0; r < count; ++r) {
            Floats top = all(-INFINITE<float>);
            for (int v = 0; v < vectors; ++v) {
                const Floats one = scores_of(r, v);
                bad = bad | unordered(one, one);
                top = larger(one, top);
                store(scores + (r * vectors + v) * LANES, one);
            }
            tops[r] = largest_of(top) + 0.0f;
            if (!is_near(static_cast<double>(tops[r]))) return false;
        }
        for (int v = count * vectors; v % SEVERAL != 0; ++v) store(scores + v * LANES, all(0.0f));
        return !any(bad);
    }

    // The vectors of all rows in one line, several at a time.
    INLINE void exponentiate(int vectors, float* terms, const float (&tops)[ROWS]) const {
        using W = SeveralOf<float>;
        if (vectors % SEVERAL == 0) return exponentiate_whole(vectors, terms, tops);
        int r = 0, v = 0;
        for (int i = 0; i < count * vectors; i += SEVERAL) {
            W top;
            for (int j = 0; j < SEVERAL; ++j) {
                set_one_of(top, j, all(tops[r]));
                if (++v == vectors && r + 1 < count) v = 0, ++r;
            }
            const NearExponential::Constants<W> constants(top);
            store(terms + i * LANES, NearExponential::terms(load_as<W>(terms + i * LANES), constants));
        }
    }

    // The same where no four belong to two rows.
    INLINE void exponentiate_whole(int vectors, float* terms, const float (&tops)[ROWS]) const {
        using W = SeveralOf<float>;
        for (int r = 0; r < count; ++r) {
            const NearExponential::Constants<Floats> own(all(tops[r]));
            const NearExponential::Constants<W> constants(
                spread<SEVERAL * PARTS>(own.top), spread<SEVERAL * PARTS>(own.floor),
                spread<SEVERAL * PARTS>(own.top_multiple), spread<SEVERAL * PARTS>(own.top_rest));
            for (int v = 0; v < vectors; v += SEVERAL) {
                float* const place = terms + (r * vectors + v) * LANES;
                store(place, NearExponential::terms(load_as<W>(place), constants));
            }
        }
    }

    INLINE void sum(int vectors, const float* terms, Eight& high) const {
        for (int r = 0; r < count; ++r) {
            Sum<float> sum;
            for (int v = 0; v < vectors; ++v) sum.add(load(terms + (r * vectors + v) * LANES));
            high[r] = sum.total().hi;
        }
    }

    INLINE void put_weights(int vectors, const float* terms, const Doubles& sums) const {
        Eight head, rest;
        const Pair<Doubles> scales = Softmax<float>::Scale::quotients(all(1.0), {sums, all(0.0)});
        store(head, scales.hi);
        store(rest, scales.lo);
        for (int r = 0; r < count; ++r) {
            const Floats hi = all(static_cast<float>(head[r])), lo = all(static_cast<float>(rest[r]));
            for (int v = 0; v < vectors; ++v) {
                const Floats e = load(terms + (r * vectors + v) * LANES);
                put(r, v, fma(e, hi, e * lo));
            }
        }
    }

    // The leading terms are exact, so that one can be taken away.
    INLINE bool put_logarithms(int vectors, const float (&tops)[ROWS], const Doubles& sums) const {
        const Pair<Doubles> less = two_sum(sums, all(-1.0 / UNBIASED<float>));
        const Doubles clear = (less.hi + less.lo) * all(UNBIASED<float>);
        const unsigned rows = (1u << count) - 1u;
        if ((bits(all(Softmax<float>::CLEAR) <= clear) & rows) != rows) return false;
        Eight shifts;
        store(shifts, log1p(clear));
        for (int r = 0; r < count; ++r) {
            const Softmax<float>::Shift shift(shifts[r]);
            const Floats top = all(tops[r]);
            for (int v = 0; v < vectors; ++v) put(r, v, shift({scores_of(r, v) - top, all(0.0f)}));
        }
        return true;
    }
};

}  // namespace softplex::SOFTPLEX_ISA
