// Float rows that fit into a few vectors, 8 to 32 at a time: what is one number a row (a sum, its logarithm) is computed for
// eight at once, or in turn; of a sparse map rows that are longer, too, if few of their scores count. The operations are
// those of softmax.h and sparse.h, in the same order.
#pragma once

#include "faint.h"
#include "lists.h"
#include "plain_rows.h"
#include "softmax.h"

namespace softplex::SOFTPLEX_ISA {

struct ShortRows {
    // FEW: rows that go through one vector of doubles.
    static constexpr int ROWS = 32, FEW = 8, LANES = 16;
    static constexpr Index STEP = SEVERAL * LANES;
    // Of a sparse map: candidates that a row may have; entries.
    static constexpr Index CANDIDATES = 256, LONGEST = 4096;
    // Entries of all rows at most.
    static constexpr int ROOM = FEW * Softmax<float>::SHORT;

    const float* x[ROWS];
    const float* operand[ROWS];
    float* result[ROWS];
    // Of a way back what it is multiplied by, of a residual its scale.
    alignas(64) double outer[ROWS];
    alignas(64) double temperatures[ROWS], sinks[ROWS];
    Index labels[ROWS];
    // Where losses and smooth maxima go.
    double* numbers;
    int count;
    Index n;
    bool is_negated;
    // Whether there are temperatures, or sinks; of a way back there are none.
    bool is_tempered = false, has_sinks = false;
    bool streams;
    Seam<float>* seam = nullptr;
    // From a row to that which comes after all of these; 0 in scratch memory, behind which lies another thread's.
    Index ahead = 0;

    // How many are worth taking together: as many as keep a processor busy while it waits for sums and quotients, but no more
    // where it computes little and waits for memory.
    static INLINE Index at_once(Index n, bool is_backward, bool is_solved, bool is_tempered = false) {
        if (n <= ROOM / ROWS) return is_solved && is_tempered ? LANES : ROWS;
        if (is_solved) return LANES;
        return n <= 2 * ROOM / ROWS && !is_backward ? ROWS / 2 : FEW;
    }

    enum class Asked { weights, logarithms, losses, maxima, residuals, derivatives, log_derivatives };
    static constexpr bool has_operand(Asked asked) { return asked == Asked::derivatives || asked == Asked::log_derivatives; }

    // False, and nothing done, if one of the rows needs more care.
    template <Asked ASKED>
    APART bool compute() const {
        const int vectors = static_cast<int>((n + LANES - 1) / LANES);
        // Entries that fill their vectors badly are put side by side, row after row.
        const bool is_dense = vectors % SEVERAL != 0 || vectors * LANES > n + n / 4;
        return is_dense ? compute_rows<ASKED, true>(vectors) : compute_rows<ASKED, false>(vectors);
    }
    template <Asked ASKED, bool IS_DENSE>
    INLINE bool compute_rows(int vectors) const {
        alignas(64) float terms[ROOM + (SEVERAL + 1) * LANES];
        alignas(64) float tops[ROWS + FEW];
        Doubles sums[ROWS];
        const Index pitch = IS_DENSE ? n : vectors * LANES;
        if (!find_tops<IS_DENSE>(vectors, terms, tops)) return false;
        if (has_sinks && !raise_tops(tops)) return false;
        if (is_tempered) {
            if (!exponentiate_tempered<IS_DENSE>(vectors, terms, tops, sums)) return false;
        } else if constexpr (IS_DENSE) {
            exponentiate(vectors, terms, tops);
            sum(vectors, terms, sums);
        } else {
            exponentiate_whole<has_operand(ASKED)>(vectors, terms, tops, sums);
        }
        for (int r = count; r % FEW != 0; ++r) sums[r] = all(4.0 / UNBIASED<float>);
        Doubles totals[ROWS / FEW];
        for (int r = 0; r < count; r += FEW) totals[r / FEW] = sums_of(sums + r);
        if (has_sinks) add_sinks(tops, totals);
        if constexpr (ASKED == Asked::logarithms) put_logarithms(pitch, terms, tops, totals);
        if constexpr (ASKED == Asked::losses) put_losses(pitch, terms, tops, totals);
        if constexpr (ASKED == Asked::maxima) put_maxima(pitch, terms, tops, totals);
        if constexpr (ASKED == Asked::weights) put_weights(pitch, terms, totals);
        if constexpr (ASKED == Asked::residuals) put_residuals(pitch, terms, tops, totals);
        if constexpr (ASKED == Asked::derivatives) return put_derivatives(pitch, terms, totals);
        if constexpr (ASKED == Asked::log_derivatives) put_log_derivatives(pitch, terms, totals);
        return true;
    }

    // The same for a sparse map, of rows with few candidates.
    template <class Pieces>
    APART bool solve() const {
        static_assert(Sparse<Pieces, float>::CROWD == CANDIDATES, "Sparse lists the same scores");
        if (is_tempered) return solve_rows<Pieces, LANES, CANDIDATES, true>();
        return n <= ROOM / ROWS ? solve_rows<Pieces, ROWS, ROOM / ROWS, false>() : solve_rows<Pieces, LANES, LONGEST, false>();
    }
    // So many rows at most, with so many entries.
    template <class Pieces, int MOST_ROWS, Index MOST, bool IS_TEMPERED>
    INLINE bool solve_rows() const {
        if (IS_TEMPERED && !are_tempered()) return false;
        alignas(64) float tops[ROWS + FEW], cuts[ROWS];
        Lists<MOST_ROWS, MOST <= CANDIDATES ? MOST : CANDIDATES> lists;
        Marked<MOST> marked[MOST_ROWS];
        if (!find_tops<false>(static_cast<int>((n + LANES - 1) / LANES), nullptr, tops)) return false;
        for (int r = 0; r < count; r += LANES) {
            const Floats own = load(tops + r);
            store(cuts + r, IS_TEMPERED ? Sparse<Pieces, float>::cut_below(own, temperatures + r) : Sparse<Pieces, float>::cut_below(own));
        }
        for (int r = 0; r < count; ++r) {
            if (n <= LANES) {
                lists.listed[r] = list_vector(r, lists.of(r));
                continue;
            }
            lists.listed[r] = list_row(r, all(cuts[r]), lists.of(r), marked[r]);
            if (lists.listed[r] > CANDIDATES) return false;
            lists.end(lists.of(r) + lists.listed[r]);
        }
        lists.turn_all(count, tops);
        if constexpr (IS_TEMPERED) lists.temper(temperatures);
        lists.template solve<Pieces>(count);
        for (int r = 0; r < count; ++r) lists.template weigh<Pieces, IS_TEMPERED>(r, tops[r], IS_TEMPERED ? temperatures[r] : 1.0);
        for (int r = 0; r < count; ++r) write_listed(r, lists.of(r), marked[r]);
        return true;
    }

    // Asks the memory for what comes next, a line at a time: the scores of the rows after these, and where these go.
    INLINE void ask_ahead(int r, Index i) const {
        __builtin_prefetch(x[r] + i + ahead);
        if (!streams) __builtin_prefetch(result[r] + i, 1);
    }
    INLINE int lanes_of(int v) const { return static_cast<int>(n - v * LANES < LANES ? n - v * LANES : LANES); }
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
    INLINE void write(int r, const Body& body) const {
        float* const to = result[r];
        if constexpr (VECTORS > 0) {
            const int last = static_cast<int>(n) - (VECTORS - 1) * LANES;
            const Floats end = body(n - last, last);
            if constexpr (VECTORS == 2) store(to, body(0, LANES));
            softplex::SOFTPLEX_ISA::put<float>(to + n - last, end, last);
        } else if (streams && reinterpret_cast<std::uintptr_t>(to) % 64 == 0) {
            each_vector<float>(0, n, [&](Index i, int lanes) BODY {
                if (lanes == LANES)
                    stream<float>(to + i, body(i, lanes));
                else
                    store_some<float>(to + i, body(i, lanes), lanes);
            });
        } else {
            each_vector<float>(0, n, [&](Index i, int lanes) BODY { softplex::SOFTPLEX_ISA::put<float>(to + i, body(i, lanes), lanes); });
        }
    }

    // The sums of all terms but a leading one, which is exact and so can be taken away.
    static INLINE Doubles sums_but_one(const Doubles& sums) {
        const Pair<Doubles> less = two_sum(sums, all(-1.0 / UNBIASED<float>));
        return (less.hi + less.lo) * all(UNBIASED<float>);
    }
    // The top and the logarithm of the sum, as a float and what it lacks: a score less the first is exact where the rest
    // counts.
    static INLINE Pair<Doubles> shift_of(const Doubles& tops, const Doubles& others) {
        const Doubles shift = PlainRows::log1p_of_others(others), end = tops + shift, head = widened(narrowed(end, end)).low;
        return {head, shift - (head - tops)};
    }

  private:
    INLINE Row<float> own(int r) const {
        Row<float> row;
        row.x = x[r];
        row.result = result[r];
        row.n = n;
        row.is_negated = is_negated;
        row.streams = streams;
        row.seam = seam;
        return row;
    }

    // Which entries of a row are listed: a bit each.
    template <Index MOST>
    struct Marked {
        // One more than there are, for `at` reads ahead.
        std::uint16_t vectors[MOST / LANES + 2];

        // Of `lanes` entries from i on, wherever that is.
        INLINE unsigned at(Index i, int lanes) const {
            std::uint32_t bits;
            std::memcpy(&bits, reinterpret_cast<const char*>(vectors) + i / 8, sizeof(bits));
            return bits >> (i % 8) & ((1u << lanes) - 1u);
        }
    };

    // All scores of a row of one vector, to its end.
    INLINE Index list_vector(int r, float* list) const {
        store(list, scores_of(r, 0));
        return n;
    }
    // The scores above the cut; returns how many, or more than there is room for if there are more.
    template <Index MOST>
    INLINE Index list_row(int r, const Floats& cut, float* list, Marked<MOST>& marked) const {
        if constexpr (MOST > CANDIDATES)
            if (n > CANDIDATES) return list_row_with<false>(r, cut, list, marked);
        return list_row_with<true>(r, cut, list, marked);
    }
    template <bool HAS_ROOM, Index MOST>
    INLINE Index list_row_with(int r, const Floats& cut, float* list, Marked<MOST>& marked) const {
        const Scores given = scores_of(r);
        const float* const next = given.from + ahead;
        const Index whole = n, step = HAS_ROOM ? whole : CHUNK;
        float* last = list;
        for (Index begin = 0; begin < whole && last - list <= CANDIDATES; begin += step)
            each_vector<float>(begin, begin + step < whole ? begin + step : whole, [&](Index i, int lanes) BODY {
                const Floats one = given.at(i, lanes);
                const FloatMask is_near = cut < one;
                // What there is no room for is counted.
                float* const place = HAS_ROOM || last - list <= CANDIDATES ? last : list + CANDIDATES;
                last += append(place, one, is_near) - place;
                marked.vectors[i / LANES] = static_cast<std::uint16_t>(bits(is_near));
                __builtin_prefetch(next + i);
            });
        return last - list;
    }
    // Each weight where its score was found, and 0 elsewhere.
    template <Index MOST>
    INLINE void write_listed(int r, const float* weights, const Marked<MOST>& marked) const {
        if (n <= LANES) return softplex::SOFTPLEX_ISA::put<float>(result[r], load(weights), static_cast<int>(n));
        const float* const next = result[r] + ahead;
        softplex::SOFTPLEX_ISA::write<float>(own(r), 0, n, [&](Index i, int lanes) BODY {
            const unsigned of_these = marked.at(i, lanes);
            const Floats found = placed(weights, of_these);
            weights += __builtin_popcount(of_these);
            if (!streams) __builtin_prefetch(next + i, 1);
            return found;
        });
    }

    // A row's scores by themselves: no store can change where they are and how they are read.
    struct Scores {
        const float* from;
        Ints sign;
        float fill;

        INLINE Floats at(Index i, int lanes) const { return flipped(take<float>(from + i, lanes, fill), sign); }
    };
    INLINE Scores scores_of(int r) const {
        return {x[r], bits_of<Ints>(all(is_negated ? -0.0f : 0.0f)), is_negated ? INFINITE<float> : -INFINITE<float>};
    }
    INLINE Floats scores_of(int r, int v) const { return scores_of(r).at(v * LANES, lanes_of(v)); }

    INLINE SeveralOf<float> last_scores_of(int r) const {
        SeveralOf<float> last;
        for (int j = 0; j < SEVERAL; ++j) set_one_of(last, j, scores_of(r, static_cast<int>(n / STEP * SEVERAL) + j));
        return last;
    }

    // The largest scores, 0 for rows that are not there. Dense scores are copied.
    template <bool COPIES>
    INLINE bool find_tops(int vectors, float* scores, float* tops) const {
        auto bad = unordered(all(0.0f), all(0.0f));
        Floats largest[ROWS];
        const Ints sign = bits_of<Ints>(all(is_negated ? -0.0f : 0.0f));
        for (int r = 0; r < count; ++r) {
            Floats top = all(-INFINITE<float>);
            int v = 0;
            for (; (v + 2) * LANES <= n; v += 2) {
                const Floats one = flipped(load(x[r] + v * LANES), sign), other = flipped(load(x[r] + (v + 1) * LANES), sign);
                bad = bad | unordered(one, other);
                top = larger(one, larger(other, top));
                if constexpr (COPIES) store(scores + r * n + v * LANES, one);
                if constexpr (COPIES) store(scores + r * n + (v + 1) * LANES, other);
            }
            for (; v < vectors; ++v) {
                const Floats one = scores_of(r, v);
                bad = bad | unordered(one, one);
                top = larger(one, top);
                // The next row overwrites what is past the end.
                if constexpr (COPIES) store(scores + r * n + v * LANES, one);
            }
            largest[r] = top;
        }
        for (int r = count; r % FEW != 0; ++r) largest[r] = all(0.0f);
        bool are_near = true;
        for (int r = 0; r < count; r += FEW) {
            const Floats found = largest_of(largest + r) + all(0.0f);
            store(tops + r, found);
            are_near &= bits(larger(found, -found) < all(512.0f)) % 256 == 255;
        }
        return are_near && !any(bad);
    }

    // Dense rows in one line, several vectors at a time, each entry with the top of its row.
    INLINE void exponentiate(int vectors, float* terms, const float* tops) const {
        using W = SeveralOf<float>;
        alignas(64) float line[ROOM + (SEVERAL + 1) * LANES];
        for (int r = 0; r < count; ++r)
            for (int v = 0; v < vectors; ++v) store(line + r * n + v * LANES, all(tops[r]));
        const Index end = count * n;
        for (int v = 0; v < SEVERAL; ++v) {
            store(line + end + v * LANES, all(0.0f));
            store(terms + end + v * LANES, all(0.0f));
        }
        for (Index i = 0; i < end; i += SEVERAL * LANES) {
            const NearExponential::Constants<W> constants(load_as<W>(line + i));
            store(terms + i, NearExponential::terms(load_as<W>(terms + i), constants));
        }
    }
    INLINE void sum(int vectors, const float* terms, Doubles (&sums)[ROWS]) const {
        for (int r = 0; r < count; ++r) {
            Sum<float> sum;
            for (int v = 0; v + 1 < vectors; ++v) sum.add(widened_at(terms + r * n + v * LANES));
            sum.add(take<float>(terms + r * n + (vectors - 1) * LANES, lanes_of(vectors - 1), 0.0f));
            sums[r] = sum.lanes();
        }
    }

    // The same for rows each of which takes a multiple of several vectors. The terms of a row are summed after those of the
    // next are on their way: from memory they are widened with half the work.
    template <bool HAS_OPERAND>
    INLINE void exponentiate_whole(int vectors, float* terms, const float* tops, Doubles (&sums)[ROWS]) const {
        using W = SeveralOf<float>;
        const Ints sign = bits_of<Ints>(all(is_negated ? -0.0f : 0.0f));
        const auto sum_of_row = [&](int r) BODY {
            Sum<float> sum;
            for (int v = 0; v < vectors; ++v) sum.add(widened_at(terms + (r * vectors + v) * LANES));
            return sum.lanes();
        };
        for (int r = 0; r < count; ++r) {
            const NearExponential::Constants<Floats> own(all(tops[r]));
            const NearExponential::Constants<W> constants(
                spread<SEVERAL * PARTS>(own.top), spread<SEVERAL * PARTS>(own.floor),
                spread<SEVERAL * PARTS>(own.top_multiple), spread<SEVERAL * PARTS>(own.top_rest));
            for (Index i = 0; i < n; i += STEP) {
                const W e = NearExponential::terms(i + STEP <= n ? flipped(load_as<W>(x[r] + i), sign) : last_scores_of(r), constants);
                store(terms + r * vectors * LANES + i, e);
                for (int j = 0; j < SEVERAL; ++j) {
                    ask_ahead(r, i + j * LANES);
                    if constexpr (HAS_OPERAND) __builtin_prefetch(operand[r] + i + j * LANES);
                }
            }
            if (r > 0) sums[r - 1] = sum_of_row(r - 1);
        }
        sums[count - 1] = sum_of_row(count - 1);
    }

    // The same of rows with temperatures; false if they are out of the ordinary.
    template <bool IS_DENSE>
    APART bool exponentiate_tempered(int vectors, float* terms, const float* tops, Doubles (&sums)[ROWS]) const {
        using W = SeveralOf<float>;
        float hi[ROWS], lo[ROWS];
        if (!set_reciprocals(hi, lo)) return false;
        if constexpr (!IS_DENSE) {
            for (int r = 0; r < count; ++r) {
                const TemperedExponential exponential(Reciprocals<Floats>{all(tops[r]), all(hi[r]), all(lo[r])});
                float* const own = terms + r * vectors * LANES;
                for (Index i = 0; i < n; i += STEP) {
                    const Ints sign = bits_of<Ints>(all(is_negated ? -0.0f : 0.0f));
                    store(own + i, exponential(i + STEP <= n ? flipped(load_as<W>(x[r] + i), sign) : last_scores_of(r)));
                    for (int j = 0; j < SEVERAL; ++j) ask_ahead(r, i + j * LANES);
                }
                Sum<float> sum;
                for (int v = 0; v < vectors; ++v) sum.add(widened_at(own + v * LANES));
                sums[r] = sum.lanes();
            }
            return true;
        }
        constexpr int MOST = ROOM + (SEVERAL + 1) * LANES;
        alignas(64) float leading[MOST], heads[MOST], rests[MOST];
        for (int r = 0; r < count; ++r)
            for (int v = 0; v < vectors; ++v) {
                const Index at = r * n + v * LANES;
                store(leading + at, all(tops[r]));
                store(heads + at, all(hi[r]));
                store(rests + at, all(lo[r]));
            }
        const Index end = count * n;
        for (int v = 0; v < SEVERAL; ++v)
            for (float* const line : {terms, leading, heads, rests}) store(line + end + v * LANES, all(0.0f));
        for (Index i = 0; i < end; i += SEVERAL * LANES) {
            const Reciprocals<W> at{load_as<W>(leading + i), load_as<W>(heads + i), load_as<W>(rests + i)};
            store(terms + i, TemperedExponential::terms(load_as<W>(terms + i), at));
        }
        sum(vectors, terms, sums);
        return true;
    }
    template <class V>
    using Reciprocals = TemperedExponential::Constants<V>;
    // The reciprocals of the temperatures, each as two floats; false if they are out of the ordinary.
    INLINE bool set_reciprocals(float* hi, float* lo) const {
        for (int r = 0; r < count; r += FEW) {
            const Doubles reciprocals = all(1.0) / load(temperatures + r), heads = widened(narrowed(reciprocals, reciprocals)).low;
            store_eight(hi + r, heads);
            store_eight(lo + r, reciprocals - heads);
        }
        return are_tempered();
    }
    INLINE bool are_tempered() const {
        bool are_served = true;
        for (int r = 0; r < count; r += FEW) {
            const unsigned there = count - r < FEW ? (1u << (count - r)) - 1u : 255u;
            are_served &= (bits(TemperedExponential::serves(load(temperatures + r))) & there) == there;
        }
        return are_served;
    }

    // factor / sum of each row as two floats.
    INLINE void set_scales(const Doubles* totals, float* hi, float* lo, double factor = 1.0) const {
        for (int r = 0; r < count; r += FEW) {
            const Pair<Doubles> scales = Softmax<float>::Scale::quotients(all(factor), {totals[r / FEW], all(0.0)});
            store_eight(hi + r, scales.hi);
            store_eight(lo + r, scales.lo);
        }
    }
    // A term whose weight is faint: that of a top is 2^50.
    static constexpr float FAINT = 0x1p-40f;
    INLINE void put_weights(Index pitch, const float* terms, const Doubles* totals) const {
        float hi[ROWS], lo[ROWS];
        set_scales(totals, hi, lo);
        const bool are_faint = Faint::is_met_below(all(FAINT), 0, count * pitch, [&](Index i, int) BODY { return load(terms + i); });
        for (int r = 0; r < count; ++r) {
            const Floats high = all(hi[r]), low = all(lo[r]);
            const float* const own = terms + r * pitch;
            if (are_faint)
                write<0>(r, [&, faint = Faint(high, low)](Index i, int) BODY { return faint.weight(load(own + i)); });
            else
                write<0>(r, [&](Index i, int) BODY { return weight_of(load(own + i), high, low); });
        }
    }

    // s (g - <s, g> / sum s) with s = p.
    INLINE bool put_derivatives(Index pitch, const float* terms, const Doubles* totals) const {
        Doubles products[ROWS];
        for (int r = 0; r < count; ++r) {
            const float *const own = terms + r * pitch, *const g = operand[r];
            Sum<float> sum;
            const auto product = [&](Index i, int lanes) BODY {
                const Floats e = take<float>(own + i, lanes, 0.0f);
                return e * where_positive(e, take<float>(g + i, lanes, 0.0f));
            };
            Index i = 0;
            for (; i + 2 * LANES <= n; i += 2 * LANES) {
                const Floats e = load(own + i + LANES);
                sum.add(fma(e, where_positive(e, load(g + i + LANES)), product(i, LANES)));
            }
            each_vector_once<float>(i, n, [&](Index at, int lanes) BODY { sum.add(product(at, lanes)); });
            products[r] = sum.lanes();
        }
        for (int r = count; r % FEW != 0; ++r) products[r] = all(0.0);
        float hi[ROWS], lo[ROWS], means[ROWS];
        bool are_moderate = true;
        for (int r = 0; r < count; r += FEW) {
            const Doubles found = sums_of(products + r) / totals[r / FEW];
            are_moderate &= Softmax<float>::are_moderate(found);
            store_eight(means + r, found);
        }
        if (!are_moderate) return false;
        constexpr double LIFT = Softmax<float>::LIFT;
        set_scales(totals, hi, lo, LIFT);
        for (int r = 0; r < count; ++r) {
            const Floats high = all(hi[r]), low = all(lo[r]), mean = all(means[r]), factor = all(static_cast<float>(outer[r] / LIFT));
            const float *const own = terms + r * pitch, *const g = operand[r];
            write<0>(r, [&](Index i, int lanes) BODY {
                const Floats e = take<float>(own + i, lanes, 0.0f);
                return where_positive(e, (weight_of(e, high, low) * (take<float>(g + i, lanes, 0.0f) - mean)) * factor);
            });
        }
        return true;
    }
    // g - p sum g where an entry takes part.
    INLINE void put_log_derivatives(Index pitch, const float* terms, const Doubles* totals) const {
        const Floats dead = all(is_negated ? INFINITE<float> : -INFINITE<float>), zero = all(0.0f);
        Doubles cotangents[ROWS];
        for (int r = 0; r < count; ++r) {
            const float *const own = x[r], *const g = operand[r];
            Sum<float> sum;
            each_vector_once<float>(0, n, [&](Index i, int lanes) BODY {
                sum.add(select(take<float>(own + i, lanes, 0.0f) == dead, zero, take<float>(g + i, lanes, 0.0f)));
            });
            cotangents[r] = sum.lanes();
        }
        for (int r = count; r % FEW != 0; ++r) cotangents[r] = all(0.0);
        float hi[ROWS], lo[ROWS], wholes[ROWS];
        set_scales(totals, hi, lo);
        for (int r = 0; r < count; r += FEW) store_eight(wholes + r, sums_of(cotangents + r));
        for (int r = 0; r < count; ++r) {
            const Floats high = all(hi[r]), low = all(lo[r]), whole = all(wholes[r]), factor = all(static_cast<float>(outer[r]));
            const float *const e = terms + r * pitch, *const own = x[r], *const g = operand[r];
            write<0>(r, [&](Index i, int lanes) BODY {
                const Floats term = take<float>(e + i, lanes, 0.0f), p = weight_of(term, high, low);
                const Floats moved = fma(-p, whole, take<float>(g + i, lanes, 0.0f)) * factor;
                return select(take<float>(own + i, lanes, 0.0f) == dead, zero, moved);
            });
        }
    }
    static INLINE Floats where_positive(const Floats& e, const Floats& v) { return select(all(0.0f) < e, v, all(0.0f)); }

    // (p - y) times the row's scale, where p_y - 1 is minus the sum of the others.
    INLINE void put_residuals(Index pitch, float* terms, const float* tops, const Doubles* totals) const {
        float hi[ROWS], lo[ROWS];
        set_scales(totals, hi, lo);
        // Each step for all rows: none waits for what it has just stored.
        for (int r = 0; r < count; ++r) terms[r * pitch + labels[r]] = 0.0f;
        Doubles others[ROWS];
        for (int r = 0; r < count; ++r) {
            const Floats high = all(hi[r]), low = all(lo[r]);
            float* const own = terms + r * pitch;
            Sum<float> sum;
            each_vector_once<float>(0, n, [&](Index i, int lanes) BODY {
                const Floats e = take<float>(own + i, lanes, 0.0f), p = weight_of(e, high, low);
                sum.add(p);
                softplex::SOFTPLEX_ISA::put<float>(own + i, p, lanes);
            });
            others[r] = sum.lanes();
        }
        for (int r = count; r % FEW != 0; ++r) others[r] = all(0.0);
        for (int r = 0; r < count; r += FEW) {
            float less[FEW];
            Doubles all_others = sums_of(others + r);
            if (has_sinks) all_others = all_others + sink_terms_of(r, tops) / totals[r / FEW];
            store_eight(less, -all_others);
            for (int j = 0; j < FEW && r + j < count; ++j)
                terms[(r + j) * pitch + labels[r + j]] = score_of_label(r + j) > -INFINITE<float> ? less[j] : 0.0f;
        }
        for (int r = 0; r < count; ++r) {
            const Floats scale = all(static_cast<float>(outer[r]));
            const float* const own = terms + r * pitch;
            const bool is_left_out = outer[r] == 0.0;
            write<0>(r, [&](Index i, int lanes) BODY {
                return is_left_out ? all(0.0f) : scaled<float>(take<float>(own + i, lanes, 0.0f), scale);
            });
        }
    }
    INLINE float score_of_label(int r) const { return is_negated ? -x[r][labels[r]] : x[r][labels[r]]; }

    // log sum exp(x) less the label's score.
    INLINE void put_losses(Index pitch, const float* terms, const float* tops, const Doubles* totals) const {
        for (int r = 0; r < count; r += FEW) {
            const Doubles others = others_of(r, pitch, terms, tops, totals);
            double scores[FEW], losses[FEW];
            for (int j = 0; j < FEW; ++j) scores[j] = r + j < count ? static_cast<double>(score_of_label(r + j)) : 0.0;
            Doubles gaps = widened(load(tops + r)).low - load(scores);
            if (is_tempered) gaps = gaps / load(temperatures + r);
            store(losses, PlainRows::log1p_of_others(others) + gaps);
            for (int j = 0; j < FEW && r + j < count; ++j) numbers[r + j] = losses[j];
        }
    }

    // log sum exp(x).
    INLINE void put_maxima(Index pitch, const float* terms, const float* tops, const Doubles* totals) const {
        for (int r = 0; r < count; r += FEW) {
            double found[FEW];
            Doubles shift = PlainRows::log1p_of_others(others_of(r, pitch, terms, tops, totals));
            if (is_tempered) shift = shift * load(temperatures + r);
            store(found, shift + widened(load(tops + r)).low);
            for (int j = 0; j < FEW && r + j < count; ++j) numbers[r + j] = found[j];
        }
    }

    // Of eight rows the sums of exp(x - top) over all but the leading entry.
    INLINE Doubles others_of(int first, Index pitch, const float* terms, const float* tops, const Doubles* totals) const {
        const Doubles others = sums_but_one(totals[first / FEW]);
        return PlainRows::clear(others) == PlainRows::ALL ? others : with_tails(others, first, pitch, terms, tops);
    }
    APART Doubles with_tails(const Doubles& others, int first, Index pitch, const float* terms, const float* tops) const {
        const Floats leading = all(static_cast<float>(1.0 / UNBIASED<float>));
        double found[FEW], of_sinks[FEW];
        store(found, others);
        store(of_sinks, has_sinks ? sink_terms_of(first, tops) : all(0.0));
        for (int j = 0; j < FEW && first + j < count; ++j) {
            if (found[j] >= Softmax<float>::CLEAR) continue;
            const float* const own = terms + (first + j) * pitch;
            Sum<float> tail;
            each_vector_once<float>(0, n, [&](Index i, int lanes) BODY {
                const Floats e = take<float>(own + i, lanes, 0.0f);
                tail.add(select(e == leading, all(0.0f), e));
            });
            // Not of one that leads.
            const double beside = has_sinks && sinks[first + j] < tops[first + j] ? of_sinks[j] : 0.0;
            found[j] = (tail.total().value() + beside) * UNBIASED<float>;
        }
        return load(found);
    }

    // The tops of rows with sinks; false if one of these leads and is no float, far from 0, or no number.
    INLINE bool raise_tops(float* tops) const {
        for (int r = 0; r < count; ++r) {
            if (sinks[r] <= static_cast<double>(tops[r])) continue;
            const float sink = static_cast<float>(sinks[r]);
            if (static_cast<double>(sink) != sinks[r] || !(-512.0f < sink && sink < 512.0f)) return false;
            tops[r] = sink + 0.0f;
        }
        return true;
    }
    INLINE void add_sinks(const float* tops, Doubles* totals) const {
        for (int r = 0; r < count; r += FEW) totals[r / FEW] = totals[r / FEW] + sink_terms_of(r, tops);
    }
    INLINE Doubles sink_terms_of(int first, const float* tops) const {
        return sink_terms(load(sinks + first), widened(load(tops + first)).low, load(temperatures + first));
    }

    INLINE void put_logarithms(Index pitch, const float* terms, const float* tops, const Doubles* totals) const {
        if (is_tempered) return put_tempered_logarithms(pitch, terms, tops, totals);
        float hi[ROWS], lo[ROWS];
        for (int r = 0; r < count; r += FEW) {
            const Pair<Doubles> shift = shift_of(widened(load(tops + r)).low, others_of(r, pitch, terms, tops, totals));
            store_eight(hi + r, shift.hi);
            store_eight(lo + r, shift.lo);
        }
        const Ints sign = bits_of<Ints>(all(is_negated ? -0.0f : 0.0f));
        for (int r = 0; r < count; ++r) {
            const Floats high = all(hi[r]), low = all(lo[r]);
            const float* const own = x[r];
            write<0>(r, [&](Index i, int lanes) BODY { return (flipped(take<float>(own + i, lanes, 0.0f), sign) - high) - low; });
        }
    }
    APART void put_tempered_logarithms(Index pitch, const float* terms, const float* tops, const Doubles* totals) const {
        float hi[ROWS], lo[ROWS], heads[ROWS], rests[ROWS];
        for (int r = 0; r < count; r += FEW) PlainRows::put_shifts(others_of(r, pitch, terms, tops, totals), hi + r, lo + r);
        set_reciprocals(heads, rests);
        const Ints sign = bits_of<Ints>(all(is_negated ? -0.0f : 0.0f));
        for (int r = 0; r < count; ++r) {
            const TemperedExponential exponential(Reciprocals<Floats>{all(tops[r]), all(heads[r]), all(rests[r])});
            const Floats high = all(hi[r]), low = all(lo[r]);
            const float* const own = x[r];
            write<0>(r, [&](Index i, int lanes) BODY {
                const Pair<Floats> gap = exponential.gap(flipped(take<float>(own + i, lanes, 0.0f), sign));
                return (gap.hi - high) + (gap.lo - low);
            });
        }
    }
};

}  // namespace softplex::SOFTPLEX_ISA
