// NumPy arrays and numbers as every binding of the module tells them. No call is read here.
#pragma once

#include <nanobind/nanobind.h>
#include <numpy/arrayobject.h>

#include <atomic>
#include <string>

#include "call.h"

namespace softplex {

namespace nb = nanobind;

inline std::atomic<int> bfloat16_number{-1};

inline PyArrayObject* array_of(PyObject* object) { return reinterpret_cast<PyArrayObject*>(object); }

[[noreturn]] inline void refuse(const char* name, const std::string& why) {
    throw nb::value_error((std::string(name) + " " + why).c_str());
}

inline bool is_native(PyArrayObject* array) { return PyArray_ISNBO(PyArray_DESCR(array)->byteorder); }

inline bool is_of_type(PyArrayObject* array, Type type) {
    const int number = PyArray_TYPE(array);
    switch (type) {
        case Type::float64: return number == NPY_DOUBLE;
        case Type::float32: return number == NPY_FLOAT;
        case Type::float16: return number == NPY_HALF;
        case Type::bfloat16: return number == bfloat16_number.load(std::memory_order_relaxed);
    }
    return false;
}

template <class Enum>
inline Enum read_enum(int number, Enum last, const char* name) {
    if (number < 0 || number > static_cast<int>(last)) refuse(name, "is not known");
    return static_cast<Enum>(number);
}

}  // namespace softplex
