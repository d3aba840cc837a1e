// The commonest calls on tensors, of which no library is known here: each tells about itself by the table of its class, and their
// library makes results. What is not certainly right is declined, as in short_cuts.h.
#pragma once

#include <nanobind/nanobind.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

#include "exchange.h"
#include "short_cuts.h"

namespace softplex {

inline bool is_same_name(PyObject* object, PyObject* name) {
    return object == name || (PyUnicode_CheckExact(object) && PyUnicode_Compare(object, name) == 0);
}

inline bool read_any_method(PyObject* object, Method& method) {
    if (read_method(object, method)) return true;
    for (const NamedMethod& each : METHODS) {
        method = each.method;
        if (is_same_name(object, names.*each.name)) return true;
    }
    return false;
}

inline bool read_integer(PyObject* object, Index& number) {
    if (!PyLong_Check(object)) return false;
    int overflow = 0;
    number = PyLong_AsLongLongAndOverflow(object, &overflow);
    return overflow == 0;
}

constexpr struct {
    Type type;
    nb::dlpack::dtype_code code;
    int bits;
} TENSOR_TYPES[] = {{Type::float32, nb::dlpack::dtype_code::Float, 32},
                    {Type::bfloat16, nb::dlpack::dtype_code::Bfloat, 16},
                    {Type::float16, nb::dlpack::dtype_code::Float, 16},
                    {Type::float64, nb::dlpack::dtype_code::Float, 64}};

inline bool read_tensor_type(const Tensor& tensor, Type& type) {
    for (const auto& each : TENSOR_TYPES) {
        type = each.type;
        if (is_of(tensor, each.code, each.bits)) return true;
    }
    return false;
}

inline bool have_one_shape(const Tensor& one, const Tensor& other) {
    return one.ndim == other.ndim && std::equal(one.shape, one.shape + one.ndim, other.shape);
}

// Points `array` at a tensor of the shape of x, the normalised axis last.
inline void point_along(Array& array, const Tensor& tensor, int axis) {
    const Index bytes = tensor.dtype.bits / 8;
    int to = 0;
    for (int from = 0; from < tensor.ndim; ++from) {
        if (from != axis) array.strides[to++] = tensor.strides[from] * bytes;
    }
    array.strides[to] = tensor.strides[axis] * bytes;
    array.data = first_of(tensor);
}

// The tensors of a call that is being read, and in double precision the numbers of those that are its parameters.
struct Seen {
    Tensor x{};
    int axis = 0;
    std::vector<double> temperature, sink, alpha;
};

// Scores, their type, shape and axis; false for what has no entries.
inline bool read_tensor_scores(Call& call, Seen& seen, PyObject* object, PyObject* axis) {
    if (!look_at(object, seen.x) || !read_tensor_type(seen.x, call.type)) return false;
    if (seen.x.ndim > MAX_AXES || !read_axis(axis, seen.x.ndim, seen.axis)) return false;
    for (int from = 0; from < seen.x.ndim; ++from) {
        if (seen.x.shape[from] <= 0) return false;
        if (from != seen.axis) call.shape[call.batch_axes++] = seen.x.shape[from];
    }
    call.shape[call.batch_axes] = seen.x.shape[seen.axis];
    point_along(call.x, seen.x, seen.axis);
    return true;
}

// A tensor of the shape and dtype of the scores, or None.
inline bool read_tensor_like(Array& array, const Seen& seen, PyObject* object) {
    if (object == Py_None) return true;
    Tensor tensor{};
    if (!look_at(object, tensor) || !(tensor.dtype == seen.x.dtype) || !have_one_shape(tensor, seen.x)) return false;
    point_along(array, tensor, seen.axis);
    return true;
}

// Points `array` at a tensor whose entries repeat where the scores have more.
inline bool point_along_repeated(Array& array, const Tensor& tensor, const Seen& seen) {
    const int missing = seen.x.ndim - tensor.ndim;
    if (missing < 0) return false;
    Index strides[MAX_AXES] = {};
    for (int axis = missing; axis < seen.x.ndim; ++axis) {
        const Index length = tensor.shape[axis - missing];
        if (length != seen.x.shape[axis] && length != 1) return false;
        strides[axis] = length == 1 ? 0 : tensor.strides[axis - missing] * (tensor.dtype.bits / 8);
    }
    const auto place = strides + seen.axis;
    std::rotate(place, place + 1, strides + seen.x.ndim);
    std::copy_n(strides, seen.x.ndim, array.strides);
    array.data = first_of(tensor);
    return true;
}

// Which scores are taken: booleans of a shape that can be made that of the scores; None for all.
inline bool read_tensor_where(Call& call, const Seen& seen, PyObject* object) {
    if (object == Py_None) return true;
    Tensor tensor{};
    return look_at(object, tensor) && is_of(tensor, nb::dlpack::dtype_code::Bool, 8) &&
           point_along_repeated(call.mask, tensor, seen);
}

// The numbers of a tensor of floats, in C order and double precision.
template <class Number>
inline void copy_numbers(std::vector<double>& numbers, const Tensor& tensor) {
    Index position[MAX_AXES] = {};
    const char* at = first_of(tensor);
    for (double& each : numbers) {
        Number number{};
        std::memcpy(&number, at, sizeof number);
        each = static_cast<double>(number);
        for (int axis = tensor.ndim - 1; axis >= 0; --axis) {
            const Index stride = tensor.strides[axis] * static_cast<Index>(sizeof number);
            at += stride;
            if (++position[axis] < tensor.shape[axis]) break;
            at -= stride * tensor.shape[axis];
            position[axis] = 0;
        }
    }
}

// Points a parameter at copies of a tensor's numbers, which repeat where the call has more rows.
inline bool read_tensor_parameter(Parameter& parameter, std::vector<double>& numbers, const Seen& seen, PyObject* object) {
    Tensor tensor{};
    if (!look_at(object, tensor) || tensor.ndim > seen.x.ndim) return false;
    const bool is_wide = is_of(tensor, nb::dlpack::dtype_code::Float, 64);
    if (!is_wide && !is_of(tensor, nb::dlpack::dtype_code::Float, 32)) return false;
    const int along = seen.axis - (seen.x.ndim - tensor.ndim);
    if (along >= 0 && tensor.shape[along] != 1) return false;
    numbers.resize(static_cast<std::size_t>(product(tensor.shape, tensor.ndim)));
    is_wide ? copy_numbers<double>(numbers, tensor) : copy_numbers<float>(numbers, tensor);
    if (numbers.size() == 1) {
        parameter.fixed = numbers[0];
        return true;
    }
    Index strides[MAX_AXES] = {};
    Index stride = 1;
    for (int axis = tensor.ndim - 1; axis >= 0; --axis) {
        strides[axis] = stride;
        stride *= tensor.shape[axis];
    }
    tensor.data = numbers.data();
    tensor.byte_offset = 0;
    tensor.strides = strides;
    tensor.dtype.bits = 64;
    return point_along_repeated(parameter.rows, tensor, seen);
}

// Whether a test holds for each number of a parameter.
template <class Test>
inline bool holds_for_each(const Parameter& parameter, const std::vector<double>& numbers, Test test) {
    return parameter.rows.data == nullptr ? test(parameter.fixed) : std::all_of(numbers.begin(), numbers.end(), test);
}

inline bool read_tensor_option(Call& call, Seen& seen, const ShortCut& known, PyObject* name, PyObject* value) {
    if (!is_tensor(value)) return read_option(call, known, name, value);
    if (name == names.temperature) return read_tensor_parameter(call.temperature, seen.temperature, seen, value);
    if (name == names.alpha) return known.takes_alpha && read_tensor_parameter(call.alpha, seen.alpha, seen, value);
    if (name != names.sink) return false;
    call.has_sink = true;
    return read_tensor_parameter(call.sink, seen.sink, seen, value);
}

// The options of a call, whose parameters may be tensors.
inline bool read_tensor_options(Call& call, Seen& seen, const ShortCut& known, PyObject* options) {
    if (!PyDict_CheckExact(options)) return false;
    call.alpha.fixed = known.alpha;
    PyObject *name = nullptr, *value = nullptr;
    Py_ssize_t position = 0;
    while (PyDict_Next(options, &position, &name, &value)) {
        if (!read_tensor_option(call, seen, known, name, value)) return false;
    }
    return holds_for_each(call.temperature, seen.temperature, is_temperature) &&
           holds_for_each(call.alpha, seen.alpha, [](double alpha) { return alpha >= 1.0; });
}

// The map, the options and the scores of a call on tensors.
inline bool read_tensor_known(Call& call, Seen& seen, const ShortCut& known, PyObject* x, PyObject* axis, PyObject* options) {
    call.map = known.map;
    call.negated = known.negated;
    return !only_formulas && read_tensor_scores(call, seen, x, axis) && read_tensor_options(call, seen, known, options);
}

// As many threads as the library of tensors would take, of which a small call needs but one; false with an exception set.
inline bool ask_threads(Call& call) {
    if (product(call.shape, call.batch_axes + 1) < ALONE_BELOW) return true;
    const nb::object answer = nb::steal(PyObject_CallNoArgs(exchange().threads));
    const long threads = answer.is_valid() ? PyLong_AsLong(answer.ptr()) : -1;
    if (threads == -1 && PyErr_Occurred()) return false;
    call.threads = static_cast<int>(std::clamp<long>(threads, 1, std::numeric_limits<int>::max()));
    return true;
}

// A new tensor for the result, like the scores. Null with an exception set, or without one where the library makes another
// or none, as for want of memory: then the call is declined.
inline nb::object new_tensor_for(Call& call, const Seen& seen, PyObject* x) {
    call.is_result_new = is_new(product(call.shape, call.batch_axes + 1) * bytes_of(call.type));
    PyObject* make = call.is_result_new ? exchange().large_like : exchange().new_like;
    nb::object result = nb::steal(PyObject_Vectorcall(make, &x, 1, nullptr));
    if (!result.is_valid()) {
        if (PyErr_ExceptionMatches(PyExc_RuntimeError)) PyErr_Clear();
        return result;
    }
    if (!read_tensor_like(call.result, seen, result.ptr()) || call.result.data == nullptr) result.reset();
    return result;
}

// A new reference to the result, or to None where that is declined, or null with an exception set.
inline PyObject* run_into_tensor(Call& call, const Seen& seen, PyObject* x) {
    if (!ask_threads(call)) return nullptr;
    nb::object result = new_tensor_for(call, seen, x);
    if (!result.is_valid()) {
        if (PyErr_Occurred()) return nullptr;
        Py_RETURN_NONE;
    }
    return is_run(call) ? result.release().ptr() : nullptr;
}

// What `cut` takes, in this order.
enum Place { METHOD, X, OPERAND, WHERE, AXIS, OPTIONS, PLACES };

inline bool read_tensor_call(Call& call, Seen& seen, const ShortCut& known, PyObject* const* given) {
    return read_any_method(given[METHOD], call.method) &&
           read_tensor_known(call, seen, known, given[X], given[AXIS], given[OPTIONS]) &&
           read_tensor_like(call.operand, seen, given[OPERAND]) && read_tensor_where(call, seen, given[WHERE]) &&
           (call.operand.data != nullptr) == (call.method != Method::value) && is_known_from_weights(call);
}

// cut(method, x, operand, where, axis, options) of a map.
inline PyObject* cut(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
    if (count != PLACES) {
        PyErr_SetString(PyExc_TypeError, "cut takes method, x, operand, where, axis and options");
        return nullptr;
    }
    const auto* known = static_cast<const ShortCut*>(PyCapsule_GetPointer(self, nullptr));
    if (known == nullptr) return nullptr;
    try {
        Call call;
        Seen seen;
        if (!read_tensor_call(call, seen, *known, arguments)) Py_RETURN_NONE;
        return run_into_tensor(call, seen, arguments[X]);
    } catch (const std::bad_alloc&) {
        return PyErr_NoMemory();
    }
}

inline PyMethodDef CUT = {"cut", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&cut)), METH_FASTCALL,
                   "cut(method, x, operand, where, axis, options): the commonest calls on tensors, or None for any other."};

// What `tell` takes, in this order.
enum ToldPlace { PARAMETER, WEIGHTS, COTANGENT, SCORES, TOLD_AXIS, TOLD_OPTIONS, TOLD_PLACES };

// What is told of a parameter: by the weights and a cotangent, or by the gradient of a loss alone.
inline bool read_told(PyObject* name, bool is_of_loss, Method& method) {
    if (is_same_name(name, names.temperature)) {
        method = is_of_loss ? Method::of_temperature_from_gradient : Method::of_temperature;
        return true;
    }
    method = is_same_name(name, names.sink) ? Method::of_sink : Method::of_alpha;
    return !is_of_loss && (method == Method::of_sink || is_same_name(name, names.alpha));
}

inline bool read_told_call(Call& call, Seen& seen, const ShortCut& known, PyObject* const* given) {
    if (!read_told(given[PARAMETER], given[COTANGENT] == Py_None, call.method) || !has_method(known.map, call.method)) return false;
    if (!read_tensor_known(call, seen, known, given[WEIGHTS], given[TOLD_AXIS], given[TOLD_OPTIONS])) return false;
    if (bytes_of(call.type) == 2 || !read_tensor_like(call.operand, seen, given[COTANGENT])) return false;
    if (!takes_scores(call.method)) return is_known_from_weights(call);
    return read_tensor_like(call.scores, seen, given[SCORES]) && call.scores.data != nullptr && is_known_from_weights(call);
}

// A new array of one number a row in the shape of the scores, of length 1 along the normalised axis; null with an exception set.
inline nb::object new_numbers_for(Call& call, const Seen& seen) {
    npy_intp shape[MAX_AXES] = {};
    for (int axis = 0; axis < seen.x.ndim; ++axis) shape[axis] = axis == seen.axis ? 1 : static_cast<npy_intp>(seen.x.shape[axis]);
    nb::object numbers = nb::steal(PyArray_SimpleNew(seen.x.ndim, shape, NPY_DOUBLE));
    if (numbers.is_valid()) point_along_rows(call.result, call, PyArray_DATA(array_of(numbers.ptr())));
    return numbers;
}

// tell(parameter, p, g, scores, axis, options) of a map.
inline PyObject* tell(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
    if (count != TOLD_PLACES) {
        PyErr_SetString(PyExc_TypeError, "tell takes parameter, p, g, scores, axis and options");
        return nullptr;
    }
    const auto* known = static_cast<const ShortCut*>(PyCapsule_GetPointer(self, nullptr));
    if (known == nullptr) return nullptr;
    try {
        Call call;
        Seen seen;
        if (!read_told_call(call, seen, *known, arguments)) Py_RETURN_NONE;
        if (!ask_threads(call)) return nullptr;
        nb::object numbers = new_numbers_for(call, seen);
        return numbers.is_valid() && is_run(call) ? numbers.release().ptr() : nullptr;
    } catch (const std::bad_alloc&) {
        return PyErr_NoMemory();
    }
}

inline PyMethodDef TELL = {"tell", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&tell)), METH_FASTCALL,
                           "tell(parameter, p, g, scores, axis, options): what a cotangent g of the weights p says of a parameter, or, "
                           "without one, a loss's gradient p of the temperature; one number a row, or None for any other call."};

inline nb::object parameter_cut(int map, bool negated, bool takes_alpha, double alpha) {
    return function_of(TELL, map, negated, takes_alpha, alpha);
}

inline nb::object tensor_cut(int map, bool negated, bool takes_alpha, double alpha) {
    return function_of(CUT, map, negated, takes_alpha, alpha);
}

}  // namespace softplex
