// One row of a call that has a top: which of a map's functions a method takes, and what residuals and losses make of the weights. Where
// rows come from stands in driver.h.
#pragma once

#include "memory.h"
#include "row.h"

namespace softplex::SOFTPLEX_ISA {

INLINE double number_of(const Call& call, const Parameter& parameter, Index row) {
    if (parameter.rows.data == nullptr) return parameter.fixed;
    double value;
    std::memcpy(&value, row_of(call, parameter.rows, row), sizeof(value));
    return value;
}
INLINE void put_number(const Call& call, Index row, double value) {
    std::memcpy(row_of(call, call.result, row), &value, sizeof(value));
}
INLINE void put_count(const Call& call, Index row, Index value) {
    std::memcpy(row_of(call, call.result, row), &value, sizeof(value));
}

// What an entry of a row without weights becomes: masked or empty ones 0, of a logarithm -inf, as the largest of no scores.
INLINE double absent_of(const Call& call) {
    const bool is_log = call.map == Map::log_softmax && call.method == Method::value;
    return is_log || call.method == Method::smooth_max ? -__builtin_inf() : 0.0;
}

// The weights of a row kept apart from its scores, which say which entries take part.
template <class T>
INLINE Row<T> with_weights_in(const Row<T>& row, T* weights) {
    Row<T> apart = row;
    apart.result = apart.terms = weights;
    apart.streams = false;
    return apart;
}

// p - y with p_y - 1 as minus the sum of the others, which keeps its digits.
template <class T>
INLINE void less_index(const Row<T>& row, Row<T>& weighed, Team& team, double sink_weight) {
    T* const p = weighed.result;
    p[row.label] = T(0);
    Totals others = team.sum(row.n, [&](Index begin, Index end) APART {
        Sum<T> sum;
        each_vector_once<T>(begin, end, [&](Index i, int count) BODY { sum.add(take<T>(p + i, count, T(0))); });
        return Totals{sum.total(), {}, {}};
    });
    others.first.add(sink_weight);
    const T score = row.is_negated ? -row.x[row.label] : row.x[row.label];
    p[row.label] = score > -INFINITE<T> ? static_cast<T>(-others.first.value()) : T(0);
    const Vector<T> scale = all(static_cast<T>(row.scale));
    team.each_block(row.n, [&](Index begin, Index end) APART {
        write<T>(row, begin, end, [&](Index i, int count) BODY { return scaled<T>(take<T>(p + i, count, T(0)), scale); });
    });
}

// What a distribution sums to. Padding may hold anything where an entry takes no part.
template <class T>
INLINE double mass_of(const Row<T>& row, Team& team) {
    const auto sign = row.sign();
    const Vector<T> dead = all(-INFINITE<T>);
    const Totals sums = team.sum(row.n, [&](Index begin, Index end) APART {
        Sum<T> mass;
        each_vector_once<T>(begin, end, [&](Index i, int count) BODY {
            const Vector<T> y = take<T>(row.operand + i, count, T(0));
            mass.add(select(unordered(y, y) & (scores(row, sign, i, count) == dead), all(T(0)), y));
        });
        return Totals{mass.total(), {}, {}};
    });
    return sums.first.value();
}

// p times a mass, less y, where an entry takes part.
template <class T>
INLINE void less_distribution(const Row<T>& row, const Row<T>& weighed, Team& team, double mass) {
    const auto sign = row.sign();
    const Vector<T> dead = all(-INFINITE<T>), scale = all(static_cast<T>(row.scale)), whole = all(static_cast<T>(mass));
    team.each_block(row.n, [&](Index begin, Index end) APART {
        write<T>(row, begin, end, [&](Index i, int count) BODY {
            const Vector<T> p = take<T>(weighed.result + i, count, T(0)), y = take<T>(row.operand + i, count, T(0));
            return select(dead < scores(row, sign, i, count), scaled<T>(p * whole - y, scale), all(T(0)));
        });
    });
}

template <class T>
INLINE Doubles eight_of(const T* from, int count, double fill) {
    double lanes[8];
    for (int j = 0; j < 8; ++j) lanes[j] = j < count ? static_cast<double>(from[j]) : fill;
    return load(lanes);
}

// Differences of finite scores may overflow where their quotients do not.
template <class T>
INLINE double quarter_of(const Row<T>& row) {
    return row.temperature > 0x1p100 ? 0.25 : 1.0;
}

// What y sums to, <y, gaps> and Omega(y), the gaps being the scores less their top.
template <class T, class Omega>
INLINE Totals products_with(const Row<T>& row, Team& team, Omega omega_of) {
    const double quarter = quarter_of(row);
    return team.sum(row.n, [&](Index begin, Index end) APART {
        Sum<double> mass, inner, omega;
        for (Index i = begin; i < end; i += 8) {
            const int count = static_cast<int>(end - i < 8 ? end - i : 8);
            const Doubles x = eight_of(row.x + i, count, row.is_negated ? __builtin_inf() : -__builtin_inf());
            const Doubles gap = ((row.is_negated ? -x : x) * all(quarter) - all(row.top * quarter)) / all(row.temperature * quarter);
            const Doubles given = eight_of(row.operand + i, count, 0.0);
            // Padding may hold anything where an entry takes no part.
            const Doubles y = select(unordered(given, given) & (gap == all(-__builtin_inf())), all(0.0), given);
            mass.add(y);
            inner.add(select(y == all(0.0), all(0.0), y * gap));
            omega.add(omega_of(y));
        }
        return Totals{mass.total(), inner.total(), omega.total()};
    });
}

// Whether all of y's weight is on an entry that weighs 0 for certain.
INLINE bool is_beyond(const Totals& sums) {
    return sums.second.hi == -__builtin_inf() || sums.second.hi == __builtin_inf();
}

// Omega* + Omega(y) - <x, y>; what y lacks of a sum of 1 is put back for the gaps.
template <class T>
INLINE double loss_of_distribution(const Row<T>& row, const Totals& sums, double conjugate) {
    if (is_beyond(sums)) return -sums.second.hi;
    Total missing{1.0, -sums.first.lo};
    missing.add(-sums.first.hi);
    const double inner = sums.second.value();
    // The gaps stand for the scores only where p and y weigh the same in all; what is left multiplies the top.
    const double loss = conjugate + sums.third.value() - inner + row.top * missing.value() / row.temperature;
    const double size = __builtin_fabs(conjugate) + __builtin_fabs(inner);
    const double noise = 64.0 * 0x1p-52 * (size > 1.0 ? size : 1.0);
    return loss < 0.0 && loss > -noise ? 0.0 : loss;
}

// -<y, log p>, of which all terms have one sign.
INLINE double cross_entropy(const Totals& sums, double conjugate) {
    return is_beyond(sums) ? -sums.second.hi : sums.first.value() * conjugate - sums.second.value();
}

template <class T>
INLINE double loss_of_index(const Row<T>& row, double conjugate) {
    const double score = static_cast<double>(row.is_negated ? -row.x[row.label] : row.x[row.label]);
    if (score == -__builtin_inf()) return __builtin_inf();
    const double quarter = quarter_of(row);
    const double loss = conjugate + (row.top * quarter - score * quarter) / (row.temperature * quarter);
    return loss > 0.0 ? loss : 0.0;
}

// The top and what the others add to it.
template <class T>
INLINE double smooth_max_of(const Row<T>& row, double conjugate) {
    return row.top + row.temperature * conjugate;
}

// Runs a method on a row that has a top; results that are numbers a row go to the call's result. `weights` is room for a
// row apart from its scores.
template <class Maps, class T>
inline void compute(const Call& call, Index index, Row<T>& row, Team& team, T* weights) {
    switch (call.method) {
        case Method::value:
        case Method::support_size:
            Maps::value(call.map, row, team);
            break;
        case Method::vjp:
        case Method::jvp:
            Maps::derivative(call.map, call.method == Method::jvp, row, team);
            break;
        case Method::residual_of_index: {
            const bool is_at_hand = row.result != row.x && !row.streams && !team.shares;
            if (is_at_hand && Maps::sparse_residual(call.map, row, team)) break;
            Row<T> weighed = with_weights_in(row, weights);
            const double sink_weight = Maps::value(call.map, weighed, team);
            less_index(row, weighed, team, sink_weight);
            break;
        }
        case Method::residual: {
            Row<T> weighed = with_weights_in(row, weights);
            const bool is_crossed = call.map == Map::log_softmax;
            Maps::value(is_crossed ? Map::softmax : call.map, weighed, team);
            less_distribution(row, weighed, team, is_crossed ? mass_of(row, team) : 1.0);
            break;
        }
        case Method::loss_of_index:
            put_number(call, index, loss_of_index(row, Maps::conjugate(call.map, row, team)));
            break;
        case Method::smooth_max:
            put_number(call, index, smooth_max_of(row, Maps::conjugate(call.map, row, team)));
            break;
        case Method::loss: {
            const double conjugate = Maps::conjugate(call.map, row, team);
            if (call.map == Map::log_softmax) {
                const Totals sums = products_with(row, team, [](const Doubles&) { return all(0.0); });
                put_number(call, index, cross_entropy(sums, conjugate));
                break;
            }
            Maps::with_omega(call.map, row, [&](auto omega) {
                put_number(call, index, loss_of_distribution(row, products_with(row, team, omega), conjugate));
            });
            break;
        }
        case Method::winner:
        case Method::backward:
        case Method::of_temperature:
        case Method::of_alpha:
        case Method::of_sink:
        case Method::of_temperature_from_gradient:
        case Method::conjugate_by_alpha:
            break;
    }
}

}  // namespace softplex::SOFTPLEX_ISA
