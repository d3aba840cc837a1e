// The commonest calls on NumPy arrays, read without nanobind and without Python, since here each 10 ns count. What is not certainly
// right is declined, and is Python's to judge: a reader gives false for it and raises nothing.
#pragma once

#include <nanobind/nanobind.h>
#include <numpy/arrayobject.h>

#include <cstdint>
#include <limits>

#include "arrays.h"
#include "layout.h"
#include "running.h"

namespace softplex {

// What a short cut knows of its map.
struct ShortCut {
    Map map;
    bool negated;
    bool takes_alpha;
    double alpha;  // where a call gives none
};

// Interned, as literals and keywords are: told by their address, and one that is not among them is declined.
struct Names {
    PyObject *value, *vjp, *jvp, *backward, *temperature, *where, *sink, *empty, *zero, *nan, *dtype, *alpha;
};
inline Names names{};

// The arrays of a call that is being read.
struct Given {
    PyArrayObject* x = nullptr;
    PyArrayObject* where = nullptr;
    PyArrayObject* out = nullptr;
    int axis = 0;
};

inline PyArrayObject* plain_array(PyObject* object) {
    if (!PyArray_CheckExact(object)) return nullptr;
    PyArrayObject* array = array_of(object);
    return PyArray_ISALIGNED(array) && is_native(array) ? array : nullptr;
}

// A plain array of a dtype and of the shape of x.
inline PyArrayObject* array_like(PyArrayObject* x, int type, PyObject* object) {
    PyArrayObject* array = plain_array(object);
    return array != nullptr && PyArray_TYPE(array) == type && PyArray_SAMESHAPE(array, x) ? array : nullptr;
}

inline bool read_type(PyArrayObject* array, Type& type) {
    for (const Type each : {Type::float32, Type::float64, Type::float16, Type::bfloat16}) {
        type = each;
        if (is_of_type(array, each)) return true;
    }
    return false;
}

inline bool read_axis(PyObject* object, int axes, int& axis) {
    if (!PyLong_Check(object)) return false;
    int overflow = 0;
    const long given = PyLong_AsLongAndOverflow(object, &overflow);
    if (overflow != 0 || given < -axes || given >= axes) return false;
    axis = static_cast<int>(given < 0 ? given + axes : given);
    return true;
}

inline bool read_number(PyObject* object, double& number) {
    if (PyFloat_CheckExact(object) || Py_TYPE(object) == &PyDoubleArrType_Type) {
        number = PyFloat_AsDouble(object);
        return true;
    }
    if (!PyLong_CheckExact(object)) return false;
    int overflow = 0;
    number = static_cast<double>(PyLong_AsLongAndOverflow(object, &overflow));
    return overflow == 0;
}

// The methods of short cuts by their names.
struct NamedMethod {
    PyObject* Names::*name;
    Method method;
};
constexpr NamedMethod METHODS[] = {{&Names::value, Method::value},
                                   {&Names::vjp, Method::vjp},
                                   {&Names::jvp, Method::jvp},
                                   {&Names::backward, Method::backward}};

inline bool read_method(PyObject* object, Method& method) {
    for (const NamedMethod& each : METHODS) {
        method = each.method;
        if (object == names.*each.name) return true;
    }
    return false;
}

inline bool read_empty(PyObject* object, double& empty) {
    empty = object == names.nan ? std::numeric_limits<double>::quiet_NaN() : 0.0;
    return object == names.nan || object == names.zero;
}

// Points `array` at one of the shape of x, the normalised axis last.
inline void point_along(Array& array, const Given& given, PyArrayObject* object) {
    int to = 0;
    for (int axis = 0; axis < PyArray_NDIM(object); ++axis) {
        if (axis != given.axis) array.strides[to++] = PyArray_STRIDE(object, axis);
    }
    array.strides[to] = PyArray_STRIDE(object, given.axis);
    array.data = PyArray_BYTES(object);
}

inline bool read_scores(Call& call, Given& given, PyObject* object, PyObject* axis) {
    given.x = plain_array(object);
    if (given.x == nullptr || !read_type(given.x, call.type) || PyArray_SIZE(given.x) == 0) return false;
    const int axes = PyArray_NDIM(given.x);
    if (axes > MAX_AXES || !read_axis(axis, axes, given.axis)) return false;
    for (int from = 0; from < axes; ++from) {
        if (from != given.axis) call.shape[call.batch_axes++] = PyArray_DIM(given.x, from);
    }
    call.shape[call.batch_axes] = PyArray_DIM(given.x, given.axis);
    point_along(call.x, given, given.x);
    return true;
}

inline bool read_operand(Call& call, const Given& given, PyObject* object) {
    if (call.method == Method::value) return object == Py_None;
    PyArrayObject* operand = array_like(given.x, PyArray_TYPE(given.x), object);
    if (operand != nullptr) point_along(call.operand, given, operand);
    return operand != nullptr;
}

inline bool read_where(Call& call, Given& given, PyObject* object) {
    if (object == Py_None) return true;
    given.where = array_like(given.x, NPY_BOOL, object);
    if (given.where != nullptr) point_along(call.mask, given, given.where);
    return given.where != nullptr;
}

inline bool is_temperature(double number) { return number > 0.0 && number < std::numeric_limits<double>::infinity(); }

inline bool read_option(Call& call, const ShortCut& known, PyObject* name, PyObject* value) {
    if (name == names.temperature) {
        return read_number(value, call.temperature.fixed) && is_temperature(call.temperature.fixed);
    }
    if (name == names.alpha) return known.takes_alpha && read_number(value, call.alpha.fixed);
    if (name == names.sink) {
        call.has_sink = value != Py_None;
        return !call.has_sink || read_number(value, call.sink.fixed);
    }
    if (name == names.empty) return read_empty(value, call.empty);
    return name == names.dtype && value == Py_None;
}

// The options of a call; `where` among them for arrays alone.
inline bool read_options(Call& call, Given* given, const ShortCut& known, PyObject* options) {
    if (!PyDict_CheckExact(options)) return false;
    call.alpha.fixed = known.alpha;
    PyObject *name = nullptr, *value = nullptr;
    Py_ssize_t position = 0;
    while (PyDict_Next(options, &position, &name, &value)) {
        const bool is_where = given != nullptr && name == names.where;
        if (!(is_where ? read_where(call, *given, value) : read_option(call, known, name, value))) return false;
    }
    return call.alpha.fixed >= 1.0;
}

// The bytes among which the entries of an array lie.
struct Extent {
    std::uintptr_t begin, end;
};

inline Extent extent_of(PyArrayObject* array) {
    const auto data = reinterpret_cast<std::uintptr_t>(PyArray_DATA(array));
    Extent extent{data, data + static_cast<std::uintptr_t>(PyArray_ITEMSIZE(array))};
    for (int axis = 0; axis < PyArray_NDIM(array); ++axis) {
        const Index reach = PyArray_STRIDE(array, axis) * (PyArray_DIM(array, axis) - 1);
        (reach < 0 ? extent.begin : extent.end) += static_cast<std::uintptr_t>(reach);
    }
    return extent;
}

inline bool are_apart(PyArrayObject* one, PyArrayObject* other) {
    const Extent a = extent_of(one), b = extent_of(other);
    return a.end <= b.begin || b.end <= a.begin;
}

inline bool lie_alike(PyArrayObject* one, PyArrayObject* other) {
    return PyArray_DATA(one) == PyArray_DATA(other) &&
           PyArray_CompareLists(PyArray_STRIDES(one), PyArray_STRIDES(other), PyArray_NDIM(one));
}

// Whether the result may be written to `out` while x is read row by row.
inline bool read_out(Given& given, PyObject* object) {
    if (object == Py_None) return true;
    given.out = array_like(given.x, PyArray_TYPE(given.x), object);
    if (given.out == nullptr || !PyArray_ISWRITEABLE(given.out)) return false;
    return (lie_alike(given.out, given.x) || are_apart(given.out, given.x)) &&
           (given.where == nullptr || are_apart(given.out, given.where));
}

inline PyArrayObject* new_like(PyArrayObject* x) {
    PyArray_Descr* descr = PyArray_DESCR(x);
    Py_INCREF(reinterpret_cast<PyObject*>(descr));
    return array_of(PyArray_NewFromDescr(&PyArray_Type, descr, PyArray_NDIM(x), PyArray_DIMS(x), nullptr, nullptr, 0,
                                         nullptr));
}

// Runs a call whose arrays are known; false with an exception set.
inline bool is_run(Call& call) {
    const Index entries = product(call.shape, call.batch_axes + 1);
    merge_axes(call);
    const Outcome outcome = run_unlocked_if_long(call, entries);
    if (outcome == Outcome::out_of_memory) PyErr_NoMemory();
    return outcome == Outcome::done;
}

// A new reference to the result, or null with an exception set.
inline PyObject* run_into(Call& call, const Given& given) {
    PyArrayObject* result = given.out == nullptr ? new_like(given.x) : given.out;
    if (result == nullptr) return nullptr;
    if (given.out != nullptr) Py_INCREF(reinterpret_cast<PyObject*>(result));
    call.is_result_new = given.out == nullptr && is_new(PyArray_NBYTES(result));
    point_along(call.result, given, result);
    if (is_run(call)) return reinterpret_cast<PyObject*>(result);
    Py_DECREF(reinterpret_cast<PyObject*>(result));
    return nullptr;
}

// quick(method, x, operand, axis, out, options) of a map, which is `self`.
inline PyObject* quick(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
    if (count != 6) {
        PyErr_SetString(PyExc_TypeError, "quick takes method, x, operand, axis, out and options");
        return nullptr;
    }
    const auto* known = static_cast<const ShortCut*>(PyCapsule_GetPointer(self, nullptr));
    if (known == nullptr) return nullptr;
    Call call;
    Given given;
    call.map = known->map;
    call.negated = known->negated;
    call.threads = thread_count.load(std::memory_order_relaxed);
    if (!only_formulas && read_method(arguments[0], call.method) &&
        read_scores(call, given, arguments[1], arguments[3]) && read_operand(call, given, arguments[2]) &&
        read_options(call, &given, *known, arguments[5]) && read_out(given, arguments[4]) && is_known_from_weights(call)) {
        return run_into(call, given);
    }
    Py_INCREF(Py_None);
    return Py_None;
}

inline PyMethodDef QUICK = {"quick", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&quick)), METH_FASTCALL,
                     "quick(method, x, operand, axis, out, options): the commonest calls, or None for any other."};

// A function of a map, which it has as its `self`.
inline nb::object function_of(PyMethodDef& definition, int map, bool negated, bool takes_alpha, double alpha) {
    const Map known = read_enum(map, Map::entmax, "map");
    const nb::capsule self(new ShortCut{known, negated, takes_alpha, alpha},
                           [](void* each) noexcept { delete static_cast<ShortCut*>(each); });
    nb::object function = nb::steal(PyCFunction_NewEx(&definition, self.ptr(), nullptr));
    if (!function.is_valid()) throw nb::python_error();
    return function;
}

inline nb::object short_cut(int map, bool negated, bool takes_alpha, double alpha) {
    return function_of(QUICK, map, negated, takes_alpha, alpha);
}

inline PyObject* interned(const char* name) {
    PyObject* string = PyUnicode_InternFromString(name);
    if (string == nullptr) throw nb::python_error();
    return string;
}

inline void intern_names() {
    names = {interned("value"), interned("vjp"),  interned("jvp"),   interned("backward"), interned("temperature"),
             interned("where"), interned("sink"), interned("empty"), interned("zero"),     interned("nan"),
             interned("dtype"), interned("alpha")};
}

}  // namespace softplex
