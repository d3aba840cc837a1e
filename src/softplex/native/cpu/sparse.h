// What all maps with exact zeros share: which entries can weigh anything, the solver, and every method from a few pieces.
//
// A map gives its weights as a function of one unknown and an entry's gap (score - max) / temperature; the unknown grows
// with the weight of the top, and the weights' sum is convex in it, so that Newton's method from a top of weight 1 comes
// down to the solution and passes it by roundings only. Only gaps above -reach can weigh anything; their scores are listed
// once, for rounds that cost no more than there are candidates. Where there are many, sketches in the scores' own type lead
// up to the exact rounds. No sort. No map lives here.
//
// The pieces of a map (an object made from alpha, holding the unknown):
//   reach()                   how far below the top an entry can weigh something, at most
//   weight(gap)               p, of Doubles for float rows and of pairs for double rows
//   early_weight(gap)         the same of Doubles for double rows while they are solved, if it is_of_powers, whose logarithms
//                             and exponentials cost more as pairs
//   rate(gap, p)              dp / d unknown, of Doubles
//   step<T>(sum, its rate)    one of Newton's; true where the next would change nothing that rows of T can show
//   next<IS_ROUGH>, is_last<T>
//                             the same of numbers or of Doubles, for maps that Lists solves, many rows side by side, and whose
//                             step is step<T, IS_ROUGH>: where few floats are solved a quotient may be rough, for the support
//                             need not be known to the last bit
//   settle()                  before pairs are asked for: what these need beside the unknown, for double rows if it keeps_pairs
//   correct(missing, rates)   then the last step, kept beside the unknown
//   least()                   a gap below which the weight is 0 for certain
//   sketched_weight(u), sketched_rate(u), rise(sum, rates, temperature), set_least(gap)
//                             the same step for what scores have above a cut, u, in their own type: how far the cut may rise.
//                             Maps where it says enough are_sketched
//   set_line(gaps, count)     the unknown where all of so many entries weigh something, if the map is_linear there
//   slope<T>(p), omega(p)     1 / omega''(p), for rows of T, and omega(p) of the regulariser, of Doubles; omega
//                             of pairs, too, if it is_of_powers
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

// A number of the type that surely lies below top + gap * temperature, and close.
template <class T>
INLINE T score_below(const Row<T>& row, double gap) {
    const double score = row.top + gap * row.temperature;
    const double magnitude = __builtin_fabs(row.top) + __builtin_fabs(gap * row.temperature);
    const double bound = score - 0x1p-50 * magnitude - 0x1p-1060;
    if (!(bound >= (sizeof(T) == 4 ? -0x1p127 : -0x1p1023))) return -INFINITE<T>;
    const T rounded = static_cast<T>(bound);
    return static_cast<double>(rounded) > bound ? rounded - ((rounded < T(0) ? -rounded : rounded) * T(0x1p-23) + T(0x1p-149)) : rounded;
}

template <bool IS_ROUGH, class N>
INLINE N quotient(const N& a, const N& b) {
    if constexpr (IS_ROUGH)
        return rough_quotient(a, b);
    else
        return a / b;
}

// -- results -------------------------------------------------------------------------------------------------------------

// Writes body(scores, i, count), and 0 where no score is above the lowest.
template <class T, class Body>
INLINE void write_above(const Row<T>& row, Index begin, Index end, const Vector<T>& lowest, const Body& body) {
    const auto sign = row.sign();
    write<T>(row, begin, end, [&](Index i, int count) BODY {
        const Vector<T> x = scores(row, sign, i, count);
        return any(lowest < x) ? body(x, i, count) : all(T(0));
    });
}

// Where the candidates of a row lie: a bit for MARK entries, a word for a CHUNK.
using Marks = std::uint64_t;
constexpr Index CHUNK = 1024, MARK = CHUNK / 64;

// The same by the marks, without a branch for each vector. The result may lie where the scores are, so that these are read
// first.
template <class T, class Body>
INLINE void write_marked(const Row<T>& row, const Marks* marks, const Body& body) {
    constexpr int LANES = Lanes<T>::count;
    const auto sign = row.sign();
    T found[CHUNK];
    for (Index begin = 0; begin < row.n; begin += CHUNK) {
        const Index end = begin + CHUNK < row.n ? begin + CHUNK : row.n;
        T* place = found;
        for (Marks left = marks[begin / CHUNK]; left != 0; left &= left - 1) {
            const Index first = begin + __builtin_ctzll(left) * MARK;
            for (Index i = first; i < first + MARK; i += LANES, place += LANES) {
                const int count = static_cast<int>(i < end ? (end - i < LANES ? end - i : LANES) : 0);
                store(place, body(scores(row, sign, i, count), i, count));
            }
        }
        each_vector<T>(begin, end, [&](Index i, int count) BODY { put<T>(row.result + i, all(T(0)), count); });
        place = found;
        for (Marks left = marks[begin / CHUNK]; left != 0; left &= left - 1) {
            const Index first = begin + __builtin_ctzll(left) * MARK;
            const Index last = first + MARK < end ? first + MARK : end;
            each_vector_once<T>(first, last, [&](Index i, int count) BODY { put<T>(row.result + i, load(place + (i - first)), count); });
            place += MARK;
        }
    }
}

// -- the map -------------------------------------------------------------------------------------------------------------

template <class Pieces, class T>
struct Sparse {
    using V = Vector<T>;
    using Gap = typename Gaps<T>::Gap;
    static constexpr int GROUPS = Gaps<T>::GROUPS, LANES = Lanes<T>::count;
    static constexpr int ROUNDS = 100;
    static_assert(std::is_trivially_copyable_v<Pieces> && sizeof(Pieces) <= sizeof(Solved::pieces));
    // How close a sketch comes before exact rounds, and where it only helps to list.
    static constexpr double CLOSE = 512.0, HELPFUL = 8.0;
    // More candidates than a crowd are sketched; as many entries are not listed; and chunks that have marks.
    static constexpr Index CROWD = 256, UNLISTED = Pieces::are_sketched ? 16 : 0, CHUNKS = 64;

    // What is walked for sums: the row, or a list of those of its scores that can weigh anything.
    struct Candidates {
        const T* x;
        Index n;
        typename Row<T>::Whole sign;
        T fill;

        INLINE V at(Index i, int count) const { return flipped(take<T>(x + i, count, fill), sign); }
    };

    Row<T>& row;
    Team& team;
    Gaps<T> gaps;
    typename Row<T>::Whole sign;
    Pieces pieces;
    Candidates candidates;
    bool is_listed = false;
    // The sink's once, and seven lanes that weigh nothing.
    Gap sink;
    double sink_weight = 0.0;
    const bool is_marked;
    Marks marks[CHUNKS];

    INLINE Sparse(Row<T>& the_row, Team& the_team)
        : row(the_row), team(the_team), gaps(the_row), sign(the_row.sign()), pieces(the_row.alpha), candidates(all_of(the_row)),
          is_marked(the_row.n <= CHUNKS * CHUNK && !the_row.streams && !the_team.shares) {
        if (row.has_sink) set_sink();
        if (row.found != nullptr) {
            std::memcpy(&pieces, row.found->pieces, sizeof(Pieces));
        } else {
            find_candidates();
            solve();
        }
        if (row.left != nullptr) std::memcpy(row.left->pieces, &pieces, sizeof(Pieces));
        if (row.has_sink) sink_weight = first_of(rounded(pieces.weight(gaps.of(row.sink))));
    }

    // -- the methods -------------------------------------------------------------------------------------------------

    APART void value() { write_weights(nullptr); }

    // (p - y) times the row's scale, y being an index, as less_index has it from weights, to the bit. The result is apart from
    // the scores and not streamed, and the row is one thread's.
    APART void residual() {
        const Index label = row.label;
        const bool is_dead = (row.is_negated ? -row.x[label] : row.x[label]) == -INFINITE<T>;
        Others others{label, all(static_cast<T>(row.scale))};
        write_weights(&others);
        others.end_block();
        others.whole.add(sink_weight);
        const T residual = is_dead ? T(0) : static_cast<T>(-others.whole.value());
        row.result[label] = residual == T(0) ? residual : residual * static_cast<T>(row.scale);
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
                    const Doubles s = pieces.template slope<T>(p);
                    slopes.add(s);
                    products.add_product(s, select(all(0.0) < p, g[j], all(0.0)));
                }
            });
            return Totals{slopes.total(), products.total(), {}};
        });
        if (sink_weight > 0.0) sums.first.add(first_of(pieces.template slope<T>(all(sink_weight))));
        const double whole = sums.first.value();
        const Doubles mean = all(whole > 0.0 ? sums.second.value() / whole : 0.0), outer = all(row.outer());
        write_supported([&](const Gap (&gap)[GROUPS], Index i, int count) BODY {
            Doubles g[GROUPS];
            split(take<T>(row.operand + i, count, T(0)), g);
            for (int j = 0; j < GROUPS; ++j) {
                const Doubles p = rounded(pieces.weight(gap[j]));
                g[j] = select(all(0.0) < p, (pieces.template slope<T>(p) * (g[j] - mean)) * outer, all(0.0));
            }
            return joined(g);
        });
    }

    // Omega* of the gaps: the sum of gap p - omega(p).
    APART double conjugate() {
        const Totals sums = over_candidates([&](const Gap& gap, Totals_of& sum) BODY {
            const auto weight = pieces.weight(gap);
            const Doubles p = rounded(weight);
            sum.first.add_product(p, select(all(0.0) < p, plain(gap), all(0.0)));
            if constexpr (sizeof(T) == 8 && Pieces::is_of_powers)
                sum.second.add(pieces.omega(weight));
            else
                sum.second.add(pieces.omega(p));
        });
        return sums.first.value() - sums.second.value();
    }

    // The same as score_below(-reach) for tops near 0, so that rounding takes less.
    static INLINE Floats cut_below(const Floats& tops) { return tops - all(static_cast<float>(Pieces::reach() + 0x1p-13)); }
    // Of rows with temperatures.
    static INLINE Floats cut_below(const Floats& tops, const double* temperatures) {
        float own[Lanes<float>::count];
        store(own, tops);
        for (int r = 0; r < Lanes<float>::count; ++r) {
            Row<float> each;
            each.top = own[r];
            each.temperature = temperatures[r];
            own[r] = score_below(each, -Pieces::reach());
        }
        return load(own);
    }

    // -- what a solver asks for ------------------------------------------------------------------------------------------

    struct Totals_of {
        Sum<T> first, second;

        INLINE Totals totals() const { return {first.total(), second.total(), {}}; }
    };

    // The sums of body(gap, sums) over the candidates, sink included.
    template <class Body>
    INLINE Totals over_candidates(Body body) {
        Totals whole = team.sum(candidates.n, [&](Index begin, Index end) APART {
            Totals_of sums;
            each_vector<T>(begin, end, [&](Index i, int count) BODY {
                Gap gap[GROUPS];
                gaps(candidates.at(i, count), gap);
                for (int j = 0; j < GROUPS; ++j) body(gap[j], sums);
            });
            return sums.totals();
        });
        if (row.has_sink) {
            Totals_of sums;
            body(sink, sums);
            whole.add(sums.totals());
        }
        return whole;
    }

    // The largest of body(gap) over the candidates.
    template <class Body>
    INLINE double largest_candidate(Body body) {
        const auto of_block = [&](Index begin, Index end) APART {
            Doubles best = all(-__builtin_inf());
            each_vector_once<T>(begin, end, [&](Index i, int count) BODY {
                Gap gap[GROUPS];
                gaps(candidates.at(i, count), gap);
                for (int j = 0; j < GROUPS; ++j) best = larger(body(gap[j]), best);
            });
            return largest_of(best);
        };
        double best = row.has_sink ? first_of(body(gaps.of(row.sink))) : -__builtin_inf();
        const auto join = [&](double other) { best = other > best ? other : best; };
        if (!team.shares || candidates.n <= BLOCK) {
            team.each_block(candidates.n, [&](Index begin, Index end) APART { join(of_block(begin, end)); });
        } else {
            team.each_block(row.n, [&](Index begin, Index end) APART { team.found[begin / BLOCK].first.hi = of_block(begin, end); });
            for (Index begin = 0; begin < row.n && !team.is_stopped; begin += BLOCK) join(team.found[begin / BLOCK].first.hi);
        }
        return best;
    }

  private:
    INLINE void set_sink() {
        double alone[8] = {first_of(plain(gaps.of(row.sink)))};
        for (int j = 1; j < 8; ++j) alone[j] = -__builtin_inf();
        if constexpr (sizeof(T) == 8)
            sink = {load(alone), select(all(-0x1p60) < load(alone), gaps.of(row.sink).lo, all(0.0))};
        else
            sink = load(alone);
    }

    // Of a residual the sum of the weights but for the label's, block by block, while they are written times its scale.
    struct Others {
        Index label;
        V scale;
        Total whole{};
        Sum<T> of_block{};
        Index block_end = BLOCK;

        INLINE void end_block() { whole.add(of_block.total()); }
        INLINE V take(V weights, Index i) {
            if (i >= block_end) {
                end_block();
                of_block = Sum<T>();
                block_end = (i / BLOCK + 1) * BLOCK;
            }
            if (i <= label && label < i + LANES) weights = without(weights, static_cast<int>(label - i));
            of_block.add(weights);
            return scaled<T>(weights, scale);
        }
        static APART V without(const V& weights, int lane) {
            T each[LANES];
            store(each, weights);
            each[lane] = T(0);
            return load(each);
        }
    };
    APART void write_weights(Others* others) {
        write_supported([pieces = pieces, others](const Gap (&gap)[GROUPS], Index i, int) BODY {
            Doubles p[GROUPS];
            for (int j = 0; j < GROUPS; ++j) p[j] = rounded(pieces.weight(gap[j]));
            const V weights = joined(p);
            return others == nullptr ? weights : others->take(weights, i);
        });
    }

    // The gaps of a vector; false if none of them can be supported.
    INLINE bool gaps_at(Index i, int count, const V& lowest, Gap (&gap)[GROUPS]) const {
        const V x = scores(row, sign, i, count);
        if (!any(lowest < x)) return false;
        gaps(x, gap);
        return true;
    }

    // -- candidates ---------------------------------------------------------------------------------------------------

    static INLINE Candidates all_of(const Row<T>& row) {
        return {row.x, row.n, row.sign(), row.is_negated ? INFINITE<T> : -INFINITE<T>};
    }
    INLINE void set_listed(Index count) { candidates = {row.list, count, bits_of<typename Row<T>::Whole>(all(T(0))), -INFINITE<T>}; }

    INLINE void find_candidates() {
        if constexpr (Pieces::are_sketched)
            if (row.n >= HUGE_ROW) return list_blocks();
        if (row.n > UNLISTED) list_candidates();
    }

    // The peaks lead to a cut, above which the blocks list their scores, whoever walks them. A block with more of them than
    // there is room for has the row walked instead.
    APART void list_blocks() {
        set_listed(peaks_of(row));
        sketch(CLOSE);
        const V cut = all(score_below(row, pieces.least()));
        team.each_block(row.n, [&](Index begin, Index end) APART {
            T *const slot = row.list + LIST_ROOM + begin / BLOCK * SLOT_ROOM, *const list = slot + LANES, *last = list;
            for (Index i = begin; i < end && last - list <= SLOT; i += CHUNK)
                each_vector<T>(i, i + CHUNK < end ? i + CHUNK : end, [&](Index j, int count) BODY {
                    const V x = scores(row, sign, j, count);
                    T* const place = last - list <= SLOT ? last : list + SLOT;
                    last += append(place, x, cut < x) - place;
                });
            *slot = static_cast<T>(last - list);
        });
        set_listed(0);
        is_listed = true;
        const T* slots = row.list + LIST_ROOM;
        for (Index begin = 0; begin < row.n && !team.is_stopped; begin += BLOCK, slots += SLOT_ROOM) {
            const Index count = static_cast<Index>(*slots);
            is_listed &= count <= SLOT && candidates.n + count <= LIST;
            if (!is_listed) break;
            std::memcpy(row.list + candidates.n, slots + LANES, static_cast<std::size_t>(count) * sizeof(T));
            candidates.n += count;
        }
        if (!is_listed) candidates = all_of(row);
    }

    // Where many crowd below the top, those seen so far raise the cut for those to come. Where that helps little, or there
    // are more than there is room for, the row is walked instead.
    APART void list_candidates() {
        V cut = first_cut();
        Index crowd = CROWD;
        set_listed(0);
        is_listed = true;
        for (Index begin = 0; begin < row.n && is_listed && !team.is_stopped; begin += CHUNK) {
            const Index end = begin + CHUNK < row.n ? begin + CHUNK : row.n;
            list_chunk(cut, begin, end);
            if (end == row.n) break;
            if constexpr (!Pieces::has_own_solver)
                if (candidates.n > crowd || candidates.n + CHUNK > LIST) {
                    cut = all(raised_cut());
                    drop_below(cut);
                    crowd = 2 * candidates.n + CROWD;
                    is_listed = candidates.n <= end / 16 * 15;
                }
            is_listed &= candidates.n + CHUNK <= LIST;
        }
        if (!is_listed) candidates = all_of(row);
    }

    // Plain rows are cut where ShortRows cuts them, so that the same scores are listed.
    INLINE V first_cut() const {
        if constexpr (sizeof(T) == 4 && Pieces::are_sketched)
            if (!row.is_tempered && __builtin_fabs(row.top) < 512.0) return cut_below(all(static_cast<T>(row.top)));
        return all(score_below(row, -pieces.reach()));
    }
    INLINE void list_chunk(const V& cut, Index begin, Index end) {
        T* last = row.list + candidates.n;
        Marks mark = 0;
        each_vector_once<T>(begin, end, [&](Index i, int count) BODY {
            const V x = scores(row, sign, i, count);
            const auto is_near = cut < x;
            last = append(last, x, is_near);
            mark |= static_cast<Marks>(any(is_near)) << ((i - begin) / MARK);
        });
        if (is_marked) marks[begin / CHUNK] = mark;
        candidates.n = last - row.list;
    }
    INLINE void drop_below(const V& cut) {
        T* last = row.list;
        each_vector_once<T>(0, candidates.n, [&](Index i, int count) BODY {
            const V x = candidates.at(i, count);
            last = append(last, x, cut < x);
        });
        candidates.n = last - row.list;
    }

    // A Newton step on some of the row leads to a cut that lies below that of all.
    INLINE T raised_cut() {
        if constexpr (Pieces::are_sketched) {
            sketch(HELPFUL);
        } else {
            const Totals sums = sums_of_weights();
            if (sums.first.value() > 1.0) pieces.template step<T>(sums.first.value(), sums.second.value());
        }
        return score_below(row, pieces.least());
    }

    // Newton's method in the scores' own type, from the cut on until it is so many times closer below the threshold than the
    // top is above it. What rounding can add to a sum is taken from it; squares stay in range.
    APART void sketch(double closeness) {
        const double temperature = row.temperature;
        if (!(0x1p-40 < temperature && temperature < 0x1p40 && __builtin_fabs(row.top) < 0x1p40)) return;
        for (int round = 0; round < ROUNDS && !team.is_stopped; ++round) {
            const T cut = score_below(row, pieces.least());
            const Totals sums = sketched_sums(all(cut));
            const double rise = Pieces::rise(sums.first.value() * (1.0 - 0x1p-17), sums.second.value(), temperature);
            const double before = pieces.least(), after = (static_cast<double>(cut) + rise - row.top) / temperature;
            if (!(before < after && after < 0.0)) return;
            pieces.set_least(after);
            if ((after - before) * closeness <= -after) return;
        }
    }

    struct Sketch {
        V first = all(T(0)), second = all(T(0));

        INLINE void add(const V& x, const V& cut) {
            const V u = larger(x - cut, all(T(0)));
            first = first + Pieces::sketched_weight(u);
            second = second + Pieces::sketched_rate(u);
        }
    };
    INLINE Totals sketched_sums(const V& cut) {
        return team.sum(candidates.n, [&](Index begin, Index end) APART {
            Totals_of sums;
            for (Index i = begin; i < end; i += 2 * CHUNK) {
                const Index stop = i + 2 * CHUNK < end ? i + 2 * CHUNK : end;
                Sketch even, odd;
                Index j = i;
                for (; j + 2 * LANES <= stop; j += 2 * LANES) {
                    even.add(candidates.at(j, LANES), cut);
                    odd.add(candidates.at(j + LANES, LANES), cut);
                }
                each_vector_once<T>(j, stop, [&](Index k, int count) BODY { even.add(candidates.at(k, count), cut); });
                sums.first.add(even.first + odd.first);
                sums.second.add(even.second + odd.second);
            }
            return sums.totals();
        });
    }

    // -- the solver -----------------------------------------------------------------------------------------------------

    INLINE void solve() {
        if constexpr (Pieces::has_own_solver)
            pieces.solve(*this);
        else
            solve_from_top();
    }

    APART void solve_from_top() {
        if constexpr (Pieces::are_sketched)
            if (candidates.n > CROWD) sketch(CLOSE);
        if constexpr (Pieces::is_linear && sizeof(T) == 4)
            if (candidates.n > CROWD && !row.has_sink && is_line_solved()) return;
        for (int round = 0; round < ROUNDS && !team.is_stopped; ++round) {
            const Totals sums = sums_of_weights();
            if (step(sums.first.value(), sums.second.value())) break;
            if constexpr (Pieces::is_dear)
                if (is_listed) drop_below(lowest_supported());
        }
        if constexpr (sizeof(T) == 8 && Pieces::keeps_pairs) {
            pieces.settle();
            Totals sums = over_candidates([&](const Gap& gap, Totals_of& sum) BODY {
                const auto p = pieces.weight(gap);
                sum.first.add(p);
                sum.second.add(pieces.rate(plain(gap), rounded(p)));
            });
            sums.first.add(-1.0);
            pieces.correct(-sums.first.value(), sums.second.value());
        }
    }

    // Where Lists would solve the row its steps are the same.
    INLINE bool step(double sum, double rates) {
        if constexpr (!Pieces::are_sketched) {
            return pieces.template step<T>(sum, rates);
        } else {
            const bool is_rough = sizeof(T) == 4 && candidates.n <= CROWD;
            return is_rough ? pieces.template step<T, true>(sum, rates) : pieces.template step<T, false>(sum, rates);
        }
    }

    // One round is enough where all above the cut weigh something.
    APART bool is_line_solved() {
        const V cut = lowest_supported(), top = all(static_cast<T>(row.top));
        const Totals found = team.sum(candidates.n, [&](Index begin, Index end) APART {
            Sum<T> sum;
            V lowest = -top;
            int above = 0;
            each_vector<T>(begin, end, [&](Index i, int count) BODY {
                const V x = candidates.at(i, count);
                const auto is_above = cut < x;
                const V used = select(is_above, x, top);
                Gap gap[GROUPS];
                gaps(used, gap);
                for (int j = 0; j < GROUPS; ++j) sum.add(gap[j]);
                above += __builtin_popcount(bits(is_above));
                lowest = larger(-used, lowest);
            });
            Totals part{sum.total(), Total{static_cast<double>(above), 0.0}, {}};
            part.top = static_cast<double>(largest_of(lowest));
            return part;
        });
        pieces.set_line(found.first.value(), found.second.value());
        return first_of(pieces.weight(gaps.of(-found.top))) > 0.0;
    }

    INLINE Doubles weight_in_rounds(const Gap& gap) const {
        if constexpr (sizeof(T) == 8 && Pieces::is_of_powers) return pieces.early_weight(gap.hi);
        return pieces.weight(plain(gap));
    }
    INLINE Totals sums_of_weights() {
        return over_candidates([&](const Gap& gap, Totals_of& sum) BODY {
            const Doubles p = weight_in_rounds(gap);
            sum.first.add(p);
            sum.second.add(pieces.rate(plain(gap), p));
        });
    }

    // -- results --------------------------------------------------------------------------------------------------------

    INLINE V lowest_supported() const { return all(score_below(row, pieces.least())); }

    // Writes body(gaps, i, count), and 0 where nothing can be supported.
    template <class Body>
    INLINE void write_supported(Body body) {
        const auto of_scores = [gaps = gaps, body](const V& x, Index i, int count) BODY {
            Gap gap[GROUPS];
            gaps(x, gap);
            return body(gap, i, count);
        };
        if (is_marked && is_listed && 8 * candidates.n < row.n) return write_marked<T>(row, marks, of_scores);
        const V lowest = lowest_supported();
        team.each_block(row.n, [&](Index begin, Index end) APART {
            // Of its own, so that no store can change it.
            const auto own = of_scores;
            write_above<T>(row, begin, end, lowest, own);
        });
    }
};

}  // namespace softplex::SOFTPLEX_ISA
