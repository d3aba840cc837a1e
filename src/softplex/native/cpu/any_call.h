// Any call of a kernel on NumPy arrays. What could crash the process is refused here; what the arguments of a map mean is checked in
// Python.
#pragma once

#include <nanobind/nanobind.h>
#include <numpy/arrayobject.h>

#include <new>
#include <string>

#include "arrays.h"
#include "layout.h"
#include "running.h"

namespace softplex {

inline bool holds(PyArrayObject* array, Element element, Type type) {
    if (!is_native(array)) return false;
    switch (element) {
        // A tensor's bfloat16 come as their bits.
        case Element::of_type:
            return is_of_type(array, type) || (type == Type::bfloat16 && PyArray_TYPE(array) == NPY_USHORT);
        case Element::float64: return PyArray_TYPE(array) == NPY_DOUBLE;
        case Element::int64: return PyTypeNum_ISSIGNED(PyArray_TYPE(array)) && PyArray_ITEMSIZE(array) == 8;
        case Element::boolean: return PyArray_TYPE(array) == NPY_BOOL;
    }
    return false;
}

inline const char* described(Element element) {
    switch (element) {
        case Element::of_type: return "the dtype that type names";
        case Element::float64: return "float64";
        case Element::int64: return "int64";
        case Element::boolean: return "bool";
    }
    return "";
}

// Points `array` at an ndarray whose shape is that of the call's first `axes` axes.
inline void point_at(Array& array, const Call& call, int axes, Element element, const char* name, PyObject* object) {
    if (!PyArray_Check(object)) refuse(name, "is not an ndarray");
    PyArrayObject* given = array_of(object);
    if (!holds(given, element, call.type)) {
        refuse(name, std::string("does not hold ") + described(element) + " in native byte order");
    }
    bool fits = PyArray_NDIM(given) == axes;
    for (int axis = 0; fits && axis < axes; ++axis) {
        fits = PyArray_DIM(given, axis) == call.shape[axis];
        array.strides[axis] = PyArray_STRIDE(given, axis);
    }
    if (!fits) refuse(name, "has the wrong shape");
    array.data = PyArray_BYTES(given);
}

inline void point_at_shape(Array& array, const Call& call, Shape shape, Element element, const char* name, PyObject* object) {
    if ((shape == Shape::none) != (object == Py_None)) {
        refuse(name, shape == Shape::none ? "has no meaning for this method" : "is missing");
    }
    if (shape == Shape::none) return;
    const int axes = call.batch_axes + (shape == Shape::entries ? call.row_axes : 0);
    point_at(array, call, axes, element, name, object);
}

inline void read_parameter(Parameter& parameter, const Call& call, const char* name, PyObject* object) {
    if (PyFloat_Check(object)) {
        parameter.fixed = PyFloat_AsDouble(object);
    } else {
        point_at(parameter.rows, call, call.batch_axes, Element::float64, name, object);
    }
}

inline void read_shape(Call& call, PyObject* object, int row_axes) {
    if (!PyArray_Check(object)) refuse("x", "is not an ndarray");
    PyArrayObject* x = array_of(object);
    const int axes = PyArray_NDIM(x);
    if (axes > MAX_AXES) refuse("x", "has too many axes");
    if (row_axes < 1 || row_axes > axes) refuse("row_axes", "must be at least 1 and at most the number of x's axes");
    call.row_axes = row_axes;
    call.batch_axes = axes - row_axes;
    for (int axis = 0; axis < axes; ++axis) call.shape[axis] = PyArray_DIM(x, axis);
}

// Whether every index names an entry of its row. The axes of the call may be merged.
inline bool are_indices_in_range(const Call& call) {
    const Index length = product(call.shape + call.batch_axes, call.row_axes);
    return take_each<Index>(call, call.index, [&](Index, Index index) { return index >= 0 && index < length; });
}

inline void raise_unless_done(Outcome outcome) {
    if (outcome == Outcome::out_of_memory) throw std::bad_alloc();
    if (outcome == Outcome::interrupted) throw nb::python_error();
}

inline void run_any(int map, int method, int type, bool negated, int row_axes, int threads, double empty, nb::handle x,
             nb::handle operand, nb::handle index, nb::handle mask, nb::handle result, nb::handle temperature,
             nb::handle sink, nb::handle alpha, nb::handle scale, bool is_result_made, nb::handle scores) {
    Call call;
    call.map = read_enum(map, Map::maxout, "map");
    call.method = read_enum(method, Method::conjugate_by_alpha, "method");
    call.type = read_enum(type, Type::bfloat16, "type");
    if (!has_method(call.map, call.method)) refuse("method", "is not one that this map has");
    call.negated = negated;
    call.empty = empty;
    call.threads = threads < 1 ? 1 : threads;
    call.has_sink = !sink.is_none();

    const Layout layout = layout_of(call.map, call.method);
    read_shape(call, x.ptr(), row_axes);
    point_at_shape(call.x, call, Shape::entries, Element::of_type, "x", x.ptr());
    point_at_shape(call.operand, call, layout.operand, Element::of_type, "operand", operand.ptr());
    point_at_shape(call.index, call, layout.index, Element::int64, "index", index.ptr());
    const Shape of_scores = takes_scores(call.method) ? Shape::entries : Shape::none;
    point_at_shape(call.scores, call, of_scores, Element::of_type, "scores", scores.ptr());
    if (!mask.is_none()) point_at_shape(call.mask, call, Shape::entries, Element::boolean, "mask", mask.ptr());
    point_at_shape(call.result, call, layout.result, layout.element, "result", result.ptr());
    if (!PyArray_ISWRITEABLE(array_of(result.ptr()))) refuse("result", "is read-only");
    read_parameter(call.temperature, call, "temperature", temperature.ptr());
    if (call.has_sink) read_parameter(call.sink, call, "sink", sink.ptr());
    read_parameter(call.alpha, call, "alpha", alpha.ptr());
    read_parameter(call.scale, call, "scale", scale.ptr());
    if (is_scaled(call) && !takes_scale(call.method)) refuse("scale", "has no meaning for this method");
    if (!is_known_from_weights(call)) refuse("method", "has no meaning for a mask, nor for a sink of this map");

    if (PyArray_SIZE(array_of(result.ptr())) == 0) return;
    const Index entries = PyArray_SIZE(array_of(x.ptr()));
    call.is_result_new = is_result_made && is_new(PyArray_NBYTES(array_of(result.ptr())));
    merge_axes(call);
    if (call.index.data != nullptr && !are_indices_in_range(call)) refuse("index", "names no entry of its row");
    raise_unless_done(run_unlocked_if_long(call, entries));
}

}  // namespace softplex
