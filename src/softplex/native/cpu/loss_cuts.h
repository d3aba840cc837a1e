// The commonest losses of tensors, against class indices, one a row: the losses themselves, or the gradient of their sum times a
// scale. What is not certainly right is declined, as in short_cuts.h.
#pragma once

#include <nanobind/nanobind.h>

#include <algorithm>
#include <new>
#include <vector>

#include "tensor_cuts.h"

namespace softplex {

// What `lose` takes, in this order.
enum LossPlace { LOSS_X, LOSS_CLASSES, LOSS_WHERE, LOSS_AXIS, LOSS_OPTIONS, IGNORED, SCALE, SOLVED, LOSS_PLACES };

// Rows from this length on leave what was solved, where they are asked to: it is as large as 18 floats.
constexpr Index LEFT_FROM = 256;
constexpr Index SOLVED_NUMBERS = sizeof(Solved) / sizeof(double);

// The classes of a call, those that are ignored as 0 and noted.
struct Classes {
    std::vector<Index> index;
    std::vector<char> is_counted;  // empty: all are
    Index counted = 0;
};

// Points `array` at numbers of 8 bytes, whose shape is that of the scores without the normalised axis.
inline bool point_along_batch(Array& array, const Call& call, PyObject* object, nb::dlpack::dtype_code code) {
    Tensor tensor{};
    if (!look_at(object, tensor) || !is_of(tensor, code, 64) || tensor.ndim != call.batch_axes ||
        !std::equal(tensor.shape, tensor.shape + tensor.ndim, call.shape)) {
        return false;
    }
    for (int axis = 0; axis < tensor.ndim; ++axis) array.strides[axis] = tensor.strides[axis] * 8;
    array.data = first_of(tensor);
    return true;
}

// False where one is out of range.
inline bool read_classes(Classes& classes, const Call& call, PyObject* given, PyObject* ignored) {
    Array y;
    const int axes = call.batch_axes;
    if (!point_along_batch(y, call, given, nb::dlpack::dtype_code::Int)) return false;
    Index skipped = 0;
    const bool may_skip = ignored != Py_None;
    if (may_skip && !(PyLong_CheckExact(ignored) && read_integer(ignored, skipped))) return false;
    const Index rows = product(call.shape, axes), length = call.shape[axes];
    classes.index.resize(static_cast<std::size_t>(rows));
    return take_each<Index>(call, y, [&](Index row, Index index) {
        const auto place = static_cast<std::size_t>(row);
        if (may_skip && index == skipped) {
            if (classes.is_counted.empty()) classes.is_counted.assign(static_cast<std::size_t>(rows), 1);
            classes.is_counted[place] = 0;
            return true;
        }
        classes.index[place] = index;
        ++classes.counted;
        return index >= 0 && index < length;
    });
}

// Divides scales by the temperatures of their rows.
inline void divide_by_temperature(const Call& call, std::vector<double>& scales) {
    if (call.temperature.rows.data == nullptr) {
        for (double& scale : scales) scale /= call.temperature.fixed;
        return;
    }
    take_each<double>(call, call.temperature.rows, [&](Index row, double temperature) {
        scales[static_cast<std::size_t>(row)] /= temperature;
        return true;
    });
}

// What residuals are multiplied with: a float, or a tensor of one float64 a row; with the temperature and the sign of the
// scores in it, and 0 where a row does not count.
inline bool read_scale(Call& call, std::vector<double>& scales, const Classes& classes, PyObject* object) {
    const double sign = call.negated ? -1.0 : 1.0;
    const bool is_fixed = PyFloat_CheckExact(object);
    const double fixed = is_fixed ? PyFloat_AsDouble(object) : 0.0;
    if (is_fixed && classes.is_counted.empty() && call.temperature.rows.data == nullptr) {
        call.scale.fixed = sign * fixed / call.temperature.fixed;
        return true;
    }
    scales.assign(classes.index.size(), fixed);
    if (!is_fixed) {
        Array numbers;
        if (!point_along_batch(numbers, call, object, nb::dlpack::dtype_code::Float)) return false;
        take_each<double>(call, numbers, [&](Index row, double number) {
            scales[static_cast<std::size_t>(row)] = number;
            return true;
        });
    }
    for (std::size_t row = 0; row < scales.size(); ++row) {
        const bool counts = classes.is_counted.empty() || classes.is_counted[row] != 0;
        scales[row] = counts ? sign * scales[row] : 0.0;
    }
    divide_by_temperature(call, scales);
    point_along_rows(call.scale.rows, call, scales.data());
    return true;
}

inline bool read_loss_call(Call& call, Seen& seen, Classes& classes, const ShortCut& known, PyObject* const* given) {
    return has_method(known.map, Method::loss_of_index) &&
           read_tensor_known(call, seen, known, given[LOSS_X], given[LOSS_AXIS], given[LOSS_OPTIONS]) &&
           read_tensor_where(call, seen, given[LOSS_WHERE]) &&
           read_classes(classes, call, given[LOSS_CLASSES], given[IGNORED]);
}

// What the way there has left, one row of numbers for each of the call; None: nothing. False for anything else.
inline bool read_solved(Call& call, PyObject* object) {
    if (object == Py_None) return true;
    Tensor tensor{};
    if (!look_at(object, tensor) || !is_of(tensor, nb::dlpack::dtype_code::Float, 64) || tensor.ndim != 2) return false;
    if (tensor.shape[0] != product(call.shape, call.batch_axes) || tensor.shape[1] != SOLVED_NUMBERS) return false;
    if (tensor.strides[0] != SOLVED_NUMBERS || tensor.strides[1] != 1) return false;
    call.solved = reinterpret_cast<Solved*>(first_of(tensor));
    return true;
}

// A new array of so many numbers for each row of a call, all 0, or null with an exception set.
inline PyObject* numbers_for_rows(const Call& call, Index numbers) {
    npy_intp shape[] = {static_cast<npy_intp>(product(call.shape, call.batch_axes)), static_cast<npy_intp>(numbers)};
    return PyArray_ZEROS(numbers > 1 ? 2 : 1, shape, NPY_DOUBLE, 0);
}

// A new reference to the gradient, None where that is declined, or null with an exception set.
inline PyObject* run_gradient(Call& call, const Seen& seen, const Classes& classes, PyObject* const* given) {
    std::vector<double> scales;
    call.method = Method::residual_of_index;
    if (!read_scale(call, scales, classes, given[SCALE]) || !read_solved(call, given[SOLVED])) Py_RETURN_NONE;
    return run_into_tensor(call, seen, given[LOSS_X]);
}

// A new reference to the losses, how many count, and what was solved, if that is asked for; or null with an exception set.
inline PyObject* run_losses(Call& call, const Classes& classes, PyObject* asked) {
    call.method = Method::loss_of_index;
    const bool is_sparse = call.map != Map::softmax && !(call.map == Map::entmax && call.alpha.fixed == 1.0);
    const bool leaves = asked == Py_True && is_sparse && call.alpha.rows.data == nullptr && call.shape[call.batch_axes] >= LEFT_FROM;
    const nb::object losses = nb::steal(numbers_for_rows(call, 1));
    const nb::object solved = leaves ? nb::steal(numbers_for_rows(call, SOLVED_NUMBERS)) : nb::none();
    if (!losses.is_valid() || !solved.is_valid() || !ask_threads(call)) return nullptr;
    auto* const values = static_cast<double*>(PyArray_DATA(array_of(losses.ptr())));
    point_along_rows(call.result, call, values);
    if (leaves) call.solved = static_cast<Solved*>(PyArray_DATA(array_of(solved.ptr())));
    if (!is_run(call)) return nullptr;
    for (std::size_t row = 0; row < classes.is_counted.size(); ++row) {
        if (classes.is_counted[row] == 0) values[row] = 0.0;
    }
    return Py_BuildValue("(OLO)", losses.ptr(), static_cast<long long>(classes.counted), solved.ptr());
}

// lose(x, y, where, axis, options, ignored, scale, solved) of a map.
inline PyObject* lose(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
    if (count != LOSS_PLACES) {
        PyErr_SetString(PyExc_TypeError, "lose takes x, y, where, axis, options, ignored, scale and solved");
        return nullptr;
    }
    const auto* known = static_cast<const ShortCut*>(PyCapsule_GetPointer(self, nullptr));
    if (known == nullptr) return nullptr;
    try {
        Call call;
        Seen seen;
        Classes classes;
        if (!read_loss_call(call, seen, classes, *known, arguments)) Py_RETURN_NONE;
        point_along_rows(call.index, call, classes.index.data());
        if (arguments[SCALE] == Py_None) return run_losses(call, classes, arguments[SOLVED]);
        return run_gradient(call, seen, classes, arguments);
    } catch (const std::bad_alloc&) {
        return PyErr_NoMemory();
    }
}

inline PyMethodDef LOSE = {"lose", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&lose)), METH_FASTCALL,
                    "lose(x, y, where, axis, options, ignored, scale, solved): without a scale the losses of the rows, how many "
                    "count, and what was solved where `solved` is True; with one the gradient, from what was solved if it is "
                    "given; or None for any other call."};

inline nb::object loss_cut(int map, bool negated, bool takes_alpha, double alpha) {
    return function_of(LOSE, map, negated, takes_alpha, alpha);
}

}  // namespace softplex
