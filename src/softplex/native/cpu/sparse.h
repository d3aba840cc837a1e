// What all maps with exact zeros share: which entries can weigh anything, the solver, and every method from a few pieces.
//
// A map gives its weights as a function of one unknown and an entry's gap (score - max) / temperature; the unknown grows
// with the weight of the top, and the weights' sum is convex in it, so that Newton's method from a top of weight 1 comes
// down to the solution and never passes it. Only gaps above -reach can weigh anything; they are listed once, for rounds
// that cost no more than there are candidates. No sort. No map lives here.
//
// The pieces of a map (an object made from alpha, holding the unknown):
//   reach()                   how far below the top an entry can weigh something, at most
//   weight(gap)               p, of Doubles for float rows and of pairs for double rows
//   rate(gap, p)              dp / d unknown, of Doubles
//   step<T>(sum, its rate)    one of Newton's; true where the next would change nothing that rows of T can show
//   begin()                   the candidates are complete: what step knows of earlier rounds is void
//   correct(missing, rates)   the last step, kept beside the unknown, for double rows if it keeps_pairs
//   least()                   a gap below which the weight is 0 for certain
//   slope(p), omega(p)        1 / omega''(p) and omega(p) of the regulariser, of Doubles
// A map whose unknown is another one has_own_solver: solve(candidates) instead of rate and step. Where a weight is_dear,
// short rows list their candidates, too, instead of weighing all entries.
#pragma once

#include "row.h"

namespace softplex::SOFTPLEX_ISA {

// -- gaps ----------------------------------------------------------------------------------------------------------------

// From scores to gaps: exact differences in double for float rows, pairs for double rows.
template <class T>
struct Gaps;

template <>
struct Gaps<float> {
    using Gap = Doubles;
    static constexpr int GROUPS = 2;
    Doubles top, temperature;
    bool is_tempered;

    explicit INLINE Gaps(const Row<float>& row)
        : top(all(row.top)), temperature(all(row.temperature)), is_tempered(row.is_tempered) {}
    INLINE void operator()(const Floats& x, Gap (&gaps)[2]) const {
        const Halves wide = widened(x);
        gaps[0] = wide.low - top;
        gaps[1] = wide.high - top;
        if (is_tempered) {
            gaps[0] = gaps[0] / temperature;
            gaps[1] = gaps[1] / temperature;
        }
    }
    INLINE Doubles of(double score) const { return is_tempered ? (all(score) - top) / temperature : all(score) - top; }
};

template <>
struct Gaps<double> {
    using Gap = Pair<Doubles>;
    static constexpr int GROUPS = 1;
    Doubles top, scale, temperature;
    bool is_tempered;

    explicit INLINE Gaps(const Row<double>& row) : is_tempered(row.is_tempered) {
        const double quarter = row.temperature > 0x1p100 ? 0.25 : 1.0;
        scale = all(quarter);
        top = all(row.top * quarter);
        temperature = all(row.temperature * quarter);
    }
    INLINE Gap gap(const Doubles& x) const {
        Pair<Doubles> d = two_sum(x * scale, -top);
        if (is_tempered) {
            const Doubles quotient = d.hi / temperature;
            const Pair<Doubles> back = two_product(quotient, temperature);
            d = {quotient, (((d.hi - back.hi) - back.lo) + d.lo) / temperature};
        }
        return {d.hi, select(all(-0x1p60) < d.hi, d.lo, all(0.0))};
    }
    INLINE void operator()(const Doubles& x, Gap (&gaps)[1]) const { gaps[0] = gap(x); }
    INLINE Gap of(double score) const { return gap(all(score)); }
};

INLINE Doubles plain(const Doubles& gap) { return gap; }
INLINE Doubles plain(const Pair<Doubles>& gap) { return gap.hi; }

// The highest number of the type that surely lies below top + gap * temperature.
template <class T>
INLINE T score_below(const Row<T>& row, double gap) {
    const double slack = sizeof(T) == 4 ? 0x1p-22 : 0x1p-50;
    const double score = row.top + gap * row.temperature;
    const double magnitude = __builtin_fabs(row.top) + __builtin_fabs(gap * row.temperature);
    const double bound = score - slack * magnitude - (sizeof(T) == 4 ? 0x1p-140 : 0x1p-1060);
    return bound >= (sizeof(T) == 4 ? -0x1p127 : -0x1p1023) ? static_cast<T>(bound) : -INFINITE<T>;
}

// -- the map -------------------------------------------------------------------------------------------------------------

template <class Pieces, class T>
struct Sparse {
    using V = Vector<T>;
    using Gap = typename Gaps<T>::Gap;
    static constexpr int GROUPS = Gaps<T>::GROUPS;
    static constexpr int ROUNDS = 100;
    static constexpr Index SHORT = Pieces::is_dear ? 0 : 64, CHUNK = 1024, CROWD = 128;
    // Entries that one bit of `marks` stands for; a word is a chunk.
    static constexpr Index MARK = CHUNK / 64, CHUNKS = 64;

    Row<T>& row;
    Team& team;
    Gaps<T> gaps;
    typename Row<T>::Whole sign;
    Pieces pieces;
    Index listed = 0;
    // All gaps are in the list, in their order.
    const bool is_short;
    // No candidates beside the list.
    bool is_listed = true;
    double sink_weight = 0.0;
    // Where the candidates of a row lie, so that they are written without a branch for each vector.
    const bool is_marked;
    std::uint64_t marks[CHUNKS];

    INLINE Sparse(Row<T>& the_row, Team& the_team)
        : row(the_row), team(the_team), gaps(the_row), sign(the_row.sign()), pieces(the_row.alpha), is_short(the_row.n <= SHORT),
          is_marked(!is_short && the_row.n <= CHUNKS * CHUNK && !the_row.streams && !the_team.shares) {
        if (is_short)
            list_all();
        else
            list_candidates();
        solve();
    }

    // -- the methods -------------------------------------------------------------------------------------------------

    APART void value() {
        write_supported([&](const Gap (&gap)[GROUPS], Index, int) BODY {
            Doubles p[GROUPS];
            for (int j = 0; j < GROUPS; ++j) p[j] = rounded(pieces.weight(gap[j]));
            return joined(p);
        });
    }

    // s (g - <s, g> / sum s). Entries without support are not read.
    APART void vjp() {
        const V lowest = lowest_supported();
        Totals sums = team.sum(row.n, [&](Index begin, Index end) APART {
            Sum<T> slopes, products;
            each_vector_once<T>(begin, end, [&](Index i, int count) BODY {
                Gap gap[GROUPS];
                if (!gaps_at(i, count, lowest, gap)) return;
                Doubles g[GROUPS];
                split(take<T>(row.operand + i, count, T(0)), g);
                for (int j = 0; j < GROUPS; ++j) {
                    const Doubles p = rounded(pieces.weight(gap[j]));
                    const Doubles s = pieces.slope(p);
                    slopes.add(s);
                    products.add_product(s, select(all(0.0) < p, g[j], all(0.0)));
                }
            });
            return Totals{slopes.total(), products.total(), {}};
        });
        if (sink_weight > 0.0) sums.first.add(first_of(pieces.slope(all(sink_weight))));
        const double whole = sums.first.value();
        const Doubles mean = all(whole > 0.0 ? sums.second.value() / whole : 0.0), outer = all(row.outer());
        write_supported([&](const Gap (&gap)[GROUPS], Index i, int count) BODY {
            Doubles g[GROUPS];
            split(take<T>(row.operand + i, count, T(0)), g);
            for (int j = 0; j < GROUPS; ++j) {
                const Doubles p = rounded(pieces.weight(gap[j]));
                g[j] = select(all(0.0) < p, (pieces.slope(p) * (g[j] - mean)) * outer, all(0.0));
            }
            return joined(g);
        });
    }

    // Omega* of the gaps: the sum of gap p - omega(p).
    APART double conjugate() {
        const Totals sums = over_candidates([&](const Gap& gap, Totals_of& sum) BODY {
            const Doubles p = rounded(pieces.weight(gap));
            const DoubleMask is_supported = all(0.0) < p;
            sum.first.add_product(p, select(is_supported, plain(gap), all(0.0)));
            sum.second.add(pieces.omega(p));
        });
        return sums.first.value() - sums.second.value();
    }

    // -- what a solver asks for ------------------------------------------------------------------------------------------

    struct Totals_of {
        Sum<T> first, second;
    };
    // Sums of every other eight, so that none waits for the one before.
    struct Halved {
        Totals_of even, odd;

        INLINE Totals totals() {
            even.first.absorb(odd.first);
            even.second.absorb(odd.second);
            return {even.first.total(), even.second.total(), {}};
        }
    };
    // body(i, sums) for every eight of the list.
    template <class Body>
    INLINE void each_listed(Halved& sums, Body body) {
        Index i = 0;
        for (; i + 8 < listed; i += 16) {
            body(i, sums.even);
            body(i + 8, sums.odd);
        }
        if (i < listed) body(i, sums.even);
    }

    // The sums of body(gap, sums) over the candidates, sink included.
    template <class Body>
    INLINE Totals over_candidates(Body body) {
        if (is_listed) {
            Halved sums;
            each_listed(sums, [&](Index i, Totals_of& sum) BODY { body(gap_at(i), sum); });
            return sums.totals();
        }
        Totals whole = team.sum(row.n, [&](Index begin, Index end) APART {
            Halved sums;
            each_vector_once<T>(begin, end, [&](Index i, int count) BODY {
                Gap gap[GROUPS];
                gaps(scores(row, sign, i, count), gap);
                for (int j = 0; j < GROUPS; ++j) body(gap[j], j == 0 ? sums.even : sums.odd);
            });
            return sums.totals();
        });
        if (row.has_sink) {
            Totals_of sums;
            // The sink once, and seven lanes that weigh nothing.
            const Gap gap = gaps.of(row.sink);
            double alone[8] = {first_of(plain(gap))};
            for (int j = 1; j < 8; ++j) alone[j] = -__builtin_inf();
            if constexpr (sizeof(T) == 8)
                body(Gap{load(alone), select(all(-0x1p60) < load(alone), gap.lo, all(0.0))}, sums);
            else
                body(load(alone), sums);
            whole.add(Totals{sums.first.total(), sums.second.total(), {}});
        }
        return whole;
    }

    // The largest of body(gap) over the candidates.
    template <class Body>
    INLINE double largest_candidate(Body body) {
        if (is_listed) {
            Doubles best = all(-__builtin_inf());
            for (Index i = 0; i < listed; i += 8) best = larger(body(gap_at(i)), best);
            return largest_of(best);
        }
        const auto of_block = [&](Index begin, Index end) APART {
            Doubles best = all(-__builtin_inf());
            each_vector_once<T>(begin, end, [&](Index i, int count) BODY {
                Gap gap[GROUPS];
                gaps(scores(row, sign, i, count), gap);
                for (int j = 0; j < GROUPS; ++j) best = larger(body(gap[j]), best);
            });
            return largest_of(best);
        };
        double best = row.has_sink ? first_of(body(gaps.of(row.sink))) : -__builtin_inf();
        const auto join = [&](double other) { best = other > best ? other : best; };
        if (!team.shares) {
            team.each_block(row.n, [&](Index begin, Index end) APART { join(of_block(begin, end)); });
        } else {
            team.each_block(row.n, [&](Index begin, Index end) APART { team.found[begin / BLOCK].first.hi = of_block(begin, end); });
            for (Index begin = 0; begin < row.n && !team.is_stopped; begin += BLOCK) join(team.found[begin / BLOCK].first.hi);
        }
        return best;
    }

  private:
    // The gaps of a vector; false if none of them can be supported.
    INLINE bool gaps_at(Index i, int count, const V& lowest, Gap (&gap)[GROUPS]) const {
        if (is_short) {
            for (int j = 0; j < GROUPS; ++j) gap[j] = gap_at(i + 8 * j);
            return true;
        }
        const V x = scores(row, sign, i, count);
        if (!any(lowest < x)) return false;
        gaps(x, gap);
        return true;
    }

    INLINE Gap gap_at(Index i) const {
        if constexpr (sizeof(T) == 8)
            return Gap{load(row.list + i), load(row.list_low + i)};
        else
            return load(row.list + i);
    }

    // -- candidates ---------------------------------------------------------------------------------------------------

    INLINE void list_all() {
        each_vector_once<T>(0, row.n, [&](Index i, int count) BODY {
            Gap gap[GROUPS];
            gaps(scores(row, sign, i, count), gap);
            for (int j = 0; j < GROUPS; ++j) {
                store(row.list + i + 8 * j, plain(gap[j]));
                if constexpr (sizeof(T) == 8) store(row.list_low + i + 8 * j, gap[j].lo);
            }
        });
        listed = (row.n + 15) / 16 * 16;
        if (sizeof(T) == 8 && row.n <= listed - 8) end_list(listed - 8);
        if (row.has_sink) list_sink();
        end_list(listed);
    }

    // Where many crowd below the top, a Newton step on those seen so far raises the cut for those to come.
    APART void list_candidates() {
        V cut = all(score_below(row, -pieces.reach()));
        Index crowd = CROWD;
        if (row.has_sink) list_sink();
        for (Index begin = 0; begin < row.n && is_listed && !team.is_stopped; begin += CHUNK) {
            list_chunk(cut, begin, begin + CHUNK < row.n ? begin + CHUNK : row.n);
            if constexpr (!Pieces::has_own_solver)
                if (listed >= crowd && is_listed && begin + CHUNK < row.n) {
                    const Totals sums = shrink_list();
                    if (sums.first.value() > 1.0) pieces.template step<T>(sums.first.value(), sums.second.value());
                    cut = all(score_below(row, pieces.least()));
                    crowd = 2 * listed + CROWD;
                }
        }
        end_list(listed);
    }

    INLINE void list_chunk(const V& cut, Index begin, Index end) {
        T near[CHUNK + 2 * Lanes<T>::count];
        T* nearest = near;
        std::uint64_t mark = 0;
        each_vector_once<T>(begin, end, [&](Index i, int count) BODY {
            const V x = scores(row, sign, i, count);
            const auto is_near = cut < x;
            nearest = append(nearest, x, is_near);
            mark |= static_cast<std::uint64_t>(any(is_near)) << ((i - begin) / MARK);
        });
        if (is_marked) marks[begin / CHUNK] = mark;
        store(nearest, all(-INFINITE<T>));
        list_near(near, nearest);
        // More than there is room for are not listed at all: the row is walked instead.
        if (listed + CHUNK + 8 > LIST) {
            is_listed = false;
            listed = 0;
        }
    }

    INLINE void list_near(const T* near, const T* end) {
        const Doubles reach = all(-pieces.reach());
        double* last = row.list + listed;
        for (; near < end; near += Lanes<T>::count) {
            Gap gap[GROUPS];
            gaps(load(near), gap);
            for (int j = 0; j < GROUPS; ++j) {
                const DoubleMask is_near = reach < plain(gap[j]);
                if constexpr (sizeof(T) == 8) append(row.list_low + (last - row.list), gap[j].lo, is_near);
                last = append(last, plain(gap[j]), is_near);
            }
        }
        listed = last - row.list;
    }

    // Eight places after the last candidate hold what weighs nothing.
    INLINE void end_list(Index last) {
        store(row.list + last, all(-__builtin_inf()));
        if constexpr (sizeof(T) == 8) store(row.list_low + last, all(0.0));
    }

    // The sums of weights and rates over the list, which loses those that weigh nothing: the weights only fall from here.
    INLINE Totals shrink_list() {
        Halved sums;
        double* last = row.list;
        end_list(listed);
        each_listed(sums, [&](Index i, Totals_of& sum) BODY {
            const Gap gap = gap_at(i);
            const Doubles p = pieces.weight(plain(gap));
            sum.first.add(p);
            sum.second.add(pieces.rate(plain(gap), p));
            const DoubleMask is_supported = all(0.0) < p;
            if constexpr (sizeof(T) == 8) append(row.list_low + (last - row.list), gap.lo, is_supported);
            last = append(last, plain(gap), is_supported);
        });
        listed = last - row.list;
        end_list(listed);
        return sums.totals();
    }

    INLINE void list_sink() {
        const Gap gap = gaps.of(row.sink);
        if (!(first_of(plain(gap)) > -pieces.reach())) return;
        row.list[listed] = first_of(plain(gap));
        if constexpr (sizeof(T) == 8) row.list_low[listed] = first_of(gap.lo);
        ++listed;
    }

    // -- the solver -----------------------------------------------------------------------------------------------------

    INLINE void solve() {
        if constexpr (Pieces::has_own_solver)
            pieces.solve(*this);
        else
            solve_from_top();
        if (row.has_sink) sink_weight = first_of(rounded(pieces.weight(gaps.of(row.sink))));
    }

    APART void solve_from_top() {
        pieces.begin();
        for (int round = 0; round < ROUNDS && !team.is_stopped; ++round) {
            const Totals sums = is_listed && !is_short ? shrink_list() : sums_of_weights();
            if (pieces.template step<T>(sums.first.value(), sums.second.value())) break;
        }
        if constexpr (sizeof(T) == 8 && Pieces::keeps_pairs) {
            Totals sums = over_candidates([&](const Gap& gap, Totals_of& sum) BODY {
                const auto p = pieces.weight(gap);
                sum.first.add(p);
                sum.second.add(pieces.rate(plain(gap), rounded(p)));
            });
            sums.first.add(-1.0);
            pieces.correct(-sums.first.value(), sums.second.value());
        }
    }

    INLINE Totals sums_of_weights() {
        return over_candidates([&](const Gap& gap, Totals_of& sum) BODY {
            const Doubles p = pieces.weight(plain(gap));
            sum.first.add(p);
            sum.second.add(pieces.rate(plain(gap), p));
        });
    }

    // -- results --------------------------------------------------------------------------------------------------------

    INLINE V lowest_supported() const { return all(score_below(row, pieces.least())); }

    // Writes body(gaps, i, count), and 0 where nothing can be supported.
    template <class Body>
    INLINE void write_supported(Body body) {
        if (is_marked && is_listed) return write_marked(body);
        const V lowest = lowest_supported();
        team.each_block(row.n, [&](Index begin, Index end) APART {
            write<T>(row, begin, end, [&](Index i, int count) BODY {
                Gap gap[GROUPS];
                if (!gaps_at(i, count, lowest, gap)) return all(T(0));
                return body(gap, i, count);
            });
        });
    }

    // The same by the marks. The result may lie where the scores are, so that these are read first.
    template <class Body>
    INLINE void write_marked(Body body) {
        constexpr int LANES = Lanes<T>::count;
        T found[CHUNK];
        for (Index begin = 0; begin < row.n; begin += CHUNK) {
            const Index end = begin + CHUNK < row.n ? begin + CHUNK : row.n;
            T* place = found;
            for (std::uint64_t left = marks[begin / CHUNK]; left != 0; left &= left - 1) {
                const Index first = begin + __builtin_ctzll(left) * MARK;
                for (Index i = first; i < first + MARK; i += LANES, place += LANES) {
                    const int count = static_cast<int>(i < end ? (end - i < LANES ? end - i : LANES) : 0);
                    Gap gap[GROUPS];
                    gaps(scores(row, sign, i, count), gap);
                    store(place, body(gap, i, count));
                }
            }
            each_vector<T>(begin, end, [&](Index i, int count) BODY { put<T>(row.result + i, all(T(0)), count); });
            place = found;
            for (std::uint64_t left = marks[begin / CHUNK]; left != 0; left &= left - 1) {
                const Index first = begin + __builtin_ctzll(left) * MARK;
                const Index last = first + MARK < end ? first + MARK : end;
                each_vector_once<T>(first, last, [&](Index i, int count) BODY { put<T>(row.result + i, load(place + (i - first)), count); });
                place += MARK;
            }
        }
    }
};

}  // namespace softplex::SOFTPLEX_ISA
