// The kernels of one instruction set: which map runs which kernel. Compiled once for each set; how rows are walked stands
// in driver.h, what a map computes in the file of its name.
#include "backward.h"
#include "columns_backward.h"
#include "driver.h"
#include "entmax.h"
#include "entmax15.h"
#include "far_columns.h"
#include "float_mode.h"
#include "maxout.h"
#include "middle_rows.h"
#include "parameters.h"
#include "short_rows.h"
#include "softmax.h"
#include "sparsemax.h"

namespace softplex::SOFTPLEX_ISA {
namespace {

template <class T>
struct Maps {
    // Whether softmax's derivative is asked for, which is its own transpose, or that of its logarithm from a cotangent.
    static bool is_product(Map map, Method method) {
        if (map == Map::log_softmax) return method == Method::vjp;
        return map == Map::softmax && (method == Method::vjp || method == Method::jvp);
    }
    // Whether the rows of a map have candidates to be listed.
    static bool lists(Map map) { return map != Map::softmax && map != Map::log_softmax; }
    // Whether some float rows of a map have to be computed in double.
    static bool widens(Map map) { return map == Map::softmax || map == Map::log_softmax || map == Map::entmax; }

    // The weights, or their logarithms; returns what the sink weighs.
    static double value(Map map, Row<T>& row, Team& team) {
        if (map == Map::log_softmax) {
            Softmax<T>::log_value(row, team);
            return 0.0;
        }
        if (is_softmax(map, row)) return Softmax<T>::value(row, team);
        return with_sparse(map, row, team, [](auto& kernel) {
            kernel.value();
            return kernel.sink_weight;
        });
    }

    // A residual of an index that is written where it belongs; false for softmax.
    static bool sparse_residual(Map map, Row<T>& row, Team& team) {
        if (is_softmax(map, row)) return false;
        with_sparse(map, row, team, [](auto& kernel) {
            kernel.residual();
            return 0.0;
        });
        return true;
    }

    // What a row that needs no care is asked for, without a look at it first; false if it does, and the result holds nothing of use.
    // `number` is where a result goes that is a number a row.
    static bool at_once(Map map, Method method, Row<T>& row, Team& team, double& number) {
        if constexpr (sizeof(T) == 4) {
            if (!is_softmax(map, row) || !Softmax<T>::is_plain(row)) return false;
            const bool is_log = map == Map::log_softmax;
            if (method == Method::residual_of_index) return Softmax<T>::residual_at_once(row, team);
            if (method == Method::loss_of_index) {
                const bool is_done = Softmax<T>::conjugate_at_once(row, team, number);
                if (is_done) number = loss_of_index(row, number);
                return is_done;
            }
            if (method == Method::smooth_max) {
                const bool is_done = Softmax<T>::conjugate_at_once(row, team, number);
                if (is_done) number = smooth_max_of(row, number);
                return is_done;
            }
            if (method == Method::vjp) return is_log ? Softmax<T>::log_vjp_at_once(row, team) : Softmax<T>::vjp_at_once(row, team);
            if (method == Method::jvp && !is_log) return Softmax<T>::vjp_at_once(row, team);
            if (method != Method::value) return false;
            return is_log ? Softmax<T>::log_value_at_once(row, team) : Softmax<T>::value_at_once(row, team);
        }
        return false;
    }

    // Up to which length the results of a map come several rows at a time.
    static Index longest_short_row(Map map, Method method) {
        if (sizeof(T) == 8) return 0;
        if (method == Method::backward) return map == Map::entmax ? 0 : Backward<T>::SHORT;
        const bool has_label = method == Method::loss_of_index || method == Method::residual_of_index;
        const bool is_loss = (has_label || method == Method::smooth_max) && map == Map::softmax;
        if (method != Method::value && !is_loss && !is_product(map, method)) return 0;
        if (map == Map::softmax || map == Map::log_softmax) return Softmax<float>::SHORT;
        return map == Map::sparsemax || map == Map::entmax15 ? ShortRows::CANDIDATES : 0;
    }
    static bool short_rows(Map map, Method method, const ShortRows& rows) {
        using Asked = ShortRows::Asked;
        if (method == Method::loss_of_index) return rows.compute<Asked::losses>();
        if (method == Method::smooth_max) return rows.compute<Asked::maxima>();
        if (method == Method::residual_of_index) return rows.compute<Asked::residuals>();
        if (is_product(map, method)) {
            return map == Map::log_softmax ? rows.compute<Asked::log_derivatives>() : rows.compute<Asked::derivatives>();
        }
        if (map == Map::sparsemax) return rows.solve<Sparsemax>();
        if (map == Map::entmax15) return rows.solve<Entmax15>();
        return map == Map::log_softmax ? rows.compute<Asked::logarithms>() : rows.compute<Asked::weights>();
    }

    // The same of rows of which a few are taken at a time.
    static Index longest_middle_row(Map map, Method method) {
        const bool is_exponential = map == Map::softmax || map == Map::log_softmax;
        const bool is_known = is_exponential && (method == Method::value || is_product(map, method));
        const bool is_solved = (map == Map::sparsemax || map == Map::entmax15) && method == Method::value;
        return sizeof(T) == 4 && (is_known || is_solved) ? MiddleRows::LONGEST : 0;
    }
    static bool middle_rows(Map map, Method method, const MiddleRows& rows) {
        using Asked = ShortRows::Asked;
        if (map == Map::sparsemax) return rows.rows.solve<Sparsemax>();
        if (map == Map::entmax15) return rows.rows.solve<Entmax15>();
        if (method == Method::value) return map == Map::log_softmax ? rows.compute<Asked::logarithms>() : rows.compute<Asked::weights>();
        return map == Map::log_softmax ? rows.compute<Asked::log_derivatives>() : rows.compute<Asked::derivatives>();
    }

    // What rows that lie across the memory are computed for where they lie.
    static bool takes_columns(Map map, Method method) {
        const bool is_exponential = map == Map::softmax || map == Map::log_softmax;
        if (map == Map::softmax && is_product(map, method)) return true;
        if (method == Method::backward) return is_exponential || map == Map::sparsemax || map == Map::entmax15;
        return method == Method::value && (is_exponential || map == Map::sparsemax || map == Map::entmax15);
    }
    template <class Careful>
    static bool columns(Map map, const Columns& columns, const Careful& careful) {
        if (map == Map::log_softmax) return columns.compute<true>();
        if (map == Map::softmax) return columns.compute<false>();
        if (columns.is_negated) return false;
        if (map == Map::sparsemax)
            columns.solve<Sparsemax>(careful);
        else
            columns.solve<Entmax15>(careful);
        return true;
    }

    static bool tempered_columns(Map map, const TemperedColumns& columns) {
        return map == Map::log_softmax ? columns.compute<true>() : columns.compute<false>();
    }
    static bool far_columns(Map map, const FarColumns& columns) {
        return map == Map::log_softmax ? columns.compute<true>() : columns.compute<false>();
    }
    static bool columns_backward(Map map, const ColumnsBackward& columns) {
        if (map == Map::log_softmax) return columns.run_log();
        if (map == Map::softmax) return columns.run<WeightSlopes>();
        return map == Map::sparsemax ? columns.run<UnitSlopes>() : columns.run<RootSlopes>();
    }

    static void backward(Map map, const Row<T>& row, Team& team) { Backward<T>::run(map, alpha_of(map, row), row, team); }
    // The number that a cotangent gives for a parameter.
    static double of_parameter(Map map, Method method, const Row<T>& row, Team& team) {
        const double alpha = alpha_of(map, row);
        if (method == Method::of_temperature_from_gradient) return of_temperature_from_gradient(row, team);
        if (method == Method::of_sink) return map == Map::log_softmax ? OfExponentials<T, true>(row, team).of_sink() : OfExponentials<T, false>(row, team).of_sink();
        if (method == Method::conjugate_by_alpha) return AlphaOf<T>{alpha - 1.0}.of_conjugate(row, team);
        if (method == Method::of_alpha) return AlphaOf<T>{alpha - 1.0}.cotangent(row, team);
        if (map == Map::log_softmax) return OfExponentials<T, true>(row, team).of_temperature();
        if (is_softmax(map, row)) return OfExponentials<T, false>(row, team).of_temperature();
        if (alpha == 2.0) return of_temperature(row, team, UnitSlopes());
        if (alpha == 1.5) return of_temperature(row, team, RootSlopes());
        if (alpha < __builtin_inf()) return of_temperature(row, team, SlopesOf<Entmax, T>{Entmax(alpha)});
        return of_temperature(row, team, SlopesOf<Maxima, T>{Maxima(alpha)});
    }
    static bool short_backward(Map map, const ShortRows& rows) { return Backward<T>::run(map, rows); }

    static void derivative(Map map, bool is_tangent, Row<T>& row, Team& team) {
        if (map == Map::log_softmax && is_tangent) return Softmax<T>::template log_derivative<true>(row, team);
        if (map == Map::log_softmax) return Softmax<T>::template log_derivative<false>(row, team);
        if (is_softmax(map, row)) return Softmax<T>::vjp(row, team);
        with_sparse(map, row, team, [](auto& kernel) {
            kernel.vjp();
            return 0.0;
        });
    }

    // Omega* of the scores less their top.
    static double conjugate(Map map, Row<T>& row, Team& team) {
        if (is_softmax(map, row)) return Softmax<T>::conjugate(row, team);
        return with_sparse(map, row, team, [](auto& kernel) { return kernel.conjugate(); });
    }

    // body(omega)
    template <class Body>
    static void with_omega(Map map, const Row<T>& row, Body body) {
        const double alpha = alpha_of(map, row);
        if (is_softmax(map, row)) return body([](const Doubles& p) { return Softmax<T>::omega(p); });
        if (alpha == 2.0) return body([](const Doubles& p) { return Sparsemax::omega(p); });
        if (alpha == 1.5) return body([](const Doubles& p) { return Entmax15::omega(p); });
        if (alpha == __builtin_inf()) return body([](const Doubles& p) { return Maxima::omega(p); });
        body([entmax = Entmax(alpha)](const Doubles& p) { return entmax.omega(p); });
    }

    // Whether a row is one of softmax or its logarithm.
    static bool is_softmax(Map map, const Row<T>& row) {
        return map == Map::softmax || map == Map::log_softmax || (map == Map::entmax && row.alpha == 1.0);
    }

  private:
    static double alpha_of(Map map, const Row<T>& row) {
        return map == Map::sparsemax ? 2.0 : map == Map::entmax15 ? 1.5 : row.alpha;
    }

    // body(kernel of the row); entmax at 1.5 and 2 takes those with closed links.
    template <class Body>
    static double with_sparse(Map map, Row<T>& row, Team& team, Body body) {
        const double alpha = alpha_of(map, row);
        if (alpha == 2.0) return run<Sparsemax>(row, team, body);
        if (alpha == 1.5) return run<Entmax15>(row, team, body);
        if (alpha < 2.0) return run<Entmax>(row, team, body);
        if (alpha < __builtin_inf()) return run<SteepEntmax>(row, team, body);
        return run<Maxima>(row, team, body);
    }
    template <class Pieces, class Body>
    static double run(Row<T>& row, Team& team, Body body) {
        Sparse<Pieces, T> kernel(row, team);
        return body(kernel);
    }
};

}  // namespace

// A subnormal takes a processor a hundred times as long. In derivatives of softmax from its scores only results may be some, and
// beside the largest term of those of its logarithm they are nothing. What a temperature below 1 divides may be something, and
// so may all results be for one that is large.
bool may_flush(const Call& call) {
    const bool is_product = call.method == Method::vjp || call.method == Method::jvp;
    const bool is_backward = call.method == Method::backward && call.map == Map::log_softmax;
    const bool is_exponential = call.map == Map::softmax || call.map == Map::log_softmax;
    const Parameter& temperature = call.temperature;
    const bool is_usual = temperature.rows.data == nullptr && temperature.fixed >= 1.0 && temperature.fixed <= 0x1p40;
    return call.type != Type::float64 && is_exponential && (is_product || is_backward) && is_usual;
}

Outcome run(const Call& call);

Outcome run(const Call& call) {
    // Whatever the caller's mode the bits are the same.
    const WithFloatMode mode(may_flush(call) ? FLUSHING_FLOAT_MODE : USUAL_FLOAT_MODE);
    if (call.map == Map::maxout) return run_maxout(call);
    return call.type == Type::float64 ? run_rows<Maps, double>(call) : run_rows<Maps, float>(call);
}

void copy(float* to, const float* from, Index count, int threads);

void copy(float* to, const float* from, Index count, int threads) {
    Row<float> row;
    row.x = from;
    row.result = to;
    row.n = count;
    row.streams = true;
    Team team;
    team.threads = threads;
    team.shares = threads > 1;
    team.each_block(count, [&](Index begin, Index end) {
        write<float>(row, begin, end, [&](Index i, int lanes) BODY { return take<float>(row.x + i, lanes, 0.0f); });
    });
}

}  // namespace softplex::SOFTPLEX_ISA
