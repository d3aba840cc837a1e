// Fewer axes for the same call: what lies in memory as one axis is walked as one. No array is read here.
#pragma once

#include <array>

#include "call.h"

namespace softplex {

inline std::array<Array*, 10> arrays_of(Call& call) {
    return {&call.x,      &call.operand,          &call.index,     &call.mask,       &call.result,
            &call.scores, &call.temperature.rows, &call.sink.rows, &call.alpha.rows, &call.scale.rows};
}

inline void move_axis(Call& call, int from, int to) {
    call.shape[to] = call.shape[from];
    for (Array* array : arrays_of(call)) array->strides[to] = array->strides[from];
}

// Whether in every array a step along the outer axis is one past the end of the inner one.
inline bool are_one(Call& call, int outer, int inner) {
    for (const Array* array : arrays_of(call)) {
        if (array->strides[outer] != array->strides[inner] * call.shape[inner]) return false;
    }
    return true;
}

// Merges the axes from `begin` to `end` and moves them to `to`; returns where they end there.
inline int merge_group(Call& call, int begin, int end, int to) {
    const int first = to;
    for (int axis = begin; axis < end; ++axis) {
        if (call.shape[axis] == 1 && !(axis == end - 1 && to == first)) continue;
        if (to > first && are_one(call, to - 1, axis)) {
            const Index outer = call.shape[--to];
            move_axis(call, axis, to);
            call.shape[to] *= outer;
        } else {
            move_axis(call, axis, to);
        }
        ++to;
    }
    return to;
}

// Merges the batch axes among themselves and those of a row among themselves. Of axes of size 1 one is left, if all are.
inline void merge_axes(Call& call) {
    const int given_batch = call.batch_axes, given = call.batch_axes + call.row_axes;
    call.batch_axes = merge_group(call, 0, given_batch, 0);
    call.row_axes = merge_group(call, given_batch, given, call.batch_axes) - call.batch_axes;
}

}  // namespace softplex
