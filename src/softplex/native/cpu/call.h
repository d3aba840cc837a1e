// One C struct that describes a call of a kernel, for every binding alike. Nothing is computed here.
//
// The binding has checked the arguments: shapes agree, strides fit, indices are in range. Batch axes come first, the
// normalised axes last, in C order; an array without normalised axes (a number a row) has strides for the batch alone.
#pragma once

#include <cstddef>
#include <cstdint>

namespace softplex {

using Index = std::int64_t;

enum class Map : int { softmax = 0, log_softmax = 1, sparsemax = 2, entmax15 = 3, entmax = 4, maxout = 5 };

// What is asked of a map. The transposed Jacobian and the Jacobian differ for the log maps alone.
enum class Method : int {
    value = 0,              // result: entries
    vjp = 1,                // operand: entries (the cotangent); result: entries
    jvp = 2,                // operand: entries (the tangent); result: entries
    residual_of_index = 3,  // index: a number a row; result: entries
    residual = 4,           // operand: entries (the distribution); result: entries
    loss_of_index = 5,      // index: a number a row; result: float64, a number a row
    loss = 6,               // operand: entries (the distribution); result: float64, a number a row
    support_size = 7,       // result: int64, a number a row
    winner = 8,             // maxout only; result: int64, a number a row
    backward = 9,           // x: entries (what `value` gave); operand: entries (the cotangent); result: entries
    smooth_max = 10,        // result: float64, a number a row
    of_temperature = 11,    // x, operand: as of `backward`; scores: entries; result: float64, a number a row
    of_alpha = 12,          // x, operand: as of `backward`; result: float64, a number a row; entmax only
    of_sink = 13,           // as of_temperature; softmax and its logarithm only
    of_temperature_from_gradient = 14,  // x: entries (a loss's gradient in the scores); scores: entries; result: float64, a number a row
    conjugate_by_alpha = 15,  // x: entries (what `value` gave); result: float64, a number a row: of Omega*; entmax only
};

// Whether x holds what was found before, not scores.
inline bool takes_results(Method method) { return method == Method::backward || method >= Method::of_temperature; }

enum class Type : int { float64 = 0, float32 = 1, float16 = 2, bfloat16 = 3 };

constexpr int MAX_AXES = 64;

// An array seen from its first entry; strides in bytes. No data: absent.
struct Array {
    char* data = nullptr;
    Index strides[MAX_AXES] = {};
};

// What solving a row of a sparse map has found: its top, and what the map's pieces hold.
struct Solved {
    double top;
    double pieces[8];
};

// One number a row, float64: fixed, or an array over the batch.
struct Parameter {
    double fixed = 0.0;
    Array rows;
};

enum class Outcome : int { done = 0, out_of_memory = 1, interrupted = 2 };

struct Call {
    Map map = Map::softmax;
    Method method = Method::value;
    Type type = Type::float32;  // of x, the operand and an entries result
    bool negated = false;       // the map of -x (and of minus the sink)
    bool has_sink = false;
    double empty = 0.0;  // what an empty row becomes, 0 or NaN
    int batch_axes = 0;
    int row_axes = 1;
    Index shape[MAX_AXES] = {};
    Array x;
    Array operand;
    Array index;  // int64
    Array mask;   // one byte an entry, 0: masked
    Array scores; // entries; masked ones may hold anything
    Array result;
    Solved* solved = nullptr;  // one a row: losses of sparse maps leave it there, residuals take it from there; may be absent
    // Memory that nobody has touched: the system clears it into the caches as it is written, so that going past them costs.
    bool is_result_new = false;
    Parameter temperature{1.0, {}};
    Parameter sink;
    Parameter alpha{1.5, {}};
    Parameter scale{1.0, {}};  // residuals alone: what they are multiplied by; 0 gives 0 whatever the row holds
    int threads = 1;
    Index last_cache = 0;  // bytes that a call may count on of the last cache; 0: as the system says
    // Asked about once in some milliseconds, by the calling thread alone: whether to give up. May be absent.
    bool (*is_interrupted)(void*) = nullptr;
    void* interrupt_state = nullptr;
};

// Calls of fewer entries wake no threads.
constexpr Index ALONE_BELOW = Index(1) << 15;

// Computes a call on the best instruction set that there is, or the one that was chosen.
Outcome run(const Call& call);

// Copies floats past the caches: what kernels are measured by.
void copy(float* to, const float* from, Index count, int threads);

// "x86-64-v4", "x86-64-v3", "x86-64-v2", "neon" or "portable"; choosing one that this machine lacks changes nothing.
const char* instruction_set();
bool choose_instruction_set(const char* name);

}  // namespace softplex
